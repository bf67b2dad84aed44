"""The summary of a week or month: its figures are those of the calls, for whoever it is made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from itertools import count
from typing import Any

import pytest

from tests.integration.web.history import READERS, total
from tests.integration.web.test_mail import URL, made_due, rows_of, saved
from tests.sql.helpers import ADMIN, a_call, connect, record
from tests.support.hooks import Hooks
from vital_tracking.queries.cache_hits import cache_falls
from vital_tracking.queries.report_schedules import schedule_report
from vital_tracking.stores.postgres import PostgresStore
from vital_tracking.web.mail.reports import ReportUnusable, saved_document
from vital_tracking.web.mail.sending import Channels, send_due
from vital_tracking.web.mail.summary import summary_document

NOTHING = dict.fromkeys(("input_cost", "output_cost", "total_cost"), "0")
"""What an answer from a cache costs."""


@pytest.fixture
def history(history_url: str) -> Iterator[PostgresStore]:
    with closing(PostgresStore(history_url)) as opened:
        yield opened


def section(markdown: str, title: str) -> list[list[str]]:
    return rows_of(markdown.partition(f"## {title}\n")[2].partition("\n## ")[0])


@pytest.mark.parametrize("name", ["operator", "organization admin", "user"])
def test_a_week_is_told_against_the_week_before(
    history: PostgresStore, history_url: str, calls: list[dict[str, Any]], name: str
) -> None:
    """If this failed, a manager would be mailed figures that nobody finds on any page."""
    now = datetime.now(UTC)
    with connect(history_url) as books:
        report = saved(books, READERS[name].subject, "weekly", [["report", "summary"]])
        made = saved_document(history, report, "weekly", (("report", "summary"), ("period", "week")), now, URL)
        books.execute("delete from saved_reports")
    first, last = (now - timedelta(days=7)).date(), (now - timedelta(days=1)).date()
    seen = [row for row in calls if READERS[name].sees(row)]
    of_week = [row for row in seen if first <= row["created_at"].astimezone(UTC).date() <= last]
    week_before = [row for row in seen if first - timedelta(days=7) <= row["created_at"].astimezone(UTC).date() < first]
    for title, column in (("service", "service_type"), ("model", "model"), ("user", "user_id")):
        rows = section(made.markdown, f"Cost by {title}")
        assert sum((Decimal(row[1][1:]) for row in rows), Decimal()) == total(of_week), title
        names = {row[column] for row in of_week}
        before = total([row for row in week_before if row[column] in names])
        assert sum((Decimal(row[2][1:]) for row in rows), Decimal()) == before, title
        assert sum(int(row[4]) for row in rows) == len(of_week)
    unpriced = Counter(row["model"] for row in of_week if row["total_cost"] is None)
    told = {row[0]: int(row[1]) for row in section(made.markdown, "Models without a known price")}
    assert told == dict(unpriced)
    assert f"{first} to {last} (UTC), against {first - timedelta(days=7)} to" in made.markdown
    assert f"- Calls: **{len(of_week)}**" in made.markdown
    for part in (
        "What caches did",
        "Caches that answer less",
        "Budgets near their limits",
        "Alerts",
        "Users whose calls",
    ):
        assert f"## {part}" in made.markdown
        assert part in made.html
    assert f"]({URL}/calls?since={first}&until={last}" in made.markdown
    assert f"[Open the page]({URL}/?since={first}&until={last}&timezone=UTC)" in made.markdown


def test_a_month_is_the_calendar_month_and_an_organization_alone(history: PostgresStore) -> None:
    """If this failed, a month's summary would be of other days than the invoice."""
    asked = [("report", "summary"), ("period", "month"), ("organization", "acme"), ("timezone", "Asia/Kolkata")]
    text = summary_document(history, asked, datetime(2026, 2, 28, 20, tzinfo=UTC), "monthly", None).markdown
    assert text.startswith(
        "2026-02-01 to 2026-02-28 (Asia/Kolkata), organization acme, against 2026-01-01 to 2026-01-31"
    )
    day = summary_document(history, [("period", "day")], datetime(2026, 3, 1, tzinfo=UTC), "daily", None).markdown
    assert day.startswith("2026-02-28 (UTC), against 2026-02-27 to 2026-02-27")
    assert "](" not in text
    for wrong in (("period", "year"), ("timezone", "Nowhere")):
        with pytest.raises(ReportUnusable):
            saved_document(history, 0, "x", (("report", "summary"), wrong), datetime.now(UTC), None)


def test_a_hit_rate_that_falls_is_told_once(database_url: str, hooks: Hooks) -> None:
    """If this failed, a cache that is switched off by mistake would be found on the bill."""
    today = datetime.combine(datetime.now(UTC).date(), time(12), UTC)
    with closing(PostgresStore(database_url)) as store, connect(database_url) as books:
        books.execute("insert into organization_members values ('acme', %s, 'admin')", [ADMIN])
        calls = list(_calls(today))
        for first in range(0, len(calls), 800):
            assert record(books, *calls[first : first + 800])["rejected"] == []
        yesterday = (today - timedelta(days=1)).date()
        [fall] = cache_falls(store, yesterday)
        assert (fall.organization, fall.measure, fall.now, fall.usual, fall.calls) == (
            "acme",
            "hit_rate",
            25.7143,
            40,
            140,
        )
        assert cache_falls(store, yesterday - timedelta(days=1)) == []
        assert cache_falls(store, yesterday, filters={"organization": ["steady", "few"]}) == []
        channels = Channels({"alerts": [hooks.url()]})
        for owner, name in ((ADMIN, "as admin"), (None, "caches")):
            schedule_report(store, saved(books, owner, name, [["report", "caches"]]), "alerts", every="day")
        made_due(books)
        assert [one.delivered for one in send_due(store, channels, "p-1")] == [True, True]
        assert len(hooks.posts) == 2
        for post in hooks.posts:
            assert "organization acme: answers from LangChain's cache fell to 25.7 % from 40.0 %" in post["message"]
        made_due(books)  # it is known by now
        assert [one.delivered for one in send_due(store, channels, "p-1")] == [True, True]
        assert len(hooks.posts) == 2


def _calls(today: datetime) -> Iterator[dict[str, Any]]:
    """Five weeks in which caches answer two fifths; acme's less in the last, and nothing yesterday; `few` has too few."""
    numbers = count(1)
    for organization, a_day, of_week, yesterday in (("acme", 20, 6, 0), ("steady", 20, 8, 8), ("few", 4, 0, 0)):
        for back in range(1, 37):
            hits = yesterday if back == 1 else of_week if back <= 7 else a_day * 2 // 5
            for one in range(a_day):
                yield a_call(
                    next(numbers),
                    organization_id=organization,
                    user_id=ADMIN,
                    **({"cache_hit": True, **NOTHING} if one < hits else {}),
                    created_at=(today - timedelta(days=back)).isoformat(),
                )
