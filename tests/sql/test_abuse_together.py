"""Several findings of one attacker, and several who decide at once: one decision closes them, and nobody waits in a circle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.sql.helpers import ALICE, BOB, Connection, Row, assert_waits_for_lock, call, connect
from tests.support.postgres import PostgresServer


@pytest.fixture(scope="module")
def url(postgres_server: PostgresServer, template_database: str) -> Iterator[str]:
    """One database for the tests of this file: each has findings of its own."""
    postgres_server.create_database("abuse_together", template=template_database)
    yield postgres_server.url("abuse_together")
    postgres_server.drop_database("abuse_together")


@pytest.fixture
def db(url: str) -> Iterator[Connection]:
    """The owner's connection; every statement is a transaction. Findings and budgets go at the end."""
    with connect(url) as connection:
        yield connection
        connection.execute("truncate abuse_findings, vital_private.abuse_marks cascade")
        connection.execute("delete from budget_limits")


def finding(
    db: Connection, pattern: str, user: str = ALICE, subject: str | None = None, organization: str = "acme"
) -> int:
    found = db.execute(
        "insert into abuse_findings (pattern, organization_id, subject_kind, subject, entity_type, entity_id, severity,"
        " first_seen, last_seen, rows_since, measure, minutes, value, threshold, size, known_days)"
        " select pattern, %s, kind, %s, 'user', %s, 'low', now(), now(), now(), measure, 5, 2, 1, 2, 0"
        " from vital_private.abuse_patterns where pattern = %s returning id",
        [organization, subject or user, user, pattern],
    ).fetchone()
    assert found is not None
    return int(found["id"])


def decide(db: Connection, number: int, decision: str, hours: int = 1) -> Row:
    until = db.execute("select now() + make_interval(hours => %s) as at", [hours]).fetchone()
    assert until is not None
    more = {} if decision in ("open", "false_alarm") else {"until": until["at"]}
    return dict(call(db, "decide_abuse_v1", finding=number, decision=decision, **more))


def states(db: Connection) -> dict[int, tuple[str, str | None, bool]]:
    return {one["id"]: (one["state"], one["action"], one["acting"]) for one in call(db, "abuse_findings_v1")}


def test_findings_of_one_attacker_are_closed_and_opened_together(db: Connection) -> None:
    """If this failed, an admin would block somebody and go on being asked what to do about him."""
    calls, repeated, costs = (finding(db, pattern) for pattern in ("user_calls", "repeated_request", "user_cost"))
    others = (finding(db, "user_calls", BOB), finding(db, "user_calls", organization="other"))
    alarm = finding(db, "user_error_probe")
    decide(db, alarm, "false_alarm")
    done = decide(db, calls, "block")
    together = dict.fromkeys((calls, repeated, costs), ("acted_on", "block", True))
    apart = {**dict.fromkeys(others, ("open", None, False)), alarm: ("false_alarm", None, False)}
    assert states(db) == {**together, **apart}
    assert len(call(db, "budgets_v1")["budgets"]) == 1
    found = {one["id"]: one for one in call(db, "abuse_findings_v1")}
    assert [found[one]["with_finding"] for one in (calls, repeated, costs)] == [None, calls, calls]
    assert {found[one]["action_until"] for one in together} == {done["action_until"]}
    noted = db.execute(
        "select key ->> 'id' as id from admin_audit where table_name = 'abuse_findings' order by admin_audit.id"
    ).fetchall()
    assert {row["id"] for row in noted[-3:]} == {str(one) for one in together}

    later = finding(db, "user_requests")
    beside = {one["id"]: one["beside"] for one in call(db, "abuse_findings_v1")}
    assert beside[later] == {"finding": calls, "action": "block", "until": done["action_until"]}
    assert {beside[one] for one in others} == {None}

    decide(db, costs, "throttle")  # apart from the others, it has a budget of its own
    assert states(db)[costs] == ("acted_on", "throttle", True)
    assert len(call(db, "budgets_v1")["budgets"]) == 2
    decide(db, calls, "open")
    assert states(db) == {
        **apart,
        **dict.fromkeys((calls, repeated), ("open", None, False)),
        **dict.fromkeys((later, costs), ("acted_on", "throttle", True)),
    }


@pytest.mark.parametrize(
    "also",
    [
        lambda db, budget: call(db, "remove_budget_v1", budget_id=budget),
        lambda db, _: call(db, "find_abuse_v1"),
    ],
    ids=["a budget is removed", "ended budgets are deleted"],
)
def test_who_decides_and_who_removes_budgets_do_not_wait_for_each_other(
    db: Connection, url: str, also: Callable[[Connection, int], Any]
) -> None:
    """If this failed, one of two who act at the same moment would be told of a deadlock, and its work be undone."""
    number = finding(db, "user_calls")
    decide(db, number, "block")
    [budget] = call(db, "budgets_v1")["budgets"]
    db.execute("set session_replication_role = replica")  # no check that it ends in the future
    db.execute("update budget_limits set until = now() - interval '1 second'")
    db.execute("set session_replication_role = origin")
    with ThreadPoolExecutor(1) as pool, connect(url) as second, connect(url) as first:
        for session in (first, second):
            session.execute("set statement_timeout = '20s'")
        with first.transaction():
            # Whoever changes budgets holds them alone before a row of theirs is touched.
            first.execute("select vital_private.lock_budgets(alone => true)")
            waiting = pool.submit(decide, second, number, "throttle")
            assert_waits_for_lock(db)
            also(first, budget["id"])
        done = waiting.result(30)
    assert (done["action"], done["acting"]) == ("throttle", True)


def test_what_was_found_in_the_made_up_history_goes_with_it(db: Connection) -> None:
    """If this failed, a demo that was removed would leave its attackers on the page of abuse."""
    ours, others = finding(db, "user_calls"), finding(db, "user_calls", organization="other")
    decide(db, ours, "block")
    finding(db, "user_cost", BOB)
    decide(db, finding(db, "user_requests", BOB), "false_alarm")
    call(db, "set_abuse_rule_v1", rule='{"organization_id": "acme", "severity": "low", "action": "watch"}')
    call(db, "remove_demo_history_v1", organizations='["acme"]')
    assert list(states(db)) == [others]
    settings = call(db, "abuse_settings_v1")
    assert (settings["marks"], settings["rules"]) == ([], [])
    assert call(db, "budgets_v1")["budgets"] == []
