"""In somebody else's application: as a router with a prefix, as an application below a path, behind a proxy."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import SecretStr

from tests.integration.web.conftest import ISSUER, SECRET, bearer, client, shared
from vital_tracking.stores.postgres import PostgresStore
from vital_tracking.web import WebSettings, create_app, router

WEB = WebSettings(
    supabase_url="http://127.0.0.1:9", anon_key=SecretStr("anon"), jwt_secret=SecretStr(SECRET), jwt_issuer=ISSUER
)


def routed(store: PostgresStore) -> tuple[FastAPI, str]:
    app = FastAPI()
    app.include_router(router(store, web=WEB), prefix="/team/usage")
    return app, "/team/usage"


def mounted(store: PostgresStore) -> tuple[FastAPI, str]:
    app = FastAPI()
    app.mount("/team/usage", create_app(store, web=WEB))
    return app, "/team/usage"


def alone(store: PostgresStore) -> tuple[FastAPI, str]:
    return create_app(store, web=WEB), ""


@pytest.mark.parametrize("way", [routed, mounted, alone])
@pytest.mark.parametrize("root", ["", "/behind"])
def test_it_is_the_same_wherever_it_stands(
    store: PostgresStore, way: Callable[[PostgresStore], tuple[FastAPI, str]], root: str
) -> None:
    """If this failed, links, cookies and errors would lead out of the place that a team has given us."""
    app, within = way(store)
    prefix = f"{root}{within}"  # a server is told the root, and gives the application the whole path
    browser = TestClient(app, root_path=root, follow_redirects=False)
    form = browser.get(f"{prefix}/sign-in").text
    assert f'action="{prefix}/sign-in"' in form
    assert f'href="{prefix}/static/' in form
    assert f'value="{prefix}/"' in form
    refused = browser.get(f"{prefix}/api/v1/status")
    assert (refused.status_code, refused.headers["content-type"]) == (401, "application/problem+json")
    assert "content-security-policy" in refused.headers
    out = browser.post(f"{prefix}/sign-out", headers={"Sec-Fetch-Site": "same-origin"})
    assert out.headers["location"] == f"{prefix}/sign-in"
    assert all(f"Path={prefix}/;" in line for line in out.headers.get_list("set-cookie"))
    assert browser.get(f"{prefix}/healthz").json() == {"status": "ok"}


def test_the_teams_own_routes_stay_as_they_are(store: PostgresStore) -> None:
    """If this failed, we would change the headers and errors of somebody else's application."""
    app, prefix = routed(store)

    @app.get("/own")
    def own() -> dict[str, int]:
        return {"n": 1}

    browser = client(app)
    assert "content-security-policy" not in browser.get("/own").headers
    assert browser.get("/nowhere").json() == {"detail": "Not Found"}
    assert f"{prefix}/api/v1/status" in app.openapi()["paths"]


def test_two_of_them_keep_their_stores_and_people_apart(store: PostgresStore) -> None:
    """If this failed, a token of one installation would open the other in the same process."""
    other = WEB.model_copy(update={"jwt_secret": SecretStr("y" * 40)})
    app = FastAPI()
    app.include_router(router(store, web=WEB), prefix="/a")
    app.include_router(router(store, web=other), prefix="/b")
    far = 4_000_000_000
    browser = client(app)
    first, second = shared(exp=far, iat=1), shared("y" * 40, exp=far, iat=1)
    answers = [
        browser.get(f"/{place}/api/v1/status", headers=bearer(token)).status_code
        for place in "ab"
        for token in (first, second)
    ]
    assert answers == [200, 401, 401, 200]


def test_a_server_that_forks_leaves_the_parents_connections_to_the_parent(store: PostgresStore) -> None:
    """If this failed, workers of a server that loads the application first would mix up each other's answers."""
    app = create_app(store, web=WEB)
    token = bearer(shared(exp=4_000_000_000, iat=1))
    assert client(app).get("/api/v1/status", headers=token).status_code == 200
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if client(app).get("/api/v1/status", headers=token).status_code == 200 else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert client(app).get("/api/v1/status", headers=token).status_code == 200


def test_the_package_says_which_part_is_missing() -> None:
    """If this failed, whoever has not installed the extra would get an error about a library that he has never heard of."""
    program = (
        "import sys; sys.modules['fastapi'] = None; import vital_tracking.web as web\n"
        "try: web.create_app\n"
        "except Exception as error: print(type(error).__name__, error)\n"
        "print(web.WebSettings.__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        'MissingExtra Serving the API and the pages needs an optional part: pip install "vital-tracking[web]"',
        "WebSettings",
    ]


def test_importing_the_package_imports_nothing_of_it() -> None:
    """If this failed, everybody would pay for the pages."""
    program = "import sys, vital_tracking, vital_tracking.web; print({'fastapi', 'jinja2', 'jwt', 'limits'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
