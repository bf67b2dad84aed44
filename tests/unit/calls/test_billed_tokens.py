"""When the counts of a result bound what its call cost: where anything is not known to be harmless, the bill is worked out."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from vital_tracking.calls.billed_tokens import billed_tokens
from vital_tracking.calls.live import LiveCall

USAGE: dict[str, Any] = {
    "input_tokens": 12,
    "output_tokens": 5,
    "total_tokens": 17,
    "input_token_details": {"cache_read": 4, "audio": 0},
    "output_token_details": {"reasoning": 2},
}
COUNTS: dict[str, Any] = {
    "prompt_tokens": 12,
    "completion_tokens": 5,
    "total_tokens": 17,
    "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
    "completion_tokens_details": None,
}


def ended(**changes: Any) -> LiveCall:
    """A usual call that has ended well, but for these attributes."""
    metadata = {"ls_provider": "openai", "ls_model_name": "gpt-5.6"}
    call = LiveCall(uuid4().int, "chat", None, None, None, None, metadata, None, 1)
    call.end(None)
    call.usage, call.token_usage, call.response = USAGE, COUNTS, {"model_name": "gpt-5.6-2026-02-01"}
    for name, value in changes.items():
        setattr(call, name, value)
    return call


@pytest.mark.parametrize(
    "changes", [{}, {"token_usage": None}, {"response": {}}, {"response": {"service_tier": "default"}}], ids=str
)
def test_usual_counts_are_what_is_billed(changes: dict[str, Any]) -> None:
    """If this failed, every call would have its bill worked out in the caller's thread before the next one."""
    assert billed_tokens(ended(**changes)) == (12, 5)


@pytest.mark.parametrize(
    "changes",
    [
        {"token_usage": {**COUNTS, "prompt_tokens": 12.5}},
        {"token_usage": {"prompt_tokens": "12"}},
        {"token_usage": {**COUNTS, "prompt_tokens_details": {"audio_tokens": 3}}},
        {"token_usage": {**COUNTS, "searches": 1}},
        {"token_usage": {**COUNTS, "completion_tokens_details": [1]}},
        {"usage": {**USAGE, "input_token_details": {"cache_read": True}}},
        {"usage": {**USAGE, "input_token_details": {"audio": 1}}},
        {"usage": {**USAGE, "input_token_details": {"cache_read": 13}}},
        {"usage": {**USAGE, "total_tokens": 18}},
        {"usage": {**USAGE, "output_tokens": 0}},
        {"usage": None},
        {"response": {"model_name": "gpt-6"}},
        {"response": {"service_tier": "priority"}},
        {"response": {"blocks": {"server:web_search": 1}}},
        {"hidden": ("audio",)},
        {"inner": True},
        {"call_type": "completion"},
    ],
    ids=str,
)
def test_whatever_may_cost_more_is_not_bounded_by_them(changes: dict[str, Any]) -> None:
    """If this failed, a call that has cost more than was held for it would let the next one past the limit."""
    assert billed_tokens(ended(**changes)) is None
