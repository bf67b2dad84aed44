"""What lies in the spool, whoever wrote it: read without a database, and without getting in the way of those who write it."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from vital_tracking.delivery.dead_letters import move_letters
from vital_tracking.errors import StoreNotReady, VitalError
from vital_tracking.queries.dead_letters import dead_letters_of
from vital_tracking.queries.spool_records import log_records, short_name
from vital_tracking.queries.words import counted
from vital_tracking.settings import Settings
from vital_tracking.spool.location import SpoolLocation, fault_of, folders_in, spool_location
from vital_tracking.spool.orphans import Tally
from vital_tracking.spool.owner import about_owner, is_alive, owners_in
from vital_tracking.spool.segment import CAN_LOCK, bytes_in, segments_of
from vital_tracking.stores import Store, open_store


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
    """Where this configuration spools, or would if its spool were on. Asks no database, and starts none. Raises VitalError."""
    location = spool_location(settings.model_copy(update={"spool": True}), *database_of(settings))
    if location is None:
        why = (
            "no folder can be used; name one: VITAL_SPOOL_DIR" if CAN_LOCK else "this system has not the locks it needs"
        )
        raise VitalError(f"There is no spool: {why}. Calls wait in memory alone.")
    root = location.root
    if fault := fault_of(root):
        raise VitalError(f"There can be no spool in {root}: {fault}. For another folder: VITAL_SPOOL_DIR.")
    for folder in location.former_folders:
        move_letters(folder, location.folder)
    return Place(location)


def ask_who_it_is(place: Place, store: Store) -> None:
    """Ask the database for its id, by which calls are found that were left for it under another address. Raises VitalError."""
    with contextlib.suppress(StoreNotReady):  # it lacks the migration: it is known by how it is reached
        place.location.learn(store.call("database_id_v1"))


def database_of(settings: Settings) -> tuple[str, str]:
    """The identity of the configured store, and what the database is called."""
    if settings.store != "embedded":
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
    def short_name(self) -> str:
        """The part of its folder's name that tells it from the others."""
        return short_name(self.folder)

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
class RefusedRows:
    """How many rows a database has refused; `here`: it is the configured one."""

    database: str
    here: bool
    rows: int


@dataclass(frozen=True, slots=True)
class Survey:
    """Everything in a spool."""

    place: Place
    bytes: int
    processes: Sequence[Process]
    refused: Sequence[RefusedRows]

    def left(self, *, here: bool) -> list[Process]:
        """The dead processes whose calls wait for the configured database, or for others."""
        return [process for process in self.processes if process.left and process.here is here]

    def refused_by(self, *, here: bool) -> int:
        """How many rows the configured database has refused, or others have."""
        return sum(group.rows for group in self.refused if group.here is here)


def survey(place: Place) -> Survey:
    """Read all that is in a spool."""
    processes: list[Process] = []
    refused: list[RefusedRows] = []
    for folder in folders_in(place.root):
        here = folder == place.folder
        owners = owners_in(folder)
        names = (about_owner(owner).get("store") for owner in owners)
        named = place.database if here else next((name for name in names if isinstance(name, str)), None)
        database = named or f"a database that is not named ({folder.name})"
        for owner in owners:
            owned = place.location.owns(owner)
            processes.append(process_in(owner, place.database if owned else database, here=owned))
        if letters := dead_letters_of(folder):
            refused.append(RefusedRows(database, here, len(letters)))
    order = sorted(processes, key=lambda process: (not process.here, process.database, process.folder.name))
    return Survey(place, bytes_in(place.root), order, refused)


def process_in(folder: Path, database: str, *, here: bool) -> Process:
    """Read what one process has in the spool."""
    alive = is_alive(folder)
    about = about_owner(folder)
    tally = Tally()
    segments = segments_of(folder)
    for _, path in segments:
        for record, _, _ in log_records(path, alive=alive):
            tally.add(record)
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
        tally.calls_begun,
        tally.damaged,
    )


def find_segments(settings: Settings, what: str | None = None) -> list[Path]:
    """The segments that somebody means: all of the spool, or those of a folder or segment, by path or by name.

    Names are as `status` shows them: the end of a folder's name, and behind a slash a segment's. Raises VitalError where there
    is none.
    """
    given = Path(what).expanduser() if what is not None else None
    if given is not None and os.path.isfile(given):  # false, too, of what no file can be called
        return [given]
    if given is not None and os.path.isdir(given):
        folders = [
            given,
            *owners_in(given),
            *(owner for database in folders_in(given) for owner in owners_in(database)),
        ]
        return [path for folder in folders for _, path in segments_of(folder)]
    root = place_of(settings).root
    if given is not None and given.is_absolute():
        raise VitalError(f"There is no {given}. What there is: vital-tracking spool status")
    owners = [owner for database in folders_in(root) for owner in owners_in(database)]
    if what is None:
        return [path for owner in owners for _, path in segments_of(owner)]
    name, _, segment = what.partition("/")
    meant = [owner for owner in owners if owner.name.endswith(name)]
    if len(meant) > 1:
        raise VitalError(f"{name} may be one of {len(meant)} folders: give more of its name, or its path.")
    found = [path for owner in meant for _, path in segments_of(owner) if segment in ("", path.name, path.stem)]
    if found or (meant and not segment):
        return found
    raise VitalError(f"There is no {what} in {root}. What there is: vital-tracking spool status")


def held_by_another(process: Process) -> bool:
    """Whether a process of this host is dead while its folder is locked: another process is delivering what it left."""
    if not process.alive or process.pid is None or process.host != socket.gethostname():
        return False
    try:
        os.kill(process.pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return False


def left_by(processes: Sequence[Process]) -> str:
    """What dead processes have left, in words."""
    calls = sum(process.calls for process in processes)
    begun = sum(process.begun for process in processes)
    return f"{count_of(processes, 'dead')} left at most {counted(calls, 'call')}, and {begun} begun and not ended"


def count_of(processes: Sequence[Process], how: str) -> str:
    """How many processes, in words: 1 dead process, 2 living processes."""
    return f"1 {how} process" if len(processes) == 1 else f"{len(processes)} {how} processes"
