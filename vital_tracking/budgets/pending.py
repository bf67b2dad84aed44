"""A call that waits for the database's answer, and the two ways to wait for it.

What happens while calls wait is written once, as a generator that gives each wait and goes on after it. `run` waits in the
calling thread, `run_async` without holding up the event loop.
"""

from __future__ import annotations

import functools
import inspect
import threading
import time
from collections.abc import Callable, Coroutine, Generator, Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple, ParamSpec, Protocol, TypeAlias, TypeVar

from vital_tracking.budgets.estimate import Amounts
from vital_tracking.budgets.windows import Plan
from vital_tracking.core.admission import Admission, Request
from vital_tracking.core.context import CallContext
from vital_tracking.errors import BudgetExceeded

_LONGEST_WAIT_S: Final = 1e9

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class Wait(Protocol):
    """Something to wait for, in either of two ways."""

    def block(self) -> None:
        """Wait in this thread."""

    async def suspend(self) -> None:
        """Wait while the event loop goes on."""


Waits: TypeAlias = Generator[Wait, None, _Result]
"""Gives each wait in turn, and returns a result at last. An interruption or cancellation of a wait is thrown into it."""


def run(waits: Waits[_Result]) -> _Result:
    """Go through waits, each in this thread, and return the result."""
    try:
        wait = next(waits)
        while True:
            try:
                wait.block()
            except BaseException as error:  # noqa: BLE001 - interrupted at the keyboard
                wait = waits.throw(error)
            else:
                wait = next(waits)
    except StopIteration as end:
        result: _Result = end.value
        return result


async def run_async(waits: Waits[_Result]) -> _Result:
    """Go through waits, none of which holds up the event loop, and return the result."""
    try:
        wait = next(waits)
        while True:
            try:
                await wait.suspend()
            except BaseException as error:  # noqa: BLE001 - cancelled
                wait = waits.throw(error)
            else:
                wait = next(waits)
    except StopIteration as end:
        result: _Result = end.value
        return result


