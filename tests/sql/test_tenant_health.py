"""Tenants' health, worked out by hand: what is known, what is not, tenants that are new, and tenants that have gone silent."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import count
from typing import Any

import psycopg
import pytest

from tests.sql.helpers import ADMIN, ALICE, STRANGER, Connection, Row, a_call, acting_as, record
from tests.sql.platform_rows import an_event, an_execution, send

_numbers = count(1)


@pytest.fixture
def now(db: Connection) -> datetime:
    """The database's moment: that of the transaction, in which a whole test runs."""
    row = db.execute("select date_trunc('day', now() at time zone 'UTC') at time zone 'UTC' as at").fetchone()
    assert row is not None
    moment: datetime = row["at"]
    return moment


@pytest.fixture
def tenant(db: Connection, now: datetime) -> Callable[..., None]:
    """Writes what a tenant did so many days ago: events, calls, executions."""

    def write(
        organization: str,
        days_ago: int,
        *,
        user: str | None = "u-1",
        session: str | None = "s-1",
        events: int = 0,
        calls: int = 0,
        failed: int = 0,
        executions: int = 0,
        failures: int = 0,
        **scores: Any,
    ) -> None:
        at = (now - timedelta(days=days_ago)).isoformat()
        whose = {"organization_id": organization, "user_id": user}
        done = {"occurred_at": at, "session_id": session, **whose}
        send(db, "platform_events", *(an_event(next(_numbers), **done) for _ in range(events)))
        send(
            db,
            "agent_executions",
            *(
                an_execution(next(_numbers), started_at=at, success=number >= failures, **whose, **scores)
                for number in range(executions)
            ),
        )
        made = [
            a_call(next(_numbers), created_at=at, status="error" if number < failed else "ok", **whose)
            for number in range(calls)
        ]
        if made:
            record(db, *made)

    return write


def health(db: Connection, organization: str, days: int = 30) -> Row:
    """How it fares."""
    found = db.execute("select * from tenant_health(%s, %s)", [organization, days]).fetchone()
    assert found is not None
    return found


def test_all_parts_are_known(db: Connection, tenant: Any) -> None:
    tenant("acme", 40, user="u-2", session="s-2", events=1)  # known from the 30 days before, active no more
    tenant("acme", 1, events=5)
    tenant("acme", 0, events=3, calls=4, failed=1)
    tenant("acme", 0, executions=10, failures=1, rating=4, faithfulness=0.9, context_recall=0.7)
    found = health(db, "acme")
    # 1 of 2 users: 50. 2 sessions of one user in 30 days: 2 * 7 / 30 a week of 3: 15.56. 12 events in 2 sessions: 6 of 10: 60.
    assert (found["known_users"], found["active_users"], found["sessions"], found["events"]) == (2, 1, 2, 12)
    assert [found[f"{part}_score"] for part in ("users", "sessions", "events")] == [
        50,
        Decimal("15.56"),
        60,
    ]
    assert found["engagement"] == Decimal("41.85")  # (50 + 15.5556 + 60) / 3
    assert found["performance"] == 90  # of the executions: the calls do not count beside them
    assert (found["rating_score"], found["scores_score"]) == (75, 80)  # (4 - 1) / 4; the mean of 0.9 and 0.7
    assert found["quality"] == Decimal("77.5")
    assert found["health"] == Decimal("71.81")  # 0.3 * 41.85185 + 0.4 * 90 + 0.3 * 77.5
    # The days before: 1 of 1 user, 1 session (7.7778), 1 event (10): 39.2593 of engagement, and nothing else is known.
    assert found["trend"] == Decimal("71.81") - Decimal("39.26")
    assert found["reasons"] == [
        "0.5 sessions of an active user in a week; 3 are 100.",
        "1 of 2 known users were active.",
        "6.0 events and calls a session; 10 are 100.",
        "1 of 10 executions of agents failed.",
        "Users rate it 4.0 of 5 (10 ratings).",
        "Its answers score 0.80 of 1 (20 scores).",
    ]
    row = db.execute(
        "select get_tenant_engagement('acme', 30) as engagement, calculate_tenant_health('acme') as health"
    ).fetchone()
    assert row == {"engagement": Decimal("41.85"), "health": Decimal("71.81")}


