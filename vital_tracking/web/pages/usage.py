"""Pages about what was spent by one thing: users, services, agents, models, frameworks, organizations, workflows, panels.

Each shows all values of its dimension, and one of them where the URL names it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Final, TypeAlias

from vital_tracking.queries.explore import ANY, Explored
from vital_tracking.queries.words import counted
from vital_tracking.web import numbers
from vital_tracking.web.page import Card, Chart, Column, Page, Part
from vital_tracking.web.pages.common import by_time, name_of, ranking, time_column, with_rates
from vital_tracking.web.pages.overview import notices
from vital_tracking.web.view import View


@dataclass(frozen=True, slots=True)
class Subject:
    """What a page is about: its dimensions in the order of its table, its question, and what is shown of a single one.

    `needs` is a dimension without which calls do not belong here at all. `of_one` are dimensions by which one is broken down.
    """

    name: str
    dimensions: tuple[str, ...]
    question: str
    about: str
    of_one: Sequence[str]
    needs: str | None = None


_SUBJECTS: Final = (
    Subject("users", ("user",), "Who spends it?", "Users", ("service", "agent", "model", "message_type", "session")),
    Subject(
        "organizations",
        ("organization",),
        "Which organization spends it?",
        "Organizations",
        ("service", "user", "model", "agent"),
    ),
    Subject("services", ("service",), "Which service spends it?", "Services", ("agent", "model", "user", "kind")),
    Subject(
        "agents",
        ("agent", "tier"),
        "What does each agent cost, and is it reliable?",
        "Agents by tier",
        ("service", "model", "user", "error", "message_type"),
        needs="agent",
    ),
    Subject(
        "models",
        ("provider", "model"),
        "Which models are used, and what do they cost?",
        "Models",
        ("service", "agent", "user", "kind", "error"),
    ),
    Subject(
        "frameworks",
        ("framework", "message_type"),
        "Which frameworks make the calls?",
        "Frameworks and message types",
        ("service", "model", "agent"),
    ),
    Subject(
        "workflows",
        ("workflow", "step"),
        "What does each step of a workflow cost?",
        "Workflows by step",
        ("step", "agent", "model", "user", "status"),
        needs="workflow",
    ),
    Subject(
        "panels",
        ("panel", "seat", "agent"),
        "What does each seat of a panel cost?",
        "Panels by seat",
        ("seat", "agent", "model", "user"),
        needs="panel",
    ),
)
SUBJECTS: Final[Mapping[str, Subject]] = {subject.name: subject for subject in _SUBJECTS}


Builder: TypeAlias = Callable[[], Part]
Builders: TypeAlias = Mapping[str, Builder]
"""What builds the parts of a page, by their ids."""


def page(view: View, name: str, more: Builders = MappingProxyType({})) -> Page:
    """The page of a subject, about all of its values or, where the URL names one, about that; `more` are further parts."""
    subject = SUBJECTS[name]
    about = next((d for d in reversed(subject.dimensions) if d in view.asked.only), None)
    one = view.asked.only[about] if about else None
    if subject.needs is not None and subject.needs not in view.asked.filters:
        view = replace(view, asked=view.asked.filtered(**{subject.needs: ANY}))
    parts = view.parts({**_parts(view, subject, one), **more})
    if view.part is not None:
        return Page(name, "", "", parts=parts)
    total = view.explore(
        *([about] if about else []),
        measures=("calls", "failed_calls", "unpriced_calls", "estimated_calls", "total_tokens", "total_cost", "success_rate",
                  "p50_latency_ms", "p95_latency_ms", "cache_savings"),
    )  # fmt: skip
    return Page(
        name,
        subject.question if about is None or one is None else _called(total, about, one),
        _lead(subject, one, total.total),
        cards=_cards(view, total.total),
        parts=parts,
        notices=notices(total.total),
        crumbs=[] if one is None else [(subject.about, f"{view.path(name)}?{view.asked.query(subject.dimensions)}")],
    )


def _called(found: Explored, dimension: str, one: str) -> str:
    """How one thing is called: by its newest name where it has one, with the id beside."""
    name = found.names.get(dimension, {}).get(one, one)
    return name if name == one else f"{name} ({one})"


def _parts(view: View, subject: Subject, one: str | None) -> Builders:
    if one is None:
        return {
            "days": partial(_by_day, view, subject.dimensions[0]),
            subject.name: partial(
                ranking, view, subject.name, subject.about, *subject.dimensions, page=subject.name, wide=True
            ),
        }
    return {
        "days": partial(_by_day, view, None),
        **{
            f"by-{dimension}": partial(ranking, view, f"by-{dimension}", _by(dimension), dimension, top=20)
            for dimension in subject.of_one
            if dimension not in view.asked.only
        },
    }


def _by(dimension: str) -> str:
    return f"By {dimension.replace('_', ' ')}"


def _lead(subject: Subject, one: str | None, total: Mapping[str, object]) -> str:
    calls = counted(int(str(total["calls"])), "call")
    spent = numbers.usd(total["total_cost"])  # type: ignore[arg-type]
    if one is None:
        return f"{subject.about}: {spent} for {calls} in this time."
    return f"{spent} for {calls} in this time."


def _cards(view: View, sums: Mapping[str, object]) -> list[Card]:
    total = with_rates(sums)
    return [
        Card("Calls", numbers.count(total["calls"]), link=view.keeping("calls")),
        Card(
            "Cost",
            numbers.usd(total["total_cost"]),
            numbers.usd_exact(total["total_cost"]),
            note=f"{numbers.usd(total['cost_per_call'])} a call",
        ),
        Card("Success rate", numbers.percent(total["success_rate"]), link=view.to("calls", status="error")),
        Card(
            "Latency",
            numbers.duration(total["p50_latency_ms"]),
            note=f"median; 95 % within {numbers.duration(total['p95_latency_ms'])}",
        ),
    ]


def _by_day(view: View, dimension: str | None) -> Part:
    grain = view.asked.grain
    if dimension is None:
        columns = [time_column(view), Column("calls", "Calls", "calls"), Column("total_cost", "Cost", "usd")]
        return Part(
            "days", f"Cost by {grain}", columns, by_time(view), Chart("area", grain, ("total_cost",)), wide=True
        )
    found = view.explore(grain, dimension, measures=("calls", "total_cost"), top=6, rows=10_000)
    name = name_of(found, dimension)
    rows = [{**row, "name": name(row)} for row in found.rows]
    days = view.asked.period.days if grain == "day" else []
    missing = set(days) - {row["day"] for row in rows if grain == "day"}
    if rows:
        rows = sorted(
            [
                *rows,
                *(
                    {"day": day, "name": rows[0]["name"], "calls": 0, "total_cost": rows[0]["total_cost"] * 0}
                    for day in missing
                ),
            ],
            key=lambda row: row[grain],
        )
    return Part(
        "days",
        f"Cost by {grain}",
        [
            time_column(view),
            Column("name", dimension.replace("_", " ").capitalize()),
            Column("total_cost", "Cost", "usd"),
            Column("calls", "Calls", "calls"),
        ],
        rows,
        Chart("bars", grain, ("total_cost",), series="name", stacked=True),
        wide=True,
    )
