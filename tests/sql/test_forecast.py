"""Where a day or a month ends: told by weekdays and hours, never below what is spent, which is exact, and honest in its error."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest

from tests.sql.helpers import (
    ADMIN,
    ALICE,
    CAROL,
    Connection,
    Row,
    a_call,
    a_cost,
    acting_as,
    an_unpriced_call,
    call,
    connect,
    record,
    set_budget,
)
from tests.sql.synthetic_usage import FUNCTIONS, write_history

# Organizations with five months of history from the first of January on; clocks change on 8 March in New York.
KINDS: dict[str, Row] = {
    "steady": {"noise": 0.05},
    "growing": {"growth": 0.05},
    "india": {"zone": "Asia/Kolkata"},
    "new york": {"zone": "America/New_York"},
    "chatham": {"zone": "Pacific/Chatham"},
    "young": {"first_day": "2026-04-28", "days": 50},
    "tiny": {"a_day": 0.0003, "first_day": "2026-03-20", "days": 50},
}
ZONES = ["UTC", "Asia/Kolkata", "America/New_York", "Pacific/Chatham", "Australia/Lord_Howe", "America/Santiago"]


@pytest.fixture(scope="module")
def histories(urls: dict[str, str]) -> Iterator[Connection]:
    """The owner's connection to a database with a history of each kind, in a transaction that is rolled back in the end."""
    with connect(urls["hosted"]) as connection, connection.transaction(force_rollback=True):
        connection.execute(FUNCTIONS)
        for name, changes in KINDS.items():
            write_history(connection, name, **changes)
        yield connection


@contextmanager
def undone(connection: Connection) -> Iterator[Connection]:
    """What is changed inside is taken back."""
    with connection.transaction(force_rollback=True):
        yield connection


def forecast(
    connection: Connection, organization: str | None, moment: datetime, period: str = "month", zone: str = "UTC"
) -> Row:
    with connection.transaction():
        found = connection.execute(
            "select * from cost_forecast(%s, %s, %s, %s)", [organization, period, zone, moment]
        ).fetchone()
    assert found is not None
    return found


def paid(connection: Connection, organization: str, since: datetime, until: datetime) -> Decimal:
    """What the calls themselves come to."""
    found = connection.execute(
        "select coalesce(sum(total_cost), 0) as cost from token_usage_logs"
        " where organization_id = %s and created_at >= %s and created_at < %s",
        [organization, since, until],
    ).fetchone()
    assert found is not None
    return Decimal(found["cost"])


def at(text: str, zone: str = "UTC") -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone))


def off(told: Row, truth: Decimal) -> float:
    return float(abs(told["projected"] - truth) / truth)


def off_in_a_line(told: Row, moment: datetime, truth: Decimal) -> float:
    """How far off whoever takes what was spent a second for the rest of the window."""
    passed = (moment - told["starts_at"]) / (told["ends_at"] - told["starts_at"])
    line: float = float(told["spent"]) / passed
    return abs(line - float(truth)) / float(truth)


@pytest.mark.parametrize(
    ("organization", "zone", "most"),
    [
        ("steady", "UTC", 0.02),
        ("growing", "UTC", 0.10),
        ("india", "Asia/Kolkata", 0.06),
        ("new york", "America/New_York", 0.06),
        ("chatham", "Pacific/Chatham", 0.06),
    ],
)
@pytest.mark.parametrize("period", ["month", "day"])
def test_a_window_ends_where_weekdays_and_hours_say_and_not_where_a_line_does(
    histories: Connection, organization: str, zone: str, most: float, period: str
) -> None:
    """If this failed, a month would be told too high after a week without weekends, a day too low before the office opens."""
    moments = [
        at(f"2026-{month:02}-{day:02} {clock}", zone)
        for month in (4, 5)
        for day, clock in [(5, "11:00"), (9, "06:00"), (12, "13:30"), (16, "15:00"), (21, "09:00")]
    ]
    told, line, said, inside = [], [], [], 0
    for moment in moments:
        answer = forecast(histories, organization, moment, period, zone)
        truth = paid(histories, organization, answer["starts_at"], answer["ends_at"])
        told.append(off(answer, truth))
        line.append(off_in_a_line(answer, moment, truth))
        said.append(answer["mape"])
        inside += answer["low"] <= truth <= answer["high"]
        assert answer["method"] == "weekday and hour"
        assert answer["windows"] == {"month": 8, "day": 28}[period]
    mean = sum(told) / len(told)
    assert mean < (most if period == "month" else 0.15)
    assert mean < {"month": 0.9, "day": 0.5}[period] * sum(line) / len(line)
    # What it says of its own error is about what it is, and most windows end between low and high.
    assert 0.4 < (sum(said) / len(said)) / (100 * mean) < 2.5
    assert inside >= 6


