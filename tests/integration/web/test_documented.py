"""The tables of the documentation name what the router has: every page, and every path of the API, and no other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from fastapi.routing import APIRoute

from tests.integration.web.conftest import Make
from vital_tracking.web.pages import routers as pages
from vital_tracking.web.pages.frame import NAVIGATION

DOCS = Path(__file__).parents[3] / "docs"


def general(path: str) -> str:
    """A path with one sign for every parameter, as the tables write it below their own prefix."""
    below = re.sub(r"^/api/v1(/analytics/usage)?(?=/)", "", path)
    return re.sub(r"\{[^}]*\}|\bID\b", "*", below)


def named_in(text: str) -> Iterator[str]:
    for quoted in re.findall(r"`([^`\n]+)`", text):
        path = quoted.removeprefix("GET ").removeprefix("POST ").removeprefix("DELETE ")
        if path.startswith("/"):
            yield general(path)


def first_cells(document: str) -> str:
    """The first column of all tables of a document."""
    rows = re.findall(r"^\| ([^|]+) \|", (DOCS / document).read_text(encoding="utf-8"), re.MULTILINE)
    return "\n".join(rows)


def test_every_page_is_in_the_guide_of_the_dashboard() -> None:
    """If this failed, people would be shown pages that no guide tells of, or sent to some that are not there."""
    served = {
        general(route.path)
        for router in pages.ROUTERS
        for route in router.routes
        if isinstance(route, APIRoute) and "GET" in (route.methods or ())
    }
    assert {f"/{path}" for _, links in NAVIGATION for _, _, path in links} <= served
    text = (DOCS / "dashboard.md").read_text(encoding="utf-8")
    assert served - set(named_in(text)) == set()
    assert set(named_in(first_cells("dashboard.md"))) - served == set()


def test_every_path_of_the_api_is_in_its_guide(make: Make) -> None:
    """If this failed, a program's author would not find what there is, or look for what is not."""
    described = {general(path) for path in make().openapi()["paths"]}
    named = set(named_in(first_cells("api.md")))
    assert described - named == set()
    assert named - described == set()


def test_no_group_of_the_navigation_is_of_one_page() -> None:
    """If this failed, a heading would say no more than the link below it."""
    names = [name for _, links in NAVIGATION for name, _, _ in links]
    assert len(names) == len(set(names))
    assert not [
        heading for heading, links in NAVIGATION if len(links) < 2 or heading in {label for _, label, _ in links}
    ]
