"""`status`, `psql`, `backup` and `restore`: bound to the database that is configured, and clear where there is none."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.acceptance.cli.helpers import Cli, Several, fine, refused, some_calls
from tests.acceptance.helpers import COMMAND, run
from tests.support.folders import quick_temporary
from vital_tracking import VitalTracker
from vital_tracking.migrate import find_migrations
from vital_tracking.stores.postgres import PostgresStore

POSTGRES_VERSION = os.environ.get("VITAL_TEST_POSTGRES", "18")
SUPABASE = {"SUPABASE_URL": "https://abc.supabase.co", "SUPABASE_SERVICE_KEY": "sb_secret_canary"}


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[dict[str, object]]:
    """The settings of an embedded database of this test's own, which is stopped at the end."""
    with quick_temporary("vital-data-") as folder:
        folder.chmod(0o755)
        settings: dict[str, object] = {"VITAL_DATA_DIR": folder, "VITAL_POSTGRES_VERSION": POSTGRES_VERSION}
        yield settings
        run([str(COMMAND), "stop"], tmp_path, **settings)


def test_psql_opens_the_database_that_is_configured(cli: Cli, database_url: str) -> None:
    """If this failed, an admin would look for his calls in an empty database."""
    where = str(conninfo_to_dict(database_url)["dbname"])
    assert fine(cli("psql", "-Atc", "select current_database()")) == f"{where}\n"
    parts = conninfo_to_dict(database_url)
    of_libpq = {"PGHOST": parts["host"], "PGPORT": parts["port"], "PGUSER": parts["user"], "PGDATABASE": where}
    said = fine(cli("psql", "-Atc", "select current_database()", VITAL_DATABASE_URL=None, **of_libpq))
    assert said == f"{where}\n"


def test_psql_beside_supabases_api_takes_the_connection_string(cli: Cli, database_url: str) -> None:
    where = str(conninfo_to_dict(database_url)["dbname"])
    assert fine(cli("psql", "-Atc", "select current_database()", **SUPABASE)) == f"{where}\n"


def test_psql_over_the_api_alone_says_what_to_do(cli: Cli) -> None:
    said = refused(cli("psql", "-c", "select 1", VITAL_DATABASE_URL=None, **SUPABASE))
    assert "VITAL_DATABASE_URL" in said
    assert "https://supabase.com/dashboard/project/abc/sql" in said
    assert "canary" not in said


def test_a_password_is_not_on_the_command_line_of_psql(cli: Cli, tmp_path: Path) -> None:
    """If this failed, every user of the machine could read the password in the list of processes."""
    programs = tmp_path / "programs"
    programs.mkdir()
    psql = programs / "psql"
    psql.write_text(
        '#!/bin/sh\nif [ "$1" = --version ]; then echo "psql (PostgreSQL) 99.1"; exit; fi\necho "$@"; echo "$PGPASSWORD"\n'
    )
    psql.chmod(psql.stat().st_mode | stat.S_IXUSR)
    url = "postgresql://me:Geheim%2D7391@host.example:6543/db?sslmode=require&application_name=mine"
    said = fine(cli("psql", "-c", "select 1", VITAL_DATABASE_URL=url, PATH=f"{programs}:{os.environ['PATH']}"))
    arguments, password = said.splitlines()
    assert password == "Geheim-7391"
    assert "Geheim" not in arguments
    for word in ("host.example", "6543", "sslmode=require", "application_name=mine", "-c select 1"):
        assert word in arguments


def test_the_embedded_database_is_reached_by_its_name_while_another_is_configured(
    cli: Cli, embedded: dict[str, object], rows: Callable[..., list[dict[str, Any]]]
) -> None:
    """If this failed, the demonstration's calls would be in a team's database, or nowhere to be found."""
    said = fine(cli("demo", "--offline", **embedded))
    assert rows() == []
    (hint, *_) = [line.strip() for line in said.splitlines() if " psql -c " in line]
    assert hint.startswith("VITAL_STORE=embedded ")
    count = ("psql", "-Atc", "select count(*) from token_usage_logs")
    assert fine(cli(*count, **embedded)) == "0\n"
    assert fine(cli(*count, VITAL_STORE="embedded", **embedded)) == "22\n"


