"""What is stored about a user, and forgetting a user: the person is taken out of everything, and all sums stay."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Final

from typing_extensions import TypedDict

from vital_tracking.errors import StoreRejected, VitalError
from vital_tracking.queries.answers import answer_type, typed
from vital_tracking.queries.maintenance import refresh_views
from vital_tracking.stores import Store

_A_BATCH: Final = 500  # recording waits while a batch is forgotten: a few tenths of a second
_TRACES: Final = ("rows", "runs", "events", "costs", "executions", "windows", "memberships", "days")


@answer_type
class UserTraces(TypedDict):
    """What there is of a user: calls, their cost in US dollars, runs, events, other costs, windows of budgets, days with sums."""

    rows: int
    calls: int
    total_cost: Decimal
    unpriced_calls: int
    first: datetime | None
    last: datetime | None
    runs: int
    events: int
    costs: int
    executions: int
    windows: int
    memberships: int
    days: int


def user_traces(store: Store, user: str, *, organization: str | None = None) -> UserTraces:
    """What there is of a user, in one organization or in all, as far as whoever asks may see it. Raises StoreError."""
    return typed(UserTraces, store.call("user_traces_v1", user_id=user, organization_id=organization))


def any_traces(traces: UserTraces) -> bool:
    """Whether there is anything of the user."""
    return any(traces.get(name) for name in _TRACES)


@answer_type
class Forgotten(TypedDict):
    """What a batch did, and all batches so far (`total`); `digest` is the name under which the audit knows the user."""

    done: bool
    rows: int
    runs: int
    total: dict[str, int]
    digest: str


class ForgetRefused(StoreRejected):
    """Forgetting that the database refused, which the audit holds: `reason` is not_an_admin or is_the_last_admin."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        message, sqlstate = _REASONS.get(reason, _REASONS["not_an_admin"])
        super().__init__(message, sqlstate=sqlstate)


_REASONS: Final = {
    "not_an_admin": ("Only an admin of that organization may forget a user there.", "42501"),
    "is_the_last_admin": ("The last admin of an organization stays until there is another.", "23001"),
}


def forget_user(
    store: Store,
    user: str,
    *,
    organization: str | None = None,
    progress: Callable[[int], None] = lambda _: None,
    batches: int | None = None,
) -> Forgotten:
    """Forget a user for good, batch by batch, in one organization or in all; `progress` is told how many rows are done.

    Where it is stopped, or has done as many `batches` as it may, run it again. As a signed-in user, in an organization that he
    administers. Raises StoreError; ForgetRefused where the database refuses it.
    """
    rows = batch = 0
    while True:
        found = store.call("forget_user_v1", user_id=user, organization_id=organization, max_rows=_A_BATCH)
        if isinstance(found, dict) and "refused" in found:
            raise ForgetRefused(found["refused"])
        answer = typed(Forgotten, found)
        rows += answer["rows"] + answer["runs"]
        batch += 1
        progress(rows)
        if answer["done"] or batch == batches:
            return answer


def views_forget(store: Store) -> bool:
    """Bring the materialized views up to date, which name users too; whether that was done.

    False where another process is refreshing them: it may have begun before the user was forgotten.
    """
    try:
        return refresh_views(store) is not None
    except VitalError:
        return False
