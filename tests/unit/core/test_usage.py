"""Token buckets that are always disjoint, however providers report them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.core.test_sanitize import anything
from vital_tracking.core.context import CallContext
from vital_tracking.core.sanitize import MAX_TOKENS, token_count
from vital_tracking.core.usage import TokenUsage, estimate_tokens

counts = st.integers(0, 10**9)


def assert_disjoint(usage: TokenUsage) -> None:
    """What the database checks."""
    prompt_parts = usage.cache_read_tokens + usage.cache_write_tokens + usage.audio_input_tokens
    assert 0 <= prompt_parts <= usage.prompt_tokens
    assert 0 <= usage.reasoning_tokens + usage.audio_output_tokens <= usage.completion_tokens
    assert 0 <= usage.cache_write_1h_tokens <= usage.cache_write_tokens
    assert (
        min(usage.cache_read_tokens, usage.audio_input_tokens, usage.reasoning_tokens, usage.audio_output_tokens) >= 0
    )
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


@given(counts, counts, counts, counts, counts, counts, counts, counts)
def test_reported_counts_become_disjoint_buckets(
    prompt: int, completion: int, read: int, write: int, write_1h: int, reasoning: int, heard: int, said: int
) -> None:
    """However providers report the details, buckets are disjoint, and no reported token is lost."""
    usage = TokenUsage.reported(
        input_tokens=prompt,
        output_tokens=completion,
        cache_read=read,
        cache_write=write,
        cache_write_1h=write_1h,
        reasoning=reasoning,
        audio_input=heard,
        audio_output=said,
    )
    assert usage is not None
    assert_disjoint(usage)
    assert usage.prompt_tokens >= prompt
    assert usage.completion_tokens >= completion
    assert (usage.cache_read_tokens, usage.cache_write_1h_tokens, usage.reasoning_tokens) == (read, write_1h, reasoning)
    consistent = read + max(write, write_1h) + heard <= prompt and reasoning + said <= completion
    assert bool(usage.notes) is not consistent
    if consistent:
        assert (usage.prompt_tokens, usage.completion_tokens) == (prompt, completion)
        assert (usage.audio_input_tokens, usage.audio_output_tokens) == (heard, said)


@given(st.lists(anything, min_size=8, max_size=8))
def test_unusable_counts_never_raise_and_never_break_a_bucket(values: list[Any]) -> None:
    """Whatever comes over the wire."""
    prompt, completion, *details = values
    names = ("cache_read", "cache_write", "cache_write_1h", "reasoning", "audio_input", "audio_output")
    usage = TokenUsage.reported(input_tokens=prompt, output_tokens=completion, **dict(zip(names, details, strict=True)))
    if token_count(prompt) is None and token_count(completion) is None:
        assert usage is None
    else:
        assert usage is not None
        assert_disjoint(usage)


def test_cached_tokens_reported_beside_the_total_are_added() -> None:
    """Amazon Bedrock's input 3 beside 13,216 cached tokens is 13,219 tokens, not 3 and not a negative rest."""
    usage = TokenUsage.reported(input_tokens=3, output_tokens=5, cache_read=13_216, reasoning=7)
    assert usage == TokenUsage(
        13_219,
        12,
        cache_read_tokens=13_216,
        reasoning_tokens=7,
        notes=("cache_beside_input", "reasoning_beside_output"),
    )


@given(st.integers(0, 10**13), st.integers(0, 10**6))
def test_estimates_grow_with_the_text(size: int, more: int) -> None:
    """A token for every four bytes, rounded up; a longer text is never cheaper."""
    assert 0 <= estimate_tokens(size) <= min(size, MAX_TOKENS)
    assert estimate_tokens(size) <= estimate_tokens(size + more)
    assert estimate_tokens(1) == 1
    assert estimate_tokens(400) == 100


@pytest.mark.parametrize("usage", [TokenUsage(), TokenUsage(5, 6)])
def test_usage_that_a_record_shares_with_its_cost_cannot_be_changed(usage: TokenUsage) -> None:
    """Usage is shared between a record and its cost."""
    with pytest.raises(AttributeError):
        usage.prompt_tokens = 7  # type: ignore[misc]
    assert CallContext() == CallContext()
