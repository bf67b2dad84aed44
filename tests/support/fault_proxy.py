"""A TCP proxy before a PostgreSQL that loses requests, or answers: then the database has done it, and nobody hears of it."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Literal

from tests.support.slow_proxy import SlowProxy, _shut

Lost = Literal["request", "answer"]


class FaultProxy(SlowProxy):
    """Passes connections on. `lose` cuts some of them before a request goes on, or right before its answer would go back."""

    def __init__(self, port: int) -> None:
        self._marks = threading.Lock()
        self._words = b""
        self._what: Lost = "answer"
        self._left = 0
        self._doomed: set[socket.socket] = set()
        self.lost = 0
        """How many were lost."""
        super().__init__(port)

    def lose(self, count: int, words: bytes, what: Lost) -> None:
        """Lose the next requests with such words, or the answers to them."""
        with self._marks:
            self._words, self._what, self._left = words, what, count

    def _pump(self, source: socket.socket, target: socket.socket, slow: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if slow:
                    doomed = self._is_doomed(source, data)
                    self._wait()
                else:
                    doomed = target in self._doomed
                if doomed:
                    self.lost += 1
                    break
                target.sendall(data)
        for one in (source, target):
            _shut(one)
            self._sockets.discard(one)

    def _is_doomed(self, client: socket.socket, data: bytes) -> bool:
        """Whether a request is to be lost; where its answer is, that is noted before it goes on."""
        with self._marks:
            if self._left == 0 or self._words not in data:
                return False
            self._left -= 1
            if self._what == "answer":
                self._doomed.add(client)
            return self._what == "request"
