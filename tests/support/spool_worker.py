"""A process that makes calls to be killed over: `python -m tests.support.spool_worker <job> <options as JSON>`.

What has happened is told by lines in a log, one write each, so that kill -9 leaves every line that was said:
    S <run id>                         the start of a LangChain call has returned
    E <run id> <status> <in> <out>     its end has returned
    R <call id> <in> <out>             a recorded call's end has returned
`in` and `out` are token counts; a call that was not answered is estimated to have taken PROMPT_TOKENS in and none out.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import selectors
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NoReturn
from uuid import uuid4

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, BaseCallbackHandler, CallbackManagerForLLMRun
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatResult

from vital_tracking import Settings, VitalTracker
from vital_tracking.langchain.fake import FakeUsageModel
from vital_tracking.stores.postgres import PostgresStore

MODEL = "gpt-4o-mini"
PROMPT = "Forty bytes of question, not one more..."
PROMPT_TOKENS = 10
MODELS = 22


class Log:
    """A file that every process of a test appends to, and a pipe that counts what one of them has said."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.pipe: int | None = None

    def say(self, *words: object) -> None:
        """One line, in one write."""
        os.write(self._file, (" ".join(map(str, words)) + "\n").encode())
        if self.pipe is not None:
            os.write(self.pipe, b".")


@dataclass(frozen=True)
class Story:
    """What a log says: of each run and each recorded call how it ended, as (status, tokens in, tokens out)."""

    started: frozenset[str]
    ended: dict[str, tuple[str, int, int]]
    recorded: dict[str, tuple[str, int, int]]

    @classmethod
    def read(cls, path: Path) -> Story:
        """The story that a log tells; a process that was killed may have begun a call that it has not logged."""
        started: set[str] = set()
        ended: dict[str, tuple[str, int, int]] = {}
        recorded: dict[str, tuple[str, int, int]] = {}
        for line in path.read_text().splitlines():
            kind, key, *rest = line.split()
            if kind == "S":
                started.add(key)
            elif kind == "E":
                ended[key] = (rest[0], int(rest[1]), int(rest[2]))
            else:
                recorded[key] = ("ok", int(rest[0]), int(rest[1]))
        return cls(frozenset(started), ended, recorded)


class Witness(BaseCallbackHandler):
    """Logs the starts and ends of calls; listed behind the tracker's handler, which has done its part by then.

    But on an event loop LangChain tells handlers that are left to a thread last, and so this one first: there the model says
    that it was asked, and who asked it says that it has answered.
    """

    run_inline = True

    def __init__(self, log: Log) -> None:
        self._log = log

    def on_chat_model_start(self, serialized: Any, messages: Any, *, run_id: Any, **kwargs: Any) -> None:
        """A call has begun."""
        if not _on_a_loop():
            self.asked(run_id)

    def asked(self, run_id: object) -> None:
        """A model was asked."""
        self._log.say("S", run_id)

    def on_llm_end(self, response: Any, *, run_id: Any, **kwargs: Any) -> None:
        """A call was answered."""
        if not _on_a_loop():
            self.answered(run_id, response.generations[0][0].message)

    def answered(self, run_id: object, message: Any) -> None:
        """Who asked has the answer."""
        usage = message.usage_metadata
        self._log.say("E", run_id, "ok", usage["input_tokens"], usage["output_tokens"])

    def on_llm_error(self, error: BaseException, *, run_id: Any, **kwargs: Any) -> None:
        """A call has failed."""
        if not _on_a_loop():
            self._log.say("E", run_id, "error", 0, 0)


def _on_a_loop() -> bool:
    return asyncio._get_running_loop() is not None


class WitnessedModel(FakeUsageModel):
    """Tells witnesses on an event loop that it was asked."""

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        assert run_manager is not None
        for handler in run_manager.handlers:
            if isinstance(handler, Witness):
                handler.asked(run_manager.run_id)
        return await super()._agenerate(messages, stop, run_manager, **kwargs)


