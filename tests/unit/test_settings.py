"""Settings: what is chosen, and errors that name the variable and the fix and never a key."""

from __future__ import annotations

from pathlib import Path

import pytest

from vital_tracking import Settings, SettingsError, VitalTracker
from vital_tracking.stores import open_store

SECRET = "sb_secret_canary"


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
        ({"VITAL_DATABASE_URL": "mysql://user:canary@host/db"}, "VITAL_DATABASE_URL"),
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
