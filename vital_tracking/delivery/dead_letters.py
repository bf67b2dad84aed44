"""Dead letters: rows that the database will never take as they are, kept in a file until they are sent again or discarded."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

from vital_tracking.spool.owner import make_private

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

FILE: Final = "rejected.jsonl"
_LIMIT_BYTES: Final = 16 << 20
_CAN_LOCK: Final = fcntl is not None
_SAFELY: Final = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)


class Letter(NamedTuple):
    """A dead letter: a row that was refused, when, by which function of the database, for what, and the row's text (JSON)."""

    at: str
    function: str
    sqlstate: str | None
    rule: str | None
    row: str

    @property
    def fields(self) -> dict[str, Any]:
        """The row's fields; empty where its text is no JSON object."""
        with contextlib.suppress(ValueError):
            row = orjson.loads(self.row)
            if isinstance(row, dict):
                return row
        return {}


class DeadLetters:
    """The dead letters of one database, in a folder; at most 16 MiB of them."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._lock = threading.Lock()

    @property
    def path(self) -> Path | None:
        """The file; None where there is no folder to keep it in."""
        return self.folder / FILE if self.folder is not None else None

    def add(self, function: str, row: str, sqlstate: str | None, rule: str | None) -> bool:
        """Set a row aside; False where that cannot be."""
        path = self.path
        if path is None:
            return False
        letter = {"at": datetime.now(UTC), "function": function, "sqlstate": sqlstate, "rule": rule, "row": row}
        try:
            line = orjson.dumps(letter) + b"\n"
        except TypeError:  # a lone surrogate: why it was refused
            line = orjson.dumps({**letter, "row": row.encode("utf-8", "replace").decode()}) + b"\n"
        try:
            with self._lock:
                return _append(path, line)
        except OSError:
            return False


def _append(path: Path, lines: bytes) -> bool:
    """Append whole lines to a file of dead letters; False where they do not fit into its limit."""
    make_private(path.parent)
    fd = _opened(path)
    try:
        size = os.fstat(fd).st_size
        if size + len(lines) > _LIMIT_BYTES:
            return False
        if size and os.pread(fd, 1, size - 1) != b"\n":  # the disk was full, or a process died, in the middle of a line
            lines = b"\n" + lines
        return os.write(fd, lines) == len(lines)
    finally:
        _let_go(fd)


def _opened(path: Path) -> int:
    """The file of dead letters, open for appending, and locked against `take_letters`."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | _SAFELY, 0o600)
        try:
            if _CAN_LOCK:
                fcntl.flock(fd, fcntl.LOCK_EX)
            if os.path.samestat(os.fstat(fd), path.stat()):
                return fd
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)  # taken between the two steps


def _let_go(fd: int) -> None:
    """Unlock and close: a child that was forked meanwhile has a copy, which would keep the lock."""
    if _CAN_LOCK:
        fcntl.flock(fd, fcntl.LOCK_UN)
    os.close(fd)


def letters_in(path: Path) -> Iterator[Letter]:
    """The dead letters in a file, oldest first; a line that cannot be read is left out."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        for line in file:
            with contextlib.suppress(ValueError, KeyError, TypeError):
                data = orjson.loads(line)
                yield Letter(data["at"], data["function"], data.get("sqlstate"), data.get("rule"), data["row"])


def take_letters(folder: Path) -> list[Letter]:
    """Take the dead letters of a folder, to be sent again: what is refused once more is set aside anew.

    They stay in a second file until `forget_taken`, so that a process that dies meanwhile loses none. What such a process has
    left there is taken too.
    """
    taken = folder / f"{FILE}.taken"
    path = folder / FILE
    if path.exists():
        fd = _opened(path)
        try:
            if taken.exists():
                with taken.open("ab") as file:
                    file.write(b"\n" + path.read_bytes())
                path.unlink()
            else:
                path.rename(taken)
        finally:
            _let_go(fd)
    return list(letters_in(taken))


def forget_taken(folder: Path) -> None:
    """What `take_letters` gave is done with."""
    (folder / f"{FILE}.taken").unlink(missing_ok=True)


def move_letters(source: Path, target: Path) -> None:
    """Move the dead letters of one folder to another, unless somebody is sending them again; what does not fit stays.

    A process that dies half-way leaves some in both folders: sent twice, they are stored once.
    """
    for name in (f"{FILE}.taken", FILE):
        path = source / name
        if not (_CAN_LOCK and path.exists()):
            continue
        with contextlib.suppress(OSError), _alone(source):
            fd = _opened(path)
            try:
                if (lines := path.read_bytes()) and not _append(target / FILE, lines):
                    return
                path.unlink()
            finally:
                _let_go(fd)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep others from sending the dead letters of a folder again; BlockingIOError where somebody is sending them now."""
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(held)
