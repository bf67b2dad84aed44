"""`vital-tracking runs` and `vital-tracking run`: service runs, and the tree of one, down to the single call."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Final

import typer

from vital_tracking.cli.render import filters
from vital_tracking.cli.render.amounts import cost_text
from vital_tracking.cli.render.columns import Column, fitted
from vital_tracking.cli.render.console import as_csv, as_json, console, drawable, printable, say
from vital_tracking.cli.render.options import after_place, either, named, words, zone
from vital_tracking.cli.render.session import Csv, Json, opened
from vital_tracking.cli.render.times import between, duration, month, short_time
from vital_tracking.core.record import RUN_STATUSES
from vital_tracking.queries.filters import Filters
from vital_tracking.queries.run_nodes import SUMS, RunNode
from vital_tracking.queries.runs import MOST_CALLS, RUN_COLUMNS, RunRow, RunTree, run_place, run_tree, service_runs
from vital_tracking.queries.words import counted

_UTC: Final = "UTC"


def runs(
    service: filters.Service = None,
    workflow: filters.Workflow = None,
    panel: filters.Panel = None,
    solution: filters.Solution = None,
    user: filters.User = None,
    session: filters.Session = None,
    organization: filters.Organization = None,
    agent: filters.Agent = None,
    status: Annotated[
        str | None,
        typer.Option(help=f"Only runs that are so: {either(RUN_STATUSES)}.", **words(RUN_STATUSES, "status")),
    ] = None,
    nested: Annotated[
        bool,
        typer.Option(
            "--nested", help="Also runs inside others; --service, --workflow and --panel list those by themselves."
        ),
    ] = False,
    since: filters.Since = None,
    until: filters.Until = None,
    month_: filters.Month = None,
    timezone: filters.Timezone = _UTC,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many, the newest first.")] = 20,
    after: Annotated[
        str | None, typer.Option(metavar="PLACE", help="The page after this run, as the page before it says.")
    ] = None,
    json_: Json = False,
    csv_: Csv = False,
) -> None:
    """Show service runs, the newest first: turns, panels, workflows and solutions, with calls, cost, time and outcome.

    What a run comes to includes what is nested in it. Times are those of UTC.

    \b
    Examples:
      vital-tracking runs --workflow intake --status error --since 7d
      vital-tracking runs --organization acme --month 2026-11 --csv > runs.csv
      vital-tracking run 0193f2c4
    """
    zoned = timezone if timezone == _UTC else zone(timezone)
    if month_ is not None and (since, until) != (None, None):
        raise typer.BadParameter("--month says all: leave --since and --until out")
    first, last = month(month_, zoned) if month_ is not None else between(since, until, zoned)
    wanted = Filters(
        service=service,
        workflow=workflow,
        panel=panel,
        solution=solution,
        user=user,
        session=session,
        organization=organization,
        agent=agent,
        status=status,
        since=first,
        until=last,
    )
    after_place(after)
    inner = nested or any(value is not None for value in (service, workflow, panel))
    with opened() as store:
        rows = service_runs(store, wanted, limit=limit, after=after, nested=inner)
    if json_:
        as_json(rows)
    elif csv_:
        as_csv(rows, RUN_COLUMNS)
    elif rows:
        console.print(fitted("", _COLUMNS, rows))
        if any(row["unpriced_calls"] for row in rows):
            say("* some calls have no known price and are in no amount here. Which: vital-tracking calls --unpriced")
        if len(rows) == limit:
            say(f"For the runs before these, the same with: --after {run_place(rows[-1])}")
        say("One of them: vital-tracking run ID (its beginning will do)")
    elif wanted.given or wanted.since or wanted.until or after:
        say("No runs match. All of them: vital-tracking runs --nested")
    else:
        say("No runs yet: `with tracker.workflow(...):` makes one. For some: vital-tracking demo")


_ROOM_FOR_IDS: Final = 140
_BEGINNING: Final = 18
"""How much of a UUID tells runs apart: its millisecond and a few random bits."""


def _run_id(run: str) -> str:
    """An id that can be copied: where there is no room for a whole UUID, its beginning, which commands take as well."""
    return run if len(run) != 36 or console.width >= _ROOM_FOR_IDS else run[:_BEGINNING]


def _cost(row: RunRow) -> str:
    cost = cost_text(row["total_cost"], row["calls"], row["unpriced_calls"], exact=False)
    return f"{cost}*" if row["unpriced_calls"] else cost


def _marks(row: RunRow) -> str:
    retried, blocked = row["retried_calls"], row["blocked_calls"]
    failed = row["failed_calls"] - blocked - row["abandoned_calls"]
    marks = {"failed": failed, "blocked": blocked, "abandoned": row["abandoned_calls"], "in retries": retried}
    return ", ".join(f"{number:,} {word}" for word, number in marks.items() if number)


_COLUMNS: Final = (
    Column("run", False, lambda row: _run_id(row["id"])),
    Column("started (UTC)", True, lambda row: short_time(row["started_at"])),
    Column("of", False, lambda row: row["service_name"] or row["service_id"] or row["service_type"]),
    Column("service", False, lambda row: row["service_type"], 3),
    Column("organization", False, lambda row: row["organization_id"] or "", 5),
    Column("user", False, lambda row: row["user_id"] or "", 4),
    Column("calls", True, lambda row: f"{row['calls']:,}"),
    Column("cost", True, _cost),
    Column("took", True, lambda row: duration(row["duration_ms"]), 1),
    Column("status", False, lambda row: f"{row['status']} {row['error_type'] or ''}".strip()),
    Column("calls that", False, _marks, 2),
)


def run(
    run_id: Annotated[
        str, typer.Argument(metavar="ID", help="The run's id, or its beginning where no other begins so.")
    ],
    calls: Annotated[
        int, typer.Option("--calls", min=0, max=100_000, help="How many calls are told one by one, the first ones.")
    ] = MOST_CALLS,
    exact: Annotated[bool, typer.Option("--exact", help="Show amounts to the last decimal.")] = False,
    json_: Json = False,
    csv_: Csv = False,
) -> None:
    """Show a service run as it was: the runs in it, their steps, nodes and attempts, seats of panels, and every call.

    What stands on a line is what all calls below it come to, so that the calls add up to the first line. A run's time is its own,
    that of other lines goes from the start of their first call to the end of the last.

    \b
    Examples:
      vital-tracking run 0193f2c4
      vital-tracking run 0193f2c4 --calls 0
    """
    run_id = named(run_id, "ID").strip()
    with opened() as store:
        tree = run_tree(store, run_id, max_calls=calls)
    if json_:
        as_json(tree)
    elif csv_:
        as_csv(list(_rows(tree)), _CSV)
    else:
        _show(tree, exact=exact)


def _show(tree: RunTree, *, exact: bool) -> None:
    for around in tree.within:
        name = around["service_name"] or around["service_id"] or around["service_type"]
        say(printable(f"in {around['service_type']} {name}: vital-tracking run {around['id']}"))
    root, facts = tree.root, tree.root.run
    whose = (
        [("organization", facts["organization_id"]), ("user", facts["user_id"]), ("session", facts["session_id"])]
        if facts
        else []
    )
    said = "".join(f", {word} {value}" for word, value in whose if value)
    at = f"{root.started_at:%Y-%m-%d %H:%M:%S} UTC" if root.started_at is not None else "at an unknown time"
    say(printable(f"Run {tree.id}, {at}{said}"))
    if facts is None:
        say("Only its calls are known: nobody recorded the run itself.")
    columns = (
        Column("", False, lambda line: f"{line[0]}{_label(line[1])}"),
        Column("calls", True, lambda line: f"{line[1].sums.calls:,}", 2),
        Column(
            "tokens",
            True,
            lambda line: f"{line[1].sums.total_tokens:,}{'~' if line[1].sums.estimated_calls else ''}",
            3,
        ),
        Column("cost", True, lambda line: _amount(line[1], exact=exact)),
        Column("took", True, lambda line: duration(line[1].duration_ms), 1),
        Column("", False, lambda line: _outcome(line[1])),
    )
    console.print(fitted("", columns, list(_lines(root))))
    sums = root.sums
    if sums.unpriced_calls:
        say(
            f"* {counted(sums.unpriced_calls, 'call')} without a known price, in no amount here. Which: "
            f"vital-tracking calls --unpriced --run {tree.id}"
        )
    if sums.estimated_calls:
        say(f"~ tokens of {counted(sums.estimated_calls, 'call')} are estimates: nobody reported them.")
    if calls_left(root):
        told = f"The first {tree.calls_told:,} calls" if tree.calls_told else "No calls"
        say(f"{told} are told one by one; for more: --calls {10 * max(tree.calls_told, 100)}")


def calls_left(root: RunNode) -> bool:
    """Whether some calls are not told one by one."""
    return any(leaf.kind == "calls" for leaf in root.leaves())


def _lines(root: RunNode) -> Iterator[tuple[str, RunNode]]:
    """Every node with the branches drawn before it."""
    branch, last, beam, blank = ("├─ ", "└─ ", "│  ", "   ") if drawable("├└│─") else ("|- ", "`- ", "|  ", "   ")
    stack: list[tuple[str, str, RunNode]] = [("", "", root)]
    while stack:
        before, own, node = stack.pop()
        yield before + own, node
        below = before + ("" if not own else blank if own == last else beam)
        for number, child in enumerate(reversed(node.children)):
            stack.append((below, last if number == 0 else branch, child))


def _label(node: RunNode) -> str:
    if node.kind == "run" and node.run is not None:
        return f"{node.run['service_type']} {node.name}"
    agent = node.agent_name or node.agent_id
    if node.kind in ("seat", "call", "calls") and agent:
        return f"{node.name}: {agent}"
    return f"{node.kind} {node.name}" if node.kind in ("step", "node", "run") else node.name


def _amount(node: RunNode, *, exact: bool) -> str:
    sums = node.sums
    cost = cost_text(sums.total_cost, sums.calls, sums.unpriced_calls, exact=exact)
    return f"{cost}*" if sums.unpriced_calls else cost


def _outcome(node: RunNode) -> str:
    """How a run or call ended; of the rest, what in it did not go well."""
    sums, said = node.sums, []
    if node.status is not None and (node.kind == "run" or node.status != "ok"):
        said.append(f"{node.status} {node.error_type or ''}".strip())
    if node.kind == "attempt" and node.id not in (None, "0", "1"):
        said.append("retry")
    if node.kind == "call":
        said += ["cached"] if sums.cached_calls else []
    else:
        failed = sums.failed_calls - sums.blocked_calls - sums.abandoned_calls
        marks = {"failed": failed, "blocked": sums.blocked_calls, "abandoned": sums.abandoned_calls}
        marks |= {"in retries": sums.retried_calls} if node.kind in ("run", "step", "node") else {}
        said += [f"{number:,} {word}" for word, number in marks.items() if number]
    return ", ".join(said)


_CSV: Final = (
    *("depth", "kind", "id", "name", "status", "error_type", "agent_id", "provider", "model", "started_at", "ended_at"),
    *("duration_ms", *SUMS),
)


def _rows(tree: RunTree) -> Iterator[dict[str, Any]]:
    """The nodes as rows, each before those below it; those without children are the leaves that add up."""
    stack = [(0, tree.root)]
    while stack:
        depth, node = stack.pop()
        facts = {name: getattr(node, name) for name in _CSV if name != "depth" and name not in SUMS}
        yield {"depth": depth, **facts, **{name: getattr(node.sums, name) for name in SUMS}}
        stack += [(depth + 1, child) for child in reversed(node.children)]
