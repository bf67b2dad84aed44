"""All addresses that can be read, as the router knows them, so that what is added is tested without being named."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI

GIVEN = {"call_id": "0192c8a0-5a5a-7a5a-8a5a-5a5a5a5a5a5a"}
"""What stands for a parameter of a path; any other is `none`."""

OPEN = ("/healthz", "/api/v1/healthz", "/sign-in", "/api/v1/openapi.json")
"""What everybody may read, beside what is static."""


def addresses(app: FastAPI) -> list[str]:
    """The paths that answer GET, with something in the place of each parameter."""
    paths = (path for method, path in ways(app) if method == "GET")
    found = dict.fromkeys(re.sub(r"\{(\w+)(:\w+)?\}", lambda m: GIVEN.get(m[1], "none"), path) for path in paths)
    assert len(found) > 30
    return list(found)


def ways(app: FastAPI) -> dict[tuple[str, str], Any]:
    """Every method and path of the application, but for HEAD, which is GET, with the function that answers."""
    return dict(_ways(app.routes))


def _ways(routes: Any) -> Iterator[tuple[tuple[str, str], Any]]:
    for route in routes:
        inner = getattr(route, "original_router", None)
        if inner is not None:
            yield from _ways(inner.routes)
        else:
            methods = set(getattr(route, "methods", None) or ()) - {"HEAD"}
            yield from (((method, route.path), route.endpoint) for method in methods)
