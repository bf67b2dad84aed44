"""The forecast: where the day or month ends, as a chart of its days and in words."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from typing import Final

from rich.text import Text

from vital_tracking.alerts.wording import limit_text, local_time
from vital_tracking.cli.render.amounts import dollars, percent_text
from vital_tracking.cli.render.console import as_csv, as_json, console
from vital_tracking.cli.report.charts import Bar, chart
from vital_tracking.cli.report.request import PRICE_THEM, ReportRequest, say_no_calls, whose_calls
from vital_tracking.queries.forecast import BudgetForecast, Forecast, ForecastError, cost_forecast, has_history
from vital_tracking.queries.words import counted
from vital_tracking.stores import Store

_COLUMNS: Final = ("day", "spent", "projected")
_METHODS: Final = {
    "weekday and hour": "Told from what the weekdays and hours of the last eight weeks cost.",
    "average day": "Told from the average of the few days there are; from two weeks on, weekdays are told apart.",
    "last day": "Told from the last day alone; from two weeks on, weekdays are told apart.",
}


def show(store: Store, asked: ReportRequest) -> None:
    """Print the forecast."""
    answer = cost_forecast(store, organization=asked.organization, period=asked.period, timezone=asked.timezone)
    if asked.json:
        as_json(answer)
    elif asked.csv:
        as_csv([dict(zip(_COLUMNS, day, strict=True)) for day in answer["days"]], _COLUMNS)
    elif has_history(answer):
        for part in forecast_text(answer, exact=asked.exact):
            console.print(part, highlight=False, soft_wrap=True)
    else:
        say_no_calls(store, asked)


def forecast_sentence(answer: Forecast, *, exact: bool = False) -> str:
    """A forecast in a sentence."""
    period = "today" if answer["period"] == "day" else f"in {_first_day(answer):%B}"
    amounts = (answer["spent"], answer["projected"], answer["low"], answer["high"])
    spent, projected, low, high = (dollars(amount, exact=exact) for amount in amounts)
    # Without earlier times to try it on, the range is a guess.
    likely = "most likely" if answer["error"] else "perhaps"
    return f"Spent on calls {period}: {spent}, and by the end about {projected}, {likely} {low} to {high}."


def _first_day(answer: Forecast) -> date:
    return answer["days"][0][0]


def forecast_text(answer: Forecast, *, exact: bool) -> Iterator[Text]:
    """The whole forecast: its days as a chart, and what they mean in words."""
    first = _first_day(answer)
    when = f"{first:%B %Y}" if answer["period"] == "month" else f"{first.day} {first:%B %Y}"
    yield Text(f"Forecast for {when} ({answer['timezone']}){whose_calls(answer['organization'])}", "bold")
    bars = [Bar(str(day.day), spent or Decimal(0), projected or Decimal(0)) for day, spent, projected in answer["days"]]
    largest = max(bar.height for bar in bars)
    if largest and len(bars) > 1:
        yield chart(bars, dollars(largest), console.width)
        yield Text.assemble(("spent", "green"), "  ", ("projected", "cyan"), " by day\n")
    yield Text(forecast_sentence(answer, exact=exact))
    yield Text(f"The last 7 days cost {dollars(answer['burn_rate_per_day'], exact=exact)} a day.")
    yield Text(f"{_METHODS.get(answer['method'], '')} {error_sentence(answer['error'])}".strip())
    if answer["unpriced_calls"]:
        yield Text(f"Not in it: {counted(answer['unpriced_calls'], 'call')} without a known price.")
        yield Text(PRICE_THEM)
    for budget in answer["budgets"]:
        yield Text(_budget_sentence(budget, answer))
    if answer["organization"] is None:
        yield Text("With --organization ID also: which of its budgets run out, and when.")


def error_sentence(error: ForecastError | None) -> str:
    """How far such forecasts were off in the past."""
    if not error or error["mape"] is None:
        return "How right it is cannot be told yet: there are too few days to try it on."
    return (
        f"Made in the same way {counted(error['windows'], 'time')} for earlier days, knowing only what was known then, it was "
        f"off by {percent_text(error['mape'])} on average."
    )


def _budget_sentence(budget: BudgetForecast, answer: Forecast) -> str:
    """What becomes of a budget until its window ends."""
    each = "a day" if answer["period"] == "day" else "a month"
    action = f"{budget['action']}{'' if budget['enforce'] else ', shadow'}"
    named = f"Budget {budget['id']}, {limit_text(budget['limit'], 'cost_usd')} {each} ({action})"
    runs_out_at = budget["runs_out_at"]
    if runs_out_at is None:
        return f"{named}: lasts, {percent_text(budget['projected_share'])} of it by the end."
    verb = "ran" if runs_out_at <= answer["moment"] else "runs"
    at = local_time(runs_out_at, budget["timezone"])
    return f"{named}: {verb} out about {at}. See: vital-tracking budgets windows"
