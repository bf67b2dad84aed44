"""What lies in the spool, whoever wrote it: read without a database, and without getting in the way of those who write it."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from vital_tracking.calls import resolve
from vital_tracking.calls.json_codec import unpack_record, unpack_run
from vital_tracking.calls.wire import unpack_call
from vital_tracking.core.record import CallRecord, RunRecord
from vital_tracking.delivery.dead_letters import FILE, Letter, letters_in, move_letters
from vital_tracking.errors import StoreNotReady, VitalError
from vital_tracking.queries.words import counted
from vital_tracking.settings import Settings
from vital_tracking.spool.location import SpoolLocation, folders_in, spool_location
from vital_tracking.spool.log_record import LogRecord, RecordKind, clock_skew, read_records
from vital_tracking.spool.orphans import Tally
from vital_tracking.spool.owner import about_owner, is_alive, owners_in
from vital_tracking.spool.segment import CAN_LOCK, bytes_in, segments_of
from vital_tracking.stores import Store, open_store

TAIL: Final = -12
"""Where the part of a folder's name begins that tells it from the others."""


class Place(NamedTuple):
    """Where this configuration spools."""

    location: SpoolLocation

    @property
    def root(self) -> Path:
        """The folder of all spools."""
        return self.location.root

    @property
    def folder(self) -> Path:
        """The database's own folder."""
        return self.location.folder

    @property
    def database(self) -> str:
        """What the database is called."""
        return self.location.description


def place_of(settings: Settings) -> Place:
    """Where this configuration spools; where it does not, where it would. Asks no database, and starts none."""
    location = spool_location(settings.model_copy(update={"spool": True}), *database_of(settings))
    if location is None:
        why = (
            "no folder can be used; name one: VITAL_SPOOL_DIR" if CAN_LOCK else "this system has not the locks it needs"
        )
        raise VitalError(f"There is no spool: {why}. Calls wait in memory alone.")
    root = location.root
    if root.exists() and not os.access(root, os.R_OK | os.X_OK):
        raise VitalError(f"The spool in {root} is another user's: run this as the user whose processes write it.")
    for folder in location.former_folders:
        move_letters(folder, location.folder)
    return Place(location)


def ask_who_it_is(place: Place, store: Store) -> None:
    """Ask the database for its id, by which what was left for it by another way is found. Raises VitalError."""
    with contextlib.suppress(StoreNotReady):  # it lacks a migration: it is known by the way to it
        place.location.learn(store.call("database_id_v1"))


def database_of(settings: Settings) -> tuple[str, str]:
    """The identity of the configured store, and what the database is called."""
    if settings.supabase_url or settings.database_url:
        store = open_store(settings)  # connects when it is first asked something
        store.close()
        return store.identity, store.description
    from vital_tracking.stores.embedded import described, server_dir

    description = described(settings.postgres_version, server_dir(settings.data_dir, settings.postgres_version))
    return description, description


@dataclass(frozen=True, slots=True)
class Process:
    """What one process has in the spool.

    `calls` (ends of calls) and `runs` (states of service runs) are at most what waits: a segment holds also what was delivered,
    until all of it is. `begun`: calls without an end. `damaged`: stretches that cannot be read.
    """

    folder: Path
    database: str
    here: bool
    pid: int | None
    host: str | None
    since: str | None
    alive: bool
    segments: int
    bytes: int
    calls: int
    runs: int
    begun: int
    damaged: int

    @property
    def name(self) -> str:
        """The process, as people name one."""
        return f"{self.pid or '?'}@{self.host or '?'}"

    @property
    def left(self) -> bool:
        """Whether it has died and left something to deliver."""
        return not self.alive and self.segments > 0

    def as_row(self) -> dict[str, Any]:
        """For programs."""
        names = ("pid", "host", "since", "alive", "segments", "bytes", "calls", "runs", "begun", "damaged")
        row = {name: getattr(self, name) for name in names}
        return {"database": self.database, "configured": self.here, "folder": str(self.folder), **row}


@dataclass(frozen=True, slots=True)
class DeadLetters:
    """The dead letters of one database."""

    folder: Path
    database: str
    here: bool
    letters: Sequence[Letter]


