"""What grows in the calling thread: the start and the end of a call, a chain event, a token. Nothing of it asks a database."""

from __future__ import annotations

import contextlib
import contextvars
import itertools
import uuid
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

from langchain_core.messages import AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk
from langgraph.graph import END, START, StateGraph

from benchmarks.growing import Growth, own_time, shortest
from benchmarks.spool import ANSWER, METADATA, PARAMETERS, QUESTION, make_calls, sink_tracker
from benchmarks.workloads import Tape
from vital_tracking import VitalTracker

CALLS = 50  # in one measurement
TURNS = 5  # of which the shortest counts
OPEN = (10, 100, 1000)
SESSIONS = (1, 10, 100)
EVENTS = (10, 100, 1000)
TOKENS = (10, 100, 1000)


def call_us(tracker: VitalTracker) -> float:
    """Microseconds of the calling thread's own time for the start and the end of a call."""
    return shortest(lambda: make_calls(tracker, CALLS), TURNS) / CALLS * 1e6


def after_delivery(tracker: VitalTracker, measured: Callable[[], float]) -> float:
    """What is measured when nothing waits."""
    tracker.flush(60)
    return measured()


def begin(tracker: VitalTracker, count: int) -> list[uuid.UUID]:
    """The ids of so many calls that have begun; without them nobody knows that the calls go on."""
    ids = [uuid.uuid4() for _ in range(count)]
    for run_id in ids:
        tracker.handler.on_chat_model_start(
            {},
            QUESTION,
            run_id=run_id,
            parent_run_id=uuid.uuid4(),
            metadata=dict(METADATA),
            invocation_params=PARAMETERS,
        )
    return ids


@contextlib.contextmanager
def calls(folder: Path, before: Sequence[int]) -> Iterator[list[Growth]]:
    """The start and the end of a call among calls that are open, after calls that are over, in one of several scopes."""
    with contextlib.ExitStack() as opened:

        def tracker() -> VitalTracker:
            made = sink_tracker(folder, spool=True)
            opened.callback(made.close, 0)
            return made

        busy = {count: tracker() for count in OPEN}
        kept = [begin(one, count) for count, one in busy.items()]
        opened.callback(kept.clear)
        old = {count: tracker() for count in before}
        for count, one in old.items():
            make_calls(one, count)
            one.flush(600)
        scoped = {count: (one := tracker(), scopes(one, count)) for count in SESSIONS}
        what = "a call's start and end, in its thread"
        yield [
            Growth(
                what,
                "calls open at once",
                "us",
                OPEN,
                [partial(after_delivery, t, partial(call_us, t)) for t in busy.values()],
            ),
            Growth(
                what,
                "calls made before",
                "us",
                before,
                [partial(after_delivery, t, partial(call_us, t)) for t in old.values()],
            ),
            Growth(
                what,
                "scopes open at once",
                "us",
                SESSIONS,
                [partial(after_delivery, t, partial(scoped_us, t, inside)) for t, inside in scoped.values()],
            ),
            Growth(
                "a look of the writer for calls without an end",
                "calls open at once",
                "us",
                OPEN,
                [partial(shortest, partial(own_us, one.handler._calls.close_stale), TURNS) for one in busy.values()],
                total=True,
            ),
        ]


def own_us(work: Callable[[], Any]) -> float:
    """Microseconds of this thread's own time."""
    return own_time(work) * 1e6


def scopes(tracker: VitalTracker, count: int) -> list[tuple[contextvars.Context, dict[str, Any]]]:
    """So many conversations at once, each of a user and a session of its own, and the metadata of calls in them."""
    inside = []
    own = {name: value for name, value in METADATA.items() if not name.startswith("vital_")}
    for number in range(count):
        context = contextvars.copy_context()
        scope = tracker.conversation(user_id=f"u-{number}", session_id=f"s-{number}", agent=f"a-{number % 10}")
        context.run(scope.__enter__)
        inside.append((context, {**own, **scope.config()["metadata"]}))
    return inside


def scoped_us(tracker: VitalTracker, inside: Sequence[tuple[contextvars.Context, dict[str, Any]]]) -> float:
    """Microseconds for a call, where each is made in the next scope."""
    calls = [
        (context, uuid.uuid4(), dict(metadata))
        for context, metadata in itertools.islice(itertools.cycle(inside), max(CALLS, len(inside)))
    ]

    def call(run_id: uuid.UUID, metadata: dict[str, Any]) -> None:
        tracker.handler.on_chat_model_start(
            {}, QUESTION, run_id=run_id, metadata=metadata, invocation_params=PARAMETERS
        )
        tracker.handler.on_llm_end(ANSWER, run_id=run_id)

    def all_of_them() -> None:
        for context, run_id, metadata in calls:
            context.run(call, run_id, metadata)

    return shortest(lambda: own_us(all_of_them), TURNS) / len(calls)


# Graphs


class Count(TypedDict):
    left: int


def tape_of(events: int) -> Tape:
    """The first chain events, and about so many, of a LangGraph graph whose node goes round and round."""
    graph = StateGraph(Count)
    graph.add_node("work", lambda state: {"left": state["left"] - 1})
    graph.add_edge(START, "work")
    graph.add_conditional_edges("work", lambda state: "work" if state["left"] > 0 else END)
    compiled = graph.compile()

    def run(steps: int) -> Tape:
        tape = Tape()
        compiled.invoke({"left": steps}, {"callbacks": [tape], "recursion_limit": steps + 5})
        return tape

    one, two = len(run(1).events), len(run(2).events)
    return run(max(round((events - one) / (two - one)) + 1, 1))


@contextlib.contextmanager
def graphs(folder: Path) -> Iterator[list[Growth]]:
    """Chain events of a graph, told by LangChain."""
    tracker = sink_tracker(folder, spool=True)
    tapes = [tape_of(count) for count in EVENTS]

    def event_us(tape: Tape) -> float:
        repeats = max(EVENTS[-1] // len(tape.events), 1)
        played = partial(own_us, lambda: [tape.played_to(tracker.handler) for _ in range(repeats)])
        return shortest(played, TURNS) / repeats / len(tape.events)

    yield [
        Growth(
            "a chain event of a LangGraph graph, told by LangChain",
            "chain events of the run",
            "us",
            [len(tape.events) for tape in tapes],
            [partial(event_us, tape) for tape in tapes],
        )
    ]
    tracker.close(0)


# Streams


@contextlib.contextmanager
def streams(folder: Path) -> Iterator[list[Growth]]:
    """Tokens of a streamed call."""
    tracker = sink_tracker(folder, spool=True)
    chunk = ChatGenerationChunk(message=AIMessageChunk("word "))

    def token_us(tokens: int) -> float:
        handler = tracker.handler

        def streamed() -> float:
            (run_id,) = begin(tracker, 1)

            def all_of_them() -> None:
                for _ in range(tokens):
                    handler.on_llm_new_token("word ", chunk=chunk, run_id=run_id)

            took = own_time(all_of_them)
            handler.on_llm_end(ANSWER, run_id=run_id)
            return took / tokens * 1e6

        repeats = TOKENS[-1] // tokens
        return shortest(lambda: sum(streamed() for _ in range(repeats)) / repeats, TURNS)

    yield [
        Growth(
            "a token of a streamed call, in its thread",
            "tokens of the call",
            "us",
            TOKENS,
            [partial(after_delivery, tracker, partial(token_us, count)) for count in TOKENS],
        )
    ]
    tracker.close(0)
