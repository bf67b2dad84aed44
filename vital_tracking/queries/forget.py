"""What is stored about a user, and forgetting a user: the person is taken out of everything, and all sums stay."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Final

from typing_extensions import TypedDict

from vital_tracking.errors import VitalError
from vital_tracking.queries.answers import answer_type, typed
from vital_tracking.queries.maintenance import refresh_views
from vital_tracking.stores import Store

_A_BATCH: Final = 500  # recording waits while a batch is forgotten: a few tenths of a second
_TRACES: Final = ("rows", "runs", "windows", "memberships", "days")


@answer_type
class UserTraces(TypedDict):
    """What there is of a user: calls, their cost in US dollars, service runs, windows of budgets, memberships, days with sums."""

    rows: int
    calls: int
    total_cost: Decimal
    unpriced_calls: int
    first: datetime | None
    last: datetime | None
    runs: int
    windows: int
    memberships: int
    days: int


def user_traces(store: Store, user: str, *, organization: str | None = None) -> UserTraces:
    """What there is of a user, in one organization or in all. Raises StoreError."""
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


def forget_user(
    store: Store, user: str, *, organization: str | None = None, progress: Callable[[int], None] = lambda _: None
) -> Forgotten:
    """Forget a user for good, batch by batch, in one organization or in all; `progress` is told how many rows are done.

    Where it is stopped, run it again. Raises StoreError.
    """
    rows = 0
    while True:
        answer = typed(
            Forgotten,
            store.call("forget_user_v1", user_id=user, organization_id=organization, max_rows=_A_BATCH),
        )
        rows += answer["rows"] + answer["runs"]
        progress(rows)
        if answer["done"]:
            return answer


def views_forget(store: Store) -> bool:
    """Bring the materialized views up to date, which name users too; whether that was done.

    False where another process is refreshing them: it may have begun before the user was forgotten.
    """
    try:
        return refresh_views(store) is not None
    except VitalError:
        return False
