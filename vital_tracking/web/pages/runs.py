"""Service runs: a list of them, and the tree of what one cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

from typing_extensions import TypedDict

from vital_tracking.core.cost import ZERO
from vital_tracking.queries.filters import Filters
from vital_tracking.queries.run_nodes import RunAround, RunNode
from vital_tracking.queries.runs import RunRow, RunTree, run_place, service_runs
from vital_tracking.queries.words import counted
from vital_tracking.web import numbers
from vital_tracking.web.asked import Asked
from vital_tracking.web.listed import checked_place, runs_filters
from vital_tracking.web.page import Card, Column, Page, Part, Row
from vital_tracking.web.pages.calls import STATUS
from vital_tracking.web.pages.common import user_columns
from vital_tracking.web.view import View

_ROWS: Final = 100
_SLICES: Final = 6
_NEVER: Final = datetime(1970, 1, 1, tzinfo=UTC)
_KINDS: Final[Mapping[str, str]] = {
    "1:1_conversation": "conversation",
    "virtual_panel": "panel",
    "workflow": "workflow",
    "solution_builder": "solution",
}


class Listed(TypedDict):
    """Which runs a page lists, as `service_runs` takes it."""

    filters: Filters
    limit: int
    after: str | None
    nested: bool


def listed(asked: Asked, parameters: Mapping[str, str]) -> Listed:
    """Which runs were asked for; a Problem where there is no such place to go on from."""
    nested = parameters.get("nested") == "1" or bool(asked.filters)
    return Listed(filters=runs_filters(asked), limit=_ROWS, after=checked_place(parameters.get("after")), nested=nested)


def page(view: View, asked_for: Listed) -> Page:
    """The newest runs of a time."""
    rows = service_runs(view.store, **asked_for)
    more = f"{view.path('runs')}?{view.asked.here(after=run_place(rows[-1]))}" if len(rows) == _ROWS else None
    return Page(
        "runs",
        "What did each run cost?",
        "Conversation turns, panels, workflows and solutions, the newest first, with all that ran inside them.",
        parts=[runs_part(view, rows)],
        template="runs.html",
        extra={"older": more, "newest": f"{view.path('runs')}?{view.asked.here()}" if asked_for["after"] else None},
    )


def runs_part(view: View, rows: Sequence[RunRow]) -> Part:
    """Runs as a table."""
    users, shown = user_columns(view, [{**row, **_shown(row)} for row in rows])
    return Part(
        "runs",
        "Runs",
        [
            Column("name", "Run", link=lambda row: view.run(row["id"])),
            Column("started_at", "Began (UTC)", "moment"),
            *users,
            Column("calls", "Calls", "calls"),
            Column("total_tokens", "Tokens", "tokens"),
            Column("total_cost", "Cost", "usd"),
            Column("duration_ms", "Took", "ms"),
            Column("ended", "Ended", "flag"),
            Column("marks", "Notes", "flag"),
        ],
        shown,
        empty="No run in this time.",
        wide=True,
        sortable=False,
    )


def _shown(row: Row) -> dict[str, object]:
    name = row["service_name"] or row["workflow_id"] or row["panel_id"] or row["solution_id"] or row["service_id"]
    kind = _KINDS.get(row["service_type"], row["service_type"])
    marks = [
        f"{row[f'{what}_calls']:,} {what}"
        for what in ("failed", "blocked", "abandoned", "retried", "unpriced", "estimated")
        if row[f"{what}_calls"]
    ]
    return {
        "name": f"{kind} {name}" if name and name != row["service_type"] else kind,
        "ended": (STATUS.get(row["status"], "quiet"), row["error_type"] or row["status"]),
        "marks": ("quiet", ", ".join(marks)) if marks else None,
    }


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of a run in the strip of its cost: from `offset` on, both in percent."""

    name: str
    cost: str
    offset: float
    share: float
    share_text: str


@dataclass(frozen=True, slots=True)
class Drawn:
    """A node of the tree as it is drawn; a call needs no label.

    `offset` and `length` are its time in percent of the run's, `share` its cost's.
    """

    kind: str
    label: str
    name: str
    detail: str
    link: str | None
    badge: tuple[str, str] | None
    marks: str
    calls: int
    tokens: str
    cost: str
    took: str
    offset: float
    length: float
    share: float
    share_text: str
    children: tuple[Drawn, ...]


def tree_page(view: View, tree: RunTree) -> Page:
    """The tree of a run: what each part of it cost, and when it ran."""
    root = tree.root
    sums = root.sums
    begin, end = _span(root)
    names = [(_run_name(around), view.run(around["id"])) for around in tree.within]
    spent = f"{numbers.usd_exact(sums.total_cost)} for {counted(sums.calls, 'call')}"
    told = "" if tree.calls_told == sums.calls else f" The first {tree.calls_told:,} calls are told one by one."
    return Page(
        "runs",
        root.name,
        f"{_begun(root)}{spent}; the parts add up to it to the last digit.{told}",
        cards=[
            Card("Cost", numbers.usd(sums.total_cost), numbers.usd_exact(sums.total_cost), _unpriced(root)),
            Card(
                "Calls",
                numbers.count(sums.calls),
                note=f"{sums.retried_calls:,} of them retries" if sums.retried_calls else "",
            ),
            Card(
                "Tokens",
                numbers.compact(sums.total_tokens),
                note=f"{sums.prompt_tokens:,} in, {sums.completion_tokens:,} out",
            ),
            Card(
                "Took",
                numbers.duration(root.duration_ms),
                note=f"models {numbers.duration(sums.model_ms)} one after another",
            ),
        ],
        crumbs=[("Runs", view.path("runs")), *names],
        template="run.html",
        of_time=False,
        extra={
            "tree": _drawn(view, root, begin, (end - begin).total_seconds(), sums.total_cost, _places(root), None),
            "strip": _strip(root),
        },
    )


