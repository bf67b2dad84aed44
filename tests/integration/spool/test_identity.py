"""The spool belongs to the database, whatever way leads there, and to no other database that the same way leads to."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from tests.support.fault_proxy import FaultProxy
from tests.support.folders import REPOSITORY
from tests.support.forked import Forked
from tests.support.postgres import PostgresServer
from vital_tracking import Settings, VitalTracker
from vital_tracking.calls.json_codec import id_bytes, pack_record
from vital_tracking.core.record import CallRecord
from vital_tracking.delivery.dead_letters import FILE, DeadLetters, letters_in
from vital_tracking.queries.spool import place_of, survey
from vital_tracking.spool.location import SpoolLocation, folders_in
from vital_tracking.spool.log_record import RecordKind, encoded_record
from vital_tracking.spool.owner import OwnerFolder, about_owner, owners_in
from vital_tracking.stores.postgres import PostgresStore

Rows = Callable[..., list[dict[str, Any]]]
Track = Callable[..., VitalTracker]

PROCESS = """
import os, signal, sys
from vital_tracking import Settings, VitalTracker
from vital_tracking.stores.postgres import PostgresStore

tracker = VitalTracker(PostgresStore(os.environ["DATABASE"]), settings=Settings.from_env())

def record(user):
    tracker.record(provider="openai", model="gpt-4o-mini", prompt_tokens=10, completion_tokens=1, user_id=user)

def wait():
    print("ready", flush=True)
    sys.stdin.readline()

"""


@pytest.fixture
def process(spool_dir: Path) -> Iterator[Callable[[str, str], Forked]]:
    """Starts a process that tracks to a database; it returns when the process waits, or has been killed."""
    started: list[Forked] = []

    def start(url: str, body: str) -> Forked:
        environment = {
            "DATABASE": url,
            "VITAL_SPOOL_DIR": str(spool_dir),
            "VITAL_FLUSH_INTERVAL": "3600",
            "VITAL_BUDGETS": "off",
            "PATH": "",
        }
        one = Forked([sys.executable, "-c", PROCESS + body], REPOSITORY, environment)
        started.append(one)
        assert one.stdout.readline() in ("ready\n", "")
        return one

    yield start
    for one in started:
        one.kill()
        one.communicate(timeout=30)


Process = Callable[[str, str], Forked]


def kill(process: Forked) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait(30)


@pytest.fixture
def track(spool_dir: Path) -> Iterator[Track]:
    """Makes trackers that deliver when they are told."""
    made: list[VitalTracker] = []

    def make(url: str) -> VitalTracker:
        settings = Settings(spool_dir=spool_dir, background=False, budgets=False)
        made.append(VitalTracker(PostgresStore(url), settings=settings))
        return made[-1]

    yield make
    for tracker in made:
        tracker.close()


@pytest.fixture
def alias(postgres_server: PostgresServer, database_url: str) -> Iterator[str]:
    """Another way to the database of this test: another port, as a tunnel or a pooler has it."""
    with FaultProxy(postgres_server.port) as proxy:
        yield proxy.url(database_url)


def users(rows: Rows) -> list[str]:
    return sorted(row["user_id"] for row in rows())


def left_in(root: Path) -> list[Path]:
    """The folders of all processes in a spool."""
    return [owner for folder in folders_in(root) for owner in owners_in(folder)]


def database_id(url: str) -> str:
    with psycopg.connect(url) as connection:
        [found] = connection.execute("select database_id_v1()").fetchone() or ()
        return str(found)


def made_anew(url: str, identity: str | None = None) -> None:
    """As if the database had been dropped and made anew: the same address, another id."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("update vital_private.database_identity set id = %s", [identity or str(uuid4())])


# The same database


def test_what_a_process_left_is_delivered_by_one_that_comes_another_way(
    process: Process, track: Track, alias: str, database_url: str, rows: Rows, spool_dir: Path
) -> None:
    """If this failed, a crash before a change of host or port would leave calls behind for ever."""
    kill(process(alias, "record('sent'); tracker.flush(); record('left'); wait()"))
    assert users(rows) == ["sent"]
    heir = track(database_url)
    assert heir.replay(60)
    assert users(rows) == ["left", "sent"]
    assert left_in(spool_dir) == []
    assert (heir.stats().inserted, heir.stats().duplicate, heir.stats().faults) == (1, 1, 0)


