"""Events of the platform: the newest ones, what they come to, and those that browsers and servers send."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import orjson
from typing_extensions import TypedDict

from vital_tracking.queries.answers import Amount, answer_type, typed
from vital_tracking.queries.explore import Explored, Filters, Period
from vital_tracking.queries.paging import every_row
from vital_tracking.queries.platform import PlatformFilters, explore_platform, page_of_rows, place_of_row
from vital_tracking.stores import Store


@answer_type
class Event(TypedDict):
    """An event: what happened, to whom, when. `failed` is whether it says that something failed; `ip_hash` all that is kept of an
    address.
    """

    id: UUID
    occurred_at: datetime
    organization_id: str | None
    user_id: str | None
    session_id: str | None
    category: str
    event_name: str
    source: str | None
    ip_hash: str | None
    value: Amount | None
    failed: bool
    properties: dict[str, Any]


EVENT_COLUMNS: Final = tuple(Event.__annotations__)


def events(
    store: Store, filters: PlatformFilters | None = None, *, limit: int = 100, after: str | None = None
) -> list[Event]:
    """The newest events that the filters let pass, at most `limit` (10,000 at once).

    The next page begins `after` the `place_of_row` of the last one. Raises StoreError; ValueError where `after` is no place.
    """
    return typed(list[Event], page_of_rows(store, "events", filters, limit, after))


def every_event(store: Store, filters: PlatformFilters | None = None, *, at_once: int = 1000) -> Iterator[Event]:
    """All events that the filters let pass, the newest first, in the memory of `at_once` of them. Raises StoreError."""
    return every_row(lambda after: events(store, filters, limit=at_once, after=after), place_of_row, at_once)


def explore_events(
    store: Store, period: Period, *, by: Sequence[str] = (), filters: Filters | None = None, rows: int = 1000
) -> Explored:
    """What the events of a period come to by some of EVENT_DIMENSIONS, or by hour, day, week or month. Raises StoreError."""
    return explore_platform(store, "events", period, by=by, filters=filters, rows=rows)


class RefusedEvent(TypedDict):
    """An event that was not recorded: its place in the batch from 0, and why: a word, or the database's rule that it breaks."""

    place: int
    reason: str
    organization_id: str | None


@answer_type
class Posted(TypedDict):
    """What became of a batch: how many events were new, how many recorded before, and which were refused."""

    recorded: int
    duplicates: int
    refused: list[RefusedEvent]


def post_events(store: Store, rows: Sequence[Mapping[str, Any]]) -> Posted:
    """Record events of anybody: rows with the columns of `platform_events`, each with an `id`, once. It takes the store's own
    rights. Raises StoreError.
    """
    return typed(Posted, store.call("post_events_v1", events=_text(rows)))


def post_user_events(store: Store, rows: Sequence[Mapping[str, Any]], *, subject: str) -> Posted:
    """Record events that a user sends, the verified `subject` of a token: they are this user's, of an organization of theirs.

    It takes the store's own rights: whoever asks must have verified who it is. Raises StoreError.
    """
    return typed(Posted, store.call("post_user_events_v1", events=_text(rows), subject=subject))


def _text(rows: Sequence[Mapping[str, Any]]) -> str:
    return orjson.dumps(list(rows)).decode()
