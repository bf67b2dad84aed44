"""A person who is forgotten is in no byte of the copy's parts."""

from __future__ import annotations

from pathlib import Path

from tests.clickhouse.both import assert_equal
from tests.sql.helpers import a_call, a_run, call, connect, record, record_runs
from tests.sql.platform_rows import a_cost, an_event, an_execution, send
from vital_tracking.clickhouse.client import ClickHouse
from vital_tracking.clickhouse.copying import Copying
from vital_tracking.clickhouse.schema import COPIED
from vital_tracking.stores.postgres import PostgresStore

WHO, SESSION = "person-4711-canary", "session-4711-canary"


def rows_that_hold(clickhouse: ClickHouse, text: str) -> int:
    """How many states of rows, merged or not, hold a text in any column: all that the active parts hold is read."""
    found = 0
    for relation in COPIED:
        columns = ", ".join(f"ifNull(toString({name}), '')" for name in (*relation.columns, "xact"))
        [row] = clickhouse.query(
            f"select countIf(position(concat_ws('|', {columns}), {{text:String}}) > 0) as n from {relation.name}",
            {"text": text},
            settings={"final": 0},
        )
        found += row["n"]
    return found


def test_the_bytes_of_a_forgotten_person_are_gone(
    store: PostgresStore, database_url: str, clickhouse: ClickHouse, engine_folder: Path
) -> None:
    mine = {"user_id": WHO, "session_id": SESSION}
    with connect(database_url) as db:
        record(
            db, *(a_call(number, **mine, run_id=f"{WHO}-{number}") for number in range(1, 6)), a_call(9, user_id="u-2")
        )
        record_runs(db, a_run("r-1", **mine), a_run("r-2", user_id="u-2"))
        send(db, "platform_events", an_event(1, **mine))
        send(db, "tenant_cost_events", a_cost(1, user_id=WHO))
        send(db, "agent_executions", an_execution(1, user_id=WHO))
        copying = Copying(store, clickhouse)
        copying.bring_up_to_date()
        assert rows_that_hold(clickhouse, WHO) == 9
        while not call(db, "forget_user", user_id=WHO)["done"]:
            pass
        copying.bring_up_to_date()
        assert_equal(db, clickhouse)
        assert rows_that_hold(clickhouse, WHO) == rows_that_hold(clickhouse, SESSION) == 0
        # Neither are the keys of what was deleted kept, here or there.
        assert all(
            row["n"] == 0 for r in COPIED for row in clickhouse.query(f"select countIf(is_deleted) as n from {r.name}")
        )
        assert db.execute("select from vital_private.export_deletions").fetchall() == []


def test_the_files_of_the_parts_hold_no_byte_of_a_forgotten_person(
    store: PostgresStore, database_url: str, clickhouse: ClickHouse, engine_folder: Path
) -> None:
    """The files themselves, of tables that are not compressed, so that a text in them can be found."""
    copying = Copying(store, clickhouse)
    copying.begin()
    for column in ("user_id", "session_id", "run_id"):
        clickhouse.command(f"alter table token_usage_logs modify column {column} Nullable(String) codec(NONE)")
    with connect(database_url) as db:
        record(db, a_call(1, user_id=WHO, session_id=SESSION), a_call(2, user_id="u-2"))
        copying.bring_up_to_date()
        assert files_with(clickhouse, WHO)
        while not call(db, "forget_user", user_id=WHO)["done"]:
            pass
        copying.bring_up_to_date()
        assert files_with(clickhouse, WHO) == []
        assert files_with(clickhouse, "u-2")


def files_with(clickhouse: ClickHouse, text: str) -> list[Path]:
    """The files of active parts that hold a text."""
    parts = clickhouse.query("select path from system.parts where active and database = currentDatabase()")
    return [
        file
        for part in parts
        for file in Path(part["path"]).rglob("*")
        if file.is_file() and text.encode() in file.read_bytes()
    ]