def test_a_running_process_finds_it_by_itself(
    process: Process, alias: str, database_url: str, rows: Rows, spool_dir: Path
) -> None:
    """If this failed, it would take somebody who knows of the command line."""
    kill(process(alias, "record('sent'); tracker.flush(); record('left'); wait()"))
    settings = Settings(spool_dir=spool_dir, flush_interval_s=0.05, budgets=False)
    with VitalTracker(PostgresStore(database_url), settings=settings) as heir:
        heir.record(provider="openai", model="gpt-4o-mini", prompt_tokens=1, completion_tokens=1, user_id="own")
        done = threading.Event()
        heir._recorder.on_tick.append(lambda: done.set() if heir.stats().replayed else None)
        assert done.wait(60)
    assert users(rows) == ["left", "own", "sent"]


def test_a_database_that_is_known_has_a_folder_by_its_id(
    process: Process, track: Track, alias: str, database_url: str, rows: Rows, spool_dir: Path
) -> None:
    """If this failed, each way to a database would go on having calls and refused rows of its own."""
    folder = spool_dir / f"database-{database_id(database_url)}"
    for way in (alias, database_url):
        first = process(way, "record('first'); tracker.flush(); record('left'); wait()")
        assert not owners_in(folder), "nothing is moved that a living process has open"
        kill(first)
        kill(process(way, "record('second'); wait()"))
        [owner] = owners_in(folder)
        assert track(way).replay(60)
        assert not owner.exists()
    assert users(rows) == sorted(["first", "left", "second"] * 2)


def test_two_processes_that_learn_the_id_at_once(
    process: Process, track: Track, database_url: str, rows: Rows, spool_dir: Path
) -> None:
    """If this failed, the calls of one of them would lie where nobody looks."""
    body = "record('{0} 1'); wait(); tracker.flush(); record('{0} 2'); wait()"
    processes = [process(database_url, body.format(name)) for name in "abc"]
    for one in processes:
        one.stdin.write("\n")
        one.stdin.flush()
    for one in processes:
        assert one.stdout.readline() == "ready\n"
        kill(one)
    location = SpoolLocation(spool_dir, PostgresStore(database_url).identity, "")
    assert location.folder == spool_dir / f"database-{database_id(database_url)}"
    assert track(database_url).replay(60)
    assert users(rows) == ["a 1", "a 2", "b 1", "b 2", "c 1", "c 2"]
    assert {path.name for folder in folders_in(spool_dir) for path in folder.iterdir()} == {"database"}


def test_a_process_that_never_reached_its_database(
    process: Process, track: Track, alias: str, database_url: str, rows: Rows, spool_dir: Path
) -> None:
    """If this failed, what is recorded in an outage that comes before everything else would be lost."""
    kill(process(alias, "record('early'); wait()"))
    [owner] = left_in(spool_dir)
    assert "database" not in about_owner(owner)
    other = track(database_url)
    assert other.replay(60)
    assert users(rows) == [], "nobody knows whose these are but who comes the same way"
    assert track(alias).replay(60)
    assert users(rows) == ["early"]


