"""PostgreSQL directly: psycopg 3 with a pool.

Safe on a pooler in transaction mode (Supabase's port 6543): no prepared statements, no session settings, one transaction a call,
which is one statement that commits itself: one round trip, not three.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, TypeVar
from weakref import WeakSet

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout

from vital_tracking.errors import SettingsError, StoreNotReady, StoreRejected, StoreUnavailable, VitalError, store_error
from vital_tracking.migrate import HISTORY_SQL, Migration
from vital_tracking.stores.protocol import Row, Store
from vital_tracking.stores.relations import TEXT_OF, ColumnKind, Relation, Values

_Result = TypeVar("_Result")

_CONNECT_TIMEOUT_S: Final = 5

# A line that a firewall has cut in silence is noticed after half a minute, not after Linux's quarter of an hour.
_NOTICE_A_DEAD_LINE: Final = {
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
_POOL_NAME: Final = "vital_tracking"


class _Connection(psycopg.Connection[Row]):
    """A connection of ours: the class tells it from those of an application's own pools."""


def _of_others(record: logging.LogRecord) -> bool:
    subject = record.args[0] if record.args and isinstance(record.args, tuple) else None
    return not (subject == _POOL_NAME or isinstance(subject, _Connection))


# The pool warns of every attempt that fails; an outage is logged once, by the code that uses the store.
logging.getLogger("psycopg.pool").addFilter(_of_others)


