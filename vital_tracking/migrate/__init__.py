"""The migrations of the package: where they are, what a database has seen of them, and how they come into a Supabase project."""

from __future__ import annotations

from vital_tracking.migrate.files import Migration, find_migrations, migrations_dir, package_version, seed_sql
from vital_tracking.migrate.history import Applied, Standing, compare, from_project, of_another_state
from vital_tracking.migrate.objects import DatabaseObject, objects_of
from vital_tracking.migrate.project import write_into, write_uninstall_into
from vital_tracking.migrate.uninstall import uninstall_sql

__all__ = [
    "Applied",
    "DatabaseObject",
    "Migration",
    "Standing",
    "compare",
    "find_migrations",
    "from_project",
    "migrations_dir",
    "objects_of",
    "of_another_state",
    "package_version",
    "seed_sql",
    "uninstall_sql",
    "write_into",
    "write_uninstall_into",
]