def test_a_database_without_the_newest_migration(
    process: Process, track: Track, database_url: str, rows: Rows, spool_dir: Path
) -> None:
    """If this failed, an application that is deployed before its migration would deliver nothing."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("alter function database_id_v1() rename to not_yet")
        kill(process(database_url, "record('sent'); tracker.flush(); record('left'); wait()"))
        assert track(database_url).replay(60)
        assert users(rows) == ["left", "sent"]
        kill(process(database_url, "record('again'); wait()"))
        connection.execute("alter function not_yet() rename to database_id_v1")
    heir = track(database_url)
    assert heir.replay(60)
    assert users(rows) == ["again", "left", "sent"]
    assert heir.stats().faults == 0


# Folders of earlier versions


def former_folder(spool_dir: Path, url: str) -> Path:
    """Where earlier versions spooled."""
    return spool_dir / sha256(PostgresStore(url).description.encode()).hexdigest()[:16]


def test_what_an_earlier_version_left_is_delivered(
    track: Track, database_url: str, rows: Rows, spool_dir: Path
) -> None:
    """If this failed, an upgrade after a crash would lose calls and refused rows."""
    folder = former_folder(spool_dir, database_url)
    owner = OwnerFolder.create(folder, {"store": PostgresStore(database_url).description})
    record = CallRecord(str(uuid4()), created_at=datetime.now(UTC), provider="openai", model="gpt-4o-mini")
    path = owner.segment_path(1)
    path.write_bytes(encoded_record(RecordKind.RECORD, id_bytes(record.id), pack_record(record)))
    assert DeadLetters(folder).add("record_calls_v1", '{"id": "one"}', "23514", None)
    (folder / f"{FILE}.taken").write_text(
        json.dumps({"at": "2026-01-01", "function": "record_calls_v1", "row": '{"id": "two"}'})
    )
    first = track(database_url)
    assert first.replay(60)
    assert path.exists(), "its process lives"
    owner.let_go()
    assert first.replay(60)
    assert not path.exists()
    assert [str(row["id"]) for row in rows()] == [record.id]
    place = place_of(Settings(database_url=database_url, spool_dir=spool_dir))  # type: ignore[arg-type]
    assert place.folder == spool_dir / f"database-{database_id(database_url)}"
    assert {letter.fields["id"] for letter in letters_in(place.folder / FILE)} == {"one", "two"}
    assert list(folder.iterdir()) == []


def test_rows_that_are_being_sent_again_stay_where_they_are(track: Track, database_url: str, spool_dir: Path) -> None:
    """If this failed, a resend by an earlier version would lose the rows in its hands."""
    folder = former_folder(spool_dir, database_url)
    assert DeadLetters(folder).add("record_calls_v1", '{"id": "one"}', "23514", None)
    held = os.open(folder, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    track(database_url).replay(60)
    assert [letter.fields["id"] for letter in letters_in(folder / FILE)] == ["one"]
    os.close(held)
    tracker = track(database_url)
    tracker.replay(60)
    assert list(folder.iterdir()) == []
    assert [letter.fields["id"] for letter in letters_in(tracker._recorder.folder / FILE)] == ["one"]  # type: ignore[operator]


# Another database behind the same connection


def test_what_was_left_for_a_database_is_not_given_to_the_next_one(
    process: Process, track: Track, database_url: str, rows: Rows, spool_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """If this failed, the calls of a dropped database would be billed in the one that took its place."""
    first = database_id(database_url)
    kill(process(database_url, "record('sent'); tracker.flush(); record('of the first'); wait()"))
    made_anew(database_url)
    heir = track(database_url)
    heir.record(provider="openai", model="gpt-4o-mini", prompt_tokens=1, completion_tokens=1, user_id="own")
    assert heir.flush(60).complete
    assert heir.replay(60)
    assert users(rows) == ["own", "sent"]
    assert sum("another database than before" in entry.getMessage() for entry in caplog.records) == 1
    found = survey(place_of(Settings(database_url=database_url, spool_dir=spool_dir)))  # type: ignore[arg-type]
    assert [process.calls for process in found.left(here=False)] == [2]
    assert found.left(here=True) == []
    # Whoever says that the new database continues the first one gets them.
    made_anew(database_url, first)
    assert track(database_url).replay(60)
    assert users(rows) == ["of the first", "own", "sent"]


def test_a_process_that_is_killed_after_its_database_was_made_anew(
    process: Process, track: Track, database_url: str, rows: Rows, spool_dir: Path
) -> None:
    """If this failed, a developer who resets a database would lose what is recorded from then on."""
    first = f"database-{database_id(database_url)}"
    kill(process(database_url, "record('sent'); tracker.close(); wait()"))
    made_anew(database_url)
    kill(process(database_url, "record('new'); tracker.flush(); record('left'); wait()"))
    assert [owner.parent.name for owner in left_in(spool_dir)] == [first], "it had begun before it knew"
    assert track(database_url).replay(60)
    assert users(rows) == ["left", "new", "sent"]
    assert left_in(spool_dir) == []


def test_an_orphan_in_hand_stays_when_the_database_turns_out_to_be_another_one(
    process: Process, track: Track, database_url: str, rows: Rows, spool_dir: Path
) -> None:
    """If this failed, a process would deliver to the wrong database what it took up before it had asked."""
    kill(process(database_url, "record('sent'); tracker.flush(); record('of the first'); wait()"))
    made_anew(database_url)
    heir = track(database_url)
    [orphan] = heir._recorder._pipeline.orphans.sources()  # by what it knows from before
    assert heir.flush(60).complete
    heir._recorder._writer.empty(orphan, float("inf"), lambda _delivered: None)
    assert users(rows) == ["sent"]
    assert orphan.released
    assert left_in(spool_dir) == [orphan.path]
