"""Whatever providers, users and LangChain put into usage, ids and metadata: the call succeeds, and its row is stored and flagged.

Also here: no fault of ours reaches the user, and no text of a prompt, an answer or an error is stored or logged anywhere.
"""

from __future__ import annotations

import asyncio
import logging
import math
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool

from tests.integration.helpers import MODES, Rows, ask, collect, dollars, only
from tests.sql.helpers import any_row
from tests.support.provider_server import ProviderServer, Reply
from tests.support.stores import stored
from vital_tracking import Agent, VitalTracker
from vital_tracking.calls.row_literal import decoded_row
from vital_tracking.core.sanitize import MAX_TOKENS

pytestmark = pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")

QUESTION = "q" * 400  # a hundred tokens by the estimate
ANSWER = "a" * 80  # twenty
HUGE = 10 * 1024 * 1024


def answer(usage: Any, **more: Any) -> LLMResult:
    """A result whose usage is just this, past pydantic's validation."""
    message = AIMessage(ANSWER, response_metadata={"model_name": "gpt-4o-mini"})
    object.__setattr__(message, "usage_metadata", usage)
    return LLMResult(generations=[[ChatGeneration(message=message)]], **more)


def run(tracker: VitalTracker, result: LLMResult, metadata: dict[str, Any] | None = None, **start: Any) -> None:
    """One call, as LangChain would fire its events."""
    run_id = start.pop("run_id", None) or uuid.uuid4()
    metadata = {"ls_provider": "openai", "ls_model_name": "gpt-4o-mini", **(metadata or {})}
    tracker.handler.on_chat_model_start({}, [[HumanMessage(QUESTION)]], run_id=run_id, metadata=metadata, **start)
    tracker.handler.on_llm_end(result, run_id=run_id)


# Usage

BAD_COUNTS: list[Any] = [
    None,
    "100",
    "",
    True,
    False,
    -1,
    1.5,
    math.nan,
    math.inf,
    -math.inf,
    1e30,
    10**30,
    [],
    {},
    object(),
]
BAD_USAGES: list[Any] = [
    None, {}, [], "100", 7, True, math.nan, {"input_tokens": None, "output_tokens": None},
    *({"input_tokens": bad, "output_tokens": bad, "total_tokens": bad} for bad in BAD_COUNTS),
    {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0},
    {"input_token_details": {"cache_read": 5}}, {1: 2}, {"input_tokens": {"nested": 1}, "output_tokens": [1]},
]  # fmt: skip


def test_unusable_usage_is_estimated_and_flagged(tracker: VitalTracker, rows: Rows) -> None:
    """Garbage taken for numbers would poison every sum; taken for nothing it would make calls free."""
    for usage in BAD_USAGES:
        run(tracker, answer(usage))
    found = stored(tracker, rows)
    assert len(found) == len(BAD_USAGES)
    for usage, row in zip(BAD_USAGES, found, strict=True):
        assert (row["prompt_tokens"], row["completion_tokens"], row["usage_estimated"]) == (100, 20, True), usage
        assert row["total_cost"] == dollars((100, "0.15"), (20, "0.60"))
        assert row["status"] == "ok"


def test_half_a_usage_is_completed_by_an_estimate(tracker: VitalTracker, rows: Rows) -> None:
    """The half that was reported is kept, the other half is not free."""
    bad = [value for value in BAD_COUNTS if value is not None]
    for value in bad:
        run(tracker, answer({"input_tokens": 1000, "output_tokens": value}))
        run(tracker, answer({"input_tokens": value, "output_tokens": 50}))
    found = stored(tracker, rows)
    for value, first, second in zip(bad, found[::2], found[1::2], strict=True):
        assert (first["prompt_tokens"], first["completion_tokens"], first["usage_estimated"]) == (1000, 20, True), value
        assert (second["prompt_tokens"], second["completion_tokens"], second["usage_estimated"]) == (100, 50, True), (
            value
        )
        assert first["metadata"]["notes"] == second["metadata"]["notes"] == ["token_total_missing"]


