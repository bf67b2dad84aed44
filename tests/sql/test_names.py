"""What people are called: from Supabase Auth where it can be read, else as an admin has written it down; and who may write it."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from tests.sql.helpers import ADMIN, ALICE, BOB, CAROL, STRANGER, Connection, Row, a_call, acting_as, call, record

MEMBERS = [("acme", ADMIN, "admin"), ("acme", ALICE, "member"), ("acme", BOB, "auditor"), ("other", CAROL, "admin")]
AUTH = """
create table auth.users (id uuid primary key, email varchar(255), raw_user_meta_data jsonb, encrypted_password text);
insert into auth.users values
('{alice}', 'alice@auth.example', '{{"full_name": " Alice \\t Auth "}}', 'secret-word'),
('{carol}', 'carol@auth.example', '{{}}', 'secret-word'),
('{stranger}', 'stranger@auth.example', '{{"name": "Nobody"}}', 'secret-word');
revoke all on auth.users from public;
"""


@pytest.fixture
def named(db: Connection) -> Connection:
    """A few members, of whom some have names, and a call of somebody who is none."""
    for row in MEMBERS:
        db.execute("insert into organization_members values (%s, %s, %s)", row)
    for user, name in ((ALICE, "Alice"), (BOB, "Bob")):
        call(db, "name_member_v1", organization="acme", user_id=user, name=name, email=f"{name}@acme.example")
    calls = [a_call(number, user_id=who, organization_id="acme") for number, who in ((1, STRANGER), (2, ALICE))]
    assert record(db, *calls)["inserted"] == 2
    return db


def told(db: Connection, who: str | None, *users: str) -> Row:
    """What somebody is told of these."""
    with acting_as(db, "authenticated", {"sub": who}):
        return dict(call(db, "names_v1", users=list(users), organizations=["acme"])["users"])


def lines(db: Connection) -> list[tuple[Any, ...]]:
    query = "select actor, operation, organization_id, table_name, changes from admin_audit order by id desc limit 1"
    return [tuple(row.values()) for row in db.execute(query).fetchall()]


def test_supabase_auth_comes_first_and_tells_each_what_he_may_know(named: Connection) -> None:
    """If this failed, an admin would read ids where there are names, or another organization's people."""
    named.execute(AUTH.format(alice=ALICE, carol=CAROL, stranger=STRANGER))
    everybody = (ALICE, BOB, CAROL, STRANGER, "user_2abc", "11111111")
    alice = {"name": "Alice Auth", "email": "alice@auth.example"}
    bob = {"name": "Bob", "email": "Bob@acme.example"}
    caller = {"name": "Nobody", "email": "stranger@auth.example"}
    assert told(named, ADMIN, *everybody) == {ALICE: alice, BOB: bob, STRANGER: caller}
    assert told(named, BOB, *everybody) == {
        ALICE: {**alice, "email": None}, BOB: bob, STRANGER: {**caller, "email": None},
    }  # fmt: skip
    assert told(named, ALICE, *everybody) == {ALICE: alice}
    assert told(named, CAROL, *everybody) == {CAROL: {"name": None, "email": "carol@auth.example"}}
    assert told(named, STRANGER, *everybody) == {STRANGER: caller}
    assert told(named, None, *everybody) == {}
    assert set(call(named, "names_v1", users=list(everybody))["users"]) == {ALICE, BOB, CAROL, STRANGER}
    with acting_as(named, "authenticated", {"sub": ADMIN}), pytest.raises(psycopg.errors.InsufficientPrivilege):
        named.execute("select * from auth.users")
    with acting_as(named, "authenticated", {"sub": ADMIN}), pytest.raises(psycopg.errors.InsufficientPrivilege):
        named.execute("select * from vital_private.member_names")


