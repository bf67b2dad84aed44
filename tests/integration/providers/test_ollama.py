"""What a call of a model on Ollama holds: its exact tokens, and no price."""

from __future__ import annotations

import pytest

from tests.integration.providers.cases_ollama import CASES, FAILED, REFUSED, answer, build
from tests.integration.providers.corpus import Case, check, row_of
from tests.integration.providers.failing import Failure, failed_row

ways = pytest.mark.parametrize("streamed", [False, True], ids=["invoked", "streamed"])


@ways
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_tokens_without_a_price(case: Case, streamed: bool) -> None:
    check(case, row_of(case, build, answer, streamed=streamed))


@ways
@pytest.mark.parametrize("failure", REFUSED, ids=lambda failure: failure.name)
def test_what_the_server_refused_is_not_billed(failure: Failure, streamed: bool) -> None:
    check(failure.case, failed_row(failure, build, streamed=streamed))


@ways
@pytest.mark.parametrize("failure", FAILED, ids=lambda failure: failure.name)
def test_what_came_before_an_error_is_counted(failure: Failure, streamed: bool) -> None:
    row = failed_row(failure, build, streamed=streamed)
    check(failure.case, row)
    assert "http_status" not in row["metadata"]  # Ollama's client says -1, which is no status
