"""Rows as ClickHouse takes them in: new and changed ones by transaction, all of a span of time, and the keys of deleted ones.

COPY writes a row as tab-separated text, which is what ClickHouse reads, so rows pass through this process as bytes that nobody
looks into, but for the transaction in front. What is read together is read in one snapshot and bears one version: the oldest
transaction that still ran then (`horizon`). Whatever is read later bears no lower one, so of two states of a row the later one
counts, in whatever order they arrive.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import psycopg
from psycopg import sql

from vital_tracking.errors import VitalError
from vital_tracking.stores.protocol import Row
from vital_tracking.stores.questions import Database
from vital_tracking.stores.relations import ColumnKind, Relation

_DIGITS_BEHIND: Final = 12
_TOO_LARGE: Final = 10**26
_EPOCH_BITS: Final = 48

Columns = tuple[str, ...]


def exported_columns(relation: Relation) -> Columns:
    """The columns of a row as it is read, in their order: its own between the transaction and what says which state it is."""
    odd = ("odd_amounts",) if _amounts(relation) else ()
    return ("xact", *relation.columns, *odd, "version", "is_deleted")


def key_columns(relation: Relation) -> Columns:
    """The columns of a deleted row's key as it is read."""
    return ("xact", "organization_id", relation.time, "id", "version", "is_deleted")


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows as tab-separated text, with how many they are, and the transaction of the last one."""

    data: bytes
    rows: int
    last_xact: int


class Changes:
    """A snapshot of the database. `horizon`: all that transactions before it have written is in it, and nothing comes after.

    `version` is that of the rows; a deletion has one less, so that a row that is there again counts.
    """

    def __init__(self, connection: psycopg.Connection[Row], relation: Relation, epoch: int) -> None:
        [row] = connection.execute("select pg_snapshot_xmin(pg_current_snapshot())::text::bigint as horizon").fetchall()
        self.horizon: int = row["horizon"]
        self._connection = connection
        self._relation = relation
        self._deleted = (epoch << _EPOCH_BITS) + 2 * self.horizon
        self.version = self._deleted + 1
        self._copies: list[Generator[Chunk, None, None]] = []

    def close(self) -> None:
        """End what is still being read: a connection with half a COPY in it waits for ever when it is given back."""
        for chunks in self._copies:
            chunks.close()

    def changed(self, after: int, since: datetime | None, chunk_bytes: int) -> Iterator[Chunk]:
        """Rows of transactions from `after` up to, and without, the horizon, in their order."""
        where = [self._between(after), *self._since(since)]
        return self._copy(self._rows(where, sql.SQL(" order by t.xact")), chunk_bytes)

    def deleted(self, after: int, since: datetime | None, chunk_bytes: int) -> Iterator[Chunk]:
        """The keys of rows that such transactions deleted and that are not there again."""
        query = sql.SQL(
            "select t.xact, t.organization_id, t.at at time zone 'UTC', t.id, {}, 1 {} order by t.xact"
        ).format(sql.Literal(self._deleted), self._gone(after, since))
        return self._copy(query, chunk_bytes)

    def months_deleted(self, after: int, since: datetime | None) -> list[str]:
        """The first days of the months of such keys."""
        query = sql.SQL("select distinct date_trunc('month', t.at, 'UTC')::date::text as month {} order by 1").format(
            self._gone(after, since)
        )
        return [row["month"] for row in self._connection.execute(query).fetchall()]

    def of_time(self, since: datetime, until: datetime, chunk_bytes: int) -> Iterator[Chunk]:
        """All rows of a span of time, in no order."""
        time = sql.Identifier(self._relation.time)
        where = [
            sql.SQL("t.{} >= {}").format(time, sql.Literal(since)),
            sql.SQL("t.{} < {}").format(time, sql.Literal(until)),
        ]
        return self._copy(self._rows(where, sql.SQL("")), chunk_bytes)

    def first_time(self, since: datetime | None) -> datetime | None:
        """When the first row from `since` on was."""
        query = sql.SQL("select min(t.{time}) as first from public.{name} as t where {where}").format(
            time=sql.Identifier(self._relation.time),
            name=sql.Identifier(self._relation.name),
            where=sql.SQL(" and ").join([sql.SQL("true"), *self._since(since)]),
        )
        [row] = self._connection.execute(query).fetchall()
        first: datetime | None = row["first"]
        return first

    def _gone(self, after: int, since: datetime | None) -> sql.Composed:
        relation = self._relation
        where = [sql.SQL("t.table_name = {}").format(sql.Literal(relation.name)), self._between(after)]
        if since is not None:
            where.append(sql.SQL("t.at >= {}").format(sql.Literal(since)))
        return sql.SQL(
            "from vital_private.export_deletions as t where {} and not exists (select from public.{} as k where k.id = {}"
            " and k.{} = t.at and k.organization_id is not distinct from t.organization_id)"
        ).format(
            sql.SQL(" and ").join(where),
            sql.Identifier(relation.name),
            sql.SQL("t.id" if relation.key == ("id",) else "t.id::uuid"),
            sql.Identifier(relation.time),
        )

    def _between(self, after: int) -> sql.Composed:
        return sql.SQL("t.xact >= {}::xid8 and t.xact < {}::xid8").format(
            sql.Literal(str(after)), sql.Literal(str(self.horizon))
        )

    def _since(self, since: datetime | None) -> list[sql.Composed]:
        if since is None:
            return []
        return [sql.SQL("t.{} >= {}").format(sql.Identifier(self._relation.time), sql.Literal(since))]

    def _rows(self, where: Sequence[sql.Composable], order: sql.SQL) -> sql.Composed:
        return sql.SQL("select {} from public.{} as t where {}{}").format(
            sql.SQL(", ").join(self._values()),
            sql.Identifier(self._relation.name),
            sql.SQL(" and ").join(where),
            order,
        )

    def _values(self) -> Iterator[sql.Composable]:
        yield sql.SQL("t.xact")
        for name, kind in self._relation.columns.items():
            yield sql.SQL(_AS_TEXT.get(kind, "t.{0}")).format(sql.Identifier(name))
        if amounts := _amounts(self._relation):
            yield _odd_amounts(amounts)
        yield sql.Literal(self.version)
        yield sql.SQL("0")

    def _copy(self, query: sql.Composed, chunk_bytes: int) -> Iterator[Chunk]:
        chunks = self._chunks(query, chunk_bytes)
        self._copies.append(chunks)
        return chunks

    def _chunks(self, query: sql.Composed, chunk_bytes: int) -> Generator[Chunk, None, None]:
        data, rows, begins = bytearray(), 0, 0
        with self._connection.cursor().copy(sql.SQL("copy ({}) to stdout").format(query)) as copy:
            for row in copy:
                begins = len(data)
                data += row
                rows += 1
                if len(data) >= chunk_bytes:
                    yield Chunk(bytes(data), rows, int(data[begins : data.index(b"\t", begins)]))
                    data, rows = bytearray(), 0
        if rows:
            yield Chunk(bytes(data), rows, int(data[begins : data.index(b"\t", begins)]))


@contextmanager
def reading(database: Database, relation: Relation, epoch: int) -> Iterator[Changes]:
    """One snapshot of the database, for as long as the block takes. The driver's errors become ours."""
    failed: VitalError
    try:
        with database.connection() as connection, connection.transaction():
            connection.execute("set transaction isolation level repeatable read, read only")
            connection.execute(
                "select set_config('timezone', 'UTC', true), set_config('datestyle', 'ISO', true),"
                " set_config('extra_float_digits', '1', true), set_config('statement_timeout', '0', true)"
            )
            with closing(Changes(connection, relation, epoch)) as changes:
                yield changes
        return
    except Exception as error:
        ours = database.failure(error)
        if ours is None:
            raise
        failed = ours
    raise failed