def test_status_says_what_is_configured_and_where(cli: Cli, tmp_path: Path, database_url: str) -> None:
    """If this failed, nobody could tell why his calls are not where he looks."""
    (tmp_path / ".env").write_text(f"VITAL_DATABASE_URL={database_url}\nVITAL_BATCH_SIZE=7\n")
    (tmp_path / ".env.local").write_text("SUPABASE_JWT_SECRET=canary\nVITAL_HASH_KEY=canary\nVITAL_API_KEY=canary\n")
    said = fine(cli("status", VITAL_DATABASE_URL=None))
    parts = conninfo_to_dict(database_url)
    place = f"PostgreSQL at {parts['host']}:{parts['port']}/{parts['dbname']}"
    assert f"store: {place} (VITAL_DATABASE_URL (in {tmp_path / '.env'}))" in said
    assert "canary" not in said
    assert "VITAL_API_KEY is no setting" in said
    found = json.loads(fine(cli("status", "--json", VITAL_DATABASE_URL=None)))
    assert (found["store"], found["description"], found["problem"]) == ("postgresql", place, None)
    assert [one["source"] for one in found["settings"] if one["name"] == "VITAL_HASH_KEY"] == [
        str(tmp_path / ".env.local")
    ]
    assert f"store: {place}, by VITAL_DATABASE_URL" in fine_or_warned(cli("doctor", VITAL_DATABASE_URL=None))


def fine_or_warned(done: Any) -> str:
    assert done.stderr == ""
    return str(done.stdout)


def test_status_shows_what_is_set_where_a_setting_is_wrong(cli: Cli) -> None:
    done = cli("status", VITAL_DATABASE_URL=None, SUPABASE_URL="https://abc.supabase.co", SUPABASE_SERVICEKEY="canary")
    assert done.returncode == 1
    assert "store: none" in done.stdout
    assert ["SUPABASE_URL", "https://abc.supabase.co", "the", "environment"] in [
        line.split() for line in done.stdout.splitlines()
    ]
    assert "If SUPABASE_SERVICEKEY holds the project's secret key" in done.stderr
    assert "canary" not in done.stdout + done.stderr


FIGURES = """
select
  (select count(*) from token_usage_logs), (select sum(total_cost)::text from token_usage_logs),
  (select count(*) from service_runs), (select count(*) from budget_limits),
  (select coalesce(sum(spent), 0)::text from budget_windows), (select count(*) from admin_audit),
  (select count(*) from cost_breakdown('user')), (select sum(total_cost)::text from cost_breakdown('service')),
  (select count(*) from vital_private.usage_measures), (select public.database_id_v1())
"""


def figures(url: str) -> tuple[Any, ...]:
    with psycopg.connect(url) as connection:
        found = connection.execute(FIGURES).fetchone()
        assert found is not None
        return found


def test_what_is_backed_up_comes_back_to_the_last_cent(
    cli: Cli, tracker: VitalTracker, database_url: str, empty_database: str, tmp_path: Path
) -> None:
    """If this failed, a backup would be found worthless on the day that it is needed."""
    fine(cli("budgets", "set", "user", "--daily", "5", "--action", "alert"))
    some_calls(tracker)
    file = tmp_path / "calls.dump"
    said = fine(cli("backup", str(file)))
    assert str(file) in said
    assert "vital-tracking restore" in said
    assert "is there already" in refused(cli("backup", str(file)))
    said = fine(cli("restore", str(file), VITAL_DATABASE_URL=empty_database))
    assert "5 calls, $0.0" in said
    assert figures(empty_database) == figures(database_url)
    assert Decimal(figures(empty_database)[1]) > 0
    # It is a database like any other: calls are recorded, sums are kept, nothing is left to migrate.
    store = PostgresStore(empty_database)
    assert store.migrate(find_migrations()) == []
    with VitalTracker(store) as other:
        other.record(provider="openai", model="gpt-4o", prompt_tokens=1000, completion_tokens=0, user_id="u-1")
        assert other.flush().complete
    assert figures(empty_database)[0] == figures(database_url)[0] + 1
    assert "sums" in fine_or_warned(cli("doctor", "--full", VITAL_DATABASE_URL=empty_database))


