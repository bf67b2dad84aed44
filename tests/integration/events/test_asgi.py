"""Requests of an API as events: each once, by its route, however it ends, and nothing of what it said."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from blockbuster import blockbuster_ctx
from fastapi import APIRouter, FastAPI, WebSocket
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route
from starlette.websockets import WebSocketDisconnect

from vital_tracking import VitalTracker
from vital_tracking.core.addresses import address_hash
from vital_tracking.core.paths import masked_path
from vital_tracking.events.asgi import RequestEvents

Make = Callable[..., VitalTracker]
Rows = Callable[..., list[dict[str, Any]]]
KEY = "k" * 32


@pytest.fixture
def database_url(reused_database: str) -> str:
    """One database for all tests of this file."""
    return reused_database


class OurOwnError(Exception):
    """What an application raises."""


def an_api() -> FastAPI:
    """An API in which requests end in every way."""
    api = FastAPI()
    users = APIRouter(prefix="/users")

    @users.get("/{user_id}/reports/{name:path}")
    def report(user_id: str, name: str) -> dict[str, str]:
        return {"user": user_id, "name": name}

    @api.get("/pieces")
    def pieces() -> StreamingResponse:
        return StreamingResponse(iter([b"a" * 10, b"b" * 10, b"c" * 5]))

    @api.get("/broken")
    def broken() -> None:
        raise OurOwnError("a secret")

    @api.get("/half")
    def half() -> StreamingResponse:
        async def breaks() -> AsyncIterator[bytes]:
            yield b"12345"
            raise OurOwnError("a secret")

        return StreamingResponse(breaks())

    @api.websocket("/talk/{room}")
    async def talk(socket: WebSocket, room: str) -> None:
        if room == "closed":
            await socket.close()
            return
        await socket.accept()
        await socket.send_text("hello")
        await socket.receive_text()
        await socket.close()

    api.include_router(users)
    api.mount("/tenants/{tenant}", Starlette(routes=[Route("/bill/{month}", lambda _: PlainTextResponse("bill"))]))
    api.mount("/old", Starlette(routes=[Mount("/deep", routes=[Route("/", lambda _: PlainTextResponse("deep"))])]))
    return api


def test_each_request_is_an_event_by_its_route(make_tracker: Make, rows: Rows) -> None:
    """If this failed, an API would not be seen, or what its users asked for would stand in the database."""
    tracker = make_tracker(hash_key=KEY)
    api = an_api()
    api.add_middleware(
        RequestEvents,
        tracker=tracker,
        user_of=lambda scope: dict(scope["headers"]).get(b"x-user", b"").decode() or None,
        organization_of=lambda _: "acme",
        addresses=True,
        skip={"/skipped"},
    )
    with TestClient(api, client=("192.0.2.7", 99), headers={"x-user": "u-1"}) as client:
        assert client.get("/users/4711/reports/q3/secret?token=secret").json() == {"user": "4711", "name": "q3/secret"}
        assert client.get("/pieces").content == b"a" * 10 + b"b" * 10 + b"c" * 5
        assert client.get("/nowhere/4711/a@b.example").status_code == 404
        assert client.get("/skipped").status_code == 404
        assert client.get("/tenants/t-9/bill/2026").text == "bill"
        assert client.get("/old/deep/").text == "deep"
        for path in ("/broken", "/half"):
            with pytest.raises(OurOwnError):
                client.get(path)
        with client.websocket_connect("/talk/1") as socket:
            assert socket.receive_text() == "hello"
            socket.send_text("my secret")
        with pytest.raises(WebSocketDisconnect), client.websocket_connect("/talk/closed"):
            pass
    assert tracker.flush().complete
    found = rows("select * from platform_events order by id")
    told = [
        (row["event_name"], row["source"], {k: v for k, v in row["properties"].items() if k != "duration_ms"})
        for row in found
    ]
    assert told == [
        ("http_request", "/users/{user_id}/reports/{name}", {"method": "GET", "status": 200, "size": 34}),
        ("http_request", "/pieces", {"method": "GET", "status": 200, "size": 25}),
        ("http_request", "/nowhere/{id}/{id}", {"method": "GET", "status": 404, "size": 22}),
        ("http_request", "/tenants/{tenant}/bill/{month}", {"method": "GET", "status": 200, "size": 4}),
        ("http_request", "/old/deep/", {"method": "GET", "status": 200, "size": 4}),
        ("http_request", "/broken", {"method": "GET", "status": 500, "size": 0, "error_type": "OurOwnError"}),
        ("http_request", "/half", {"method": "GET", "status": 200, "size": 5, "error_type": "OurOwnError"}),
        ("websocket", "/talk/{room}", {"status": 101, "size": 5}),
        ("websocket", "/talk/{room}", {"status": 403, "size": 0}),
    ]
    assert {(row["category"], row["user_id"], row["organization_id"], row["ip_hash"]) for row in found} == {
        ("system_health", "u-1", "acme", address_hash("192.0.2.7", KEY.encode()))
    }
    assert all(row["value"] > 0 and row["properties"]["duration_ms"] > 0 for row in found)
    assert "secret" not in repr(found)


async def call(app: Any, scope: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """What an application sends in answer to a request."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await app({"type": "http", "path": "/a", "method": "GET", "headers": [], **(scope or {})}, receive, send)
    return sent


