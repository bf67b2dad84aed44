"""Whatever users and providers give becomes text, counts, amounts and times that every database takes."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

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

anything = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.binary(max_size=3), st.decimals(),
    st.lists(st.integers(), max_size=2), st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
)  # fmt: skip
texts = st.text(st.characters(), max_size=600)
surrogates = st.text(st.characters(categories=("Cs", "Cc", "Ll", "So")), max_size=600)


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
def test_two_long_ids_stay_two_users(first: str, second: str) -> None:
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


def test_a_time_without_a_zone_is_utc() -> None:
    """A naive time is UTC, not the server's own zone."""
    assert timestamp(datetime(2026, 11, 1, 12)) == timestamp(datetime(2026, 11, 1, 12, tzinfo=UTC))  # noqa: DTZ001
