"""Settings: what is chosen, and errors that name the variable and the fix and never a key."""

from __future__ import annotations

import re
from pathlib import Path

import psycopg
import psycopg.pq
import pytest

from tests.support.folders import REPOSITORY
from vital_tracking import Settings, SettingsError, VitalTracker
from vital_tracking.environment import KNOWN, LIBPQ, OUR_OWN, SUPABASE_URLS, without_password
from vital_tracking.stores import open_store

SECRET = "sb_secret_canary"
OF_ANON = "eyJhbGciOiJIUzI1NiJ9.eyJyb2xlIjoiYW5vbiJ9.canary"  # {"role": "anon"}
OF_SERVICE = "eyJhbGciOiJIUzI1NiJ9.eyJyb2xlIjoic2VydmljZV9yb2xlIn0.canary"
PROJECT = "https://abc.supabase.co"


def read(tmp_path: Path, dotenv: str = "", **environ: str) -> Settings:
    path = tmp_path / "settings.env"
    path.write_text(dotenv)
    return Settings.from_env(environ, dotenv=path)


def test_nothing_configured_means_embedded(tmp_path: Path) -> None:
    settings = read(tmp_path)
    assert settings.supabase_url is None
    assert settings.database_url is None
    assert settings.postgres_version == 18


def test_the_environment_wins_over_dotenv(tmp_path: Path) -> None:
    settings = read(tmp_path, "VITAL_ORGANIZATION_ID=from-file\nVITAL_BATCH_SIZE=7\n", VITAL_ORGANIZATION_ID="from-env")
    assert settings.organization_id == "from-env"
    assert settings.batch_size == 7


def test_dotenv_is_found_above_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("VITAL_ORGANIZATION_ID=above\n")
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert Settings.from_env({}).organization_id == "above"


