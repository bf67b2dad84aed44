"""What Mistral bills, from the bytes it sends to the row's last decimal."""

from __future__ import annotations

import pytest

from tests.integration.providers.cases_mistral import CASES, FAILED, INVOKED, REFUSED, STREAMED, answer, build
from tests.integration.providers.corpus import Case, check, row_of
from tests.integration.providers.failing import Failure, failed_row


@pytest.mark.parametrize("case", [*CASES, *INVOKED], ids=lambda case: case.name)
def test_invoked(case: Case) -> None:
    check(case, row_of(case, build, answer, streamed=False))


@pytest.mark.parametrize("case", [*CASES, *STREAMED], ids=lambda case: case.name)
def test_streamed(case: Case) -> None:
    check(case, row_of(case, build, answer, streamed=True))


def test_the_tokens_of_sound_are_no_riddle() -> None:
    """They stand in the total alone, and are billed by the second: nothing of it is unexplained."""
    (sound,) = [case for case in INVOKED if case.units]
    assert "notes" not in row_of(sound, build, answer, streamed=False)["metadata"]


@pytest.mark.parametrize("streamed", [False, True], ids=["invoked", "streamed"])
@pytest.mark.parametrize("failure", REFUSED, ids=lambda failure: failure.name)
def test_what_the_provider_refused_is_not_billed(failure: Failure, streamed: bool) -> None:
    check(failure.case, failed_row(failure, build, streamed=streamed))


@pytest.mark.parametrize("failure", FAILED, ids=lambda failure: failure.name)
def test_a_paid_answer_that_the_client_refused_is_billed(failure: Failure) -> None:
    check(failure.case, failed_row(failure, build, streamed=False))
