"""Who may make whom a member or an admin: asked as everybody, with what it leaves in the table and in the audit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from tests.sql.helpers import ADMIN, ALICE, BOB, CAROL, STRANGER, Connection, Row, acting_as, connect

MEMBERS = [
    ("acme", ADMIN, "admin"),
    ("acme", ALICE, "member"),
    ("acme", BOB, "auditor"),
    ("other", CAROL, "admin"),
    ("other", ALICE, "member"),
]


def fill(connection: Connection) -> None:
    connection.execute("delete from organization_members")
    for row in MEMBERS:
        connection.execute("insert into organization_members (organization_id, user_id, role) values (%s, %s, %s)", row)


@contextmanager
def request(connection: Connection, role: str, claims: Row | None = None) -> Iterator[None]:
    """Inside, the connection is a request of the API, in the transaction that runs; what it does stays until that ends."""
    connection.execute("select set_config('request.jwt.claims', %s, true)", [json.dumps(claims or {})])
    connection.execute(f"set local role {role}")
    yield
    connection.execute("reset role")


def ask(connection: Connection, function: str, *arguments: Any) -> Row:
    places = ", ".join(["%s"] * len(arguments))
    found = connection.execute(f"select {function}({places}) as answer", arguments).fetchone()
    assert found is not None
    return found["answer"]  # type: ignore[no-any-return]


def roles(connection: Connection, organization: str = "acme") -> dict[str, str]:
    query = "select user_id, role from organization_members where organization_id = %s"
    return {row["user_id"]: row["role"] for row in connection.execute(query, [organization]).fetchall()}


def audited(connection: Connection) -> list[tuple[Any, ...]]:
    rows = connection.execute(
        "select * from admin_audit where table_name = 'organization_members' order by id"
    ).fetchall()
    return [(row["actor"], row["operation"], row["organization_id"], row["key"]["user_id"]) for row in rows]


CHANGES = [
    ("add_member_v1", "acme", STRANGER, "member"),
    ("change_member_v1", "acme", ALICE, "admin"),
    ("remove_member_v1", "acme", BOB),
]


def test_an_admin_changes_the_organization_that_is_hers(anywhere: Connection) -> None:
    """If this failed, each change of a team's members would need whoever holds the secret key."""
    with anywhere.transaction(force_rollback=True):
        fill(anywhere)
        seen = len(audited(anywhere))
        with request(anywhere, "authenticated", {"sub": ADMIN}):
            for function, *arguments in CHANGES:
                assert ask(anywhere, function, *arguments)["refused"] is None
        assert roles(anywhere) == {ADMIN: "admin", ALICE: "admin", STRANGER: "member"}
        assert audited(anywhere)[seen:] == [
            (ADMIN, "insert", "acme", STRANGER),
            (ADMIN, "update", "acme", ALICE),
            (ADMIN, "delete", "acme", BOB),
        ]


@pytest.mark.parametrize(
    "who", [CAROL, ALICE, BOB, STRANGER, None], ids=["other's admin", "member", "auditor", "stranger", "nobody"]
)
def test_nobody_else_changes_anything_and_every_try_is_audited(anywhere: Connection, who: str | None) -> None:
    """If this failed, somebody could make himself an admin of another's organization, or try it unseen."""
    with anywhere.transaction(force_rollback=True):
        fill(anywhere)
        before, seen = roles(anywhere), len(audited(anywhere))
        with request(anywhere, "authenticated", {"sub": who} if who else {}):
            for function, *arguments in [*CHANGES, ("add_member_v1", "new one", who or STRANGER, "admin")]:
                assert ask(anywhere, function, *arguments)["refused"] == "not_an_admin"
        assert roles(anywhere) == before
        assert roles(anywhere, "new one") == {}
        assert [entry[:3] for entry in audited(anywhere)[seen:]] == [
            *[(who, "refused", "acme")] * 3,
            (who, "refused", "new one"),
        ]


def test_anonymous_visitors_are_refused(anywhere: Connection) -> None:
    for function, *arguments in CHANGES:
        with acting_as(anywhere, "anon", {"sub": ADMIN}), pytest.raises(psycopg.errors.InsufficientPrivilege):
            ask(anywhere, function, *arguments)


def test_clients_do_not_write_the_table_itself(anywhere: Connection) -> None:
    for statement in (
        "insert into organization_members values ('acme', 'me', 'admin')",
        "update organization_members set role = 'admin'",
        "delete from organization_members",
    ):
        with acting_as(anywhere, "authenticated", {"sub": ADMIN}), pytest.raises(psycopg.errors.InsufficientPrivilege):
            anywhere.execute(statement)


