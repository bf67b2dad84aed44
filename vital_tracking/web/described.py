"""What OpenAPI says of the problems that any route of the API may answer with, each with an example."""

from __future__ import annotations

from typing import Any, Final

from vital_tracking.web.problems import MEDIA_TYPE, Problem, SignInNeeded, forbidden, invalid

_SCHEMA: Final = {
    "type": "object",
    "description": "RFC 9457: what went wrong, and what to do.",
    "required": ["type", "title", "status", "detail", "hint"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "hint": {"type": "string"},
        "instance": {"type": "string", "format": "uri"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["in", "field", "message"],
                "properties": {name: {"type": "string"} for name in ("in", "field", "message")},
            },
        },
    },
}


def described(problem: Problem, description: str) -> dict[str, Any]:
    """A problem as a response of OpenAPI, with itself as the example."""
    content = {MEDIA_TYPE: {"schema": _SCHEMA, "example": problem.as_json()}}
    headers = {name: {"schema": {"type": "string"}, "example": value} for name, value in problem.headers.items()}
    return {"description": description, "content": content, **({"headers": headers} if headers else {})}


def answering(model: Any, description: str, example: Any, *, status: int = 200) -> dict[int | str, dict[str, Any]]:
    """A good answer as a response of OpenAPI: its form, and an example."""
    return {status: {"model": model, "description": description, "content": {"application/json": {"example": example}}}}


def csv_answering(example: str) -> dict[int | str, dict[str, Any]]:
    """A good answer in CSV as a response of OpenAPI."""
    content = {"text/csv": {"schema": {"type": "string"}, "example": example}}
    return {200: {"description": "CSV.", "content": content}}


PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    400: described(
        Problem(400, "bad-request", "Bad Request", detail="The request was refused.", hint="Send JSON as UTF-8."),
        "The request cannot be read.",
    ),
    401: described(SignInNeeded(), "Nobody is signed in, or the token is no good (any more)."),
    403: described(
        forbidden("The database tells you nothing of what was asked for.", "An operator makes somebody an admin."),
        "Whoever asks may not.",
    ),
    422: described(
        invalid([("query", "days", "Input should be less than or equal to 90")]), "A parameter cannot be understood."
    ),
    429: described(
        Problem(
            429,
            "too-many-requests",
            "You ask too often",
            detail="100 are let through in a minute.",
            hint="Try again in 12 s.",
            headers={"Retry-After": "12"},
        ),
        "Too many requests of a user or an organization.",
    ),
    500: described(
        Problem(
            500,
            "fault",
            "Something went wrong here",
            detail="It is not your request's fault, and it was noted.",
            hint="Tell an operator the number 0192c8a0-0000-4000-8000-000000000000: it stands in the log.",
            instance="urn:uuid:0192c8a0-0000-4000-8000-000000000000",
        ),
        "A fault of ours.",
    ),
    503: described(
        Problem(
            503,
            "database-unavailable",
            "The database cannot be reached",
            detail="Nothing is known about your request.",
            hint="Try again soon.",
            headers={"Retry-After": "5"},
        ),
        "The database cannot be asked, or took too long.",
    ),
}
