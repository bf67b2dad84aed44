"""The id by which clients recognise a database, whatever address they reach it by."""

from __future__ import annotations

from uuid import UUID

import pytest
from psycopg.errors import CheckViolation, InsufficientPrivilege, UniqueViolation

from tests.sql.helpers import Connection, acting_as, call, connect


def test_a_database_keeps_its_id(anywhere: Connection) -> None:
    """If this failed, a process would take its own database for another one, and leave its undelivered calls behind."""
    first = call(anywhere, "database_id_v1")
    assert str(UUID(first)) == first
    with acting_as(anywhere, "service_role"):
        assert call(anywhere, "database_id_v1") == first


def test_two_databases_have_two_ids(urls: dict[str, str]) -> None:
    """If this failed, calls meant for one database could be delivered to another."""
    ids = []
    for url in urls.values():
        with connect(url) as connection:
            ids.append(call(connection, "database_id_v1"))
    assert len(set(ids)) == len(urls)


@pytest.mark.parametrize("role", ["anon", "authenticated"])
def test_visitors_and_users_cannot_learn_the_id(anywhere: Connection, role: str) -> None:
    """If this failed, anybody could tell which database is behind an API."""
    for statement in ("select public.database_id_v1()", "select id from vital_private.database_identity"):
        with acting_as(anywhere, role), pytest.raises(InsufficientPrivilege):
            anywhere.execute(statement)


def test_a_database_cannot_have_a_second_id(anywhere: Connection) -> None:
    """If this failed, a database could answer with one id now and with another later."""
    for row, refused in (("default", UniqueViolation), ("false", CheckViolation)):
        with pytest.raises(refused), anywhere.transaction():
            anywhere.execute(f"insert into vital_private.database_identity (one_row) values ({row})")
    assert len(anywhere.execute("select from vital_private.database_identity").fetchall()) == 1