def test_making_somebody_a_member_tells_nothing_that_supabase_auth_knows(named: Connection) -> None:
    """If this failed, an admin who knows an id of another organization's user would read that user's name and address."""
    named.execute(AUTH.format(alice=ALICE, carol=CAROL, stranger=STRANGER))
    with acting_as(named, "authenticated", {"sub": CAROL}):
        assert call(named, "add_member_v1", organization="other", user_id=ALICE)["refused"] is None
        assert call(named, "names_v1", users=[ALICE])["users"] == {}
        assert call(named, "name_member_v1", organization="other", user_id=ALICE, name="A.")["refused"] is None
        assert call(named, "names_v1", users=[ALICE])["users"] == {ALICE: {"name": "A.", "email": None}}


@pytest.mark.parametrize(
    "table", ["id integer, email text", "id uuid, name text", "id uuid, email text, raw_user_meta_data text"]
)
def test_a_table_of_users_that_is_not_supabase_s_is_passed_over(named: Connection, table: str) -> None:
    """If this failed, a team with an auth.users of its own would have no page with users at all."""
    named.execute(f"create table auth.users ({table})")
    assert told(named, ADMIN, ALICE)[ALICE]["name"] == "Alice"


@pytest.mark.parametrize("who", [ADMIN, ALICE, BOB, CAROL, STRANGER, None])
def test_admins_write_names_down_and_each_try_is_audited_without_the_name(named: Connection, who: str | None) -> None:
    """If this failed, anybody could rename a colleague; or the audit, which nobody may change, would keep who a person is."""
    named.execute("select set_config('request.jwt.claims', %s, true)", [json.dumps({"sub": who})])
    allowed = who == ADMIN
    answers, seen = [], []
    for function, arguments in (
        ("name_member_v1", {"user_id": ALICE, "name": "Alicia", "email": ""}),
        ("name_organization_v1", {"name": "Acme Clinics"}),
    ):
        named.execute("set local role authenticated")
        answers.append(call(named, function, organization="acme", **arguments)["refused"])
        named.execute("reset role")
        seen += lines(named)
    assert answers == [None if allowed else "not_an_admin"] * 2
    told_of = [line[:4] for line in seen]
    if allowed:
        assert told_of == [(who, "update", "acme", "member_names"), (who, "insert", "acme", "organization_names")]
        assert told(named, ADMIN, ALICE) == {ALICE: {"name": "Alicia", "email": None}}
    else:
        assert told_of == [
            (who, "refused", "acme", "organization_members"),
            (who, "refused", "acme", "organization_names"),
        ]
        assert told(named, ADMIN, ALICE) == {ALICE: {"name": "Alice", "email": "Alice@acme.example"}}
    audit = named.execute("select string_agg(changes::text, ' ') as text from admin_audit").fetchone()
    assert audit is not None
    assert "Ali" not in audit["text"]


def test_a_name_is_one_line_and_goes_with_the_member(named: Connection) -> None:
    """If this failed, a name could break a page, or outlive the person who was forgotten."""
    call(named, "name_member_v1", organization="acme", user_id=ALICE, name="  A\n\tB ")
    assert told(named, ADMIN, ALICE) == {ALICE: {"name": "A B", "email": "Alice@acme.example"}}
    for wrong in ({"name": "x" * 121}, {"email": "nobody"}, {"email": "a@b@c"}, {"email": "x@" + "y" * 254}):
        with pytest.raises(psycopg.errors.InvalidParameterValue), named.transaction():
            call(named, "name_member_v1", organization="acme", user_id=ALICE, **wrong)
    assert call(named, "name_member_v1", organization="acme", user_id=CAROL, name="C")["refused"] == "is_no_member"
    call(named, "add_member_v1", organization="acme", user_id=CAROL, name="Caroline")
    assert call(named, "members_v1", organization="acme")[0]["user_id"] == ADMIN
    assert {one["user_id"]: one["name"] for one in call(named, "members_v1", organization="acme")} == {
        ADMIN: None, ALICE: "A B", BOB: "Bob", CAROL: "Caroline",
    }  # fmt: skip
    while not call(named, "forget_user_v1", user_id=ALICE)["done"]:
        pass
    call(named, "remove_member_v1", organization="acme", user_id=BOB)
    left = named.execute("select user_id from vital_private.member_names").fetchall()
    assert [row["user_id"] for row in left] == [CAROL]
