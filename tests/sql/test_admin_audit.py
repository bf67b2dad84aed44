"""`admin_audit`: who changed budgets, prices, members and retention; added to, never changed, seen by those it concerns."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from tests.sql.helpers import ADMIN, ALICE, CAROL, Connection, Row, acting_as, call, set_budget


def entries(db: Connection) -> list[Row]:
    return db.execute("select * from admin_audit order by id").fetchall()


def last(db: Connection) -> Row:
    return entries(db)[-1]


def test_every_change_of_a_budget_is_audited_with_before_and_after(db: Connection) -> None:
    """If this failed, nobody could say who raised a limit, or from what."""
    made = set_budget(db, organization_id="acme", entity_id="u-1", daily_limit="5.10", action="alert")
    entry = last(db)
    key = {
        "organization_id": "acme",
        "entity_type": "user",
        "entity_id": "u-1",
        "metric": "cost_usd",
        "action": "alert",
    }
    assert (entry["table_name"], entry["operation"], entry["organization_id"]) == ("budget_limits", "insert", "acme")
    assert entry["key"] == {"id": str(made["id"]), **key}
    assert entry["changes"]["daily_limit"] == [None, "5.10"]
    assert not {"monthly_limit", "created_at", "updated_at", *key} & entry["changes"].keys()
    count = len(entries(db))
    set_budget(db, organization_id="acme", entity_id="u-1", daily_limit="5.10", action="alert")
    assert len(entries(db)) == count, "what did not change is told"
    db.execute("update budget_limits set daily_limit = 7.000, downgrade_to = 'm' where id = %s", [made["id"]])
    assert last(db)["changes"] == {"daily_limit": ["5.10", "7.000"], "downgrade_to": [None, "m"]}
    call(db, "remove_budget_v1", budget_id=made["id"])
    entry = last(db)
    assert (entry["operation"], entry["key"]["entity_id"]) == ("delete", "u-1")
    assert entry["changes"]["daily_limit"] == ["7.000", None]


def test_changes_of_prices_members_and_retention_are_audited(db: Connection) -> None:
    """If this failed, somebody could make themselves an admin, or lengthen the books' memory, unseen."""
    call(
        db,
        "add_model_price_v1",
        price='{"model": "m", "input_usd_per_mtok": "1.50", "note": "Bob said so", "valid_from": "2026-01-01Z"}',
    )
    entry = last(db)
    assert (entry["table_name"], entry["key"]["model"], entry["organization_id"]) == ("model_prices", "m", None)
    assert entry["changes"]["input_usd_per_mtok"] == [None, "1.50"]
    assert "Bob" not in str(entry)
    db.execute("insert into organization_members values ('acme', %s, 'member')", [ALICE])
    db.execute("update organization_members set role = 'admin' where user_id = %s", [ALICE])
    entry = last(db)
    assert (entry["key"], entry["changes"]) == (
        {"organization_id": "acme", "user_id": ALICE},
        {"role": ["member", "admin"]},
    )
    db.execute("update organization_members set organization_id = 'other' where user_id = %s", [ALICE])
    moved = entries(db)[-2:]
    assert {entry["organization_id"] for entry in moved} == {"acme", "other"}
    assert [entry["changes"] for entry in moved] == [{"organization_id": ["acme", "other"]}] * 2
    call(db, "set_retention_v1", table_name="token_usage_logs", keep="1 year")
    entry = last(db)
    assert (entry["key"], entry["changes"]) == ({"table_name": "token_usage_logs"}, {"keep": ["90 days", "1 year"]})
    db.execute("truncate organization_members")
    assert (last(db)["table_name"], last(db)["operation"]) == ("organization_members", "truncate")


def test_the_audit_says_who_changed_something_and_from_where(anywhere: Connection) -> None:
    """If this failed, a change by a signed-in person, by the secret key and by the owner would look alike."""
    with anywhere.transaction(force_rollback=True):
        anywhere.execute("set local application_name = 'the panel'")
        set_budget(anywhere, daily_limit=1)
        owner = last(anywhere)
        assert (owner["actor"], owner["application"]) == (None, "the panel")
        anywhere.execute("select set_config('request.jwt.claims', %s, true)", [f'{{"sub": "{ADMIN}"}}'])
        anywhere.execute("set local role service_role")
        anywhere.execute("update budget_limits set daily_limit = 2")
        set_budget(anywhere, daily_limit=3)
        anywhere.execute("reset role")
        assert [(e["actor"], e["database_role"]) for e in entries(anywhere)[-2:]] == [(ADMIN, "service_role")] * 2
        assert owner["database_role"] == anywhere.execute("select session_user as name").fetchone()["name"]  # type: ignore[index]
        # The budget of an organization is that organization's affair, whatever it is filed under.
        set_budget(anywhere, entity_type="organization", entity_id="acme", daily_limit=1)
        assert last(anywhere)["organization_id"] == "acme"


