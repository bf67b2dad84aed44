"""The text of a log in blocks of whole lines: plain, gzip or from a pipe, in as much memory as a block takes."""

from __future__ import annotations

import gzip
import os
import sys
import zlib
from io import BufferedReader
from pathlib import Path
from typing import Final, NamedTuple, cast

from vital_tracking.errors import VitalError

BLOCK: Final = 1 << 20
"""Bytes that are read at once."""

LONGEST_LINE: Final = 1 << 16
"""Bytes of the longest line that is looked at; a longer one is bad, and takes no memory."""

HEAD: Final = 4096
"""Bytes from the beginning of a log by which it is known."""

_GZIP: Final = b"\x1f\x8b"


class TooLong(NamedTuple):
    """Stands for a line that was too long to keep."""

    length: int


class Block(NamedTuple):
    """Lines that follow each other, without their ends, and where in the text the first one begins and the next block does.

    `ended` is false of the last line of a log where it has no end.
    """

    place: int
    end: int
    lines: list[bytes | TooLong]
    ended: bool = True


class LogText:
    """A log that is read from its beginning or from a place in it: a number of bytes of its text, uncompressed.

    `path` is a file, or `-` for the standard input; `live` hands on what a pipe holds at once instead of waiting for a whole
    block. Raises VitalError where it cannot be opened; what becomes unreadable later says so in `fault`.
    """

    def __init__(self, path: str, *, live: bool = False) -> None:
        self.path = path
        self.name = "standard input" if path == "-" else Path(path).name
        self.fault: str | None = None
        self.closed = False
        self._live = live and path == "-"
        try:
            self._raw = cast("BufferedReader", sys.stdin.buffer) if path == "-" else open(path, "rb")  # noqa: SIM115 - close() closes it
            self.compressed = self._raw.peek(len(_GZIP))[: len(_GZIP)] == _GZIP
        except OSError as error:
            raise VitalError(f"{path} cannot be read: {error.strerror}.") from None
        self._text = cast("BufferedReader", gzip.GzipFile(fileobj=self._raw)) if self.compressed else self._raw
        self.head = self._read(HEAD)
        self._rest = self.head
        self._place = 0
        self._too_long = 0

    @property
    def is_file(self) -> bool:
        """Whether it is a plain file, which may grow."""
        return self.path != "-" and not self.compressed

    @property
    def size(self) -> int | None:
        """Bytes of the file; None of a pipe."""
        return None if self.path == "-" else os.fstat(self._raw.fileno()).st_size

    @property
    def seen(self) -> int:
        """Bytes that were read of the file as it lies there; of a pipe, of its text."""
        return self._place + len(self._rest) if self.path == "-" else self._raw.tell()

    @property
    def unfinished(self) -> bool:
        """Whether its last line has no end yet."""
        return bool(self._rest or self._too_long)

    def go_to(self, place: int) -> None:
        """Go on from a place at which a line begins. To be called before anything is read."""
        if self.is_file:
            self._raw.seek(place)
            self._rest = b""
        left = 0 if self.is_file else place
        while left > 0:
            passed, self._rest = self._rest[:left] or self._read(min(left, BLOCK)), self._rest[left:]
            if not passed:
                break
            left -= len(passed)
        self._place = place

    def next(self) -> Block | None:
        """The next lines; None where there are none for now, or none any more."""
        while True:
            chunk = self._read(BLOCK)
            text = self._rest + chunk if self._rest else chunk
            cut = text.find(b"\n") if self._too_long else text.rfind(b"\n")
            if cut >= 0:
                lines: list[bytes | TooLong] = [*text[:cut].split(b"\n")]
                if self._too_long:
                    lines = [TooLong(self._too_long + cut)]
                return self._block(lines, self._too_long + cut + 1, text[cut + 1 :])
            if self._too_long or len(text) > LONGEST_LINE:
                self._too_long += len(text)
                text = b""
            self._rest = text
            if not chunk:
                return None

    def rest(self) -> Block | None:
        """The last line where it has no end; None where there is none."""
        length = self._too_long or len(self._rest)
        if not length:
            return None
        return self._block([TooLong(length) if self._too_long else self._rest], length, b"")._replace(ended=False)

    def _block(self, lines: list[bytes | TooLong], length: int, rest: bytes) -> Block:
        block = Block(self._place, self._place + length, lines)
        self._place, self._rest, self._too_long = block.end, rest, 0
        return block

    def was_replaced(self) -> bool:
        """Whether its path leads to another file by now, or the file was emptied and begun anew."""
        try:
            now = Path(self.path).stat()
        except FileNotFoundError:  # renamed, and the new one is not there yet
            return False
        mine = os.fstat(self._raw.fileno())
        return (now.st_dev, now.st_ino) != (mine.st_dev, mine.st_ino) or now.st_size < self._place

    def close(self) -> None:
        """Close the file."""
        self.closed = True
        if self.path != "-":
            self._raw.close()

    def _read(self, most: int) -> bytes:
        pieces: list[bytes] = []
        left = most
        try:
            while left > 0 and (piece := self._text.read1(left)):
                pieces.append(piece)
                left -= len(piece)
                if self._live:
                    break
        except (EOFError, OSError, zlib.error) as error:
            what = "is not a whole gzip file" if self.compressed else "cannot be read further"
            self.fault = f"{self.name} {what} ({type(error).__name__})"
        return b"".join(pieces)
