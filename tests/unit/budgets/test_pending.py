"""Waiting for an answer, in a thread and in an event loop: both go the same way, since it is written once.

If one of these fails, a call that is cancelled keeps what it holds, or an event loop stands still, or never hears the answer.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from vital_tracking.budgets.pending import Answer, PendingRequest, Sleep, Wait, Waits, run, run_async
from vital_tracking.core.admission import Admission, Request
from vital_tracking.core.context import CallContext


def pending_request() -> PendingRequest:
    return PendingRequest(Request(CallContext()))


class Failing:
    """A wait that ends in an error."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def block(self) -> None:
        raise self.error

    async def suspend(self) -> None:
        raise self.error


def drive(waits: Callable[[], Waits[Any]]) -> list[Any]:
    """The results of both ways; an error in place of a result where one comes out."""
    results: list[Any] = []
    for way in (lambda: run(waits()), lambda: asyncio.run(run_async(waits()))):
        try:
            results.append(way())
        except BaseException as error:
            results.append(error)
    return results


def test_both_ways_wait_for_all_and_return_the_result() -> None:
    def waits() -> Waits[int]:
        yield Sleep(0)
        yield Sleep(0)
        return 7

    assert drive(waits) == [7, 7]


def test_what_needs_no_wait_returns_at_once() -> None:
    def waits() -> Waits[int]:
        return 7
        yield

    assert drive(waits) == [7, 7]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, asyncio.CancelledError])
def test_who_is_interrupted_can_give_back_what_it_holds(kind: type[BaseException]) -> None:
    """The interruption arrives where the wait was asked for, and goes on to the caller."""
    given_back: list[BaseException] = []

    def waits() -> Waits[None]:
        try:
            yield Failing(error)
        except BaseException as caught:
            given_back.append(caught)
            raise

    error = kind()
    with pytest.raises(kind):
        run(waits())
    coroutine = run_async(waits())
    with pytest.raises(kind):
        coroutine.send(None)
    assert given_back == [error, error]


def test_a_wait_that_fails_is_decided_by_who_asked_for_it() -> None:
    """A fault of ours in waiting must not reach the call that waits."""

    def waits() -> Waits[str]:
        try:
            yield Failing(RuntimeError())
        except RuntimeError:
            yield Sleep(0)
            return "goes on"
        return "unseen"

    assert drive(waits) == ["goes on", "goes on"]


def test_an_answer_is_heard_whenever_it_comes() -> None:
    """Before the wait begins, while it lasts, and from another thread."""
    for answered_before in (True, False):
        made: list[PendingRequest] = []

        def waits(made: list[PendingRequest] = made, before: bool = answered_before) -> Waits[Answer | None]:
            pending = pending_request()
            made.append(pending)

            def answer() -> None:
                pending.resolve(Answer(Admission(action="throttle")))

            if before:
                answer()
            else:
                threading.Timer(0.01, answer).start()
            yield pending.answer_within(60)
            return pending.answer

        assert drive(waits) == [Answer(Admission(action="throttle"))] * 2
        assert not any(pending.give_up() for pending in made)


def test_who_has_waited_long_enough_goes_on_without_an_answer() -> None:
    def waits() -> Waits[bool]:
        pending = pending_request()
        yield pending.answer_within(0.01)
        return pending.give_up() and not pending.resolve(Answer(Admission()))

    assert drive(waits) == [True, True]


def test_an_answer_after_the_event_loop_has_closed_harms_nobody() -> None:
    """The thread that answers goes on to the next call."""
    pending = pending_request()

    async def waits() -> None:
        wait: Wait = pending.answer_within(60)
        task = asyncio.create_task(wait.suspend())
        await asyncio.sleep(0)
        task.cancel()

    asyncio.run(waits())
    assert pending.resolve(Answer(Admission()))
