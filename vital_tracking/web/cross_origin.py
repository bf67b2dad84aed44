"""What pages of other sites may ask of us: with a token alone, and where the settings name their origin.

A browser asks first (OPTIONS), and keeps from its page an answer that does not name the page's origin. Cookies are never allowed:
what comes with one must be of our own origin. Source: https://fetch.spec.whatwg.org/#http-cors-protocol.
"""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from vital_tracking.web.headers import VARY
from vital_tracking.web.parts import Parts
from vital_tracking.web.route import ApiRoute, Handler

_REMEMBERED_S: Final = "600"


class CrossOriginRoute(ApiRoute):
    """A route of POST that pages of the origins in `VITAL_EVENT_ORIGINS` may ask, and read the answer of, errors too."""

    def get_route_handler(self) -> Handler:
        """The handler, whose answers name the origin that may read them."""
        inner = super().get_route_handler()

        async def handle(request: Request) -> Response:
            response = await inner(request)
            response.headers["Vary"] = f"{VARY}, Origin"
            parts: Parts | None = getattr(request.state, "vital", None)
            origin = request.headers.get("origin", "").lower()
            if parts is not None and origin in parts.settings.event_origins:
                response.headers["Access-Control-Allow-Origin"] = origin
                if request.method == "OPTIONS":
                    response.headers["Access-Control-Allow-Methods"] = "POST"
                    response.headers["Access-Control-Allow-Headers"] = "Authorization, Content-Type"
                    response.headers["Access-Control-Max-Age"] = _REMEMBERED_S
            return response

        return handle
