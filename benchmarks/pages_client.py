"""Open pages, as browsers have them: each a session of its own that asks again every minute with the tag that it was given."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field

EVERY_S = 60
PATIENCE_S = 60


@dataclass
class OpenPage:
    """A page in somebody's browser. A browser keeps a page with its tag, so already the first refresh is conditional."""

    address: str
    cookie: str
    tag: str = ""


@dataclass
class Answers:
    """What came back: milliseconds by what was asked, how many answers had which status, bytes, and what went wrong."""

    ms: dict[str, list[float]] = field(default_factory=dict)
    statuses: Counter[int] = field(default_factory=Counter)
    size: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    late: list[float] = field(default_factory=list)

    def all_ms(self) -> list[float]:
        """Of all answers."""
        return [took for taken in self.ms.values() for took in taken]


async def ask(port: int, page: OpenPage) -> tuple[int, int]:
    """Status and bytes of an answer, over a connection of its own: after a minute none is open any more."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        tag = f"If-None-Match: {page.tag}\r\n" if page.tag else ""
        writer.write(
            (
                f"GET {page.address} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nCookie: {page.cookie}\r\nAccept: text/html\r\n"
                f"Accept-Encoding: gzip, deflate, br\r\nConnection: close\r\n{tag}\r\n"
            ).encode()
        )
        answer = await reader.read(-1)
    finally:
        writer.close()
    head = answer.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])}
    page.tag = headers.get("etag", page.tag)
    return int(head[0].split()[1]), len(answer)


async def keep_open(port: int, pages: list[OpenPage], for_s: float, answers: Answers, every_s: float = EVERY_S) -> None:
    """Ask for each page once a minute, or in another time, spread over it, for so long."""
    started = time.monotonic()
    await asyncio.gather(
        *(
            _keep_open(port, page, started + every_s * n / len(pages), started + for_s, answers, every_s)
            for n, page in enumerate(pages)
        )
    )


async def _keep_open(port: int, page: OpenPage, at: float, until: float, answers: Answers, every_s: float) -> None:
    while max(at, time.monotonic()) < until:
        await asyncio.sleep(max(0.0, at - time.monotonic()))
        begun = time.monotonic()
        answers.late.append((begun - at) * 1000)
        try:
            status, size = await asyncio.wait_for(ask(port, page), PATIENCE_S)
        except (OSError, TimeoutError, ValueError, IndexError) as error:
            answers.errors[type(error).__name__] += 1
        else:
            kind = page.address.partition("?")[0]
            answers.ms.setdefault(kind, []).append((time.monotonic() - begun) * 1000)
            answers.statuses[status] += 1
            answers.size += size
        at += every_s
