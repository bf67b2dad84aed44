"""Token buckets that are always disjoint, and rows that every database takes."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vital_tracking.core.context import CallContext
from vital_tracking.core.sanitize import (
    MAX_METADATA,
    MAX_TEXT,
    MAX_TOKENS,
    clean_metadata,
    clean_text,
    money,
    timestamp,
    token_count,
)
from vital_tracking.core.usage import TokenUsage, estimate_tokens

counts = st.integers(0, 10**9)
anything = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.binary(max_size=3), st.decimals(),
    st.lists(st.integers(), max_size=2), st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
)  # fmt: skip
texts = st.text(st.characters(), max_size=600)
surrogates = st.text(st.characters(categories=("Cs", "Cc", "Ll", "So")), max_size=600)


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


@given(anything)
@example(True)
@example(math.nan)
@example(10**30)
@example(Decimal("sNaN"))
@example(Decimal("1e999999"))
def test_a_count_is_a_whole_number_in_its_range_or_none(value: object) -> None:
    """A bool is an int in Python, 1e30 is a float, NaN is neither more nor less than anything."""
    count = token_count(value)
    if count is None:
        return
    assert type(count) is int
    assert 0 <= count <= MAX_TOKENS
    assert count == value
    assert not isinstance(value, bool)


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
def test_garbage_never_raises_and_never_breaks_a_bucket(values: list[Any]) -> None:
    """Whatever comes over the wire."""
    prompt, completion, *details = values
    names = ("cache_read", "cache_write", "cache_write_1h", "reasoning", "audio_input", "audio_output")
    usage = TokenUsage.reported(input_tokens=prompt, output_tokens=completion, **dict(zip(names, details, strict=True)))
    if token_count(prompt) is None and token_count(completion) is None:
        assert usage is None
    else:
        assert usage is not None
        assert_disjoint(usage)


def test_details_beside_their_total() -> None:
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


@given(st.one_of(texts, surrogates))
@example("\0")
@example("\ud800")
@example("x" * 10_000)
def test_clean_text_is_what_postgresql_takes(text: str) -> None:
    """UTF-8 without NUL, bounded; a clean and short text is itself."""
    cleaned = clean_text(text)
    assert cleaned is not None
    cleaned.encode("utf-8")
    assert "\0" not in cleaned
    assert len(cleaned) <= MAX_TEXT
    assert clean_text(cleaned) == cleaned
    if len(text) <= MAX_TEXT and "\0" not in text and not any("\ud800" <= sign <= "\udfff" for sign in text):
        assert cleaned == text


@given(st.text(min_size=300, max_size=400), st.text(min_size=300, max_size=400))
def test_two_long_texts_stay_two(first: str, second: str) -> None:
    """A cut id keeps a digest, so that two users stay two."""
    clean = [text.replace("\0", "x") for text in (first, second)]
    assert (clean_text(clean[0]) == clean_text(clean[1])) is (clean[0] == clean[1])


@given(anything)
def test_clean_text_takes_anything(value: object) -> None:
    """Ids come as numbers, UUIDs and worse."""
    cleaned = clean_text(value)
    assert cleaned is None if value is None else isinstance(cleaned, str)


@given(st.dictionaries(st.one_of(texts, st.integers()), st.one_of(anything, texts, surrogates), max_size=40))
def test_clean_metadata_is_small_json(metadata: dict[Any, Any]) -> None:
    """At most 4 KiB as PostgreSQL prints it, no NaN, no NUL, no nesting."""
    cleaned = clean_metadata(metadata, ["note", "note"])
    text = json.dumps(cleaned, ensure_ascii=False, allow_nan=False)
    assert len(text.encode("utf-8")) <= MAX_METADATA
    assert "\\u0000" not in text
    assert cleaned["notes"][0] == "note"
    assert cleaned["notes"].count("note") == 1
    assert not any(isinstance(value, dict) for value in cleaned.values())


@given(st.decimals(allow_nan=False, allow_infinity=False, places=12, min_value=0, max_value=10**9))
def test_money_keeps_every_digit(value: Decimal) -> None:
    """No exponent, no float."""
    assert Decimal(money(value)) == value
    assert "E" not in money(value).upper()


def test_times_are_instants() -> None:
    """A naive time is UTC, not the server's own zone."""
    assert timestamp(datetime(2026, 11, 1, 12)) == timestamp(datetime(2026, 11, 1, 12, tzinfo=UTC))  # noqa: DTZ001


@pytest.mark.parametrize("usage", [TokenUsage(), TokenUsage(5, 6)])
def test_usage_is_frozen(usage: TokenUsage) -> None:
    """Usage is shared between a record and its cost."""
    with pytest.raises(AttributeError):
        usage.prompt_tokens = 7  # type: ignore[misc]
    assert CallContext() == CallContext()
