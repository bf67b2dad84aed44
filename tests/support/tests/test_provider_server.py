"""The server of the tests speaks the providers' formats: proved by what LangChain's own integrations report."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from operator import add
from typing import Any

import anthropic
import httpx
import openai
import pytest
from langchain_core.callbacks import UsageMetadataCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from tests.support.provider_server import ProviderServer, Reply, Request

WEATHER = {
    "name": "weather",
    "description": "Weather of a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}
WEATHER_OPENAI = {
    "type": "function",
    "function": {"name": "weather", "description": "Weather", "parameters": WEATHER["input_schema"]},
}
RICH = Reply(input_tokens=100, output_tokens=20, cached_tokens=40, cache_write_tokens=10, reasoning_tokens=5)
CHATS = ["chat_openai", "responses", "chat_anthropic"]
OPENAI_CHATS = ["chat_openai", "responses"]
MODES = ["invoke", "stream", "ainvoke", "astream"]


@pytest.fixture
def server() -> Iterator[ProviderServer]:
    with ProviderServer() as running:
        yield running


def chat(server: ProviderServer, kind: str, **kw: Any) -> Any:
    if kind == "responses":
        return server.chat_openai(use_responses_api=True, **kw)
    return getattr(server, kind)(**kw)


async def ask(model: Any, mode: str, **kw: Any) -> AIMessage:
    """One message from the model, added up where it streams."""
    if mode == "invoke":
        return await asyncio.to_thread(model.invoke, "Hi", **kw)
    if mode == "ainvoke":
        return await model.ainvoke("Hi", **kw)  # type: ignore[no-any-return]
    if mode == "stream":
        chunks = await asyncio.to_thread(lambda: list(model.stream("Hi", **kw)))
    else:
        chunks = [chunk async for chunk in model.astream("Hi", **kw)]
    return reduce(add, chunks)  # type: ignore[no-any-return]


def plain(usage: Any) -> dict[str, Any]:
    """Usage without the details which are zero."""
    assert usage is not None
    return {
        key: {name: count for name, count in value.items() if count} if isinstance(value, dict) else value
        for key, value in usage.items()
    }


def totals(usage: Any) -> tuple[int, int, int]:
    return usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]


# Usage in every mode


@pytest.mark.asyncio
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", CHATS)
async def test_a_plain_answer_is_reported_with_its_usage(server: ProviderServer, kind: str, mode: str) -> None:
    message = await ask(chat(server, kind), mode)
    assert message.text == "Hello there."
    assert totals(message.usage_metadata) == (100, 20, 120)
    (request,) = server.requests
    assert request.path == {"chat_openai": "/v1/chat/completions", "responses": "/v1/responses"}.get(
        kind, "/v1/messages"
    )
    assert request.body["model"] == ("claude-haiku-4-5" if kind == "chat_anthropic" else "gpt-4o-mini")
    assert message.response_metadata["model_name"] == request.body["model"]
    assert bool(request.body.get("stream")) is ("stream" in mode)
    assert "sk-test-canary" in (request.headers.get("x-api-key") or request.headers["authorization"])


@pytest.mark.asyncio
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", CHATS)
async def test_cached_written_and_reasoning_tokens_are_reported(server: ProviderServer, kind: str, mode: str) -> None:
    server.reply(RICH)
    message = await ask(chat(server, kind), mode)
    # Outside of streams Anthropic tells the lifetimes of cache writes apart, and LangChain then reports only those.
    written = "ephemeral_5m_input_tokens" if kind == "chat_anthropic" and "stream" not in mode else "cache_creation"
    assert plain(message.usage_metadata) == {
        "input_tokens": 100,
        "output_tokens": 20,
        "total_tokens": 120,
        "input_token_details": {"cache_read": 40, written: 10},
        "output_token_details": {"reasoning": 5},
    }


@pytest.mark.asyncio
@pytest.mark.parametrize("mode", MODES)
async def test_cache_writes_of_an_hour_are_reported_apart(server: ProviderServer, mode: str) -> None:
    server.reply(Reply(cached_tokens=30, cache_write_tokens=20, cache_write_1h_tokens=15))
    message = await ask(server.chat_anthropic(), mode)
    assert totals(message.usage_metadata) == (100, 20, 120)
    details = plain(message.usage_metadata)["input_token_details"]
    if "stream" in mode:
        assert details == {"cache_read": 30, "cache_creation": 20}
    else:
        assert details == {"cache_read": 30, "ephemeral_5m_input_tokens": 5, "ephemeral_1h_input_tokens": 15}


def test_anthropic_wire_reports_cached_tokens_apart(server: ProviderServer) -> None:
    server.reply(Reply(cached_tokens=30, cache_write_tokens=20, cache_write_1h_tokens=15))
    body = {"model": "claude-haiku-4-5", "max_tokens": 9, "messages": []}
    usage = httpx.post(f"{server.url}/v1/messages", json=body).json()["usage"]
    assert (usage["input_tokens"], usage["cache_read_input_tokens"], usage["cache_creation_input_tokens"]) == (
        50,
        30,
        20,
    )
    assert usage["cache_creation"] == {"ephemeral_5m_input_tokens": 5, "ephemeral_1h_input_tokens": 15}


@pytest.mark.asyncio
@pytest.mark.parametrize("mode", MODES)
async def test_audio_tokens_are_reported_apart(server: ProviderServer, mode: str) -> None:
    server.reply(Reply(audio_input_tokens=12, audio_output_tokens=7))
    usage = plain((await ask(server.chat_openai(), mode)).usage_metadata)
    assert usage["input_token_details"] == {"audio": 12}
    assert usage["output_token_details"] == {"audio": 7}


@pytest.mark.asyncio
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", CHATS)
async def test_tool_calls_arrive_with_their_arguments(server: ProviderServer, kind: str, mode: str) -> None:
    server.reply(Reply(tool_calls=[("weather", {"city": "Malmö"}), ("weather", {})]))
    tool = WEATHER if kind == "chat_anthropic" else WEATHER_OPENAI
    message = await ask(chat(server, kind).bind_tools([tool]), mode)
    assert message.text == "Hello there."
    assert [(call["name"], call["args"]) for call in message.tool_calls] == [
        ("weather", {"city": "Malmö"}),
        ("weather", {}),
    ]
    assert len({call["id"] for call in message.tool_calls}) == 2
    assert totals(message.usage_metadata) == (100, 20, 120)


@pytest.mark.asyncio
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", CHATS)
async def test_a_tool_call_may_come_without_text(server: ProviderServer, kind: str, mode: str) -> None:
    server.reply(Reply(text="", tool_calls=[("weather", {"city": "Lund"})]))
    tool = WEATHER if kind == "chat_anthropic" else WEATHER_OPENAI
    message = await ask(chat(server, kind).bind_tools([tool]), mode)
    assert (message.text, message.tool_calls[0]["args"]) == ("", {"city": "Lund"})


@pytest.mark.asyncio
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", CHATS)
async def test_an_answer_may_come_without_usage(server: ProviderServer, kind: str, mode: str) -> None:
    server.reply(Reply(omit_usage=True))
    message = await ask(chat(server, kind), mode)
    assert message.text == "Hello there."
    if kind == "chat_anthropic":  # LangChain makes zeros of what Anthropic does not report.
        assert totals(message.usage_metadata) == (0, 0, 0)
    else:
        assert message.usage_metadata is None


@pytest.mark.parametrize("kind", CHATS)
def test_usage_is_sent_as_it_is_given(server: ProviderServer, kind: str) -> None:
    names = ("prompt_tokens", "completion_tokens") if kind == "chat_openai" else ("input_tokens", "output_tokens")
    server.reply(Reply(raw_usage={names[0]: 7, names[1]: None}))
    assert totals(chat(server, kind).invoke("Hi").usage_metadata) == (7, 0, 7)


@pytest.mark.parametrize(("kind", "stopped"), [("chat_openai", "length"), ("chat_anthropic", "max_tokens")])
def test_an_answer_names_its_model_and_why_it_ended(server: ProviderServer, kind: str, stopped: str) -> None:
    server.reply(Reply(finish_reason="length", model="another-model-2026-01-01"))
    for message in (chat(server, kind).invoke("Hi"), reduce(add, chat(server, kind).stream("Hi"))):
        metadata = message.response_metadata
        assert metadata["model_name"] == "another-model-2026-01-01"
        assert metadata.get("finish_reason", metadata.get("stop_reason")) == stopped


@pytest.mark.parametrize("kind", OPENAI_CHATS)
def test_an_incomplete_response_keeps_its_usage(server: ProviderServer, kind: str) -> None:
    server.reply(Reply(finish_reason="length"))
    for message in (chat(server, kind).invoke("Hi"), reduce(add, chat(server, kind).stream("Hi"))):
        assert totals(message.usage_metadata) == (100, 20, 120)
        if kind == "responses":
            assert message.response_metadata["status"] == "incomplete"


# OpenAI's particulars


@pytest.mark.asyncio
async def test_several_choices_share_one_usage(server: ProviderServer) -> None:
    model = server.chat_openai(n=2)
    prompt: list[list[BaseMessage]] = [[HumanMessage("Hi")]]
    for result in (model.generate(prompt), await model.agenerate(prompt)):
        (generations,) = result.generations
        assert [generation.text for generation in generations] == ["Hello there.", "Hello there."]
        assert result.llm_output is not None
        assert result.llm_output["token_usage"]["total_tokens"] == 120
        # LangChain repeats the usage of the request on every choice.
        assert [totals(generation.message.usage_metadata) for generation in generations] == [(100, 20, 120)] * 2  # type: ignore[union-attr]


def test_several_choices_in_a_stream_come_interleaved_with_one_usage(server: ProviderServer) -> None:
    message = reduce(add, server.chat_openai(n=2).stream("Hi"))
    assert message.text == "Hello Hello there.there."  # LangChain does not tell the choices of a stream apart.
    assert totals(message.usage_metadata) == (100, 20, 120)


def test_a_stream_reports_usage_only_where_the_client_asks(server: ProviderServer) -> None:
    assert reduce(add, server.chat_openai(stream_usage=False).stream("Hi")).usage_metadata is None
    assert "stream_options" not in server.requests[0].body


def test_a_chat_stream_has_the_chunks_of_the_real_one(server: ProviderServer) -> None:
    body = {"model": "m", "stream": True, "stream_options": {"include_usage": True}, "messages": []}
    answer = httpx.post(f"{server.url}/v1/chat/completions", json=body)
    lines = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert lines.pop() == "[DONE]"
    chunks = [json.loads(line) for line in lines]
    assert [len(chunk["choices"]) for chunk in chunks] == [1, 1, 1, 1, 0]
    assert [chunk["usage"] is None for chunk in chunks] == [True, True, True, True, False]
    assert len({chunk["id"] for chunk in chunks}) == 1


@pytest.mark.asyncio
async def test_completions_are_reported_with_their_usage(server: ProviderServer) -> None:
    model = server.openai_completion()
    expected = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
    for result in (model.generate(["Hi", "Ho"]), await model.agenerate(["Hi", "Ho"])):
        assert [generation[0].text for generation in result.generations] == ["Hello there."] * 2
        assert result.llm_output is not None
        assert result.llm_output["token_usage"] == expected
    assert model.invoke("Hi") == await model.ainvoke("Hi") == "Hello there."
    assert list(model.stream("Hi"))[:2] == ["Hello ", "there."]
    assert "".join([chunk async for chunk in model.astream("Hi")]) == "Hello there."
    assert {request.path for request in server.requests} == {"/v1/completions"}
    assert len(server.openai_completion(n=2, best_of=2).generate(["Hi"]).generations[0]) == 2


def test_completions_may_come_without_usage(server: ProviderServer) -> None:
    server.reply(Reply(omit_usage=True))
    assert httpx.post(f"{server.url}/v1/completions", json={"model": "m", "prompt": "Hi"}).json().keys() == {
        "id",
        "object",
        "created",
        "model",
        "choices",
    }
    with pytest.raises(TypeError):  # LangChain relies on the usage of a completion, but not on that of its stream.
        server.openai_completion().generate(["Hi"])
    assert server.openai_completion(streaming=True).invoke("Hi") == "Hello there."


def test_a_completion_stream_reports_usage_where_asked(server: ProviderServer) -> None:
    with openai.OpenAI(base_url=server.url + "/v1", api_key="k") as client:
        chunks = list(
            client.completions.create(model="m", prompt="Hi", stream=True, stream_options={"include_usage": True})
        )
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == "Hello there."
    assert [chunk.usage.total_tokens for chunk in chunks if chunk.usage] == [120]


@pytest.mark.asyncio
async def test_embeddings_are_reported_with_their_usage(server: ProviderServer) -> None:
    embeddings = server.openai_embeddings()
    expected = [[(i + 1) / 2**place for place in range(1, 9)] for i in range(3)]
    assert embeddings.embed_documents(["a", "b", "c"]) == expected
    assert await embeddings.aembed_documents(["a", "b", "c"]) == expected
    assert embeddings.embed_query("a") == expected[0]
    assert len(server.openai_embeddings(dimensions=3).embed_query("a")) == 3


@pytest.mark.parametrize("encoding", ["float", "base64"])
@pytest.mark.parametrize(("given", "count"), [("a", 1), (["a", "b"], 2), ([1, 2, 3], 1), ([[1, 2], [3]], 2)])
def test_embeddings_come_in_each_encoding_for_each_kind_of_input(
    server: ProviderServer, encoding: Any, given: Any, count: int
) -> None:
    with openai.OpenAI(base_url=server.url + "/v1", api_key="k") as client:
        answer = client.embeddings.create(model="m", input=given, encoding_format=encoding)
    assert len(answer.data) == count
    assert isinstance(answer.data[0].embedding, str if encoding == "base64" else list)
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (100, 100)


# What comes back


def test_scripted_answers_come_before_the_computed_one(server: ProviderServer) -> None:
    def shout(request: Request) -> Reply:
        return Reply(text=request.body["messages"][-1]["content"].upper())

    server.respond_with(shout)
    server.script([Reply(text="one"), Reply(text="two")])
    model = server.chat_openai()
    assert [model.invoke("three").text for _ in range(3)] == ["one", "two", "THREE"]
    server.reply(Reply(text="four"))
    assert model.invoke("three").text == "four"
    assert [request.body["messages"][-1]["content"] for request in server.requests] == ["three"] * 4


def test_a_stream_comes_in_the_given_chunks(server: ProviderServer) -> None:
    text = "abcdefghij" * 10
    server.reply(Reply(text=text, chunks=40))
    for kind in CHATS:
        texts = [chunk.text for chunk in chat(server, kind).stream("Hi") if chunk.text]
        assert (len(texts), "".join(texts)) == (40, text)


def test_an_answer_comes_after_the_given_delay(server: ProviderServer) -> None:
    server.reply(Reply(delay_s=0.01))
    assert server.chat_openai().invoke("Hi").text == "Hello there."
    server.reply(Reply(delay_s=600))
    with pytest.raises(openai.APITimeoutError):
        server.chat_openai(timeout=0.05).invoke("Hi")


@pytest.mark.parametrize(
    "wrong",
    [
        {"cached_tokens": 60, "cache_write_tokens": 60},
        {"cache_write_tokens": 1, "cache_write_1h_tokens": 2},
        {"chunks": 0},
        {"text": "ab", "chunks": 3},
    ],
)
def test_replies_which_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Reply(**wrong)


# Errors

OPENAI_ERRORS: list[tuple[int, type[Exception]]] = [
    (400, openai.BadRequestError),
    (401, openai.AuthenticationError),
    (404, openai.NotFoundError),
    (429, openai.RateLimitError),
    (500, openai.InternalServerError),
]
ANTHROPIC_ERRORS: list[tuple[int, type[Exception]]] = [
    (400, anthropic.BadRequestError),
    (401, anthropic.AuthenticationError),
    (404, anthropic.NotFoundError),
    (429, anthropic.RateLimitError),
    (500, anthropic.InternalServerError),
    (529, anthropic.APIStatusError),
]


@pytest.mark.asyncio
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("kind", "status", "error"),
    [
        *[(kind, *case) for kind in ("chat_openai", "responses") for case in OPENAI_ERRORS],
        *[("chat_anthropic", *case) for case in ANTHROPIC_ERRORS],
    ],
)
async def test_errors_are_those_of_the_real_clients(
    server: ProviderServer, kind: str, mode: str, status: int, error: type[Exception]
) -> None:
    server.reply(Reply(status=status, error_type="a_type", error_message="a message"))
    with pytest.raises(error, match="a message") as caught:
        await ask(chat(server, kind), mode)
    problem: Any = caught.value
    assert problem.status_code == status
    body = problem.body
    assert (body.get("error") or body)["type"] == "a_type"
    if status == 429:
        assert problem.response.headers["retry-after"] == "0"
    server.reply(Reply())
    assert (await ask(chat(server, kind), mode)).text == "Hello there."  # The connection is still good.


@pytest.mark.parametrize(("status", "error"), OPENAI_ERRORS)
def test_errors_of_completions_and_embeddings_are_those_of_the_real_client(
    server: ProviderServer, status: int, error: type[Exception]
) -> None:
    server.reply(Reply(status=status))
    with pytest.raises(error):
        server.openai_completion().invoke("Hi")
    with pytest.raises(error):
        server.openai_embeddings().embed_query("Hi")


@pytest.mark.parametrize("status", [429, 500])
@pytest.mark.parametrize("kind", CHATS)
def test_clients_retry_what_is_worth_it_without_delay(server: ProviderServer, kind: str, status: int) -> None:
    server.script([Reply(status=status)] * 2)
    assert chat(server, kind, max_retries=2).invoke("Hi").text == "Hello there."
    assert len(server.requests) == 3


def test_an_unknown_path_is_refused(server: ProviderServer) -> None:
    answer = httpx.post(f"{server.url}/v1/nothing", json={})
    assert (answer.status_code, answer.json()["error"]["type"]) == (404, "invalid_request_error")


def test_an_answer_which_cannot_be_computed_is_told_to_both_sides() -> None:
    server = ProviderServer()
    server.respond_with(lambda request: Reply(text=request.body["nothing"]))
    with pytest.raises(openai.InternalServerError, match="KeyError"):
        server.chat_openai().invoke("Hi")
    with pytest.raises(AssertionError) as caught:
        server.__exit__(None, None, None)
    assert isinstance(caught.value.__cause__, KeyError)


# Stalls, cancellation and hang-ups


@pytest.mark.parametrize("kind", CHATS)
def test_a_stream_that_is_stalled_goes_on_when_released(server: ProviderServer, kind: str) -> None:
    server.reply(Reply(stall_after_chunks=1))
    chunks: list[BaseMessage] = []
    for chunk in chat(server, kind).stream("Hi"):
        if chunk.text and not chunks:
            assert server.stalled.wait(10)
            server.release.set()
        if chunk.text:
            chunks.append(chunk)
    assert [chunk.text for chunk in chunks] == ["Hello ", "there."]


@pytest.mark.asyncio
@pytest.mark.parametrize("stall", [0, 1, 2, 9])
@pytest.mark.parametrize("kind", [*CHATS, "openai_completion"])
async def test_a_stream_that_stalls_can_be_cancelled(server: ProviderServer, kind: str, stall: int) -> None:
    server.reply(Reply(stall_after_chunks=stall))
    received = ""

    async def consume() -> None:
        nonlocal received
        async for chunk in chat(server, kind).astream("Hi"):
            received += chunk if isinstance(chunk, str) else chunk.text

    task = asyncio.create_task(consume())
    assert await asyncio.to_thread(server.stalled.wait, 10)
    await asyncio.to_thread(server.wait_for_stalls, 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert "".join(["Hello ", "there."][:stall]).startswith(received)


@pytest.mark.asyncio
@pytest.mark.parametrize("mode", ["ainvoke", "astream"])
@pytest.mark.parametrize("kind", CHATS)
async def test_a_request_that_hangs_can_be_cancelled(server: ProviderServer, kind: str, mode: str) -> None:
    server.reply(Reply(hang=True))
    task = asyncio.create_task(ask(chat(server, kind), mode))
    assert await asyncio.to_thread(server.stalled.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("kind", [*CHATS, "openai_completion", "openai_embeddings"])
def test_a_request_that_hangs_is_answered_when_released(server: ProviderServer, kind: str) -> None:
    server.reply(Reply(hang=True))
    model = chat(server, kind)
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(model.embed_query if kind == "openai_embeddings" else model.invoke, "Hi")
        assert server.stalled.wait(10)
        assert len(server.wait_for_requests(1)) == 1
        assert not pending.done()
        server.release.set()
        assert pending.result(10)


def test_closing_the_server_ends_requests_that_hang() -> None:
    with ThreadPoolExecutor(1) as pool:
        with ProviderServer() as server:
            server.reply(Reply(hang=True))
            pending = pool.submit(server.chat_openai().invoke, "Hi")
            assert server.stalled.wait(10)
        with pytest.raises(openai.APIConnectionError):
            pending.result(10)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses"])
def test_a_client_which_hangs_up_leaves_no_error(path: str, capfd: pytest.CaptureFixture[str]) -> None:
    with ProviderServer() as server:
        server.reply(Reply(text="word " * 100_000, stall_after_chunks=1))
        connection = http.client.HTTPConnection("127.0.0.1", server._http.server_port)
        body = json.dumps({"model": "m", "stream": True, "messages": []})
        connection.request("POST", path, body, {"content-type": "application/json"})
        answer = connection.getresponse()
        assert server.stalled.wait(10)
        server.release.set()
        received = b""
        while received.count(b"word") < 3:  # The server has gone on to write far more than the buffers hold.
            received += answer.read1(1000)
        answer.close()
        connection.close()
    assert server.errors == []
    assert capfd.readouterr() == ("", "")


def test_waiting_for_requests_that_do_not_come_fails(server: ProviderServer) -> None:
    with pytest.raises(TimeoutError):
        server.wait_for_requests(1, 0.001)
    with pytest.raises(TimeoutError):
        server.wait_for_stalls(1, 0.001)


# Many at once


@pytest.mark.asyncio
@pytest.mark.parametrize("mode", ["ainvoke", "astream"])
async def test_two_hundred_tasks_at_once_are_answered(server: ProviderServer, mode: str) -> None:
    server.reply(Reply(hang=True))  # All of them have to be inside the server before one is answered.
    model = server.chat_openai(timeout=60)
    tasks = [asyncio.create_task(ask(model, mode)) for _ in range(200)]
    await asyncio.to_thread(server.wait_for_stalls, 200, 60)
    server.release.set()
    messages = await asyncio.gather(*tasks)
    assert {totals(message.usage_metadata) for message in messages} == {(100, 20, 120)}
    assert len(server.requests) == 200


def test_two_hundred_threads_at_once_are_answered(server: ProviderServer) -> None:
    server.respond_with(lambda request: Reply(text=request.body["messages"][-1]["content"]))
    model = server.chat_anthropic()
    with ThreadPoolExecutor(200) as pool:
        texts = list(pool.map(lambda number: model.invoke(f"number {number}").text, range(200)))
    assert texts == [f"number {number}" for number in range(200)]


def test_connections_are_kept_on_demand() -> None:
    with ProviderServer(keep_alive=True) as server, httpx.Client() as client:
        streams = [
            client.post(f"{server.url}/v1/completions", json={"model": "m", "stream": stream}).extensions[
                "network_stream"
            ]
            for stream in (False, True, False)
        ]
        assert len({stream.get_extra_info("client_addr") for stream in streams}) == 1


def test_langchains_own_counter_counts_the_usage(server: ProviderServer) -> None:
    counter = UsageMetadataCallbackHandler()
    server.chat_openai().invoke("Hi", config={"callbacks": [counter]})
    for _ in server.chat_anthropic().stream("Hi", config={"callbacks": [counter]}):
        pass
    assert {model: usage["total_tokens"] for model, usage in counter.usage_metadata.items()} == {
        "gpt-4o-mini": 120,
        "claude-haiku-4-5": 120,
    }


def test_closing_twice_and_releasing_afterwards_do_no_harm() -> None:
    with ProviderServer() as server:
        server.close()
    server.release.set()
