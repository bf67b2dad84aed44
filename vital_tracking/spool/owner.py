"""The folder of one process's spool, and whether that process is alive."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from vital_tracking.ids import new_id
from vital_tracking.spool.segment import _SUFFIX, _close_ours, _identity, _is_ours

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_LOCK: Final = "lock"


_RESERVE: Final = "reserve"


class OwnerFolder:
    """The folder of one process, held by its lock until `let_go`."""

    def __init__(self, path: Path, lock: int, about: Mapping[str, Any] = MappingProxyType({})) -> None:
        self.path = path
        self._about = about
        self._reserved = False
        self._keep(lock)

    def _keep(self, lock: int) -> None:
        self._lock, self._identity = lock, _identity(lock)

    @classmethod
    def create(cls, parent: Path, about: Mapping[str, Any]) -> OwnerFolder:
        """A new folder of this process's own, in which it notes pid, host, start and `about`. OSError where that cannot be."""
        make_private(parent)
        path = parent / new_id()
        path.mkdir(mode=0o700)
        lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            since = datetime.now(UTC).isoformat()
            about = {"pid": os.getpid(), "host": socket.gethostname(), "since": since, **about}
            os.write(lock, json.dumps(about).encode())
        except BaseException:
            os.close(lock)
            raise
        return cls(path, lock, about)

    @classmethod
    def claim(cls, path: Path) -> OwnerFolder | None:
        """The folder of a dead process, for this one to deliver; None where its process lives or another one was first."""
        lock = _locked(path)
        return cls(path, lock) if lock is not None else None

    def note(self, about: Mapping[str, Any]) -> None:
        """Add to, or change, what this process has noted of itself."""
        self._about = {**self._about, **about}
        if _is_ours(self._lock, self._identity):
            text = json.dumps(self._about).encode()
            os.pwrite(self._lock, text, 0)
            os.ftruncate(self._lock, len(text))

    def remove(self) -> None:
        """Delete the folder with all that is in it, and give up its lock."""
        with contextlib.suppress(OSError):
            # The segments last: if this process dies half-way, others still find some and claim the folder.
            for entry in sorted(self.path.iterdir(), key=lambda path: path.suffix == _SUFFIX):
                if entry.name != _LOCK:
                    with contextlib.suppress(OSError):
                        entry.unlink()
            (self.path / _LOCK).unlink()
            self.path.rmdir()
        self.let_go()

    def hold(self) -> bool:
        """Whether the folder is there and its lock is held, or taken again after somebody has closed its file."""
        if _is_ours(self._lock, self._identity):
            return os.fstat(self._lock).st_nlink > 0
        lock = _locked(self.path)
        if lock is None:
            return False
        self._keep(lock)
        return True

    def let_go(self) -> None:
        """Give up the lock: the folder is a dead process's from now on."""
        lock, self._lock = self._lock, -1
        if lock >= 0:
            _close_ours(lock, self._identity)

    def reserve(self, size: int) -> None:
        """Keep a file as room for what must be written when the disk is full; at most an eighth of what is free."""
        if not self._reserved:
            try:
                fd = os.open(self.path / _RESERVE, os.O_WRONLY | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
                try:
                    os.write(fd, bytes(min(size, shutil.disk_usage(self.path).free // 8)))
                finally:
                    os.close(fd)
                self._reserved = True
            except OSError:
                self.spend_reserve()

    def spend_reserve(self) -> bool:
        """Delete that file, so that its room can be used; returns whether there was one."""
        reserved, self._reserved = self._reserved, False
        with contextlib.suppress(OSError):
            (self.path / _RESERVE).unlink()
        return reserved

    def segment_path(self, number: int) -> Path:
        """Where the segment of that number lies."""
        return self.path / f"{number:08d}{_SUFFIX}"


def _locked(folder: Path) -> int | None:
    """The open lock of a folder, held from now on; None where it is another's or the folder is gone."""
    try:
        lock = os.open(folder / _LOCK, os.O_RDWR | getattr(os, "O_CLOEXEC", 0))
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Another process may have delivered and removed the folder between the two steps.
        if os.fstat(lock).st_nlink:
            return lock
    except OSError:
        pass
    os.close(lock)
    return None


def make_private(folder: Path) -> None:
    """Make the folder of a database's spool, and the spool itself, for this user alone. OSError where that cannot be."""
    folder.parent.parent.mkdir(parents=True, exist_ok=True)
    for path in (folder.parent, folder):  # mkdir gives its mode to the last folder alone
        path.mkdir(mode=0o700, exist_ok=True)


def owners_in(folder: Path) -> list[Path]:
    """The folders of processes in the folder of one database, oldest first."""
    with contextlib.suppress(OSError):
        return sorted(path for path in folder.iterdir() if os.path.exists(path / _LOCK))
    return []


def is_alive(folder: Path) -> bool:
    """Whether the process of a folder lives."""
    try:
        lock = os.open(folder / _LOCK, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False


def about_owner(folder: Path) -> dict[str, Any]:
    """What a process has noted of itself: pid, host, since when, and for which connection and database; empty where that cannot
    be read."""
    try:
        about = json.loads((folder / _LOCK).read_text())
    except (OSError, ValueError):
        return {}
    return about if isinstance(about, dict) else {}
