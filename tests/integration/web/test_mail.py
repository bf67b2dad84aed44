"""Saved reports as they are sent: to a real receiver, once, with the figures that their owner sees on the page."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from pydantic import SecretStr

from tests.integration.web.history import READERS, Open, total
from tests.sql.helpers import Connection, connect
from tests.support.hooks import Hooks
from tests.support.waiting import until
from vital_tracking.errors import StoreDenied
from vital_tracking.queries.report_schedules import OwnersStore, schedule_report
from vital_tracking.settings import Settings
from vital_tracking.stores.postgres import PostgresStore
from vital_tracking.web.mail.document import escaped
from vital_tracking.web.mail.reports import ReportUnusable, saved_document
from vital_tracking.web.mail.sending import Channels, Mailer, send_due

URL = "https://spend.example.com/vital"
ASKED = (("days", "20"), ("measure", "total_cost"), ("by", "user"), ("then", "model"))


@pytest.fixture
def store(history_url: str) -> Iterator[PostgresStore]:
    with closing(PostgresStore(history_url)) as opened:
        yield opened


@pytest.fixture
def books(history_url: str) -> Iterator[Connection]:
    """The database's owner, who takes the reports away at the end."""
    with connect(history_url) as connection:
        yield connection
        connection.execute("delete from saved_reports")


def saved(books: Connection, owner: str | None, name: str = "by user", asked: Any = ASKED) -> int:
    row = books.execute(
        "insert into saved_reports (owner, name, asked) values (%s, %s, %s) returning id",
        [owner, name, json.dumps(asked)],
    ).fetchone()
    assert row is not None
    return int(row["id"])


def made_due(books: Connection) -> None:
    books.execute("update report_schedules set due_at = now(), claimed_until = null")


def rows_of(markdown: str) -> list[list[str]]:
    """The rows of the tables of a document, without links."""
    lines = [line.strip("| ").split(" | ") for line in markdown.splitlines() if line.startswith("| ")]
    return [[re.sub(r"^\[(.*)\]\(.*\)$", r"\1", cell) for cell in line] for line in lines][2:]


@pytest.mark.parametrize("name", ["organization admin", "user", "stranger", "operator"])
def test_a_report_says_what_its_owner_sees_on_the_page(
    books: Connection, store: PostgresStore, opened: Open, calls: list[dict[str, Any]], name: str
) -> None:
    """If this failed, a mail would show another bill than the page, or somebody else's."""
    report = saved(books, READERS[name].subject)
    now = datetime.now(UTC)
    made = saved_document(store, report, "by <user>", ASKED, now, URL)
    first, last = (now - timedelta(days=20)).date(), (now - timedelta(days=1)).date()
    page = f"explore?since={first}&until={last}&measure=total_cost&by=user&then=model&part=explored&format=csv"
    lines = opened(name).get(f"/{page}").text.splitlines()[1:]
    seen = [
        row for row in calls if READERS[name].sees(row) and first <= row["created_at"].astimezone(UTC).date() <= last
    ]
    rows = rows_of(made.markdown)
    assert len(rows) == len(lines)
    assert sum((Decimal(row[2].removeprefix("$").replace(",", "")) for row in rows), Decimal()) == total(seen)
    assert [Decimal(row[2].removeprefix("$")) for row in rows] == [Decimal(line.split(",")[-3]) for line in lines]
    assert sum(int(row[3]) for row in rows) == len(seen)
    assert f"{first} to {last} (UTC), whole days" in made.markdown
    unpriced = sum(row["total_cost"] is None for row in seen)
    assert (f"in no cost: {unpriced} of {len(seen)} calls" in made.markdown) == (unpriced > 0)
    if seen:
        assert f"]({URL}/calls?since={first}&until={last}" in made.markdown
        assert (
            f'href="{URL}/explore?since={first}&amp;until={last}&amp;timezone=UTC&amp;measure=total_cost' in made.html
        )
        for row in rows:
            assert f">{row[2]}</td>" in made.html
    assert "<h1" in made.html
    assert "by &lt;user&gt;" in made.html
    assert "<b>" not in made.html.replace("<body", "")
    assert "](" not in saved_document(store, report, "by user", ASKED, now, None).markdown


