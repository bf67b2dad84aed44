"""An ASGI middleware that records each request of an API as an event: FastAPI, Starlette, Litestar, Django, any of them.

    app.add_middleware(RequestEvents, tracker=tracker)

It stands around the application and imports no framework. What an application does to a request, answers in pieces, or raises,
passes through as it is; a fault of ours reaches nobody.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, MutableMapping
from typing import Any, Final, Protocol

from vital_tracking.core.paths import masked_path

_log = logging.getLogger("vital_tracking")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

Named = Callable[[Scope], str | None]

_LONGEST_PATH: Final = 2048
_GONE: Final = 499  # as nginx writes it: whoever asked did not wait for the answer


class Tracker(Protocol):
    """What the middleware needs of a VitalTracker."""

    @property
    def track_event(self) -> Callable[..., str]:
        """Records an event, without waiting."""


class RequestEvents:
    """Records each request and websocket of the application around which it stands, as an event of the category `system_health`.

    The event is named `http_request` or `websocket`, its source is the route's template where the framework tells it
    (`/users/{id}`), else the path with ids masked, never the query; its properties are `method`, `status`, `duration_ms`, `size`
    (bytes of the answer) and `error_type`. `user_of`, `organization_of` and `session_of` find out whose it is, from the scope
    as the application has left it. `addresses`: keep the keyed hash of the client's address. Paths in `skip` are not recorded.
    """

    def __init__(
        self,
        app: Application,
        tracker: Tracker,
        *,
        user_of: Named | None = None,
        organization_of: Named | None = None,
        session_of: Named | None = None,
        addresses: bool = False,
        skip: Collection[str] = (),
    ) -> None:
        self._app = app
        self._tracker = tracker
        self._whose = {"user_id": user_of, "organization_id": organization_of, "session_id": session_of}
        self._addresses = addresses
        self._skip = frozenset(skip)
        self._faulty = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request on, and record it when it is done, however it ends."""
        if scope["type"] not in ("http", "websocket") or scope.get("path") in self._skip:
            await self._app(scope, receive, send)
            return
        seen = _Seen(scope)
        error: BaseException | None = None

        async def sending(message: Message) -> None:
            seen.sent(message)
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except BaseException as raised:
            error = raised
            raise
        finally:
            self._record(seen, scope, error)

    def _record(self, seen: _Seen, scope: Scope, error: BaseException | None) -> None:
        try:
            client = scope.get("client") if self._addresses else None
            self._tracker.track_event(
                "http_request" if scope["type"] == "http" else "websocket",
                category="system_health",
                value=seen.duration_ms,
                source=seen.route(scope),
                ip_address=client[0] if client else None,
                properties=seen.properties(error),
                **{name: self._asked(of, scope) for name, of in self._whose.items() if of is not None},
            )
        except Exception as fault:  # noqa: BLE001 - recording must not break what it records
            self._warn("A request was not recorded, nor may others be", fault)

    def _asked(self, of: Named, scope: Scope) -> str | None:
        """Whose a request is; what does not know is somebody's own code, and its failure is no reason not to record."""
        try:
            return of(scope)
        except Exception as fault:  # noqa: BLE001 - whatever it is
            self._warn("Whose a request is could not be found out", fault)
            return None

    def _warn(self, what: str, fault: Exception) -> None:
        if not self._faulty:
            _log.warning("%s: %s", what, type(fault).__name__)
        self._faulty = True


class _Seen:
    """What is seen of one request: when it began, and what was sent in answer."""

    def __init__(self, scope: Scope) -> None:
        self._began = time.perf_counter()
        self._kind: str = scope["type"]
        self._method: str | None = scope.get("method")
        self._path = str(scope.get("path") or "/")[:_LONGEST_PATH]
        self._root = str(scope.get("root_path") or "")
        self._status: int | None = None
        self._size = 0

    def sent(self, message: Message) -> None:
        """Note what a message tells: never what it says."""
        kind = message.get("type")
        if kind in ("http.response.body", "websocket.http.response.body"):
            self._size += len(message.get("body") or b"")
        elif kind == "websocket.send":
            self._size += len(message.get("bytes") or str(message.get("text") or "").encode("utf-8", "replace"))
        elif kind in ("http.response.start", "websocket.http.response.start"):
            self._status = message.get("status")
        elif kind == "websocket.accept":
            self._status = 101
        elif kind == "websocket.close" and self._status is None:
            self._status = 403  # as a server answers where it is closed before it was accepted

    @property
    def duration_ms(self) -> float:
        """How long it has taken so far."""
        return round((time.perf_counter() - self._began) * 1000, 3)

    def properties(self, error: BaseException | None) -> dict[str, Any]:
        """What the event says of it."""
        status, failure = self._status, None
        if isinstance(error, asyncio.CancelledError):
            status = status or _GONE
        elif isinstance(error, Exception):
            status, failure = status or 500, type(error).__name__
        told = {"method": self._method, "status": status, "duration_ms": self.duration_ms, "size": self._size}
        return {name: value for name, value in {**told, "error_type": failure}.items() if value is not None}

    def route(self, scope: Scope) -> str:
        """The template of the route that answered, as the framework tells it; else the path, with ids masked."""
        parameters = scope.get("path_params")
        names = {str(value): name for name, value in parameters.items()} if isinstance(parameters, Mapping) else {}
        template = _template(scope)
        if template is None:
            return masked_path(self._path, names)
        # What is mounted knows its own part of the path alone; the part before it has become the root meanwhile.
        before = str(scope.get("root_path") or "").removeprefix(self._root)
        return f"{masked_path(before, names) if before.strip('/') else ''}{template}"


def _template(scope: Scope) -> str | None:
    """A route's template: of FastAPI and Starlette's routes, or of Litestar."""
    route = scope.get("route")
    found = getattr(route, "path_format", None) or getattr(route, "path", None) or scope.get("path_template")
    return found if isinstance(found, str) and found else None