def _strip(root: RunNode) -> list[Slice]:
    """What the run's own parts cost, the dearest first; nothing where there is nothing to compare."""
    whole = root.sums.total_cost
    dear = sorted((child for child in root.children if child.sums.total_cost), key=lambda one: -one.sums.total_cost)
    if len(dear) < 2:
        return []
    costs = [(_named(child), child.sums.total_cost) for child in dear[:_SLICES]]
    if rest := dear[_SLICES:]:
        costs.append((f"{len(rest):,} others", sum((child.sums.total_cost for child in rest), ZERO)))
    slices, before = [], ZERO
    for name, cost in costs:
        share = cost / whole * 100
        offset = float(before / whole * 100)
        slices.append(Slice(name, numbers.usd(cost), round(offset, 3), round(float(share), 3), numbers.percent(share)))
        before += cost
    return slices


def _named(node: RunNode) -> str:
    return node.agent_name or node.name if node.kind in ("seat", "call") else node.name


def _begun(root: RunNode) -> str:
    """What kind of run it is, whose, and since when."""
    run = root.run
    if run is None:
        return ""
    kind = _KINDS.get(run["service_type"], run["service_type"]).capitalize()
    whose = f" of {run['user_id']}" if run["user_id"] else ""
    ended = "" if run["status"] == "ok" else f", {run['error_type'] or run['status']}"
    return f"{kind}{whose}, begun {numbers.moment(run['started_at'])} UTC{ended}: "


def _run_name(around: RunAround) -> str:
    kind = _KINDS.get(around["service_type"] or "", around["service_type"] or "")
    return f"{kind} {around['service_name'] or around['service_id'] or ''}".strip()


def _unpriced(node: RunNode) -> str:
    sums = node.sums
    said = []
    if sums.unpriced_calls:
        said.append(f"{sums.unpriced_calls:,} unpriced")
    if sums.estimated_calls:
        said.append(f"{sums.estimated_calls:,} estimated")
    return ", ".join(said)


def _span(root: RunNode) -> tuple[datetime, datetime]:
    begins = [node.started_at for node in (root, *root.leaves()) if node.started_at is not None]
    ends = [node.ended_at or node.started_at for node in (root, *root.leaves()) if node.started_at is not None]
    begin = min(begins) if begins else _NEVER
    return begin, max([end for end in ends if end is not None], default=begin)


def _places(node: RunNode) -> int:
    """How many digits the parts' costs have after the point: all of them, so that one can add them up."""
    _, _, digits = f"{node.sums.total_cost.normalize():f}".partition(".")
    return max([2, len(digits), *(_places(child) for child in node.children)])


def _drawn(
    view: View, node: RunNode, begin: datetime, seconds: float, whole: Decimal, places: int, seated: str | None
) -> Drawn:
    sums = node.sums
    agent = node.agent_name or node.agent_id
    # A seat is known by who sits there; its calls need not say it again.
    label, name = _called(node, agent)
    told = (node.model, agent if agent != seated else None)
    offset = length = 0.0
    if node.started_at is not None and seconds > 0:
        offset = (node.started_at - begin).total_seconds() / seconds * 100
        until = node.ended_at or node.started_at
        length = (until - node.started_at).total_seconds() / seconds * 100
    unpriced = bool(sums.calls) and sums.unpriced_calls == sums.calls
    link = None
    if node.kind == "call" and node.id is not None:
        link = view.path(f"calls/{node.id}")
    elif node.kind == "run" and node.run is not None:
        link = view.run(node.run["id"])
    marks = [
        f"{number:,} {what}"
        for what, number in (
            ("retried", sums.retried_calls),
            ("blocked", sums.blocked_calls),
            ("abandoned", sums.abandoned_calls),
            ("from cache", sums.cached_calls),
            ("unpriced", sums.unpriced_calls if not unpriced else 0),
            ("estimated", sums.estimated_calls),
        )
        if number
    ]
    badge = (
        (STATUS.get(node.status, "quiet"), node.error_type or node.status) if node.status not in (None, "ok") else None
    )
    return Drawn(
        kind=node.kind,
        label=label,
        name=name,
        detail=" · ".join(text for text in told if text and text != name),
        link=link,
        badge=badge,
        marks=", ".join(marks) if node.kind != "call" else ("retry" if sums.retried_calls else ""),
        calls=sums.calls,
        tokens=numbers.count(sums.total_tokens),
        cost="unpriced" if unpriced else f"${sums.total_cost:,.{places}f}",
        took=numbers.duration(node.duration_ms),
        offset=round(min(offset, 99.0), 3),
        length=round(max(length, 0.8), 3),
        share=round(float(sums.total_cost / whole * 100), 3) if whole else 0.0,
        share_text=numbers.percent(None if unpriced or not whole else sums.total_cost / whole * 100),
        children=tuple(
            _drawn(view, child, begin, seconds, whole, places, agent if node.kind == "seat" else seated)
            for child in node.children
        ),
    )


def _called(node: RunNode, agent: str | None) -> tuple[str, str]:
    """The label and the name of a node; a call, and what is called by its kind already, have no label."""
    if node.kind == "seat" and agent:
        return node.name, agent
    if node.run is not None:
        return _KINDS.get(node.run["service_type"], node.kind), node.name
    return "" if node.kind == "call" or node.name.startswith(node.kind) else node.kind, node.name
