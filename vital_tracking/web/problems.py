"""What went wrong, as RFC 9457's problem+json: what it is, and what to do. Never a stack trace, a secret or an error's text."""

from __future__ import annotations

import logging
import traceback
import uuid
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from pathlib import PurePath
from typing import Any, Final

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request

from vital_tracking.errors import StoreDenied, StoreError, StoreRejected, StoreTimeout, StoreUnavailable
from vital_tracking.queries.plans import PlanRejected

MEDIA_TYPE: Final = "application/problem+json"

_log = logging.getLogger("vital_tracking")


class Problem(Exception):
    """An answer that is an error: `status`, a short `kind` that names it, and what whoever asked may know and do.

    `more` are further members of the answer, such as `errors`; `headers` go with it.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        title: str,
        *,
        detail: str | None = None,
        hint: str | None = None,
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(title)
        self.status = status
        self.kind = kind
        self.title = title
        self.detail = detail
        self.hint = hint
        self.headers = dict(headers or {})
        self.more = more

    def as_json(self) -> dict[str, Any]:
        """The members of the answer; those that say nothing are left out."""
        members = {
            "type": f"urn:vital-tracking:problem:{self.kind}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail or self.title,
            "hint": self.hint,
            **self.more,
        }
        return {name: value for name, value in members.items() if value is not None}


class SignInNeeded(Problem):
    """Nobody is signed in, or not any more. `error` is RFC 6750's code for a token that was given and is no good."""

    def __init__(self, detail: str = "This needs somebody who is signed in.", *, error: str | None = None) -> None:
        challenge = 'Bearer realm="vital-tracking"' + (f', error="{error}"' if error else "")
        super().__init__(
            401,
            "not-signed-in",
            "Sign in first",
            detail=detail,
            hint="Sign in on the page, or send Authorization: Bearer with a token that has not expired.",
            headers={"WWW-Authenticate": challenge},
        )


def forbidden(detail: str, hint: str | None = None) -> Problem:
    """Whoever asks is known, and may not."""
    return Problem(403, "not-allowed", "This is not for you", detail=detail, hint=hint)


