"""`vital-tracking migrate`: a database is brought up once, and what cannot be done is said."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import psycopg
import pytest

from tests.acceptance.cli.helpers import SECRET, Cli, findings, fine, refused
from vital_tracking import VitalTracker
from vital_tracking.migrate import find_migrations, write_into


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
        history = "select count(*), count(distinct hash), bool_and(package_version = %s) from vital_private.migrations"
        assert connection.execute(history, [version("vital-tracking")]).fetchone() == (len(names), len(names), True)
        projects = "select to_regnamespace('supabase_migrations')"
        assert connection.execute(projects).fetchone() == (None,), "that history is the project's own"


def test_files_for_a_project_are_written_once_and_taken_out_by_another(tmp_path: Path, cli: Cli) -> None:
    folder = tmp_path / "migrations"
    assert "supabase/migrations" in refused(cli("migrate", "--write", str(folder), VITAL_DATABASE_URL=None))
    folder.mkdir()
    said = fine(cli("migrate", "--write", str(folder), VITAL_DATABASE_URL=None))
    assert "supabase db push" in said
    assert said.count("wrote ") == len(find_migrations()) == len(list(folder.iterdir()))
    assert "holds all migrations" in fine(cli("migrate", "--write", str(folder), VITAL_DATABASE_URL=None))
    assert "deletes all" in fine(cli("migrate", "--uninstall", "--write", str(folder), VITAL_DATABASE_URL=None))
    assert len(list(folder.iterdir())) == len(find_migrations()) + 1


def test_uninstall_says_what_it_drops_asks_and_leaves_nothing(
    cli: Cli, database_url: str, tracker: VitalTracker
) -> None:
    """If this failed, somebody who only tries the product could not be rid of it, or would lose the data without a word."""
    tracker.record(provider="openai", model="gpt-4o", prompt_tokens=10, completion_tokens=1)
    tracker.flush()
    asked = cli("migrate", "--uninstall")
    assert asked.returncode == 1
    assert "public.token_usage_logs with 1 call" in asked.stdout
    assert "public.budget_limits" in asked.stdout
    with psycopg.connect(database_url, autocommit=True) as connection:
        left = "select count(*) from pg_class where relnamespace in (to_regnamespace('vital_private'), 'public'::regnamespace)"
        assert connection.execute(left).fetchone() != (0,), "nobody said yes"
        fine(cli("migrate", "--uninstall", "--yes"))
        assert connection.execute(left).fetchone() == (0,)
        assert connection.execute(
            "select count(*) from pg_proc where pronamespace = 'public'::regnamespace"
        ).fetchone() == (0,)
    assert "holds nothing" in fine(cli("migrate", "--uninstall"))
    assert "up to date" in fine(cli("migrate"))


def test_a_database_of_other_files_is_named_with_them_and_with_what_to_do(
    cli: Cli, database_url: str, tmp_path: Path
) -> None:
    """If this failed, a database of last week's files would be "up to date", and what is missing in it found by its users."""
    changed = find_migrations()[5]
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "update vital_private.migrations set hash = 'of last week' where version = %s", [changed.version]
        )
    said = refused(cli("migrate"))
    assert str(changed) in said
    assert "vital-tracking migrate --uninstall" in said
    [finding] = findings(cli("doctor", "--json"))["fail"]
    assert str(changed) in finding
    assert "vital-tracking migrate --uninstall" in finding

    written = dict(zip(find_migrations(), write_into(tmp_path, find_migrations()), strict=True))
    with psycopg.connect(database_url, autocommit=True) as connection:
        with pytest.raises(psycopg.errors.RaiseException, match=f"another content of {changed} was applied"):
            connection.execute(written[changed].read_bytes())
        connection.execute(written[find_migrations()[4]].read_bytes())


def test_a_name_that_the_database_has_already_is_told(cli: Cli, empty_database: str) -> None:
    """If this failed, a team whose project has a table of that name would be told to migrate, by `migrate`."""
    with psycopg.connect(empty_database, autocommit=True) as connection:
        connection.execute("create table service_runs (id integer)")
    said = refused(cli("migrate", VITAL_DATABASE_URL=empty_database))
    assert "service_runs" in said
    assert "nothing was changed" in said
    assert "Run: vital-tracking migrate" not in said


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
