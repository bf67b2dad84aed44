"""Migrations: found, and in their order."""

from __future__ import annotations

from vital_tracking.migrate import find_migrations


def test_migrations_run_in_the_order_of_their_names() -> None:
    versions = [migration.version for migration in find_migrations()]
    assert versions == sorted(set(versions))
    assert all(len(version) == 14 and version.isdigit() for version in versions)
