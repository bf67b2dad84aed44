"""A web server that takes what apprise sends: alerts and reports."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from pydantic import SecretStr

SECRET: Final = "Geheim-7391"
"""Stands in every URL of such a server, and must stand nowhere else."""


class Hooks:
    """A web server that takes what is posted to it; it answers with the scripted statuses, then with 200, and can be held up."""

    def __init__(self) -> None:
        self.posts: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.statuses: list[int] = []
        self.open = threading.Event()
        self.open.set()
        hooks = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                hooks.posts.append(json.loads(body))
                hooks.paths.append(self.path)
                assert hooks.open.wait(30)
                self.send_response(hooks.statuses.pop(0) if hooks.statuses else 200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def url(self, name: str = "hook") -> SecretStr:
        return SecretStr(f"json://someone:{SECRET}@127.0.0.1:{self.server.server_port}/{SECRET}/{name}")

    def close(self) -> None:
        self.open.set()
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()
