"""Alerts: thresholds of budgets that were crossed. Amounts are Decimal in the budget's metric."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, Final, NotRequired

from typing_extensions import TypedDict

from vital_tracking.alerts.alert import BudgetAlert
from vital_tracking.queries.answers import Amount, answer_type, typed
from vital_tracking.queries.budgets import all_budgets, belongs
from vital_tracking.queries.paging import every_row
from vital_tracking.stores import Store

MOST_ALERTS: Final = 1000
"""As many alerts as the database gives at once."""

# A transaction that takes longer than that to record its calls shows its alerts too late to be seen.
_OVERLAP: Final = timedelta(minutes=10)


@answer_type
class Alert(TypedDict):
    """A threshold that was crossed: `threshold` is the share of the limit, `spent` what was spent at that moment.

    `held` is what was set aside for other calls where one did not fit (`threshold` 0), None of other alerts.
    One with a `pattern` is about what looks like abuse, and has no budget: then `spent` is what was counted, `limit_amount` what
    it had to come to.
    `superseded` alerts came with a higher threshold of the same window, and nobody is sent them.
    """

    id: int
    created_at: datetime
    budget_id: int | None
    organization_id: str | None
    entity_type: str
    entity_id: str
    metric: str
    action: str
    enforce: bool
    period: str
    window_starts_at: datetime
    window_ends_at: datetime | None
    threshold: Amount
    limit_amount: Amount
    spent: Amount
    held: Amount | None
    superseded: bool
    delivered_at: datetime | None
    pattern: NotRequired[str | None]
    severity: NotRequired[str | None]


ALERT_COLUMNS: Final = tuple(Alert.__annotations__)


def every_alert(
    store: Store,
    *,
    since: datetime,
    until: datetime | None = None,
    before: int | None = None,
    organization: str | None = None,
    superseded: bool = False,
    at_once: int = MOST_ALERTS,
) -> Iterator[Alert]:
    """All alerts since an instant, the newest first; with `superseded` also those that nobody is sent.

    `until` is the first instant that does not count any more; `before` goes on below the alert of that id.
    """
    rows = every_row(
        lambda place: typed(
            list[Alert],
            store.call("cost_alerts_v1", since=since, until=until, before_id=place or before, max_rows=at_once),
        ),
        lambda row: row["id"],
        at_once,
    )
    return (row for row in rows if belongs(row, organization) and (superseded or not row["superseded"]))


def recent_alerts(
    store: Store,
    *,
    since: datetime,
    until: datetime | None = None,
    before: int | None = None,
    organization: str | None = None,
    superseded: bool = False,
    limit: int = MOST_ALERTS,
) -> list[Alert]:
    """The newest of these alerts, at most so many."""
    at_once = min(limit, MOST_ALERTS) if organization is None else MOST_ALERTS  # the organization is looked for here
    found = every_alert(
        store,
        since=since,
        until=until,
        before=before,
        organization=organization,
        superseded=superseded,
        at_once=at_once,
    )
    return list(islice(found, limit))


def budget_alert(row: Alert) -> BudgetAlert:
    """An alert as callbacks get it, with its message."""
    known: dict[str, Any] = {"pattern": None, "severity": None, **row, "limit": row["limit_amount"]}
    return BudgetAlert(**{field.name: known[field.name] for field in fields(BudgetAlert)})


class AlertFeed:
    """Tells of new alerts, each once, whatever the order in which their transactions end.

    It goes by the database's clock, and by a set of the ids it has seen: alerts do not appear in the order of ids or times.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._since = all_budgets(store)["now"] - _OVERLAP
        self._seen = {row["id"] for row in self._newest()}

    def poll(self) -> list[Alert]:
        """The alerts that are new since the last time, the oldest first. Raises StoreError; then ask again."""
        rows = self._newest()
        new = [row for row in reversed(rows) if row["id"] not in self._seen and not row["superseded"]]
        ids = {row["id"] for row in rows}
        self._seen = ids if len(rows) < MOST_ALERTS else self._seen | ids
        self._since = max([self._since, *(row["created_at"] - _OVERLAP for row in rows)])
        return new

    def _newest(self) -> list[Alert]:
        return recent_alerts(self._store, since=self._since, superseded=True)
