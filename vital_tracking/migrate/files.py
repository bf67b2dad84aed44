"""Finds the migrations and the default budgets: inside the installed package, or beside it in the repository."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import Final

from vital_tracking.errors import VitalError

# What does not count: lines that are comments, white space, and the semicolons that clients which split a file leave out.
_COMMENT_LINES: Final = re.compile(r"^[ \t]*--.*$", re.MULTILINE)
_LAYOUT: Final = re.compile(r"[ \t\r\n;]+")


@dataclass(frozen=True)
class Migration:
    """One file of `supabase/migrations`: `<version>_<name>.sql`."""

    version: str
    name: str
    sql: str

    def __str__(self) -> str:
        return f"{self.version}_{self.name}"

    @cached_property
    def hash(self) -> str:
        """SHA-256 of what the file does: comments and layout may change. `vital_private.migration_hash` is the same in SQL."""
        said = _LAYOUT.sub("", _COMMENT_LINES.sub("", self.sql))
        return hashlib.sha256(said.encode()).hexdigest()


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


def package_version() -> str | None:
    """The version of this package, where it is installed."""
    try:
        return version("vital-tracking")
    except PackageNotFoundError:
        return None


def _read(path: Path) -> Migration:
    number, _, name = path.stem.partition("_")
    return Migration(number, name, path.read_text(encoding="utf-8"))
