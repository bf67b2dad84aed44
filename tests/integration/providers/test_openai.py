"""What OpenAI's dialect costs, by LangChain's own integrations: if one fails, a bill is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.integration.providers import (
    cases_failures,
    cases_gateways,
    cases_openai,
    cases_openrouter,
    cases_perplexity,
    cases_responses,
    cases_xai,
    openai_wire,
)
from tests.integration.providers.corpus import Case, check, row_of, usable
from tests.support.wire_server import WireAnswer, WireRequest

Build = Callable[[str, Case], Any]
Answer = Callable[[Case, WireRequest], WireAnswer]

CHAT, RESPONSES = openai_wire.answer_completion, openai_wire.answer_response

# The cases of each integration, with what makes its model and what its provider sends.
CORPUS: dict[str, tuple[tuple[Case, ...], Build, Answer]] = {
    "openai": (cases_openai.CASES, openai_wire.chat_openai, CHAT),
    "responses": (cases_responses.CASES, openai_wire.responses_openai, RESPONSES),
    "azure": (cases_gateways.AZURE, cases_gateways.chat_azure, CHAT),
    "gateways": (cases_gateways.CASES, openai_wire.chat_openai, CHAT),
    "xai": (cases_xai.XAI, cases_xai.chat_xai, CHAT),
    "xai responses": (cases_xai.XAI_RESPONSES, cases_xai.chat_xai, RESPONSES),
    "deepseek": (cases_xai.DEEPSEEK, cases_xai.chat_deepseek, CHAT),
    "perplexity": (cases_perplexity.CASES, cases_perplexity.chat_perplexity, cases_perplexity.answer),
    "openrouter": (cases_openrouter.CASES, cases_openrouter.chat_openrouter, CHAT),
    "failed openai": (cases_failures.CHATS, openai_wire.chat_openai, CHAT),
    "failed scores": (cases_failures.SCORED_CHAT, cases_failures.scored_chat, CHAT),
    "failed azure scores": (cases_failures.SCORED_AZURE, cases_failures.scored_azure, CHAT),
    "failed responses": (cases_failures.RESPONSES_CASES, openai_wire.responses_openai, RESPONSES),
    "failed scored responses": (cases_failures.SCORED_RESPONSES, cases_failures.scored_responses, RESPONSES),
    "failed deepseek": (cases_failures.DEEPSEEK, cases_xai.chat_deepseek, CHAT),
    "failed openrouter": (cases_failures.OPENROUTER, cases_openrouter.chat_openrouter, CHAT),
    "failed perplexity": (cases_failures.PERPLEXITY, cases_perplexity.chat_perplexity, cases_perplexity.answer),
}


def _all(*, streamed: bool) -> list[Any]:
    return [
        pytest.param(case, build, answer, id=f"{integration}-{case.name}")
        for integration, (cases, build, answer) in CORPUS.items()
        for case in usable(cases, streamed=streamed)
    ]


@pytest.mark.parametrize(("case", "build", "answer"), _all(streamed=False))
def test_an_answer_costs_what_its_provider_bills(case: Case, build: Build, answer: Answer) -> None:
    """The bill would be wrong, or the row would not say what is missing in it."""
    check(case, row_of(case, build, answer, streamed=False))


@pytest.mark.parametrize(("case", "build", "answer"), _all(streamed=True))
def test_a_streamed_answer_costs_what_its_provider_bills(case: Case, build: Build, answer: Answer) -> None:
    """A user who moves to streaming would get another bill."""
    check(case, row_of(case, build, answer, streamed=True))
