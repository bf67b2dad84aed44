"""What is said of costs that are not exact: once a model and reason, with what to do, and nothing where there is no doubt."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from vital_tracking.core.cost import Cost
from vital_tracking.core.record import CallRecord
from vital_tracking.core.usage import TokenUsage
from vital_tracking.delivery.inexact import InexactCosts
from vital_tracking.ids import new_id

NOON = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)


def a_call(usage: TokenUsage, **fields: Any) -> CallRecord:
    return CallRecord(**{"id": new_id(), "created_at": NOON, "provider": "p", "model": "m", "usage": usage, **fields})


@pytest.mark.parametrize(
    ("call", "notes", "words"),
    [
        (a_call(TokenUsage(1, 1, estimated=True), ttft_ms=5.0), (), "stream_usage=True"),
        (a_call(TokenUsage(1, 1, estimated=True)), (), "nobody reported their tokens"),
        (a_call(TokenUsage(1, 1, notes=("modality_hidden",))), (), "does not tell how many"),
        (a_call(TokenUsage(1, 1)), ("unit_unpriced:web_searches",), "prices set MODEL --unit web_searches=USD"),
        (a_call(TokenUsage(1, 1)), ("tier_unpriced:priority",), "the tier priority"),
        (a_call(TokenUsage(1, 1, estimated=True, notes=("passes_hidden",))), (), "Invoke the model instead"),
    ],
)
def test_each_doubt_is_said_once_a_model(
    call: CallRecord, notes: tuple[str, ...], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    """If this failed, an admin would learn of an estimate from the invoice."""
    costs = InexactCosts()
    for _ in range(3):
        costs.look(call, _with_notes(notes))
    (line,) = caplog.messages
    assert words in line
    assert "'m'" in line
    costs.look(a_call(call.usage, model="other", ttft_ms=call.ttft_ms), _with_notes(notes))
    assert len(caplog.messages) == 2


def _with_notes(notes: tuple[str, ...]) -> Cost:
    zero = Decimal(0)
    return Cost(input=zero, output=zero, fees=zero, total=zero, potential=zero, version="v", notes=notes)


@pytest.mark.parametrize(
    "call",
    [
        a_call(TokenUsage(1, 1)),
        a_call(TokenUsage(1, 1, notes=("reasoning_beside_output",))),
        a_call(TokenUsage(1, 1, estimated=True), status="cancelled"),
        a_call(TokenUsage(1, 0, estimated=True), call_type="embedding"),
    ],
)
def test_nothing_is_said_where_nothing_can_be_done(call: CallRecord, caplog: pytest.LogCaptureFixture) -> None:
    """A warning that nobody can act on hides the others."""
    InexactCosts().look(call, None)
    assert caplog.messages == []
