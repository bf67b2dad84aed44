"""A local HTTP server that answers every request with the bytes a test gives it, as a provider would have sent them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True)
class WireRequest:
    """A request that the server received."""

    path: str
    body: Json


@dataclass(frozen=True)
class WireAnswer:
    """What the server sends back, byte by byte; it announces `missing` bytes more than it sends, and then hangs up."""

    content: bytes
    content_type: str = "application/json"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    missing: int = 0


def as_json(body: object, status: int = 200) -> WireAnswer:
    """A JSON document."""
    return WireAnswer(json.dumps(body).encode(), status=status)


def as_events(events: Iterable[Json], *, named: bool = False, done: bool = False) -> WireAnswer:
    """Server-sent events; `named` writes each event's `type` as its name, `done` ends them with OpenAI's `[DONE]`."""
    lines = [(f"event: {event['type']}\n" if named else "") + f"data: {json.dumps(event)}\n\n" for event in events]
    return WireAnswer("".join([*lines, "data: [DONE]\n\n" if done else ""]).encode(), "text/event-stream")


def as_lines(documents: Iterable[Json]) -> WireAnswer:
    """JSON documents, one a line."""
    return WireAnswer("".join(json.dumps(document) + "\n" for document in documents).encode(), "application/x-ndjson")


class WireServer:
    """Serves on a free port of the loopback while it is open; `answer` makes the answer to each request."""

    def __init__(self, answer: Callable[[WireRequest], WireAnswer]) -> None:
        self.answer = answer
        self.requests: list[WireRequest] = []
        server = self

        class _Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers.get("content-length") or 0))
                request = WireRequest(self.path, json.loads(content) if content else {})
                server.requests.append(request)
                reply = server.answer(request)
                self.send_response(reply.status)
                self.send_header("connection", "close")  # so that no client is left with an open socket
                self.send_header("content-type", reply.content_type)
                self.send_header("content-length", str(len(reply.content) + reply.missing))
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(reply.content)

            do_GET = do_POST  # noqa: N815 - the name that http.server asks for

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> WireServer:
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._http.server_close()
