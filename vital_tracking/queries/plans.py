"""Plans, who is on which, and how much of the quotas is used in the months that run.

A quota is a budget: enforced it holds as exactly as budgets do, watched it only alerts. Users see their own, admins their
organization's, as the database decides. All functions raise StoreError where it cannot answer.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from itertools import islice
from typing import Any, Final

from typing_extensions import TypedDict

from vital_tracking.errors import StoreRejected
from vital_tracking.queries.answers import Amount, answer_type, typed
from vital_tracking.stores import Store

SUBSCRIBERS: Final = ("user", "organization")
"""Who can be on a plan."""

GREEN_BELOW: Final = 60
RED_ABOVE: Final = 80
_AT_ONCE: Final = 500


@answer_type
class Plan(TypedDict):
    """A version of a plan, from `valid_from` on: calls and tokens a month and a minute, None for unlimited, and its price.

    `in_force` marks the version that counts now; `price_usd` is US dollars a month, None where nobody has said it.
    """

    id: int
    name: str
    valid_from: datetime
    calls: int | None
    tokens: int | None
    calls_per_minute: int | None
    tokens_per_minute: int | None
    price_usd: Amount | None
    in_force: bool


PLAN_COLUMNS: Final = tuple(Plan.__annotations__)


@answer_type
class Subscription(TypedDict):
    """Who is on which plan since when; `until` is None where no end is known.

    `organization_id` says where a user's calls count: None in all organizations together. Its month begins on `reset_day` in
    `timezone`. `source` is command, import, claim or sql.
    """

    id: int
    organization_id: str | None
    entity_type: str
    entity_id: str
    plan: str
    since: datetime
    until: datetime | None
    reset_day: int
    timezone: str
    enforced: bool
    source: str


@answer_type
class QuotaStatus(Subscription):
    """A subscription with what is used in the month that runs. A limit of None is unlimited, and so is its share."""

    starts_at: datetime
    ends_at: datetime
    calls_used: Amount
    calls_limit: Amount | None
    tokens_used: Amount
    tokens_limit: Amount | None
    calls_percent: Amount | None
    tokens_percent: Amount | None
    used_percent: Amount | None


QUOTA_COLUMNS: Final = tuple(QuotaStatus.__annotations__)


@answer_type
class PlanQuota(TypedDict):
    """What the subscribers of a plan use together, against the sum of their limits: None where it is unlimited.

    `over` counts those who used more calls or tokens than they have, `near` those at 80 % or more.
    """

    plan: str
    price_usd: Amount | None
    subscribers: int
    enforced: int
    calls_used: Amount
    calls_limit: Amount | None
    tokens_used: Amount
    tokens_limit: Amount | None
    over: int
    near: int


PLAN_QUOTA_COLUMNS: Final = tuple(PlanQuota.__annotations__)


@answer_type
class Subscribed(TypedDict):
    """A subscription as it is now, as it was `before`, and the month that runs by it, with what is used in it."""

    subscription: Subscription
    before: Subscription | None
    starts_at: datetime
    ends_at: datetime
    calls_used: Amount
    tokens_used: Amount


@answer_type
class BadRow(TypedDict):
    """A row that was not taken, counted from 0, and why."""

    row: int
    problem: str
    hint: str | None


@answer_type
class Imported(TypedDict):
    """How many rows were set, were so already, were refused (whoever asks is no admin there), and which ones are wrong."""

    set: int
    unchanged: int
    refused: int
    rejected: list[BadRow]


class PlanRejected(StoreRejected):
    """A subscription that cannot be: what is wrong, in words for whoever asked for it."""


def plans(store: Store, name: str | None = None, *, history: bool = False) -> list[Plan]:
    """The plans as they are now, the smallest first, or the one of a name; with `history` other versions, too."""
    every = typed(list[Plan], store.call("plans_v1", plan=name))
    return every if history else [plan for plan in every if plan["in_force"]]


def set_plan(store: Store, columns: Mapping[str, object]) -> Plan:
    """Make a plan, or change what is named of it from `valid_from` on, by default now; None is unlimited. Operators alone may.

    Raises StoreRejected where that is refused, or the plan is none.
    """
    return typed(Plan, _allowed(store.call("set_plan_v1", plan=_json(columns)), "Only operators change plans."))


def remove_plan(store: Store, name: str) -> None:
    """Remove a plan with all its versions, if nobody is on it, or will be. Operators alone may.

    Raises StoreRejected where that is refused, with P0002 where there is none, 23001 where it has subscribers.
    """
    answer = _allowed(store.call("remove_plan_v1", plan=name), "Only operators change plans.")
    if not answer["removed"]:
        raise StoreRejected(f"There is no plan {name}.", sqlstate="P0002")


def quotas(store: Store, *, organization: str | None = None) -> list[PlanQuota]:
    """How much each plan's subscribers use together, of an organization or all that may be seen."""
    return typed(list[PlanQuota], store.call("quotas_v1", organization=organization))


