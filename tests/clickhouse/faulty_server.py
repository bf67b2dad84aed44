"""A server that speaks ClickHouse's HTTP protocol, its errors too, before the real engine in this process."""

from __future__ import annotations

import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import lz4.frame

from vital_tracking.clickhouse.client import ClickHouse
from vital_tracking.clickhouse.schema import input_table
from vital_tracking.stores.relations import CALLS

CANARY = "canary-user-4711"
OF_VIEWS = ("deduplicate_blocks_in_dependent_materialized_views", "materialized_views_ignore_errors")
"""What an insert asks of the views that its rows go through; servers and users may have other defaults."""


class Fault(NamedTuple):
    """How an insert of calls is answered: with an error of ClickHouse or of a proxy before it, or by hanging up; `stored`: after
    the rows were stored all the same."""

    status: int = 0
    code: int | None = None
    name: str = ""
    stored: bool = False


class FaultyServer(ThreadingHTTPServer):
    """Answers inserts of calls with its faults, one after the other; everything else goes to the engine."""

    daemon_threads = True

    def __init__(self, engine: ClickHouse) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.engine = engine
        self.faults: list[Fault] = []
        self.tokens: list[str] = []
        self.views: set[tuple[str | None, ...]] = set()
        self.version: str | None = None
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """Its address, with a password that must be told nowhere."""
        return f"http://writer:{CANARY}@127.0.0.1:{self.server_port}/{self.engine.address.database}"


class _Handler(BaseHTTPRequestHandler):
    server: FaultyServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        """Answer a statement, or take rows in."""
        body = self._body()
        asked = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        text = asked.get("query") or ""
        if not text:
            found = re.match(rb"(?s)(insert into .*? format tabseparated)\n", body, re.IGNORECASE)
            text, body = (found[1].decode(), body[found.end() :]) if found else (body.decode(), b"")
        if (insert := re.match(r"(?is)insert into (\S+) \((.*)\)\s+format", text)) is not None:
            self._insert(insert[1].strip("`"), insert[2].replace("`", "").replace(" ", "").split(","), body, asked)
            return
        client = self.server.engine._connect()
        client.database = asked.get("database")
        if self.server.version:
            text = re.sub(r"(?i)\bversion\(\)", f"'{self.server.version}'", text)
        form = re.search(r"(?i)\bformat (\w+)\s*$", text)
        parameters = {name.removeprefix("param_"): asked[name] for name in asked if name.startswith("param_")}
        text = re.sub(r"(?i)\bformat \w+\s*$", "", text)
        settings = {name: asked[name] for name in asked if name in {"max_query_size"}}
        self._answer(200, client.raw_query(text, parameters, settings, fmt=form[1] if form else "TabSeparated"))

    def _insert(self, table: str, columns: list[str], rows: bytes, asked: dict[str, str]) -> None:
        token = asked["insert_deduplication_token"]
        fault = None
        if table == input_table(CALLS):
            self.server.tokens.append(token)
            self.server.views.add(tuple(asked.get(name) for name in OF_VIEWS))
            fault = self.server.faults.pop(0) if self.server.faults else None
        if fault is None or fault.stored:
            self.server.engine.insert(table, columns, rows, token=token)
        if fault is None:
            self._answer(200, b"")
        elif fault.status == 0:
            self.close_connection = True
            self.connection.close()
        else:
            said = (
                f"Code: {fault.code}. DB::Exception: Cannot parse: {CANARY}. ({fault.name}) (version 26.9)"
                if fault.code
                else CANARY
            )
            self._answer(fault.status, said.encode(), fault.code)

    def _body(self) -> bytes:
        body = b""
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return lz4.frame.decompress(body) if self.headers.get("Content-Encoding") == "lz4" else body

    def _answer(self, status: int, body: bytes, code: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-ClickHouse-Format", "Native")
        if code is not None:
            self.send_header("X-ClickHouse-Exception-Code", str(code))
        self.end_headers()
        self.wfile.write(body)
