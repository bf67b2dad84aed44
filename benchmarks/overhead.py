"""What recording adds to one call in the calling thread, beside a handler with empty methods, in one run.

    python -m benchmarks.overhead [--rounds 15]

Interleaved rounds; microseconds a call over the same call without a handler, medians of the differences within a round. Machines
are noisy: read the ratios. The store accepts and discards, so that what is measured is this process.

  own time   of the calling thread (time.thread_time): what recording does there
  wall time  with what the thread waits for: the interpreter, the processor
  queued     the writer's thread waits until the end; `recorded` has it at work beside the calls: the difference is what it takes
             of the interpreter. Both with the spool off and on; what the spool adds is told of the queued ones, and measured
             closer by `benchmarks.spool`
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from vital_tracking import Settings, VitalTracker
from vital_tracking.testing import MemoryStore

CHUNKS = 100
CONCURRENT = 100


class InstantModel(BaseChatModel):
    """Answers at once and reports usage."""

    @property
    def _llm_type(self) -> str:
        return "instant"

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> Any:
        return {"ls_provider": "openai", "ls_model_name": "gpt-4o-mini", "ls_model_type": "chat"}

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        usage = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
        message = AIMessage("hello", usage_metadata=usage, response_metadata={"model_name": "gpt-4o-mini"})
        return ChatResult(generations=[ChatGeneration(message=message)])

    async def _agenerate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        return self._generate(messages)

    def _stream(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Iterator[Any]:
        for chunk in _chunks():
            if run_manager:
                run_manager.on_llm_new_token("x", chunk=chunk)
            yield chunk

    async def _astream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        for chunk in _chunks():
            if run_manager:
                await run_manager.on_llm_new_token("x", chunk=chunk)
            yield chunk


def _chunks() -> Iterator[ChatGenerationChunk]:
    usage: Any = {"input_tokens": 10, "output_tokens": CHUNKS, "total_tokens": 10 + CHUNKS}
    for number in range(CHUNKS):
        last = usage if number == CHUNKS - 1 else None
        yield ChatGenerationChunk(message=AIMessageChunk(content="x", usage_metadata=last))


class EmptyHandler(BaseCallbackHandler):
    """The floor: LangChain's dispatch to methods that do nothing."""

    run_inline = True
    raise_error = True

    def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None: ...

    def on_llm_new_token(self, *args: Any, **kwargs: Any) -> None: ...

    def on_llm_end(self, *args: Any, **kwargs: Any) -> None: ...

    def on_llm_error(self, *args: Any, **kwargs: Any) -> None: ...


class SinkStore(MemoryStore):
    """Accepts and discards."""

    description = "a sink"
    in_memory = False  # so that there may be a spool

    def call(self, function: str, /, **arguments: object) -> Any:
        if function.startswith("record_"):
            return {"inserted": 0, "duplicate": 0, "rejected": []}
        return super().call(function, **arguments)


model = InstantModel()


def invoke(config: Any) -> int:
    for _ in range(300):
        model.invoke("hi", config=config)
    return 300


def stream(config: Any) -> int:
    for _ in range(20):
        for _ in model.stream("hi", config=config):
            pass
    return 20


def ainvoke(config: Any) -> int:
    async def run() -> None:
        for _ in range(3):
            await asyncio.gather(*(model.ainvoke("hi", config=config) for _ in range(CONCURRENT)))

    asyncio.run(run())
    return 3 * CONCURRENT


def astream(config: Any) -> int:
    async def one() -> None:
        async for _ in model.astream("hi", config=config):
            pass

    async def run() -> None:
        await asyncio.gather(*(one() for _ in range(20)))

    asyncio.run(run())
    return 20


def measure(rounds: int, folder: Path) -> None:
    off: dict[str, Any] = {"spool": False, "queue_bytes": 1 << 30}
    on: dict[str, Any] = {"spool": True, "spool_dir": folder}
    late: dict[str, Any] = {"flush_interval_s": 3600, "batch_size": 1000}
    trackers = {
        "queued": VitalTracker(SinkStore(), settings=Settings(**off, **late)),
        "queued+spool": VitalTracker(SinkStore(), settings=Settings(**on, **late)),
        "recorded": VitalTracker(SinkStore(), settings=Settings(**off)),
        "recorded+spool": VitalTracker(SinkStore(), settings=Settings(**on)),
    }
    configs: dict[str, Any] = {"none": {}, "empty": {"callbacks": [EmptyHandler()]}}
    for name, tracker in trackers.items():
        with tracker.conversation(user_id="u-1", session_id="s-1") as conversation:
            configs[name] = conversation.config()
    configs["empty"]["metadata"] = dict(configs["recorded"]["metadata"])
    tables: dict[str, list[str]] = {"own time": [], "wall time": []}
    works: tuple[Callable[[Any], int], ...] = (invoke, stream, ainvoke, astream)
    for work in works:
        times: dict[str, dict[str, list[float]]] = {table: {name: [] for name in configs} for table in tables}
        for number in range(rounds + 1):
            for name, config in configs.items():
                gc.collect()
                own, wall = time.thread_time(), time.perf_counter()
                calls = work(config)
                own, wall = time.thread_time() - own, time.perf_counter() - wall
                if number:  # the first round warms everything up
                    times["own time"][name].append(own / calls * 1e6)
                    times["wall time"][name].append(wall / calls * 1e6)
                for tracker in trackers.values():
                    tracker.flush(60)
        for table, lines in tables.items():
            lines.append(line(work.__name__, times[table]))
    for table, lines in tables.items():
        print(
            f"{table:<10}"
            + "".join(f"{name:>{width(name)}}" for name in configs)
            + f"{'queued/empty':>15}{'recorded/empty':>16}{'spool adds':>12}{'spool/empty':>13}"
        )
        print("\n".join(lines), end="\n\n")
    for tracker in trackers.values():
        tracker.close()


def line(work: str, times: dict[str, list[float]]) -> str:
    """Of the call itself its microseconds, of the others what they add, as medians of the differences within a round."""

    def more(name: str, than: str) -> float:
        return statistics.median(one - other for one, other in zip(times[name], times[than], strict=True))

    shown = {"none": statistics.median(times["none"]), **{name: more(name, "none") for name in times if name != "none"}}
    spool = more("queued+spool", "queued")  # there the caller's thread is alone
    return (
        f"{work:<10}"
        + "".join(f"{value:>{width(name)}.1f}" for name, value in shown.items())
        + f"{shown['queued'] / shown['empty']:>15.2f}{shown['recorded'] / shown['empty']:>16.2f}"
        + f"{spool:>12.1f}{spool / shown['empty']:>13.2f}"
    )


def width(name: str) -> int:
    """Of a column."""
    return max(9, len(name) + 2)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    with tempfile.TemporaryDirectory(prefix="vital-bench-") as spool:
        measure(parser.parse_args().rounds, Path(spool))
