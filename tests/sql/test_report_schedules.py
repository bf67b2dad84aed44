"""Schedules of saved reports: when they are due, that each moment is claimed by one, and what a report's owner is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege

from tests.sql import test_members
from tests.sql.access_world import make_world
from tests.sql.helpers import ADMIN, ALICE, BOB, STRANGER, Connection
from tests.sql.test_members import request

ask: Callable[..., Any] = test_members.ask

MOMENTS = """
    select array_agg(m at time zone 'UTC' order by m) as found from vital_private.report_moments(
        jsonb_populate_record(null::report_schedules, %s), %s
    ) as m where m > %s
"""


@pytest.mark.parametrize(
    ("schedule", "after", "next_ones"),
    [
        ({"every": "day", "hour": 8, "timezone": "UTC"}, "2026-03-01T08:00", ["2026-03-02T08:00", "2026-03-03T08:00"]),
        # The clocks of Berlin go forward on 29 March 2026, and back on 25 October.
        (
            {"every": "day", "hour": 2, "timezone": "Europe/Berlin"},
            "2026-03-28T02:00",
            ["2026-03-29T01:00", "2026-03-30T00:00"],
        ),
        (
            {"every": "day", "hour": 2, "timezone": "Europe/Berlin"},
            "2026-10-24T01:00",
            ["2026-10-25T01:00", "2026-10-26T01:00"],
        ),
        (
            {"every": "week", "weekday": 1, "hour": 0, "timezone": "Asia/Kolkata"},
            "2026-01-04T18:29",
            ["2026-01-04T18:30", "2026-01-11T18:30"],
        ),
        (
            {"every": "month", "day": 31, "hour": 7, "timezone": "UTC"},
            "2026-01-31T07:00",
            ["2026-02-28T07:00", "2026-03-31T07:00"],
        ),
        (
            {"every": "month", "day": 1, "hour": 0, "timezone": "Pacific/Kiritimati"},
            "2026-11-30T10:00",
            ["2026-12-31T10:00"],
        ),
    ],
)
def test_a_report_is_due_by_the_clocks_of_its_zone(
    db: Connection, schedule: dict[str, Any], after: str, next_ones: list[str]
) -> None:
    """If this failed, a report would come on the wrong day, or not at all in a short month or a night without that hour."""
    moment = datetime.fromisoformat(after).replace(tzinfo=UTC)
    row = db.execute(MOMENTS, [json.dumps(schedule), moment, moment]).fetchone()
    assert row is not None
    assert [one.isoformat(timespec="minutes") for one in row["found"]][: len(next_ones)] == next_ones


def saved(db: Connection, owner: str | None, name: str = "by model") -> int:
    row = db.execute(
        "insert into saved_reports (owner, name, asked) values (%s, %s, '[]') returning id", [owner, name]
    ).fetchone()
    assert row is not None
    return int(row["id"])


def due(db: Connection, report: int, **ago: float) -> None:
    db.execute(
        "update report_schedules set due_at = now() - %s, claimed_until = least(claimed_until, now() - interval '1 s')"
        " where report_id = %s",
        [timedelta(**ago), report],
    )


def state(db: Connection, report: int) -> dict[str, Any]:
    row = db.execute(
        "select *, due_at > now() as later, due_at - now() as wait, claimed_until - now() as pause from report_schedules"
        " where report_id = %s",
        [report],
    ).fetchone()
    assert row is not None
    return row


def test_what_is_due_is_claimed_by_one_until_it_is_settled(db: Connection) -> None:
    """If this failed, a report would be sent twice, or be lost where its channel did not take it."""
    with db.transaction(force_rollback=True):
        report = saved(db, ALICE)
        ask(db, "schedule_report_v1", report, "finance", "day")
        assert ask(db, "claim_report_v1", "p-1") is None
        due(db, report, days=5, minutes=1)
        assert ask(db, "claim_report_v1", "p-1", None, '["team", "alerts"]') is None
        assert ask(db, "claim_report_v1", "p-1", report + 1) is None
        claimed = ask(db, "claim_report_v1", "p-1", report, '["finance"]')
        assert (claimed["owner"], claimed["channel"], claimed["taken"]) == (ALICE, "finance", [])
        # Of five moments that were missed the last one is sent.
        assert timedelta() <= datetime.now(UTC) - datetime.fromisoformat(claimed["due_at"]) < timedelta(days=1)
        assert ask(db, "claim_report_v1", "p-2") is None
        assert ask(db, "settle_report_v1", report, "p-2", True) is False
        assert ask(db, "settle_report_v1", report, "p-1", False, "[2]", "HTTP 500") is True
        found = state(db, report)
        assert (found["taken"], found["failures"], found["problem"], found["later"]) == ([2], 1, "HTTP 500", False)
        assert found["pause"] == timedelta(minutes=5)
        assert ask(db, "claim_report_v1", "p-2") is None  # before the pause is over
        db.execute("update report_schedules set claimed_until = now() - interval '1 second'")
        assert ask(db, "claim_report_v1", "p-2")["taken"] == [2]
        assert ask(db, "settle_report_v1", report, "p-2", True) is True
        found = state(db, report)
        assert (found["taken"], found["failures"], found["problem"], found["later"]) == ([], 0, None, True)
        assert found["sent_at"] is not None
        assert ask(db, "claim_report_v1", "p-2") is None
        assert ask(db, "unschedule_report_v1", report) is True
        assert ask(db, "unschedule_report_v1", report) is False


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"channel": "mailto://user:password@example.com"}, "channel"),
        ({"every": "year"}, "every"),
        ({"weekday": 8}, "weekday"),
        ({"day": 0}, "weekday, day"),
        ({"hour": 24}, "weekday, day, hour"),
        ({"timezone": "Berlin"}, "timezone"),
        ({"report": 0}, "report"),
    ],
)
def test_what_is_no_schedule_is_refused_by_its_name(db: Connection, arguments: dict[str, Any], named: str) -> None:
    with db.transaction(force_rollback=True):
        given = {"report": saved(db, None), "channel": "finance", **arguments}
        places = ", ".join(f"{name} => %s" for name in given)
        with pytest.raises(psycopg.Error, match=f"^{named}") as error, db.transaction():
            db.execute(f"select schedule_report_v1({places})", list(given.values()))
        assert error.value.sqlstate == "22023"
        assert "password" not in str(error.value)


def test_the_owner_sees_when_a_report_is_sent_and_operators_see_all(db: Connection) -> None:
    """If this failed, nobody could tell what is sent where, or anybody could send things to the team's channels."""
    with db.transaction(force_rollback=True):
        for owner in (ALICE, None):
            ask(db, "schedule_report_v1", saved(db, owner), "finance", "week", 3)
        for owner, seen in ((ALICE, 1), (BOB, 0)):
            with request(db, "authenticated", {"sub": owner}):
                for everybody in (False, True):
                    found = ask(db, "saved_reports_v1", everybody)
                    assert [(one["owner"], one["schedule"]["weekday"]) for one in found] == [(ALICE, 3)] * seen
                with pytest.raises(InsufficientPrivilege), db.transaction():
                    ask(db, "schedule_report_v1", 1, "finance")
        with request(db, "service_role"):
            assert [one["owner"] for one in ask(db, "saved_reports_v1")] == [None]
            assert [one["owner"] for one in ask(db, "saved_reports_v1", True)] == [None, ALICE]
        noted = db.execute("select operation from admin_audit where table_name = 'report_schedules'").fetchall()
        assert [line["operation"] for line in noted] == ["insert", "insert"]
        with request(db, "authenticated", {"sub": ALICE}):
            assert ask(db, "remove_report_v1", "by model") is True
        assert len(db.execute("select from report_schedules").fetchall()) == 1


