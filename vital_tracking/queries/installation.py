"""What of vital_tracking is installed in a database: which migrations it has seen, and whether what they made is still there."""

from __future__ import annotations

import json
from collections.abc import Iterator

from typing_extensions import TypedDict

from vital_tracking.migrate import (
    Applied,
    DatabaseObject,
    Migration,
    compare,
    find_migrations,
    objects_of,
    of_another_state,
)
from vital_tracking.queries.answers import answer_type, typed
from vital_tracking.queries.check import Check
from vital_tracking.queries.words import counted
from vital_tracking.stores import Store


@answer_type
class SeenMigration(TypedDict):
    """A migration that the database has seen; `hash` is None where nobody knows what was in the file.

    `own`: by our own history; by the project's otherwise, where the project's own migrations are, too.
    """

    version: str
    name: str | None
    hash: str | None
    own: bool


@answer_type
class Installation(TypedDict):
    """The database's history, and the places of those expected objects that it lacks."""

    server_version: str
    migrations: list[SeenMigration]
    missing: list[int]


def check_installation(store: Store) -> Iterator[Check]:
    """Check that the database has seen the migrations of this version, as they are, and that what they made is there.

    Raises StoreError where it cannot be asked.
    """
    migrations = find_migrations()
    expected = objects_of(migrations)
    asked = [{"kind": one.kind, "name": one.name, "part": one.part} for one in expected]
    found = typed(Installation, store.call("installation_v1", expected=json.dumps(asked)))
    seen = _ours(migrations, found)
    standing = compare(migrations, seen)
    if standing.changed:
        yield Check("fail", of_another_state("the database", standing.changed))
    if standing.pending:
        names = f": {standing.pending[0]}" if len(standing.pending) == 1 else ""
        yield Check(
            "fail",
            f"{counted(len(standing.pending), 'migration')} missing{names}",
            "Run: vital-tracking migrate (where your project holds the files: vital-tracking migrate --write "
            "supabase/migrations, then supabase db push)",
        )
    if standing.later:
        yield Check(
            "warn",
            f"a later version of vital-tracking has set this database up: {counted(len(standing.later), 'migration')} that are "
            f"unknown here, the last {standing.later[-1]}",
            "Update this package where you can: pip install --upgrade vital-tracking",
        )
    known = {str(one) for one in seen}
    missing = [expected[place] for place in found["missing"] if expected[place].made_in in known]
    if missing and not standing.changed:
        yield from _missing(missing)
    elif not standing.pending and not standing.changed:
        yield Check("ok", f"PostgreSQL {found['server_version']}, {len(migrations)} migrations")


def _missing(missing: list[DatabaseObject]) -> Iterator[Check]:
    """One check each, but for what went with its table."""
    gone = {one.name for one in missing if not one.part}
    for one in missing:
        if not one.part or one.name not in gone:
            yield Check(
                "fail",
                f"{one} is missing, or switched off",
                f"It was dropped by hand. {one.made_in}.sql makes it: run that statement again, with those that grant access to "
                "it, or restore the database from a backup. Data that were in it are not in the database any more.",
            )


def _ours(migrations: list[Migration], found: Installation) -> list[Applied]:
    """Those of the package's versions, without the project's own."""
    names = {(migration.version, migration.name) for migration in migrations}
    return [
        Applied(row["version"], row["name"] or "", row["hash"])
        for row in found["migrations"]
        if row["own"] or (row["version"], row["name"]) in names
    ]
