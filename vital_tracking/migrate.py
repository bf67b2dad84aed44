"""Finds the migrations and the default budgets: inside the installed package, or beside it in the repository."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final

from vital_tracking.errors import VitalError

# The table in which the Supabase command line keeps its history, as it creates it.
HISTORY_SQL: Final = """
create schema if not exists supabase_migrations;
create table if not exists supabase_migrations.schema_migrations (
  version text not null primary key,
  statements text[],
  name text
);
"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of `supabase/migrations`: `<version>_<name>.sql`."""

    version: str
    name: str
    sql: str


def find_migrations() -> list[Migration]:
    """All migrations in their order."""
    found = [_read(path) for path in sorted(migrations_dir().glob("*.sql"))]
    if not found:
        raise VitalError(f"No migrations were found in {migrations_dir()}; reinstall vital-tracking.")
    return found


def migrations_dir() -> Path:
    """The folder of the migrations: a wheel carries it, an editable install finds it in the repository."""
    package = Path(str(files("vital_tracking")))
    packaged = package / "supabase" / "migrations"
    return packaged if packaged.is_dir() else package.parent / "supabase" / "migrations"


def seed_sql() -> str:
    """The default budgets, as SQL."""
    return (migrations_dir().parent / "seed.sql").read_text(encoding="utf-8")


def _read(path: Path) -> Migration:
    version, _, name = path.stem.partition("_")
    return Migration(version, name, path.read_text(encoding="utf-8"))
