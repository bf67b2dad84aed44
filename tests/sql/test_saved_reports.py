"""Reports that are kept by name: each asker has his own, and what cannot be kept is refused by its name."""

from __future__ import annotations

import json

import psycopg
import pytest

from tests.sql.helpers import ALICE, BOB, Connection
from tests.sql.test_members import ask, request

BY_MODEL = json.dumps([["by", "model"], ["user", ALICE]])


def names(db: Connection) -> list[str]:
    return [report["name"] for report in ask(db, "saved_reports_v1")]


def test_each_keeps_and_removes_reports_of_his_own(db: Connection) -> None:
    """If this failed, somebody would see, change or lose what others keep."""
    with db.transaction(force_rollback=True):
        ask(db, "save_report_v1", "by model", "[]")
        with request(db, "authenticated", {"sub": ALICE}):
            assert names(db) == []
            assert ask(db, "save_report_v1", " by model ", BY_MODEL)["asked"] == json.loads(BY_MODEL)
            ask(db, "save_report_v1", "by user", "[]")
        with request(db, "authenticated", {"sub": BOB}):
            assert (names(db), ask(db, "remove_report_v1", "by model")) == ([], False)
            assert db.execute("select from saved_reports").fetchall() == []
        with request(db, "authenticated", {"sub": ALICE}):
            ask(db, "save_report_v1", "by model", "[]")
            assert names(db) == ["by model", "by user"]
            assert (ask(db, "remove_report_v1", "by model"), names(db)) == (True, ["by user"])
        assert names(db) == ["by model"]


@pytest.mark.parametrize(
    ("name", "asked", "named"),
    [
        ("", "[]", "name"),
        ("n" * 121, "[]", "name"),
        ("n", "{", "asked"),
        ("n", "{}", "asked"),
        ("n", '[["by"]]', "asked"),
        ("n", '[["by", 1]]', "asked"),
        ("n", '[["a", "b", "c"]]', "asked"),
        ("n", json.dumps([["by", "x" * 9000]]), "asked"),
        ("n", None, "asked"),
    ],
)
def test_what_cannot_be_kept_is_refused_by_its_name(db: Connection, name: str, asked: str | None, named: str) -> None:
    with pytest.raises(psycopg.Error, match=f"^{named}:") as error, db.transaction(force_rollback=True):
        ask(db, "save_report_v1", name, asked)
    assert error.value.sqlstate == "22023"


def test_nobody_fills_the_table_and_forgetting_reaches_it(db: Connection) -> None:
    """If this failed, a signed-in user could fill the disk, or an id that is forgotten would stay in reports."""
    with db.transaction(force_rollback=True):
        db.execute(
            "insert into saved_reports (owner, name, asked) select %s, 'n' || n, '[]' from generate_series(1, 500) as n",
            [ALICE],
        )
        with request(db, "authenticated", {"sub": ALICE}):
            ask(db, "save_report_v1", "n1", BY_MODEL)
            with pytest.raises(psycopg.Error, match="500 reports"), db.transaction():
                ask(db, "save_report_v1", "one more", "[]")
        ask(db, "save_report_v1", "about her", BY_MODEL)
        ask(db, "save_report_v1", "about him", json.dumps([["user", BOB]]))
        before = db.execute("select name from saved_reports").fetchall()
        assert ask(db, "forget_user_v1", ALICE, "acme")["done"]  # in one organization alone
        assert db.execute("select name from saved_reports").fetchall() == before
        assert ask(db, "forget_user_v1", ALICE)["done"]
        assert [row["name"] for row in db.execute("select name from saved_reports").fetchall()] == ["about him"]