def test_env_local_wins_over_env_and_the_environment_over_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this failed, what a developer sets for himself would be lost beside what the team shares."""
    project, home = tmp_path / "project", tmp_path
    below = project / "a"
    below.mkdir(parents=True)
    (home / ".env.local").write_text("VITAL_QUEUE_MIB=3\n")  # farther away than the project's .env
    (project / ".env").write_text("VITAL_BATCH_SIZE=1\nVITAL_ORGANIZATION_ID=team\nVITAL_FLUSH_INTERVAL=1\n")
    (project / ".env.local").write_text("VITAL_ORGANIZATION_ID=mine\nVITAL_FLUSH_INTERVAL=2\n")
    monkeypatch.chdir(below)
    settings = Settings.from_env({"VITAL_FLUSH_INTERVAL": "3"})
    assert (settings.batch_size, settings.organization_id, settings.flush_interval_s) == (1, "mine", 3.0)
    assert settings.queue_bytes == 16 << 20
    assert {found.name: found.source for found in settings.found} == {
        "VITAL_BATCH_SIZE": str(project / ".env"),
        "VITAL_ORGANIZATION_ID": str(project / ".env.local"),
        "VITAL_FLUSH_INTERVAL": "the environment",
    }


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_bytes("VITAL_ORGANIZATION_ID=Größe".encode("latin-1"))
    with pytest.raises(SettingsError, match="UTF-8") as caught:
        Settings.from_env({}, dotenv=path)
    assert caught.value.variable == str(path)


def test_empty_variables_count_as_not_set(tmp_path: Path) -> None:
    settings = read(tmp_path, SUPABASE_URL="", SUPABASE_SERVICE_KEY="  ", VITAL_DATABASE_URL="")
    assert settings.supabase_url is None


@pytest.mark.parametrize(
    ("environ", "variable"),
    [
        ({"SUPABASE_URL": "https://abc.supabase.co"}, "SUPABASE_SERVICE_KEY"),
        ({"SUPABASE_SERVICE_KEY": SECRET}, "SUPABASE_URL"),
        ({"SUPABASE_URL": "abc.supabase.co", "SUPABASE_SERVICE_KEY": SECRET}, "SUPABASE_URL"),
        (
            {"SUPABASE_URL": "https://abc.supabase.co", "SUPABASE_SERVICE_KEY": "sb_publishable_canary"},
            "SUPABASE_SERVICE_KEY",
        ),
        ({"SUPABASE_URL": "https://[abc", "SUPABASE_SERVICE_KEY": SECRET}, "SUPABASE_URL"),
        ({"SUPABASE_URL": "https://abc..supabase.co", "SUPABASE_SERVICE_KEY": SECRET}, "SUPABASE_URL"),
        ({"SUPABASE_URL": f"https://{'a' * 64}.co", "SUPABASE_SERVICE_KEY": SECRET}, "SUPABASE_URL"),
        ({"SUPABASE_URL": "https://abc.supabase.co:99999", "SUPABASE_SERVICE_KEY": SECRET}, "SUPABASE_URL"),
        ({"SUPABASE_URL": PROJECT, "SUPABASE_SERVICE_KEY": "sb_secret_canary\u2026"}, "SUPABASE_SERVICE_KEY"),
        ({"SUPABASE_URL": PROJECT, "SUPABASE_SECRET_KEY": "sb_secret_canary\nX: y"}, "SUPABASE_SECRET_KEY"),
        ({"NEXT_PUBLIC_SUPABASE_URL": "abc", "SUPABASE_SERVICE_ROLE_KEY": SECRET}, "NEXT_PUBLIC_SUPABASE_URL"),
        (
            {"SUPABASE_URL": "https://abc.supabase.co", "SUPABASE_SERVICE_ROLE_KEY": OF_ANON},
            "SUPABASE_SERVICE_ROLE_KEY",
        ),
        ({"VITAL_DATABASE_URL": "mysql://user:canary@host/db"}, "VITAL_DATABASE_URL"),
        ({"VITAL_DATABASE_URL": "postgresql://[canary"}, "VITAL_DATABASE_URL"),
        ({"VITAL_STORE": "mysql"}, "VITAL_STORE"),
        ({"VITAL_STORE": "postgresql"}, "VITAL_DATABASE_URL"),
        ({"VITAL_STORE": "supabase"}, "SUPABASE_URL"),
        ({"VITAL_STORE": "supabase", "VITAL_DATABASE_URL": "postgresql://host/db"}, "SUPABASE_URL"),
        ({"VITAL_POSTGRES_VERSION": "17"}, "VITAL_POSTGRES_VERSION"),
        ({"VITAL_BATCH_SIZE": "many"}, "VITAL_BATCH_SIZE"),
        ({"VITAL_BATCH_SIZE": "0"}, "VITAL_BATCH_SIZE"),
        ({"VITAL_FLUSH_INTERVAL": "nan"}, "VITAL_FLUSH_INTERVAL"),
        ({"VITAL_QUEUE_MIB": "-1"}, "VITAL_QUEUE_MIB"),
        ({"VITAL_SPOOL": "perhaps"}, "VITAL_SPOOL"),
        ({"VITAL_SPOOL_MIB": "0"}, "VITAL_SPOOL_MIB"),
        ({"VITAL_SPOOL_SYNC": "-1"}, "VITAL_SPOOL_SYNC"),
        ({"VITAL_BACKGROUND": "yes"}, "VITAL_BACKGROUND"),
        ({"VITAL_CALL_TIMEOUT": "soon"}, "VITAL_CALL_TIMEOUT"),
    ],
)
def test_wrong_settings_name_the_variable_and_the_fix(tmp_path: Path, environ: dict[str, str], variable: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, **environ)
    assert caught.value.variable == variable
    assert variable in str(caught.value)
    assert caught.value.fix
    assert "canary" not in str(caught.value)


def test_keys_are_never_shown(tmp_path: Path) -> None:
    settings = read(
        tmp_path,
        SUPABASE_URL="https://abc.supabase.co",
        SUPABASE_SERVICE_KEY=SECRET,
        VITAL_DATABASE_URL="postgresql://user:canary@host/db",
        OPENAI_API_KEY="sk-canary",
        VITAL_HASH_KEY="canary-hash",
    )
    for shown in (
        repr(settings),
        str(settings),
        f"{settings}",
        repr(settings.model_dump()),
        settings.model_dump_json(),
    ):
        assert "canary" not in shown


def test_supabase_comes_before_postgresql(tmp_path: Path) -> None:
    settings = read(
        tmp_path,
        SUPABASE_URL="https://abc.supabase.co/",
        SUPABASE_SERVICE_KEY=SECRET,
        VITAL_DATABASE_URL="postgresql://user:canary@host/db",
    )
    store = open_store(settings)
    assert store.description == "Supabase at abc.supabase.co"
    store.close()


def test_postgresql_is_described_without_its_password(tmp_path: Path) -> None:
    store = open_store(read(tmp_path, VITAL_DATABASE_URL="postgresql://user:canary@db.example:6543/app"))
    assert store.description == "PostgreSQL at db.example:6543/app"
    store.close()


def test_a_url_that_cannot_be_read_is_refused_without_showing_it(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        open_store(read(tmp_path, VITAL_DATABASE_URL="postgresql://user:can%ary@host:port:5/db"))
    assert caught.value.variable == "VITAL_DATABASE_URL"
    assert "ary" not in str(caught.value)


def test_from_env_says_in_one_line_what_it_took(
    database_url: str, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level("INFO", logger="vital_tracking")
    tracker = VitalTracker.from_env(environ={"VITAL_DATABASE_URL": database_url}, dotenv=tmp_path / "none.env")
    lines = [record.getMessage() for record in caplog.records if record.name == "vital_tracking"]
    assert lines == [f"vital_tracking writes to {tracker.store.description}"]
    assert tracker.store.description in repr(tracker)
    tracker.close()


@pytest.mark.parametrize("url", ["SUPABASE_URL", "NEXT_PUBLIC_SUPABASE_URL"])
@pytest.mark.parametrize("key", ["SUPABASE_SERVICE_KEY", "SUPABASE_SERVICE_ROLE_KEY", "SUPABASE_SECRET_KEY"])
def test_a_project_is_known_by_the_names_that_its_tools_write(tmp_path: Path, url: str, key: str) -> None:
    """If this failed, calls of a configured project would lie in a local folder, and nobody would know."""
    settings = read(tmp_path, f"{url}={PROJECT}/\n", **{key: OF_SERVICE, "PGHOST": "elsewhere"})
    assert settings.store == "supabase"
    assert settings.supabase_url == PROJECT
    assert settings.supabase_service_key is not None
    assert settings.supabase_service_key.get_secret_value() == OF_SERVICE
    assert settings.database_url is None, "the variables of libpq may be those of another database"


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"SUPABASE_URL": PROJECT}, ["SUPABASE_URL is", "SUPABASE_SERVICE_KEY"]),
        (
            {"NEXT_PUBLIC_SUPABASE_URL": PROJECT, "NEXT_PUBLIC_SUPABASE_ANON_KEY": "canary"},
            ["NEXT_PUBLIC_SUPABASE_ANON_KEY and NEXT_PUBLIC_SUPABASE_URL are", "VITAL_STORE=embedded"],
        ),
        ({"SUPABASE_URL": PROJECT, "SUPABASE_KEY": "canary"}, ["If SUPABASE_KEY holds", "SUPABASE_SERVICE_KEY"]),
        ({"SUPABASE_URL": PROJECT, "SUPABASE_SERVICEKEY": "canary"}, ["If SUPABASE_SERVICEKEY holds"]),
        ({"SUPABASE_URL": PROJECT, "SUPABASE_SERVICE_ROLE": "canary"}, ["If SUPABASE_SERVICE_ROLE holds"]),
        ({"SUPABASE_SERVICE_ROLE_KEY": "canary"}, ["SUPABASE_URL is not set", "SUPABASE_SERVICE_ROLE_KEY is"]),
        ({"SUPABASE_SERVICE_KEY": "canary", "SUPBASE_URL": PROJECT}, ["If SUPBASE_URL holds"]),
        ({"SUPABASE_SERVICE_KEY": "canary", "VITE_SUPABASE_URL": PROJECT}, ["VITE_SUPABASE_URL are"]),
        ({"SUPABASE_SERVICEKEY": "canary"}, ["SUPABASE_SERVICEKEY", "Did you mean SUPABASE_SERVICE_KEY?"]),
        ({"SUPBASE_URL": PROJECT}, ["SUPBASE_URL", "Did you mean SUPABASE_URL?"]),
        ({"VITAL_DB_URL": "canary"}, ["VITAL_DB_URL", "Did you mean VITAL_DATABASE_URL?"]),
        ({"VITAL_DATABASEURL": "canary"}, ["VITAL_DATABASEURL", "Did you mean VITAL_DATABASE_URL?"]),
        ({"VITAL_SUPABASE_URL": "canary"}, ["Did you mean SUPABASE_URL?"]),
        ({"VITAL_BATCHSIZE": "5"}, ["VITAL_BATCHSIZE", "Did you mean VITAL_BATCH_SIZE?"]),
        ({"VITAL_SPOLO": "off", "VITAL_DATABASE_URL": "postgresql://host/db"}, ["Did you mean VITAL_SPOOL?"]),
    ],
)
def test_what_is_nearly_there_is_an_error_that_names_it(
    tmp_path: Path, environ: dict[str, str], words: list[str]
) -> None:
    """If this failed, a slip of the pen would send a team's calls to a local folder."""
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, **environ)
    for word in words:
        assert word in str(caught.value)
    assert "canary" not in str(caught.value)


