"""The embedded PostgreSQL: started, shared, killed, and started again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from tests.conftest import POSTGRES_VERSION
from tests.sql.helpers import a_call
from tests.support.folders import quick_temporary
from vital_tracking import SettingsError, StoreNotReady, VitalTracker
from vital_tracking.migrate import find_migrations
from vital_tracking.stores.embedded import EmbeddedStore

pytestmark = pytest.mark.timeout(300)

# What each of several processes does, from the start of the database to the acknowledgement of its calls.
RECORDS = """
import sys
from vital_tracking import VitalTracker

with VitalTracker.from_env() as tracker:
    for number in range(25):
        tracker.record(provider="openai", model="gpt-4o-mini", prompt_tokens=number, completion_tokens=1, user_id=sys.argv[1])
    delivered = tracker.flush(60)
    assert delivered.complete and delivered.inserted == 25, delivered
"""


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A folder that the server's own user can pass through; whatever runs in it is stopped at the end."""
    with quick_temporary("vital-embedded-") as folder:
        folder.chmod(0o755)
        yield folder
        if (folder / f"postgresql-{POSTGRES_VERSION}").exists():
            EmbeddedStore(folder, version=POSTGRES_VERSION, migrated=False).stop()


def postmaster(data_dir: Path) -> psutil.Process:
    pid_file = data_dir / f"postgresql-{POSTGRES_VERSION}" / "postmaster.pid"
    return psutil.Process(int(pid_file.read_text(encoding="utf-8").splitlines()[0]))


def calls_in(store: EmbeddedStore) -> int:
    return sum(row["calls"] for row in store.breakdown("user"))


def test_the_database_starts_from_nothing_and_is_there_at_once_the_next_time(data_dir: Path) -> None:
    """If this failed, `vital-tracking demo` would not run on a fresh machine, or start a second database each time."""
    started = time.perf_counter()
    store = EmbeddedStore(data_dir, version=POSTGRES_VERSION)
    fresh = time.perf_counter() - started
    server = postmaster(data_dir).pid
    assert store.call("record_calls_v1", calls=json.dumps([a_call(1, user_id="u")]))["inserted"] == 1
    store.close()
    started = time.perf_counter()
    again = EmbeddedStore(data_dir, version=POSTGRES_VERSION)
    print(f"fresh start {fresh:.2f} s, next start {time.perf_counter() - started:.2f} s")
    assert postmaster(data_dir).pid == server
    assert calls_in(again) == 1
    assert str(data_dir) in again.description
    until = datetime.fromisoformat(again.call("tracking_status_v1")["partitions_until"])
    assert (until.replace(tzinfo=UTC) - datetime.now(UTC)).days > 360


def test_four_processes_that_start_at_once_on_nothing_all_record(data_dir: Path) -> None:
    """If this failed, a program with several workers would lose the calls of all but one."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("SUPABASE_", "VITAL_"))},
        "VITAL_DATA_DIR": str(data_dir),
        "VITAL_POSTGRES_VERSION": str(POSTGRES_VERSION),
    }
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", RECORDS, f"worker-{number}"],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
            cwd=data_dir,
        )
        for number in range(4)
    ]
    said = [worker.communicate(timeout=120)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * 4, said
    store = EmbeddedStore(data_dir, version=POSTGRES_VERSION)
    found = {row["label"]: row["calls"] for row in store.breakdown("user")}
    assert found == {f"worker-{number}": 25 for number in range(4)}
    store.close()


def test_a_server_that_was_killed_is_started_again_by_the_next_request(data_dir: Path) -> None:
    """If this failed, a crash of the database would end the tracking for the life of the process."""
    store = EmbeddedStore(data_dir, version=POSTGRES_VERSION)
    for number, ask in enumerate(
        (
            lambda: store.call("record_calls_v1", calls=json.dumps([a_call(1, user_id="u")])),
            lambda: store.read("agent_usage_detailed", columns=["id"]),
            lambda: store.breakdown("user"),
        )
    ):
        if number:
            server = postmaster(data_dir)
            server.send_signal(signal.SIGKILL)
            psutil.wait_procs([server], timeout=30)
        ask()
        assert postmaster(data_dir).is_running()
    assert calls_in(store) == 1
    store.close()


def test_a_server_that_was_stopped_is_started_again_by_the_next_request(data_dir: Path) -> None:
    """If this failed, `vital-tracking stop` would break every program that still runs."""
    store = EmbeddedStore(data_dir, version=POSTGRES_VERSION)
    EmbeddedStore(data_dir, version=POSTGRES_VERSION).stop()
    assert store.call("record_calls_v1", calls=json.dumps([a_call(1, user_id="u")]))["inserted"] == 1
    store.close()


def test_a_database_of_other_files_says_so_when_it_is_opened_and_can_be_opened_as_it_is(data_dir: Path) -> None:
    """If this failed, a database of another version would fail later, in each command in another way."""
    store = EmbeddedStore(data_dir, version=POSTGRES_VERSION)
    store.call("record_calls_v1", calls=json.dumps([a_call(1, user_id="u")]))
    store.seed("update vital_private.migrations set hash = 'other' where name = 'reports'")
    store.close()
    with pytest.raises(StoreNotReady, match=r"_reports has changed since.*vital-tracking migrate --uninstall"):
        EmbeddedStore(data_dir, version=POSTGRES_VERSION)
    as_it_is = EmbeddedStore(data_dir, version=POSTGRES_VERSION, migrated=False)
    assert calls_in(as_it_is) == 1
    as_it_is.uninstall(find_migrations())
    as_it_is.close()
    anew = EmbeddedStore(data_dir, version=POSTGRES_VERSION)
    assert calls_in(anew) == 0
    anew.close()


@pytest.mark.parametrize("place", ["/dev/null/data", "/proc/vital-data"])
def test_a_folder_that_cannot_be_used_names_the_variable(place: str) -> None:
    """If this failed, a wrong folder would end in an error that nobody can read."""
    with pytest.raises(SettingsError, match="VITAL_DATA_DIR") as refused:
        VitalTracker.from_env(environ={"VITAL_DATA_DIR": place}, dotenv="absent.env")
    assert place in str(refused.value)
