"""Events, at `/api/v1/events`: those that are recorded, and those that browsers and servers send."""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from anyio import to_thread
from fastapi import Depends
from pydantic import TypeAdapter
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from vital_tracking.queries.events import Event, Posted, events, post_events, post_user_events
from vital_tracking.queries.platform import place_of_row
from vital_tracking.web.access import Asker, Reader, reads
from vital_tracking.web.api.pages import After, Limit, page_of
from vital_tracking.web.cross_origin import CrossOriginRoute
from vital_tracking.web.csv import CsvFile, csv_response
from vital_tracking.web.described import answering, csv_answering
from vital_tracking.web.identity import Identity, Kind
from vital_tracking.web.listed import checked_place
from vital_tracking.web.parts import Parts, parts
from vital_tracking.web.platform_asked import EventsAsked, events_as_csv
from vital_tracking.web.posted import MOST_EVENTS, Batch, SentEvent, read_events
from vital_tracking.web.problems import Problem, forbidden, invalid
from vital_tracking.web.responses import ExactJSON
from vital_tracking.web.route import api_router

routes = api_router(prefix="/api/v1", tags=["events"])

_EXAMPLE: Final = {
    "id": "0192c8a0-5a5a-7a5a-8a5a-5a5a5a5a5a5a",
    "occurred_at": "2026-11-30T12:00:00+00:00",
    "organization_id": "acme",
    "user_id": "u-1",
    "session_id": "s-1",
    "category": "user_behavior",
    "event_name": "report_opened",
    "source": "/reports",
    "ip_hash": None,
    "value": None,
    "failed": False,
    "properties": {"page": "/reports", "duration_ms": 120},
}


class Refusal(TypedDict):
    """An event that was not recorded: its place in the batch from 0, a word for the reason, and the reason itself."""

    place: int
    reason: str
    message: str


class EventsPosted(TypedDict):
    """What became of the events: how many are new, how many were recorded before, which were refused.

    `ids` are those of the events that are recorded, in the order of the batch; `left_out` names properties that are not stored.
    """

    recorded: int
    duplicates: int
    ids: list[UUID]
    refused: list[Refusal]
    left_out: list[str]


_POSTED: Final = {
    "recorded": 1,
    "duplicates": 0,
    "ids": ["0192c8a0-5a5a-7a5a-8a5a-5a5a5a5a5a5a"],
    "refused": [{"place": 1, "reason": "no_member", "message": "You are no member of this organization."}],
    "left_out": ["comment"],
}
_SENT: Final = TypeAdapter(SentEvent).json_schema(ref_template="#/components/schemas/{model}")
_BODY: Final = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {"anyOf": [_SENT, {"type": "array", "items": _SENT, "minItems": 1, "maxItems": MOST_EVENTS}]},
            "examples": {
                "one": {"summary": "One event", "value": _SENT["example"]},
                "batch": {"summary": "Several", "value": [_SENT["example"], {"event_name": "signed_out"}]},
            },
        }
    },
}

_REASONS: Final = {
    "another_user": "Events are of whoever sends them: leave user_id out.",
    "no_member": "You are no member of this organization.",
    "not_an_admin": "Business events, such as revenue, come from admins of their organization.",
    "out_of_time": "It was more than 31 days ago, or is more than an hour ahead.",
}
_RIGHTS: Final = frozenset({"another_user", "no_member", "not_an_admin"})


async def may_post() -> Response:
    """What a browser asks before a page of another origin sends events."""
    return Response(status_code=204)


async def post(request: Request, who: Asker) -> Response:
    """Record one event, or up to 100 as an array, from a browser or a server. An event that has an `id` is recorded once, however
    often it is sent within 31 days. Bad events are refused one by one, the good ones recorded; where none is good, the answer is
    403 or 422. A user's events are his own, of an organization that he is a member of; `user_id`, any organization and
    `ip_address` are for operators. Of `properties` those on the list are stored.
    """
    if who.kind is Kind.monitor:
        raise forbidden("The monitoring token opens the metrics, and nothing else.")
    with_parts = parts(request)
    sent = await _sent(request)
    settings = with_parts.settings
    address = request.client.host if settings.event_addresses and request.client else None
    batch = read_events(sent, settings, operator=who.is_operator, address=address)
    posted = await to_thread.run_sync(_record, with_parts, who, batch)
    await _note_refusals(with_parts, who, posted)
    return _answer(batch, posted)


