"""By what a log is known, and the ids of its lines: the same however often and under whichever name it is read.

A log is known by how it begins: by the hash of its first lines, up to 4 KiB. While it is shorter than that the hash is one of
the lines that there are, and becomes one of more as it grows. Addresses are left out of what is hashed, since the hash
of one line could be tried out for all of them.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable
from datetime import datetime
from typing import Final

from vital_tracking.imports.log_text import HEAD, Block

_ADDRESS: Final = re.compile(
    rb"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|(?=[0-9a-fA-F:.]*::|(?:[0-9a-fA-F]{1,4}:){7})[0-9a-fA-F:.]+)(?![\w.:])"
)
_PLACE_BITS: Final = 40


class Beginning:
    """How a log begins. `head` is the first of its text, as much as there is of 4 KiB; it grows as more of the log is read.

    `database_id` keys the hashes, and `server` tells logs apart that begin alike. Of a log that is `complete` a single line
    counts without its end, too.
    """

    def __init__(self, head: bytes, *, database_id: str, server: str | None, complete: bool) -> None:
        self._head = head
        self._complete = complete
        self._key = database_id.encode()
        self._server = (server or "").encode()

    def extend(self, block: Block) -> None:
        """Tell it what stands in the log, in case it has not seen that much yet."""
        if block.ended and block.place <= len(self._head) < HEAD and isinstance(block.lines[0], bytes):
            text = b"".join(line + b"\n" for line in block.lines[:HEAD] if isinstance(line, bytes))
            self._head = (self._head[: block.place] + text)[:HEAD]

    def hashes(self) -> list[str]:
        """The hashes of its first line, of its first two and so on; of one that has no end within 4 KiB, of these."""
        if b"\n" not in self._head and len(self._head) < HEAD and not (self._complete and self._head):
            return []
        return [digest for _, digest in self._cuts()]

    def hash_at(self, place: int) -> str:
        """The hash of its lines up to a place, where a line ends, or up to 4 KiB."""
        cuts = self._cuts()
        return max((cut for cut in cuts if cut[0] <= place), default=cuts[0])[1]

    def _cuts(self) -> list[tuple[int, str]]:
        digest = hmac.new(self._key, self._server + b"\n", hashlib.sha256)
        found, place = [], 0
        *lines, rest = self._head.split(b"\n")
        for line in lines or [rest]:
            digest.update(_ADDRESS.sub(b"", line) + b"\n")
            place += len(line) + 1
            found.append((place, digest.hexdigest()[:32]))
        return found


def line_ids(file_key: str, *, of: str = "") -> Callable[[datetime, int], str]:
    """What gives the line at a place its id: a UUIDv8 that begins with the line's time, as a UUIDv7 does.

    It holds 34 bits of the log's key, and 40 of the line's place in it. `of` tells several rows of one line apart.
    """
    key = int(file_key, 16)
    if of:
        key ^= int.from_bytes(hashlib.sha256(of.encode()).digest()[:8], "big")
    version, variant = 8 << 76, 2 << 62
    of_file = version | (key >> 22 & 0xFFF) << 64 | variant | (key & 0x3FFFFF) << _PLACE_BITS
    places = (1 << _PLACE_BITS) - 1

    def line_id(moment: datetime, place: int) -> str:
        return f"{int(moment.timestamp() * 1000) << 80 | of_file | place & places:032x}"

    return line_id
