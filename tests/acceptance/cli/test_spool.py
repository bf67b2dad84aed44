"""`vital-tracking spool` as people use it: on what killed processes have left, living ones write, and databases have refused."""

from __future__ import annotations

import csv
import fcntl
import io
import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

from tests.acceptance.cli.helpers import SECRET, UNREACHABLE, Done, Several, findings, fine, refused
from tests.acceptance.helpers import environment, run, run_commands
from tests.integration.helpers import Rows, only
from tests.sql.helpers import a_call, an_unpriced_call
from vital_tracking import Price, PriceBook, Settings, VitalTracker
from vital_tracking.cli.app import app
from vital_tracking.delivery.dead_letters import DeadLetters
from vital_tracking.queries.prices import record_of_row
from vital_tracking.queries.spool import database_of
from vital_tracking.spool.owner import owners_in
from vital_tracking.spool.segment import segments_of
from vital_tracking.stores.embedded import EmbeddedStore
from vital_tracking.stores.postgres import PostgresStore

_calls = itertools.count(1)

# A process that records calls of every sort, of which nothing is sent for the passing of time, and then does `end`.
PROGRAM = """
import os, signal, sys, uuid
from langchain_core.messages import HumanMessage
from vital_tracking import VitalTracker
from vital_tracking.testing import fake_chat_model

tracker = VitalTracker.from_env()
def record(count, user="u-1"):
    for _ in range(count):
        tracker.record(provider="openai", model="gpt-4o-mini", prompt_tokens=1000, completion_tokens=100, user_id=user)
def ask(prompt="{secret}"):
    fake_chat_model().invoke(prompt, config={{"callbacks": [tracker.handler]}})
def begin():
    tracker.handler.on_chat_model_start(
        {{"id": ["ChatOpenAI"]}}, [[HumanMessage("{secret}")]], run_id=uuid.uuid4(), invocation_params={{"model": "gpt-4o"}},
        metadata={{"ls_provider": "openai", "ls_model_name": "gpt-4o"}},
    )
{script}
sys.stdout.write("ready\\n")
sys.stdout.flush()
{end}
"""
KILLED = "os.kill(os.getpid(), signal.SIGKILL)"
LIVING = "sys.stdin.read()"

Start = Callable[..., None]


@pytest.fixture
def settings(spool_dir: Path, database_url: str) -> dict[str, object]:
    """What all processes of a test are told."""
    return {"VITAL_SPOOL_DIR": spool_dir, "VITAL_DATABASE_URL": database_url, "VITAL_FLUSH_INTERVAL": 3600}


@pytest.fixture
def killed(settings: dict[str, object], tmp_path: Path) -> Start:
    """Runs a script in a process that is killed at its end."""

    def start(script: str, **more: object) -> None:
        program = PROGRAM.format(script=script, end=KILLED, secret=SECRET)
        done = run([sys.executable, "-c", program], tmp_path, timeout=120, **{**settings, **more})
        assert (done.returncode, done.stdout) == (-9, "ready\n"), done.stderr

    return start


