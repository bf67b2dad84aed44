"""Budgets, at `/api/v1/budgets`: what may be spent, how far it is, what a budget would have done, and why a call was blocked."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from fastapi import Depends, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from vital_tracking.core.days import known_day
from vital_tracking.core.entities import PERIODS
from vital_tracking.queries import budgets as queries
from vital_tracking.queries.answers import Amount
from vital_tracking.queries.budgets import BUDGET_KEY, BlockedCall, BudgetLimit, BudgetWindow, LimitInForce, key_of
from vital_tracking.queries.outlook import outlooks
from vital_tracking.queries.preview import (
    MOST_PREVIEW_DAYS,
    PREVIEW_DAYS,
    UNKNOWN,
    BudgetPreview,
    PreviewDay,
    preview_budget,
    preview_totals,
)
from vital_tracking.stores import Store
from vital_tracking.web.access import Reader, reads
from vital_tracking.web.api import budget_examples as examples
from vital_tracking.web.asked import ZoneName
from vital_tracking.web.described import answering
from vital_tracking.web.problems import Problem
from vital_tracking.web.responses import ExactJSON
from vital_tracking.web.route import api_router

routes = api_router(prefix="/api/v1/budgets", tags=["budgets"], dependencies=[Depends(reads("budgets"))])

_MAX_AGE_S: Final = 30
_Name = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^\x00]+$")]
_Amount = Annotated[Decimal, Field(ge=0, le=Decimal("1e15"), max_digits=28, decimal_places=12, allow_inf_nan=False)]
_Share = Annotated[Decimal, Field(gt=0, le=10, max_digits=12, decimal_places=10, allow_inf_nan=False)]
_Id = Annotated[int, Path(ge=1, le=2**63 - 1, description="The budget's id.")]

_EntityType = Literal[
    "organization", "service", "tier", "user", "session", "agent", "workflow", "panel", "solution", "model"
]
_Metric = Literal["cost_usd", "tokens", "calls"]
_Action = Literal["alert", "throttle", "downgrade", "block"]


class _Given(BaseModel):
    """What a request may name; a field that is not here is refused."""

    model_config = ConfigDict(extra="forbid")

    @property
    def columns(self) -> dict[str, Any]:
        """The columns that were named, amounts as text."""
        return {name: _text(value) for name, value in self.model_dump(exclude_unset=True).items()}


def _text(value: Any) -> Any:
    if isinstance(value, Decimal):
        return format(value, "f")
    return [_text(one) for one in value] if isinstance(value, list) else value


class BudgetWanted(_Given):
    """A budget: its limits, on what, and what happens there. What is not named stays as it is, or is the usual."""

    organization_id: _Name | None = None
    entity_type: _EntityType
    entity_id: _Name = "*"
    metric: _Metric = "cost_usd"
    action: _Action = "alert"
    minute_limit: _Amount | None = None
    daily_limit: _Amount | None = None
    monthly_limit: _Amount | None = None
    total_limit: _Amount | None = None
    alert_thresholds: Annotated[list[_Share], Field(max_length=10)] | None = None
    throttle_interval_s: Annotated[Decimal, Field(gt=0, le=86_400, decimal_places=6)] | None = None
    downgrade_to: _Name | None = None
    timezone: ZoneName | None = None
    enforce: bool | None = None
    strict: bool | None = None
    when_unavailable: Literal["allow", "deny"] | None = None

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {
                "organization_id": "acme",
                "entity_type": "user",
                "entity_id": "*",
                "daily_limit": 5,
                "action": "block",
                "timezone": "Europe/Berlin",
            }
        },
    )

    @property
    def columns(self) -> dict[str, Any]:
        """The key, and the columns that were named; those that cannot be NULL are left out where they are."""
        nullable = {"organization_id", "downgrade_to", *PERIODS.values()}
        named = {name: _text(value) for name, value in self.model_dump(exclude_unset=True).items()}
        key = {name: getattr(self, name) for name in BUDGET_KEY}
        return {**{name: value for name, value in named.items() if value is not None or name in nullable}, **key}


class BudgetChange(BudgetWanted):
    """What is to change of a budget, whose key stays as it is."""

    entity_type: Literal[None] = None  # type: ignore[assignment]
    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"daily_limit": 8, "enforce": False}})

    @model_validator(mode="after")
    def _key_stays(self) -> BudgetChange:
        if named := sorted(self.model_fields_set & set(BUDGET_KEY)):
            raise ValueError(f"{', '.join(named)} cannot be changed: make another budget, and remove this one")
        return self

    @property
    def columns(self) -> dict[str, Any]:
        """The columns that are to change."""
        return {name: value for name, value in super().columns.items() if name not in BUDGET_KEY}


class Raise(_Given):
    """How much more, and until when: an instant with an offset, or a day, at whose beginning in the budget's zone it ends."""

    raise_by: _Amount
    until: Annotated[str, Field(pattern=r"^(tomorrow|\d{4}-\d{2}-\d{2}(T[0-9:.]{5,15}(Z|[+-]\d{2}:\d{2}))?)$")]
    entity_id: _Name | None = None
    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"raise_by": 10, "until": "tomorrow"}})

    @field_validator("until")
    @classmethod
    def _is_a_day(cls, until: str) -> str:
        if until != "tomorrow":
            known_day(datetime.fromisoformat(until))
        return until


class WindowAhead(BaseModel):
    """A window with when its limit will be reached."""

    window: BudgetWindow
    reached_at: datetime | None
    rate_per_hour: Amount | None
    rests_on: str


class BudgetList(BaseModel):
    """The budgets that the reader may see, their windows that run, the fullest first, and the database's clock."""

    now: datetime
    budgets: list[BudgetLimit]
    windows: list[WindowAhead]


