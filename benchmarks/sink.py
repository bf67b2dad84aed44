"""A local server, in a process of its own, that takes what LangSmith's, Langfuse's and OpenTelemetry's exporters send.

It answers as theirs do, and keeps what comes in a file until it is asked what it was: nothing is looked into while a benchmark
measures.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import multiprocessing
import re
import tempfile
import threading
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import IO, Any, Final

# As api.smith.langchain.com has it: runs come as compressed multipart.
_LANGSMITH_INFO: Final = {
    "version": "0.13.0",
    "instance_flags": {"zstd_compression_enabled": True},
    "batch_ingest_config": {
        "use_multipart_endpoint": True,
        "scale_up_qsize_trigger": 1000,
        "scale_up_nthreads_limit": 16,
        "scale_down_nempty_trigger": 4,
        "size_limit": 100,
        "size_limit_bytes": 20_971_520,
    },
}

# What says that a span is that of a call to a model.
_CALL_MARKS: Final = {("langfuse.observation.type", "generation"), ("openinference.span.kind", "LLM")}

Counts = dict[str, int]


def _runs(body: bytes, content_type: str) -> Counts:
    """Runs that begin and calls that have ended, in LangSmith's multipart."""
    boundary = content_type.partition("boundary=")[2].strip('"').encode()
    counts: Counter[str] = Counter()
    for part in body.split(b"--" + boundary):
        head, _, content = part.partition(b"\r\n\r\n")
        named = re.search(rb'name="(post|patch)\.[0-9a-f-]+"', head)
        if named:
            run = json.loads(content)
            counts["items"] += named[1] == b"post"
            counts["calls"] += run["run_type"] == "llm" and bool(run.get("end_time"))
    return counts


def _spans(body: bytes, content_type: str) -> Counts:
    """Spans, and calls among them, in OpenTelemetry's protocol."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    counts: Counter[str] = Counter()
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                counts["items"] += 1
                counts["calls"] += any((one.key, one.value.string_value) in _CALL_MARKS for one in span.attributes)
    return counts


_READERS: Final[dict[str, tuple[str, Callable[[bytes, str], Counts]]]] = {
    "/runs/multipart": ("LangSmith", _runs),
    "/api/public/otel/v1/traces": ("Langfuse", _spans),
    "/v1/traces": ("OpenInference", _spans),
}


class _Kept:
    """What has come, in a file that has no name."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile(prefix="vital-sink-")  # noqa: SIM115 - as long as the sink
        self._bodies: list[tuple[str, str, str, int]] = []
        self._lock = threading.Lock()
        self._counts: dict[str, Counter[str]] = {}

    def add(self, path: str, encoding: str, content_type: str, body: bytes) -> None:
        with self._lock:
            self._file.write(body)
            self._bodies.append((path, encoding, content_type, len(body)))

    def counts(self) -> dict[str, Counts]:
        """By who sent it: requests, bytes, items (runs or spans) and calls."""
        with self._lock:
            self._file.seek(0)
            for path, encoding, content_type, size in self._bodies:
                body = self._file.read(size)
                who, read = _READERS.get(path, (path, lambda *_: {}))
                counts = self._counts.setdefault(who, Counter())
                counts.update({"requests": 1, "bytes": size, **read(_decoded(body, encoding), content_type)})
            self._bodies.clear()
            self._file.seek(0)
            self._file.truncate()
            return {who: dict(counts) for who, counts in self._counts.items()}


def _decoded(body: bytes, encoding: str) -> bytes:
    if encoding == "gzip":
        return gzip.decompress(body)
    if encoding == "zstd":
        import zstandard

        with zstandard.ZstdDecompressor().stream_reader(body, read_across_frames=True) as stream:
            return stream.read()
    return body


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.kept = _Kept()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Somebody has not waited for the answer."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections are kept
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        if self.path == "/received":
            self._answer(200, "application/json", json.dumps(self.server.kept.counts()).encode())
        else:
            self._answer(200, "application/json", json.dumps(_LANGSMITH_INFO if self.path == "/info" else {}).encode())

    def do_POST(self) -> None:
        headers = self.headers
        body = self._chunks() if headers.get("Transfer-Encoding") else self.rfile.read(int(headers["Content-Length"]))
        self.server.kept.add(self.path, headers.get("Content-Encoding", ""), headers.get("Content-Type", ""), body)
        if self.path.endswith("/v1/traces"):
            self._answer(200, "application/x-protobuf", b"")  # an empty ExportTraceServiceResponse
        else:
            self._answer(202, "application/json", b"{}")

    def _chunks(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Nobody wants to know."""


def _serve(pipe: Any) -> None:
    server = _Server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    pipe.send(server.server_port)
    with contextlib.suppress(EOFError):
        pipe.recv()  # until the other end is closed


@contextlib.contextmanager
def a_sink() -> Iterator[str]:
    """Its address."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
    theirs.close()
    try:
        yield f"http://127.0.0.1:{ours.recv()}"
    finally:
        ours.close()
        process.join(10)


def received(sink: str, who: str) -> Counts:
    """What has come from them so far: requests, bytes, items (runs or spans), calls."""
    with urllib.request.urlopen(f"{sink}/received") as answer:
        counts: dict[str, Counts] = json.load(answer)
    return {"requests": 0, "bytes": 0, "items": 0, "calls": 0, **counts.get(who, {})}
