"""Turns what the database answers into typed values: text becomes Decimal, datetime, date or UUID, as the answer's type says."""

from __future__ import annotations

from collections.abc import Hashable
from datetime import datetime
from decimal import Decimal
from functools import cache
from typing import Annotated, Any, Final, TypeAlias, TypeVar, cast

from pydantic import BeforeValidator, ConfigDict, TypeAdapter, ValidationError, WithJsonSchema, with_config

from vital_tracking.errors import StoreNotReady

_Answer = TypeVar("_Answer")

_INFINITE: Final = ("infinity", "-infinity")

answer_type: Final = with_config(ConfigDict(extra="allow"))
"""Decorates the TypedDict of an answer: fields that a later database adds are passed on as they are."""


Amount: TypeAlias = Annotated[Decimal, WithJsonSchema({"type": "number"})]
"""A number with all its digits, which JSON writes as a number."""

FiniteTime: TypeAlias = Annotated[datetime | None, BeforeValidator(lambda at: None if at in _INFINITE else at)]
"""An instant; None also for PostgreSQL's infinity, which a Python datetime cannot be."""


def typed(answer: type[_Answer], found: object) -> _Answer:
    """What a store returned, as that type: amounts as Decimal with all their digits, times with their zone.

    Raises StoreNotReady where it does not fit: the database is of another version.
    """
    try:
        checked: _Answer = _adapter(cast("Hashable", answer)).validate_python(found)
    except ValidationError as error:
        place = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise StoreNotReady(
            f"The database's answer is not what this version expects (at {place or 'its beginning'}). "
            "Run: vital-tracking migrate (or: supabase db push)"
        ) from None
    return checked


@cache
def _adapter(answer: Hashable) -> TypeAdapter[Any]:
    return TypeAdapter(cast("type[Any]", answer))