def test_an_error_names_the_file_in_which_a_setting_is(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"SUPABASE_URL \(in .*settings\.env\) is"):
        read(tmp_path, f"SUPABASE_URL={PROJECT}\n")


@pytest.mark.parametrize(
    "environ",
    [
        {"PGUSER": "me"},
        {"PGUSER": "me", "PGPASSWORD": "secret", "PGPORT": "5433", "PGSSLMODE": "require"},
        {"NEXT_PUBLIC_SUPABASE_ANON_KEY": "anon"},
        {"SUPABASE_ANON_KEY": "anon", "SUPABASE_JWT_SECRET": "secret"},
        {"SUPABASE_ACCESS_TOKEN": "sbp_1", "SUPABASE_DB_PASSWORD": "secret", "SUPABASE_DB_URL": "postgresql://host/db"},
        {"VITE_SUPABASE_URL": PROJECT, "VITE_SUPABASE_ANON_KEY": "anon"},
        {"VITAL_API_KEY": "of another product", "VITAL_ENVIRONMENT": "sandbox"},
        {"VITAL_STORE": "embedded", "SUPABASE_URL": PROJECT, "VITAL_DATABASE_URL": "postgresql://host/db"},
        {"VITAL_STORE": "embedded", "PGHOST": "host", "SUPABASE_SERVICEKEY": "x"},
    ],
)
def test_what_is_meant_for_others_stops_nobody(tmp_path: Path, environ: dict[str, str]) -> None:
    """If this failed, an application would no longer start, for a variable that is none of our business."""
    assert read(tmp_path, **environ).store == "embedded"


