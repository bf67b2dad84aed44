"""Plans, and who is on which, at `/api/v1/plans` and `/api/v1/subscriptions`."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Final, Literal

from fastapi import Depends, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from vital_tracking.queries import plans as queries
from vital_tracking.queries.plans import Plan, QuotaStatus, Subscribed, Subscription
from vital_tracking.web.access import Reader, reads
from vital_tracking.web.asked import Instant, ZoneName
from vital_tracking.web.described import answering
from vital_tracking.web.responses import ExactJSON
from vital_tracking.web.route import api_router

routes = api_router(prefix="/api/v1", tags=["plans"])

_MAX_AGE_S: Final = 30

_Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\x00]*$")]
_Id = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^\x00]*$")]
_Asked = Annotated[str | None, Query(max_length=256, pattern=r"^[^\x00]*$")]
_Count = Annotated[int, Field(ge=0, le=10**15)]

_PLAN: Final[dict[str, Any]] = {
    "id": 3,
    "name": "professional",
    "valid_from": "1970-01-01T00:00:00+00:00",
    "calls": 300000,
    "tokens": 50000000,
    "calls_per_minute": None,
    "tokens_per_minute": None,
    "price_usd": 49.00,
    "in_force": True,
}
_SUBSCRIPTION: Final[dict[str, Any]] = {
    "id": 1,
    "organization_id": "acme",
    "entity_type": "user",
    "entity_id": "u-1",
    "plan": "professional",
    "since": "2026-11-15T00:00:00+01:00",
    "until": None,
    "reset_day": 15,
    "timezone": "Europe/Berlin",
    "enforced": True,
    "source": "command",
}
_STATUS: Final = {
    **_SUBSCRIPTION,
    "starts_at": "2026-11-14T23:00:00+00:00",
    "ends_at": "2026-12-14T23:00:00+00:00",
    "calls_used": 120000,
    "calls_limit": 300000,
    "tokens_used": 41000000,
    "tokens_limit": 50000000,
    "calls_percent": 40.00,
    "tokens_percent": 82.00,
    "used_percent": 82.00,
}


class _Given(BaseModel):
    """What a body names: what it leaves out stays as it is."""

    model_config = ConfigDict(extra="forbid")

    @property
    def columns(self) -> dict[str, Any]:
        """What was named, with amounts and times as text."""
        named = self.model_dump(exclude_unset=True)
        return {name: str(value) if isinstance(value, Decimal | datetime) else value for name, value in named.items()}


class PlanWanted(_Given):
    """A plan, or what is to change of it from `valid_from` on, by default now; null is unlimited."""

    name: _Name
    calls: _Count | None = None
    tokens: _Count | None = None
    calls_per_minute: _Count | None = None
    tokens_per_minute: _Count | None = None
    price_usd: Annotated[Decimal, Field(ge=0, le=10**9)] | None = None
    valid_from: Instant | None = None
    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"name": "team", "calls": 100000, "price_usd": 199}}
    )


class Subscriber(_Given):
    """Whose subscription it is; `organization_id` says where a user's calls count, without it in all together."""

    entity_type: Literal["user", "organization"] = "user"
    entity_id: _Id
    organization_id: _Id | None = None

    @property
    def columns(self) -> dict[str, Any]:
        """What was named, with whose it is."""
        return {**super().columns, "entity_type": self.entity_type}


class SubscriptionWanted(Subscriber):
    """A subscription, or what is to change of it."""

    plan: _Name | None = None
    since: Instant | None = None
    until: Instant | None = None
    reset_day: Annotated[int, Field(ge=1, le=31)] | None = None
    timezone: ZoneName | None = None
    enforced: bool | None = None
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {"entity_id": "u-1", "organization_id": "acme", "plan": "trial", "enforced": True}
        },
    )


class SubscriptionEnd(Subscriber):
    """Whose subscription ends, and when; by default now."""

    until: Instant | None = None
    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"entity_id": "u-1", "organization_id": "acme"}}
    )


class Ended(BaseModel):
    """How many subscriptions ended: the one that stood, and those that were to follow."""

    ended: int


@routes.get("/plans", summary="The plans", responses=answering(list[Plan], "The plans, the smallest first.", [_PLAN]))
def list_plans(
    store: Reader,
    history: Annotated[bool, Query(description="With former versions, and those to come.")] = False,
) -> Response:
    """What each allows in a month and a minute; null is unlimited, and a price of null nobody has said."""
    return ExactJSON(queries.plans(store, history=history), max_age=_MAX_AGE_S)


@routes.post(
    "/plans",
    summary="Make a plan, or change it from an instant on",
    responses=answering(Plan, "The plan as it is stored.", _PLAN),
)
def set_plan(store: Reader, wanted: PlanWanted) -> Response:
    """For operators alone. Former versions stay."""
    return ExactJSON(queries.set_plan(store, wanted.columns))


@routes.delete("/plans/{name}", summary="Remove a plan", status_code=204)
def remove_plan(
    store: Reader, name: Annotated[str, Path(min_length=1, max_length=64, pattern=r"^[^\x00]*$")]
) -> Response:
    """For operators alone, with all its versions, and only where nobody is on it, or will be."""
    queries.remove_plan(store, name)
    return Response(status_code=204)


@routes.get(
    "/subscriptions",
    summary="Who is on which plan, and how much of it is used",
    responses=answering(list[QuotaStatus], "Subscribers, the fullest quota first.", [_STATUS]),
    dependencies=[Depends(reads("quotas"))],
)
def list_subscriptions(
    store: Reader,
    organization: _Asked = None,
    plan: _Asked = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 100,
) -> Response:
    """Users see their own, admins and auditors their organization's."""
    found = queries.quota_status(store, organization=organization or None, plan=plan or None, limit=limit)
    return ExactJSON(found, max_age=_MAX_AGE_S)


@routes.get(
    "/subscriptions/history",
    summary="The plans that a subscriber was on, is on and will be on",
    responses=answering(list[Subscription], "The latest first.", [_SUBSCRIPTION]),
    dependencies=[Depends(reads("quotas"))],
)
def history(
    store: Reader,
    entity_id: Annotated[str, Query(min_length=1, max_length=256, pattern=r"^[^\x00]*$")],
    entity_type: Literal["user", "organization"] = "user",
) -> Response:
    """As far as they may be seen."""
    return ExactJSON(queries.subscriptions(store, entity_type, entity_id), max_age=_MAX_AGE_S)


@routes.post(
    "/subscriptions",
    summary="Put somebody on a plan, or change it",
    responses=answering(
        Subscribed,
        "The subscription, and the month that runs by it.",
        {
            "subscription": _SUBSCRIPTION,
            "before": None,
            **{name: _STATUS[name] for name in ("starts_at", "ends_at", "calls_used", "tokens_used")},
        },
    ),
)
def subscribe(store: Reader, wanted: SubscriptionWanted) -> Response:
    """For admins of a user's organization, and operators; an organization's own is for operators.

    What was used in the month that runs stays used.
    """
    return ExactJSON(queries.subscribe(store, wanted.columns))


@routes.post(
    "/subscriptions/end",
    summary="End a subscription",
    responses=answering(Ended, "How many ended.", {"ended": 1}),
)
def end_subscription(store: Reader, wanted: SubscriptionEnd) -> Response:
    """For admins of a user's organization, and operators; an organization's own is for operators.

    The limit ends with it, and what was to follow is dropped.
    """
    return ExactJSON({"ended": queries.end_subscription(store, wanted.columns)})
