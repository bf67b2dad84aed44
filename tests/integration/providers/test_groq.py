"""What Groq bills, from the bytes it sends to the row's last decimal."""

from __future__ import annotations

import pytest

from tests.integration.providers.cases_groq import (
    CASES,
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


@pytest.mark.parametrize("case", [*CASES, *INVOKED], ids=lambda case: case.name)
def test_invoked(case: Case) -> None:
    check(case, row_of(case, build, answer, streamed=False))


@pytest.mark.parametrize("case", [*CASES, *STREAMED], ids=lambda case: case.name)
def test_streamed(case: Case) -> None:
    check(case, row_of(case, build, answer, streamed=True))


@pytest.mark.parametrize("streamed", [False, True], ids=["invoked", "streamed"])
def test_a_tier_is_named_where_it_was_in_force(streamed: bool) -> None:
    """The integration repeats what was asked for; `auto` leaves the choice to Groq."""
    asked = {tier: case for case in CASES if (tier := case.settings.get("service_tier"))}
    named = {tier: row_of(case, build, answer, streamed=streamed)["metadata"] for tier, case in asked.items()}
    assert named["flex"]["service_tier"] == "flex"
    assert "service_tier" not in named["auto"]


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
