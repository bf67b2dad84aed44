"""Costs that all share, such as a month's invoice of infrastructure: what each organization's share of them is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Final, Literal, get_args

from typing_extensions import TypedDict

from vital_tracking.core.sanitize import money
from vital_tracking.queries.answers import answer_type, typed
from vital_tracking.stores import Store

Rule = Literal["equal", "cost", "calls"]
RULES: Final = get_args(Rule)


@answer_type
class Share(TypedDict):
    """What an organization is allocated, in US dollars. `weight` is what it cost or how many calls it made, or 1."""

    organization_id: str
    weight: Decimal
    percent: Decimal
    cost_usd: Decimal


@answer_type
class Allocation(TypedDict):
    """An invoice of a month, allocated. `shares` add up to `amount`; `before` is what was allocated of it until now."""

    month: str
    name: str
    by: str
    amount: Decimal
    before: Decimal
    digits: int
    dry_run: bool
    shares: list[Share]


def allocate(
    store: Store,
    month: str,
    amount: Decimal,
    *,
    by: Rule = "equal",
    name: str = "infrastructure",
    cost_type: str = "other",
    organizations: Sequence[str] | None = None,
    dry_run: bool = False,
) -> Allocation:
    """Allocate the invoice `name` of a `month` such as 2026-11 to organizations, in US dollars; again replaces what was before.

    `by` equal parts, by what each cost in that month, or by its calls; to `organizations`, by default those with calls, events or
    costs then. A share is a row of `tenant_cost_events` of the kind `cost_type`; shares are whole cents, or as fine as the
    amount, and what rounding leaves goes to those that lost most by it. 0 takes the allocation back. With `dry_run` nothing is
    stored. Raises StoreRejected where nobody can be allocated anything, StoreError where the database cannot answer.
    """
    wanted = {
        "month": month,
        "amount": money(amount),
        "by": by,
        "name": name,
        "cost_type": cost_type,
        "organizations": list(organizations) if organizations else None,
        "dry_run": dry_run,
    }
    return typed(Allocation, store.call("allocate_cost_v1", allocation=json.dumps(wanted)))