@pytest.mark.parametrize(
    "others",
    [{"SUPABASE_URL": PROJECT, "SUPABASE_ANON_KEY": "x"}, {"SUPABASE_SERVICEKEY": "x"}, {"SUPABASE_SERVICE_KEY": "x"}],
)
@pytest.mark.parametrize(
    "named", [{"VITAL_DATABASE_URL": "postgresql://host/db"}, {"PGHOST": "host", "PGDATABASE": "db"}]
)
def test_a_database_that_is_named_is_used_beside_half_a_project(
    tmp_path: Path, named: dict[str, str], others: dict[str, str]
) -> None:
    """If this failed, an application that signs people in with Supabase could not store over its pooler."""
    store = open_store(read(tmp_path, **named, **others))
    assert store.description == "PostgreSQL at host:5432/db"
    store.close()


def test_the_store_that_is_named_comes_before_the_order(tmp_path: Path) -> None:
    settings = read(
        tmp_path,
        SUPABASE_URL=PROJECT,
        SUPABASE_SERVICE_KEY=SECRET,
        VITAL_DATABASE_URL="postgresql://host/db",
        VITAL_STORE="PostgreSQL",
    )
    assert settings.store == "postgresql"
    assert settings.supabase_url == PROJECT  # by which people sign in


def test_libpq_has_the_variables_that_are_taken_from_it() -> None:
    """If this failed, a variable that psql heeds would not count for us."""
    of_libpq = {
        option.envvar.decode(): option.keyword.decode()
        for option in psycopg.pq.Conninfo.get_defaults()
        if option.envvar is not None
    }
    assert of_libpq.items() >= LIBPQ.items() - {("PGSSLCOMPRESSION", "sslcompression")}
    parameters_only = {"PGREQUIRESSL", "PGREALM", "PGTTY", "PGSERVICEFILE", "PGSSLKEYLOGFILE"}
    assert of_libpq.keys() - LIBPQ.keys() <= parameters_only | {"PGMINPROTOCOLVERSION", "PGMAXPROTOCOLVERSION"}


