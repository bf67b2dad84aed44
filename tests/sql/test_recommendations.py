"""Advice is kept: the same stays the same, decisions stay, who may decide, what is measured, and who is forgotten."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from tests.sql.advice_rows import a_recommendation, an_advice, an_id
from tests.sql.helpers import ADMIN, ALICE, BOB, Connection, Row, call

ERIK = "55555555-5555-4555-8555-555555555555"


@pytest.fixture(autouse=True)
def _members(db: Connection) -> None:
    for user, role in ((ADMIN, "admin"), (ALICE, "member"), (ERIK, "auditor")):
        db.execute("insert into organization_members values ('acme', %s, %s)", [user, role])


@contextmanager
def signed_in(db: Connection, who: str | None) -> Iterator[None]:
    """Inside, a user of the API asks, or without one the service role; what is done stays."""
    db.execute("select set_config('request.jwt.claims', %s, true)", [json.dumps({"sub": who}) if who else ""])
    db.execute(f"set local role {'authenticated' if who else 'service_role'}")
    yield
    db.execute("reset role")
    db.execute("select set_config('request.jwt.claims', '', true)")


def save(db: Connection, *recommendations: Row, **changes: Any) -> Row:
    """Save advice."""
    return dict(call(db, "save_advice_v1", advice=json.dumps(an_advice(*recommendations, **changes))))


def listed(db: Connection, **asked: Any) -> list[Row]:
    """What is kept."""
    return list(call(db, "recommendations_v1", **asked))


def decide(db: Connection, number: int, decision: str, why: str | None = None) -> Row:
    """Decide about one."""
    return dict(call(db, "decide_recommendation_v1", recommendation=an_id(number), decision=decision, why=why))


def test_what_is_given_again_is_renewed_and_what_was_decided_about_it_stays(db: Connection) -> None:
    then = [{"change": "ExactCache", "where": {}}]
    assert save(db, a_recommendation(1, changes=then), a_recommendation(2)) == {"saved": 2, "new": 2}
    taken = decide(db, 1, "taken")
    assert (taken["status"], taken["promised"]) == ("taken", {"low": "10", "expected": "15", "high": "20"})
    db.execute("update recommendations set first_seen = '2026-11-01Z', last_seen = '2026-11-01Z'")
    renewed = a_recommendation(1, saving={"low": "1", "expected": "2", "high": "3"}, calls=7, priority="low")
    assert save(db, renewed, a_recommendation(3)) == {"saved": 2, "new": 1}
    rows = {row["id"]: row for row in listed(db)}
    one = rows[an_id(1)]
    assert (one["status"], one["saving"]["expected"], one["calls"], one["priority"]) == ("taken", "2", 7, "low")
    assert (one["promised"]["expected"], one["changes"]) == ("15", then)
    assert one["first_seen"] < one["last_seen"]
    # The second was given no longer: it stays, and says when it was given last.
    gone = rows[an_id(2)]
    assert (gone["still_given"], gone["status"], gone["last_seen"]) == (False, "open", gone["first_seen"])
    assert [row["id"] for row in listed(db)][-1] == an_id(2)
    found = call(db, "last_advice_v1")
    assert [row["id"] for row in found["recommendations"]] == [an_id(1), an_id(3)]
    assert (found["bill"], found["total"]["expected"]) == ("100", "14")
    assert found["not_applicable"] == [{"type": "auto_scaling", "reason": "No model is priced by the hour."}]
    assert save(db, a_recommendation(2))["new"] == 0
    assert {row["id"]: row["still_given"] for row in listed(db)} == {an_id(1): False, an_id(2): True, an_id(3): False}


def test_a_decision_is_noted_with_who_and_why_and_can_be_taken_back(db: Connection) -> None:
    save(db, a_recommendation(1, organization_id="acme"), organization_id="acme")
    with signed_in(db, ADMIN):
        done = decide(db, 1, "dismissed", why="Quality counts here.")
    assert (done["status"], done["decided_by"], done["reason"]) == ("dismissed", ADMIN, "Quality counts here.")
    assert done["promised"] is None
    again = decide(db, 1, "open")
    assert (again["status"], again["decided_by"], again["decided_at"], again["reason"]) == ("open", None, None, None)
    lines = db.execute("select * from admin_audit where table_name = 'recommendations' order by id").fetchall()
    assert [(line["actor"], line["operation"], line["organization_id"]) for line in lines] == [
        (ADMIN, "update", "acme"),
        (None, "update", "acme"),
    ]
    assert lines[0]["changes"]["status"] == ["open", "dismissed"]
    assert "Quality" not in json.dumps(lines[0]["changes"])
    assert decide(db, 9, "taken") == {"missing": True}
    with pytest.raises(psycopg.Error, match="decision is taken, dismissed or open"):
        decide(db, 1, "later")


def test_taken_twice_is_taken_once(db: Connection) -> None:
    save(db, a_recommendation())
    decide(db, 1, "taken")
    db.execute("update recommendations set decided_at = '2026-11-01Z'")
    save(db, a_recommendation(saving={"low": "1", "expected": "1", "high": "1"}))
    assert decide(db, 1, "taken")["promised"]["expected"] == "15"
    [row] = db.execute("select decided_at::date::text as day from recommendations").fetchall()
    assert row["day"] == "2026-11-01"


@pytest.mark.parametrize(
    ("who", "organization", "answer"),
    [
        (ADMIN, "acme", "taken"),
        (None, "acme", "taken"),
        (None, None, "taken"),
        (ADMIN, None, "missing"),
        (ADMIN, "other", "missing"),
        (ERIK, "acme", "refused"),
        (ALICE, "acme", "missing"),
        (BOB, "acme", "missing"),
    ],
)
def test_only_an_admin_of_that_organization_or_an_operator_decides(
    db: Connection, who: str | None, organization: str | None, answer: str
) -> None:
    save(db, a_recommendation(1, organization_id=organization), organization_id=organization)
    with signed_in(db, who):
        told = decide(db, 1, "taken")
    assert answer in (told.get("status"), *told)
    [line] = db.execute("select operation, actor from admin_audit where table_name = 'recommendations'").fetchall()
    assert (line["operation"], line["actor"]) == ("update" if answer == "taken" else "refused", who)


@pytest.mark.parametrize(
    ("who", "organization", "may"),
    [(ADMIN, "acme", True), (None, None, True), (ADMIN, None, False), (ADMIN, "other", False), (ALICE, "acme", False)],
)
def test_who_may_have_advice_renewed_is_asked_and_noted(
    db: Connection, who: str | None, organization: str | None, *, may: bool
) -> None:
    with signed_in(db, who):
        told = call(db, "may_renew_advice_v1", organization=organization)
    assert told == ({"may": True} if may else {"refused": "not_an_admin"})
    [line] = db.execute(
        "select operation, organization_id from admin_audit where table_name = 'recommendations'"
    ).fetchall()
    assert (line["operation"], line["organization_id"]) == ("update" if may else "refused", organization)


@pytest.mark.parametrize("function", ["save_advice_v1", "note_saving_v1"])
def test_no_user_writes_what_others_are_shown(db: Connection, function: str) -> None:
    arguments = {"advice": "{}"} if function == "save_advice_v1" else {"recommendation": an_id(1), "note": "n"}
    with signed_in(db, ADMIN), pytest.raises(psycopg.errors.InsufficientPrivilege), db.transaction():
        call(db, function, **arguments)


def test_what_was_taken_30_days_ago_is_due_and_measured_once(db: Connection) -> None:
    save(db, a_recommendation(1), a_recommendation(2), a_recommendation(3))
    for number in (1, 2):
        decide(db, number, "taken")
    assert listed(db, due=True) == []
    db.execute("update recommendations set decided_at = now() - interval '32 days' where id = %s", [an_id(1)])
    [due] = listed(db, due=True)
    assert due["id"] == an_id(1)
    assert due["measured_from"] > due["decided_at"]
    assert call(db, "note_saving_v1", recommendation=an_id(1), note="120 calls", saving="12.345") is True
    assert listed(db, due=True) == []
    [row] = listed(db, id=an_id(1))
    assert (row["measured_saving"], row["measured_note"]) == ("12.345", "120 calls")
    # What cannot be measured is said, and is due no longer.
    assert call(db, "note_saving_v1", recommendation=an_id(2), note="No calls since.") is True
    [row] = listed(db, id=an_id(2))
    assert (row["measured_saving"], row["measured_note"], row["measured_at"] is None) == (
        None,
        "No calls since.",
        False,
    )
    # Nothing was promised of what was not taken.
    assert call(db, "note_saving_v1", recommendation=an_id(3), note="n", saving="1") is False
    # Opened again it is as new.
    assert decide(db, 1, "open")["measured_saving"] is None


def test_open_ones_are_a_view_for_sql_users_under_the_policies(db: Connection) -> None:
    save(db, a_recommendation(1, organization_id="acme"), organization_id="acme")
    save(db, a_recommendation(2), a_recommendation(3, saving={"low": "30", "expected": "30", "high": "30"}))
    decide(db, 2, "dismissed")
    rows = db.execute("select id, saving_expected from open_recommendations").fetchall()
    assert [(row["id"], row["saving_expected"]) for row in rows] == [(an_id(3), Decimal(30)), (an_id(1), Decimal(15))]
    for who, seen in ((ADMIN, [an_id(1)]), (ERIK, [an_id(1)]), (ALICE, []), (BOB, [])):
        with signed_in(db, who):
            assert [row["id"] for row in db.execute("select id from open_recommendations").fetchall()] == seen
            assert [row["id"] for row in listed(db)] == seen
            assert (call(db, "last_advice_v1", organization="acme") is not None) == bool(seen)
            assert call(db, "last_advice_v1") is None


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"saving": {"low": "2", "expected": "1", "high": "3"}}, "recommendations_saving"),
        ({"saving": {"low": "1", "expected": "1", "high": "NaN"}}, "recommendations_saving"),
        ({"priority": "urgent"}, "recommendations_levels"),
        ({"current": "x" * 5000}, "recommendations_texts"),
        ({"id": "../../etc"}, "recommendations_id"),
    ],
)
def test_what_cannot_be_is_not_saved(db: Connection, changes: Row, rule: str) -> None:
    with pytest.raises(psycopg.errors.CheckViolation, match=rule):
        save(db, a_recommendation(1, **changes))


def test_retention_keeps_what_was_decided_lately(db: Connection) -> None:
    save(db, *(a_recommendation(number) for number in (1, 2, 3)))
    decide(db, 2, "taken")
    db.execute("update recommendations set last_seen = '2020-01-01Z' where id <> %s", [an_id(3)])
    call(db, "apply_retention", dry_run=False)
    assert {row["id"] for row in listed(db)} == {an_id(2), an_id(3)}


def test_a_forgotten_user_is_in_no_advice_and_decided_nothing(db: Connection) -> None:
    about = a_recommendation(1, organization_id="acme", subject={"user": ALICE}, evidence={"user": ALICE})
    budgets = a_recommendation(3, organization_id="acme", current=f"1 budget, too high: user {ALICE}, 5 a day; more")
    save(db, about, budgets, a_recommendation(2, organization_id="acme"), organization_id="acme")
    with signed_in(db, ADMIN):
        decide(db, 2, "dismissed")
    call(db, "forget_user", user_id=ALICE)
    call(db, "forget_user", user_id=ADMIN)
    [row] = listed(db)
    assert row["id"] == an_id(2)
    assert row["decided_by"].startswith("sha256:")
    assert [one["id"] for one in call(db, "last_advice_v1", organization="acme")["recommendations"]] == [an_id(2)]