def test_bad_details_leave_the_totals_alone(tracker: VitalTracker, rows: Rows) -> None:
    """Totals that are right are billed; a detail that cannot be is left out, and the row says so."""
    bad = [value for value in BAD_COUNTS if value is not None]
    for value in bad:
        details = {"cache_read": value, "cache_creation": value, "audio": value}
        outputs = {"reasoning": value, "audio": value}
        usage = {
            "input_tokens": 1000,
            "output_tokens": 50,
            "input_token_details": details,
            "output_token_details": outputs,
        }
        run(tracker, answer(usage))
    run(
        tracker,
        answer({"input_tokens": 1000, "output_tokens": 50, "input_token_details": "x", "output_token_details": 3}),
    )
    found = stored(tracker, rows)
    assert len(found) == len(bad) + 1
    for row in found:
        assert (row["prompt_tokens"], row["completion_tokens"], row["usage_estimated"]) == (1000, 50, False)
        assert row["total_cost"] == dollars((1000, "0.15"), (50, "0.60"))
        assert (row["cache_read_tokens"], row["cache_write_tokens"], row["reasoning_tokens"], row["audio_tokens"]) == (
            0, 0, 0, 0,
        )  # fmt: skip
    assert all("invalid_token_detail" in row["metadata"]["notes"] for row in found[:-1])


def test_details_beside_their_total_are_added(tracker: VitalTracker, rows: Rows) -> None:
    """Amazon Bedrock has reported input 3 beside 13,216 tokens read from the cache: they are disjoint then."""
    details = {"cache_read": 13_216, "cache_creation": 0}
    run(
        tracker,
        answer({"input_tokens": 3, "output_tokens": 50, "input_token_details": details}),
        {"ls_provider": "amazon_bedrock", "ls_model_name": "anthropic.claude-3-haiku-20240307-v1:0"},
    )
    row = only(stored(tracker, rows))
    assert (row["prompt_tokens"], row["cache_read_tokens"], row["completion_tokens"]) == (13_219, 13_216, 50)
    assert row["metadata"]["notes"] == ["cache_beside_input"]


async def test_an_unusable_answer_over_http_reaches_the_user_as_it_would_without_us(
    tracker: VitalTracker, provider: ProviderServer, rows: Rows
) -> None:
    """Over real HTTP, as far as the integration lets it through: what the user gets is what he would get without us."""
    model = provider.chat_openai()
    asked = 0
    for usage in (
        {"prompt_tokens": -5, "completion_tokens": -1, "total_tokens": -6},
        {"prompt_tokens": "12", "completion_tokens": "3", "total_tokens": "15"},
        {"prompt_tokens": 1e30, "completion_tokens": 2.5, "total_tokens": 1e30},
        {"prompt_tokens": True, "completion_tokens": False, "total_tokens": True},
        {},
    ):
        provider.reply(Reply(text=ANSWER, raw_usage=usage))
        for mode in ("invoke", "ainvoke", "stream"):
            try:
                expected = (await ask(model, mode, None, QUESTION)).text
            except Exception as error:
                with pytest.raises(type(error)):
                    await ask(model, mode, {"callbacks": [tracker.handler]}, QUESTION)
            else:
                assert (await ask(model, mode, {"callbacks": [tracker.handler]}, QUESTION)).text == expected
            asked += 1
    found = stored(tracker, rows)
    assert len(found) == asked
    assert all(row["total_cost"] > 0 or row["status"] == "error" for row in found)