class FailingModel(FakeUsageModel):
    """Never answers."""

    def _call(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> str:
        raise ValueError("no answer")


class HangingModel(FakeUsageModel):
    """Lets its caller wait for ever."""

    def _call(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> str:
        threading.Event().wait()
        raise AssertionError


class SlowModel(WitnessedModel):
    """Answers in a minute, on an event loop too."""

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        answer = await super()._agenerate(messages, stop, run_manager, **kwargs)
        await asyncio.sleep(60)
        return answer


def open_tracker(**settings: Any) -> VitalTracker:
    """A tracker on $DATABASE that spools to $SPOOL; $DESCRIPTION says what it takes that database for."""
    options = {"spool_dir": Path(os.environ["SPOOL"]), **settings}
    store = PostgresStore(os.environ["DATABASE"], description=os.environ.get("DESCRIPTION"))
    return VitalTracker(store, settings=Settings(**options))


@cache
def model_for(number: int, kind: type[FakeUsageModel] = WitnessedModel) -> FakeUsageModel:
    """A model whose usage is the call's own, so that its cost tells which call it was."""
    return kind(responses=["Well."], input_tokens=100 + number, output_tokens=1 + number % 50)


def record(tracker: VitalTracker, log: Log, number: int) -> None:
    """Record one call that nobody watched, by itself or after asking for it."""
    usage: dict[str, Any] = {"prompt_tokens": 100 + number, "completion_tokens": 1 + number % 50}
    if number % 3:
        call_id = tracker.record(provider="openai", model=MODEL, **usage)
    else:
        call_id = tracker.admit(provider="openai", model=MODEL, prompt=PROMPT).record(**usage)
    log.say("R", call_id, *usage.values())


def ask(tracker: VitalTracker, log: Log, number: int) -> None:
    """Make one LangChain call: answered at once, streamed, or failed."""
    config: Any = {"callbacks": [tracker.handler, Witness(log)]}
    if number % 7 == 0:
        try:
            model_for(number, FailingModel).invoke(PROMPT, config)
        except ValueError:
            return
    elif number % 3 == 0:
        list(model_for(number).stream(PROMPT, config))
    else:
        model_for(number).invoke(PROMPT, config)


async def ask_many(tracker: VitalTracker, log: Log, numbers: Iterator[int]) -> NoReturn:
    """Make LangChain calls on an event loop, of which some are cancelled."""
    witness = Witness(log)
    callbacks = [tracker.handler, witness]

    async def ask_one(number: int) -> None:
        run_id = uuid4()
        witness.answered(run_id, await model_for(number).ainvoke(PROMPT, {"callbacks": callbacks, "run_id": run_id}))

    while True:
        tasks = [asyncio.ensure_future(ask_one(number)) for number in (next(numbers), next(numbers))]
        slow = asyncio.ensure_future(model_for(next(numbers), SlowModel).ainvoke(PROMPT, {"callbacks": callbacks}))
        await asyncio.gather(*tasks)
        slow.cancel()
        await asyncio.gather(slow, return_exceptions=True)


def warm_up(tracker: VitalTracker, log: Log) -> None:
    """Make calls of each sort, with all models that `forking` uses.

    A child that is forked while another thread imports a module, or fills a cached property of LangChain's, finds a lock that
    nobody will ever give back. That is Python's affair and not what is asked here, so both are done before.
    """
    for number in range(MODELS):
        record(tracker, log, number)
        ask(tracker, log, number)
    assert tracker.flush(60).complete


def live(tracker: VitalTracker, log: Log, seed: int) -> list[threading.Thread]:
    """Make calls of all sorts on several threads, until something ends the process."""
    numbers = random.Random(seed)

    def forever(work: Callable[[VitalTracker, Log, int], None]) -> None:
        while True:
            work(tracker, log, numbers.randrange(5000))

    def on_a_loop() -> None:
        asyncio.run(ask_many(tracker, log, iter(lambda: numbers.randrange(5000), None)))

    threads = [
        *(threading.Thread(target=forever, args=(work,), daemon=True) for work in (record, ask, ask)),
        threading.Thread(target=on_a_loop, daemon=True),
    ]
    for thread in threads:
        thread.start()
    return threads


def doomed(*, log: str, seed: int, kills: int, at_once: int, inherited: bool) -> None:
    """Fork children that live on until they have said a random number of lines, and kill each then, with -9.

    They have the tracker of this process, which has worked with it before, or (not `inherited`) make one.
    """
    lines = Log(Path(log))
    settings = {"flush_interval_s": 0.05, "batch_size": 20, "segment_bytes": 32 << 10}
    tracker = open_tracker(**settings) if inherited else None
    if tracker is not None:
        warm_up(tracker, lines)
    chance = random.Random(seed)
    for first in range(0, kills, at_once):
        waiting = selectors.DefaultSelector()
        for number in range(first, min(first + at_once, kills)):
            reads, writes = os.pipe()
            child = os.fork()
            if child == 0:
                os.close(reads)
                lines.pipe = writes
                for thread in live(tracker or open_tracker(**settings), lines, seed + number):
                    thread.join()
                os._exit(1)
            os.close(writes)
            waiting.register(reads, selectors.EVENT_READ, [child, chance.choice((5, 50, 300)) + chance.randrange(50)])
        while waiting.get_map():
            for key, _ in waiting.select():
                said = len(os.read(key.fd, key.data[1]))
                key.data[1] -= said
                if key.data[1] <= 0 or not said:
                    os.kill(key.data[0], signal.SIGKILL)
                    assert os.waitstatus_to_exitcode(os.waitpid(key.data[0], 0)[1]) == -signal.SIGKILL
                    waiting.unregister(key.fd)
                    os.close(key.fd)
    print(kills, "killed", flush=True)


def forking(*, log: str, forks: int, at_once: int, patience_s: float) -> None:
    """Fork children while threads record; each child records one to three calls and ends in one of four ways."""
    lines = Log(Path(log))
    tracker = open_tracker(flush_interval_s=0.05, segment_bytes=64 << 10)
    warm_up(tracker, lines)
    done = threading.Event()

    def load(work: Callable[[VitalTracker, Log, int], None]) -> None:
        number = 0
        while not done.wait(0.005):
            number += 1
            work(tracker, lines, number % MODELS)

    threads = [threading.Thread(target=load, args=(work,), daemon=True) for work in (record, ask, record)]
    for thread in threads:
        thread.start()
    children: dict[int, tuple[float, int]] = {}
    # Few end by `sys.exit`: Python takes half a second for it, where LangChain is loaded.
    ends = random.Random(forks).choices(("_exit", "kill", "close", "exit"), (16, 16, 6, 1), k=forks)
    for number in range(forks):
        child = os.fork()
        if child == 0:
            for call in range(1 + number % 3):
                (record, ask)[(number + call) % 2](tracker, lines, (number + call) % MODELS)
            if ends[number] == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if ends[number] == "exit":
                sys.exit(0)
            if ends[number] == "close":
                assert tracker.close(60).complete
            os._exit(0)
        children[child] = (time.monotonic() + patience_s, -signal.SIGKILL if ends[number] == "kill" else 0)
        _reap(children, at_once - 1)
    _reap(children, 0)
    done.set()
    for thread in threads:
        thread.join()
    print(forks, "forked", flush=True)


def _reap(children: dict[int, tuple[float, int]], left: int) -> None:
    """Wait until no more than so many children are left, each as long as it is given."""
    while len(children) > left:
        for child, (deadline, code) in list(children.items()):
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                assert os.waitstatus_to_exitcode(status) == code, (child, status)
                del children[child]
            elif time.monotonic() > deadline:
                os.kill(child, signal.SIGABRT)  # faulthandler says where it hangs
                raise TimeoutError(f"child {child} hangs")
        time.sleep(0.002)


def main() -> None:
    """Do one job."""
    job, options = sys.argv[1], json.loads(sys.argv[2])
    jobs: dict[str, Callable[..., None]] = {"doomed": doomed, "forking": forking}
    jobs[job](**options)


if __name__ == "__main__":
    import faulthandler

    faulthandler.enable()
    main()
