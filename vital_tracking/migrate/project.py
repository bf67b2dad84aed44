"""Writes the migrations into the folder of a team's own Supabase project, to be pushed with its own.

A written file is named and numbered like the team's, after all that are there, since `supabase db push` refuses older ones. It
applies its migration unless the database's own history (`vital_private.migrations`) says that it was applied, and notes it there;
so pushing and `vital-tracking migrate` may take turns. It fails where another content of the migration was applied.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from vital_tracking.errors import VitalError
from vital_tracking.migrate.files import Migration, package_version
from vital_tracking.migrate.history import Applied, compare
from vital_tracking.migrate.uninstall import uninstall_sql

_STAMP: Final = "%Y%m%d%H%M%S"
_HEAD: Final = re.compile(r"-- vital_tracking (?P<version>\d+)_(?P<name>\w+) (?P<hash>[0-9a-f]{64})\n")
_UNINSTALL: Final = "-- vital_tracking uninstall\n"

_FILE: Final = """\
-- vital_tracking {migration} {hash}
--
-- Written by `vital-tracking migrate --write`; the line above is how later versions know the file. Do not change it, but push it.
do $vital_tracking_file$
declare
  applied text;
begin
  perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('vital_tracking.migrate'));
  if pg_catalog.to_regclass('vital_private.migrations') is not null then
    select m.hash into applied from vital_private.migrations as m where m.version = '{version}';
    if applied <> '{hash}' then
      raise exception 'vital_tracking: another content of {migration} was applied. See docs/upgrading.md of vital_tracking.';
    elsif found then
      raise notice 'vital_tracking: {migration} was applied before.';
      return;
    end if;
  end if;
  execute $vital_tracking_migration$
{sql}
$vital_tracking_migration$;
  insert into vital_private.migrations (version, name, hash, package_version)
  values ('{version}', '{name}', '{hash}', {package_version});
end;
$vital_tracking_file$;
"""


def write_into(folder: Path, migrations: Sequence[Migration]) -> list[Path]:
    """Write those migrations that the folder does not hold; the new files, in their order.

    Raises VitalError where there is no such folder, or where a file in it holds another content of a migration.
    """
    there = _ours(folder)
    standing = compare(migrations, there)
    if standing.changed:
        names = ", ".join(str(one) for one in standing.changed)
        raise VitalError(
            f"{folder} holds other contents of {names} than this version. What was pushed cannot be pushed again: if these files "
            "never were, delete them and write them anew; else see docs/upgrading.md"
        )
    version = package_version()
    written = []
    for migration, stamp in zip(standing.pending, _stamps(folder, len(standing.pending)), strict=True):
        path = folder / f"{stamp}_vital_tracking_{migration.name}.sql"
        text = _FILE.format(
            migration=migration,
            version=migration.version,
            name=migration.name,
            hash=migration.hash,
            sql=migration.sql.strip(),
            package_version=f"'{version}'" if version else "null",
        )
        path.write_text(text, encoding="utf-8")
        written.append(path)
    return written


def write_uninstall_into(folder: Path, migrations: Sequence[Migration]) -> Path:
    """Write a file that takes everything of vital_tracking out of a database; after it, all migrations can be written again."""
    _ours(folder)
    path = folder / f"{_stamps(folder, 1)[0]}_vital_tracking_uninstall.sql"
    path.write_text(_UNINSTALL + uninstall_sql(migrations), encoding="utf-8")
    return path


def _ours(folder: Path) -> list[Applied]:
    """The migrations that were written into the folder since the last file that takes them out."""
    if not folder.is_dir():
        raise VitalError(f"There is no folder {folder}. Name the one of your project's migrations: supabase/migrations")
    there: list[Applied] = []
    for path in sorted(folder.glob("*.sql")):
        with path.open(encoding="utf-8", errors="replace") as file:
            head = file.readline()
        if head == _UNINSTALL:
            there = []
        elif match := _HEAD.fullmatch(head):
            there.append(Applied(match["version"], match["name"], match["hash"]))
    return there


def _stamps(folder: Path, count: int) -> list[str]:
    """Numbers for so many new files: times of day as the Supabase command line has them, after every file that is there.

    They end now, so that what the team writes next comes after them.
    """
    numbers = [match[0] for path in folder.glob("*.sql") if (match := re.match(r"\d+", path.name))]
    newest, first = max(numbers, default=""), datetime.now(UTC) - timedelta(seconds=count - 1)
    if newest >= first.strftime(_STAMP):
        try:
            first = datetime.strptime(newest, _STAMP).replace(tzinfo=UTC) + timedelta(seconds=1)
        except ValueError:  # no time of day; what begins with it sorts after it
            return [f"{newest}{number:04d}" for number in range(count)]
    return [(first + timedelta(seconds=number)).strftime(_STAMP) for number in range(count)]
