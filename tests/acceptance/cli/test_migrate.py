"""`vital-tracking migrate`: a database is brought up once, and what cannot be done is said."""

from __future__ import annotations

import psycopg

from tests.acceptance.cli.helpers import SECRET, Cli, fine, refused
from vital_tracking.migrate import find_migrations


def test_migrate_brings_an_empty_database_up_once(empty_database: str, cli: Cli) -> None:
    names = [f"{migration.version} {migration.name}" for migration in find_migrations()]

    assert fine(cli("migrate", "--dry-run", VITAL_DATABASE_URL=empty_database)).splitlines() == names
    with psycopg.connect(empty_database, autocommit=True) as connection:
        tables = "select count(*) from pg_tables where schemaname = 'public'"
        assert connection.execute(tables).fetchone() == (0,)

        said = fine(cli("migrate", "--database-url", empty_database))
        assert [text.removeprefix("applied ") for text in said.splitlines() if text.startswith("applied ")] == names
        assert "up to date" in said
        assert SECRET not in said

        again = fine(cli("migrate", VITAL_DATABASE_URL=empty_database))
        assert "applied" not in again
        assert "0 new partitions" in again
        history = "select count(*) from supabase_migrations.schema_migrations"
        assert connection.execute(history).fetchone() == (len(names),)


def test_migrate_says_what_the_api_of_supabase_cannot_do(cli: Cli) -> None:
    said = refused(
        cli(
            "migrate",
            VITAL_DATABASE_URL=None,
            SUPABASE_URL="http://127.0.0.1:1",
            SUPABASE_SERVICE_KEY=f"sb_secret_{SECRET}",
        )
    )
    assert "supabase db push" in said
    assert "--database-url" in said


def test_a_wrong_option_for_the_database_is_named_as_one(cli: Cli) -> None:
    assert "--database-url" in refused(cli("migrate", "--database-url", f"not a url {SECRET}"))