def test_a_forecast_is_never_below_what_is_spent_and_leaves_no_spending_out(histories: Connection) -> None:
    """If this failed, a projection could be less than the bill so far, or the bill of a half-hour zone wrong by half an hour."""
    chance = random.Random(5)
    with undone(histories):
        for action, limits in {
            "alert": (0, 0),
            "throttle": (60, 900),
            "downgrade": (95, 1500),
            "block": (130, 2400),
        }.items():
            set_budget(
                histories, entity_type="organization", action=action, timezone=chance.choice(ZONES),
                daily_limit=limits[0], monthly_limit=limits[1],
            )  # fmt: skip
        for number in range(30):
            organization, zone, period = (
                chance.choice([*KINDS, "nobody"]),
                chance.choice(ZONES),
                chance.choice(["month", "day"]),
            )
            moment = datetime(2025, 12, 30, tzinfo=UTC) + timedelta(microseconds=chance.randrange(160 * 86_400_000_000))
            told = forecast(histories, organization, moment, period, zone)
            case = (number, organization, zone, period, moment, told)
            assert told["starts_at"] <= moment < told["ends_at"], case
            assert 0 <= told["spent"] <= told["low"] <= told["projected"] <= told["high"], case
            assert told["spent"] == paid(histories, organization, told["starts_at"], moment), case
            days = [(date.fromisoformat(day), spent, projected) for day, spent, projected in told["days"]]
            first = told["starts_at"].astimezone(ZoneInfo(zone)).date()
            assert [day for day, _, _ in days] == [first + timedelta(days=n) for n in range(len(days))], case
            assert days[-1][0] == (told["ends_at"] - timedelta(microseconds=1)).astimezone(ZoneInfo(zone)).date(), case
            assert sum(Decimal(spent) for _, spent, _ in days if spent is not None) == told["spent"], case
            # Today has both: what was spent so far, and what it will come to.
            assert sum(Decimal(projected or spent) for _, spent, projected in days) == told["projected"], case
            assert [projected for day, _, projected in days if day < moment.astimezone(ZoneInfo(zone)).date()] == [
                None
            ] * (sum(1 for _, spent, _ in days if spent is not None) - 1), case
            assert (told["mape"] is None) == (told["windows"] == 0), case
            assert_budgets_run_out_in_time(told["budgets"], moment, case)


def assert_budgets_run_out_in_time(budgets: list[Row], moment: datetime, case: object) -> None:
    """Each runs out before now if it is spent, after now if it will be, and else not."""
    assert len(budgets) == 4, case
    for budget in budgets:
        limit = Decimal(budget["limit"])
        out = datetime.fromisoformat(budget["runs_out_at"]) if budget["runs_out_at"] is not None else None
        assert (out is not None) == (Decimal(budget["projected"]) >= limit), case
        if out is not None:
            assert (out <= moment) == (Decimal(budget["spent"]) >= limit), case
            assert moment - timedelta(days=31, hours=1) <= out <= moment + timedelta(days=31, hours=1), case


def test_the_days_of_a_half_hour_zone_are_exact(histories: Connection) -> None:
    """If this failed, an Indian admin's day would hold half an hour of the day before."""
    zone = "Asia/Kolkata"
    told = forecast(histories, "india", at("2026-05-20 12:10", zone), zone=zone)
    assert told["starts_at"] == at("2026-05-01 00:00", zone)
    for day, spent, _ in told["days"][:19]:
        since = at(day, zone)
        assert Decimal(spent) == paid(histories, "india", since, since + timedelta(days=1)) > 0