@pytest.fixture
def living(settings: dict[str, object], tmp_path: Path) -> Iterator[Start]:
    """Runs a script in a process that lives until the end of the test."""
    started: list[subprocess.Popen[str]] = []

    def start(script: str) -> None:
        program = PROGRAM.format(script=script, end=LIVING, secret=SECRET)
        process = subprocess.Popen(
            [sys.executable, "-c", program],
            cwd=tmp_path,
            env=environment(tmp_path, **settings),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def several(settings: dict[str, object], tmp_path: Path) -> Several:
    """Runs `vital-tracking` several times in one process of its own."""

    def commands(*commands: Sequence[str]) -> list[Done]:
        answers = run_commands(commands, tmp_path, **settings)
        return [subprocess.CompletedProcess([], code, out, err) for code, out, err in answers]

    return commands


@pytest.fixture
def one(several: Several) -> Callable[..., Done]:
    """Runs one command."""
    return lambda *words: several(words)[0]


One = Callable[..., Done]


def folder_of(spool_dir: Path) -> Path:
    """The one folder of a process there is."""
    (found,) = [owner for database in spool_dir.iterdir() if database.is_dir() for owner in owners_in(database)]
    return found


def segment_of(spool_dir: Path) -> Path:
    """The one segment there is."""
    ((_, path),) = segments_of(folder_of(spool_dir))
    return path


def frames(done: Done) -> list[dict[str, Any]]:
    """What `inspect --json` has printed."""
    return [json.loads(line) for line in fine(done).splitlines()]


OPTIONS = {
    "spool": ["status", "inspect", "replay", "rejected", "resend", "discard"],
    "spool status": ["--json", "vital-tracking spool status"],
    "spool inspect": ["--limit", "--json", "FOLDER|SEGMENT", "vital-tracking spool inspect"],
    "spool replay": ["--timeout", "--json", "vital-tracking spool replay"],
    "spool rejected": ["--json", "--csv", "vital-tracking spool rejected"],
    "spool resend": ["--json", "vital-tracking spool resend"],
    "spool discard": ["--yes", "vital-tracking spool discard"],
}


@pytest.mark.parametrize("command", OPTIONS)
def test_help_names_every_option(command: str) -> None:
    """If this failed, nobody would find what there is."""
    done = CliRunner().invoke(app, [*command.split(), "--help"])
    assert (done.exit_code, done.exception) == (0, None)
    for option in OPTIONS[command]:
        assert option in done.output


# What a killed process leaves


def test_what_a_killed_process_left_is_shown_and_delivered_once(
    killed: Start, several: Several, rows: Rows, spool_dir: Path
) -> None:
    """If this failed, an admin could neither see nor bring home the calls of a process that was killed."""
    killed("record(5)\nask()\nbegin()\ntracker.workflow('intake').__enter__()")
    shown, listed, replayed, after, again, empty = several(
        ["spool", "status"],
        ["spool", "status", "--json"],
        ["spool", "replay"],
        ["spool", "status", "--json"],
        ["spool", "replay", "--json"],
        ["spool", "status"],
    )
    said = fine(shown)
    assert "1 dead process left at most 6 calls, and 1 begun and not ended" in said
    assert "run: vital-tracking spool replay" in said
    report = json.loads(fine(listed))
    process = only(report["processes"])
    expected = {"alive": False, "configured": True, "calls": 6, "runs": 1, "begun": 1, "damaged": 0, "segments": 1}
    assert {name: process[name] for name in expected} == expected
    assert report["limit_bytes"] == 256 << 20
    assert process["bytes"] <= report["bytes"]
    assert Path(report["folder"]) == spool_dir

    assert "7 calls inserted, 0 already there, 0 rejected; of them 1 begun and not ended" in fine(replayed)
    calls = rows()
    assert sorted(call["status"] for call in calls) == ["abandoned", *["ok"] * 6]
    assert {call["model"] for call in calls if call["status"] == "abandoned"} == {"gpt-4o"}
    assert sum(call["total_cost"] for call in calls if call["user_id"] == "u-1") == 5 * Decimal("0.00021")
    assert only(rows("select service_id from service_runs"))["service_id"] == "intake"

    assert json.loads(fine(after))["processes"] == []
    left = {"inserted": 0, "duplicate": 0, "abandoned": 0, "rejected": 0, "damaged": 0, "left": 0, "reason": None}
    assert json.loads(fine(again)) == left
    assert "nothing waits" in fine(empty)
    assert SECRET not in str(calls)


def test_calls_that_the_database_had_already_are_billed_once(killed: Start, one: One, rows: Rows) -> None:
    """If this failed, a process that is killed after it has sent its calls would have them billed twice."""
    killed("record(3)\nassert tracker.flush(60).inserted == 3\nrecord(2)")
    assert "2 calls inserted, 3 already there" in fine(one("spool", "replay"))
    assert len(rows()) == 5


def test_inspect_shows_the_frames_and_no_text(killed: Start, several: Several, spool_dir: Path) -> None:
    """If this failed, nobody could look at what waits, or somebody could read what was asked of a model."""
    killed("record(2)\nask()\nbegin()\ntracker.workflow('intake').__enter__()")
    segment = segment_of(spool_dir)
    everything, by_name, by_folder, by_path, few, shown, cut, gone, nothing = several(
        ["spool", "inspect", "--json"],
        ["spool", "inspect", segment.parent.name[-12:], "--json"],
        ["spool", "inspect", str(segment.parent), "--json"],
        ["spool", "inspect", str(segment), "--json"],
        ["spool", "inspect", f"{segment.parent.name}/{segment.stem}", "--json", "--limit", "2"],
        ["spool", "inspect"],
        ["spool", "inspect", "--limit", "1"],
        ["spool", "inspect", "01a201df-ffff-7553-9d64-1e32b3dc6364"],
        ["VITAL_SPOOL_DIR=nowhere", "spool", "inspect"],
    )
    found = [frame for frame in frames(everything) if frame["kind"] != "clock"]
    assert [frame["kind"] for frame in found] == ["record", "record", "opened", "call", "opened", "run_begun"]
    record, _, _, call, begun, service_run = found
    assert (record["model"], record["status"]) == ("gpt-4o-mini", "ok")
    assert (record["prompt_tokens"], record["completion_tokens"], record["calls"]) == (1000, 100, 1)
    assert datetime.fromisoformat(record["time"]).date() <= datetime.now(UTC).date()
    assert call["prompt_tokens"] > 0
    assert (begun["model"], begun["status"], begun["prompt_tokens"]) == ("gpt-4o", None, None)
    assert service_run["status"] == "running"
    assert sum(frame["bytes"] for frame in frames(everything)) == segment.stat().st_size
    assert frames(by_name) == frames(by_folder) == frames(by_path) == frames(everything)
    assert frames(few) == frames(everything)[:2]
    table = fine(shown)
    assert "1,100" in table
    assert record["id"] in table
    everyone = len(frames(everything))
    assert f"and {everyone - 1} more; for all of them: --limit {everyone}" in fine(cut)
    assert "vital-tracking spool status" in refused(gone)
    assert "There is no frame" in fine(nothing)
    for done in (everything, shown):
        assert SECRET not in done.stdout
    assert SECRET.encode() not in segment.read_bytes()


def test_damage_costs_its_own_frames_and_is_shown(killed: Start, several: Several, rows: Rows, spool_dir: Path) -> None:
    """If this failed, a torn or rotten file would take the calls around the damage along, or hide that there was any."""
    killed("record(6)")
    segment = segment_of(spool_dir)
    data = bytearray(segment.read_bytes())
    data[len(data) // 6 * 2 + 60] ^= 1  # in the third of six frames of about one size
    segment.write_bytes(data[:-7])
    listed, inspected, shown, replayed = several(
        ["spool", "status", "--json"], ["spool", "inspect", "--json"], ["spool", "inspect"], ["spool", "replay"]
    )
    process = only(json.loads(fine(listed))["processes"])
    assert (process["calls"], process["damaged"]) == (4, 2)
    assert [frame["kind"] for frame in frames(inspected)] == [
        "record",
        "record",
        "damaged",
        "record",
        "record",
        "damaged",
    ]
    assert "that cannot be read" in fine(shown)
    said = fine(replayed)
    assert "4 calls inserted" in said
    assert "2 damaged places in the files could not be read" in said
    assert len(rows()) == 4


def test_a_replay_leaves_a_living_process_its_calls(killed: Start, living: Start, several: Several, rows: Rows) -> None:
    """If this failed, a replay beside a running service would take its calls out of its hands."""
    living("record(3)")
    killed("record(2, 'u-2')")
    listed, shown, replayed, after = several(
        ["spool", "status", "--json"], ["spool", "status"], ["spool", "replay"], ["spool", "status", "--json"]
    )
    alive, dead = sorted(json.loads(fine(listed))["processes"], key=lambda process: -process["calls"])
    assert (alive["alive"], alive["calls"]) == (True, 3)
    assert (dead["alive"], dead["calls"]) == (False, 2)
    assert " alive " in fine(shown)
    said = fine(replayed)
    assert "2 calls inserted" in said
    assert "1 living process of this database: what they have recorded they deliver themselves" in said
    assert only(json.loads(fine(after))["processes"])["pid"] == alive["pid"]
    assert {call["user_id"] for call in rows()} == {"u-2"}


def test_another_databases_spool_is_shown_and_left_alone(killed: Start, several: Several, rows: Rows) -> None:
    """If this failed, calls would get into the wrong bill, or wait for ever where nobody looks."""
    elsewhere = UNREACHABLE.replace("nowhere", "elsewhere")
    killed("record(4)", VITAL_DATABASE_URL=elsewhere)
    killed("record(1)")
    listed, shown, replayed, again = several(
        ["spool", "status", "--json"], ["spool", "status"], ["spool", "replay"], ["spool", "replay"]
    )
    other, own = sorted(json.loads(fine(listed))["processes"], key=lambda process: process["configured"])
    assert (other["database"], other["calls"], other["configured"]) == ("PostgreSQL at 127.0.0.1:1/elsewhere", 4, False)
    assert (own["calls"], own["configured"]) == (1, True)
    assert "PostgreSQL at 127.0.0.1:1/elsewhere (not what this configuration names)" in fine(shown)
    assert "For other databases 1 dead process left at most 4 calls" in shown.stdout
    assert "1 call inserted" in fine(replayed)
    for done in (replayed, again):
        assert "For other databases 1 dead process left at most 4 calls" in fine(done)
    assert SECRET not in shown.stdout + listed.stdout
    assert len(rows()) == 1


def test_replay_says_why_something_is_left(killed: Start, several: Several, rows: Rows, spool_dir: Path) -> None:
    """If this failed, a script would take an outage for success, or nobody would know what to wait for."""
    killed("record(2)")
    killed("record(3)", VITAL_DATABASE_URL=UNREACHABLE)
    away, machine, shown = several(
        [f"VITAL_DATABASE_URL={UNREACHABLE}", "spool", "replay"],
        [f"VITAL_DATABASE_URL={UNREACHABLE}", "spool", "replay", "--json"],
        [f"VITAL_DATABASE_URL={UNREACHABLE}", "spool", "status"],
    )
    assert "1 folder left: " in refused(away)
    assert "unavailable" in away.stderr
    report = json.loads(machine.stdout)
    assert (machine.returncode, report["left"], report["inserted"]) == (1, 1, 0)
    assert "unavailable" in report["reason"]
    assert "1 dead process left at most 3 calls" in fine(shown), "nothing is lost by trying"

    (folder,) = [
        owner
        for database in spool_dir.iterdir()
        for owner in owners_in(database)
        if "nowhere" not in (owner / "lock").read_text()
    ]
    with (folder / "lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (held,) = several(["spool", "replay"])
    assert "another process holds the lock" in refused(held)
    assert rows() == []
    assert "2 calls inserted" in fine(several(["spool", "replay"])[0])


def test_a_replay_that_waits_for_migrations_says_so(killed: Start, several: Several, postgres_server: Any) -> None:
    """If this failed, nobody would know that the calls wait for `vital-tracking migrate`."""
    postgres_server.create_database("spool_empty")
    try:
        url = postgres_server.url("spool_empty")
        killed("record(1)", VITAL_DATABASE_URL=url)
        before, _, after = several(
            [f"VITAL_DATABASE_URL={url}", "spool", "replay"],
            ["migrate", "--database-url", url],
            [f"VITAL_DATABASE_URL={url}", "spool", "replay"],
        )
        assert "vital-tracking migrate" in refused(before)
        assert "1 call inserted" in fine(after)
    finally:
        postgres_server.drop_database("spool_empty")


def test_a_spool_that_is_off_or_another_users_is_named(killed: Start, several: Several, rows: Rows) -> None:
    """If this failed, what was left before the spool was switched off would never be delivered."""
    killed("record(2)")
    shown, doctor, replayed = several(
        ["VITAL_SPOOL=off", "spool", "status"],
        ["VITAL_SPOOL=off", "doctor"],
        ["VITAL_SPOOL=off", "VITAL_BACKGROUND=off", "spool", "replay"],
    )
    assert "VITAL_SPOOL is off" in fine(shown)
    assert "no spool (VITAL_SPOOL=off)" in fine(doctor)
    assert "2 calls inserted" in fine(replayed)
    assert len(rows()) == 2


@pytest.mark.parametrize("command", ["status", "inspect", "replay", "rejected", "resend", "discard"])
def test_a_folder_that_can_be_no_spool_is_named(several: Several, tmp_path: Path, command: str) -> None:
    """If this failed, a slip in VITAL_SPOOL_DIR would read as if nothing waited, or end in a stack trace."""
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("no folder")
    link.symlink_to(tmp_path / "nowhere")
    expected = {
        file: f"There can be no spool in {file}: it is no folder",
        file / "spool": f"There can be no spool in {file / 'spool'}: {file} is no folder",
        link: "it is no folder",
        tmp_path / ("x" * 300): "it cannot be looked at (File name too long)",
    }
    for done, said in zip(
        several(*([f"VITAL_SPOOL_DIR={folder}", "spool", command] for folder in expected)),
        expected.values(),
        strict=True,
    ):
        assert said in refused(done)
        assert "VITAL_SPOOL_DIR" in refused(done)


def test_a_segment_that_can_have_no_such_name_is_not_there(several: Several) -> None:
    """If this failed, a slip of the clipboard would end in a stack trace."""
    (done,) = several(["spool", "inspect", "x" * 5000])
    assert "What there is: vital-tracking spool status" in refused(done)


# What the database refused


def test_refused_rows_are_listed_sent_again_and_discarded(
    several: Several, tracker: VitalTracker, rows: Rows, database_url: str, spool_dir: Path
) -> None:
    """If this failed, a row that a database refused once would be lost to the bill."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        for user in ("u-8", "u-9"):
            name = user.replace("-", "_")
            connection.execute(
                f"alter table token_usage_logs add constraint no_{name} check (user_id <> '{user}')".encode()
            )
        for user in ("u-7", "u-8", "u-9", "u-9"):
            tracker.record(provider="openai", model="gpt-4o", prompt_tokens=1000, completion_tokens=100, user_id=user)
        assert tracker.flush(60).rejected == 3
        (database,) = spool_dir.glob("database-*")
        assert DeadLetters(database).add("frame", '{"of": "a later version"}', None, "KeyError")

        shown, machine, sheet, status, doctor, again = several(
            ["spool", "rejected"],
            ["spool", "rejected", "--json"],
            ["spool", "rejected", "--csv"],
            ["spool", "status"],
            ["doctor", "--json"],
            ["spool", "resend"],
        )
        said = fine(shown)
        assert "no_u_8" in said
        assert "$0.0035" in said
        assert "4 rows, $0.0105 in all" in said
        assert "vital-tracking spool resend" in said
        listed = json.loads(fine(machine))
        assert [(row["function"], row["sqlstate"], row["rule"], row["model"]) for row in listed] == [
            ("record_calls_v1", "23514", "no_u_8", "gpt-4o"),
            ("record_calls_v1", "23514", "no_u_9", "gpt-4o"),
            ("record_calls_v1", "23514", "no_u_9", "gpt-4o"),
            ("frame", None, "KeyError", None),
        ]
        assert {row["row"]["user_id"] for row in listed[:3]} == {"u-8", "u-9"}
        assert [row["rule"] for row in csv.DictReader(io.StringIO(fine(sheet)))] == [row["rule"] for row in listed]
        assert "4 rows refused by the database. See: vital-tracking spool rejected" in fine(status)
        assert any(text.startswith("4 rows refused by the database") for text in findings(doctor)["warn"])
        assert again.returncode == 1
        assert "3 rows sent: 0 inserted, 0 already there, 3 refused once more" in again.stdout

        connection.execute("alter table token_usage_logs drop constraint no_u_9")
        away, better, still = several(
            [f"VITAL_DATABASE_URL={UNREACHABLE}", "spool", "resend"],
            ["spool", "resend", "--json"],
            ["spool", "rejected", "--json"],
        )
        assert "no row was refused by PostgreSQL at 127.0.0.1:1/nowhere" in fine(away)
        assert (better.returncode, json.loads(better.stdout)) == (
            1,
            {"sent": 3, "inserted": 2, "duplicate": 0, "rejected": 1, "kept": 1},
        )
        assert {row["rule"] for row in json.loads(fine(still))} == {"no_u_8", "KeyError"}
        assert sorted(call["user_id"] for call in rows()) == ["u-7", "u-9", "u-9"]

    asked, kept, done, none_left, nothing = several(
        ["spool", "discard"],
        ["spool", "rejected", "--json"],
        ["spool", "discard", "--yes"],
        ["spool", "rejected", "--json"],
        ["spool", "discard", "--yes"],
    )
    assert asked.returncode == 1
    assert "2 rows, $0.0035 in all" in asked.stdout
    assert len(json.loads(fine(kept))) == 2
    assert "discarded 2 rows" in fine(done)
    assert json.loads(fine(none_left)) == []
    assert "Nothing to discard" in fine(nothing)


def test_an_outage_while_rows_are_sent_again_loses_none(
    several: Several,
    make_tracker: Callable[..., VitalTracker],
    spool_dir: Path,
    postgres_server: Any,
    database_url: str,
) -> None:
    """If this failed, the second try of a refused row would be the one that loses it."""
    tracker = make_tracker()
    tracker.record(provider="openai", model="gpt-4o", prompt_tokens=1, completion_tokens=1, user_id="u-1")
    assert tracker.flush(60).inserted == 1
    letters = DeadLetters(tracker._recorder.folder)
    for _ in range(3):
        row = a_call(next(_calls), created_at=datetime.now(UTC).isoformat(), user_id="u-2")
        assert letters.add("record_calls_v1", json.dumps(row), "23514", "once")
    assert letters.add("record_calls_v1", '[{"id": 1}]', "22023", None)
    with psycopg.connect(postgres_server.url("postgres"), autocommit=True) as connection:
        name = database_url.rpartition("/")[2].partition("?")[0]
        connection.execute(f'alter database "{name}" with allow_connections false'.encode())
        (away,) = several(["spool", "resend"])
        connection.execute(f'alter database "{name}" with allow_connections true'.encode())
    refused(away)
    listed, sent = several(["spool", "rejected", "--json"], ["spool", "resend", "--json"])
    assert len(json.loads(fine(listed))) == 4
    assert json.loads(fine(sent)) == {"sent": 3, "inserted": 3, "duplicate": 0, "rejected": 0, "kept": 1}


# Doctor


def test_doctor_tells_how_the_spool_is(
    killed: Start, several: Several, settings: dict[str, object], tmp_path: Path
) -> None:
    """If this failed, nobody would learn that calls wait, or that the folder for them cannot be used."""
    settings["VITAL_SPOOL_DIR"] = tmp_path / "spool"
    killed("record(2)\nbegin()")
    killed("record(1)", VITAL_DATABASE_URL=UNREACHABLE)
    file = tmp_path / "file"
    file.write_text("no folder")
    healthy, blocked, full = (
        findings(done)
        for done in several(
            ["doctor", "--json"],
            [f"VITAL_SPOOL_DIR={file}/spool", "doctor", "--json"],
            ["VITAL_SPOOL_MIB=1", "VITAL_BACKGROUND=off", "doctor", "--json"],
        )
    )
    (room,) = [text for text in healthy["ok"] if text.startswith("spool: ")]
    assert "of 256.0 MiB in " in room
    assert "then 16 MiB in memory; sent when 100 wait" in room
    warned = "\n".join(healthy["warn"])
    assert (
        "spool: 1 dead process left at most 2 calls, and 1 begun and not ended Run: vital-tracking spool replay"
        in warned
    )
    assert "spool, for other databases: 1 dead process left at most 1 call" in warned
    assert "folder for temporary files" in warned
    (unusable,) = blocked["fail"]
    assert "cannot be used: " in unusable
    assert f"{file} is no folder" in unusable
    assert "VITAL_SPOOL_DIR" in unusable
    assert any("sent by flush() alone" in text for text in full["ok"] + full["warn"])


def test_the_embedded_database_is_named_without_starting_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this failed, `status` would start a server to look at files, or look for them in the wrong folder."""

    class Server:
        def get_uri(self) -> str:
            return "postgresql://postgres@localhost/postgres"

    monkeypatch.setattr(EmbeddedStore, "_start", lambda _: Server())
    monkeypatch.setattr(EmbeddedStore, "migrate", lambda *_: None)
    monkeypatch.setattr(EmbeddedStore, "call", lambda *_, **__: None)
    store = EmbeddedStore(tmp_path)
    assert database_of(Settings(data_dir=tmp_path)) == (store.identity, store.description)


# Rows of merged calls

TIERED = {"prompt_tokens": 600_000, "completion_tokens": 3_000, "model": "gemini-2.5-pro", "provider": "google"}


def row_of(calls: int, **columns: Any) -> dict[str, Any]:
    """An unpriced row as the database hands it out for repricing."""
    counts = (
        "prompt",
        "completion",
        "cache_read",
        "cache_write",
        "cache_write_1h",
        "reasoning",
        "audio",
        "audio_output",
    )
    row: dict[str, Any] = {f"{name}_tokens": 0 for name in counts}
    row |= {
        "id": "1",
        "created_at": datetime(2026, 1, 31, tzinfo=UTC),
        "provider": None,
        "model": None,
        "sent_model": None,
        "requested_model": None,
        "billed_units": None,
        "reported_cost": None,
        "price_version": None,
    }
    facts = {"cache_hit": False, "usage_estimated": False, "usage_missing": False, "price_facts": {}}
    return row | facts | {"calls": calls} | columns


def test_merged_calls_are_repriced_as_so_many_calls() -> None:
    """If this failed, a sum of calls would pay for one request, or the price of a prompt that nobody sent."""
    book = PriceBook([Price(model="house", input=1, output=2, cache_read="0.1", per_request="0.01")])
    uneven = row_of(7, model="house", prompt_tokens=1003, cache_read_tokens=500, completion_tokens=100)
    cost = book.cost_of(record_of_row(uneven))
    assert cost is not None
    assert cost.input == (503 + 500 * Decimal("0.1")) / 1_000_000
    assert cost.total == cost.input + Decimal(200) / 1_000_000 + 7 * Decimal("0.01")
    one = book.cost_of(record_of_row({**uneven, "calls": 1}))
    assert one is not None
    assert cost.total - one.total == 6 * Decimal("0.01")
    assert cost.potential == Decimal(1003 + 200) / 1_000_000 + 7 * Decimal("0.01")

    long = book.cost_of(record_of_row(row_of(1, **TIERED)))
    short = book.cost_of(record_of_row(row_of(6, **TIERED)))  # 100,000 tokens each: the first tier
    single = book.cost_of(record_of_row(row_of(1, **{**TIERED, "prompt_tokens": 100_000, "completion_tokens": 500})))
    assert long is not None and short is not None and single is not None  # noqa: PT018
    assert short.total == 6 * single.total < long.total
    assert book.cost_of(record_of_row(row_of(3, model="unknown", prompt_tokens=10))) is None


def test_reprice_and_calls_know_merged_rows(several: Several, store: PostgresStore, rows: Rows) -> None:
    """If this failed, an admin would take a sum of calls for one dear call."""
    merged = an_unpriced_call(next(_calls), created_at=datetime.now(UTC).isoformat(), model="house", calls=40)
    assert store.call("record_calls_v1", calls=json.dumps([merged]))["inserted"] == 1
    before, _, dry, repriced, shown, listed, sheet = several(
        ["reprice"],
        ["prices", "set", "house", "--input", "1", "--output", "1", "--request", "0.01"],
        ["reprice", "--dry-run"],
        ["reprice"],
        ["calls"],
        ["calls", "--json"],
        ["calls", "--csv"],
    )
    assert "house: 40 calls still without a price" in fine(before)
    assert "would price 40 of 40 calls" in fine(dry)
    assert "priced 40 of 40 calls" in fine(repriced)
    row = only(rows())
    assert row["total_cost"] == Decimal(row["total_tokens"]) / 1_000_000 + 40 * Decimal("0.01")
    heading, line = fine(shown).strip().splitlines()
    assert "calls" in heading
    assert " 40 " in line
    assert only(json.loads(fine(listed)))["calls"] == 40
    assert only(csv.DictReader(io.StringIO(fine(sheet))))["calls"] == "40"
