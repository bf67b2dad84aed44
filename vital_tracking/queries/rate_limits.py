"""Limits of a minute: how far they were used lately, by whom, and where calls did not fit."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from typing_extensions import TypedDict

from vital_tracking.queries.answers import Amount, answer_type, typed
from vital_tracking.stores import Store


@answer_type
class RateLimit(TypedDict):
    """A limit of a minute as one entity has used it: by a budget, or by its plan (`by_plan`).

    `minutes` are those in which anything was used, the percentages theirs. `violations` are minutes in which a call did not fit,
    `blocked_calls` the calls that were stopped, `last_at` when that happened last. Amounts are in the budget's metric.
    """

    budget_id: int
    organization_id: str | None
    entity_type: str
    entity_id: str
    metric: str
    action: str
    by_plan: bool
    limit_amount: Amount
    minutes: int
    spent: Amount
    fullest_percent: Amount
    average_percent: Amount
    violations: int
    blocked_calls: int
    last_at: datetime | None


RATE_LIMIT_COLUMNS: Final = tuple(RateLimit.__annotations__)


def rate_limits(store: Store, *, hours: int = 24, organization: str | None = None, limit: int = 100) -> list[RateLimit]:
    """The limits of a minute of the last `hours` (up to 744), those first that were met most. Raises StoreError."""
    asked = {"hours": hours, "organization": organization, "max_rows": limit}
    return typed(list[RateLimit], store.call("rate_limits_v1", **asked))
