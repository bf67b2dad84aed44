"""Where a day or a month ends: what is spent, and what it will come to. Amounts are US dollars as Decimal."""

from __future__ import annotations

from datetime import date, datetime
from typing import Final

from typing_extensions import TypedDict

from vital_tracking.queries.answers import Amount, answer_type, typed
from vital_tracking.stores import Store

FORECAST_PERIODS: Final = ("day", "month")


@answer_type
class ForecastError(TypedDict):
    """How far such forecasts of earlier days were off: on average, in percent (`mape`), and how many there were."""

    mape: float | None
    windows: int


@answer_type
class BudgetForecast(TypedDict):
    """What becomes of a budget until its window ends: `projected_share` in percent; `runs_out_at` None where it lasts."""

    id: int
    entity: str
    action: str
    enforce: bool
    timezone: str
    limit: Amount
    spent: Amount
    projected: Amount
    projected_share: float | None
    runs_out_at: datetime | None


@answer_type
class Forecast(TypedDict):
    """Where a period ends. `days` are what was spent and what is projected of each day; `low` and `high` the likely range.

    `method` says what it rests on: `weekday and hour`, `average day`, `last day`, or `no history`. `budgets` are those of the
    organization, where one was asked for.
    """

    organization: str | None
    period: str
    timezone: str
    moment: datetime
    starts_at: datetime
    ends_at: datetime
    spent: Amount
    unpriced_calls: int | None
    burn_rate_per_day: Amount
    projected: Amount
    low: Amount
    high: Amount
    error: ForecastError | None
    method: str
    days: list[tuple[date, Amount | None, Amount | None]]
    budgets: list[BudgetForecast]


def cost_forecast(
    store: Store,
    *,
    organization: str | None = None,
    period: str = "month",
    timezone: str = "UTC",
    moment: datetime | None = None,
) -> Forecast:
    """Where the day or month ends (`period`: one of FORECAST_PERIODS) that runs now in a time zone.

    With `moment`, the one that ran then, told from what was known then. Raises StoreError, StoreRejected for an unknown zone.
    """
    at = {} if moment is None else {"moment": moment}
    return typed(Forecast, store.call("forecast_v1", organization=organization, period=period, timezone=timezone, **at))


def has_history(ahead: Forecast) -> bool:
    """Whether there are any calls that a forecast can rest on."""
    return ahead["method"] != "no history"