def test_what_is_due_is_sent_once_and_again_only_where_it_was_not_taken(
    books: Connection, store: PostgresStore, hooks: Hooks
) -> None:
    """If this failed, people would get a report twice, or none where a receiver was away for a minute."""
    report = saved(books, READERS["organization admin"].subject)
    channels = Channels(
        {"finance": [hooks.url("one"), SecretStr(f"{hooks.url('two').get_secret_value()}?format=html")]}
    )
    schedule_report(store, report, "finance", every="day")
    assert list(send_due(store, channels, "p-0")) == []
    made_due(books)
    hooks.statuses = [200, 500]
    [failed] = send_due(store, channels, "p-1", public_url=URL)
    assert (failed.delivered, failed.problem) == (False, "channel URL 2 of 2 (JSON): HTTP 500")
    assert list(send_due(store, channels, "p-1")) == []
    books.execute("update report_schedules set claimed_until = null")
    with ThreadPoolExecutor(4) as pool:
        sent = [one for rows in pool.map(lambda n: list(send_due(store, channels, f"p-{n}")), range(4)) for one in rows]
    assert [(one.name, one.delivered) for one in sent] == [("by user", True)]
    assert [path.rpartition("/")[2] for path in hooks.paths] == ["one", "two", "two"]
    markdown, _, html = hooks.posts
    assert (markdown["title"], markdown["type"]) == ("vital_tracking: by user", "info")
    assert "| --- | --- | ---: | ---: | ---: |" in markdown["message"]
    assert html["message"].strip().startswith("<!doctype html>")
    schedule = books.execute("select sent_at, failures, due_at > now() as later from report_schedules").fetchone()
    assert schedule is not None
    assert (schedule["sent_at"] is not None, schedule["failures"], schedule["later"]) == (True, 0, True)
    noted = books.execute(
        "select distinct actor, operation, organization_id from admin_audit where table_name = 'report'"
    ).fetchall()
    assert noted == [{"actor": READERS["organization admin"].subject, "operation": "read", "organization_id": "acme"}]


def test_what_cannot_be_answered_or_sent_stays_due_and_holds_up_no_other(
    books: Connection, store: PostgresStore, hooks: Hooks
) -> None:
    """If this failed, one broken report would keep all others from being sent."""
    wrong = (
        (("timezone", "Nowhere"),),
        (("by", "nonsense"),),
        (("since", "x"),),
        (("days", "x"),),
        (("user", "\n" * 600),),
    )
    for number, asked in enumerate((*wrong, ASKED)):
        schedule_report(store, saved(books, None, f"report {number}", asked), "finance")
    elsewhere = saved(books, None, "of another machine")
    schedule_report(store, elsewhere, "team")
    made_due(books)
    channels = Channels(
        Settings.from_env(
            {"VITAL_REPORT_CHANNELS": f"finance={hooks.url().get_secret_value()}"}, dotenv="absent"
        ).channels
    )
    sent = {one.name: (one.delivered, one.problem) for one in send_due(store, channels, "p-1")}
    assert sent.pop("report 5") == (True, None)
    assert sent == {f"report {number}": (False, "ReportUnusable") for number in range(5)}
    assert len(hooks.posts) == 1
    with pytest.raises(ReportUnusable):
        saved_document(store, elsewhere, "x", wrong[1], datetime.now(UTC), None)


def test_a_dashboard_that_runs_sends_what_is_due(books: Connection, store: PostgresStore, hooks: Hooks) -> None:
    """If this failed, a team without cron would get no report."""
    schedule_report(store, saved(books, None), "finance")
    made_due(books)
    hooks.open.clear()
    mailer = Mailer(store, Channels({"finance": [hooks.url()]}), "dashboard", URL)
    hooks.open.set()
    until(lambda: hooks.posts)
    mailer.close()
    assert len(hooks.posts) == 1
    assert not list(send_due(store, Channels({"finance": [hooks.url()]}), "p-1"))


def test_a_report_reads_nothing_but_what_functions_answer_to_its_owner(books: Connection, store: PostgresStore) -> None:
    """If this failed, a report could be made with the operators' rights by a slip."""
    owners = OwnersStore(store, saved(books, READERS["user"].subject))
    assert owners.within(5).call("my_memberships") == [{"organization_id": "acme", "role": "member"}]
    for ask in (
        lambda: owners.read("usage_logs", columns=["id"]),
        lambda: owners.breakdown("model"),
        lambda: owners.as_user({"sub": "x"}),
    ):
        with pytest.raises(StoreDenied):
            ask()
    assert (owners.description, owners.identity, owners.in_memory) == (store.description, store.identity, False)


def test_names_of_others_make_no_markdown() -> None:
    """If this failed, whoever names an agent could put links and pictures into the team's mail, or call everybody in its chat."""
    hostile = "![x](http://evil) <img src=x> |a|`b`*c*_d_\n# e @everyone @here"
    shown = escaped(hostile)
    for mark in ("<img", "\n", "@everyone", "@here"):
        assert mark not in shown
    assert not re.search(r"(?<!\\)[|\[\]*_`]", shown)
