"""What both sides hold, in one form, to be compared cell by cell."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from psycopg.rows import dict_row

from tests.sql.helpers import Connection
from vital_tracking.clickhouse.client import ClickHouse
from vital_tracking.clickhouse.schema import COPIED
from vital_tracking.stores.relations import ColumnKind, Relation

Rows = dict[str, dict[str, Any]]
_EXACT = Decimal("1e-12")


def in_postgres(connection: Connection, relation: Relation) -> Rows:
    """The rows of a table by id, as the copy must have them."""
    cursor = connection.cursor(row_factory=dict_row)
    cursor.execute(f"select {', '.join(relation.columns)} from {relation.name}".encode())
    return {str(row["id"]): dict(_cells(row, relation)) for row in cursor}


def in_clickhouse(server: ClickHouse, relation: Relation, *, final: bool = True) -> Rows:
    """The rows of the copy by id."""
    found = server.query(f"select {', '.join(relation.columns)} from {relation.name} {'final' if final else ''}")
    rows = {str(row["id"]): dict(_cells(row, relation)) for row in found}
    assert not final or len(rows) == len(found), "a row is there twice"
    return rows


def assert_equal(connection: Connection, server: ClickHouse) -> int:
    """Both hold the same rows, cell by cell; how many."""
    total = 0
    for relation in COPIED:
        ours, theirs = in_postgres(connection, relation), in_clickhouse(server, relation)
        assert ours.keys() == theirs.keys(), relation.name
        for key, row in ours.items():
            assert row == theirs[key], (relation.name, key)
        total += len(ours)
    return total


def _cells(row: dict[str, Any], relation: Relation) -> Iterator[tuple[str, Any]]:
    for name, kind in relation.columns.items():
        value = row[name]
        if isinstance(value, datetime):
            value = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        elif kind is ColumnKind.decimal and value is not None:
            value = Decimal(value).quantize(_EXACT)
        elif kind is ColumnKind.json and value is not None:
            value = json.loads(value) if isinstance(value, str) else value
        elif kind is ColumnKind.list:
            value = list(value or [])
        elif name == "id":
            value = str(value)
        yield name, value
