"""Values from outside as the database takes them: clean, bounded, and never a prompt or an answer."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final, TypeGuard

MAX_TOKENS: Final = 10**12
"""A count above this is a mistake: it is a million times the longest context of any model."""


MAX_TEXT: Final = 256
"""Characters kept of an id or a name; a longer one keeps its start and a digest, so that different ones stay different."""


MAX_METADATA: Final = 4096
"""Bytes of a row's metadata, and of its `billed_units`, measured as PostgreSQL prints jsonb."""


def token_count(value: object) -> int | None:
    """`value` as a token count, or None where it is none: a bool, negative, not whole, not finite, too large, no number."""
    if type(value) is int:
        return value if 0 <= value <= MAX_TOKENS else None
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        return None
    finite = value.is_finite() if isinstance(value, Decimal) else math.isfinite(value)
    if not finite or not 0 <= value <= MAX_TOKENS or value != int(value):
        return None
    return int(value)


_MAX_DURATION_MS: Final = 1e12
_MAX_DOLLARS: Final = 10**12


def money(value: Decimal) -> str:
    """An amount as PostgreSQL's numeric reads it: all its digits, no exponent."""
    return format(value, "f")


def is_mapping(value: object) -> TypeGuard[Mapping[str, Any]]:
    """Whether `value` is a mapping. What callers hand over mostly is a dict, or nothing, which this knows in no time."""
    return type(value) is dict or (value is not None and isinstance(value, Mapping))


def fields_of(value: object) -> Mapping[str, Any]:
    """The fields of a mapping or of a pydantic model, whatever they hold; none of anything else."""
    if isinstance(value, Mapping):
        return value
    dump = getattr(value, "model_dump", None)
    if dump is None:
        return {}
    try:
        found = dump(warnings=False)  # it would warn of each field that is not of its type
    except TypeError:  # an SDK's own model
        found = dump()
    return found if isinstance(found, Mapping) else {}


def finite(value: object) -> Decimal | None:
    """`value` as a finite number, None where it is none; a float as it is written, since JSON gave it so."""
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal, str)):
        return None
    try:
        number = Decimal(str(value))
    except ArithmeticError:
        return None
    return number if number.is_finite() else None


def dollars(value: object) -> Decimal | None:
    """`value` as an amount in US dollars, None where it is none."""
    number = finite(value)
    return number if number is not None and 0 <= number < _MAX_DOLLARS else None


def timestamp(moment: datetime) -> str:
    """An instant as ISO 8601 with its offset; a naive one is taken as UTC."""
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).isoformat()


EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""The first time that a row can have in the database; before LATEST is the last. Clients cannot read every date there is."""


LATEST: Final = datetime(9999, 1, 1, tzinfo=UTC)


def instant(value: object) -> datetime | None:
    """A time that a caller gives, in UTC; None where it is none that a row can have. One without an offset is taken as UTC."""
    if not isinstance(value, datetime):
        return None
    try:
        moment = value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
        return moment if EARLIEST <= moment < LATEST else None
    except Exception:  # noqa: BLE001 - at the edges of what there is in dates, or of a zone of the caller's own making
        return None


_CLASS_NAME: Final = re.compile(r"[A-Za-z_][\w.]{0,79}")


def class_name(error: object) -> str | None:
    """The class name of an error given as itself, its class, or its name; a text that is no name is not kept."""
    if error is None:
        return None
    if isinstance(error, type):
        return error.__name__
    if isinstance(error, BaseException):
        return type(error).__name__
    return error if isinstance(error, str) and _CLASS_NAME.fullmatch(error) else "Error"


def duration_ms(value: object) -> float | None:
    """A duration in milliseconds to the microsecond, or None where it is none: negative, endless, or no number."""
    if type(value) is not float and (isinstance(value, bool) or not isinstance(value, (int, float))):
        return None
    return round(float(value), 3) if 0 <= value < _MAX_DURATION_MS else None


def clean_text(value: object, limit: int = MAX_TEXT) -> str | None:
    """`value` as text that PostgreSQL takes: no NUL, no lone surrogate, at most `limit` characters."""
    if value is None:
        return None
    text = value if type(value) is str else _as_text(value)
    if len(text) > limit:
        digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]
        text = f"{text[: limit - 18]}~{digest}"
    if text.isascii():
        return text.replace("\0", "") if "\0" in text else text
    return text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")


def _as_text(value: object) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - a user's __str__ may raise anything; the row is stored all the same
        return f"<{type(value).__name__}>"


def clean_metadata(
    metadata: Mapping[str, Any], notes: Iterable[str], price_facts: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Metadata as a small flat JSON object: scalars and short lists of them, at most `MAX_METADATA` bytes, and the notes.

    `price_facts` are what the call's price depends on; they and the notes stay where there is no room for all.
    """
    kept: dict[str, Any] = {}
    marks = list(dict.fromkeys(notes))
    for key, value in metadata.items():
        name = clean_text(key, 64)
        cleaned = _metadata_value(value)
        if name and cleaned is not None:
            kept[name] = cleaned
    if price_facts:
        kept |= price_facts
    if marks:
        kept["notes"] = marks
    # Six bytes is the most that a character takes, so most metadata need no measuring.
    if (
        6 * sum(len(name) + _length(value) for name, value in kept.items()) > MAX_METADATA
        and json_bytes(kept) > MAX_METADATA
    ):
        marks.append("metadata_too_large")
        kept = {**(price_facts or {}), "notes": marks}
        while json_bytes(kept) > MAX_METADATA and len(marks) > 1:
            del marks[-2]  # many notes by names of units: the first ones stay
    return kept


def json_bytes(value: Mapping[str, Any]) -> int:
    """Bytes of a JSON object as PostgreSQL prints it."""
    return len(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))


def _length(value: object) -> int:
    return len(value) + 4 if isinstance(value, str) else len(str(value)) + 4


def _metadata_value(value: object) -> Any:
    if isinstance(value, bool):
        return value
    if isinstance(value, (str, Decimal)):
        return clean_text(value)
    if isinstance(value, int):
        return value if abs(value) <= 2**53 else clean_text(value)
    if isinstance(value, float):
        # jsonb writes a number out in full: 1e300 and 1e-300 take some 300 bytes there.
        if value == 0 or 1e-15 < abs(value) < 1e15:
            return value
        return clean_text(value) if math.isfinite(value) else None
    if isinstance(value, (list, tuple)):
        return [item for item in map(_metadata_value, value[:16]) if item is not None and not isinstance(item, list)]
    return None
