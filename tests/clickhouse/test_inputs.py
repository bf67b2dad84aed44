"""Where rows come in: what is inserted there is what an insert into the table itself would have kept, once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.clickhouse.both import assert_equal
from tests.sql.helpers import a_call, a_run, call_id, connect, record, record_runs
from vital_tracking.clickhouse import schema
from vital_tracking.clickhouse.client import ClickHouse
from vital_tracking.clickhouse.copying import Copying
from vital_tracking.clickhouse.schema import COPIED, SchemaFile, input_table, migrate, schema_files
from vital_tracking.errors import CopyRefused
from vital_tracking.stores.changes import exported_columns, key_columns
from vital_tracking.stores.postgres import PostgresStore
from vital_tracking.stores.relations import ColumnKind, Relation

NULL = r"\N"
# Cells as COPY writes them: what is special in the text, the ends of what a type holds, values that are there and empty.
TEXTS = (
    "gpt-5", "", NULL, r"\\N", "NULL", "null", r"tab\tnew\nline\rslash\\quote'double\"",
    "naïve 日本語 🙂 e\u0301", "\u2028", "'", "[]",
    "x" * 5000, "0", "true", " padded ", r"\b\f\v", "\x01\x7f",
)  # fmt: skip
INTEGERS = ("0", "1", "-1", "32767", "-32768")
LARGE = (*INTEGERS, str(2**63 - 1), str(-(2**63)))
DECIMALS = (
    NULL, "0", "0.000000000001", "-0.000000000001", "99999999999999999999999999.999999999999",
    "-99999999999999999999999999.999999999999", "1.5", "1.500000000000", "12345678901234567890.123456789012",
)  # fmt: skip
REALS = (NULL, "0", "0.1", "-0.1", "1e-300", "1.7976931348623157e+308", "123456789.12345679", "5e-324", "3")
TIMES = (
    "2026-01-15 12:30:45.123456", "2026-01-15 12:30:45", "1970-01-01 00:00:00", "1969-12-31 23:59:59.999999",
    "1900-01-01 00:00:00", "2299-12-31 23:59:59.999999", "2024-02-29 00:00:00.000001",
)  # fmt: skip
LISTS = ("[]", "['a']", r"['it''s','a\\b','t\tn\n','']", "['日本語','🙂']", "[" + ",".join(["'x'"] * 300) + "]")
OBJECTS = ("{}", r'{"k": "a \\"b\\" \\\\ \\n"}', '{"日": [1, null, 0.1]}', '{"deep": {"er": {}}}')
MAPS = ("{}", "{'total_cost':'0.0000000000004'}", "{'input_cost':'1e40','output_cost':'-1e40'}")
VALUES = {
    ColumnKind.text: TEXTS, ColumnKind.decimal: DECIMALS, ColumnKind.real: REALS, ColumnKind.truth: ("t", "f"),
    ColumnKind.time: TIMES, ColumnKind.list: LISTS, ColumnKind.json: OBJECTS,
}  # fmt: skip
ROWS = 17 * 7


def values_of(relation: Relation, types: dict[str, str]) -> dict[str, tuple[str, ...]]:
    """The cells of each column that is exported, as far as its type in the copy takes them."""
    found: dict[str, tuple[str, ...]] = {}
    for name in exported_columns(relation):
        kind, type_ = relation.columns.get(name), types[name]
        if name in ("xact", "version"):
            cells: tuple[str, ...] = ("0", "1", str(2**64 - 1))
        elif name == "is_deleted":
            cells = ("0", "1")
        elif name == "odd_amounts":
            cells = MAPS
        elif type_ == "UUID":
            cells = ("00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff")
        elif kind is ColumnKind.integer:
            cells = (*(LARGE if "Int64" in type_ else INTEGERS), NULL)
        else:
            assert kind is not None
            cells = (*VALUES[kind], NULL)
        found[name] = cells if "Nullable" in type_ else tuple(cell for cell in cells if cell != NULL)
    return found


def lines_of(cells: dict[str, tuple[str, ...]]) -> Iterator[str]:
    """Rows in which each column's cells come in turns, each column's from another one on, so that neighbours differ."""
    for number in range(ROWS):
        yield "\t".join(some[(number + place) % len(some)] for place, some in enumerate(cells.values()))


def types_of(clickhouse: ClickHouse, table: str) -> dict[str, str]:
    """The columns of a table, in their order."""
    found = clickhouse.query(
        "select name, type from system.columns where database = currentDatabase() and table = {table:String} order by position",
        {"table": table},
    )
    return {row["name"]: row["type"] for row in found}


def held(clickhouse: ClickHouse, relation: Relation) -> list[dict[str, Any]]:
    """All states of all rows as the engine writes each cell, with how often each is there; and then none of them."""
    columns = ", ".join(f"toString({name}) as {name}_" for name in types_of(clickhouse, relation.name))
    rows = clickhouse.query(f"select {columns}, count() as times from {relation.name} group by all order by all")
    clickhouse.command(f"truncate table {relation.name}")
    return rows


@pytest.mark.parametrize("relation", COPIED, ids=lambda relation: relation.name)
def test_each_cell_is_what_it_was_without_an_input(clickhouse: ClickHouse, relation: Relation) -> None:
    migrate(clickhouse)
    cells = values_of(relation, types_of(clickhouse, relation.name))
    rows = "".join(f"{line}\n" for line in lines_of(cells)).encode()
    clickhouse.insert(relation.name, tuple(cells), rows, token="straight")
    straight = held(clickhouse, relation)
    clickhouse.insert(input_table(relation), tuple(cells), rows, token="through")
    assert sum(row["times"] for row in straight) == ROWS
    assert held(clickhouse, relation) == straight
    # Of a deleted row the key alone is sent.
    key = {name: cells[name] for name in key_columns(relation)}
    rows = "".join(f"{line}\n" for line in lines_of(key)).encode()
    clickhouse.insert(relation.name, tuple(key), rows, token="straight key")
    straight = held(clickhouse, relation)
    clickhouse.insert(input_table(relation), tuple(key), rows, token="through key")
    assert held(clickhouse, relation) == straight


@pytest.mark.parametrize("relation", COPIED, ids=lambda relation: relation.name)
def test_an_input_takes_the_columns_of_its_table(clickhouse: ClickHouse, relation: Relation) -> None:
    """If this failed, a column that a table is given later would be empty in the copy."""
    migrate(clickhouse)
    plain = {
        name: type_.replace("LowCardinality(Nullable(String))", "Nullable(String)").replace(
            "LowCardinality(String)", "String"
        )
        for name, type_ in types_of(clickhouse, relation.name).items()
    }
    assert types_of(clickhouse, input_table(relation)) == types_of(clickhouse, f"{relation.name}_kept") == plain


@pytest.mark.parametrize("relation", COPIED, ids=lambda relation: relation.name)
def test_rows_that_are_sent_again_are_there_once(clickhouse: ClickHouse, relation: Relation) -> None:
    """By the token at once; where it is not known any more, as on another server, by their version."""
    migrate(clickhouse)
    columns = key_columns(relation)
    # Rows of many months, and more than a server reads into one block.
    id_ = "00000000-0000-0000-0000-{:012d}"
    rows = "".join(
        f"7\to-{n % 5}\t20{n % 70 + 10}-03-01 00:00:00\t{id_.format(n)}\t9\t0\n" for n in range(70_000)
    ).encode()
    for _ in range(2):
        clickhouse.insert(input_table(relation), columns, rows, token="a")
    assert clickhouse.query(f"select count() as n from {relation.name}") == [{"n": 70_000}]
    clickhouse.insert(input_table(relation), columns, rows, token="b")
    assert clickhouse.query(f"select count() as n from {relation.name}") == [{"n": 140_000}]
    assert clickhouse.query(f"select count() as n from {relation.name} final") == [{"n": 70_000}]
    assert clickhouse.query(f"select count() as n from {input_table(relation)}") == [{"n": 0}]


class Former(ClickHouse):
    """As 0.1.0 inserted: into the tables themselves."""

    def insert(self, table: str, columns: Any, data: bytes, *, token: str) -> None:
        super().insert(table.removesuffix("_input"), columns, data, token=token)


def test_a_copy_of_the_former_version_goes_on(
    store: PostgresStore, database_url: str, clickhouse: ClickHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this failed, an upgrade would end the copy, or a process of before that still runs would spoil it."""

    def of_0_1_0(cluster: str | None) -> list[SchemaFile]:
        return [file for file in schema_files(cluster) if "0001" in file.version]

    with connect(database_url) as db:
        record(db, *(a_call(number) for number in range(1, 6)))
        record_runs(db, a_run("r-1"))
        with monkeypatch.context() as before:
            before.setattr(schema, "schema_files", of_0_1_0)
            before.setattr(schema, "_lost_views", lambda _server: ())
            former = Copying(store, Former(clickhouse.address))
            assert former.begin() == ["0001_tables"]
        assert former.bring_up_to_date() == 6
        db.execute("delete from token_usage_logs where id = %s", [call_id(1)])
        db.execute("update token_usage_logs set model = 'other' where id = %s", [call_id(2)])
        record(db, a_call(9))
        copying = Copying(store, clickhouse)
        assert copying.begin() == ["0002_inputs"]
        assert copying.bring_up_to_date() == 2
        assert assert_equal(db, clickhouse) == 6
        with pytest.raises(CopyRefused, match="Another process"):
            former.bring_up_to_date()


def test_a_view_that_is_lost_is_made_again(store: PostgresStore, database_url: str, clickhouse: ClickHouse) -> None:
    """If this failed, rows would be taken, noted as copied, and kept nowhere."""
    with connect(database_url) as db:
        Copying(store, clickhouse).bring_up_to_date()
        assert Copying(store, clickhouse).begin() == []
        clickhouse.command("drop view token_usage_logs_kept")
        record(db, a_call(1))
        copying = Copying(store, clickhouse)
        assert copying.begin() == ["0002_inputs"]
        copying.bring_up_to_date()
        assert assert_equal(db, clickhouse) == 1
        assert Copying(store, clickhouse).begin() == []


def test_what_a_table_does_not_take_fails(clickhouse: ClickHouse) -> None:
    """If this failed, rows would be noted as copied that are not."""
    migrate(clickhouse)
    clickhouse.command("drop table service_runs sync")
    with pytest.raises(CopyRefused):
        clickhouse.insert("service_runs_input", ("id", "organization_id"), b"r-1\to-1\n", token="a")