routes.add_api_route(
    "/events",
    may_post,
    methods=["OPTIONS"],
    name="vital-api-events-options",
    include_in_schema=False,
    route_class_override=CrossOriginRoute,
)
routes.add_api_route(
    "/events",
    post,
    methods=["POST"],
    name="vital-api-post-events",
    summary="Record what happened",
    responses=answering(EventsPosted, "What became of the events.", _POSTED),
    openapi_extra={"requestBody": _BODY},
    route_class_override=CrossOriginRoute,
)


async def _sent(request: Request) -> list[Any]:
    try:
        body = await request.json()
    except (ValueError, RecursionError):
        raise invalid([("body", "", "is no JSON")]) from None
    sent = body if isinstance(body, list) else [body]
    if not 1 <= len(sent) <= MOST_EVENTS:
        raise invalid([("body", "", f"holds {len(sent)} events: send 1 to {MOST_EVENTS} at once")])
    return sent


def _record(with_parts: Parts, who: Identity, batch: Batch) -> Posted:
    """What the database says of the good ones, with the store's own rights: who it is has been verified."""
    store = with_parts.store.within(with_parts.settings.answer_s)
    if not batch.rows:
        return Posted(recorded=0, duplicates=0, refused=[])
    if who.is_operator:
        return post_events(store, batch.rows)
    if who.subject is None:
        raise forbidden("The token names nobody.")
    return post_user_events(store, batch.rows, subject=who.subject)


async def _note_refusals(with_parts: Parts, who: Identity, posted: Posted) -> None:
    """A try to write of others, in the audit: a line a request, as of other tries, for the first organization that it names."""
    tried = [one["organization_id"] for one in posted["refused"] if one["reason"] in _RIGHTS]
    if tried:
        await with_parts.audit.write("refused", "events", who, tried[0] and tried[0][:255])


def _answer(batch: Batch, posted: Posted) -> Response:
    of_database = {one["place"]: one["reason"] for one in posted["refused"]}
    refused = [
        Refusal(place=batch.places[place], reason=reason, message=_message(reason))
        for place, reason in of_database.items()
    ]
    wrong: dict[int, list[tuple[str, str]]] = {}
    for place, name, said in batch.wrong:
        wrong.setdefault(place, []).append((name, said))
    refused += [
        Refusal(
            place=place,
            reason="invalid",
            message="; ".join(f"{name}: {said}" if name else said for name, said in found),
        )
        for place, found in wrong.items()
    ]
    refused.sort(key=lambda one: one["place"])
    if refused and not posted["recorded"] + posted["duplicates"]:
        raise _all_refused(refused)
    ids = [UUID(row["id"]) for place, row in enumerate(batch.rows) if place not in of_database]
    return ExactJSON(
        EventsPosted(
            recorded=posted["recorded"],
            duplicates=posted["duplicates"],
            ids=ids,
            refused=refused,
            left_out=sorted(batch.left_out),
        )
    )


def _message(reason: str) -> str:
    return _REASONS.get(reason, f"The database does not take it: {reason}.")


def _all_refused(refused: list[Refusal]) -> Problem:
    if all(one["reason"] in _RIGHTS for one in refused):
        return Problem(
            403,
            "not-allowed",
            "This is not for you",
            detail=refused[0]["message"],
            hint="Leave user_id and organization_id out, or send as whom it concerns.",
            refused=refused,
        )
    return invalid(("body", str(one["place"]), one["message"]) for one in refused)


@routes.get(
    "/events",
    name="vital-api-events",
    summary="Events, the newest first",
    responses=answering(list[Event], "The events; `Link` leads to the next ones.", [_EXAMPLE]),
    dependencies=[Depends(reads("events"))],
)
def list_events(
    request: Request, store: Reader, asked: EventsAsked, limit: Limit = 100, after: After = None
) -> Response:
    """The events that whoever asks may see; the `Link` of the answer leads to the next page."""
    return page_of(request, events(store, asked.filters, limit=limit, after=checked_place(after)), limit, place_of_row)


@routes.get(
    "/events.csv",
    name="vital-api-events-csv",
    summary="All events as CSV",
    response_class=CsvFile,
    responses=csv_answering("id,occurred_at,organization_id\r\n"),
    dependencies=[Depends(reads("events"))],
)
def events_csv(store: Reader, asked: EventsAsked) -> Response:
    """All of them for which the filters hold, however many; no cell is a formula."""
    return csv_response(events_as_csv(store, asked.filters), "events.csv")
