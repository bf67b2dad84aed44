"""Our tables, functions and views in a database: what it has seen of the migrations, applying the rest, and taking all out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import psycopg

from vital_tracking.errors import StoreNotReady, VitalError, store_error
from vital_tracking.migrate import (
    Applied,
    Migration,
    compare,
    from_project,
    objects_of,
    of_another_state,
    package_version,
    uninstall_sql,
)
from vital_tracking.stores.protocol import Row

_Connection = psycopg.Connection[Row]

_LOCK: Final = "select pg_advisory_xact_lock(hashtext('vital_tracking.migrate'))"
_HISTORY: Final = "vital_private.migrations"
_PROJECT: Final = "supabase_migrations.schema_migrations"
_MAY_NOT: Final = "42501"
_NAMES_ONLY: Final = ("42", "2BP01", "0A", "55")
"""SQLSTATEs whose messages, of statements without data, hold names of things in the database and nothing else."""


class Installed(NamedTuple):
    """What of vital_tracking is in a database: relations and functions of the schema public, whether its own schema is there, and
    the calls in its table (None where that is missing)."""

    relations: list[str]
    functions: int
    schema: bool
    calls: int | None


def applied(connection: _Connection, migrations: Sequence[Migration]) -> list[Applied]:
    """What the database has seen: by its own history, and by that of the project for what was pushed from this repository."""
    own: list[Applied] = []
    if _there(connection, _HISTORY):
        rows = connection.execute("select version, name, hash from vital_private.migrations").fetchall()
        own = [Applied(row["version"], row["name"], row["hash"]) for row in rows]
    known = {one.version for one in own}
    return own + [one for one in _pushed(connection, migrations) if one.version not in known]


def migrate(connection: _Connection, migrations: Sequence[Migration], where: str) -> list[Migration]:
    """Apply what the database has not seen, all or nothing; what was applied."""
    with connection.transaction():
        connection.execute(_LOCK)
        if _hidden(connection, _HISTORY):  # else all would look pending, and fail on what is there
            raise store_error(_MAY_NOT, "the history of migrations is not this role's to read")
        seen = applied(connection, migrations)
        standing = compare(migrations, seen)
        if standing.changed:
            raise StoreNotReady(of_another_state(where, standing.changed))
        for migration in standing.pending:
            _apply(connection, migration)
        if _there(connection, _HISTORY):
            for one in seen:  # what the project's history knew and ours did not
                _note(connection, one, None)
            _admit_auditor(connection, migrations)
    return list(standing.pending)


def installed(connection: _Connection, names: Iterable[str]) -> Installed:
    """What of these names, `public.<relation or function>`, there is."""
    [found] = connection.execute(_INSTALLED, {"names": list(names)}).fetchall()
    calls = None
    if _there(connection, "public.token_usage_logs"):
        [row] = connection.execute(
            "select coalesce(sum(calls), 0)::bigint as calls from public.token_usage_logs"
        ).fetchall()
        calls = row["calls"]
    return Installed(**found, calls=calls)


def uninstall(connection: _Connection, migrations: Sequence[Migration]) -> None:
    """Drop all that the migrations made, with the data in it. Raises where something of others depends on it."""
    with connection.transaction():
        connection.execute(_LOCK)
        _run_file(connection, uninstall_sql(migrations), "Nothing was removed")


_INSTALLED: Final = """
select
  array(
    select format('%%s.%%s', c.relnamespace::regnamespace, c.relname) from pg_class as c
    where c.relkind in ('r', 'p', 'v', 'm')
      and c.relnamespace = any(array[to_regnamespace('public'), to_regnamespace('analytics')])
      and format('%%s.%%s', c.relnamespace::regnamespace, c.relname) = any(%(names)s)
    order by 1
  ) as relations,
  (
    select count(*) from pg_proc as p
    where p.pronamespace = 'public'::regnamespace and 'public.' || p.proname = any(%(names)s)
  ) as functions,
  to_regnamespace('vital_private') is not null as schema
"""


def _apply(connection: _Connection, migration: Migration) -> None:
    _run_file(connection, migration.sql, f"{migration} cannot be applied, and nothing was changed")
    _note(connection, Applied(migration.version, migration.name, migration.hash), package_version())


def _note(connection: _Connection, one: Applied, version: str | None) -> None:
    connection.execute(
        "insert into vital_private.migrations (version, name, hash, package_version) values (%s, %s, %s, %s)"
        " on conflict (version) do nothing",
        (one.version, one.name, one.hash, version),
    )


def _admit_auditor(connection: _Connection, migrations: Sequence[Migration]) -> None:
    made = objects_of(migrations)
    names = [[one.name for one in made if one.kind == kind] for kind in ("relation", "function")]
    connection.execute("select vital_private.admit_auditor(%s::text[], %s::text[])", names)


def _run_file(connection: _Connection, sql_text: str, failing: str) -> None:
    """Run a file of ours. It holds no data, so what the server says of it may be told: names that are taken, or missing."""
    failed: VitalError
    try:
        connection.execute(sql_text.encode())
        return
    except psycopg.Error as error:
        state = error.sqlstate or ""
        if not state.startswith(_NAMES_ONLY):
            raise
        said = " ".join(filter(None, (error.diag.message_primary, error.diag.message_hint)))
        if state == _MAY_NOT:
            failed = StoreNotReady(f"{failing}. {store_error(state, said)}", sqlstate=state)
        else:
            failed = StoreNotReady(f"{failing}: {said} ({state})", sqlstate=state)
    raise failed


def _pushed(connection: _Connection, migrations: Sequence[Migration]) -> list[Applied]:
    if not _there(connection, _PROJECT):
        return []
    rows: list[dict[str, Any]] = connection.execute(
        "select version, name, statements from supabase_migrations.schema_migrations where version = any(%s)",
        [[migration.version for migration in migrations]],
    ).fetchall()
    return from_project(migrations, ((row["version"], row["name"], row["statements"]) for row in rows))


def _there(connection: _Connection, table: str) -> bool:
    """Whether a table is there and may be read by this role. (`to_regclass` raises where the schema may not be used.)"""
    found = connection.execute(
        "select from pg_class as c join pg_namespace as n on n.oid = c.relnamespace"
        " where format('%%s.%%s', n.nspname, c.relname) = %s"
        " and has_schema_privilege(n.oid, 'usage') and has_table_privilege(c.oid, 'select')",
        [table],
    ).fetchall()
    return bool(found)


def _hidden(connection: _Connection, table: str) -> bool:
    """Whether a table is there that this role may not read."""
    found = connection.execute(
        "select from pg_class as c join pg_namespace as n on n.oid = c.relnamespace"
        " where format('%%s.%%s', n.nspname, c.relname) = %s",
        [table],
    ).fetchall()
    return bool(found) and not _there(connection, table)
