"""A local HTTP server for tests which speaks the wire formats of OpenAI and Anthropic.

The real LangChain integrations talk to it, so what a test sees of usage, streaming, errors and cancellation is
what those integrations make of real HTTP answers. One `Reply` means the same thing in every format: its
`input_tokens` include cached and cache-written tokens, and its `output_tokens` include reasoning tokens.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import socket
import struct
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from langchain_anthropic import ChatAnthropic
    from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings

Json = dict[str, Any]
_IDS = itertools.count(1)  # Unique in the process, so that answers of two servers never share an id.
_OPENAI_ERRORS = {401: "invalid_api_key", 404: "model_not_found", 429: "rate_limit_exceeded"}
_ANTHROPIC_ERRORS = {
    400: "invalid_request_error", 401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error",
    500: "api_error", 529: "overloaded_error",
}  # fmt: skip
_ANTHROPIC_STOPS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}


@dataclass(frozen=True)
class Reply:
    """What the server answers to one request."""

    text: str = "Hello there."
    input_tokens: int = 100
    output_tokens: int = 20
    cached_tokens: int = 0  # Part of input_tokens.
    cache_write_tokens: int = 0  # Part of input_tokens.
    cache_write_1h_tokens: int = 0  # Part of cache_write_tokens.
    reasoning_tokens: int = 0  # Part of output_tokens.
    audio_input_tokens: int = 0
    audio_output_tokens: int = 0
    model: str | None = None  # None: the model of the request.
    tool_calls: list[tuple[str, Json]] = field(default_factory=list)
    status: int = 200
    error_type: str | None = None
    error_message: str = "This failure was scripted."
    delay_s: float = 0.0
    finish_reason: str | None = None  # In OpenAI's words (translated for Anthropic), or anything else verbatim.
    omit_usage: bool = False
    raw_usage: Json | None = None  # Sent as it is in place of the usage object.
    chunks: int | None = None  # Text chunks of a stream; None: one per word.
    stall_after_chunks: int | None = None  # A stream blocks here until `release` is set.
    hang: bool = False  # Any request blocks before its answer until `release` is set.

    def __post_init__(self) -> None:
        if self.cached_tokens + self.cache_write_tokens > self.input_tokens:
            raise ValueError("cached_tokens + cache_write_tokens exceed input_tokens")
        if self.cache_write_1h_tokens > self.cache_write_tokens:
            raise ValueError("cache_write_1h_tokens exceed cache_write_tokens")
        if self.chunks is not None and not 0 < self.chunks <= len(self.text):
            raise ValueError("chunks must be between 1 and the length of the text")

    def pieces(self) -> list[str]:
        """The text as the chunks of a stream."""
        if self.chunks is None:
            words = self.text.split(" ")
            return [f"{word} " for word in words[:-1]] + words[-1:] if self.text else []
        cuts = [len(self.text) * i // self.chunks for i in range(self.chunks + 1)]
        return [self.text[start:end] for start, end in itertools.pairwise(cuts)]

    def finish(self) -> str:
        return self.finish_reason or ("tool_calls" if self.tool_calls else "stop")

    def usage(self, reported: Json) -> Json | None:
        return None if self.omit_usage else reported if self.raw_usage is None else self.raw_usage


@dataclass(frozen=True)
class Request:
    """A request which the server received; the names of headers are in lower case."""

    path: str
    body: Json
    headers: dict[str, str]


def _id(prefix: str) -> str:
    return f"{prefix}{next(_IDS):016d}"


def _totals(reply: Reply) -> Json:
    total = reply.input_tokens + reply.output_tokens
    return {"prompt_tokens": reply.input_tokens, "completion_tokens": reply.output_tokens, "total_tokens": total}


def _chat_usage(reply: Reply) -> Json:
    prompt = {"cached_tokens": reply.cached_tokens, "audio_tokens": reply.audio_input_tokens}
    if reply.cache_write_tokens:
        prompt["cache_write_tokens"] = reply.cache_write_tokens
    completion = {
        "reasoning_tokens": reply.reasoning_tokens, "audio_tokens": reply.audio_output_tokens,
        "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0,
    }  # fmt: skip
    return {**_totals(reply), "prompt_tokens_details": prompt, "completion_tokens_details": completion}


def _calls(reply: Reply) -> list[Json]:
    return [
        {"id": _id("call_"), "type": "function", "function": {"name": name, "arguments": json.dumps(args)}}
        for name, args in reply.tool_calls
    ]


def _with_usage(answer: Json, usage: Json | None) -> Json:
    return answer if usage is None else {**answer, "usage": usage}


def _stream_usage(body: Json, head: Json, usage: Json | None) -> tuple[Json, list[Json]]:
    """What every chunk of an OpenAI stream carries, and the chunk with the usage where the client asked for it."""
    if usage is None or not (body.get("stream_options") or {}).get("include_usage"):
        return head, []
    return {**head, "usage": None}, [{**head, "choices": [], "usage": usage}]


def _chat_head(kind: str, model: str) -> Json:
    head = {"id": _id("chatcmpl-"), "object": kind, "created": 1_700_000_000, "model": model}
    return {**head, "service_tier": "default", "system_fingerprint": "fp_test"}


def _chat(body: Json, reply: Reply, model: str) -> Json:
    message: Json = {"role": "assistant", "content": reply.text or None, "refusal": None}
    choices = [
        {
            "index": index, "logprobs": None, "finish_reason": reply.finish(),
            "message": {**message, "tool_calls": _calls(reply)} if reply.tool_calls else message,
        }
        for index in range(body.get("n") or 1)
    ]  # fmt: skip
    return _with_usage({**_chat_head("chat.completion", model), "choices": choices}, reply.usage(_chat_usage(reply)))


def _chat_stream(body: Json, reply: Reply, model: str, pieces: Iterable[str]) -> Iterator[Json]:
    head, last = _stream_usage(body, _chat_head("chat.completion.chunk", model), reply.usage(_chat_usage(reply)))

    def every_choice(delta: Json, finish: str | None = None) -> Iterator[Json]:
        for index in range(body.get("n") or 1):
            choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
            yield {**head, "choices": [choice]}

    yield from every_choice({"role": "assistant", "content": ""})
    for piece in pieces:
        yield from every_choice({"content": piece})
    for index, call in enumerate(_calls(reply)):
        arguments = call["function"]["arguments"]
        opening = {**call, "index": index, "function": {**call["function"], "arguments": ""}}
        yield from every_choice({"tool_calls": [opening]})
        for part in (arguments[:1], arguments[1:]):
            yield from every_choice({"tool_calls": [{"index": index, "function": {"arguments": part}}]})
    yield from every_choice({}, reply.finish())
    yield from last


def _completion(body: Json, reply: Reply, model: str) -> Json:
    prompts = len(body["prompt"]) if isinstance(body.get("prompt"), list) else 1
    choices = [
        {"index": index, "text": reply.text, "logprobs": None, "finish_reason": reply.finish()}
        for index in range(prompts * (body.get("n") or 1))
    ]
    answer = {"id": _id("cmpl-"), "object": "text_completion", "created": 1_700_000_000, "model": model}
    return _with_usage({**answer, "choices": choices}, reply.usage(_totals(reply)))


def _completion_stream(body: Json, reply: Reply, model: str, pieces: Iterable[str]) -> Iterator[Json]:
    head = {"id": _id("cmpl-"), "object": "text_completion", "created": 1_700_000_000, "model": model}
    head, last = _stream_usage(body, head, reply.usage(_totals(reply)))
    for text, finish in itertools.chain(zip(pieces, itertools.repeat(None)), [("", reply.finish())]):
        for index in range(body.get("n") or 1):
            yield {**head, "choices": [{"index": index, "text": text, "logprobs": None, "finish_reason": finish}]}
    yield from last


def _embeddings(body: Json, reply: Reply, model: str) -> Json:
    given = body.get("input")
    inputs = len(given) if isinstance(given, list) and not (given and isinstance(given[0], int)) else 1
    data: list[Json] = []
    for index in range(inputs):
        vector = [(index + 1) / 2**place for place in range(1, (body.get("dimensions") or 8) + 1)]
        packed = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
        embedding = packed if body.get("encoding_format") == "base64" else vector
        data.append({"object": "embedding", "index": index, "embedding": embedding})
    usage = {"prompt_tokens": reply.input_tokens, "total_tokens": reply.input_tokens}
    return _with_usage({"object": "list", "data": data, "model": model}, reply.usage(usage))


def _response(body: Json, reply: Reply, model: str) -> Json:
    usage = {
        "input_tokens": reply.input_tokens,
        "input_tokens_details": {"cached_tokens": reply.cached_tokens, "cache_write_tokens": reply.cache_write_tokens},
        "output_tokens": reply.output_tokens,
        "output_tokens_details": {"reasoning_tokens": reply.reasoning_tokens},
        "total_tokens": reply.input_tokens + reply.output_tokens,
    }
    part = {"type": "output_text", "text": reply.text, "annotations": [], "logprobs": []}
    message = {"id": _id("msg_"), "type": "message", "role": "assistant", "status": "completed", "content": [part]}
    calls = [
        {"id": _id("fc_"), "type": "function_call", "status": "completed", "call_id": call["id"], **call["function"]}
        for call in _calls(reply)
    ]
    cut = {"length": "max_output_tokens", "content_filter": "content_filter"}.get(reply.finish())
    return {
        "id": _id("resp_"), "object": "response", "created_at": 1_700_000_000, "model": model, "error": None,
        "status": "incomplete" if cut else "completed", "incomplete_details": {"reason": cut} if cut else None,
        "instructions": None, "metadata": {}, "output": [message, *calls] if reply.text else calls,
        "parallel_tool_calls": True, "previous_response_id": None, "service_tier": "default", "temperature": 1.0,
        "text": {"format": {"type": "text"}}, "tool_choice": "auto", "tools": body.get("tools") or [], "top_p": 1.0,
        "truncation": "disabled", "user": None, "usage": reply.usage(usage),
    }  # fmt: skip


def _response_stream(body: Json, reply: Reply, model: str, pieces: Iterable[str]) -> Iterator[Json]:
    numbers = itertools.count()
    whole = _response(body, reply, model)

    def event(kind: str, **values: Any) -> Json:
        return {"type": f"response.{kind}", "sequence_number": next(numbers), **values}

    started = {**whole, "status": "in_progress", "incomplete_details": None, "output": [], "usage": None}
    yield event("created", response=started)
    yield event("in_progress", response=started)
    pieces = pieces if reply.text else list(pieces)  # Without text there is still a stall to observe.
    for index, item in enumerate(whole["output"]):
        place = {"output_index": index, "item_id": item["id"]}
        if item["type"] == "message":
            place["content_index"] = 0
            part = item["content"][0]
            opening = {**item, "status": "in_progress", "content": []}
            yield event("output_item.added", output_index=index, item=opening)
            yield event("content_part.added", **place, part={**part, "text": ""})
            for piece in pieces:
                yield event("output_text.delta", **place, delta=piece, logprobs=[])
            yield event("output_text.done", **place, text=part["text"], logprobs=[])
            yield event("content_part.done", **place, part=part)
        else:
            opening = {**item, "status": "in_progress", "arguments": ""}
            yield event("output_item.added", output_index=index, item=opening)
            for delta in (item["arguments"][:1], item["arguments"][1:]):
                yield event("function_call_arguments.delta", **place, delta=delta)
            yield event("function_call_arguments.done", **place, name=item["name"], arguments=item["arguments"])
        yield event("output_item.done", output_index=index, item=item)
    yield event(str(whole["status"]), response=whole)


def _message(body: Json, reply: Reply, model: str) -> Json:
    written, hour = reply.cache_write_tokens, reply.cache_write_1h_tokens
    usage: Json = {
        "input_tokens": reply.input_tokens - reply.cached_tokens - written,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": reply.cached_tokens,
        "cache_creation": {"ephemeral_5m_input_tokens": written - hour, "ephemeral_1h_input_tokens": hour},
        "output_tokens": reply.output_tokens,
        "service_tier": "standard",
    }
    if reply.reasoning_tokens:
        usage["output_tokens_details"] = {"thinking_tokens": reply.reasoning_tokens}
    content: list[Json] = [{"type": "text", "text": reply.text}] if reply.text else []
    for name, args in reply.tool_calls:
        content.append({"type": "tool_use", "id": _id("toolu_"), "name": name, "input": args})
    answer = {
        "id": _id("msg_"), "type": "message", "role": "assistant", "model": model, "content": content,
        "stop_reason": _ANTHROPIC_STOPS.get(reply.finish(), reply.finish()), "stop_sequence": None,
    }  # fmt: skip
    return _with_usage(answer, reply.usage(usage))


def _message_stream(body: Json, reply: Reply, model: str, pieces: Iterable[str]) -> Iterator[Json]:
    whole = _message(body, reply, model)
    usage: Json | None = whole.get("usage")
    first = _with_usage({**whole, "content": [], "stop_reason": None}, usage and {**usage, "output_tokens": 1})
    yield {"type": "message_start", "message": first}
    yield {"type": "ping"}
    pieces = pieces if reply.text else list(pieces)  # Without text there is still a stall to observe.
    for index, block in enumerate(whole["content"]):
        if block["type"] == "text":
            opening = {**block, "text": ""}
            deltas: Iterable[Json] = ({"type": "text_delta", "text": piece} for piece in pieces)
        else:
            arguments = json.dumps(block["input"])
            opening = {**block, "input": {}}
            deltas = [{"type": "input_json_delta", "partial_json": p} for p in ("", arguments[:1], arguments[1:])]
        yield {"type": "content_block_start", "index": index, "content_block": opening}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    # The final usage has no split of cache writes by lifetime and no tier, as with the provider.
    final = usage and {key: value for key, value in usage.items() if key not in ("cache_creation", "service_tier")}
    delta = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    yield _with_usage({"type": "message_delta", "delta": delta}, final)
    yield {"type": "message_stop"}


_ANSWERS: dict[str, Callable[[Json, Reply, str], Json]] = {
    "/v1/chat/completions": _chat,
    "/v1/completions": _completion,
    "/v1/embeddings": _embeddings,
    "/v1/messages": _message,
    "/v1/responses": _response,
}
_STREAMS: dict[str, Callable[[Json, Reply, str, Iterable[str]], Iterator[Json]]] = {
    "/v1/chat/completions": _chat_stream,
    "/v1/completions": _completion_stream,
    "/v1/messages": _message_stream,
    "/v1/responses": _response_stream,
}


def _error(path: str, reply: Reply) -> Json:
    if path.startswith("/v1/messages"):
        kind = reply.error_type or _ANTHROPIC_ERRORS.get(reply.status, "api_error")
        return {"type": "error", "error": {"type": kind, "message": reply.error_message}, "request_id": _id("req_")}
    default = "server_error" if reply.status >= 500 else "requests" if reply.status == 429 else "invalid_request_error"
    code = _OPENAI_ERRORS.get(reply.status)
    kind = reply.error_type or default
    return {"error": {"message": reply.error_message, "type": kind, "param": None, "code": code}}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _HttpServer

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (named so by the base class)
        """Keep the output of the tests quiet."""

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.path.partition("?")[0], json.loads(raw or b"{}"), headers)
        reply = self.server.owner._receive(request)
        if request.path not in _ANSWERS:
            reply = Reply(status=404, error_message=f"Unknown request URL: POST {request.path}")
        if reply.delay_s:
            self._pause(reply.delay_s)
        if reply.hang:
            self._stall()
        model = reply.model or str(request.body.get("model"))
        if reply.status != 200:
            retry = {"retry-after": "0", "retry-after-ms": "1"} if reply.status == 429 or reply.status >= 500 else {}
            self._send(reply.status, _error(request.path, reply), retry)
        elif request.body.get("stream") and request.path in _STREAMS:
            self._stream(request.path, _STREAMS[request.path](request.body, reply, model, self._pieces(reply)))
        else:
            self._send(200, _ANSWERS[request.path](request.body, reply, model), {})

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if not self.server.owner.keep_alive:
            self.send_header("connection", "close")
        self.end_headers()

    def _send(self, status: int, answer: Json, headers: dict[str, str]) -> None:
        body = json.dumps(answer).encode()
        self._head(status, {"content-type": "application/json", "content-length": str(len(body)), **headers})
        self.wfile.write(body)

    def _stream(self, path: str, events: Iterator[Json]) -> None:
        self._head(200, {"content-type": "text/event-stream; charset=utf-8", "transfer-encoding": "chunked"})
        for event in events:
            name = f"event: {event['type']}\n" if "type" in event else ""
            self._write_chunk(f"{name}data: {json.dumps(event)}\n\n")
        if path.endswith("/completions"):
            self._write_chunk("data: [DONE]\n\n")
        self._write_chunk("")

    def _write_chunk(self, text: str) -> None:
        data = text.encode()
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def _pieces(self, reply: Reply) -> Iterator[str]:
        pieces = reply.pieces()
        stall = len(pieces) + 1 if reply.stall_after_chunks is None else min(reply.stall_after_chunks, len(pieces))
        for count, piece in enumerate([*pieces, ""]):
            if count == stall:
                self._stall()
            if count < len(pieces):
                yield piece

    def _stall(self) -> None:
        self.server.owner._note_stall()
        while not self.server.owner.release.is_set():
            self._pause(0.02)

    def _pause(self, seconds: float) -> None:
        """Wait, but no longer than the connection lasts.

        A client which waits for its answer sends nothing, so its socket is readable only once either side hung up.
        """
        self.connection.settimeout(seconds)
        try:
            self.connection.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            return
        finally:
            self.connection.settimeout(None)
        raise ConnectionAbortedError


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, owner: ProviderServer) -> None:
        self.owner = owner
        self.open: set[Any] = set()
        self.changed = threading.Condition()
        super().__init__(("127.0.0.1", 0), _Handler)

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer's own looks the host up by DNS.
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        with self.changed:
            self.open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        with self.changed:
            self.open.discard(request)
            self.changed.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exception()
        if error is not None and not isinstance(error, OSError):  # OSError: the client hung up, or the server closed.
            self.owner.errors.append(error)

    def hang_up(self, timeout: float = 10.0) -> None:
        """End every connection, those which clients keep alive too, and wait for their threads."""
        with self.changed:
            for connection in self.open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            if not self.changed.wait_for(lambda: not self.open, timeout):
                raise TimeoutError(f"{len(self.open)} connections of the provider server did not end")


class ProviderServer:
    """The server; a context manager. What it received is in `requests`, what went wrong inside it in `errors`."""

    def __init__(self, *, keep_alive: bool = False) -> None:
        # LangChain's integrations share their HTTP clients for good and never close them. A connection kept alive
        # would outlast the test and the event loop it belongs to, so by default one ends with its answer.
        self.keep_alive = keep_alive
        self.release = threading.Event()
        self.stalled = threading.Event()
        self.errors: list[BaseException] = []
        self._changed = threading.Condition()
        self._requests: list[Request] = []
        self._stalls = 0
        self._queue: deque[Reply] = deque()
        self._respond: Callable[[Request], Reply] = lambda _: Reply()
        self._http = _HttpServer(self)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> ProviderServer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
        if error is None and self.errors:
            raise AssertionError("the provider server failed to answer") from self.errors[0]

    def close(self) -> None:
        if self._thread.is_alive():
            self._http.shutdown()
            self._thread.join()
            self._http.hang_up()
            self._http.server_close()

    # What it answers

    def reply(self, reply: Reply) -> None:
        """Answer every request with this once the script is used up."""
        self.respond_with(lambda _: reply)

    def script(self, replies: Iterable[Reply]) -> None:
        """Answer the next requests with these, in their order."""
        with self._changed:
            self._queue.extend(replies)

    def respond_with(self, respond: Callable[[Request], Reply]) -> None:
        """Compute the answer to every request once the script is used up."""
        with self._changed:
            self._respond = respond

    def _receive(self, request: Request) -> Reply:
        with self._changed:
            self._requests.append(request)
            self._changed.notify_all()
            if self._queue:
                return self._queue.popleft()
            respond = self._respond
        try:
            return respond(request)
        except Exception as error:
            self.errors.append(error)
            return Reply(status=500, error_message=f"respond_with failed: {error!r}")

    # What it saw

    @property
    def requests(self) -> list[Request]:
        with self._changed:
            return list(self._requests)

    def wait_for_requests(self, count: int, timeout: float = 10.0) -> list[Request]:
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._requests) >= count, timeout):
                raise TimeoutError(f"{len(self._requests)} of {count} requests after {timeout} s")
            return list(self._requests)

    def wait_for_stalls(self, count: int, timeout: float = 10.0) -> None:
        """Wait until this many requests in all have come to their stall."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._stalls >= count, timeout):
                raise TimeoutError(f"{self._stalls} of {count} stalls after {timeout} s")

    def _note_stall(self) -> None:
        with self._changed:
            self._stalls += 1
            self._changed.notify_all()
        self.stalled.set()

    # Clients

    def chat_openai(self, **kw: Any) -> ChatOpenAI:
        from langchain_openai import ChatOpenAI

        client = {**self._client("gpt-4o-mini", "/v1"), "stream_usage": True}
        if "stream_chunk_timeout" in ChatOpenAI.model_fields:
            # It waits by asyncio.wait_for, which before Python 3.12 loses a cancellation when a chunk has just come.
            client["stream_chunk_timeout"] = None
        return ChatOpenAI(**{**client, **kw})

    def openai_completion(self, **kw: Any) -> OpenAI:
        from langchain_openai import OpenAI

        return OpenAI(**{**self._client("gpt-3.5-turbo-instruct", "/v1"), **kw})

    def openai_embeddings(self, **kw: Any) -> OpenAIEmbeddings:
        from langchain_openai import OpenAIEmbeddings

        client = self._client("text-embedding-3-small", "/v1")
        return OpenAIEmbeddings(**{**client, "check_embedding_ctx_length": False, **kw})

    def chat_anthropic(self, **kw: Any) -> ChatAnthropic:
        from langchain_anthropic import ChatAnthropic

        return ChatAnthropic(**{**self._client("claude-haiku-4-5", ""), **kw})

    def _client(self, model: str, path: str) -> Json:
        return {"model": model, "base_url": self.url + path, "api_key": "sk-test-canary", "max_retries": 0}