def problem_of(error: Exception, request: Request) -> Problem:
    """What an error is to whoever asked; what is not foreseen is logged by its class and place alone."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, RequestValidationError):
        return _invalid(error)
    if isinstance(error, HTTPException):
        return _http(error)
    if isinstance(error, StoreError):
        return _store(error, request)
    return _unforeseen(error, request)


def invalid(parts: Iterable[tuple[str, str, str]]) -> Problem:
    """Which parts of a request are wrong: where they stand (`query`, `path`, `body`), their names, and what is wrong."""
    found = [{"in": place, "field": field, "message": message} for place, field, message in parts]
    return Problem(
        422,
        "invalid-request",
        "The request cannot be understood",
        detail="; ".join(f"{one['field'] or one['in']}: {one['message']}" for one in found[:5]),
        hint="Correct the parts that `errors` names; api/v1/openapi.json says what each may be.",
        errors=found,
    )


def _invalid(error: RequestValidationError) -> Problem:
    """What is wrong with the parts of a request; not what they were, which could be a password."""
    return invalid((str(one["loc"][0]), ".".join(map(str, one["loc"][1:])), str(one["msg"])) for one in error.errors())


_PLAIN: Final = {
    404: ("There is nothing at this address.", "See whether it is spelled right; api/v1/openapi.json lists the API's."),
    405: ("This address does not know the method.", "The Allow header names those that it knows."),
    413: ("The request is too large.", "Send less at once."),
}


def _http(error: HTTPException) -> Problem:
    """What the framework refuses; its own words may repeat the request, and are not passed on."""
    phrase = HTTPStatus(error.status_code).phrase
    detail, hint = _PLAIN.get(
        error.status_code, ("The request was refused.", "api/v1/openapi.json says what it may be.")
    )
    kind = phrase.lower().replace(" ", "-")
    headers = dict(error.headers or {})
    if headers.get("Allow") == "GET":  # what answers GET answers HEAD as well
        headers["Allow"] = "GET, HEAD"
    return Problem(error.status_code, kind, phrase, detail=detail, hint=hint, headers=headers)


def _store(error: StoreError, request: Request) -> Problem:
    """The database's own words stay inside: they are for operators, and are in the log."""
    if isinstance(error, StoreDenied):
        if error.sqlstate != "42501" and error.sqlstate is not None:
            return SignInNeeded("The database does not take this token (any more).", error="invalid_token")
        return forbidden(
            "The database tells you nothing of what was asked for.",
            "Admins see their organization, users what is theirs; an operator makes somebody an admin.",
        )
    if isinstance(error, PlanRejected):  # its words name what was sent, and nothing else
        return Problem(
            422, "no-such-subscription", "There can be no such subscription", detail=str(error), hint="Correct that."
        )
    if isinstance(error, StoreRejected):
        return _rejected(error)
    _log.warning("%s: %s", _route(request), error)
    if isinstance(error, StoreTimeout):
        return Problem(
            503,
            "took-too-long",
            "The answer took too long",
            detail="The database has stopped looking for it.",
            hint="Ask for fewer days, or of one organization.",
            headers={"Retry-After": "30"},
        )
    unavailable = isinstance(error, StoreUnavailable)
    return Problem(
        503,
        "database-unavailable" if unavailable else "database-not-ready",
        "The database cannot be reached" if unavailable else "The database is not set up for this",
        detail="Nothing is known about your request." if unavailable else "Tables, functions or rights are missing.",
        hint="Try again soon." if unavailable else "An operator finds what is missing with: vital-tracking doctor",
        headers={"Retry-After": "5" if unavailable else "60"},
    )


_REJECTED: Final = {
    "42501": (403, "not-allowed", "This is not for you", "Only an admin of that organization may do this.", "Ask one."),
    "23505": (409, "is-there-already", "It is there already", "There is one by this name.", "Change that one."),
    "23001": (
        409,
        "in-use",
        "Something stands on it",
        "It cannot be changed as it is now.",
        "Change what needs it first.",
    ),
    "P0002": (404, "not-found", "There is none", "Nothing has this name.", "See whether it is spelled right."),
}


def _rejected(error: StoreRejected) -> Problem:
    """Data that the database refuses; its words may repeat them, but for those of our own functions, which say what is wrong."""
    status, kind, title, detail, hint = _REJECTED.get(
        error.sqlstate or "",
        (
            422,
            "refused-by-the-database",
            "The database refused the request",
            "A value has the right form, but the database cannot use it.",
            "See whether names, times and the time zone exist.",
        ),
    )
    if error.problem is not None:
        detail, hint = error.problem, error.hint or "Correct that."
    return Problem(status, kind, title, detail=detail, hint=hint)


def _unforeseen(error: Exception, request: Request) -> Problem:
    incident = str(uuid.uuid4())
    _log.error("%s: %s (%s)", _route(request), described(error), incident)
    return Problem(
        500,
        "fault",
        "Something went wrong here",
        detail="It is not your request's fault, and it was noted.",
        hint=f"Tell an operator the number {incident}: it stands in the log.",
        instance=f"urn:uuid:{incident}",
    )


def described(error: BaseException) -> str:
    """An error for the log: its class and where it was raised, without its text, which may hold data."""
    frames: Sequence[traceback.FrameSummary] = traceback.extract_tb(error.__traceback__)[-3:]
    places = " < ".join(f"{PurePath(frame.filename).name}:{frame.lineno}" for frame in reversed(frames))
    return f"{type(error).__name__} at {places or 'an unknown place'}"


def _route(request: Request) -> str:
    """Which route a request met, without what was asked of it."""
    return f"{request.method} {getattr(request.scope.get('route'), 'path', 'no route')}"
