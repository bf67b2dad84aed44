"""Calls of ChatGoogleGenerativeAI cost what Google bills: thoughts, tools, searches and pictures, invoked and streamed."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from pydantic import BaseModel

from tests.integration.providers.cases_gemini import CASES
from tests.integration.providers.corpus import Case, check, row_of
from tests.integration.providers.failures import check_estimate, check_never_free, check_not_billed, failed_row
from tests.integration.providers.wire_gemini import (
    TEXT,
    THOUGHT,
    answer,
    body,
    build,
    case,
    chunks,
    counts,
    said,
)
from tests.support.wire_server import WireAnswer, as_events, as_json

# Of answers with code that was run the integration warns.
pytestmark = pytest.mark.filterwarnings("ignore:(?s).*Output may vary each run")

HELLO = 2  # what "Hello" is estimated at
ASKED = case(
    "asked",
    "",
    "gemini-2.5-flash",
    counts(4000, 100, thoughts=700),
    said(4000, 800, reasoning_tokens=700),
    "4000*0.30/M + 800*2.50/M",
    parts=[THOUGHT, TEXT],
)
OVERLOADED = {"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}}


@pytest.mark.parametrize("streamed", [False, True], ids=["invoke", "stream"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_answer_costs_what_is_billed(case: Case, streamed: bool) -> None:
    """A team would pay what its reports do not show, or see costs that nobody bills."""
    check(case, row_of(case, build, answer, streamed=streamed))


@pytest.mark.parametrize("streamed", [False, True], ids=["invoke", "stream"])
@pytest.mark.parametrize(
    "case", [case for case in CASES if "drawn" in case.name or "code" in case.name], ids=lambda case: case.name
)
def test_standard_content_costs_the_same(case: Case, streamed: bool) -> None:
    """LangChain's v1 content names the same blocks otherwise: pictures would be billed as text, code as a fee."""
    standard = replace(case, settings={**case.settings, "output_version": "v1"})
    check(standard, row_of(standard, build, answer, streamed=streamed))


@pytest.mark.parametrize("streamed", [False, True], ids=["invoke", "stream"])
def test_sound_that_was_heard_is_not_passed_off_as_text(streamed: bool) -> None:
    """LangChain drops how many tokens were sound, which costs three times as much as text."""
    sound = {"type": "media", "mime_type": "audio/mp3", "data": base64.b64encode(bytes(64)).decode()}
    asked = [HumanMessage(content=[{"type": "text", "text": "What is said?"}, sound])]

    class Listening:
        def __init__(self, model: Any) -> None:
            self._model = model

        def invoke(self, _: object, **more: Any) -> Any:
            return self._model.invoke(asked, **more)

        def stream(self, _: object, **more: Any) -> Any:
            return self._model.stream(asked, **more)

    row = row_of(ASKED, lambda url, case: Listening(build(url, case)), answer, streamed=streamed)
    assert row["prompt_tokens"] == 4000
    assert "modality_hidden" in row["metadata"]["notes"]


@pytest.mark.parametrize("streamed", [False, True], ids=["invoke", "stream"])
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "INVALID_ARGUMENT"),
        (403, "PERMISSION_DENIED"),
        (404, "NOT_FOUND"),
        (429, "RESOURCE_EXHAUSTED"),
        (500, "INTERNAL"),
        (503, "UNAVAILABLE"),
    ],
)
def test_what_google_refuses_is_not_billed(status: int, kind: str, streamed: bool) -> None:
    """Budgets would be used up by calls that were never made."""
    refused = as_json({"error": {"code": status, "message": "No.", "status": kind}}, status)
    check_not_billed(failed_row(ASKED, build, refused, streamed=streamed))


@pytest.mark.parametrize("last", [[], [OVERLOADED]], ids=["ends", "overloaded"])
def test_a_stream_that_breaks_off_while_thinking_is_counted(last: list[Any]) -> None:
    """The counts so far are a lower bound; taken for the whole they would be wrong, dropped they would be free."""
    begun = [next(chunks(ASKED.body)), *last]
    row = failed_row(ASKED, build, as_events(begun), streamed=True)
    check_estimate(row, 4000, 350, "4000*0.30/M + 350*2.50/M")


@pytest.mark.parametrize("streamed", [False, True], ids=["invoke", "stream"])
def test_an_answer_without_usage_is_estimated_with_its_thoughts(streamed: bool) -> None:
    """A gateway that drops the usage would make calls free."""
    without = body("gemini-2.5-flash", None, THOUGHT, TEXT)
    sent = as_events(chunks(without)) if streamed else as_json(without)
    completion = -(-(len(THOUGHT["text"]) + len(TEXT["text"])) // 4)
    row = failed_row(ASKED, build, sent, streamed=streamed)
    check_estimate(row, HELLO, completion, f"{HELLO}*0.30/M + {completion}*2.50/M")


def test_a_prompt_that_was_blocked_is_paid() -> None:
    """The prompt was read, and is billed, though LangChain drops its count."""
    blocked = {
        "promptFeedback": {"blockReason": "SAFETY"},
        "usageMetadata": {"promptTokenCount": 4000, "totalTokenCount": 4000},
        "modelVersion": "gemini-2.5-flash",
    }
    row = failed_row(ASKED, build, as_json(blocked))
    check_estimate(row, HELLO, 0, f"{HELLO}*0.30/M")


@pytest.mark.parametrize(
    "broken",
    [
        as_json({**ASKED.body, "candidates": [{"content": {"role": "model", "parts": "It is."}}]}),
        WireAnswer(b'{"candidates": [{"content"'),
    ],
    ids=["parts of another shape", "cut off"],
)
def test_an_answer_that_the_client_cannot_read_is_paid_all_the_same(broken: WireAnswer) -> None:
    """It would be recorded as not billed, and pass any budget."""
    row = failed_row(ASKED, build, broken)
    assert row["status"] == "error"
    check_never_free(row, 4000, 800)


class _Person(BaseModel):
    name: str
    age: int


@pytest.mark.parametrize("streamed", [False, True], ids=["invoke", "stream"])
def test_a_structured_answer_that_is_refused_is_paid(streamed: bool) -> None:
    """An answer that pydantic refuses would be free."""
    wrong = body("gemini-2.5-flash", counts(4000, 100, thoughts=700), {"text": '{"name": "Ada", "age": "old"}'})

    def structured(url: str, asked: Case) -> Any:
        return build(url, asked).with_structured_output(_Person)

    sent = as_events(chunks(wrong)) if streamed else as_json(wrong)
    check(ASKED, failed_row(ASKED, structured, sent, streamed=streamed))