def test_restore_refuses_a_database_that_is_not_empty(
    cli: Cli, tracker: VitalTracker, database_url: str, empty_database: str, tmp_path: Path
) -> None:
    """If this failed, a slip would mix two databases, or replace one."""
    some_calls(tracker)
    file = tmp_path / "calls.dump"
    fine(cli("backup", str(file)))
    before = figures(database_url)
    assert "is not empty" in refused(cli("restore", str(file)))
    assert figures(database_url) == before
    with psycopg.connect(empty_database, autocommit=True) as connection:
        connection.execute("create table of_the_team (id int)")
    assert "public.of_the_team" in refused(cli("restore", str(file), VITAL_DATABASE_URL=empty_database))


def test_the_embedded_database_is_backed_up_and_restored(cli: Cli, embedded: dict[str, object], tmp_path: Path) -> None:
    """If this failed, whoever began on the embedded database could not take it along."""
    here = {"VITAL_DATABASE_URL": None, **embedded}
    fine(cli("demo", "--offline", **here))
    file = tmp_path / "calls.dump"
    assert "embedded PostgreSQL" in fine(cli("backup", str(file), **here))
    assert "is not empty" in refused(cli("restore", str(file), **here))
    with quick_temporary("vital-other-") as folder:
        folder.chmod(0o755)
        there = {**here, "VITAL_DATA_DIR": folder}
        try:
            # Somebody has looked into it already: it has its tables, and nothing in them.
            assert fine(cli("calls", "--json", **there)) == "[]\n"
            assert "22 calls" in fine(cli("restore", str(file), **there))
            assert fine(cli("psql", "-Atc", "select count(*) from token_usage_logs", **there)) == "22\n"
            fine(cli("budgets", "list", **there))
        finally:
            run([str(COMMAND), "stop"], tmp_path, **{name: value for name, value in there.items() if value is not None})


def test_backup_of_supabase_and_files_that_are_none_are_refused(several: Several, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("PG")
    api = ["VITAL_DATABASE_URL=", *(f"{name}={value}" for name, value in SUPABASE.items())]
    wrong = {
        "supabase db dump": [*api, "backup", "x.dump"],
        "is no backup": ["restore", "notes.txt"],
        "cannot be read": ["restore", "absent.dump"],
        "there is no folder": ["backup", "absent/x.dump"],
        "is a folder": ["backup", str(tmp_path)],
    }
    for words, done in zip(wrong, several(*wrong.values()), strict=True):
        assert words in refused(done)


def test_a_pg_dump_that_is_too_old_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this failed, a backup would end in `aborting because of server version mismatch`."""
    from vital_tracking.stores import programs

    for name, version in (("old", 15), ("right", 17), ("newer", 18)):
        folder = tmp_path / name
        folder.mkdir()
        program = folder / "pg_dump"
        program.write_text(f'#!/bin/sh\necho "pg_dump (PostgreSQL) {version}.3 (Debian)"\n')
        program.chmod(0o755)
    monkeypatch.setattr(programs, "_candidates", lambda name: sorted(tmp_path.glob(f"*/{name}")))
    assert programs.find_program("pg_dump", 16).parent.name == "right"
    assert programs.find_program("pg_dump", 18).parent.name == "newer"
    assert programs.find_program("pg_dump").parent.name == "newer"
    with pytest.raises(programs.VitalError, match=r"pg_dump 19 or newer is not here\. Install"):
        programs.find_program("pg_dump", 19)
