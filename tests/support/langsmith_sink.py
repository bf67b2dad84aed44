"""A local server that takes whatever LangSmith's client sends, and keeps it."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import langsmith.utils

from vital_tracking.calls import attribution


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def answer(self) -> None:
        self.server.received.append(self.rfile.read(int(self.headers.get("content-length") or 0)))
        self.send_response(202)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    do_GET = do_POST = do_PATCH = answer  # noqa: N815 (named so by the base class)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (named so by the base class)
        """Keep the output of the tests quiet."""


class _Server(ThreadingHTTPServer):
    def __init__(self) -> None:
        self.received: list[bytes] = []
        super().__init__(("127.0.0.1", 0), _Handler)


class LangSmithSink:
    """The server, at `url`; what it was sent is in `received`."""

    def __init__(self) -> None:
        self._server = _Server()
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        self.received = self._server.received
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def forget_environment() -> None:
    """Have LangSmith, and ours, read the environment anew."""
    langsmith.utils.get_env_var.cache_clear()  # type: ignore[attr-defined]
    langsmith.utils.get_tracer_project.cache_clear()
    attribution._project = (float("-inf"), None)