@dataclass(frozen=True, slots=True)
class Survey:
    """Everything in a spool."""

    place: Place
    bytes: int
    processes: Sequence[Process]
    letters: Sequence[DeadLetters]

    def left(self, *, here: bool) -> list[Process]:
        """The dead processes whose calls wait for the configured database, or for others."""
        return [process for process in self.processes if process.left and process.here is here]

    def letters_of(self, *, here: bool) -> int:
        """How many dead letters there are for the configured database, or for others."""
        return sum(len(group.letters) for group in self.letters if group.here is here)


def survey(place: Place) -> Survey:
    """Read all that is in a spool."""
    processes: list[Process] = []
    letters: list[DeadLetters] = []
    for folder in folders_in(place.root):
        here = folder == place.folder
        owners = owners_in(folder)
        names = (about_owner(owner).get("store") for owner in owners)
        named = place.database if here else next((name for name in names if isinstance(name, str)), None)
        database = named or f"a database that is not named ({folder.name})"
        for owner in owners:
            owned = place.location.owns(owner)
            processes.append(process_in(owner, place.database if owned else database, here=owned))
        if found := letters_of(folder):
            letters.append(DeadLetters(folder, database, here, found))
    order = sorted(processes, key=lambda process: (not process.here, process.database, process.folder.name))
    return Survey(place, bytes_in(place.root), order, letters)


def letters_of(folder: Path) -> list[Letter]:
    """The dead letters of a database's folder, those included that somebody began to send again."""
    return [letter for name in (f"{FILE}.taken", FILE) for letter in letters_in(folder / name)]


def process_in(folder: Path, database: str, *, here: bool) -> Process:
    """Read what one process has in the spool."""
    alive = is_alive(folder)
    about = about_owner(folder)
    tally = Tally()
    segments = segments_of(folder)
    for _, path in segments:
        for frame, _, _ in frames_of(path, alive=alive):
            tally.add(frame)
    pid, host, since = (about.get(name) for name in ("pid", "host", "since"))
    return Process(
        folder,
        database,
        here,
        pid if isinstance(pid, int) else None,
        host if isinstance(host, str) else None,
        since if isinstance(since, str) else None,
        alive,
        len(segments),
        bytes_in(folder),
        len(tally.ended),
        tally.runs,
        len(tally.begun),
        tally.damaged,
    )


def frames_of(path: Path, *, alive: bool = False) -> Iterator[tuple[LogRecord | None, int, int]]:
    """The frames of a segment, each with where it begins and ends; None for a stretch that cannot be read."""
    try:
        data = path.read_bytes()
    except OSError:  # delivered meanwhile
        return
    start = 0
    for frame, end in read_records(data, ended=not alive):
        yield frame, start, end
        start = end


def held_by_another(process: Process) -> bool:
    """Whether a folder's process is dead, here, but somebody holds its lock: who is at it to deliver it."""
    if not process.alive or process.pid is None or process.host != socket.gethostname():
        return False
    try:
        os.kill(process.pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return False


def record_of(frame: LogRecord, skew_s: float = 0.0) -> CallRecord | RunRecord | None:
    """What a frame says, as it would be recorded; None where it says nothing of a call or a run, or not that we know."""
    with contextlib.suppress(Exception):  # a later version's, or a fault of an earlier one: shown as far as it goes
        if frame.kind in (RecordKind.CALL, RecordKind.OPENED):
            return resolve.record_of(unpack_call(frame.id, frame.payload, skew_s))
        if frame.kind in (RecordKind.RECORD, RecordKind.BEGUN):
            return unpack_record(frame.payload, skew_s)
        if frame.kind == RecordKind.RUN:
            return unpack_run(frame.payload)
    return None


def skew_of(record: LogRecord) -> float:
    """How far, in seconds, a record of the kind CLOCK says that the clock was off."""
    return clock_skew(record.payload) or 0.0


def left_by(processes: Sequence[Process]) -> str:
    """What dead processes have left, in words."""
    calls = sum(process.calls for process in processes)
    begun = sum(process.begun for process in processes)
    return f"{count_of(processes, 'dead')} left at most {counted(calls, 'call')}, and {begun} begun and not ended"


def count_of(processes: Sequence[Process], how: str) -> str:
    """How many processes of a sort."""
    return f"1 {how} process" if len(processes) == 1 else f"{len(processes)} {how} processes"
