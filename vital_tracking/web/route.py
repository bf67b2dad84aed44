"""How every route of ours answers, in an application of our own or in anybody's: errors as problems, headers, cookies.

It is the class of the routes and no middleware: a router that is included elsewhere takes its routes along, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, get_args, get_origin
from urllib.parse import quote, unquote

from fastapi import APIRouter
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from vital_tracking.errors import StoreRejected
from vital_tracking.web.access import SAFE, refused
from vital_tracking.web.asked import METADATA, TAKES, described_filters
from vital_tracking.web.body import limited
from vital_tracking.web.described import PROBLEMS
from vital_tracking.web.parts import Parts
from vital_tracking.web.problems import Problem, SignInNeeded, invalid, problem_of
from vital_tracking.web.rendering import home, path_of
from vital_tracking.web.responses import finished, problem_response

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class ApiRoute(APIRoute):
    """A route whose errors are problem+json.

    One that takes filters says so in OpenAPI, and refuses a parameter that it does not know: a filter that is spelled wrong
    would be passed over, and the figures be of something else.
    """

    filters: Sequence[str] = ()

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        calls = {one.call for one in _dependants(self.dependant)}
        self.filters = next((names for takes, names in TAKES.items() if takes in calls), ())
        self.described = {one["name"] for one in (self.openapi_extra or {}).get("parameters", ())}
        if self.filters and self.include_in_schema:
            extra = dict(self.openapi_extra or {})
            extra["parameters"] = [*extra.get("parameters", ()), *described_filters(self.filters)]
            self.openapi_extra = extra

    def get_route_handler(self) -> Handler:
        """The handler with everything around it."""
        inner = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                self.check_parameters(request)
                response = await inner(limited(request))
            except Exception as error:  # noqa: BLE001 - whatever it is, nobody gets its text
                response = await self.failed(request, error)
            for line in getattr(request.state, "vital_cookies", ()):
                response.headers.append("Set-Cookie", line)
            return finished(response, request)

        return handle

    def check_parameters(self, request: Request) -> None:
        """Problem 422 for what would be passed over: one of two values, or a filter that a route does not know."""
        if not self.include_in_schema:
            return
        fields = [field for one in _dependants(self.dependant) for field in one.query_params]
        names = [name for name, _ in request.query_params.multi_items()]
        single = {field.alias for field in fields if not _is_list(field.field_info.annotation)}
        twice = sorted(single.intersection(name for name in names if names.count(name) > 1))
        if twice:
            raise invalid(("query", name, "is given more than once: give one value") for name in twice)
        if not self.filters:
            return
        known = {field.alias for field in fields} | set(self.filters) | self.described
        unknown = [name for name in request.query_params if name not in known and not name.startswith(METADATA)]
        if unknown:
            offered = ", ".join(sorted(known))
            raise invalid(("query", name[:80], f"is no parameter of this; there are {offered}") for name in unknown)

    async def failed(self, request: Request, error: Exception) -> Response:
        """The answer to an error; a refusal leaves a line in the audit."""
        problem = problem_of(error, request)
        # A refusal by the database stands in its audit already. What somebody would change that is not there for him may be
        # there for others: such a try is noted as a refused one.
        refusals = (403,) if request.method in SAFE else (403, 404)
        if problem.status in refusals and not isinstance(error, StoreRejected):
            try:
                await refused(request)
            except Exception as failure:  # noqa: BLE001 - a refusal stays a refusal
                problem_of(failure, request)
        return self.shown(request, problem)

    def shown(self, request: Request, problem: Problem) -> Response:
        """A problem in the form of this route."""
        del request
        return problem_response(problem)


class PageRoute(ApiRoute):
    """A route whose errors are pages. Who is not signed in is sent to do so, and comes back."""

    def shown(self, request: Request, problem: Problem) -> Response:
        """A problem as a page, or the way to the sign-in."""
        parts: Parts | None = getattr(request.state, "vital", None)
        if parts is None:
            return problem_response(problem)
        if isinstance(problem, SignInNeeded) and parts.auth is not None and request.method == "GET":
            back = quote(as_asked(request), safe="")
            to = f"{path_of(request, 'vital-sign-in')}?next={back}"
            return RedirectResponse(to, 303, headers={"Cache-Control": "no-store"})
        return problem_page(request, parts, problem)


def as_asked(request: Request) -> str:
    """The path and query of a request as the browser wrote them: a slash that is part of a name stays one."""
    path: str = request.scope["path"]
    raw = request.scope.get("raw_path", b"").decode("latin-1")
    written = raw if unquote(raw) == path else quote(path)
    return f"{written}?{request.url.query}" if request.url.query else written


def problem_page(request: Request, parts: Parts, problem: Problem) -> Response:
    """A problem as a page."""
    page = parts.rendering.page(request, "problem.html", status=problem.status, problem=problem, home=home(request))
    for name, value in {"Cache-Control": "no-store", **problem.headers}.items():
        page.headers[name] = value
    return page


def _is_list(annotation: Any) -> bool:
    """Whether a parameter of that type takes several values."""
    return get_origin(annotation) is list or any(map(_is_list, get_args(annotation)))


def _dependants(one: Dependant) -> Iterator[Dependant]:
    yield one
    for inner in one.dependencies:
        yield from _dependants(inner)


def api_router(**options: Any) -> APIRouter:
    """A router for answers in JSON. Its routes are described with the problems that any of them may answer with."""
    options.setdefault("responses", PROBLEMS)
    return APIRouter(route_class=ApiRoute, **options)


def page_router(**options: Any) -> APIRouter:
    """A router for pages, which are not in OpenAPI."""
    return APIRouter(route_class=PageRoute, include_in_schema=False, **options)
