"""The files of the spool: segments of log records, in a folder for each process.

A living process holds the lock of its folder; whoever can take that lock knows that the folder's process is dead.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

CAN_LOCK: Final = fcntl is not None
"""Whether this system has the locks that tell the living from the dead; without them there is no spool."""

PASSING: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR, errno.EAGAIN})
"""Errors with which a file cannot be read now, but perhaps later; after any other it counts as damaged."""

_SUFFIX: Final = ".segment"
LONGEST_READ: Final = 2 << 20
"""Bytes that are read at once where a record does not fit into less."""


@functools.cache
def _writer() -> Callable[[int, bytes, int], int]:
    """write(2) of the C library, called without letting go of the interpreter's lock.

    `os.write` lets go of it for the microsecond that the page cache takes, and then has to wait for a thread that computes
    meanwhile: up to 5 ms, on an event loop, for each call. It is used only after a failure, to learn the reason.
    """
    try:
        import ctypes

        return ctypes.PyDLL(None).write
    except (ImportError, OSError, AttributeError):
        return lambda fd, data, _size: os.write(fd, data)


class Segment:
    """One file of log records that this process appends to or reads."""

    def __init__(self, path: Path, number: int, *, create: bool = False) -> None:
        self.path = path
        self.number = number
        self.opened: set[bytes] = set()
        """Calls whose beginning lies here and whose end was not read yet."""
        self.torn = False
        self.fd = -1
        self._write = _writer()
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL if create else os.O_RDONLY
        self.fd = os.open(path, flags | getattr(os, "O_CLOEXEC", 0), 0o600)
        self._identity = _identity(self.fd)
        self.size = os.fstat(self.fd).st_size
        self.passed = 0
        """How far it was read when it was left for the next one."""

    def __del__(self) -> None:
        # Never closed while threads may still write: they would write to whatever file gets its number next.
        self.let_go()

    def let_go(self) -> None:
        """Close the file; only where no other thread can use it."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            _close_ours(fd, self._identity)

    def append(self, record: bytes) -> None:
        """Append one record in one write, which other threads' writes cannot come into. OSError where it does not fit."""
        size = len(record)
        written = self._write(self.fd, record, size)
        if written < 0:
            written = os.write(self.fd, record)
        self.size += written
        if written != size:
            self.torn = True
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def read(self, position: int, size: int = LONGEST_READ) -> bytes:
        """Up to `size` bytes from a position on, by default more than the longest record has."""
        if _is_ours(self.fd, self._identity):
            return os.pread(self.fd, size, position)
        # The application has closed all files of this process: what was written is there all the same.
        fd = os.open(self.path, os.O_RDONLY)
        try:
            return os.pread(fd, size, position)
        finally:
            os.close(fd)

    @property
    def bytes_written(self) -> int:
        """The size of the file as it is now."""
        with contextlib.suppress(OSError):
            return os.fstat(self.fd).st_size if _is_ours(self.fd, self._identity) else self.path.stat().st_size
        return self.size

    @property
    def is_lost(self) -> bool:
        """Whether the file was deleted or closed by somebody else: the next process would not find what is appended."""
        return not _is_ours(self.fd, self._identity) or not os.fstat(self.fd).st_nlink

    def was_read(self, record: bytes) -> bool:
        """Whether a record lies in what was read of this file before it was left."""
        try:
            return record in os.pread(self.fd, self.passed, 0) if _is_ours(self.fd, self._identity) else False
        except OSError:
            return False

    def sync(self) -> None:
        """Have what was written survive a power cut."""
        os.fsync(self.fd)

    def remove(self) -> None:
        """Delete the file; those who still have it open are not disturbed."""
        with contextlib.suppress(OSError):
            self.path.unlink()


# An application that closes all file descriptors closes ours too, and the next files it opens get the same numbers. Device and
# inode tell most of them apart; those of a deleted file are soon used again, so we also count which opening a number belongs to.
_numbers: Final = itertools.count()
_openers: Final[dict[int, int]] = {}


def _identity(fd: int) -> tuple[int, int, int]:
    """By what a file that was opened just now is recognised later."""
    stat = os.fstat(fd)
    number = _openers[fd] = next(_numbers)
    return stat.st_dev, stat.st_ino, number


def _is_ours(fd: int, identity: tuple[int, int, int]) -> bool:
    """Whether an open file is still the one that was opened."""
    try:
        stat = os.fstat(fd)
    except OSError:
        return False
    return (stat.st_dev, stat.st_ino, _openers.get(fd)) == identity


def _close_ours(fd: int, identity: tuple[int, int, int]) -> None:
    if _is_ours(fd, identity):
        with contextlib.suppress(OSError):
            os.close(fd)


def segments_of(folder: Path) -> list[tuple[int, Path]]:
    """The segments in a folder with their numbers, oldest first."""
    found: list[tuple[int, Path]] = []
    with contextlib.suppress(OSError):
        found += [(int(path.stem), path) for path in folder.iterdir() if path.suffix == _SUFFIX and path.stem.isdigit()]
    return sorted(found)


def files_in(folder: Path) -> Iterator[os.stat_result]:
    """The size and age of every file in a spool but dead letters, whoever wrote it."""
    for path, _, names in os.walk(folder):
        for name in names:
            if name.startswith("rejected"):
                continue  # dead letters have a limit of their own
            with contextlib.suppress(OSError):  # removed meanwhile
                yield os.stat(os.path.join(path, name))


def bytes_in(folder: Path) -> int:
    """What a spool takes up."""
    return sum(stat.st_size for stat in files_in(folder))