@pytest.mark.parametrize("role", [None, "service_role"])
def test_operators_change_every_organization(anywhere: Connection, role: str | None) -> None:
    with anywhere.transaction(force_rollback=True):
        fill(anywhere)
        if role:
            anywhere.execute(f"set local role {role}")
        assert ask(anywhere, "add_member_v1", "third", ALICE, "admin") == {
            "organization_id": "third", "user_id": ALICE, "before": None, "after": "admin", "refused": None,
        }  # fmt: skip
        answer = ask(anywhere, "change_member_v1", "other", ALICE, "auditor")
        assert (answer["before"], answer["after"], answer["refused"]) == ("member", "auditor", None)
        anywhere.execute("reset role")


@pytest.mark.parametrize("claims", [None, {"sub": ADMIN}], ids=["service role", "she herself"])
def test_the_last_admin_goes_only_where_that_is_said(anywhere: Connection, claims: Row | None) -> None:
    """If this failed, a slip would leave a team locked out of its own organization."""
    with anywhere.transaction(force_rollback=True):
        fill(anywhere)
        with request(anywhere, "authenticated" if claims else "service_role", claims or {}):
            assert ask(anywhere, "remove_member_v1", "acme", ADMIN)["refused"] == "is_the_last_admin"
            assert ask(anywhere, "change_member_v1", "acme", ADMIN, "auditor")["refused"] == "is_the_last_admin"
            assert ask(anywhere, "change_member_v1", "acme", ADMIN, "admin")["refused"] is None
            assert ask(anywhere, "change_member_v1", "acme", ADMIN, "member", True)["after"] == "member"
        assert "admin" not in roles(anywhere).values()


def test_of_two_admins_who_demote_each_other_at_once_one_stays(own_db: Connection, database_url: str) -> None:
    """If this failed, two clicks at the same moment would leave an organization without an admin."""
    fill(own_db)
    own_db.execute("update organization_members set role = 'admin' where user_id = %s", [ALICE])

    def demote(who: str) -> object:
        with connect(database_url) as connection:
            return ask(connection, "change_member_v1", "acme", who, "member")["refused"]

    with connect(database_url) as first, ThreadPoolExecutor(1) as pool:
        with first.transaction():
            assert ask(first, "change_member_v1", "acme", ADMIN, "member")["refused"] is None
            other = pool.submit(demote, ALICE)
        assert other.result(60) == "is_the_last_admin"
    assert list(roles(own_db).values()).count("admin") == 1


def test_what_is_no_change_is_refused_by_name(db: Connection) -> None:
    fill(db)
    assert ask(db, "add_member_v1", "acme", ALICE, "admin")["refused"] == "is_a_member"
    assert ask(db, "change_member_v1", "acme", STRANGER, "admin")["refused"] == "is_no_member"
    assert ask(db, "remove_member_v1", "acme", STRANGER)["refused"] == "is_no_member"
    assert roles(db) == {ADMIN: "admin", ALICE: "member", BOB: "auditor"}


@pytest.mark.parametrize(
    ("organization", "user", "role"),
    [(None, "u", "member"), ("", "u", "member"), ("acme", " ", "member"), ("acme", None, "member"), ("acme", "u" * 257, "member"),
     ("acme", "u", "owner"), ("acme", "u", None), ("acme", "u", "")],
)  # fmt: skip
def test_no_null_and_no_nonsense_makes_a_member(
    db: Connection, organization: str | None, user: str | None, role: str | None
) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        ask(db, "add_member_v1", organization, user, role)


def test_an_auditor_reads_what_an_admin_reads(anywhere: Connection) -> None:
    """If this failed, whoever checks the books would have to be given the right to change them."""
    with anywhere.transaction(force_rollback=True):
        fill(anywhere)
        seen = {}
        for who in (ADMIN, BOB):
            with acting_as(anywhere, "authenticated", {"sub": who}):
                seen[who] = ask(anywhere, "members_v1")
                assert ask(anywhere, "members_v1", "other") == []
        assert seen[BOB] == seen[ADMIN]
        assert [row["role"] for row in seen[BOB]] == ["admin", "auditor", "member"]


def test_the_database_s_auditor_changes_no_members(anywhere: Connection) -> None:
    """If this failed, the login of a dashboard could make admins."""
    with anywhere.transaction(force_rollback=True):
        fill(anywhere)
        anywhere.execute("set local role vital_auditor")
        for function, *arguments in CHANGES:
            with pytest.raises(psycopg.errors.InsufficientPrivilege), anywhere.transaction():
                ask(anywhere, function, *arguments)
