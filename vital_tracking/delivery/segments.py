"""The files of the spool: segments of frames in one folder a process, which a lock says is alive.

A process that lives holds the lock of its folder; whoever can take that lock has the folder of a dead one.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from vital_tracking.ids import new_id

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

CAN_LOCK: Final = fcntl is not None
"""Whether this system has the locks that tell the living from the dead; without them there is no spool."""

_LOCK: Final = "lock"
_SUFFIX: Final = ".segment"
_READ_BYTES: Final = 2 << 20


def _writer() -> Callable[[int, bytes, int], int]:
    """write(2) of the C library, called without letting go of the interpreter's lock.

    `os.write` lets go of it for each microsecond that the page cache takes, and has to wait for whatever thread computes
    meanwhile: up to 5 ms, on an event loop, for each call.
    """
    try:
        import ctypes

        write = ctypes.PyDLL(None, use_errno=True).write
        write.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t)
        write.restype = ctypes.c_ssize_t
    except (ImportError, OSError, AttributeError):
        return lambda fd, data, _size: os.write(fd, data)

    def written(fd: int, data: bytes, size: int) -> int:
        count: int = write(fd, data, size)
        if count < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        return count

    return written


_write: Final = _writer()


class Segment:
    """One file of frames that this process appends to or reads."""

    def __init__(self, path: Path, number: int, *, create: bool = False) -> None:
        self.path = path
        self.number = number
        self.opened = 0
        """Calls whose beginning lies here and whose end was not read yet."""
        self.torn = False
        self.fd = -1
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL if create else os.O_RDONLY
        self.fd = os.open(path, flags | getattr(os, "O_CLOEXEC", 0), 0o600)
        self.size = os.fstat(self.fd).st_size

    def __del__(self) -> None:
        # Never closed by hand while threads may write: one of them would write to whatever file took its number.
        self.let_go()

    def let_go(self) -> None:
        """Close the file; for when nobody else can use it."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):
                os.close(fd)

    def append(self, frame: bytes) -> None:
        """Append one frame in one write, which other threads' writes cannot come into. OSError where it does not fit."""
        size = len(frame)
        written = _write(self.fd, frame, size)
        self.size += written
        if written != size:
            self.torn = True
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def read(self, position: int) -> bytes:
        """Up to 2 MiB from a position on, which is more than the longest frame."""
        try:
            return os.pread(self.fd, _READ_BYTES, position)
        except OSError:  # somebody has closed all files of this process: what was written is there all the same
            fd = os.open(self.path, os.O_RDONLY)
            try:
                return os.pread(fd, _READ_BYTES, position)
            finally:
                os.close(fd)

    @property
    def bytes_written(self) -> int:
        """The size of the file as it is now."""
        return os.fstat(self.fd).st_size

    def sync(self) -> None:
        """Have what was written survive a power cut."""
        os.fsync(self.fd)

    def remove(self) -> None:
        """Delete the file; those who still have it open are not disturbed."""
        with contextlib.suppress(OSError):
            self.path.unlink()


class OwnerFolder:
    """The folder of one process, held by its lock until `let_go`."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    def create(cls, parent: Path, store: str) -> OwnerFolder:
        """A new folder of this process's own, for what goes to that store. OSError where that cannot be."""
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = parent / new_id()
        path.mkdir(mode=0o700)
        lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            about = {
                "store": store,
                "pid": os.getpid(),
                "host": socket.gethostname(),
                "since": datetime.now(UTC).isoformat(),
            }
            os.write(lock, json.dumps(about).encode())
        except BaseException:
            os.close(lock)
            raise
        return cls(path, lock)

    @classmethod
    def claim(cls, path: Path) -> OwnerFolder | None:
        """The folder of a dead process, for this one to deliver; None where its process lives or another one was first."""
        try:
            lock = os.open(path / _LOCK, os.O_RDWR | getattr(os, "O_CLOEXEC", 0))
        except OSError:
            return None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever had it before may have delivered and removed it between the two steps.
            if os.fstat(lock).st_nlink:
                return cls(path, lock)
        except OSError:
            pass
        os.close(lock)
        return None

    def remove(self) -> None:
        """Delete the folder with all that is in it, and let go."""
        with contextlib.suppress(OSError):
            for entry in list(self.path.iterdir()):
                if entry.name != _LOCK:
                    entry.unlink()
            (self.path / _LOCK).unlink()
            self.path.rmdir()
        self.let_go()

    def let_go(self) -> None:
        """Give up the lock: the folder is a dead process's from now on."""
        lock, self._lock = self._lock, -1
        if lock >= 0:
            with contextlib.suppress(OSError):
                os.close(lock)

    def segment_path(self, number: int) -> Path:
        """Where the segment of that number lies."""
        return self.path / f"{number:08d}{_SUFFIX}"


def segments_of(folder: Path) -> list[tuple[int, Path]]:
    """The segments in a folder with their numbers, oldest first."""
    found: list[tuple[int, Path]] = []
    with contextlib.suppress(OSError):
        found += [(int(path.stem), path) for path in folder.iterdir() if path.suffix == _SUFFIX and path.stem.isdigit()]
    return sorted(found)


def owners_in(folder: Path) -> list[Path]:
    """The folders of processes in the folder of one database, oldest first."""
    with contextlib.suppress(OSError):
        return sorted(path for path in folder.iterdir() if (path / _LOCK).exists())
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
    """What a process has said of itself: store, pid, host, and since when; empty where that cannot be read."""
    try:
        about = json.loads((folder / _LOCK).read_text())
    except (OSError, ValueError):
        return {}
    return about if isinstance(about, dict) else {}


def files_in(folder: Path) -> Iterator[os.stat_result]:
    """The size and age of every file in a spool, whoever wrote it."""
    for path, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # removed meanwhile
                yield os.stat(os.path.join(path, name))


def bytes_in(folder: Path) -> int:
    """What a spool takes up."""
    return sum(stat.st_size for stat in files_in(folder))
