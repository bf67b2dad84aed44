"""Service runs: a list of them, and one as it was, from the solution down to the single call.

Amounts are US dollars as Decimal with all their digits; leaves of a tree add up to its root exactly. Durations are in
milliseconds. All functions raise StoreError where the database cannot answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from typing_extensions import TypedDict

from vital_tracking.errors import VitalError
from vital_tracking.queries.answers import Amount, answer_type, typed
from vital_tracking.queries.calls import place
from vital_tracking.queries.filters import Filters
from vital_tracking.queries.run_nodes import RunAround, RunNode
from vital_tracking.queries.run_tree import RunGrower, ToldRun
from vital_tracking.stores import Store

MOST_CALLS: Final = 1000
"""How many calls a tree tells one by one, unless more are asked for."""

RUN_FILTERS: Final = (
    "since", "until", "organization", "user", "session", "service", "agent", "workflow", "panel", "solution",
    "status",
)  # fmt: skip
"""The filters that runs have."""


# The list


@answer_type
class RunRow(TypedDict):
    """A service run, with what all calls in it come to, those of nested runs included.

    `status` is `running`, `ok`, `error`, `cancelled` or `abandoned`; `model_ms` is how long its calls took one after another, and
    `duration_ms` how long the run itself, None while it runs. `retried_calls` are those of a node's second attempt and later.
    """

    id: str
    parent_run_id: str | None
    organization_id: str | None
    user_id: str | None
    session_id: str | None
    service_type: str
    service_id: str | None
    service_name: str | None
    agent_id: str | None
    workflow_id: str | None
    panel_id: str | None
    panel_size: int | None
    solution_id: str | None
    status: str
    started_at: datetime
    ended_at: datetime | None
    duration_ms: float | None
    error_type: str | None
    nested_runs: int
    calls: int
    failed_calls: int
    blocked_calls: int
    abandoned_calls: int
    retried_calls: int
    cached_calls: int
    unpriced_calls: int
    estimated_calls: int
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    input_cost: Amount
    output_cost: Amount
    fees: Amount
    total_cost: Amount
    potential_cost: Amount
    model_ms: float
    metadata: dict[str, Any]


RUN_COLUMNS: Final = tuple(RunRow.__annotations__)


def service_runs(
    store: Store,
    filters: Filters | None = None,
    *,
    limit: int = 100,
    after: str | None = None,
    nested: bool = False,
) -> list[RunRow]:
    """The newest service runs, at most `limit` (10,000 at once); of the filters those in RUN_FILTERS count.

    With `nested` also runs inside of others. The next page begins `after` the `run_place` of the last one. Raises StoreError, and
    StoreRejected for another filter; ValueError where `after` is no place.
    """
    return typed(list[RunRow], store.call("runs_v1", **_listed(filters, limit, after, nested)))


def runs_version(
    store: Store,
    filters: Filters | None = None,
    *,
    limit: int = 100,
    after: str | None = None,
    nested: bool = False,
) -> str:
    """A text that is another one as soon as runs that `service_runs` answers with have changed; their calls are usage.

    See `explore.usage_version`. Raises what `service_runs` raises.
    """
    version: str = store.call("runs_version_v1", **_listed(filters, limit, after, nested))
    return version


def _listed(filters: Filters | None, limit: int, after: str | None, nested: bool) -> dict[str, Any]:
    cursor = {} if after is None else dict(zip(("after_at", "after_id"), place(after), strict=True))
    return {"filters": (filters or Filters()).text(), "max_rows": limit, "nested": nested, **cursor}


def run_place(run: RunRow) -> str:
    """Where a run stands among all runs, for the page after it."""
    return f"{run['started_at'].isoformat()}/{run['id']}"


# The tree


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTree:
    """A service run as it was. `within` are the runs around it, the outermost first; `calls_told` how many calls are leaves."""

    id: str
    within: tuple[RunAround, ...]
    calls_told: int
    root: RunNode


class RunUnknown(VitalError):
    """No run, or more than one, begins so. `candidates` are the first of them."""

    def __init__(self, wanted: str, candidates: list[str]) -> None:
        self.candidates = candidates
        found = ", ".join(candidates)
        super().__init__(
            f"Several runs begin with {wanted}: {found}. Write more of the id."
            if candidates
            else f"There is no run {wanted}, or none that you may see. Which there are: vital-tracking runs"
        )


def run_tree(store: Store, run: str, *, max_calls: int = MOST_CALLS) -> RunTree:
    """A run by its id, or by how it begins where that is one run's alone; the first `max_calls` calls are told one by one.

    Raises StoreError; RunUnknown where no run, or more than one, begins so.
    """
    answer = store.call("run_tree_v1", run=run, max_calls=max_calls)
    if answer is None:
        candidates = typed(list[str], store.call("run_ids_v1", prefix=run))
        if len(candidates) == 1:
            answer = store.call("run_tree_v1", run=candidates[0], max_calls=max_calls)
        if answer is None:
            raise RunUnknown(run, candidates)
    told = typed(ToldRun, answer)
    return RunTree(
        id=told["id"], within=tuple(told["within"]), calls_told=len(told["calls"]), root=RunGrower(told).tree()
    )
