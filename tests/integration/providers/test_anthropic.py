"""Calls of ChatAnthropic cost what Anthropic bills: tokens, searches, passes and price variants, invoked and streamed."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import Any

import pytest
from pydantic import BaseModel

from tests.integration.providers.cases_anthropic import CASES, streamed
from tests.integration.providers.cases_anthropic_variants import BATCHED, PASSES, VARIANTS
from tests.integration.providers.corpus import Case, check, row_of
from tests.integration.providers.failures import check_estimate, check_never_free, check_not_billed, failed_row
from tests.integration.providers.wire_anthropic import TEXT, THOUGHT, answer, body, build, case, events, said, usage
from tests.support.wire_server import WireAnswer, as_events, as_json

# LangChain warns of blocks of tools where a stream's request named none.
pytestmark = pytest.mark.filterwarnings("ignore:Received unexpected tool content block")

ASKED = case("asked", "", "claude-sonnet-4-6", usage(4000, 800), said(4000, 800), "0", content=[THOUGHT, TEXT])
HELLO = 2  # what "Hello" is estimated at
THOUGHTS = len(THOUGHT["thinking"]) // 4


@pytest.mark.parametrize("case", [*CASES, *VARIANTS, *PASSES, *BATCHED], ids=lambda case: case.name)
def test_an_answer_costs_what_is_billed(case: Case) -> None:
    """A team would pay what its reports do not show, or see costs that nobody bills."""
    check(case, row_of(case, build, answer, streamed=False))


@pytest.mark.parametrize("case", [*CASES, *VARIANTS], ids=lambda case: case.name)
def test_a_stream_costs_the_same(case: Case) -> None:
    """A user who turns on streaming would see other costs for the same answers."""
    case = streamed(case)
    check(case, row_of(case, build, answer, streamed=True))


@pytest.mark.parametrize("streamed_too", [False, True], ids=["invoke", "stream"])
@pytest.mark.parametrize(
    "case", [case for case in CASES if "search" in case.name or "free" in case.name], ids=lambda case: case.name
)
def test_standard_content_costs_the_same(case: Case, streamed_too: bool) -> None:
    """LangChain's v1 content names the same blocks otherwise: searches would be free, or failed ones billed."""
    standard = replace(case, settings={**case.settings, "output_version": "v1"})
    check(standard, row_of(standard, build, answer, streamed=streamed_too))


@pytest.mark.parametrize("output_version", ["v0", "v1"])
@pytest.mark.parametrize("case", [case for case in PASSES if len(case.body["content"]) > 1], ids=lambda case: case.name)
def test_a_stream_that_hides_its_passes_says_so(case: Case, output_version: str) -> None:
    """LangChain drops the list of passes of a stream: a row without their cost must not pass as exact."""
    case = replace(case, settings={**case.settings, "output_version": output_version})
    row = row_of(case, build, answer, streamed=True)
    assert row.get("usage_estimated")
    assert "passes_hidden" in row["metadata"]["notes"]


def test_several_passes_are_kept_to_reprice_by() -> None:
    """A new price could not be applied to an adviser's tokens, nor a long pass be told from two short ones."""
    compacted, advised = PASSES[0], PASSES[2]
    row = row_of(compacted, build, answer, streamed=False)
    assert row["billed_units"]["passes"] == [
        {"prompt_tokens": 52_321, "completion_tokens": 700},
        {"prompt_tokens": 110, "completion_tokens": 30},
    ]
    row = row_of(advised, build, answer, streamed=False)
    assert row["billed_units"]["passes"] == [
        {"prompt_tokens": 412, "completion_tokens": 89},
        {"model": "claude-opus-4-8", "prompt_tokens": 823, "completion_tokens": 1612},
        {"prompt_tokens": 1760, "completion_tokens": 442, "cache_read_tokens": 412},
    ]


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("fast", {"speed": "fast"}),
        ("only in the US", {"inference_geo": "us"}),
        ("priority, bought beforehand", {"service_tier": "priority"}),
        ("from a batch", {"service_tier": "batch"}),
    ],
)
def test_what_chose_the_price_stands_on_the_row(name: str, facts: dict[str, str]) -> None:
    """A repricing would take the standard price."""
    (case,) = [case for case in (*CASES, *VARIANTS, *BATCHED) if case.name == name]
    row = row_of(case, build, answer, streamed=False)
    assert facts.items() <= row["metadata"].items()


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (413, "request_too_large"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (529, "overloaded_error"),
    ],
)
def test_what_anthropic_refuses_is_not_billed(status: int, kind: str, streamed: bool) -> None:
    """Budgets would be used up by calls that were never made."""
    refused = as_json({"type": "error", "error": {"type": kind, "message": "No."}, "request_id": "req_1"}, status)
    check_not_billed(failed_row(ASKED, build, refused, streamed=streamed))