def blocking(waits: Callable[_Arguments, Waits[_Result]], name: str, doc: str) -> Callable[_Arguments, _Result]:
    """A function with the arguments of a generator of waits, that waits in the calling thread."""

    @functools.wraps(waits)
    def call(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        return run(waits(*args, **kwargs))

    _document(call, waits, name, doc)
    return call


def suspending(
    waits: Callable[_Arguments, Waits[_Result]], name: str, doc: str
) -> Callable[_Arguments, Coroutine[Any, Any, _Result]]:
    """A coroutine function with the arguments of a generator of waits, none of which holds up the event loop."""

    @functools.wraps(waits)
    async def call(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        return await run_async(waits(*args, **kwargs))

    _document(call, waits, name, doc)
    return call


def _document(call: Any, waits: Callable[..., Any], name: str, doc: str) -> None:
    """What `help()` shows: a name and text of its own, and the type of the result in place of the waits."""
    signature = inspect.signature(waits)
    returned = str(signature.return_annotation).removeprefix("Waits[").removesuffix("]")
    call.__name__, call.__doc__ = name, inspect.cleandoc(doc)
    call.__qualname__ = f"{waits.__qualname__.rpartition('.')[0]}.{name}"
    call.__signature__ = signature.replace(return_annotation=returned)


class Sleep(NamedTuple):
    """A wait of so many seconds."""

    seconds: float

    def block(self) -> None:
        """Wait in this thread."""
        time.sleep(self.seconds)

    async def suspend(self) -> None:
        """Wait while the event loop goes on."""
        import asyncio  # where an event loop runs it is there; who has none need not load it

        await asyncio.sleep(self.seconds)


class Answer(NamedTuple):
    """What a call is told: to go, after `wait_s` seconds; to stop; or, with neither, to ask once more after `wait_s` seconds."""

    admission: Admission | None = None
    error: BudgetExceeded | None = None
    wait_s: float = 0.0


class PendingRequest:
    """A call that waits, and its answer; `answer` stays None where the database gave none.

    `max_wait` is the longest wait for a throttle that its caller allows, in seconds; `clamp` whether the model's answer may be
    limited. `plan` and `amounts` are there once it was quoted. Safe from any thread: one asks, another one answers.
    """

    __slots__ = (
        "_lock",
        "_on_done",
        "ahead",
        "alone",
        "amounts",
        "answer",
        "calls",
        "clamp",
        "done",
        "gone",
        "max_tokens",
        "max_wait",
        "plan",
        "quoted",
        "request",
        "shortened",
        "standing",
        "tries",
    )

    def __init__(self, request: Request, max_wait: float = 0.0, clamp: bool = False) -> None:
        self.request = request
        self.max_wait = min(max_wait, _LONGEST_WAIT_S) if max_wait > 0 else 0.0
        self.clamp = clamp
        self.ahead = False  # more is fetched before it is needed: nobody waits
        self.alone = False  # no other call of its process is under way: it is quoted at what is thought of it
        self.plan: Plan
        self.amounts: Amounts
        self.quoted = False
        self.max_tokens: int | None = None  # what the model's answer must be limited to
        self.shortened = False
        self.tries = 0  # how often it was refused and asked for once more
        self.standing: Mapping[int, int] = {}  # what its process had of its windows when it was last asked for
        self.calls = 1  # of its plan, for which it wants further grants; 0: another request wants them for all
        self.done = threading.Event()
        self.answer: Answer | None = None
        self.gone = False  # its caller waits no more
        self._on_done: Callable[[], object] | None = None
        self._lock = threading.Lock()

    @classmethod
    def to_refill(cls, plan: Plan, amounts: Amounts) -> PendingRequest:
        """A request for more of what calls of a plan need, for which nobody waits."""
        pending = cls(Request(CallContext()))
        pending.plan, pending.amounts, pending.quoted, pending.ahead = plan, amounts, True, True
        return pending

    def quote(self, plan: Plan) -> None:
        """Note the plan of the call and what it may take; raises BudgetExceeded where a strict budget misses a limit."""
        self.plan = plan
        self.amounts, limited = plan.terms.quote(self.request, self.clamp)
        if self.alone:
            self.amounts = self.amounts.without_extra()
        if not self.shortened:
            self.max_tokens = limited
        self.quoted = True

    # For the call that waits

    def answer_within(self, seconds: float) -> Wait:
        """The wait for the answer, for at most so many seconds."""
        return _AnswerWait(self, seconds)

    def call_when_done(self, callback: Callable[[], object]) -> None:
        """Have it called when there is an answer or will be none, from whichever thread that is; perhaps twice."""
        self._on_done = callback
        if self.done.is_set():
            callback()

    def give_up(self) -> bool:
        """Wait no longer; an answer that has just come still counts. Returns whether there is none."""
        with self._lock:
            self.gone = self.answer is None
            return self.gone

    def cancel(self) -> Admission | None:
        """Want no answer any more; returns what was admitted by then, to be given back."""
        with self._lock:
            self.gone = True
            return None if self.answer is None else self.answer.admission

    # For the lease thread

    def resolve(self, answer: Answer) -> bool:
        """Give the answer; False where nobody waits for it any more."""
        with self._lock:
            if self.gone:
                return False
            self.answer = answer
        self._tell()
        return True

    def leave(self) -> None:
        """End the wait without an answer, so that the caller decides alone; nothing where there is an answer already."""
        if self.answer is None and not self.done.is_set():
            self._tell()

    def _tell(self) -> None:
        self.done.set()
        if self._on_done is not None:
            with suppress(RuntimeError):  # its event loop is closed
                self._on_done()


class _AnswerWait(NamedTuple):
    pending: PendingRequest
    seconds: float

    def block(self) -> None:
        self.pending.done.wait(self.seconds)

    async def suspend(self) -> None:
        import asyncio

        loop, done = asyncio.get_running_loop(), asyncio.Event()
        self.pending.call_when_done(lambda: loop.call_soon_threadsafe(done.set))
        with suppress(TimeoutError):
            async with asyncio.timeout(self.seconds):
                await done.wait()
