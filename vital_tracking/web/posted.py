"""Events as browsers and servers send them: read one by one, cleaned, and the bad ones told apart with their reason."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Annotated, Any, Final
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError
from uuid_utils import uuid7

from vital_tracking.core.addresses import address_hash
from vital_tracking.core.event_properties import ALLOWED_PROPERTIES, kept_properties, without_query
from vital_tracking.core.platform import Category
from vital_tracking.core.sanitize import clean_metadata, clean_text, money, timestamp
from vital_tracking.web.settings import WebSettings

MOST_EVENTS: Final = 100
"""How many events a request may bring."""

_MOST_PROPERTIES: Final = 64
_Name = Annotated[str, Field(max_length=255)]
_Value = Annotated[
    Decimal, Field(ge=Decimal("-1e15"), le=Decimal("1e15"), max_digits=28, decimal_places=12, allow_inf_nan=False)
]


class SentEvent(BaseModel):
    """An event: what happened. Whoever sends it with a user's token is who did it."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {
                "id": "0192c8a0-5a5a-7a5a-8a5a-5a5a5a5a5a5a",
                "event_name": "report_opened",
                "source": "/reports",
                "session_id": "s-1",
                "properties": {"page": "/reports", "duration_ms": 120},
            }
        },
    )

    event_name: Annotated[str, Field(min_length=1, max_length=256, pattern=r"\S")]
    id: Annotated[UUID | None, Field(description="Yours, to send it again without its being counted twice.")] = None
    category: Category = "user_behavior"
    value: Annotated[_Value | None, Field(description="A number that belongs to it.")] = None
    source: Annotated[str | None, Field(max_length=2048, description="Where it came from; a query is cut off.")] = None
    properties: Annotated[dict[str, Any], Field(max_length=_MOST_PROPERTIES)] = {}
    session_id: _Name | None = None
    organization_id: Annotated[_Name | None, Field(description="The only one of the user where none is named.")] = None
    user_id: Annotated[_Name | None, Field(description="For operators; of a user nobody but himself.")] = None
    occurred_at: Annotated[AwareDatetime | None, Field(description="Now where none is given.")] = None
    ip_address: Annotated[str | None, Field(max_length=64, description="For operators; its keyed hash is kept.")] = None


@dataclass
class Batch:
    """What a request brought: the rows of good events with their places, what is wrong with the others, what was left out."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    wrong: list[tuple[int, str, str]] = field(default_factory=list)
    left_out: set[str] = field(default_factory=set)


def read_events(sent: Sequence[object], settings: WebSettings, *, operator: bool, address: str | None) -> Batch:
    """The events of a request. `address` is that of the request, or None where it is not to be taken."""
    batch = Batch()
    for place, one in enumerate(sent):
        try:
            event = SentEvent.model_validate(one)
        except ValidationError as error:
            batch.wrong += _wrong(place, error)
            continue
        if event.ip_address is not None and not operator:
            batch.wrong.append(
                (place, "ip_address", "is for operators: that of the request is taken, where it is told to")
            )
            continue
        batch.rows.append(_row(event, settings, address, batch.left_out))
        batch.places.append(place)
    return batch


def _wrong(place: int, error: ValidationError) -> Iterator[tuple[int, str, str]]:
    for one in error.errors(include_url=False, include_context=False, include_input=False):
        yield place, ".".join(map(str, one["loc"]))[:80], one["msg"]


def _row(event: SentEvent, settings: WebSettings, address: str | None, left_out: set[str]) -> dict[str, Any]:
    kept, notes = kept_properties(event.properties, ALLOWED_PROPERTIES | settings.event_properties)
    left_out |= {clean_text(name, 64) or "" for name in event.properties.keys() - kept.keys()}
    columns = {
        "id": str(event.id or uuid7()),
        "occurred_at": timestamp(event.occurred_at) if event.occurred_at else None,
        "category": event.category,
        "event_name": clean_text(event.event_name),
        "source": clean_text(without_query(event.source)),
        "value": None if event.value is None else money(event.value),
        "session_id": clean_text(event.session_id),
        "organization_id": clean_text(event.organization_id) or None,
        "user_id": clean_text(event.user_id) or None,
        "ip_hash": address_hash(event.ip_address or address, settings.hash_key_bytes),
        "properties": clean_metadata(kept, notes),
    }
    return {name: value for name, value in columns.items() if value is not None}
