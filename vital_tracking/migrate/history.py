"""What a database has seen of the migrations, compared with those of the package.

Each database keeps its own history in `vital_private.migrations`. The history of the Supabase command line
(`supabase_migrations.schema_migrations`) is the project's; it is read, for migrations that were pushed from this repository, and
never written.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vital_tracking.migrate.files import Migration

_NAMED = 3


@dataclass(frozen=True, slots=True)
class Applied:
    """A migration that a database has seen; `hash` is None where nobody knows what was in the file."""

    version: str
    name: str
    hash: str | None

    def __str__(self) -> str:
        return f"{self.version}_{self.name}"


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a database stands beside the package, each in the order of versions.

    `pending` it has not seen. `changed` it has seen with another content, or under a version that the package has no more.
    `later` are newer than all of the package: a later version of it made them.
    """

    pending: tuple[Migration, ...]
    changed: tuple[Applied, ...]
    later: tuple[Applied, ...]


def compare(migrations: Sequence[Migration], applied: Iterable[Applied]) -> Standing:
    """Where a database stands that has seen these."""
    known = {migration.version: migration for migration in migrations}
    newest = max(known, default="")
    seen = sorted(applied, key=lambda one: one.version)
    return Standing(
        pending=tuple(m for m in migrations if m.version not in {one.version for one in seen}),
        changed=tuple(one for one in seen if one.version <= newest and not _is_file(one, known.get(one.version))),
        later=tuple(one for one in seen if one.version > newest),
    )


def _is_file(seen: Applied, migration: Migration | None) -> bool:
    return migration is not None and seen.hash in (None, migration.hash)


def from_project(
    migrations: Sequence[Migration], rows: Iterable[tuple[str, str | None, Sequence[str] | None]]
) -> list[Applied]:
    """The migrations of the package in the history of a project: version, name and statements of each of its rows."""
    ours = {(migration.version, migration.name) for migration in migrations}
    return [
        Applied(version, name, Migration(version, name, "\n".join(statements)).hash if statements else None)
        for version, name, statements in rows
        if name is not None and (version, name) in ours
    ]


def of_another_state(where: str, changed: Sequence[Applied]) -> str:
    """What to say of a database whose migrations are not those of the package, and what to do."""
    names = ", ".join(str(one) for one in changed[:_NAMED])
    more = len(changed) - _NAMED
    return (
        f"{where} was set up by other files than those of this version: {names}{f' and {more} more' if more > 0 else ''} "
        f"{'has' if len(changed) == 1 else 'have'} changed since. {REMEDY}"
    )


REMEDY = (
    "A file that was applied cannot be applied again. Install the version that made the database, or keep what you need of its "
    "data and make it anew: vital-tracking migrate --uninstall, then vital-tracking migrate. See docs/upgrading.md"
)