class PostgresStore:
    """A PostgreSQL at a libpq connection string or URL.

    `description` takes the place of host, port and database in messages and in `identity`. Stores with the same description are
    taken to lead to the same database until its id is known.
    """

    in_memory = False

    def __init__(self, conninfo: str, *, description: str | None = None) -> None:
        try:
            parts = conninfo_to_dict(conninfo)
        except psycopg.Error:
            raise SettingsError(
                "VITAL_DATABASE_URL",
                "cannot be read as a PostgreSQL URL",
                "It looks like postgresql://user:password@host:5432/database; write special characters as %XX.",
            ) from None
        self._conninfo = conninfo
        self._parts = frozenset(parts)
        service = parts.get("service")
        host = str(parts.get("host") or parts.get("hostaddr") or (f"the service {service}" if service else "localhost"))
        place = f"{parts.get('port') or 5432}/{parts.get('dbname') or ''}"
        # Supabase's pooler has one address for all projects, and finds them by the user's name: postgres.<project>
        project = str(parts.get("user") or "").partition(".")[2]
        where = f"{host}:{place}" if host != f"the service {service}" or parts.get("dbname") else host
        self._description = description or f"PostgreSQL at {where}"
        self._identity = (
            description or f"PostgreSQL at {where.replace(host, host.lower(), 1)}{project and f' ({project})'}"
        )
        self._lock = threading.Lock()
        self._pool: ConnectionPool[_Connection] | None = None
        self._connections: WeakSet[_Connection] = WeakSet()
        self._inherited: list[object] = []

    @property
    def description(self) -> str:
        """One line for people: what and where, never a password."""
        return self._description

    @property
    def identity(self) -> str:
        """How the database is reached: host, port and name, or the description that was given."""
        return self._identity

    @property
    def conninfo(self) -> str:
        """The connection string, password included: for handing to psql, never for printing."""
        return self._conninfo

    def call(self, function: str, /, **arguments: object) -> Any:
        """Call a function in the schema public with named arguments; its (JSON) result as Python values."""
        query = sql.SQL("select public.{}({})").format(sql.Identifier(function), _named(arguments))
        row = self._run(lambda connection: connection.execute(query, list(arguments.values())).fetchone())
        return next(iter(row.values())) if row else None

    def read(
        self,
        relation: str,
        *,
        columns: Sequence[str],
        equals: Mapping[str, object] | None = None,
        since: datetime | None = None,
        limit: int = 100,
    ) -> list[Row]:
        """The newest rows (by `created_at`) of a view in the schema public."""
        conditions: list[sql.Composable] = [
            sql.SQL("{} = %s").format(sql.Identifier(column)) for column in equals or {}
        ]
        values: list[object] = list((equals or {}).values())
        if since is not None:
            conditions.append(sql.SQL("created_at >= %s"))
            values.append(since)
        where = sql.SQL(" where ") + sql.SQL(" and ").join(conditions) if conditions else sql.SQL("")
        query = sql.SQL("select {} from public.{}{} order by created_at desc, id desc limit %s").format(
            sql.SQL(", ").join(map(sql.Identifier, columns)), sql.Identifier(relation), where
        )
        return self._run(lambda connection: connection.execute(query, [*values, limit]).fetchall())

    def stream(
        self,
        relation: Relation,
        *,
        equals: Mapping[str, object] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        batch: int = 5_000,
    ) -> Iterator[list[Values]]:
        """All rows of a relation as one COPY, which sees the database at one moment, however long it takes."""
        query = _copy(relation, equals or {}, since, until)
        shaped = [(place, TEXT_OF[kind]) for place, kind in enumerate(relation.columns.values()) if kind in TEXT_OF]
        failed: VitalError
        try:
            with self._open_pool().connection() as connection, connection.transaction():
                connection.execute(_AS_TEXT)
                with connection.cursor().copy(query) as copy:
                    rows: list[Values] = []
                    for found in copy.rows():
                        row = list(found)
                        for place, shape in shaped:
                            if row[place] is not None:
                                row[place] = shape(row[place])
                        rows.append(tuple(row))
                        if len(rows) >= batch:
                            yield rows
                            rows = []
                    if rows:
                        yield rows
            return
        except (PoolTimeout, PoolClosed):
            failed = self._diagnose()
        except psycopg.Error as error:
            failed = store_error(error.sqlstate, type(error).__name__)
        raise failed

    def breakdown(self, by: str, *, since: datetime | None = None, organization: str | None = None) -> list[Row]:
        """The rows of `cost_breakdown(by)`."""
        arguments = {"by": by, **({"since": since} if since else {}), "organization": organization}
        query = sql.SQL("select * from public.cost_breakdown({})").format(_named(arguments))
        return self._run(lambda connection: connection.execute(query, list(arguments.values())).fetchall())

    def migrate(self, migrations: Sequence[Migration]) -> list[Migration]:
        """Apply the migrations that the database has not seen, in one transaction; returns those.

        The history is the one that the Supabase command line keeps, so the two may take turns.
        """
        return self._run(lambda connection: _migrate(connection, migrations))

    def seed(self, sql_text: str) -> None:
        """Run the default budgets' SQL."""
        self._run(lambda connection: connection.execute(sql_text.encode()))

    @property
    def server_version(self) -> int:
        """The major version of the server."""
        return self._run(lambda connection: connection.info.server_version // 10_000)

    def tables_with_rows(self) -> dict[str, bool]:
        """Every table of the database but the system's and extensions', by schema and name, and whether it holds a row."""
        return self._run(_tables_with_rows)

    def make_roles(self, names: Sequence[str]) -> None:
        """Make the roles of these names that are missing; nobody can log in as one of them."""
        self._run(lambda connection: _make_roles(connection, names))

    def after_fork(self) -> None:
        """Let go of the parent's connections: this process's copies of their sockets lead nowhere from now on.

        Without that, collecting them here would send a goodbye on sockets that the parent still uses.
        """
        self._lock = threading.Lock()
        nowhere = os.open(os.devnull, os.O_RDWR)
        for connection in list(self._connections):
            if not connection.closed:
                os.dup2(nowhere, connection.fileno())
        os.close(nowhere)
        if self._pool is not None:
            self._inherited.append(self._pool)
        self._pool = None
        self._connections = WeakSet()

    def close(self) -> None:
        """Close the pool."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.close(timeout=1)

    def _open_pool(self) -> ConnectionPool[_Connection]:
        with self._lock:
            if self._pool is None:
                self._pool = ConnectionPool(
                    self._conninfo,
                    connection_class=_Connection,
                    name=_POOL_NAME,
                    min_size=0,
                    max_size=4,
                    num_workers=1,
                    timeout=_CONNECT_TIMEOUT_S,
                    reconnect_timeout=_CONNECT_TIMEOUT_S,
                    configure=self._connections.add,
                    kwargs={
                        **{name: value for name, value in _NOTICE_A_DEAD_LINE.items() if name not in self._parts},
                        "autocommit": True,
                        "row_factory": dict_row,
                        "prepare_threshold": None,
                        "connect_timeout": _CONNECT_TIMEOUT_S,
                        "application_name": "vital_tracking",
                    },
                    open=True,
                )
            return self._pool

    def _run(self, work: Callable[[psycopg.Connection[Row]], _Result]) -> _Result:
        """Do work on a connection, in a transaction of its own; the driver's errors become ours, without their text or data.

        Ours are raised outside the `except` block, so that the driver's errors do not hang on to them as `__context__`.
        """
        failed: VitalError
        try:
            with self._open_pool().connection() as connection:
                return work(connection)
        except (PoolTimeout, PoolClosed):
            failed = self._diagnose()
        except (psycopg.DataError, UnicodeEncodeError) as error:
            failed = StoreRejected(
                f"The database refused the data ({type(error).__name__}).", sqlstate=getattr(error, "sqlstate", None)
            )
        except psycopg.Error as error:
            failed = store_error(error.sqlstate, type(error).__name__)
        raise failed

    def _diagnose(self) -> VitalError:
        """Why no connection was to be had: one direct attempt, since the pool does not say."""
        started = time.monotonic()
        try:
            psycopg.connect(self._conninfo, connect_timeout=2).close()
        except psycopg.Error as error:
            for words, (sqlstate, problem) in _REFUSALS.items():
                if words in str(error):
                    return StoreNotReady(
                        f"{self._description} {problem} Mend VITAL_DATABASE_URL, or PGHOST and the like.",
                        sqlstate=sqlstate,
                    )
            return store_error(error.sqlstate, f"{self._description}: {type(error).__name__}")
        waited = time.monotonic() - started
        return StoreUnavailable(f"{self._description} gave no connection in time (a new one took {waited:.1f} s).")


_: type[Store] = PostgresStore  # so that the type checker holds it against the protocol


# libpq gives no SQLSTATE when connecting fails; wrong credentials and databases are recognised by the server's fixed words.
_REFUSALS: Final = {
    "authentication failed": ("28P01", "refuses the user or the password."),
    "no password supplied": ("28P01", "wants a password."),
    "no pg_hba.conf entry": ("28000", "lets nobody in this way (pg_hba.conf)."),
    'role "': ("28000", "knows no such user."),
    'database "': ("3D000", "has no such database."),
    'for connection option "': ("08001", "is given an option that cannot be read."),
}


def _migrate(connection: psycopg.Connection[Row], migrations: Sequence[Migration]) -> list[Migration]:
    with connection.transaction():
        connection.execute("select pg_advisory_xact_lock(hashtext('vital_tracking.migrate'))")
        connection.execute(HISTORY_SQL.encode())
        rows = connection.execute("select version from supabase_migrations.schema_migrations").fetchall()
        applied = {row["version"] for row in rows}
        pending = [migration for migration in migrations if migration.version not in applied]
        for migration in pending:
            connection.execute(migration.sql.encode())
            connection.execute(
                "insert into supabase_migrations.schema_migrations (version, name, statements) values (%s, %s, %s)",
                (migration.version, migration.name, [migration.sql]),
            )
    return pending


def _tables_with_rows(connection: psycopg.Connection[Row]) -> dict[str, bool]:
    found = connection.execute(
        """
        select n.nspname as schema_name, c.relname as name
        from pg_class as c
        join pg_namespace as n on n.oid = c.relnamespace
        where c.relkind in ('r', 'm', 'f') and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
          and not exists (select from pg_depend as d where d.objid = c.oid and d.deptype = 'e')
        """
    ).fetchall()
    filled = {}
    for row in found:
        query = sql.SQL("select exists (select from {}) as filled").format(
            sql.Identifier(row["schema_name"], row["name"])
        )
        answer = connection.execute(query).fetchone()
        filled[f"{row['schema_name']}.{row['name']}"] = bool(answer and answer["filled"])
    return filled


def _make_roles(connection: psycopg.Connection[Row], names: Sequence[str]) -> None:
    there = {row["rolname"] for row in connection.execute("select rolname from pg_roles").fetchall()}
    for name in names:
        if name not in there:
            connection.execute(sql.SQL("create role {} nologin noinherit").format(sql.Identifier(name)))


def _named(arguments: Mapping[str, object]) -> sql.Composed:
    return sql.SQL(", ").join(sql.SQL("{} => %s").format(sql.Identifier(name)) for name in arguments)


# Times in UTC and numbers with all their digits, whatever the role's settings say; no statement_timeout stops a long export.
_AS_TEXT: Final = (
    "select set_config('timezone', 'UTC', true), set_config('datestyle', 'ISO', true),"
    " set_config('extra_float_digits', '1', true), set_config('statement_timeout', '0', true)"
)


def _copy(
    relation: Relation, equals: Mapping[str, object], since: datetime | None, until: datetime | None
) -> sql.Composed:
    """COPY of a relation's columns as text; COPY takes no parameters, so values stand in it, quoted."""
    columns = [
        sql.SQL("to_jsonb({})").format(sql.Identifier(name)) if kind is ColumnKind.list else sql.Identifier(name)
        for name, kind in relation.columns.items()
    ]
    conditions = [sql.SQL("{} = {}").format(sql.Identifier(name), sql.Literal(value)) for name, value in equals.items()]
    for sign, moment in ((">=", since), ("<", until)):
        if moment is not None:
            conditions.append(
                sql.SQL("{} {} {}").format(sql.Identifier(relation.time), sql.SQL(sign), sql.Literal(moment))
            )
    where = sql.SQL(" where ") + sql.SQL(" and ").join(conditions) if conditions else sql.SQL("")
    return sql.SQL("copy (select {} from public.{}{}) to stdout").format(
        sql.SQL(", ").join(columns), sql.Identifier(relation.name), where
    )
