"""One server with pages over a database with a history, and one Chromium, for all tests of a session."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvicorn
from playwright.sync_api import Browser, BrowserContext, Page, Request, sync_playwright

from tests.integration.web.history import make_history
from tests.integration.web.test_events_pages import costs, events
from tests.sql.helpers import connect
from tests.sql.platform_rows import send
from tests.support.postgres import PostgresServer
from vital_tracking.stores.postgres import PostgresStore
from vital_tracking.web.app import application
from vital_tracking.web.operator import OperatorLink
from vital_tracking.web.parts import Parts
from vital_tracking.web.serving import listen
from vital_tracking.web.settings import WebSettings

HOW = "no Chromium here: apt-get install chromium"


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """Debian's Chromium, or Chrome."""
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail(HOW)
        pytest.skip(HOW)
    quiet = [
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", *quiet])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def operator() -> OperatorLink:
    """The operator's link, which works once."""
    return OperatorLink()


@pytest.fixture(scope="session")
def site(postgres_server: PostgresServer, template_database: str, operator: OperatorLink) -> Iterator[tuple[str, str]]:
    """The address of a dashboard over three weeks of calls, events and other costs, and the URL of its database."""
    postgres_server.create_database("browser_history", template=template_database)
    url = postgres_server.url("browser_history")
    with connect(url) as connection:
        make_history(connection)
        send(connection, "platform_events", *events())
        send(connection, "tenant_cost_events", *costs())
    store = PostgresStore(url)
    app = application(Parts(store, WebSettings(), operator))
    listening = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
    serving = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    serving.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}/", url
    server.should_exit = True
    serving.join()
    store.close()
    postgres_server.drop_database("browser_history")


@pytest.fixture(scope="session")
def session_state(chromium: Browser, site: tuple[str, str], operator: OperatorLink) -> Any:
    """What the browser keeps of the operator's session."""
    context = chromium.new_context()
    answer = context.new_page().goto(f"{site[0]}open?token={operator.token}")
    assert answer is not None
    assert answer.ok
    state = context.storage_state()
    context.close()
    return state


Visit = Callable[..., Page]


def _complain(complaints: list[str], path: str, request: Request) -> None:
    """Note a request that failed; not one that the browser itself gave up, as it does when the page is left meanwhile."""
    if request.failure != "net::ERR_ABORTED":
        complaints.append(f"{path}: {request.url} {request.failure}")


@pytest.fixture
def visit(chromium: Browser, site: tuple[str, str], session_state: Any) -> Iterator[Visit]:
    """Opens pages as the operator; whatever the console, a script or the policy complains of fails the test."""
    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    def opened(path: str = "", *, width: int = 1440, scheme: Any = "light", javascript: bool = True) -> Page:
        context = chromium.new_context(
            viewport={"width": width, "height": 1000},
            color_scheme=scheme,
            java_script_enabled=javascript,
            storage_state=session_state,
            reduced_motion="reduce",
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(f"{path}: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(f"{path}: {error}"))
        page.on("requestfailed", lambda request: _complain(complaints, path, request))
        answer = page.goto(f"{site[0]}{path}")
        assert answer is not None
        assert answer.status == 200, path
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []
