"""Open pages that ask again: what has not changed is not made anew, and nobody is told so by another's tag."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from tests.integration.web.conftest import SECRET, Clock, Make, bearer, client, shared
from tests.integration.web.history import READERS, Open
from tests.sql.helpers import (
    ADMIN,
    ALICE,
    Connection,
    a_call,
    a_run,
    an_end,
    connect,
    record,
    record_runs,
    set_budget,
)
from tests.support.postgres import PostgresServer
from vital_tracking.stores.postgres import PostgresStore
from vital_tracking.web.pages import calls, frame, overview
from vital_tracking.web.view import View

ADDRESSES = (
    "/",
    "/users?days=30",
    "/models?days=30&model=gpt-4o",
    "/calls?days=30",
    "/tools?days=30",
    "/runs?days=30",
    "/budgets",
)


@pytest.mark.parametrize("reader", READERS)
def test_an_open_page_is_not_made_anew_while_nothing_changes(
    opened: Open, clock: Clock, reader: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this failed, a thousand open pages would ask the database for everything each minute."""
    made: list[View] = []
    page, page_of_calls = overview.page, calls.page
    monkeypatch.setattr(overview, "page", lambda view: made.append(view) or page(view))
    monkeypatch.setattr(calls, "page", lambda view, asked: made.append(view) or page_of_calls(view, asked))
    browser = opened(reader)
    tags = {address: browser.get(address).headers["etag"] for address in ADDRESSES}
    assert (len(made), len(set(tags.values()))) == (2, len(ADDRESSES))
    for address, tag in tags.items():
        again = browser.get(address, headers={"If-None-Match": tag})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        assert "frame-ancestors" in again.headers["content-security-policy"]
    assert len(made) == 2

    # Of another reader, in another theme, after a look at the alerts, and when time has passed, it is another page.
    other = opened("admin of another" if reader != "admin of another" else "user")
    assert other.get("/", headers={"If-None-Match": tags["/"]}).status_code == 200
    for cookie in (f"{frame.THEME}=dark", "vital_alerts_seen=3"):
        name, _, value = cookie.partition("=")
        browser.cookies.set(name, value)
        assert browser.get("/", headers={"If-None-Match": tags["/"]}).status_code == 200
        browser.cookies.delete(name)
    assert browser.get("/", headers={"If-None-Match": tags["/"]}).status_code == 304
    clock.now += 600
    assert browser.get("/", headers={"If-None-Match": tags["/"]}).status_code == 200


@pytest.fixture
def changing(
    postgres_server: PostgresServer, template_database: str, make: Make
) -> Iterator[tuple[Connection, TestClient, TestClient]]:
    """A database that the test changes, its owner, an admin of acme who looks at it, and a user of another organization."""
    postgres_server.create_database("refreshed", template=template_database)
    url = postgres_server.url("refreshed")
    with connect(url) as connection, closing(PostgresStore(url)) as store:
        connection.execute("insert into organization_members values ('acme', %s, 'admin')", [ADMIN])
        app = make(over=store, jwks_url=None, jwt_secret=SecretStr(SECRET))
        yield connection, *(client(app, headers=bearer(shared(sub=who))) for who in (ADMIN, "somebody"))
    postgres_server.drop_database("refreshed")


def test_a_changed_run_or_budget_is_seen_at_the_next_refresh(
    changing: tuple[Connection, TestClient, TestClient],
) -> None:
    """If this failed, an open page would show a run as running that has failed, or a limit that is no longer so."""
    connection, admin, stranger = changing
    now = datetime.now(UTC).isoformat()
    mine = {"organization_id": "acme", "user_id": ALICE, "started_at": now}
    tags: dict[tuple[str, TestClient], str] = {}

    def seen() -> set[str]:
        """The pages that the admin's next refresh brings; a stranger's stay as they are."""
        new = set()
        for path in ("/runs", "/budgets"):
            for who in (admin, stranger):
                before = tags.get((path, who))
                answer = who.get(path, headers={"If-None-Match": before} if before else {})
                tags[path, who] = answer.headers["etag"]
                if answer.status_code != 304:
                    assert answer.status_code == 200
                    new.add(path if who is admin else f"{path} of a stranger")
        return new

    assert len(seen()) == 4
    assert seen() == set()
    record_runs(connection, a_run("r-1", **mine))
    assert seen() == {"/runs"}
    record_runs(connection, an_end("r-1", **mine, ended_at=now, status="error", error_type="ValueError"))
    assert seen() == {"/runs"}
    record(connection, a_call(1, organization_id="acme", user_id=ALICE, service_run_id="r-1", created_at=now))
    assert seen() == {"/runs", "/budgets"}  # both say how new the newest call is
    set_budget(connection, entity_type="organization", entity_id="acme", daily_limit=5)
    assert "/budgets" in seen()
    [budget] = connection.execute("select id from budget_limits").fetchall()
    connection.execute("update budget_limits set daily_limit = 7 where id = %s", [budget["id"]])
    assert "/budgets" in seen()
    record(connection, a_call(2, organization_id="acme", user_id=ALICE, service_run_id="r-1", created_at=now))
    assert seen() == {"/runs", "/budgets"}
    # What a process holds for calls under way is no usage yet.
    connection.execute("update budget_windows set granted = granted + 1 where budget_id = %s", [budget["id"]])
    assert seen() == {"/budgets"}
    connection.execute("delete from budget_limits")
    assert "/budgets" in seen()
    assert seen() == set()
