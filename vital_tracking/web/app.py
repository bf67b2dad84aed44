"""The application: a FastAPI of its own, or a router for one that is there already."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import cache
from importlib.metadata import version
from typing import Final

from fastapi import APIRouter, Depends, FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from vital_tracking.clickhouse.reading import open_reading_store
from vital_tracking.settings import Settings
from vital_tracking.stores import Store
from vital_tracking.web import metrics, sign_in, static_files, status
from vital_tracking.web.api import routers as api
from vital_tracking.web.operator import OperatorLink
from vital_tracking.web.pages import routers as pages
from vital_tracking.web.parts import Parts
from vital_tracking.web.problems import problem_of
from vital_tracking.web.responses import HeadAsGet, exact_json, finished, problem_response
from vital_tracking.web.route import problem_page
from vital_tracking.web.settings import WebSettings

ROUTERS: Final = (status.routes, metrics.routes, sign_in.routes, static_files.routes, *api.ROUTERS, *pages.ROUTERS)
"""The routes of all parts."""


def create_app(
    store: Store | None = None,
    *,
    settings: Settings | None = None,
    web: WebSettings | None = None,
    operator: OperatorLink | None = None,
) -> FastAPI:
    """The API and the pages as an application, to be served, or mounted: `app.mount("/usage", create_app())`.

    `store` is asked with each user's own rights; by default it is the one that the settings name. What is not given is read
    from the environment (SettingsError). With `operator` whoever holds its link reads with the store's own rights, and has
    reports sent to the channels of the settings.
    """
    return application(_parts(store, settings, web, operator), own_store=store is None)


def application(parts: Parts, *, own_store: bool = False) -> FastAPI:
    """The application over parts that are there already."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        parts.close(with_store=own_store)

    app = FastAPI(
        title="vital_tracking",
        summary="What every LangChain and LangGraph call costs: reports, budgets and audit.",
        version=version("vital-tracking"),
        openapi_url=None,  # a route of ours, so that it has our headers
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.vital = parts
    app.router.routes.extend(_own_routes())

    async def openapi(request: Request) -> Response:
        response = Response(exact_json(app.openapi()), media_type="application/json")
        return finished(response, request)

    app.add_route("/api/v1/openapi.json", openapi, include_in_schema=False)
    app.add_exception_handler(HTTPException, _refused)
    app.add_middleware(HeadAsGet)
    return app


def router(
    store: Store | None = None,
    *,
    settings: Settings | None = None,
    web: WebSettings | None = None,
) -> APIRouter:
    """The same as a router: `app.include_router(router(), prefix="/usage")`. Its routes bring headers and errors of their own."""
    return _router(_parts(store, settings, web, None))


def _router(parts: Parts) -> APIRouter:
    return _with_parts(parts.attach)


@cache
def _own_routes() -> list[BaseRoute]:
    """The routes of our own applications, which find the parts there: built once, since that takes a third of a second."""
    built = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    built.include_router(_with_parts(_attach_of_application))
    return built.routes


async def _attach_of_application(request: Request) -> None:
    parts: Parts = request.app.state.vital
    await parts.attach(request)


def _with_parts(attach: Callable[[Request], Awaitable[None]]) -> APIRouter:
    ours = APIRouter()
    for part in ROUTERS:
        ours.include_router(part, dependencies=[Depends(attach)])
    return ours


def _parts(
    store: Store | None, settings: Settings | None, web: WebSettings | None, operator: OperatorLink | None
) -> Parts:
    web = web or WebSettings.from_env()
    if store is None:
        settings = settings or Settings.from_env()
        store = open_reading_store(settings)
    return Parts(store, web, operator, channels=() if settings is None else tuple(sorted(settings.channels)))


async def _refused(request: Request, error: Exception) -> Response:
    """What no route of ours has met: an unknown address, or a method that it does not know. People get a page."""
    problem = problem_of(error, request)
    for_people = "text/html" in request.headers.get("accept", "") and "/api/" not in request.url.path
    response = problem_page(request, request.app.state.vital, problem) if for_people else problem_response(problem)
    return finished(response, request)