def test_the_largest_token_counts_are_billed_exactly(tracker: VitalTracker, rows: Rows) -> None:
    """Decimal money and bigint tokens: no float, no overflow."""
    usage = {"input_tokens": MAX_TOKENS, "output_tokens": MAX_TOKENS}
    run(tracker, answer(usage), {"ls_model_name": "in-house"} | {"ls_provider": "openai"})
    run(tracker, answer(usage))
    found = stored(tracker, rows)
    assert len(found) == 2
    for row in found:
        assert row["total_tokens"] == 2 * MAX_TOKENS
        assert row["total_cost"] == Decimal(MAX_TOKENS) * Decimal("0.75") / 1_000_000


# Texts and types

BAD_TEXTS = [
    "nul\0byte",
    "\0",
    "lone \ud800 surrogate",
    "\udfff",
    "x" * HUGE,
    "\U0001f600" * 300,
    "",
    " ",
    "'; drop table x; --",
]
BAD_TYPES: list[Any] = [
    5, -5, 2.5, True, math.nan, math.inf, b"bytes", b"\xff", None, [], ["a"], {"a": 1}, {1, 2}, object(), Exception("canary"),
    uuid.uuid4(), Decimal("NaN"), lambda: None, 10**400,
]  # fmt: skip


@pytest.mark.parametrize("kind", ["ids", "metadata", "names", "tags"])
def test_bad_texts_and_types_are_stored_cleaned(kind: str, tracker: VitalTracker, rows: Rows) -> None:
    """PostgreSQL takes no NUL and no lone surrogate: one such id would hold up its whole batch for ever."""
    values = [*BAD_TEXTS, *BAD_TYPES]
    usage = {"input_tokens": 70, "output_tokens": 7}
    for value in values:
        if kind == "ids":
            names = ("user_id", "session_id", "organization_id", "agent_id", "agent_tier", "workflow_step", "panel_id")
            run(tracker, answer(usage), {f"vital_{name}": value for name in names} | {"thread_id": value})
        elif kind == "metadata":
            own = {"text": value, "list": [value, [value]], "dict": {"a": value}}
            try:
                own[value] = 1
            except TypeError:
                own["unhashable"] = value
            run(tracker, answer(usage), {"vital_metadata": own, "thread_id": value, "lc_agent_name": value})
            run(
                tracker,
                answer(usage),
                {"vital_metadata": value, "vital_scope": value, "langgraph_checkpoint_ns": value},
            )
        elif kind == "names":
            result = answer(usage, llm_output={"model_name": value, "token_usage": value, "service_tier": value})
            run(tracker, result, {"ls_provider": value, "ls_model_name": value, "langgraph_node": value})
            run(tracker, result, invocation_params={"model": value, "_type": value})
        else:
            run(tracker, answer(usage), tags=[value, value])
    found = stored(tracker, rows)
    assert len(found) == len(values) * (2 if kind in ("metadata", "names") else 1)
    assert {row["total_tokens"] for row in found} == {77}
    assert {row["status"] for row in found} == {"ok"}
    for row in found:
        assert max(len(value) for value in row.values() if isinstance(value, str)) <= 256


def test_two_long_ids_stay_two_users(tracker: VitalTracker, rows: Rows) -> None:
    """Ids that differ only at their end would become one user when they are cut."""
    for end in "ab":
        run(tracker, answer({"input_tokens": 70, "output_tokens": 7}), {"vital_user_id": "x" * HUGE + end})
    first, second = stored(tracker, rows)
    assert first["user_id"] != second["user_id"]
    assert len(first["user_id"]) == len(second["user_id"]) <= 256


def test_a_wrong_service_type_or_seat_is_left_out_and_named(tracker: VitalTracker, rows: Rows) -> None:
    """A misspelt service must not cost the whole row."""
    usage = {"input_tokens": 70, "output_tokens": 7}
    run(tracker, answer(usage), {"vital_service_type": "conversation", "vital_panel_position": "first"})
    run(
        tracker,
        answer(usage),
        {"vital_service_type": ["workflow"], "vital_panel_position": 10**9, "vital_panel_size": -1},
    )
    found = stored(tracker, rows)
    assert len(found) == 2
    for row in found:
        assert (row["service_type"], row["panel_position"], row["panel_size"], row["total_tokens"]) == (
            None,
            None,
            None,
            77,
        )
        assert {"invalid_service_type", "invalid_panel_position"} <= set(row["metadata"]["notes"])


