"""Where there is no spool, calls wait in memory as they are: with what their rows are made of, and nothing else."""

from __future__ import annotations

import gc
import weakref
from typing import Any
from uuid import UUID, uuid4
from weakref import ref

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from langsmith.run_helpers import tracing_context
from langsmith.run_trees import RunTree

from vital_tracking import Settings, VitalTracker
from vital_tracking.calls.live import LiveCall
from vital_tracking.core.context import CallContext
from vital_tracking.testing import MemoryStore

ANSWER = LLMResult(
    generations=[
        [
            ChatGeneration(
                message=AIMessage(
                    "an answer", usage_metadata={"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
                )
            )
        ]
    ]
)


@pytest.fixture
def tracker() -> VitalTracker:
    return VitalTracker(MemoryStore(), settings=Settings(background=False))


def one_call(tracker: VitalTracker, metadata: dict[str, Any], parent: UUID | None = None) -> None:
    run_id = uuid4()
    tracker.handler.on_chat_model_start(
        {"id": ["langchain_openai", "ChatOpenAI"]},
        [[HumanMessage("a secret question")]],
        run_id=run_id,
        parent_run_id=parent,
        metadata=metadata,
        invocation_params={"model": "gpt-4o-mini", "stop": ["a secret stop"]},
    )
    tracker.handler.on_llm_end(ANSWER, run_id=run_id, parent_run_id=parent)


def waiting(tracker: VitalTracker) -> list[Any]:
    return tracker.handler.recorder._queue.read(10_000)


def test_a_waiting_call_holds_nothing_that_its_row_does_not(tracker: VitalTracker) -> None:
    metadata = {"vital_user_id": "u-1", "vital_usr": "?", "thread_id": "t-1", "notes": "a secret note"}
    one_call(tracker, metadata)
    (frame,) = waiting(tracker)
    call = frame.item
    assert type(call) is LiveCall
    held = [getattr(call, name) for name in LiveCall.__slots__ if hasattr(call, name)]
    assert "secret" not in repr([call.context, call.metadata, call.params, held])
    tracker.flush()
    store: Any = tracker.store
    (row,) = store.calls
    assert (row["user_id"], row["session_id"], row["model"]) == ("u-1", "t-1", "gpt-4o-mini")
    assert row["metadata"]["unknown_keys"] == ["vital_usr"]
    assert "notes" not in row["metadata"]


def test_a_waiting_call_does_not_keep_its_parents_run_open(tracker: VitalTracker) -> None:
    """The end of an id says that its run has ended."""
    parent = uuid4()
    told, gone = str(parent), ref(parent)
    one_call(tracker, {}, parent)
    del parent
    gc.collect()
    assert gone() is None
    tracker.flush()
    store: Any = tracker.store
    assert [row["parent_run_id"] for row in store.calls] == [told]


def test_calls_behind_the_first_thousand_wait_packed_and_are_stored_alike(tracker: VitalTracker) -> None:
    for _ in range(1002):
        one_call(tracker, {"vital_user_id": "u-1"})
    frames = waiting(tracker)
    assert [frame.item is None for frame in frames] == [False] * 1000 + [True] * 2
    tracker.flush()
    store: Any = tracker.store
    for row in store.calls:
        del row["id"], row["created_at"], row["run_id"], row["trace_id"], row["latency_ms"]
    assert len(store.calls) == 1002
    assert all(row == store.calls[0] for row in store.calls)


@pytest.mark.parametrize("spool", [False, True])
def test_calls_with_nearly_the_same_metadata_keep_their_own_users(tmp_path: Any, spool: bool) -> None:
    """Values that are equal as keys are not the same, and nor are metadata of one scope and of none."""
    store = MemoryStore()
    store.in_memory = not spool
    tracker = VitalTracker(store, settings=Settings(background=False, spool_dir=tmp_path))
    with tracker.conversation(user_id="u-1", session_id="s-1") as conversation:
        handed_on = dict(conversation.config()["metadata"])
        for metadata in (
            {"vital_panel_position": 1},
            {"vital_panel_position": True},
            {"vital_panel_position": 1.0},
            {"vital_agent_id": ["a"]},
            {"vital_user_id": "u-2"},
            {},
            handed_on,
            {**handed_on, "vital_user_id": "u-2"},
        ):
            one_call(tracker, metadata)
    one_call(tracker, handed_on)
    one_call(tracker, {"vital_user_id": "u-3"})
    one_call(tracker, {})
    tracker.flush()
    told = [(row.get("user_id"), row.get("session_id"), row.get("panel_position")) for row in store.calls]
    assert told == [
        ("u-1", "s-1", 1),
        ("u-1", "s-1", None),  # True is no position
        ("u-1", "s-1", 1),
        ("u-1", "s-1", None),
        ("u-2", "s-1", None),
        ("u-1", "s-1", None),
        ("u-1", "s-1", None),
        ("u-2", "s-1", None),
        ("u-1", "s-1", None),
        ("u-3", None, None),
        (None, None, None),
    ]
    tracker.close()


def test_each_tracker_applies_its_own_default() -> None:
    stores = [MemoryStore(), MemoryStore()]
    for number, store in enumerate(stores):
        tracker = VitalTracker(
            store, default=CallContext(organization_id=f"o-{number}"), settings=Settings(background=False)
        )
        for _ in range(2):
            one_call(tracker, {"vital_user_id": "u-1"})
        tracker.flush()
    assert [[row["organization_id"] for row in store.calls] for store in stores] == [["o-0", "o-0"], ["o-1", "o-1"]]


def test_a_waiting_call_keeps_no_text(quick: VitalTracker) -> None:
    """An outage must not fill memory with what users said."""

    class Text(str):
        __slots__ = ("__weakref__",)

    prompt = Text("canary")
    tree = RunTree(name="outer", run_type="chain", inputs={"q": "canary"}, client=None)
    gone = weakref.ref(prompt), weakref.ref(tree)
    handler, run_id = quick.handler, uuid4()
    with tracing_context(parent=tree, enabled=False):
        handler.on_chat_model_start(
            {"kwargs": {"p": prompt}}, [[prompt]], run_id=run_id, invocation_params={"p": prompt}
        )
    answer = AIMessage("canary", response_metadata={"logprobs": [prompt], "model_name": "gpt-4o"})
    from langchain_core.outputs import ChatGeneration, LLMResult

    handler.on_llm_end(LLMResult(generations=[[ChatGeneration(message=answer)]]), run_id=run_id)
    del prompt, tree, answer
    gc.collect()
    assert [ref() for ref in gone] == [None, None]
    assert quick.stats().waiting == 1