def test_a_forecast_uses_nothing_from_after_its_moment(histories: Connection) -> None:
    """If this failed, the error on held-back history would be that of somebody who had looked."""
    moment = at("2026-05-13 14:20:30")
    for zone in ("UTC", "Asia/Kolkata"):
        for period in ("month", "day"):
            before = forecast(histories, "growing", moment, period, zone)
            assert forecast(histories, "growing", moment, period, zone) == before
            with undone(histories):
                histories.execute(
                    "delete from token_usage_logs where organization_id = 'growing' and created_at >= %s", [moment]
                )
                assert forecast(histories, "growing", moment, period, zone) == before


def test_a_forecast_needs_calls_only_for_parts_of_hours(histories: Connection) -> None:
    """If this failed, a forecast would read millions of calls, or forget what retention has removed."""
    moment = at("2026-05-13 14:20:30")
    before = forecast(histories, "growing", moment)
    with undone(histories):
        histories.execute("select set_config('vital_tracking.keep_sums', 'on', true)")
        histories.execute(
            "delete from token_usage_logs where organization_id = 'growing' and created_at < %s",
            [at("2026-05-13 14:00")],
        )
        assert forecast(histories, "growing", moment) == before


def test_a_forecast_without_history_is_what_was_spent(histories: Connection) -> None:
    """If this failed, a new organization would get an error, or a number out of nothing."""
    moment = at("2026-05-13 14:20")
    for period, days in (("month", 31), ("day", 1)):
        told = forecast(histories, "nobody", moment, period)
        assert (told["method"], told["mape"], told["windows"], len(told["days"])) == ("no history", None, 0, days)
        assert {told[name] for name in ("spent", "projected", "low", "high", "burn_rate_per_day")} == {Decimal(0)}
    with undone(histories):
        record(histories, a_cost(1, "0.5", organization_id="nobody", created_at="2026-05-13T14:10:00Z"))
        told = forecast(histories, "nobody", moment)
        assert (told["method"], told["spent"], told["projected"]) == ("no history", Decimal("0.5"), Decimal("0.5"))
    asked = call(histories, "forecast_v1", organization="nobody", moment=moment)
    assert (asked["error"], asked["projected"]) == (None, "0")


def test_a_short_history_is_forecast_by_its_average_day(histories: Connection) -> None:
    """If this failed, one call would be taken for a habit of every hour, or be forgotten."""
    with undone(histories):
        record(histories, a_cost(1, 3, organization_id="one", created_at="2026-05-13T10:00:00Z"))
        an_hour_later = forecast(histories, "one", at("2026-05-13 12:00"))
        assert an_hour_later["method"] == "last day"
        assert an_hour_later["projected"] == 3 + Decimal("55.5")  # three dollars a day, for eighteen and a half days
        assert (an_hour_later["low"], an_hour_later["high"]) == (3, 3 + 2 * Decimal("55.5"))
        five_days_later = forecast(histories, "one", at("2026-05-18 12:00"))
        assert five_days_later["method"] == "average day"
        assert five_days_later["spent"] == 3
        assert 3 < five_days_later["projected"] < 3 + 3 * 13
        assert forecast(histories, "one", at("2026-08-18 12:00"))["projected"] == 0
        assert forecast(histories, "one", at("2026-12-18 12:00"))["method"] == "no history"
    week = forecast(histories, "young", at("2026-05-06 09:00"))
    assert week["method"] == "average day"
    assert week["windows"] == 0
    truth = paid(histories, "young", week["starts_at"], week["ends_at"])
    assert off(week, truth) < 0.25
    assert forecast(histories, "young", at("2026-05-13 09:00"))["method"] == "weekday and hour"