def test_a_report_is_told_what_its_owner_is_told(db: Connection) -> None:
    """If this failed, a mail would show somebody else's bill."""
    asked = json.dumps(
        {
            "since": (datetime.now(UTC) - timedelta(days=40)).isoformat(),
            "until": (datetime.now(UTC) + timedelta(days=1)).isoformat(),
            "dimensions": ["user", "organization"],
            "filters": '{"model": "m"}',
        }
    )
    with db.transaction(force_rollback=True):
        make_world(db)
        told = {}
        for owner in (ALICE, ADMIN, STRANGER, "user_2x'; --", None):
            report = saved(db, owner, "another")
            with request(db, "service_role", {"role": "service_role"}):
                found = ask(db, "ask_for_report_v1", report, "usage_explore_v1", asked)
                after = db.execute(
                    "select current_user as who, current_setting('request.jwt.claims') as claims,"
                    " auth.jwt() ->> 'sub' as subject"
                ).fetchone()
            assert after == {"who": "service_role", "claims": '{"role": "service_role"}', "subject": None}
            with request(db, "service_role" if owner is None else "authenticated", {"sub": owner}):
                own = _explored(db, asked)
            assert (found["total"], found["rows"]) == (own["total"], own["rows"])
            told[owner] = found["total"]["calls"]
        assert told[STRANGER] == 0
        assert 0 < told[ALICE] < told[ADMIN] < told[None]
        for function in ("claim_report_v1", "remove_report_v1", "database_id_v1", "pg_sleep", "no_such_function"):
            with pytest.raises(psycopg.Error, match=r"^asks:"), db.transaction():
                ask(db, "ask_for_report_v1", report, function, "{}")
        with (
            request(db, "authenticated", {"sub": ALICE}),
            pytest.raises(InsufficientPrivilege),
            db.transaction(),
        ):
            ask(db, "ask_for_report_v1", report, "my_memberships", "{}")


def _explored(db: Connection, asked: str) -> dict[str, Any]:
    row = db.execute(
        "select usage_explore_v1(since => a.since, until => a.until, dimensions => a.dimensions, filters => a.filters) as answer"
        " from json_to_record(%s) as a (since timestamptz, until timestamptz, dimensions text[], filters jsonb)",
        [asked],
    ).fetchone()
    assert row is not None
    return row["answer"]  # type: ignore[no-any-return]