def test_a_call_with_an_unusable_run_id_is_stored(tracker: VitalTracker, rows: Rows) -> None:
    """A run id is whatever the user gives; it names the row, and must not sink it."""
    ids: list[Any] = ["abc", 5, -5, 2**200, b"x", ("a",), ["list"], {"a": 1}, 2.5, "nul\0"]
    for run_id in ids:
        run(tracker, answer({"input_tokens": 70, "output_tokens": 7}), run_id=run_id, parent_run_id=run_id, tags=["t"])
    found = stored(tracker, rows)
    assert len(found) == len(ids)
    assert all(row["run_id"] for row in found)


def test_unusable_values_in_scopes_and_records_are_stored_or_refused_alone(tracker: VitalTracker, rows: Rows) -> None:
    """Scopes and record() take what they are given; a run row with garbage is stored, or refused alone."""
    for value in [*BAD_TEXTS[:5], 5, 2.5, b"x", ["a"], {"a": 1}, object()]:
        agent = Agent(value, name=value, tier=value)
        with tracker.conversation(value, user_id=value, session_id=value, agent=agent, metadata={"k": value}):
            tracker.record(
                provider=value, model=value, prompt_tokens=value, completion_tokens=7, agent=agent, tags=[value]
            )
        tracker.record(prompt_tokens=7, completion_tokens=7, error=value, metadata={"k": value}, service_tier=value)
    assert tracker.flush().complete
    stats = tracker.stats()
    assert (stats.faults, stats.dropped, stats.waiting) == (0, 0, 0)
    assert len(rows()) + stats.rejected == 22 + stats.rejected
    assert len(rows("select * from service_runs")) == 11


def test_odd_events_raise_nothing(tracker: VitalTracker, rows: Rows) -> None:
    """Events with missing parts, in the wrong order, twice: at worst a counted fault, never an exception."""
    handler = tracker.handler
    odd: list[Any] = [None, 5, "x", [], {}, object(), LLMResult(generations=[]), LLMResult(generations=[[]])]
    for thing in odd:
        handler.on_llm_end(thing, run_id=uuid.uuid4())
        run_id = uuid.uuid4()
        handler.on_chat_model_start(thing, thing, run_id=run_id, metadata=None, tags=None)
        handler.on_llm_new_token(thing, run_id=run_id, chunk=thing)
        handler.on_stream_event({"event": "content-block-delta", "delta": thing}, run_id=run_id)
        handler.on_stream_event({"event": "message-finish", "usage": thing}, run_id=run_id)
        handler.on_stream_event(thing, run_id=run_id)
        handler.on_llm_end(thing, run_id=run_id)
        handler.on_llm_end(thing, run_id=run_id)
        handler.on_chat_model_start(thing, thing, run_id=run_id)
        handler.on_llm_error(ValueError("canary"), run_id=run_id, response=thing)
        handler.on_chain_start(thing, thing, run_id=run_id)
        handler.on_tool_start({"name": thing}, thing, run_id=run_id)
        handler.on_retriever_start(thing, thing, run_id=run_id)
        handler.on_tool_end(thing, run_id=run_id)
        handler.on_chain_end(thing, run_id=uuid.uuid4())
        handler.on_chain_error(ValueError("canary"), run_id=uuid.uuid4())
    assert tracker.flush().complete
    stats = tracker.stats()
    assert (stats.rejected, stats.dropped, stats.in_flight) == (0, 0, 0)
    assert len(rows()) == 3 * len(odd)


# Our own faults


