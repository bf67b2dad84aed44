"""Events that a page of another site sends, in a real browser: what it may read of the answer is the browser's decision."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
import pytest
import uvicorn
from playwright.sync_api import Browser
from pydantic import SecretStr

from tests.sql.helpers import ALICE
from vital_tracking.stores.postgres import PostgresStore
from vital_tracking.web.app import application
from vital_tracking.web.parts import Parts
from vital_tracking.web.serving import listen
from vital_tracking.web.settings import WebSettings

Rows = Callable[..., list[dict[str, Any]]]

SECRET = "a secret of this test, which is long enough"
ISSUER = "https://issuer.test"

SEND = """async ([url, token]) => {
  try {
    const answer = await fetch(url, {
      method: "POST",
      headers: { Authorization: `Bearer ${token}`, "Content-Type": "application/json" },
      body: JSON.stringify([{ event_name: "report_opened" }]),
      keepalive: true,
    });
    return await answer.json();
  } catch (error) {
    return error.name;
  }
}"""


class _Blank(BaseHTTPRequestHandler):
    """An application's page with nothing on it."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>An application</title>")

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def an_application() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Blank)
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    serving.join()
    server.server_close()


@contextmanager
def the_api(store: PostgresStore, origin: str) -> Iterator[str]:
    settings = WebSettings(jwt_secret=SecretStr(SECRET), jwt_issuer=ISSUER, event_origins=frozenset({origin}))
    listening = listen("127.0.0.1", 0)
    server = uvicorn.Server(
        uvicorn.Config(application(Parts(store, settings, None)), log_level="error", lifespan="off")
    )
    serving = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    serving.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    serving.join()


@pytest.mark.parametrize("named", [True, False], ids=["named origin", "another origin"])
def test_a_page_of_another_site_sends_events(named: bool, chromium: Browser, database_url: str, rows: Rows) -> None:
    now = datetime.now(UTC)
    claims = {"sub": ALICE, "iss": ISSUER, "aud": "authenticated", "exp": now + timedelta(hours=1), "iat": now}
    token = jwt.encode({**claims, "role": "authenticated"}, SECRET, "HS256")
    with ExitStack() as opened:
        store = opened.enter_context(closing(PostgresStore(database_url)))
        origin = opened.enter_context(an_application())
        api = opened.enter_context(the_api(store, origin if named else "https://app.example.com"))
        context = chromium.new_context()
        opened.callback(context.close)
        page = context.new_page()
        page.goto(origin)
        answer = page.evaluate(SEND, [f"{api}/api/v1/events", token])
        stored = rows("select event_name, user_id from platform_events")
    if named:
        assert (answer["recorded"], answer["refused"]) == (1, [])
        assert stored == [{"event_name": "report_opened", "user_id": ALICE}]
    else:
        assert answer == "TypeError", "the browser asked first, and did not send it"
        assert stored == []
