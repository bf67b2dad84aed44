"""Findings of abuse: what they say, what is done about them, marks that silence their like, rules, and who may."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest

from tests.sql.helpers import ADMIN, ALICE, BOB, Connection, Row, a_call, acquire, acting_as, call, record, wish
from tests.sql.platform_rows import an_event, send

ERIK = "55555555-5555-4555-8555-555555555555"


@pytest.fixture(autouse=True)
def _members(db: Connection) -> None:
    for user, role in ((ADMIN, "admin"), (ALICE, "member"), (ERIK, "auditor")):
        db.execute("insert into organization_members values ('acme', %s, %s)", [user, role])


def moment(db: Connection, **before: float) -> datetime:
    """The moment of the transaction, or so much before it."""
    row = db.execute("select now() as at").fetchone()
    assert row is not None
    at: datetime = row["at"]
    return at - timedelta(**before)


def burst(db: Connection, calls: int, *, first: int = 1, user: str = ALICE, **changes: Any) -> None:
    """So many calls of a user within the last minutes, one every second."""
    at = moment(db, minutes=4)
    rows = [
        a_call(
            first + number,
            created_at=(at + timedelta(seconds=number % 200)).isoformat(),
            user_id=user,
            organization_id="acme",
            total_cost="0.001",
            input_cost="0.001",
            output_cost="0",
            potential_cost="0.001",
            **changes,
        )
        for number in range(calls)
    ]
    assert record(db, *rows)["inserted"] == calls


def scan(db: Connection) -> Row:
    """Look for abuse at the moment of the transaction."""
    return dict(call(db, "find_abuse_v1", moment=moment(db)))


def findings(db: Connection, **asked: Any) -> list[Row]:
    """What was found."""
    return list(call(db, "abuse_findings_v1", **asked))


def found(db: Connection, calls: int = 130) -> Row:
    """A user with far too many calls, found."""
    burst(db, calls)
    assert scan(db)["new"] == 1
    [finding] = findings(db)
    return finding


def decide(db: Connection, finding: int, decision: str, **more: Any) -> Row:
    """Decide about a finding."""
    return dict(call(db, "decide_abuse_v1", finding=finding, decision=decision, **more))


def soon(db: Connection, **later: float) -> datetime:
    """A moment to come."""
    return moment(db) + timedelta(**later)


def alerts(db: Connection) -> list[Row]:
    """The alerts that are about abuse."""
    return db.execute("select * from cost_alerts where pattern is not null order by id").fetchall()


def test_a_finding_says_who_what_and_by_which_figures_and_opens_its_rows(db: Connection) -> None:
    finding = found(db)
    assert (finding["pattern"], finding["subject"], finding["organization_id"]) == ("user_calls", ALICE, "acme")
    assert (finding["state"], finding["severity"], finding["measure"]) == ("open", "low", "calls")
    # Nothing is known of anybody: twice the floor of 60.
    assert (finding["minutes"], finding["value"], finding["usual"], finding["threshold"]) == (5, "130", None, "120")
    assert (finding["entity_type"], finding["entity_id"]) == ("user", ALICE)
    assert len(db.execute(finding["query"]).fetchall()) == 130
    [alert] = alerts(db)
    assert (alert["entity_type"], alert["entity_id"], alert["severity"]) == ("user", ALICE, "low")
    assert (alert["spent"], alert["limit_amount"], alert["metric"]) == (130, 120, "calls")
    # It goes on without a further alert, until it is worse.
    burst(db, 20, first=1000)
    assert scan(db) == {"new": 0, "going_on": 1, "silenced": 0, "busy": False, "learning": False}
    burst(db, 400, first=2000)
    assert scan(db)["new"] == 1
    [again] = findings(db)
    assert (again["id"], again["value"], again["severity"]) == (finding["id"], "550", "medium")
    assert [alert["severity"] for alert in alerts(db)] == ["low", "medium"]


def test_a_block_stops_calls_until_its_end_and_then_is_gone(db: Connection) -> None:
    finding = found(db)
    ends = soon(db, hours=1)
    acted = decide(db, finding["id"], "block", until=ends, why="A key was stolen.")
    assert (acted["state"], acted["action"], acted["acting"], acted["reason"]) == (
        "acted_on",
        "block",
        True,
        "A key was stolen.",
    )
    [budget] = call(db, "budgets_v1")["budgets"]
    assert (budget["entity_id"], budget["daily_limit"], budget["action"], budget["enforce"]) == (
        ALICE,
        "0",
        "block",
        True,
    )
    assert datetime.fromisoformat(budget["until"]) == ends
    [answer] = acquire(db, "p-1", [wish(budget["id"], ALICE)])
    assert not answer["admitted"]
    # A budget of the team's own, of the same kind, stands beside it.
    own = {"organization_id": "acme", "entity_type": "user", "entity_id": ALICE, "metric": "calls", "action": "block"}
    call(db, "set_budget_v1", budget=json.dumps({**own, "daily_limit": "7"}))
    version = call(db, "budgets_v1")["version"]
    db.execute("update budget_limits set until = now() - interval '1 second' where id = %s", [budget["id"]])
    state = call(db, "budgets_v1")
    assert [one["daily_limit"] for one in state["budgets"]] == ["7"]
    assert state["version"] != version
    [answer] = acquire(db, "p-1", [wish(budget["id"], ALICE)])
    assert answer["windows"] == []
    assert scan(db)["going_on"] == 1
    [after] = findings(db)
    assert (after["state"], after["acting"]) == ("acted_on", False)
    assert db.execute("select count(*) as n from budget_limits").fetchone() == {"n": 1}


@pytest.mark.parametrize(("decision", "action", "enforce"), [("throttle", "throttle", True), ("watch", "block", False)])
def test_a_throttle_slows_and_a_watch_only_notes(db: Connection, decision: str, action: str, enforce: bool) -> None:
    finding = found(db)
    decide(db, finding["id"], "block", until=soon(db, minutes=5))
    decide(db, finding["id"], decision, until=soon(db, minutes=30))
    [budget] = call(db, "budgets_v1")["budgets"]  # it takes the place of the block
    assert (budget["action"], budget["enforce"], budget["alert_thresholds"]) == (action, enforce, [])
    decide(db, finding["id"], "open")
    assert call(db, "budgets_v1")["budgets"] == []


def test_a_mark_silences_its_like_visibly_and_can_be_taken_back(db: Connection) -> None:
    finding = found(db)
    marked = decide(db, finding["id"], "false_alarm", why="The nightly import.")
    assert (marked["state"], marked["reason"]) == ("false_alarm", "The nightly import.")
    assert scan(db) == {"new": 0, "going_on": 0, "silenced": 1, "busy": False, "learning": False}
    [mark] = call(db, "abuse_settings_v1")["marks"]
    assert (mark["pattern"], mark["subject"], mark["up_to"], mark["silenced"]) == ("user_calls", ALICE, "130", 1)
    # It is of this size, this pattern and this user.
    burst(db, 1, first=1000)
    assert scan(db)["new"] == 1
    assert [one["state"] for one in findings(db)] == ["open", "false_alarm"]
    burst(db, 130, first=2000, user=BOB)
    assert scan(db)["new"] == 1
    assert call(db, "unmark_abuse_v1", mark=mark["id"]) == {"removed": 1}
    assert call(db, "abuse_settings_v1")["marks"] == []


def test_a_rule_acts_by_itself_from_its_severity_on(db: Connection) -> None:
    rule = {
        "organization_id": "acme",
        "pattern": "user_calls",
        "severity": "medium",
        "action": "throttle",
        "lasts_s": 600,
    }
    assert call(db, "set_abuse_rule_v1", rule=json.dumps(rule)) == {"set": 1}
    assert found(db)["state"] == "open"
    burst(db, 200, first=1000)
    scan(db)
    [finding] = findings(db)
    assert (finding["state"], finding["action"], finding["decided_by"], finding["acting"]) == (
        "acted_on",
        "throttle",
        "rule",
        True,
    )
    assert alerts(db)[-1]["action"] == "throttle"
    assert call(db, "set_abuse_rule_v1", rule=json.dumps({**rule, "action": None})) == {"removed": 1}


def test_what_goes_on_after_its_action_ended_is_found_told_and_met_again(db: Connection) -> None:
    rule = {"organization_id": "acme", "pattern": "user_calls", "severity": "low", "action": "throttle", "lasts_s": 600}
    call(db, "set_abuse_rule_v1", rule=json.dumps(rule))
    first = found(db)
    assert scan(db)["going_on"] == 1
    db.execute("update abuse_findings set action_until = now() - interval '1 second'")
    assert scan(db)["new"] == 1
    again, before = findings(db)
    assert (before["id"], again["state"], again["acting"]) == (first["id"], "acted_on", True)
    assert [alert["action"] for alert in alerts(db)] == ["throttle", "throttle"]


def test_of_the_rules_for_a_finding_the_strictest_counts_whoever_set_it(db: Connection) -> None:
    for organization, pattern, action in (
        ("acme", "user_calls", "watch"),
        (None, None, "block"),
        ("acme", None, "throttle"),
    ):
        rule = {"organization_id": organization, "pattern": pattern, "severity": "low", "action": action}
        call(db, "set_abuse_rule_v1", rule=json.dumps(rule))
    assert found(db)["action"] == "block"


def test_whoever_records_calls_does_not_wait_while_it_looks(db: Connection) -> None:
    """The budgets are locked for what a rule does alone, once all is read."""
    rule = {"organization_id": None, "severity": "low", "action": "block"}
    call(db, "set_abuse_rule_v1", rule=json.dumps(rule))
    db.execute(
        "create function pg_temp.look() returns trigger language plpgsql as $$ begin"
        "  insert into locked select count(*) from pg_locks where pid = pg_backend_pid() and mode = 'ExclusiveLock'"
        "    and locktype = 'advisory' and objid = (hashtext('vital_tracking.budgets')::bigint & 4294967295)::oid;"
        "  return null; end $$"
    )
    db.execute("create temp table locked (n bigint)")
    db.execute(
        "create trigger look after update of scanned_at on vital_private.abuse_state"
        " for each row execute function pg_temp.look()"
    )
    assert found(db)["acting"]
    assert db.execute("select n from locked").fetchall() == [{"n": 0}]


def test_two_actions_with_one_end_are_two_budgets(db: Connection) -> None:
    burst(db, 130, request_hash="a" * 16)
    assert scan(db)["new"] == 2
    ends = soon(db, hours=1)
    one, other = (decide(db, finding["id"], "block", until=ends) for finding in findings(db))
    assert {one["pattern"], other["pattern"]} == {"user_calls", "repeated_request"}
    assert len(call(db, "budgets_v1")["budgets"]) == 2
    decide(db, one["id"], "open")
    [left] = call(db, "budgets_v1")["budgets"]
    assert datetime.fromisoformat(left["until"]) == ends + timedelta(microseconds=1)


def test_acting_on_a_false_alarm_takes_its_mark_back(db: Connection) -> None:
    finding = found(db)["id"]
    decide(db, finding, "false_alarm")
    decide(db, finding, "block", until=soon(db, hours=1))
    assert call(db, "abuse_settings_v1")["marks"] == []


def test_nothing_is_looked_for_in_the_future(db: Connection) -> None:
    """If this failed, the past would count as learnt up to then, and nothing of the time between be known."""
    call(db, "find_abuse_v1", moment=soon(db, days=3))
    row = db.execute(
        "select greatest(counted_until, scanned_at) <= clock_timestamp() as fine from vital_private.abuse_state"
    )
    assert row.fetchone() == {"fine": True}


def test_what_fails_for_everybody_is_an_outage_and_no_probe(db: Connection) -> None:
    at = moment(db, minutes=3).isoformat()
    whose = {"occurred_at": at, "organization_id": "acme"}
    probe = [an_event(n, **whose, user_id=ALICE, ip_hash="a" * 16, properties={"status": 403}) for n in range(30)]
    others = [
        an_event(100 + n, **whose, user_id=f"u-{n % 5}", properties={"status": 404 if n % 2 else 200})
        for n in range(40)
    ]
    send(db, "platform_events", *probe, *others)
    assert scan(db)["new"] == 0
    send(db, "platform_events", *(an_event(500 + n, **whose, user_id=f"u-{n % 5}") for n in range(60)))
    assert scan(db)["new"] == 2
    by_pattern = {one["pattern"]: one for one in findings(db)}
    assert set(by_pattern) == {"user_error_probe", "address_error_probe"}
    assert by_pattern["address_error_probe"]["subject"] == "a" * 16
    assert by_pattern["address_error_probe"]["entity_id"] == ALICE  # who is behind all of it


def test_nobody_is_behind_an_address_without_a_user(db: Connection) -> None:
    at = moment(db, minutes=3).isoformat()
    send(
        db,
        "platform_events",
        *(an_event(n, occurred_at=at, ip_hash="b" * 16, properties={"status": 401}) for n in range(30)),
    )
    scan(db)
    [finding] = findings(db)
    assert finding["entity_id"] is None
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="can be watched"), db.transaction():
        decide(db, finding["id"], "block", until=soon(db, hours=1))
    assert decide(db, finding["id"], "watch", until=soon(db, hours=1))["action"] == "watch"


def test_only_its_admin_decides_others_are_refused_and_audited_and_the_user_learns_nothing(db: Connection) -> None:
    finding = found(db)["id"]
    until = soon(db, hours=1)
    for reader, told in ((ALICE, {"missing": True}), (BOB, {"missing": True}), (ERIK, {"refused": "not_an_admin"})):
        with acting_as(db, "authenticated", {"sub": reader}):
            assert decide(db, finding, "block", until=until) == told
            assert len(findings(db)) == ("refused" in told)
            assert len(alerts(db)) == ("refused" in told)
            db.execute("reset role")
            lines = db.execute("select operation from admin_audit where table_name = 'abuse_findings'").fetchall()
            assert [line["operation"] for line in lines] == ["refused"]
    with acting_as(db, "authenticated", {"sub": ADMIN}):
        assert decide(db, finding, "block", until=until)["decided_by"] == ADMIN
        rule = json.dumps({"organization_id": None, "action": "block"})
        assert call(db, "set_abuse_rule_v1", rule=rule) == {"refused": "not_an_admin"}
        line = db.execute("select * from admin_audit where table_name = 'abuse_findings'").fetchone()
        assert line is not None
        assert (line["actor"], line["operation"], line["key"]["entity_id"]) == (ADMIN, "update", ALICE)
        assert line["changes"]["state"] == ["open", "acted_on"]


def test_about_an_organization_only_operators_decide_and_nobody_about_himself(db: Connection) -> None:
    for number, user in enumerate((ALICE, BOB, ERIK, "u-1", "u-2", "u-3")):
        burst(db, 110, first=1000 * number, user=user)
    scan(db)
    [finding] = findings(db)
    assert (finding["pattern"], finding["subject"]) == ("organization_calls", "acme")
    burst(db, 130, first=10_000, user=ADMIN)
    scan(db)
    own = findings(db)[0]
    assert own["subject"] == ADMIN
    until = soon(db, hours=1)
    decide(db, finding["id"], "block", until=until)
    with acting_as(db, "authenticated", {"sub": ADMIN}):
        assert decide(db, finding["id"], "open") == {"refused": "not_an_admin"}
        assert decide(db, own["id"], "false_alarm") == {"refused": "not_an_admin"}
    assert findings(db)[1]["acting"]
    decide(db, finding["id"], "false_alarm")
    [mark] = call(db, "abuse_settings_v1")["marks"]
    with acting_as(db, "authenticated", {"sub": ADMIN}):
        assert call(db, "unmark_abuse_v1", mark=mark["id"]) == {"refused": "not_an_admin"}
    assert decide(db, own["id"], "false_alarm")["state"] == "false_alarm"


def test_one_member_cannot_have_the_whole_organization_found(db: Connection) -> None:
    burst(db, 100, user=BOB)
    burst(db, 700, first=1000)
    scan(db)
    assert {one["pattern"] for one in findings(db)} == {"user_calls"}
    burst(db, 80, first=2000, user=BOB)
    scan(db)
    assert "organization_calls" in {one["pattern"] for one in findings(db)}


def test_whoever_is_forgotten_is_in_no_finding_mark_or_past(db: Connection) -> None:
    decide(db, found(db)["id"], "false_alarm")
    db.execute("select vital_private.count_abuse_hours(now() - interval '1 hour', now())")
    assert call(db, "forget_user", user_id=ALICE)["done"]
    for table in ("abuse_findings", "vital_private.abuse_marks", "vital_private.abuse_days"):
        left = db.execute(f"select count(*) as n from {table} as t where t::text like %s", [f"%{ALICE}%"]).fetchone()
        assert left == {"n": 0}, table


def test_findings_and_marks_go_after_a_year_but_not_what_still_acts(db: Connection) -> None:
    burst(db, 130)
    burst(db, 130, first=1000, user=BOB)
    scan(db)
    for finding, decision in zip(findings(db), ("false_alarm", "block"), strict=True):
        decide(db, finding["id"], decision, **({} if decision == "false_alarm" else {"until": soon(db, hours=1)}))

    def gone() -> dict[str, int]:
        told = call(db, "apply_retention", dry_run=False)["tables"]
        return {row["table_name"]: row["rows"] for row in told if row["table_name"].startswith("abuse_")}

    assert gone() == {"abuse_findings": 0, "abuse_marks": 0}
    db.execute(
        "update abuse_findings set first_seen = now() - interval '14 months', last_seen = now() - interval '14 months'"
    )
    db.execute("update vital_private.abuse_marks set marked_at = now() - interval '14 months'")
    assert gone() == {"abuse_findings": 1, "abuse_marks": 1}
    assert [one["action"] for one in findings(db)] == ["block"]
