"""A TCP proxy before a PostgreSQL: the network between a program and its database, as slow as a test wants it."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self


class SlowProxy:
    """Passes connections on to a port of this machine. `delay_s` is how long each request is under way."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._changed = threading.Condition()
        self._delay_s = 0.0
        self._closed = False
        self._sockets: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._listener.close()
        for one in list(self._sockets):
            _shut(one)

    @property
    def delay_s(self) -> float:
        """Seconds between a request's coming here and its going on."""
        return self._delay_s

    @delay_s.setter
    def delay_s(self, seconds: float) -> None:
        """Also lets go of requests that have been here for that long."""
        with self._changed:
            self._delay_s = seconds
            self._changed.notify_all()

    def url(self, database_url: str) -> str:
        """The URL of a database of that server by way of this proxy."""
        return database_url.replace(f":{self._target}/", f":{self.port}/")

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self._target))
                except OSError:
                    client.close()
                    continue
                self._sockets |= {client, server}
                for source, target, slow in ((client, server, True), (server, client, False)):
                    threading.Thread(target=self._pump, args=(source, target, slow), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, slow: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if slow:
                    self._wait()
                target.sendall(data)
        for one in (source, target):
            _shut(one)
            self._sockets.discard(one)

    def _wait(self) -> None:
        waited = 0.0
        with self._changed:
            while not self._closed and waited < self._delay_s:
                step = min(0.05, self._delay_s - waited)
                self._changed.wait(step)
                waited += step


def _shut(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