def test_what_is_not_known_leaves_the_rest_to_scale(db: Connection, tenant: Any) -> None:
    # Calls alone: no sessions are recorded, so each day of a user counts as one; nothing is known of quality.
    tenant("calls", 45, calls=1)
    tenant("calls", 0, calls=20, failed=5)
    found = health(db, "calls", days=7)
    assert (found["users_score"], found["sessions_score"], found["events_score"]) == (100, Decimal("33.33"), 100)
    assert (found["engagement"], found["performance"], found["quality"]) == (Decimal("77.78"), 75, None)
    assert found["health"] == Decimal("76.19")  # (0.3 * 77.7778 + 0.4 * 75) / 0.7
    assert "5 of 20 calls to models failed; no execution of an agent is recorded." in found["reasons"]
    assert found["reasons"][-1] == "Not known: quality (no ratings, no scores); the rest counts for the whole."

    # Executions of nobody: engagement is not known, though something happened.
    tenant("robots", 0, user=None, executions=4, failures=2)
    found = health(db, "robots")
    assert (found["engagement"], found["performance"], found["quality"], found["health"]) == (None, 50, None, 50)
    assert "engagement (no users are recorded)" in found["reasons"][-1]


def test_new_tenants_have_no_trend(db: Connection, tenant: Any) -> None:
    tenant("young", 3, events=30, executions=1)
    found = health(db, "young", days=7)
    assert (found["is_new"], found["trend"], found["performance"]) == (True, None, 100)
    assert found["engagement"] == Decimal("77.78")  # all users, 1 session of 3 a week, 30 events in it
    assert found["reasons"][0] == "New: nothing of it is known from before these 7 days, so there is no trend."


def test_silence_is_zero_and_not_unknown(db: Connection, tenant: Any) -> None:
    tenant("silent", 35, events=10, executions=2, rating=5)
    found = health(db, "silent")
    assert (found["health"], found["engagement"], found["performance"], found["quality"]) == (0, 0, None, None)
    assert found["trend"] == -round(
        Decimal("0.3") * (100 + Decimal(100) * 7 / 90 + 100) / 3 + 70, 2
    )  # one user, one session, ten events; all succeeded, all rated 5
    assert found["reasons"][0] == "Silent: there was nothing of it in the last 30 days."
    # Members who never came are known, too.
    db.execute("insert into organization_members values ('empty', 'u-9', 'member')")
    assert (health(db, "empty")["health"], health(db, "empty")["known_users"]) == (0, 1)
    scalars = "select get_tenant_engagement('nobody') as engagement, calculate_tenant_health('nobody') as health"
    assert db.execute(scalars).fetchone() == {"engagement": None, "health": None}


def test_a_fall_is_told_with_its_part(db: Connection, tenant: Any) -> None:
    tenant("falling", 40, events=10, executions=10)
    tenant("falling", 5, events=10, executions=10, failures=8)
    found = health(db, "falling")
    assert found["reasons"][0].startswith("Fell by 46 points, from ")
    assert found["reasons"][0].endswith("most of it by performance.")
    answer = db.execute("select tenant_health_v1('falling', 7, 7) as said").fetchone()
    assert answer is not None
    [row] = answer["said"]["rows"]
    # Seven windows of a week: nothing is known of the first, there is something in two, the others are silent.
    silent = ["0.00"] * 4
    assert [point["health"] for point in row["history"]] == [None, "90.48", *silent, "44.76"]


def test_each_sees_their_own_and_null_arms_nothing(db: Connection, tenant: Any) -> None:
    db.execute("insert into organization_members values ('acme', %s, 'admin'), ('acme', %s, 'member')", [ADMIN, ALICE])
    tenant("acme", 1, user=ALICE, events=4, executions=2, failures=1)
    tenant("acme", 1, user="u-7", session="s-7", events=4, executions=2)
    tenant("other", 1, user="u-8", events=4)
    asked = "select organization_id, active_users, executions, performance from tenant_health()"
    with acting_as(db, "authenticated", {"sub": ADMIN}):
        assert [tuple(row.values()) for row in db.execute(asked)] == [("acme", 2, 4, 75)]
    with acting_as(db, "authenticated", {"sub": ALICE}):
        assert [tuple(row.values()) for row in db.execute(asked)] == [("acme", 1, 2, 50)]
        assert db.execute("select calculate_tenant_health('other') as h").fetchone() == {"h": None}
    with acting_as(db, "authenticated", {"sub": STRANGER}):
        assert db.execute(asked).fetchall() == []
    with acting_as(db, "service_role"):
        assert {row["organization_id"] for row in db.execute(asked)} == {"acme", "other"}
    for function in ("get_tenant_engagement(null, 7)", "calculate_tenant_health(null)", "tenant_health('acme', 0)"):
        with pytest.raises(psycopg.errors.InvalidParameterValue), db.transaction():
            db.execute(f"select {function}")