def test_an_incident_is_no_habit_but_growth_is_followed(histories: Connection) -> None:
    """If this failed, one runaway evening would be projected onto every day to come, or a doubled load on none."""
    moment = at("2026-05-14 09:30")
    before = forecast(histories, "steady", moment)
    with undone(histories):
        record(histories, a_cost(1, 2000, organization_id="steady", created_at="2026-05-12T22:10:00Z"))
        after = forecast(histories, "steady", moment)
        assert after["spent"] == before["spent"] + 2000
        rest = [told["projected"] - told["spent"] for told in (before, after)]
        assert rest[1] / rest[0] == pytest.approx(1, rel=Decimal("0.05"))
    with undone(histories):
        write_history(histories, "steady", first_day="2026-05-06", days=20, noise=0.05)
        after = forecast(histories, "steady", moment)
        truth = paid(histories, "steady", after["starts_at"], at("2026-05-26"))
        rest = [told["projected"] - told["spent"] for told in (before, after)]
        assert rest[1] / rest[0] == pytest.approx(2, rel=Decimal("0.1"))
        assert truth < after["projected"]


def test_calls_without_a_price_are_counted_beside_the_cost(histories: Connection) -> None:
    """If this failed, a forecast would look complete where half of the bill has no price yet."""
    with undone(histories):
        record(
            histories,
            an_unpriced_call(1, organization_id="steady", created_at="2026-05-13T14:05:00Z"),
            an_unpriced_call(2, organization_id="steady", created_at="2026-05-02T14:05:00Z"),
        )
        assert forecast(histories, "steady", at("2026-05-13 14:20"))["unpriced_calls"] == 2


def test_a_forecast_says_when_budgets_run_out(histories: Connection) -> None:
    """If this failed, an admin would learn of a blocked organization from its users."""
    moment = at("2026-05-13 14:20")
    with undone(histories):
        told = forecast(histories, "steady", moment)
        spent, projected = told["spent"], told["projected"]
        limits = {"far": projected * 2, "soon": spent + 60, "past": spent / 2, "nothing": Decimal(0)}
        organization = {"entity_type": "organization", "entity_id": "steady"}
        actions = dict(zip(limits, ("alert", "throttle", "downgrade", "block"), strict=True))
        ids = {
            name: set_budget(histories, **organization, monthly_limit=limit, action=actions[name])["id"]
            for name, limit in limits.items()
        }
        others: list[Row] = [
            {"entity_type": "organization", "entity_id": "growing", "monthly_limit": 1},
            {"entity_type": "organization", "entity_id": "steady", "organization_id": "growing", "monthly_limit": 1},
            {"entity_type": "organization", "entity_id": "steady", "metric": "calls", "monthly_limit": 1},
            {"entity_type": "service", "entity_id": "workflow", "organization_id": "steady", "monthly_limit": 1},
        ]
        for other in others:
            set_budget(histories, **other)
        each = set_budget(histories, entity_type="organization", daily_limit=90, timezone="America/New_York")["id"]

        found = {budget["id"]: budget for budget in forecast(histories, "steady", moment)["budgets"]}
        assert set(found) == set(ids.values())
        assert found[ids["far"]]["projected_share"] == 50
        assert found[ids["far"]]["runs_out_at"] is None
        # What is left of this working day takes more than half of sixty dollars, the next morning takes the rest.
        soon = datetime.fromisoformat(found[ids["soon"]]["runs_out_at"])
        assert at("2026-05-14 08:00") < soon < at("2026-05-14 12:00")
        assert paid(histories, "steady", told["starts_at"], soon) == pytest.approx(spent + 60, rel=Decimal("0.03"))
        past = datetime.fromisoformat(found[ids["past"]]["runs_out_at"])
        assert paid(histories, "steady", told["starts_at"], past) < spent / 2
        assert paid(histories, "steady", told["starts_at"], past + timedelta(hours=1)) >= spent / 2
        assert (found[ids["nothing"]]["projected_share"], found[ids["nothing"]]["limit"]) == (None, "0")
        assert datetime.fromisoformat(found[ids["nothing"]]["runs_out_at"]) == told["starts_at"]

        # A budget's day is that of its own zone.
        [daily] = forecast(histories, "steady", moment, "day")["budgets"]
        there = forecast(histories, "steady", moment, "day", "America/New_York")
        assert (daily["id"], daily["entity"], daily["timezone"]) == (each, "*", "America/New_York")
        assert (daily["spent"], daily["projected"]) == (str(there["spent"]), str(there["projected"]))
        assert forecast(histories, None, moment)["budgets"] == []


