"""Figures for monitoring: this month's calls by model, how full budgets are, how old what is recorded is; no user."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date
from decimal import Decimal
from typing import Final, Literal

from vital_tracking.queries.budgets import fullest_windows
from vital_tracking.queries.calls import last_call_at
from vital_tracking.queries.copies import copies
from vital_tracking.queries.explore import Explored, Period, explore
from vital_tracking.queries.health import database_time
from vital_tracking.queries.health_sums import days_to_sum_up, views_refreshed_at
from vital_tracking.stores import Store

_MODELS: Final = 100
_OF_MONTH: Final = "of this calendar month (UTC); begins anew with each"
_COUNTED: Final[Mapping[str, tuple[str, str]]] = {
    "calls": ("calls_total", f"Calls {_OF_MONTH}."),
    "failed_calls": ("failed_calls_total", f"Calls that failed, {_OF_MONTH}."),
    "blocked_calls": ("blocked_calls_total", f"Calls that a budget stopped, {_OF_MONTH}."),
    "unpriced_calls": ("unpriced_calls_total", f"Calls without a known price, which are in no cost, {_OF_MONTH}."),
    "total_tokens": ("tokens_total", f"Tokens {_OF_MONTH}."),
    "total_cost": ("cost_usd_total", f"US dollars of priced calls {_OF_MONTH}."),
}


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric as Prometheus knows them: its name, kind and meaning, and its samples with their labels."""

    name: str
    kind: Literal["counter", "gauge"]
    meaning: str
    samples: Sequence[tuple[Mapping[str, str], Decimal | int]]


def metrics(store: Store) -> Iterator[Metric]:
    """All metrics of an installation, for a store with its own rights. Raises StoreError where it does not answer."""
    now = database_time(store).astimezone(UTC)
    yield from _of_month(store, now.date())
    windows = fullest_windows(store)
    yield Metric(
        "budget_used_percent",
        "gauge",
        "How far the fullest running window of a budget is spent, 100 at its limit.",
        [
            (
                {"budget": str(number), **{name: str(one[name]) for name in ("entity_type", "metric", "period")}},
                one["spent"] * 100 / one["limit_amount"] if one["limit_amount"] else 100,
            )
            for number, one in sorted(windows.items())
        ],
    )
    last = last_call_at(store)
    yield Metric(
        "last_call_age_seconds",
        "gauge",
        "How long ago the newest recorded call began.",
        [({}, Decimal(str((now - last).total_seconds())))] if last else [],
    )
    behind = copies(store)
    yield Metric(
        "export_lag_seconds",
        "gauge",
        "How old the oldest change is that a copy in a ClickHouse lacks.",
        [
            ({"copy": copy["target"], "table": table["table_name"]}, table["lag_seconds"])
            for copy in behind
            for table in copy["tables"]
        ],
    )
    yield Metric("days_not_summed_up", "gauge", "Days of calls that reports leave out.", [({}, days_to_sum_up(store))])
    yield Metric(
        "view_age_seconds",
        "gauge",
        "How long ago a materialized view was refreshed.",
        [
            ({"view": name}, Decimal(str((now - at).total_seconds())))
            for name, at in sorted(views_refreshed_at(store).items())
        ],
    )


def this_month(store: Store, today: date) -> Explored:
    """The calls of the month so far, by model."""
    month = Period.of_days(today.replace(day=1), today)
    return explore(store, month, by=("model",), measures=tuple(_COUNTED), top=_MODELS)


def _of_month(store: Store, today: date) -> Iterator[Metric]:
    rows = this_month(store, today).rows
    for measure, (name, meaning) in _COUNTED.items():
        samples = [({"model": _model(row)}, row[measure]) for row in rows if row[measure] is not None]
        yield Metric(name, "counter", meaning, samples)


def _model(row: Mapping[str, object]) -> str:
    return "(all others)" if row.get("others") else str(row["model"] or "")
