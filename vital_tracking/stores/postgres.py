"""PostgreSQL directly: psycopg 3 with a pool.

Safe on a pooler in transaction mode (Supabase's port 6543): no prepared statements, no session settings, one transaction a call,
which is one statement that commits itself: one round trip, not three.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Final
from weakref import WeakSet

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout

from vital_tracking.errors import SettingsError, StoreNotReady, StoreUnavailable, VitalError, refused_data, store_error
from vital_tracking.migrate import Migration, objects_of
from vital_tracking.stores import raised, schema
from vital_tracking.stores.changes import Changes, reading
from vital_tracking.stores.protocol import ANSWER_S, Row, Store
from vital_tracking.stores.questions import ActingStore, Database, Result, SqlQuestions, Work
from vital_tracking.stores.relations import Relation

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


class PostgresStore(SqlQuestions):
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

    def as_user(
        self, claims: Mapping[str, object], *, access_token: str = "", anon_key: str = "", timeout_s: float = ANSWER_S
    ) -> Store:
        """The database as a signed-in user with these claims sees it, over the same pool; the token and key are not needed."""
        return ActingStore(self, self._database, claims, timeout_s)

    def within(self, timeout_s: float) -> Store:
        """The same rights over the same pool, with a limit to how long the database may take for an answer."""
        return ActingStore(self, self._database, None, timeout_s)

    def reading(self, relation: Relation, epoch: int = 1) -> AbstractContextManager[Changes]:
        """One snapshot of a relation, of which rows are read as ClickHouse takes them in."""
        return reading(self._database, relation, epoch)

    def migrate(self, migrations: Sequence[Migration]) -> list[Migration]:
        """Apply the migrations that the database has not seen, in one transaction; returns those.

        Raises StoreNotReady where files have changed since they were applied, or where one cannot be applied.
        """
        return self._run(lambda connection: schema.migrate(connection, migrations, self.description))

    def installed(self, migrations: Sequence[Migration]) -> schema.Installed:
        """What of vital_tracking the database holds."""
        names = [made.name for made in objects_of(migrations) if not made.part]
        return self._run(lambda connection: schema.installed(connection, names))

    def uninstall(self, migrations: Sequence[Migration]) -> None:
        """Drop all that the migrations made, with the data in it; nothing where something of others depends on it."""
        self._run(lambda connection: schema.uninstall(connection, migrations))

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

    @property
    def _database(self) -> Database:
        return Database(self._run, lambda: self._open_pool().connection(), self._failure)

    def _run(self, work: Work[Result]) -> Result:
        """Do work on a connection, in a transaction of its own; the driver's errors become ours.

        Ours are raised outside the `except` block, so that the driver's errors do not hang on to them as `__context__`.
        """
        failed: VitalError
        try:
            with self._open_pool().connection() as connection:
                return work(connection)
        except Exception as error:
            ours = self._failure(error)
            if ours is None:
                raise
            failed = ours
        raise failed

    def _failure(self, error: Exception) -> VitalError | None:
        """What an error of the driver or of the pool is for us; None: it is none of theirs.

        Its text, which may hold data, stays here, but for what a function of ours has said.
        """
        if isinstance(error, (PoolTimeout, PoolClosed)):
            return self._diagnose()
        if isinstance(error, psycopg.Error):
            told = raised.refusal(error.sqlstate, error.diag.message_primary, error.diag.message_hint)
            if told is not None:
                return told
        if isinstance(error, (psycopg.DataError, UnicodeEncodeError)):
            return refused_data(getattr(error, "sqlstate", None), type(error).__name__)
        return store_error(error.sqlstate, type(error).__name__) if isinstance(error, psycopg.Error) else None

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
        except UnicodeError:  # psycopg has Python resolve the host, which cannot encode each name
            return StoreNotReady(
                f"{self._description} has a name that no host can have. Mend VITAL_DATABASE_URL, or PGHOST and the like."
            )
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