def test_libpqs_variables_lead_where_psql_goes(tmp_path: Path, database_url: str) -> None:
    """If this failed, what psql finds by PGHOST would not be where the calls go."""
    parts = psycopg.conninfo.conninfo_to_dict(database_url)
    file = "".join(f"PG{name}={parts[key]}\n" for name, key in {"HOST": "host", "PORT": "port", "USER": "user"}.items())
    settings = read(tmp_path, file, PGDATABASE=str(parts["dbname"]), PGAPPNAME="it's \\ mine", PGPASSWORD="it's canary")
    assert "canary" not in repr(settings.model_dump())
    store = open_store(settings)
    assert store.description == f"PostgreSQL at {parts['host']}:{parts['port']}/{parts['dbname']}"
    assert store.call("database_id_v1")
    store.close()


def test_a_service_file_leads_where_it_says(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = psycopg.conninfo.conninfo_to_dict(database_url)
    service = tmp_path / "services.conf"
    service.write_text("[clinic]\n" + "".join(f"{name}={value}\n" for name, value in parts.items()))
    monkeypatch.setenv("PGSERVICEFILE", str(service))
    monkeypatch.setenv("PGUSER", "somebody-else")  # the service's own user comes first, as in psql
    store = open_store(read(tmp_path, PGSERVICE="clinic", PGUSER="somebody-else"))
    assert store.description == "PostgreSQL at the service clinic"
    assert store.call("database_id_v1")
    store.close()


@pytest.mark.parametrize("half", [{"supabase_url": PROJECT}, {"supabase_service_key": SECRET}])
def test_settings_made_by_hand_do_not_turn_to_the_embedded_database_either(half: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="Supabase needs both"):
        open_store(Settings.model_validate(half))


def test_what_was_found_shows_no_secret(tmp_path: Path) -> None:
    settings = read(
        tmp_path,
        **{
            name: "canary"
            for name in KNOWN
            if name.startswith(("SUPABASE", "NEXT", "OPENAI", "ANTHROPIC", "PGPASSWORD"))
        },
        VITAL_HASH_KEY="canary",
        VITAL_ALERT_URLS="slack://canary",
        VITAL_DATABASE_URL="postgresql://me:canary@host:5432/db?sslmode=require",
        VITAL_STORE="postgresql",
    )
    assert "canary" not in repr([found for found in settings.found if found.name not in SUPABASE_URLS])
    shown = {found.name: found.shown for found in settings.found}
    assert shown["VITAL_DATABASE_URL"] == "postgresql://me:***@host:5432/db?sslmode=require"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me@host/db?password=canary",
        "postgresql://me:can/ary@host/db",
        "host=x password=canary",
        "postgresql://[canary",
    ],
)
def test_a_url_that_may_hold_a_password_anywhere_is_not_shown(url: str) -> None:
    assert "ary" not in without_password(url)


def test_every_variable_of_ours_is_known() -> None:
    """If this failed, a setting that is read would be taken for a slip of the pen, or one for a setting."""
    readers = ("settings.py", "store_choice.py", "web/settings.py")
    source = "".join((REPOSITORY / "vital_tracking" / name).read_text() for name in readers)
    assert set(re.findall(r'"(VITAL_\w+)"', source)) == set(OUR_OWN)