class Previewed(BaseModel):
    """What a budget would have done, in all and by day, and what that cannot know."""

    preview: BudgetPreview
    total: PreviewDay
    unknown: str


def found_budget(store: Store, number: int, hint: str = "GET /api/v1/budgets lists them.") -> BudgetLimit:
    """A budget that may be seen; a Problem where there is none of that id."""
    budget = queries.budget_of(store, number)
    if budget is None:
        raise Problem(404, "no-such-budget", "There is no such budget, or none that you may see", hint=hint)
    return budget


@routes.get(
    "",
    summary="Budgets, their windows, and when they will be reached",
    responses=answering(BudgetList, "Budgets and windows.", examples.BUDGETS),
)
def list_budgets(
    store: Reader,
    organization: Annotated[str | None, Query(max_length=256, description="Only this organization's own.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="How many windows, the fullest first.")] = 200,
) -> Response:
    """Whoever asks sees the budgets that stand on them, admins and auditors those of their organization."""
    state = queries.all_budgets(store)
    windows = queries.windows(store, organization=organization, limit=limit)
    now = state["now"].replace(second=0, microsecond=0)  # so that the answer stays the same while nothing happens
    ahead = outlooks(store, windows, now)
    return ExactJSON(
        {
            "now": now,
            "budgets": [row for row in state["budgets"] if queries.belongs(row, organization)],
            "windows": [{"window": row, **asdict(one)} for row, one in zip(windows, ahead, strict=True)],
        },
        max_age=_MAX_AGE_S,
    )


@routes.post(
    "",
    summary="Make a budget, or change the one of the same key",
    responses=answering(BudgetLimit, "The budget as it stands now.", examples.BUDGET),
)
def make_budget(store: Reader, wanted: BudgetWanted) -> Response:
    """For admins of the organization that it names; without one it stands over all, and is for operators."""
    return ExactJSON(queries.set_budget(store, wanted.columns))


@routes.post(
    "/preview",
    summary="What a budget would have done",
    responses=answering(Previewed, "In all, and by day.", examples.PREVIEW),
)
def preview(
    store: Reader,
    wanted: BudgetWanted,
    days: Annotated[int, Query(ge=1, le=MOST_PREVIEW_DAYS, description="Of the last so many days.")] = PREVIEW_DAYS,
) -> Response:
    """The calls of the last days that you may see, replayed against a budget; nothing is stored."""
    found = preview_budget(store, wanted.columns, days=days)
    return ExactJSON({"preview": found, "total": preview_totals(found), "unknown": UNKNOWN})


@routes.get(
    "/calls/{call_id}/why",
    summary="Why a call was blocked",
    responses={**answering(BlockedCall, "What stopped it.", examples.BLOCKED), **examples.NOT_BLOCKED},
)
def why(store: Reader, call_id: UUID) -> Response:
    """What stopped a call, as it was at that moment, and how the budget and its window stand now."""
    found = queries.blocked_calls(store, str(call_id), days=3660, limit=1)["calls"]
    if not found:
        raise Problem(
            404,
            "not-blocked",
            "No budget blocked such a call, or it is none that you may see",
            hint="GET /api/v1/calls with status=blocked lists those that were.",
        )
    return ExactJSON(found[0], max_age=_MAX_AGE_S)


@routes.get(
    "/{budget_id}",
    summary="One budget",
    responses={**answering(BudgetLimit, "The budget.", examples.BUDGET), **examples.NO_SUCH_BUDGET},
)
def one_budget(store: Reader, budget_id: _Id) -> Response:
    """A budget that stands on whoever asks, or on their organization."""
    return ExactJSON(found_budget(store, budget_id), max_age=_MAX_AGE_S)


@routes.patch(
    "/{budget_id}",
    summary="Change a budget",
    responses={**answering(BudgetLimit, "The budget as it stands now.", examples.BUDGET), **examples.NO_SUCH_BUDGET},
)
def change_budget(store: Reader, budget_id: _Id, change: BudgetChange) -> Response:
    """What is not named stays as it is; NULL lifts a limit."""
    return ExactJSON(queries.set_budget(store, {**key_of(found_budget(store, budget_id)), **change.columns}))


@routes.post(
    "/{budget_id}/raise",
    summary="More, until a moment",
    responses={
        **answering(list[LimitInForce], "The limits that are in force.", examples.RAISED),
        **examples.NO_SUCH_BUDGET,
    },
)
def raise_until(store: Reader, budget_id: _Id, more: Raise) -> Response:
    """Add to every limit of one entity; of a budget of each (`*`) `entity_id` says whose. What is in force now."""
    budget: dict[str, Any] = dict(found_budget(store, budget_id))
    if budget["entity_id"] == "*" and more.entity_id is None:
        raise Problem(
            422, "whose", "Say whose limits are raised", hint="Name entity_id: this budget gives each its own."
        )
    columns = {**{name: budget[name] for name in BUDGET_KEY}, **more.columns}
    return ExactJSON(queries.raise_budget(store, {**columns, "entity_id": more.entity_id or budget["entity_id"]}))


@routes.delete(
    "/{budget_id}",
    summary="Remove a budget",
    status_code=204,
    response_class=Response,
    responses=examples.NO_SUCH_BUDGET,
)
def remove_budget(store: Reader, budget_id: _Id) -> Response:
    """Remove it with its windows; its alerts stay."""
    found_budget(store, budget_id)
    if not queries.remove_budget(store, budget_id):
        raise Problem(404, "no-such-budget", "There is no such budget", hint="GET /api/v1/budgets lists them.")
    return Response(status_code=204)
