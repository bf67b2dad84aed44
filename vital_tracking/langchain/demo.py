"""The workload of `vital-tracking demo`: the four services, with a real LangGraph graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypedDict

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import RunnableConfig
from pydantic import SecretStr

from vital_tracking.core.context import Agent, step
from vital_tracking.errors import MissingExtra
from vital_tracking.langchain.fake import FakeUsageModel
from vital_tracking.scopes import Services

CARDIO = Agent("cardio", name="Cardiologist", tier="tier_1", role="expert")
LEGAL = Agent("legal", name="Counsel", tier="tier_2", role="reviewer")
MARKET = Agent("market", name="Market analyst", tier="tier_3", role="analyst")

QUESTION = "Which three checks come first? Answer in one sentence."


class Case(TypedDict, total=False):
    """The state of the demonstration's graph."""

    question: str
    findings: str
    report: str


def fake_models() -> dict[str, BaseChatModel]:
    """Models that cost nothing and report usage: one for each agent, and one that nobody has a price for."""
    return {
        "cardio": FakeUsageModel(
            responses=["Check pressure, rhythm and history."], model="gpt-4o", input_tokens=1840, output_tokens=212
        ),
        "legal": FakeUsageModel(
            responses=["Consent comes first."],
            provider="anthropic",
            model="claude-haiku-4-5",
            input_tokens=2210,
            output_tokens=164,
            cache_read_tokens=1536,
        ),
        "market": FakeUsageModel(
            responses=["Demand is steady."], model="gpt-4o-mini", input_tokens=930, output_tokens=88
        ),
        "reasoner": FakeUsageModel(
            responses=["In three steps."], model="o4-mini", input_tokens=1200, output_tokens=900, reasoning_tokens=640
        ),
        "in_house": FakeUsageModel(
            responses=["Done."], provider="in_house", model="house-llm-7b", input_tokens=400, output_tokens=50
        ),
    }


def real_models(keys: Mapping[str, str]) -> dict[str, BaseChatModel]:
    """Models of the providers whose keys are given, in place of the fake ones; empty without their packages."""
    models: dict[str, BaseChatModel] = {}
    if "OPENAI_API_KEY" in keys:
        try:
            from langchain_openai import ChatOpenAI
        except ImportError:
            pass
        else:
            small = ChatOpenAI(
                model="gpt-4o-mini",
                api_key=SecretStr(keys["OPENAI_API_KEY"]),
                max_completion_tokens=80,
                stream_usage=True,
            )
            models |= {"cardio": small, "market": small, "reasoner": small}
    if "ANTHROPIC_API_KEY" in keys:
        try:
            from langchain_anthropic import ChatAnthropic
        except ImportError:
            pass
        else:
            models["legal"] = ChatAnthropic(
                model_name="claude-haiku-4-5",
                api_key=SecretStr(keys["ANTHROPIC_API_KEY"]),
                max_tokens_to_sample=80,
                timeout=60,
                stop=None,
            )
    return models


def build_graph(models: Mapping[str, BaseChatModel]) -> Any:
    """A graph with named steps, two of them in a subgraph."""
    try:
        from langgraph.graph import END, START, StateGraph
    except ImportError:
        raise MissingExtra("agents", "The demonstration's workflow") from None

    def ask(name: str, key: str) -> Any:
        def node(state: Case, config: RunnableConfig) -> Case:
            answer = models[name].invoke(state.get("question", QUESTION), config=config)
            return {key: str(answer.content)}  # type: ignore[misc]

        return node

    research = StateGraph(Case)
    research.add_node("sources", ask("market", "findings"), metadata=step("sources"))
    research.add_node("weigh", ask("reasoner", "findings"), metadata=step("weigh"))
    research.add_edge(START, "sources")
    research.add_edge("sources", "weigh")
    research.add_edge("weigh", END)

    graph = StateGraph(Case)
    graph.add_node("triage", ask("cardio", "findings"), metadata=step("triage", name="Triage", agent=CARDIO))
    graph.add_node("research", research.compile())
    graph.add_node("report", ask("legal", "report"), metadata=step("report", name="Report", agent=LEGAL))
    graph.add_edge(START, "triage")
    graph.add_edge("triage", "research")
    graph.add_edge("research", "report")
    graph.add_edge("report", END)
    return graph.compile()


def run_demo(tracker: Services, models: Mapping[str, BaseChatModel], advance: Callable[[str], None]) -> None:
    """Run the four services once each; `advance` is told what comes next."""
    graph = build_graph(models)
    experts = {CARDIO: models["cardio"], LEGAL: models["legal"], MARKET: models["market"]}

    advance("1:1 conversation")
    for turn in range(3):
        with tracker.conversation(user_id="demo-user", session_id="demo-session", agent=CARDIO) as conversation:
            models["cardio"].invoke(f"Turn {turn + 1}. {QUESTION}", config=conversation.config())
    with tracker.conversation(user_id="demo-user", session_id="demo-session", agent=MARKET) as conversation:
        for _ in models["market"].stream(QUESTION, config=conversation.config()):
            pass
        models["in_house"].invoke(QUESTION, config=conversation.config())

    advance("virtual panel")
    with tracker.panel("launch-board", user_id="demo-user", members=list(experts), name="Launch board") as panel:
        for _ in range(2):
            for seat in panel.seats:
                experts[seat.agent].invoke(QUESTION, config=seat.config())

    advance("workflow")
    with tracker.workflow("intake", user_id="demo-user", name="Intake") as workflow:
        graph.invoke({"question": QUESTION}, config=workflow.config())

    advance("solution builder")
    with tracker.solution("care-plan", user_id="demo-user", name="Care plan") as solution:
        models["reasoner"].invoke(QUESTION, config=solution.config())
        with solution.workflow("intake", name="Intake") as workflow:
            graph.invoke({"question": QUESTION}, config=workflow.config())
        with solution.panel("review-board", members=[LEGAL, MARKET], name="Review board") as panel:
            for seat in panel.seats:
                experts[seat.agent].invoke(QUESTION, config=seat.config())
    advance("done")
