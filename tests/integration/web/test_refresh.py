"""Open pages that ask again: what has not changed is not made anew, and nobody is told so by another's tag."""

from __future__ import annotations

import pytest

from tests.integration.web.conftest import Clock
from tests.integration.web.history import READERS, Open
from vital_tracking.web.pages import calls, frame, overview
from vital_tracking.web.view import View

ADDRESSES = ("/", "/users?days=30", "/models?days=30&model=gpt-4o", "/calls?days=30", "/tools?days=30")


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