@pytest.mark.parametrize(
    ("claims", "seen"),
    [({"sub": ADMIN}, {"acme"}), ({"sub": CAROL}, {"other"}), ({"sub": ALICE}, set()), ({}, set())],
    ids=["admin", "admin of another", "member", "nobody"],
)
def test_admins_see_the_audit_of_their_organization_only(anywhere: Connection, claims: Row, seen: set[str]) -> None:
    """If this failed, an admin would read how another organization is run."""
    with anywhere.transaction(force_rollback=True):
        for organization in ("acme", "other", None):
            set_budget(anywhere, organization_id=organization, daily_limit=1)
        anywhere.execute(
            "insert into organization_members values ('acme', %s, 'admin'), ('other', %s, 'admin'), ('acme', %s, 'member')",
            [ADMIN, CAROL, ALICE],
        )
        with acting_as(anywhere, "service_role"):
            assert len(entries(anywhere)) >= 6
        with acting_as(anywhere, "authenticated", claims):
            assert {entry["organization_id"] for entry in entries(anywhere)} == seen


@pytest.mark.parametrize("role", [None, "service_role"])
@pytest.mark.parametrize(
    "statement",
    [
        "update admin_audit set actor = 'me'",
        "delete from admin_audit",
        "truncate admin_audit",
        "delete from admin_audit where false",
    ],
)
def test_nobody_can_change_or_delete_the_audit(anywhere: Connection, role: str | None, statement: str) -> None:
    """If this failed, whoever changed a budget could wipe the trace."""
    with anywhere.transaction(force_rollback=True):
        set_budget(anywhere, daily_limit=1)
        if role:
            anywhere.execute(f"set local role {role}")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            anywhere.execute(statement)


@pytest.mark.parametrize("role", ["anon", "authenticated", "service_role"])
def test_nobody_can_forge_a_line_of_the_audit(anywhere: Connection, role: str) -> None:
    """If this failed, the audit could be filled with lies."""
    insert: Any = "insert into admin_audit (database_role, table_name, operation) values ('x', 'x', 'x')"
    with acting_as(anywhere, role, {"sub": ADMIN}), pytest.raises(psycopg.errors.InsufficientPrivilege):
        anywhere.execute(insert)


def test_what_was_read_and_refused_is_written_by_the_server_alone(anywhere: Connection) -> None:
    """If this failed, a user could write lines about others; or a page could not say who has looked at whom."""
    access = {"operation": "read", "what": "overview", "actor": ADMIN, "organization_id": "acme", "user_id": ALICE}
    with anywhere.transaction(force_rollback=True):
        with acting_as(anywhere, "service_role"):
            call(anywhere, "note_access_v1", access=json.dumps(access))
            call(
                anywhere,
                "note_access_v1",
                access=json.dumps({"operation": "refused", "what": "x" * 999, "actor": None}),
            )
            read, refused = entries(anywhere)[-2:]
            for wrong in ({**access, "operation": "delete"}, {**access, "what": ""}, {"what": "x"}, {}):
                with pytest.raises(psycopg.errors.InvalidParameterValue), anywhere.transaction():
                    call(anywhere, "note_access_v1", access=json.dumps(wrong))
        names = ("operation", "table_name", "actor", "organization_id", "key", "changes", "database_role")
        assert [read[name] for name in names] == [
            *("read", "overview", ADMIN, "acme", {"user_id": ALICE}, {}, "service_role")
        ]
        assert (len(refused["table_name"]), refused["organization_id"], refused["key"]) == (255, None, {})
        for role in ("anon", "authenticated"):
            with acting_as(anywhere, role, {"sub": ADMIN}), pytest.raises(psycopg.errors.InsufficientPrivilege):
                call(anywhere, "note_access_v1", access=json.dumps(access))
