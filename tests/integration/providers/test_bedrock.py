"""Calls of langchain-aws cost what Amazon bills: regions, caches and tiers of Bedrock, by each of its integrations."""

from __future__ import annotations

from collections.abc import Callable
from itertools import takewhile
from typing import Any

import pytest

from tests.integration.providers import wire_anthropic as anthropic
from tests.integration.providers.cases_bedrock import CLAUDE, CONVERSE, INVOKED, MANTLE
from tests.integration.providers.corpus import Case, check, row_of
from tests.integration.providers.failures import check_estimate, check_never_free, check_not_billed, failed_row
from tests.integration.providers.wire_bedrock import (
    TEXT,
    THOUGHT,
    answer,
    body,
    build_claude,
    build_converse,
    build_invoke,
    build_mantle,
    case,
    counts,
    events,
    model_events,
    said,
)
from tests.support.aws_event_stream import as_converse_events, as_model_events
from tests.support.wire_server import Json, WireAnswer, as_json

HELLO = 2  # what "Hello" is estimated at
THOUGHTS = len(THOUGHT["reasoningContent"]["reasoningText"]["text"]) // 4
SAID = -(-len(TEXT["text"]) // 4)
ASKED = case(
    "asked",
    "",
    "us.anthropic.claude-sonnet-4-6-v1:0",
    body(counts(4000, 800), THOUGHT, TEXT),
    said(4000, 800),
    "4000*3.3/M + 800*16.5/M",
)
BUILDERS = [
    *((build_converse, case) for case in CONVERSE),
    *((build_invoke, case) for case in INVOKED),
    *((build_claude, case) for case in CLAUDE),
    *((build_mantle, case) for case in MANTLE),
]


@pytest.mark.parametrize("streamed", [False, True], ids=["invoke", "stream"])
@pytest.mark.parametrize(("build", "case"), BUILDERS, ids=[case.name for _, case in BUILDERS])
def test_an_answer_costs_what_is_billed(build: Callable[[str, Case], Any], case: Case, streamed: bool) -> None:
    """A team would pay what its reports do not show, or see costs that nobody bills."""
    check(case, row_of(case, build, answer, streamed=streamed))


@pytest.mark.parametrize("streamed", [False, True], ids=["invoke", "stream"])
@pytest.mark.parametrize("build", [build_converse, build_invoke], ids=["converse", "invoke model"])
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "ValidationException"),
        (403, "AccessDeniedException"),
        (404, "ResourceNotFoundException"),
        (429, "ThrottlingException"),
        (503, "ServiceUnavailableException"),
    ],
)
def test_what_amazon_refuses_is_not_billed(
    status: int, kind: str, build: Callable[[str, Case], Any], streamed: bool
) -> None:
    """Budgets would be used up by calls that were never made, twice where the integration reports an error twice."""
    refused = WireAnswer(b'{"message": "No."}', status=status, headers={"x-amzn-errortype": kind})
    check_not_billed(failed_row(ASKED, build, refused, streamed=streamed))


def test_a_stream_that_is_throttled_before_it_begins_is_not_billed() -> None:
    """It was refused all the same, though with a status of 200."""
    throttled = as_converse_events([{"throttlingException": {"message": "Too many requests"}}])
    check_not_billed(failed_row(ASKED, build_converse, throttled, streamed=True))


def _thinking(event: Json) -> bool:
    return "contentBlockDelta" not in event or event["contentBlockDelta"]["contentBlockIndex"] == 0


@pytest.mark.parametrize(
    "last",
    [[], [{"modelStreamErrorException": {"message": "No."}}], [{"throttlingException": {"message": "Too many"}}]],
    ids=["ends", "model error", "throttled"],
)
def test_a_stream_that_breaks_off_while_thinking_is_counted(last: list[Any]) -> None:
    """What it thought until then is billed, and no usage has come yet."""
    begun = [*takewhile(_thinking, events(ASKED.body)), *last]
    row = failed_row(ASKED, build_converse, as_converse_events(begun), streamed=True)
    check_estimate(row, HELLO, THOUGHTS, f"{HELLO}*3.3/M + {THOUGHTS}*16.5/M")
    assert row["status"] == "error"


@pytest.mark.parametrize("last", [[], [{"modelStreamErrorException": {"message": "No."}}]], ids=["ends", "model error"])
def test_a_stream_of_invoke_model_that_breaks_off_is_counted(last: list[Any]) -> None:
    """ChatBedrock takes the early end of a stream for its end."""
    told = anthropic.body("claude-sonnet-4-6", anthropic.usage(4000, 800), anthropic.THOUGHT, anthropic.TEXT)
    begun = list(model_events(told))[:3]
    sent = as_model_events(begun).content + as_converse_events(last).content
    row = failed_row(ASKED, build_invoke, WireAnswer(sent, "application/vnd.amazon.eventstream"), streamed=True)
    check_estimate(row, HELLO, THOUGHTS, f"{HELLO}*3.3/M + {THOUGHTS}*16.5/M")


def test_a_stream_without_usage_is_estimated_with_its_thoughts() -> None:
    """Thinking would be free."""
    begun = [event for event in events(ASKED.body) if "metadata" not in event]
    row = failed_row(ASKED, build_converse, as_converse_events(begun), streamed=True)
    completion = -(-(THOUGHTS * 4 + len(TEXT["text"])) // 4)
    check_estimate(row, HELLO, completion, f"{HELLO}*3.3/M + {completion}*16.5/M")


def test_invoke_model_without_its_counting_headers_is_estimated() -> None:
    """A proxy that drops the headers would make calls free."""
    told = anthropic.body("claude-sonnet-4-6", anthropic.usage(4000, 800), anthropic.TEXT)
    row = failed_row(ASKED, build_invoke, as_json(told))
    check_estimate(row, HELLO, SAID, f"{HELLO}*3.3/M + {SAID}*16.5/M")


@pytest.mark.parametrize("missing", ["output", "usage"])
def test_an_answer_that_the_client_cannot_read_is_paid_all_the_same(missing: str) -> None:
    """It would be recorded as not billed, and pass any budget."""
    broken = {name: value for name, value in ASKED.body.items() if name != missing}
    row = failed_row(ASKED, build_converse, as_json(broken))
    assert row["status"] == "error"
    check_never_free(row, 4000, 800)


@pytest.mark.parametrize("streamed", [False, True], ids=["invoke", "stream"])
def test_the_region_stands_on_the_row_beside_the_model(streamed: bool) -> None:
    """ChatAnthropicBedrock names the bare model in its answer: repricing would take the price of another region."""
    regional = CLAUDE[0]
    row = row_of(regional, build_claude, answer, streamed=streamed)
    assert regional.model in (row["model"], row.get("sent_model"), row.get("requested_model"))