def test_the_forecast_of_all_organizations_is_that_of_their_sum(histories: Connection) -> None:
    """If this failed, the total would not be what its parts are."""
    moment = at("2026-05-13 14:20")
    together = forecast(histories, None, moment)
    alone = [forecast(histories, organization, moment) for organization in KINDS]
    assert together["spent"] == sum(told["spent"] for told in alone)
    assert together["projected"] == pytest.approx(sum(told["projected"] for told in alone), rel=Decimal("0.02"))


def test_everyone_gets_the_forecast_of_what_they_may_see(histories: Connection) -> None:
    """If this failed, naming a competitor would show where their month ends, or a user's own month would stay empty."""
    moment = at("2026-05-13 14:20:30")
    with undone(histories):
        histories.execute(
            "insert into organization_members values"
            " ('steady', %s, 'admin'), ('growing', %s, 'admin'), ('steady', %s, 'member')",
            [ADMIN, ADMIN, ALICE],
        )
        set_budget(histories, entity_type="organization", entity_id="steady", monthly_limit=5)
        record(histories, a_call(1, user_id=ALICE, organization_id="steady", created_at="2026-05-13T14:05:00Z"))
        owner = forecast(histories, "steady", moment)
        with acting_as(histories, "authenticated", {"sub": ADMIN}):
            assert forecast(histories, "steady", moment) == owner
            both = forecast(histories, None, moment)
        assert both["spent"] == owner["spent"] + forecast(histories, "growing", moment)["spent"]
        with acting_as(histories, "authenticated", {"sub": CAROL}):
            assert forecast(histories, "steady", moment)["spent"] == 0
        # A user's is what the same calls would be told of an organization that has no others.
        histories.execute(
            "update token_usage_logs set user_id = %s where organization_id = 'india'"
            " and created_at >= '2026-03-01' and created_at < '2026-05-13T14:20:30Z'",
            [ALICE],
        )
        for zone in ("UTC", "Asia/Kolkata"):
            with acting_as(histories, "authenticated", {"sub": ALICE}):
                mine = forecast(histories, "india", moment, zone=zone)
                all_mine = forecast(histories, None, moment, zone=zone)
                told = call(histories, "forecast_v1", organization="india", moment=moment, timezone=zone)
            whole = forecast(histories, "india", moment, zone=zone)
            for name in ("spent", "burn_rate_per_day", "method"):
                assert mine[name] == whole[name]
            assert mine["projected"] == pytest.approx(whole["projected"], rel=Decimal("0.02"))
            assert told["spent"] == str(mine["spent"])
            assert all_mine["spent"] == mine["spent"] + Decimal("0.42")
        with acting_as(histories, "service_role"):
            assert forecast(histories, "steady", moment) == owner
            assert call(histories, "forecast_v1", organization="steady", moment=moment)["spent"] == str(owner["spent"])


def test_the_command_line_gets_amounts_as_text(histories: Connection) -> None:
    """If this failed, cents would be lost on their way through a float."""
    moment = at("2026-05-13 14:20:30")
    told = forecast(histories, "india", moment, zone="Asia/Kolkata")
    asked = call(histories, "forecast_v1", organization="india", period="month", timezone="Asia/Kolkata", moment=moment)
    for name in ("spent", "burn_rate_per_day", "projected", "low", "high"):
        assert asked[name] == str(told[name])
    assert asked["error"] == {"mape": told["mape"], "windows": told["windows"]}
    assert (asked["method"], asked["days"], asked["budgets"]) == (told["method"], told["days"], [])
    assert datetime.fromisoformat(asked["ends_at"]) == told["ends_at"]
    week = paid(histories, "india", moment - timedelta(days=7), moment) / 7
    assert Decimal(asked["burn_rate_per_day"]) == pytest.approx(week, rel=Decimal("0.02"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"period": "week"},
        {"period": None},
        {"timezone": "Mars/Olympus"},
        {"timezone": None},
        {"moment": None},
        {"moment": "infinity"},
    ],
)
def test_a_forecast_of_an_unknown_period_or_zone_is_refused(db: Connection, wrong: dict[str, Any]) -> None:
    """If this failed, a typing error would give a number that means something else."""
    with pytest.raises(psycopg.DataError):
        call(db, "forecast_v1", **{"organization": "acme", **wrong})
