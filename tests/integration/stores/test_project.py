"""Our migrations beside a project's own, with the real Supabase command line: pushed and applied in any order, upgraded."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.conftest import HOSTED_DEFAULT_PRIVILEGES
from tests.sql.helpers import a_call, connect
from tests.support.folders import REPOSITORY
from tests.support.postgres import PostgresServer
from tests.support.supabase_cli import db_push
from vital_tracking.errors import VitalError
from vital_tracking.migrate import find_migrations, write_into, write_uninstall_into
from vital_tracking.stores.postgres import PostgresStore

pytestmark = pytest.mark.timeout(600)

MIGRATIONS = find_migrations()


@pytest.fixture
def fresh(postgres_server: PostgresServer) -> Iterator[str]:
    """The URL of a database with hosted Supabase's default privileges and no migrations."""
    name = f"fresh_{uuid.uuid4().hex[:8]}"
    postgres_server.create_database(name)
    with psycopg.connect(postgres_server.url(name), autocommit=True) as connection:
        connection.execute(HOSTED_DEFAULT_PRIVILEGES)
    yield postgres_server.url(name)
    postgres_server.drop_database(name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of migrations of a team's project, with one of their own; the project is its grandparent."""
    migrations = tmp_path / "project" / "supabase" / "migrations"
    migrations.mkdir(parents=True)
    (migrations / "20250101000000_shops.sql").write_text("create table public.shops (id bigint primary key);\n")
    return migrations


def push(url: str, folder: Path) -> None:
    pushed = db_push(url, folder.parents[1])
    assert pushed.returncode == 0, pushed.stderr


def later(folder: Path, name: str) -> None:
    """The team goes on: their next migration, numbered after all that are there."""
    newest = max(path.name.partition("_")[0] for path in folder.iterdir())
    (folder / f"{int(newest) + 1}_{name}.sql").write_text(f"create table public.{name} (id bigint primary key);\n")


def seen(url: str) -> list[tuple[str, str, str]]:
    """Our own history."""
    with connect(url) as connection:
        rows = connection.execute("select version, name, hash from vital_private.migrations order by 1").fetchall()
    return [(row["version"], row["name"], row["hash"]) for row in rows]


def project_history(url: str) -> list[str]:
    """The names in the project's history."""
    with connect(url) as connection:
        rows = connection.execute("select name from supabase_migrations.schema_migrations order by version").fetchall()
    return [row["name"] for row in rows]


def migrate(url: str) -> int:
    store = PostgresStore(url)
    try:
        return len(store.migrate(MIGRATIONS))
    finally:
        store.close()


def works(url: str) -> None:
    """A call is recorded and read."""
    store = PostgresStore(url)
    assert store.call("record_calls_v1", calls=json.dumps([a_call(1)]))["inserted"] == 1
    assert len(store.read("agent_usage_detailed", columns=["id"])) == 1
    store.close()


ALL = [(migration.version, migration.name, migration.hash) for migration in MIGRATIONS]


def test_written_files_are_pushed_with_the_team_s_own_and_upgraded(fresh: str, folder: Path) -> None:
    """If this failed, a team could not have us in their project, or could not upgrade."""
    push(fresh, folder)
    assert len(write_into(folder, MIGRATIONS[:-1])) == len(MIGRATIONS) - 1
    later(folder, "orders")
    push(fresh, folder)
    assert seen(fresh) == ALL[:-1]
    [upgrade] = write_into(folder, MIGRATIONS)
    assert upgrade.name.endswith(f"_vital_tracking_{MIGRATIONS[-1].name}.sql")
    later(folder, "bills")
    push(fresh, folder)
    assert seen(fresh) == ALL
    assert migrate(fresh) == 0, "the two ways know of each other"
    works(fresh)


def test_migrate_leaves_the_project_s_history_alone_and_written_files_find_its_work_done(
    fresh: str, folder: Path
) -> None:
    """If this failed, the project's own next push would be refused for good, or ours would fail on what is there."""
    assert migrate(fresh) == len(MIGRATIONS)
    works(fresh)
    push(fresh, folder)
    assert project_history(fresh) == ["shops"]
    write_into(folder, MIGRATIONS)
    later(folder, "orders")
    push(fresh, folder)
    assert seen(fresh) == ALL
    assert project_history(fresh)[-1] == "orders"
    assert migrate(fresh) == 0
    with connect(fresh) as connection:
        assert connection.execute("select count(*) as calls from token_usage_logs").fetchall() == [{"calls": 1}]


def test_a_project_takes_us_out_by_a_push_and_in_again(fresh: str, folder: Path) -> None:
    """If this failed, a team that only tried us would have to clean up by hand."""
    write_into(folder, MIGRATIONS)
    push(fresh, folder)
    write_uninstall_into(folder, MIGRATIONS)
    push(fresh, folder)
    with connect(fresh) as connection:
        left = "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'p', 'v', 'm')"
        assert connection.execute(left).fetchall() == [{"relname": "shops"}]
    assert len(write_into(folder, MIGRATIONS)) == len(MIGRATIONS)
    push(fresh, folder)
    assert seen(fresh) == ALL
    works(fresh)


def test_this_repository_is_pushed_into_an_empty_project_and_migrate_goes_on_from_there(fresh: str) -> None:
    """If this failed, whoever pushed a clone of the repository could not use it, or would migrate twice."""
    pushed = db_push(fresh, REPOSITORY)
    assert pushed.returncode == 0, pushed.stderr
    store = PostgresStore(fresh)
    told = store.call("installation_v1")["migrations"]
    assert [(row["version"], row["name"], row["hash"]) for row in told] == ALL
    store.close()
    assert seen(fresh) == []
    assert migrate(fresh) == 0
    assert seen(fresh) == ALL
    works(fresh)


def test_this_repository_does_no_harm_to_a_project_that_has_us_already(fresh: str) -> None:
    """If this failed, a push in the wrong folder would break a project, or say nothing that helps."""
    migrate(fresh)
    pushed = db_push(fresh, REPOSITORY)
    assert pushed.returncode != 0
    assert "vital_private is there" in pushed.stderr
    assert seen(fresh) == ALL
    works(fresh)


def test_a_database_of_last_week_is_known_by_what_was_pushed(fresh: str) -> None:
    """If this failed, files that were changed after they were pushed would be taken for those that the database has seen."""
    pushed = db_push(fresh, REPOSITORY)
    assert pushed.returncode == 0, pushed.stderr
    with connect(fresh) as connection:
        connection.execute(
            "update supabase_migrations.schema_migrations set statements[1] = 'select 1' where version = %s",
            [ALL[3][0]],
        )
    with pytest.raises(VitalError, match=f"{ALL[3][0]}_{ALL[3][1]} has changed"):
        migrate(fresh)
