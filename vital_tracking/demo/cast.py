"""Who takes part in the made-up history: organizations, users, agents, models, and what they work on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from vital_tracking.core.context import Agent

Service: TypeAlias = Literal["conversation", "panel", "workflow", "solution"]


@dataclass(frozen=True, slots=True)
class Model:
    """A model: how long it takes to its first token and for each token after it, in milliseconds."""

    provider: str
    name: str
    first_ms: float
    token_ms: float
    framework: str = "langchain"


GPT_5: Final = Model("openai", "gpt-5", 1900, 14)
GPT_5_MINI: Final = Model("openai", "gpt-5-mini", 800, 8)
GPT_4O: Final = Model("openai", "gpt-4o", 550, 11)
GPT_4O_MINI: Final = Model("openai", "gpt-4o-mini", 420, 7)
SONNET: Final = Model("anthropic", "claude-sonnet-4-5", 900, 13)
OPUS: Final = Model("anthropic", "claude-opus-4-5", 1500, 18)
HAIKU: Final = Model("anthropic", "claude-haiku-4-5", 400, 6)
FLASH: Final = Model("google", "gemini-2.5-flash", 350, 5)
SONAR: Final = Model("perplexity", "sonar", 1100, 9, "perplexity")
OWN: Final = Model("vllm", "northwind-triage-7b", 120, 4, "hybrid")
"""A model that the team runs itself: nobody has a price for it."""
EMBEDDING: Final = Model("openai", "text-embedding-3-small", 90, 0)


@dataclass(frozen=True, slots=True)
class Role:
    """An agent with the model that it speaks with, and the tokens that it takes and gives in a usual call.

    `presets` is the share of its conversations that begin with one of `buttons`, the same request each time; `trial` is a model
    that has one in five of them, to see whether it is as good.
    """

    agent: Agent
    model: Model
    reads: int
    writes: int
    presets: float = 0.18
    buttons: int = 12
    trial: Model | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a workflow: who does it; `embeds` is how many texts it looks up first."""

    id: str
    name: str
    role: Role
    embeds: int = 0
    fails: float = 0.02