async def test_in_an_event_loop_nothing_of_it_blocks(make_tracker: Make, rows: Rows) -> None:
    """If this failed, every request of an application would wait for our files while one is recorded."""
    tracker = make_tracker()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    watched = RequestEvents(app, tracker)
    assert tracker.handler.in_flight == 0  # LangChain is imported before: every import reads files
    with blockbuster_ctx("vital_tracking"):
        tracker.track_event("page_view")  # the first, which finds no file open yet
        tracker.track_cost("search", quantity=2)
        tracker.track_agent_execution("cardio", duration_ms=5)
        async with tracker.conversation(user_id="u-7"):
            tracker.track_event("asked")
        await asyncio.gather(*(call(watched) for _ in range(20)))
    assert tracker.flush().complete
    assert (tracker.stats().faults, tracker.stats().platform_rows) == (0, 24)
    assert rows("select user_id from platform_events where event_name = 'asked'") == [{"user_id": "u-7"}]


async def test_a_request_that_is_given_up_is_no_failure_of_the_system(make_tracker: Make, rows: Rows) -> None:
    tracker = make_tracker()
    begun = asyncio.Event()

    async def waits(scope: Any, receive: Any, send: Any) -> None:
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.ensure_future(call(RequestEvents(waits, tracker), {"path": "/given-up"}))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    tracker.flush()
    [row] = rows("select properties from platform_events where source = '/given-up'")
    assert (row["properties"]["status"], "error_type" in row["properties"]) == (499, False)


async def test_no_fault_of_ours_reaches_the_application(caplog: pytest.LogCaptureFixture) -> None:
    """If this failed, a tracker that breaks would take an API along."""

    class Broken:
        def track_event(self, *_: Any, **__: Any) -> str:
            raise RuntimeError("a secret")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})

    for _ in range(2):
        assert [message["status"] for message in await call(RequestEvents(app, Broken()))] == [204]
    assert "a secret" not in caplog.text
    assert "RuntimeError" in caplog.text
    lifespan: list[str] = []

    async def ends(scope: Any, receive: Any, send: Any) -> None:
        lifespan.append(scope["type"])

    await RequestEvents(ends, Broken())({"type": "lifespan"}, None, None)  # type: ignore[arg-type]
    assert lifespan == ["lifespan"]


@pytest.mark.parametrize(
    ("path", "masked"),
    [
        ("/", "/"), ("/users/17", "/users/{id}"), ("/api/v1/reports", "/api/v1/reports"),
        ("/u/0192c8a0-5a5a-7a5a-8a5a-5a5a5a5a5a5a/x", "/u/{id}/x"), ("/m/anna@example.com", "/m/{id}"),
        ("/t/eyJhbGciOiJIUzI1NiJ9.x.y", "/t/{id}"), ("/deadbeef", "/{id}"), ("/reports-of-all-of-us", "/reports-of-all-of-us"),
        ("/x?token=1", "/x"), ("//", "//"), ("/" + "a" * 50, "/{id}"),
    ],
)  # fmt: skip
def test_no_id_of_a_path_is_kept(path: str, masked: str) -> None:
    assert masked_path(path) == masked


def test_a_scope_of_another_framework_tells_its_template(make_tracker: Make, rows: Rows) -> None:
    tracker = make_tracker()

    async def litestar(scope: Any, receive: Any, send: Any) -> None:
        scope["path_template"] = "/books/{book_id}"
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def django(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    for app in (litestar, django):
        asyncio.run(call(RequestEvents(app, tracker), {"path": "/books/77", "scheme": "x"}))
    tracker.flush()
    sources = rows("select source from platform_events where source like '/books%' order by id")
    assert [row["source"] for row in sources] == ["/books/{book_id}", "/books/{id}"]


def test_a_request_is_handed_on_as_it_is(make_tracker: Make, rows: Rows) -> None:
    api, tracker = FastAPI(), make_tracker()

    @api.post("/echo")
    async def echo(request: Request) -> PlainTextResponse:
        return PlainTextResponse((await request.body()).decode())

    api.add_middleware(RequestEvents, tracker=tracker, user_of=lambda scope: scope["nowhere"])
    assert TestClient(api).post("/echo", content=b"x" * 100_000).text == "x" * 100_000
    tracker.flush()
    assert rows("select user_id from platform_events where source = '/echo'") == [{"user_id": None}]
