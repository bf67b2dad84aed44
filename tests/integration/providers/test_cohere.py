"""What Cohere bills, from the bytes it sends to the row's last decimal."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain_cohere import ChatCohere

from tests.integration.providers.cases_cohere import (
    FAILED,
    FAILED_STREAMS,
    INVOKED,
    REFUSED,
    STREAMED,
    answer,
    build,
)
from tests.integration.providers.corpus import Case, check, row_of
from tests.integration.providers.failing import Failure, failed_row


@pytest.mark.parametrize("case", INVOKED, ids=lambda case: case.name)
def test_invoked(case: Case) -> None:
    check(case, row_of(case, build, answer, streamed=False))


@pytest.mark.parametrize("case", STREAMED, ids=lambda case: case.name)
def test_streamed(case: Case) -> None:
    check(case, row_of(case, build, answer, streamed=True))


@pytest.mark.parametrize("streamed", [False, True], ids=["invoked", "streamed"])
@pytest.mark.parametrize("failure", REFUSED, ids=lambda failure: failure.name)
def test_what_the_provider_refused_is_not_billed(failure: Failure, streamed: bool) -> None:
    check(failure.case, failed_row(failure, build, streamed=streamed))


@pytest.mark.parametrize("failure", FAILED, ids=lambda failure: failure.name)
def test_a_paid_answer_that_the_client_refused_is_billed(failure: Failure) -> None:
    check(failure.case, failed_row(failure, build, streamed=False))


@pytest.mark.parametrize("failure", FAILED_STREAMS, ids=lambda failure: failure.name)
def test_a_paid_stream_that_the_client_refused_is_billed(failure: Failure) -> None:
    check(failure.case, failed_row(failure, build, streamed=True))


class _Asynchronous:
    """A model that is streamed through its own event loop."""

    def __init__(self, model: ChatCohere) -> None:
        self._model = model

    def stream(self, prompt: str, **named: Any) -> list[Any]:
        async def chunks() -> list[Any]:
            return [chunk async for chunk in self._model.astream(prompt, **named)]

        return asyncio.run(chunks())


@pytest.mark.parametrize("case", STREAMED, ids=lambda case: case.name)
def test_streamed_asynchronously(case: Case) -> None:
    """The integration hands the same counts on by another way."""
    check(case, row_of(case, lambda url, case: _Asynchronous(build(url, case)), answer, streamed=True))