@dataclass(frozen=True, slots=True)
class Workflow:
    """A workflow with its steps in their order."""

    id: str
    name: str
    steps: Sequence[Step]


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel with its seats."""

    id: str
    name: str
    seats: Sequence[Role]


@dataclass(frozen=True, slots=True)
class Organization:
    """An organization: `turns` on a working day at the end, `growth` a week up to there, `weekend` as a share of a working day.

    `users` are in the order of how much they do; `services` are shares. Clocks go by `zone`. `nightly` is a workflow that runs
    so many times each night, for nobody who waits.
    """

    id: str
    zone: str
    turns: float
    growth: float
    weekend: float
    users: Sequence[str]
    services: dict[Service, float]
    talkers: Sequence[Role]
    workflows: Sequence[Workflow]
    panels: Sequence[Panel]
    solution: tuple[str, str]
    monthly_usd: str
    tier_1_usd: str
    """What its budgets for a month are: of the organization, and of its agents of the first tier."""
    nightly: tuple[Workflow, int] | None = None


def _role(
    id: str,  # noqa: A002 - the word of the agent
    name: str,
    tier: str,
    title: str,
    model: Model,
    reads: int,
    writes: int,
    **more: Any,
) -> Role:
    return Role(Agent(id, name=name, tier=tier, role=title), model, reads, writes, **more)


_CARDIO = _role("cardio", "Cardiologist", "tier_1", "specialist", SONNET, 3200, 620)
_NEURO = _role("neuro", "Neurologist", "tier_1", "specialist", GPT_5, 2900, 780)
_PHARMA = _role("pharma", "Clinical pharmacist", "tier_2", "specialist", GPT_4O, 2100, 380, trial=GPT_4O_MINI)
_NURSE = _role("nurse", "Triage nurse", "tier_3", "triage", HAIKU, 1100, 190)
_ROUTER = _role("router", "Intake router", "tier_3", "router", OWN, 600, 40)
_SCRIBE = _role("scribe", "Letter writer", "tier_2", "writer", GPT_5_MINI, 2600, 900)

_ARCHIVIST = _role("archivist", "Archivist", "tier_2", "writer", SONNET, 4800, 420)

_COUNSEL = _role(
    "counsel", "Counsel for contracts and procurement", "tier_1", "lawyer", OPUS, 6200, 850, presets=0.7, buttons=2
)
_PARALEGAL = _role("paralegal", "Paralegal", "tier_2", "lawyer", SONNET, 4200, 520)
_RESEARCH = _role("research", "Case researcher", "tier_2", "researcher", SONAR, 900, 600)
_CLERK = _role("clerk", "Clerk", "tier_3", "clerk", FLASH, 1500, 220)

_ENGINEER = _role("engineer", "Code reviewer", "tier_1", "engineer", GPT_5, 5200, 950)
_HELPDESK = _role("helpdesk", "Help desk", "tier_3", "support", GPT_5_MINI, 1400, 260)
_ANALYST = _role("analyst", "Market analyst", "tier_2", "analyst", GPT_4O, 2300, 520)

ORGANIZATIONS: Final[tuple[Organization, ...]] = (
    Organization(
        "demo-northwind",
        "Europe/Berlin",
        turns=72,
        growth=0.045,
        weekend=0.22,
        users=(
            "mara-lindqvist", "tomas-oduya", "ines-calderon", "jonas-weber", "aylin-demir", "petra-novak", "samuel-adeyemi",
            "clara-hoffmann", "luca-moretti", "freya-andersen", "hugo-martin", "nadia-rahman", "wiebke-von-der-hohenhorst",
        ),
        services={"conversation": 0.62, "panel": 0.09, "workflow": 0.25, "solution": 0.04},
        talkers=(_CARDIO, _NURSE, _NURSE, _PHARMA, _NEURO),
        workflows=(
            Workflow(
                "intake",
                "Patient intake",
                (
                    Step("triage", "Triage", _NURSE),
                    Step("route", "Route", _ROUTER),
                    Step("history", "Read the history", _PHARMA, embeds=3),
                    Step("assess", "Assess", _CARDIO, fails=0.05),
                    Step("letter", "Write the letter", _SCRIBE),
                ),
            ),
            Workflow(
                "discharge",
                "Discharge letter",
                (
                    Step("collect", "Collect findings", _NURSE, embeds=2),
                    Step("draft", "Draft", _SCRIBE),
                    Step("check", "Check the medication", _PHARMA, fails=0.04),
                ),
            ),
        ),
        panels=(
            Panel("tumor-board", "Tumor board", (_CARDIO, _NEURO, _PHARMA)),
            Panel("second-opinion", "Second opinion", (_CARDIO, _NEURO)),
        ),
        solution=("care-plan", "Care plan"),
        monthly_usd="42",
        tier_1_usd="28",
        nightly=(Workflow("archive", "Summaries for the archive", (Step("summarize", "Summarize", _ARCHIVIST),)), 9),
    ),
    Organization(
        "demo-juniper",
        "America/New_York",
        turns=38,
        growth=0.03,
        weekend=0.08,
        users=("dana-whitfield", "marcus-bell", "priya-natarajan", "owen-gallagher", "rosa-jimenez", "lee-park", "hannah-stein"),
        services={"conversation": 0.48, "panel": 0.1, "workflow": 0.37, "solution": 0.05},
        talkers=(_PARALEGAL, _CLERK, _CLERK, _RESEARCH, _COUNSEL),
        workflows=(
            Workflow(
                "contract-review",
                "Contract review",
                (
                    Step("split", "Split into clauses", _CLERK, embeds=4),
                    Step("compare", "Compare with the playbook", _PARALEGAL),
                    Step("cases", "Look up cases", _RESEARCH, fails=0.06),
                    Step("opinion", "Write the opinion", _COUNSEL, fails=0.03),
                ),
            ),
        ),
        panels=(Panel("deal-room", "Deal room", (_COUNSEL, _PARALEGAL, _RESEARCH)),),
        solution=("due-diligence", "Due diligence"),
        monthly_usd="44",
        tier_1_usd="26",
    ),
    Organization(
        "demo-kestrel",
        "Asia/Tokyo",
        turns=24,
        growth=0.09,
        weekend=0.5,
        users=("haruka-sato", "kenji-mori", "emi-tanaka", "ben-okafor", "yuto-ito"),
        services={"conversation": 0.7, "panel": 0.08, "workflow": 0.2, "solution": 0.02},
        talkers=(_HELPDESK, _HELPDESK, _ENGINEER, _ANALYST),
        workflows=(
            Workflow(
                "pull-request",
                "Pull request review",
                (
                    Step("summary", "Summarize", _HELPDESK, embeds=1),
                    Step("review", "Review", _ENGINEER, fails=0.04),
                    Step("answer", "Answer", _HELPDESK),
                ),
            ),
        ),
        panels=(Panel("launch-board", "Launch board", (_ANALYST, _ENGINEER, _HELPDESK)),),
        solution=("launch-plan", "Launch plan"),
        monthly_usd="6",
        tier_1_usd="5",
    ),
)  # fmt: skip
