"""Answers: JSON in which money keeps all its digits, conditional and compressed."""

from __future__ import annotations

import hashlib
import logging
import zlib
from collections.abc import AsyncIterator, Mapping
from decimal import Decimal
from typing import Annotated, Any, Final

import orjson
from pydantic import WithJsonSchema
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from vital_tracking.web.headers import SECURITY, VARY
from vital_tracking.web.problems import MEDIA_TYPE, Problem, described

_WORTH_COMPRESSING: Final = 600
_LEVEL: Final = 5
_GZIP: Final = 16 + zlib.MAX_WBITS
_COMPRESSIBLE: Final = ("text/", "application/json", MEDIA_TYPE, "image/svg+xml")

HEAD: Final = "vital_head"
"""Marks the scope of a request that is answered as GET, without its body."""

_log = logging.getLogger("vital_tracking")

Exact = Annotated[Decimal, WithJsonSchema({"type": "number"})]
"""An amount: a JSON number with all its digits. In models of answers, so that OpenAPI says so."""


class ExactJSON(Response):
    """JSON whose decimals are numbers, digit by digit; times are RFC 3339 with an offset.

    Routes return it ready made: FastAPI would write decimals as strings. `max_age` is how many seconds a browser may show it
    again without asking.
    """

    media_type = "application/json"
    compared: bytes | None = None
    """What the ETag is made of where it is not the body: the answer without the moment at which it was fresh."""

    def __init__(
        self,
        content: Any,
        status_code: int = 200,
        headers: dict[str, str] | None = None,
        media_type: str | None = None,
        *,
        max_age: int | None = None,
    ) -> None:
        super().__init__(content, status_code, headers, media_type)
        if max_age is not None:
            self.headers["Cache-Control"] = f"private, max-age={max_age}"

    def render(self, content: Any) -> bytes:
        """The JSON as bytes."""
        if isinstance(content, Mapping) and "fresh_at" in content:
            self.compared = exact_json({name: value for name, value in content.items() if name != "fresh_at"})
        return exact_json(content)


def exact_json(content: Any) -> bytes:
    """JSON of anything that orjson knows, of decimals and of sets; a decimal that is no number is null."""
    return orjson.dumps(content, default=_plain, option=orjson.OPT_NON_STR_KEYS)


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return orjson.Fragment(format(value, "f").encode()) if value.is_finite() else None
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if hasattr(value, "model_dump"):
        return value.model_dump()
    if hasattr(value, "items"):
        return dict(value.items())
    raise TypeError(f"{type(value).__name__} has no place in JSON")


def problem_response(problem: Problem) -> Response:
    """A problem as its answer; nobody keeps it."""
    headers = {"Cache-Control": "no-store", **problem.headers}
    return ExactJSON(problem.as_json(), problem.status, headers, MEDIA_TYPE)


def finished(response: Response, request: Request) -> Response:
    """An answer with what all answers have: security headers, a weak ETag and 304, gzip for who takes it."""
    for name, value in SECURITY.items():
        response.headers.setdefault(name, value)
    response.headers.setdefault("Cache-Control", "private, no-cache")
    response.headers.setdefault("Vary", VARY)
    response = _conditional(response, request)
    return _without_body(response) if request.scope.get(HEAD) else response


def _conditional(response: Response, request: Request) -> Response:
    if isinstance(response, StreamingResponse):
        return _streamed(response, request)
    if request.method != "GET" or response.status_code != 200 or "etag" in response.headers:
        return _compressed(response, request)
    if "no-store" in response.headers["Cache-Control"]:
        return _compressed(response, request)
    compared = getattr(response, "compared", None) or bytes(response.body)
    tag = f'W/"{hashlib.blake2b(compared, digest_size=12).hexdigest()}"'
    response.headers["ETag"] = tag
    if matches(request.headers.get("if-none-match"), tag):
        return not_modified(response)
    return _compressed(response, request)


class HeadAsGet:
    """The application around which it stands answers HEAD wherever it answers GET, as RFC 9110 wants it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request on."""
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET", HEAD: True}
        await self._app(scope, receive, send)


def _without_body(response: Response) -> Response:
    """The answer to HEAD: everything but the body, its length included where that is known."""
    empty = Response(status_code=response.status_code)
    empty.raw_headers = response.raw_headers
    return empty


def not_modified(response: Response) -> Response:
    """304 in the place of an answer that the browser has already."""
    kept = ("etag", "cache-control", "vary", "set-cookie", *map(str.lower, SECURITY))
    empty = Response(status_code=304)
    empty.raw_headers = [(name, value) for name, value in response.raw_headers if name.decode() in kept]
    return empty


def matches(wanted: str | None, tag: str) -> bool:
    """Whether If-None-Match names a tag, as RFC 9110 compares them: weakly."""
    if wanted is None:
        return False
    bare = tag.removeprefix("W/")
    return any(one.strip().removeprefix("W/") in (bare, "*") for one in wanted.split(","))


def takes_gzip(request: Request) -> bool:
    """Whether the client says that it takes gzip."""
    for part in request.headers.get("accept-encoding", "").lower().split(","):
        name, _, quality = part.strip().partition(";")
        if name.strip() == "gzip":
            return quality.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


def _compressible(response: Response, request: Request) -> bool:
    kind = response.headers.get("content-type", "")
    return takes_gzip(request) and "content-encoding" not in response.headers and kind.startswith(_COMPRESSIBLE)


def _compressed(response: Response, request: Request) -> Response:
    body = bytes(getattr(response, "body", b""))
    if len(body) < _WORTH_COMPRESSING or not _compressible(response, request):
        return response
    response.body = gzipped(body)
    response.headers["Content-Encoding"] = "gzip"
    response.headers["Content-Length"] = str(len(response.body))
    return response


def gzipped(body: bytes, level: int = _LEVEL) -> bytes:
    """A body as gzip, the same each time."""
    packer = zlib.compressobj(level, zlib.DEFLATED, _GZIP)
    return packer.compress(body) + packer.flush()


class BrokenStreamError(Exception):
    """An answer broke off half-way; why is in the log."""


def _streamed(response: StreamingResponse, request: Request) -> Response:
    """Rows as they come, compressed on their way; where they break off the connection does, too, and the log says why."""
    inner = response.body_iterator
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP) if _compressible(response, request) else None

    async def parts() -> AsyncIterator[bytes]:
        failed = None
        try:
            async for part in inner:
                data = part.encode() if isinstance(part, str) else bytes(part)
                if data := packer.compress(data) if packer else data:
                    yield data
            if packer:
                yield packer.flush()
        except Exception as error:  # noqa: BLE001 - whatever it is, its text must not get into the server's log
            failed = described(error)
        if failed:
            _log.error("An answer broke off: %s", failed)
            raise BrokenStreamError

    if packer:
        response.headers["Content-Encoding"] = "gzip"
        if "content-length" in response.headers:
            del response.headers["Content-Length"]
    response.body_iterator = parts()
    return response