_AS_TEXT: Final = {
    ColumnKind.time: "t.{0} at time zone 'UTC'",
    ColumnKind.list: "case when cardinality(t.{0}) > 0 then vital_private.quoted_list(t.{0}) else '[]' end",
    ColumnKind.decimal: (
        f"case when scale(t.{{0}}) <= {_DIGITS_BEHIND} and abs(t.{{0}}) < {_TOO_LARGE} then t.{{0}}"
        f" when abs(t.{{0}}) < {_TOO_LARGE} then round(t.{{0}}, {_DIGITS_BEHIND}) end"
    ),
}
"""How some kinds are written where ClickHouse reads them otherwise than PostgreSQL writes them."""


def _amounts(relation: Relation) -> list[str]:
    return [name for name, kind in relation.columns.items() if kind is ColumnKind.decimal]


def _odd_amounts(amounts: Sequence[str]) -> sql.Composed:
    """A map of the amounts that a Decimal(38, 12) does not hold, with all their digits; nearly always empty."""
    odd = sql.SQL(", ").join(
        sql.SQL(
            f"case when min_scale(t.{{0}}) > {_DIGITS_BEHIND} or abs(t.{{0}}) >= {_TOO_LARGE}"
            " then '''' || {1} || ''':''' || t.{0} || '''' end"
        ).format(sql.Identifier(name), sql.Literal(name))
        for name in amounts
    )
    names = [sql.Identifier(name) for name in amounts]
    return sql.SQL(
        f"case when greatest({{scales}}) > {_DIGITS_BEHIND} or greatest({{sizes}}) >= {_TOO_LARGE}"
        " then '{{' || concat_ws(',', {odd}) || '}}' else '{{}}' end"
    ).format(
        scales=sql.SQL(", ").join(sql.SQL("scale(t.{})").format(name) for name in names),
        sizes=sql.SQL(", ").join(sql.SQL("abs(t.{})").format(name) for name in names),
        odd=odd,
    )