@pytest.mark.parametrize("stream", [False, True], ids=["invoke", "stream"])
def test_a_request_that_is_declined_before_anything_was_said_is_not_billed(stream: bool) -> None:
    """Anthropic counts the tokens of the prompt and bills none of them."""
    declined = {**body("claude-opus-5-5", usage(4000, 0), stop_reason="refusal"), "content": []}
    sent = as_events(events(declined), named=True) if stream else as_json(declined)
    row = failed_row(ASKED, build, sent, streamed=stream)
    assert row["status"] == "ok"
    assert (row.get("prompt_tokens", 0), row["price_version"], row["total_cost"]) == (0, "not billed", "0")


def test_a_stream_that_is_overloaded_while_thinking_is_counted() -> None:
    """What it thought until then is billed."""
    overloaded = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    begun = [*islice(events(ASKED.body), 3), overloaded]
    row = failed_row(ASKED, build, as_events(begun, named=True), streamed=True)
    check_estimate(row, HELLO, THOUGHTS, f"{HELLO}*3/M + {THOUGHTS}*15/M")
    assert row["status"] == "error"


def test_a_stream_that_ends_while_thinking_is_counted() -> None:
    """A proxy that closes the stream early would make thinking free."""
    begun = islice(events(ASKED.body), 3)
    row = failed_row(ASKED, build, as_events(begun, named=True), streamed=True)
    check_estimate(row, HELLO, THOUGHTS, f"{HELLO}*3/M + {THOUGHTS}*15/M")


def test_a_stream_without_usage_is_estimated_with_its_thoughts() -> None:
    """`stream_usage=False` would make thinking free."""
    case = replace(ASKED, settings={"stream_usage": False})
    row = failed_row(case, build, as_events(events(case.body), named=True), streamed=True)
    said = -(-(len(THOUGHT["thinking"]) + len(TEXT["text"])) // 4)
    check_estimate(row, HELLO, said, f"{HELLO}*3/M + {said}*15/M")


def test_an_answer_without_usage_is_estimated_with_its_thoughts() -> None:
    """A gateway that drops the usage would make calls free."""
    row = failed_row(ASKED, build, as_json(body("claude-sonnet-4-6", None, THOUGHT, TEXT)))
    said = -(-(len(THOUGHT["thinking"]) + len(TEXT["text"])) // 4)
    check_estimate(row, HELLO, said, f"{HELLO}*3/M + {said}*15/M")


@pytest.mark.parametrize(
    "broken",
    [
        as_json({**ASKED.body, "content": None}),
        as_json({**ASKED.body, "content": "It is."}),
        WireAnswer(b'{"id": "msg_1", "usage": {"input_tokens": 4000, "output_tokens": 800'),
    ],
    ids=["no content", "content of another shape", "cut off"],
)
def test_an_answer_that_the_client_cannot_read_is_paid_all_the_same(broken: WireAnswer) -> None:
    """It would be recorded as not billed, and pass any budget."""
    row = failed_row(ASKED, build, broken)
    assert row["status"] == "error"
    check_never_free(row, 4000, 800)


class _Person(BaseModel):
    name: str
    age: int


@pytest.mark.parametrize("stream", [False, True])
def test_a_structured_answer_that_is_refused_is_paid(stream: bool) -> None:
    """An answer that pydantic refuses would be free."""
    wrong = {"type": "text", "text": '{"name": "Ada", "age": "old"}'}
    case = replace(ASKED, body=body("claude-sonnet-4-6", usage(4000, 800), wrong), cost="4000*3/M + 800*15/M")

    def structured(url: str, asked: Case) -> Any:
        return build(url, asked).with_structured_output(_Person, method="json_schema")

    sent = as_events(events(case.body), named=True) if stream else as_json(case.body)
    check(case, failed_row(case, structured, sent, streamed=stream))