def quota_status(
    store: Store,
    *,
    organization: str | None = None,
    plan: str | None = None,
    entity_type: str | None = None,
    ids: Sequence[str] | None = None,
    limit: int = 100,
) -> list[QuotaStatus]:
    """The subscribers and what they use, the fullest quota first, at most `limit` (up to 10,000); or these alone."""
    asked = {
        "organization": organization,
        "plan": plan,
        "entity_type": entity_type,
        "ids": None if ids is None else json.dumps(list(ids)),
    }
    return typed(list[QuotaStatus], store.call("quota_status_v1", **asked, max_rows=limit))


def plans_of(store: Store, users: Iterable[str | None]) -> dict[str, QuotaStatus]:
    """The plan of each of these users who is on one; of several, in other organizations, the most used one."""
    ids = [user for user in users if user is not None]
    found = quota_status(store, entity_type="user", ids=ids, limit=10_000) if ids else []
    return {row["entity_id"]: row for row in reversed(found)}


def subscriptions(store: Store, entity_type: str, entity_id: str) -> list[Subscription]:
    """The subscriptions of one subscriber, those that have ended and those to come as well, the latest first."""
    return typed(list[Subscription], store.call("subscriptions_v1", entity_type=entity_type, entity_id=entity_id))


def subscribe(store: Store, columns: Mapping[str, object]) -> Subscribed:
    """Put a subscriber on a plan, or change what is named of his subscription, `since` then, by default now.

    Columns are those of Subscription; what was used in its month stays used. Raises StoreRejected where that is refused,
    PlanRejected where it cannot be.
    """
    return typed(Subscribed, _allowed(store.call("set_subscription_v1", subscription=_json(columns)), _ADMINS))


def end_subscription(store: Store, columns: Mapping[str, object]) -> int:
    """End a subscription `until` then, by default now, with what was to follow it; how many that were. Raises StoreRejected."""
    return int(_allowed(store.call("end_subscription_v1", subscription=_json(columns)), _ADMINS)["ended"])


def import_subscriptions(store: Store, rows: Iterable[Mapping[str, object]]) -> Imported:
    """Set many subscriptions, each for itself, some hundreds in a round trip; bad rows are told by their place."""
    total = Imported(set=0, unchanged=0, refused=0, rejected=[])
    remaining, done = iter(rows), 0
    while batch := list(islice(remaining, _AT_ONCE)):
        told = typed(Imported, store.call("set_subscriptions_v1", subscriptions=json.dumps(batch, default=str)))
        total["set"] += told["set"]
        total["unchanged"] += told["unchanged"]
        total["refused"] += told["refused"]
        total["rejected"] += [{**bad, "row": bad["row"] + done} for bad in told["rejected"]]
        done += len(batch)
    return total


def over_quota(row: QuotaStatus) -> bool:
    """Whether a subscriber used more than his calls or tokens."""
    return any(
        limit is not None and used > limit
        for used, limit in ((row["calls_used"], row["calls_limit"]), (row["tokens_used"], row["tokens_limit"]))
    )


def percent_used(used: Decimal, limit: Decimal | None) -> Decimal | None:
    """How much of a limit is used, in percent; None where it is unlimited. Nothing of nothing is 0."""
    if limit is None:
        return None
    if not limit:
        return Decimal(100 if used else 0)
    return (100 * used / limit).quantize(Decimal("0.01"))


_ADMINS: Final = "Only an admin of that organization changes its subscriptions."


def _allowed(answer: Any, refusal: str) -> Any:
    """The answer of a function that changes something; StoreRejected (42501) where it was refused, which the audit holds."""
    if isinstance(answer, dict) and "refused" in answer:
        raise StoreRejected(refusal, sqlstate="42501")
    if isinstance(answer, dict) and "problem" in answer:
        raise PlanRejected(" ".join(filter(None, (answer["problem"], answer["hint"]))), sqlstate="22023")
    return answer


def _json(columns: Mapping[str, object]) -> str:
    return json.dumps(dict(columns), default=str)
