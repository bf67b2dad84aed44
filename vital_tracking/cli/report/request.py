"""What was asked of `vital-tracking report`: the time, whose calls, how many rows, how exact."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, TypedDict
from zoneinfo import ZoneInfo

import typer

from vital_tracking.cli.render.console import say
from vital_tracking.cli.render.times import days_text, moment, month
from vital_tracking.core.days import FIRST_DAY
from vital_tracking.queries.calls import last_call_at
from vital_tracking.queries.filters import Filters
from vital_tracking.queries.health_sums import days_to_sum_up
from vital_tracking.queries.usage import UsageReport, usage_report
from vital_tracking.stores import Store

PRICE_THEM: Final = (
    "  To price them: vital-tracking prices set MODEL --input USD --output USD, then: vital-tracking reprice"
)
MOST_ROWS: Final = 10_000
_SHOWN: Final = 20
_FOR_PROGRAMS: Final = 1000
_DAYS: Final = 30


class Range(TypedDict):
    """The time and the organization, as queries take them that know no other filter."""

    since: datetime
    until: datetime
    organization: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportRequest:
    """What was asked for. `words` are the options that say which calls, as they were given."""

    since: datetime
    until: datetime
    filters: Filters
    limit: int | None
    exact: bool
    period: str
    timezone: str
    json: bool
    csv: bool
    words: tuple[str, ...]
    by: str | None = None
    grain: str = "day"
    sort: str | None = None
    ascending: bool = False

    @property
    def organization(self) -> str | None:
        """The one organization whose calls count."""
        return self.filters.organization

    @property
    def beyond_organization(self) -> list[str]:
        """The other filters, which not every report knows."""
        return [name for name in self.filters.given if name != "organization"]

    @property
    def rows(self) -> int:
        """How many rows at most: programs get more than people."""
        return self.limit or (_FOR_PROGRAMS if self.json or self.csv else _SHOWN)

    @property
    def range(self) -> Range:
        """The arguments that queries take which know no other filter."""
        return Range(since=self.since, until=self.until, organization=self.organization)

    @property
    def days(self) -> str:
        """The days in words."""
        return days_text(self.since, self.until, self.timezone)

    def usage(self, store: Store, grouping: str, *, rows: int | None = None) -> UsageReport:
        """The usage report of a grouping, as it was asked for."""
        return usage_report(
            store,
            grouping,
            self.filters,
            by=self.by,
            timezone=self.timezone,
            grain=self.grain,
            sort=self.sort,
            ascending=self.ascending,
            rows=self.rows if rows is None else rows,
        )

    def command(self, report: str) -> str:
        """The command for another report of the same calls."""
        organization = () if self.organization is None else ("--organization", shlex.quote(self.organization))
        return " ".join(
            ["vital-tracking", "report", report, *(() if report == "forecast" else self.words), *organization]
        )


def time_range(
    days: int | None, since: str | None, until: str | None, month_: str | None = None, timezone: str = "UTC"
) -> tuple[datetime, datetime]:
    """The time that the options name: by default the last 30 days of the zone, today included."""
    if month_ is not None:
        if (days, since, until) != (None, None, None):
            raise typer.BadParameter("--month says all: leave --days, --since and --until out")
        return month(month_, timezone)
    if days is not None and since is not None:
        raise typer.BadParameter("--days and --since say the same thing: leave one of them out")
    zone = ZoneInfo(timezone)
    last = moment(until, "--until", timezone) if until is not None else datetime.now(UTC)
    if since is not None:
        first = moment(since, "--since", timezone)
    else:
        last_day = (last - timedelta(microseconds=1)).astimezone(zone).date()
        first_day = last_day - timedelta(days=min((days or _DAYS) - 1, (last_day - FIRST_DAY).days))
        first = datetime(first_day.year, first_day.month, first_day.day, tzinfo=zone)
    if first >= last:
        raise typer.BadParameter("--since must be earlier than --until")
    return first, last


def whose_calls(organization: str | None) -> str:
    """For titles: whose calls are counted, where it is not everybody's."""
    return f", organization {organization}" if organization is not None else ""


def say_no_calls(store: Store, asked: ReportRequest) -> None:
    """Why there is nothing to show, and what to do next."""
    whose = f" of organization {asked.organization}" if asked.organization is not None else ""
    if asked.beyond_organization:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in asked.beyond_organization)
        say(f"No calls{whose} match {names} in these days: {asked.days}. See: vital-tracking calls")
        return
    if waiting := days_to_sum_up(store):
        say(
            f"No calls{whose} in these days: {asked.days}. But {waiting} days are still to be summed up: "
            "vital-tracking backfill"
        )
    elif last := last_call_at(store, organization=asked.organization):
        say(
            f"No calls{whose} in these days: {asked.days}. The last was on {last:%Y-%m-%d}: "
            f"vital-tracking report --since {last:%Y-%m-%d}"
        )
    elif asked.organization is not None:
        say(f"No calls{whose}. Which organizations there are: vital-tracking report organizations")
    else:
        say("No calls yet. For some, in a database of their own: vital-tracking demo")
        say('To record your own: model.invoke(question, config={"callbacks": [VitalTracker.from_env().handler]})')
