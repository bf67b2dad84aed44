"""A TCP proxy before a PostgreSQL that loses answers: the database has done what it was told, and nobody hears of it."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Literal

from tests.support.slow_proxy import SlowProxy, _shut

Answer = Literal["call", "commit"]


class FaultProxy(SlowProxy):
    """Passes connections on. `lose` cuts some of them right before an answer would go back to the client."""

    def __init__(self, port: int) -> None:
        self._marks = threading.Lock()
        self._words = b""
        self._to: Answer = "commit"
        self._left = 0
        self._asked: set[socket.socket] = set()
        self._doomed: set[socket.socket] = set()
        self.lost = 0
        """How many answers were lost."""
        super().__init__(port)

    def lose(self, count: int, words: bytes, to: Answer) -> None:
        """Lose the next answers to requests with such words, or to the commits that follow them."""
        with self._marks:
            self._words, self._to, self._left = words, to, count

    def _pump(self, source: socket.socket, target: socket.socket, slow: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if slow:
                    self._mark(source, data)
                    self._wait()
                elif target in self._doomed:
                    self.lost += 1
                    break
                target.sendall(data)
        for one in (source, target):
            _shut(one)
            self._sockets.discard(one)

    def _mark(self, client: socket.socket, data: bytes) -> None:
        """Note, before a request goes on, whether its answer is to be lost."""
        with self._marks:
            if self._left > 0 and self._words in data:
                self._asked.add(client)
            if self._left > 0 and client in self._asked and (self._to == "call" or b"COMMIT" in data):
                self._left -= 1
                self._doomed.add(client)