@pytest.mark.parametrize("broken", ["put", "handler", "record", "fault_logging"])
async def test_no_fault_of_ours_reaches_the_user(
    broken: str,
    tracker: VitalTracker,
    provider: ProviderServer,
    rows: Rows,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A bug in a tracker that breaks the product it watches is worse than no tracker."""

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("canary")

    from vital_tracking.calls import in_flight, live
    from vital_tracking.delivery import encoding, straight
    from vital_tracking.langchain import handler

    if broken == "put":
        monkeypatch.setattr(tracker._recorder, "put", fail)
    elif broken == "handler":
        monkeypatch.setattr(handler, "LiveCall", fail)
        monkeypatch.setattr(in_flight, "Run", fail)
        monkeypatch.setattr(handler, "run_key", fail)
    elif broken == "record":
        monkeypatch.setattr(encoding, "record_of", fail)
        monkeypatch.setattr(straight.StraightWay, "call", fail)
    else:
        monkeypatch.setattr(in_flight.InFlightRegistry, "end", fail)
        monkeypatch.setattr(in_flight.InFlightRegistry, "end_run", fail)
        monkeypatch.setattr(live.LiveCall, "token", fail)
    model = provider.chat_openai()
    chain = RunnableLambda(lambda question: question) | model
    provider.reply(Reply(text="Fine."))
    for mode in MODES:
        reply = await ask(model, mode, {"callbacks": [tracker.handler]})
        assert reply.text == "Fine.", mode
    assert (await chain.ainvoke("Hi", {"callbacks": [tracker.handler]})).text == "Fine."
    provider.reply(Reply(status=400))
    with pytest.raises(Exception, match="400") as caught:
        await model.ainvoke("Hi", {"callbacks": [tracker.handler]})
    assert type(caught.value).__module__.startswith(("openai", "langchain_openai"))
    assert tracker.flush().complete
    assert tracker.stats().faults >= len(MODES)
    if broken == "record":  # each is stored in its shortest form
        found = rows()
        assert [row["status"] for row in found] == [*["ok"] * (len(MODES) + 1), "error"]
        assert {row["total_cost"] for row in found[:-1]} == {dollars((100, "0.15"), (20, "0.60"))}
        assert found[-1]["total_cost"] == 0
        assert all(row["metadata"]["notes"] == ["shortened"] for row in found)
    said = [record.getMessage() for record in caplog.records if record.name.startswith("vital_tracking")]
    assert sum("a fault of its own" in line for line in said) == 1
    assert not any("canary" in line for line in said)
    monkeypatch.undo()
    tracker.handler.reset_after_fork()  # forget what could not be ended


async def test_a_bad_row_does_not_sink_its_neighbours(
    tracker: VitalTracker, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One row that the database refuses is set aside and counted; the rest of the batch is stored."""
    from vital_tracking.delivery import exporter

    encode_call = exporter.encode_call

    def spoiled(record: Any, *args: Any) -> str:
        row = decoded_row(encode_call(record, *args))
        return any_row(row | {"total_tokens": -1} if record.context.user_id == "bad" else row)

    monkeypatch.setattr(exporter, "encode_call", spoiled)
    for user in ("a", "bad", "b"):
        run(tracker, answer({"input_tokens": 70, "output_tokens": 7}), {"vital_user_id": user})
    delivered = tracker.flush()
    assert (delivered.inserted, delivered.rejected, delivered.complete) == (2, 1, True)
    assert [row["user_id"] for row in rows()] == ["a", "b"]


# Privacy


def every_text(rows: Rows) -> str:
    """All that the database holds, in every column of every table of ours."""
    tables = rows(
        "select quote_ident(table_schema) || '.' || quote_ident(table_name) as name from information_schema.tables "
        "where table_schema in ('public', 'vital_private') and table_type = 'BASE TABLE'"
    )
    assert any(table["name"] == "public.token_usage_logs" for table in tables)
    return "\n".join(str(row) for table in tables for row in rows(f"select t::text from {table['name']} as t"))


@pytest.mark.filterwarnings("ignore:Received unexpected tool content block")
@pytest.mark.parametrize("hash_key", [None, "canary-hash-key"])
async def test_no_text_of_anybody_is_stored_or_logged(
    hash_key: str | None,
    make_tracker: Callable[..., VitalTracker],
    provider: ProviderServer,
    rows: Rows,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Prompts, answers, tool arguments, error texts, foreign metadata and keys hold what patients say."""
    caplog.set_level(logging.DEBUG, logger="vital_tracking")
    tracker = make_tracker(**({"hash_key": hash_key} if hash_key else {}))

    @tool
    def lookup(question: str) -> str:
        """Look something up."""
        raise ValueError(f"canary-tool-error {question}")

    model = provider.chat_openai(api_key="sk-test-canary-key")
    claude = provider.chat_anthropic(api_key="sk-test-canary-key")
    question = [
        SystemMessage("canary-system"),
        HumanMessage("canary-prompt"),
        AIMessage(
            "canary-history", tool_calls=[{"name": "lookup", "args": {"question": "canary-args"}, "id": "canary-id"}]
        ),
        ToolMessage("canary-tool-result", tool_call_id="canary-id"),
    ]
    config = {
        "callbacks": [tracker.handler],
        "metadata": {"secret": "canary-metadata", "vital_user_id": "u-1", "nested": {"a": "canary-nested"}},
        "run_name": "canary-run-name",
    }
    tracker.install()
    for mode in MODES:
        provider.reply(Reply(text="canary-answer", tool_calls=[("lookup", {"question": "canary-call-args"})]))
        await ask(model, mode, config, question)
        await ask(claude, mode, config, question)
        provider.reply(Reply(text="canary-answer", omit_usage=True))
        await ask(model, mode, config, question)
        provider.reply(Reply(status=400, error_message="canary-error"))
        with pytest.raises(Exception, match="canary-error"):
            await ask(model, mode, config, question)
    with pytest.raises(ValueError, match="canary"), tracker.workflow("w") as workflow:
        lookup.invoke({"question": "canary-tool-input"}, workflow.config(metadata={"secret": "canary-metadata"}))
    provider.reply(Reply(status=401, error_message="canary-error"))
    with pytest.raises(Exception, match="canary"):
        tracker.embeddings(provider.openai_embeddings(api_key="sk-test-canary-key")).embed_documents(["canary-text"])
    tracker.record(model="gpt-4o", prompt_tokens=1, completion_tokens=1, error="canary error text, not a class name")
    provider.reply(Reply(hang=True))
    task = asyncio.create_task(model.ainvoke(question, config))
    await asyncio.to_thread(provider.wait_for_stalls, 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    del task
    await asyncio.sleep(0)
    collect()
    tracker.uninstall()
    assert tracker.flush().complete
    assert len(rows()) == 4 * len(MODES) + 3
    assert len(rows("select distinct request_hash from token_usage_logs")) == (1 if hash_key is None else 3)
    everything = every_text(rows)
    assert "u-1" in everything
    assert "canary" not in everything
    assert "canary" not in "\n".join(r.getMessage() for r in caplog.records if r.name.startswith("vital_tracking"))
    assert "canary" not in repr(tracker) + repr(tracker.handler) + repr(tracker.settings) + repr(tracker.stats())


def test_metadata_that_the_team_allows_is_stored(make_tracker: Callable[..., VitalTracker], rows: Rows) -> None:
    """Only the named keys get through."""
    tracker = make_tracker(metadata_keys=frozenset({"ward"}))
    model = GenericFakeChatModel(messages=iter([AIMessage("ok")]))
    model.invoke("Hi", {"callbacks": [tracker.handler], "metadata": {"ward": "B", "name": "canary"}})
    row = only(stored(tracker, rows))
    assert row["metadata"]["ward"] == "B"
    assert "canary" not in str(row)
