"""Alerts of budgets: what they say, and that each gets to people once, whoever crossed the threshold and whatever fails."""

from __future__ import annotations

import itertools
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr

from tests.integration.helpers import Rows, only
from tests.sql.helpers import a_call
from tests.support.stores import AwayStore
from vital_tracking.alerts import channel, wording
from vital_tracking.alerts.alert import BudgetAlert, digest
from vital_tracking.alerts.channel import Pause, Recent
from vital_tracking.alerts.dispatcher import AlertDispatcher, log
from vital_tracking.alerts.wording import amount_text, limit_text, one_line, sentence, time_left
from vital_tracking.core.entities import ACTIONS, ENTITY_TYPES, METRICS, PERIODS
from vital_tracking.errors import MissingExtra, SettingsError
from vital_tracking.stores.postgres import PostgresStore

SECRET = "Geheim-7391"
NOON = datetime(2026, 1, 15, 12, tzinfo=UTC)
MIDNIGHT = datetime(2026, 1, 16, tzinfo=UTC)

_calls = itertools.count(1)


class Hooks:
    """A web server that takes alerts; it answers with the scripted statuses, then with 200, and can be held up."""

    def __init__(self) -> None:
        self.posts: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.statuses: list[int] = []
        self.open = threading.Event()
        self.open.set()
        hooks = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                hooks.posts.append(json.loads(body))
                hooks.paths.append(self.path)
                assert hooks.open.wait(30)
                self.send_response(hooks.statuses.pop(0) if hooks.statuses else 200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def url(self, name: str = "hook") -> SecretStr:
        return SecretStr(f"json://someone:{SECRET}@127.0.0.1:{self.server.server_port}/{SECRET}/{name}")

    def close(self) -> None:
        self.open.set()
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()


@pytest.fixture
def hooks() -> Iterator[Hooks]:
    server = Hooks()
    yield server
    server.close()


@pytest.fixture
def told() -> list[BudgetAlert]:
    """What a callback took."""
    return []


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """What failed may be tried again at once; the pause itself is tested below."""
    monkeypatch.setattr(channel, "_FIRST_PAUSE_S", 0.0)


@pytest.fixture
def deliverer(store: PostgresStore) -> Callable[..., AlertDispatcher]:
    def make(
        *callbacks: Callable[[BudgetAlert], None], urls: Sequence[SecretStr] = (), holder: str = "here"
    ) -> AlertDispatcher:
        return AlertDispatcher(store, callbacks, urls, holder)

    return make


def a_budget(store: PostgresStore, **columns: Any) -> int:
    """A budget on each user: an alert at half a dollar, and another at a dollar."""
    wanted = {
        "entity_type": "user",
        "daily_limit": "1",
        "alert_thresholds": ["0.5", "1.0"],
        "action": "block",
        **columns,
    }
    return int(store.call("set_budget_v1", budget=json.dumps(wanted))["id"])


def spend(store: PostgresStore, *users: str, cost: str = "0.60") -> list[dict[str, Any]]:
    """Record a call of each user; the alerts that the report names."""
    now = datetime.now(UTC).isoformat()
    calls = [
        a_call(next(_calls), created_at=now, user_id=user, input_cost=cost, output_cost="0", total_cost=cost)
        for user in users
    ]
    report = store.call("record_calls_v1", calls=json.dumps(calls))
    assert not report["rejected"], report
    return report["alerts"] or []


def undelivered(rows: Rows) -> list[str]:
    """Whose alerts nobody has delivered, and nobody is delivering."""
    found = rows(
        "select entity_id from cost_alerts where delivered_at is null and claimed_by is null and not superseded order by id"
    )
    return [row["entity_id"] for row in found]


def an_alert(**changes: Any) -> BudgetAlert:
    alert = BudgetAlert(
        organization_id=None,
        entity_type="user",
        entity_id="u-1",
        metric="cost_usd",
        action="block",
        enforce=True,
        period="day",
        window_starts_at=NOON,
        window_ends_at=MIDNIGHT,
        threshold=Decimal("0.8"),
        limit=Decimal(5),
        spent=Decimal("4.0213"),
        created_at=NOON,
    )
    return replace(alert, **changes)


# What they say


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "user u-1 has spent $4.02 of $5.00 today (80 %); at the limit: block."),
        (
            {"enforce": False},
            "user u-1 has spent $4.02 of $5.00 today (80 %); at the limit: block (shadow: nothing is stopped).",
        ),
        (
            {"threshold": Decimal(1), "spent": Decimal("4.999")},
            "user u-1 has spent $4.99 of $5.00 today (99 %); the limit is reached: calls are blocked.",
        ),
        (
            {"spent": Decimal("5.10"), "action": "throttle", "organization_id": "acme", "period": "minute"},
            "user u-1 of organization acme has spent $5.10 of $5.00 this minute (102 %); the limit is reached: "
            "calls pass one by one.",
        ),
        (
            {"entity_type": "organization", "entity_id": "acme", "organization_id": "acme", "action": "downgrade"},
            "organization acme has spent $4.02 of $5.00 today (80 %); at the limit: downgrade.",
        ),
        (
            {"metric": "tokens", "limit": Decimal(5000), "spent": Decimal(4020), "period": "month", "action": "alert"},
            "user u-1 has used 4,020 of 5,000 tokens this month (80 %); at the limit: alert.",
        ),
        (
            {"metric": "calls", "limit": Decimal(0), "spent": Decimal(1), "period": "total", "enforce": False},
            "user u-1 has made 1 of 0 calls in all; the limit is reached: calls would be blocked (shadow).",
        ),
        (
            {"entity_id": "u\n2026-01-15 CRITICAL\x1b[31m forged"},
            "user u 2026-01-15 CRITICAL [31m forged has spent $4.02 of $5.00 today (80 %); at the limit: block.",
        ),
    ],
)
def test_an_alert_is_one_sentence(changes: dict[str, Any], message: str) -> None:
    """People would not know who has spent what of what; a name could forge a second line of the log."""
    assert an_alert(**changes).message == message


@pytest.mark.parametrize(
    ("value", "metric", "text"),
    [
        ("4.9999", "cost_usd", "$4.99"),
        ("0.00419", "cost_usd", "$0.0041"),
        ("0.019", "cost_usd", "$0.019"),
        ("1234567.891", "cost_usd", "$1,234,567.89"),
        ("0", "cost_usd", "$0.00"),
        ("-0.5", "cost_usd", "-$0.50"),
        ("0.0000000000000001", "cost_usd", "$0.00"),
        ("1E+3", "tokens", "1,000"),
    ],
)
def test_an_amount_never_reads_as_more_than_it_is(value: str, metric: str, text: str) -> None:
    """Somebody at $4.9999 of $5 would be told that the limit is reached."""
    assert amount_text(Decimal(value), metric) == text


def test_limits_and_spans_read_as_people_write_them() -> None:
    """The tables would show 5E+2 or lose digits of a limit."""
    assert [limit_text(Decimal(text), "cost_usd") for text in ("5", "5.00", "0.5", "0.125", "5E+2")] == [
        *("$5", "$5", "$0.50", "$0.125", "$500"),
    ]
    assert [limit_text(Decimal(number), "calls") for number in (1, 2000)] == ["1 call", "2,000 calls"]
    moments = {
        "2026-01-15T12:00:30": "in 30 s",
        "2026-01-15T17:12:00": "in 5 h 12 min",
        "2026-01-24T15:00": "in 9 d 3 h",
    }
    assert [time_left(datetime.fromisoformat(text).replace(tzinfo=UTC), NOON) for text in moments] == list(
        moments.values()
    )
    assert (time_left(None, NOON), time_left(NOON, MIDNIGHT)) == ("never", "over")
    assert one_line("x" * 200) == "x" * 99 + "…"


BUDGET = {
    "organization_id": None,
    "entity_type": "user",
    "entity_id": "*",
    "metric": "cost_usd",
    "minute_limit": None,
    "daily_limit": "5",
    "monthly_limit": "100",
    "total_limit": None,
    "action": "block",
    "alert_thresholds": ["0.5", "0.8", "1.0"],
    "throttle_interval_s": "10.000000",
    "downgrade_to": None,
    "enforce": True,
}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "Each user may spend $5 a day and $100 a month; over that, calls are blocked."),
        (
            {"enforce": False},
            "Each user may spend $5 a day and $100 a month; over that, calls would be blocked, but it only watches (shadow): "
            "nothing is stopped.",
        ),
        (
            {"action": "alert", "entity_id": "u-1", "organization_id": "acme"},
            "User u-1 of organization acme may spend $5 a day and $100 a month; an alert is raised at 50 %, 80 % and 100 %, and "
            "nothing is stopped.",
        ),
        (
            {"action": "throttle", "metric": "tokens", "entity_type": "tier", "entity_id": "tier_3"},
            "Agent tier tier_3 may use 5 tokens a day and 100 a month; over that, calls pass one every 10 s.",
        ),
        (
            {"action": "downgrade", "metric": "calls", "monthly_limit": None, "total_limit": "1000"},
            "Each user may make 5 calls a day and 1,000 in all; over that, only the cheaper models that the code offers pass.",
        ),
        (
            {"action": "downgrade", "downgrade_to": "gpt-4o-mini", "minute_limit": "0.5"},
            "Each user may spend $0.50 a minute, $5 a day and $100 a month; over that, only models no dearer than "
            "gpt-4o-mini pass.",
        ),
        (
            {"action": "throttle", "throttle_interval_s": "0.500000", "enforce": False, "monthly_limit": None},
            "Each user may spend $5 a day; over that, calls would pass one every 500 ms, but it only watches (shadow): nothing "
            "is stopped.",
        ),
        (
            {"action": "alert", "alert_thresholds": []},
            "Each user may spend $5 a day and $100 a month; nothing is stopped, nobody is told.",
        ),
    ],
)
def test_a_budget_is_one_plain_sentence(changes: dict[str, Any], said: str) -> None:
    """An admin would not see what a budget does before it does it."""
    assert sentence({**BUDGET, **changes}) == said


def test_every_metric_period_and_action_has_its_words() -> None:
    """Else the first alert of a new metric says nothing, or fails while it is being told."""
    assert wording._DONE.keys() == wording._MAY_DO.keys() == set(METRICS)
    assert wording._THIS_PERIOD.keys() == wording._PER_PERIOD.keys() == PERIODS.keys()
    assert wording._AT_THE_LIMIT.keys() == set(ACTIONS) - {"alert"}
    assert wording._NOUNS.keys() <= set(ENTITY_TYPES)


def test_one_alert_is_a_notification_of_its_own() -> None:
    """The title is all that a phone shows."""
    assert digest([an_alert()]).title == "Budget alert: user u-1"
    reached = digest([an_alert(threshold=Decimal(1))])
    assert (reached.title, reached.urgent) == ("Budget reached: user u-1", True)


def test_many_alerts_are_a_digest_with_the_worst_first() -> None:
    """The one that is blocked would stand below twenty that are half spent."""
    alerts = [an_alert(entity_id=f"u-{number}", threshold=Decimal("0.5")) for number in range(30)]
    alerts[25] = an_alert(entity_id="u-worst", threshold=Decimal(1))
    made = digest(alerts)
    lines = made.body.splitlines()
    assert made.title == "30 budget alerts, 1 limit reached"
    assert "u-worst" in lines[0]
    assert len(lines) == 21
    assert lines[-1] == "and 10 more. See: vital-tracking alerts list"


def test_the_process_that_crosses_a_threshold_logs_it(store: PostgresStore, caplog: pytest.LogCaptureFixture) -> None:
    """Without any channel nobody would hear of an alert."""
    a_budget(store)
    with caplog.at_level(logging.WARNING, "vital_tracking.budgets"):
        log(spend(store, "u-1"))
        log(spend(store, "u-1"))
        log(None)
        log([{"id": 1, "nonsense": True}])
    assert [record.getMessage() for record in caplog.records] == [
        "user u-1 has spent $0.60 of $1.00 today (60 %); at the limit: block.",
        "user u-1 has spent $1.20 of $1.00 today (120 %); the limit is reached: calls are blocked.",
        "An alert of the database cannot be read (KeyError).",
    ]


# Callbacks


def test_a_callback_gets_every_alert_once(
    store: PostgresStore, deliverer: Callable[..., AlertDispatcher], told: list[BudgetAlert], rows: Rows
) -> None:
    """A team's own code would miss an alert, or page somebody twice."""
    a_budget(store, organization_id=None, timezone="Europe/Berlin")
    spend(store, "u-1", "u-2")
    alerts = deliverer(told.append)
    assert (alerts.active, alerts.deliver(), alerts.deliver()) == (True, 2, 0)
    alert = told[0]
    stored = rows("select * from cost_alerts order by id")[0]
    assert [found.entity_id for found in told] == ["u-1", "u-2"]
    assert (alert.limit, alert.spent, alert.threshold) == (Decimal(1), Decimal("0.60"), Decimal("0.5"))
    assert (alert.window_starts_at, alert.window_ends_at) == (stored["window_starts_at"], stored["window_ends_at"])
    assert (alert.metric, alert.action, alert.enforce, alert.period) == ("cost_usd", "block", True, "day")
    assert alert.created_at == stored["created_at"]
    assert stored["delivered_at"] is not None

    spend(store, "u-1")
    assert alerts.deliver() == 1
    assert told[-1].reached


def test_a_window_that_never_ends_has_no_end(
    store: PostgresStore, deliverer: Callable[..., AlertDispatcher], told: list[BudgetAlert]
) -> None:
    """A total would look as if it ended, or break the delivery of all others."""
    a_budget(store, daily_limit=None, total_limit="1")
    spend(store, "u-1")
    assert deliverer(told.append).deliver() == 1
    assert told[0].window_ends_at is None
    assert "in all" in told[0].message


def test_without_a_channel_alerts_wait_for_a_process_that_has_one(
    store: PostgresStore, deliverer: Callable[..., AlertDispatcher], told: list[BudgetAlert], rows: Rows
) -> None:
    """A worker without any channel would swallow the alerts that the web process is to send."""
    a_budget(store)
    spend(store, "u-1")
    silent = deliverer()
    assert (silent.active, silent.deliver()) == (False, 0)
    assert undelivered(rows) == ["u-1"]
    assert deliverer(told.append, holder="there").deliver() == 1


def test_a_callback_that_raises_stops_nobody(
    store: PostgresStore,
    deliverer: Callable[..., AlertDispatcher],
    told: list[BudgetAlert],
    rows: Rows,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One broken callback would keep all alerts from the others, or quote a user in the log."""

    def broken(alert: BudgetAlert) -> None:
        raise ValueError(f"{SECRET} {alert.entity_id}")

    a_budget(store)
    spend(store, "u-1", "u-2", "u-3")
    alerts = deliverer(broken, told.append)
    assert alerts.deliver() == 3
    assert (len(told), alerts.faults) == (3, 3)
    said = [record.getMessage() for record in caplog.records if record.name == "vital_tracking.budgets"]
    assert said == ["A callback for alerts raised ValueError; the others are called."]
    assert SECRET not in caplog.text
    assert undelivered(rows) == []


def test_an_alert_that_no_callback_takes_is_tried_again(
    store: PostgresStore, deliverer: Callable[..., AlertDispatcher], told: list[BudgetAlert], rows: Rows
) -> None:
    """An alert would be lost while the pager's client was broken."""
    working = False

    def sometimes(alert: BudgetAlert) -> None:
        if not working:
            raise ConnectionError
        told.append(alert)

    a_budget(store)
    spend(store, "u-1")
    alerts = deliverer(sometimes)
    assert alerts.deliver() == 0
    assert undelivered(rows) == ["u-1"]
    working = True
    assert (alerts.deliver(), len(told)) == (1, 1)


def test_a_callback_must_be_a_plain_function(deliverer: Callable[..., AlertDispatcher]) -> None:
    """A coroutine function would be called and never run."""

    async def later(alert: BudgetAlert) -> None: ...

    with pytest.raises(TypeError, match="no coroutine function"):
        deliverer(later)


# Alert URLs


def test_an_alert_goes_to_a_webhook(
    store: PostgresStore, deliverer: Callable[..., AlertDispatcher], hooks: Hooks, rows: Rows
) -> None:
    """Nobody would hear of a budget that runs out."""
    a_budget(store)
    spend(store, "u-1")
    alerts = deliverer(urls=[hooks.url()])
    assert (alerts.deliver(), alerts.deliver()) == (1, 0)
    post = only(hooks.posts)
    assert post["title"] == "Budget alert: user u-1"
    assert post["message"] == "user u-1 has spent $0.60 of $1.00 today (60 %); at the limit: block."
    assert post["type"] == "warning"
    assert undelivered(rows) == []


def test_hundreds_of_alerts_at_once_are_one_notification(
    store: PostgresStore, deliverer: Callable[..., AlertDispatcher], hooks: Hooks, rows: Rows
) -> None:
    """Five hundred users at their limit would be five hundred messages, and the channel would be muted for good."""
    a_budget(store)
    spend(store, *(f"u-{number}" for number in range(500)), cost="2")
    assert deliverer(urls=[hooks.url()]).deliver() == 500
    post = only(hooks.posts)
    assert post["title"] == "500 budget alerts, 500 limits reached"
    assert post["type"] == "failure"
    assert post["message"].splitlines()[-1] == "and 480 more. See: vital-tracking alerts list"
    assert undelivered(rows) == []


def test_a_failing_webhook_is_tried_again_by_whoever_comes(
    store: PostgresStore,
    deliverer: Callable[..., AlertDispatcher],
    hooks: Hooks,
    told: list[BudgetAlert],
    rows: Rows,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An alert would be lost because Slack was down for a minute, or callbacks be called for each try."""
    a_budget(store)
    spend(store, "u-1")
    hooks.statuses = [500, 503]
    alerts = deliverer(told.append, urls=[hooks.url()])
    assert (alerts.deliver(), alerts.deliver()) == (0, 0)
    assert undelivered(rows) == ["u-1"], "any process may take it"
    assert alerts.deliver() == 1
    assert (len(hooks.posts), len(told)) == (3, 1)
    said = [record.getMessage() for record in caplog.records if record.name == "vital_tracking.budgets"]
    assert said == [
        "Alerts cannot be sent to alert URL 1 of 1 (JSON): HTTP 500. They are kept and tried again.",
        "Alerts go to alert URL 1 of 1 (JSON) again.",
    ]


def test_a_process_whose_channel_fails_leaves_alerts_to_others(
    store: PostgresStore,
    deliverer: Callable[..., AlertDispatcher],
    hooks: Hooks,
    told: list[BudgetAlert],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A server that is down would be asked without end, and a process that reaches nobody would hold the alerts."""
    monkeypatch.setattr(channel, "_FIRST_PAUSE_S", 60.0)
    a_budget(store)
    spend(store, "u-1")
    hooks.statuses = [500]
    alerts = deliverer(urls=[hooks.url()])
    assert (alerts.deliver(), alerts.deliver()) == (0, 0)
    assert len(hooks.posts) == 1
    assert deliverer(told.append, holder="there").deliver() == 1


def test_the_pause_doubles_up_to_five_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken channel would be tried every few seconds all day, or never again."""
    now = 1000.0
    monkeypatch.setattr(channel, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(channel, "_FIRST_PAUSE_S", 5.0)
    pause, lengths = Pause(), []
    for _ in range(8):
        pause.after(worked=False)
        begin = now
        while not pause.over:
            now += 5
        lengths.append(now - begin)
    assert lengths == [5, 10, 20, 40, 80, 160, 300, 300]
    pause.after(worked=True)
    assert pause.over
    pause.after(worked=False)
    now += 5
    assert pause.over


def test_one_of_two_urls_failing_gets_it_later_and_the_other_only_once(
    store: PostgresStore,
    deliverer: Callable[..., AlertDispatcher],
    hooks: Hooks,
    rows: Rows,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While the mail server is down Slack would get each alert again and again, or the mail would never come."""
    broken = Hooks()
    try:
        a_budget(store)
        alerts = deliverer(urls=[hooks.url("slack"), broken.url("mail")])
        broken.statuses = [500, 500]
        for number in (1, 2, 3):
            spend(store, f"u-{number}")
            assert alerts.deliver() == 1
        assert undelivered(rows) == []
        assert [post["title"] for post in hooks.posts] == [f"Budget alert: user u-{number}" for number in (1, 2, 3)]
        assert [post["title"] for post in broken.posts][-1] == "3 budget alerts"
        assert alerts.deliver() == 0
        assert (len(hooks.posts), len(broken.posts)) == (3, 3)

        # While one of them is left alone, the other goes on.
        monkeypatch.setattr(channel, "_FIRST_PAUSE_S", 60.0)
        broken.statuses = [500]
        for number in (4, 5):
            spend(store, f"u-{number}")
            assert alerts.deliver() == 1
        assert (len(hooks.posts), len(broken.posts)) == (5, 4)
    finally:
        broken.close()


def test_a_server_that_hangs_holds_nobody_up_and_gets_nothing_twice(
    store: PostgresStore, deliverer: Callable[..., AlertDispatcher], hooks: Hooks, rows: Rows
) -> None:
    """The thread that delivers calls would wait for a webhook; or a slow one, which took the alert late, would get it again."""
    a_budget(store)
    spend(store, "u-1")
    hooks.open.clear()
    alerts = deliverer(urls=[hooks.url()])
    assert alerts.deliver(timeout_s=0.2) == 0
    assert undelivered(rows) == ["u-1"]
    assert alerts.deliver(timeout_s=0.2) == 0, "it is still sending"
    sending = alerts._channels[0]._thread
    assert sending is not None
    hooks.open.set()
    sending.join(10)
    assert alerts.deliver() == 1
    assert len(hooks.posts) == 1
    assert undelivered(rows) == []


def test_an_alert_sent_before_an_outage_is_not_sent_again_after_it(
    database_url: str, deliverer: Callable[..., AlertDispatcher], hooks: Hooks, rows: Rows
) -> None:
    """Each alert that was sent just before an outage would be sent again after it."""
    store = AwayStore(PostgresStore(database_url))
    a_budget(store)
    spend(store, "u-1")
    alerts = AlertDispatcher(store, (), [hooks.url()], "here")
    store.away = ("settle_alerts_v1",)
    assert alerts.deliver() == 1
    assert (alerts.deliver(), alerts.deliver()) == (0, 0)
    store.away = ("claim_alerts_v1",)
    assert alerts.deliver() == 0
    assert rows("select delivered_at from cost_alerts where not superseded")[0]["delivered_at"] is not None
    store.away = ()
    assert alerts.deliver() == 0
    assert len(hooks.posts) == 1
    store.close()


def test_a_second_thread_does_not_wait_behind_a_slow_callback(
    store: PostgresStore, deliverer: Callable[..., AlertDispatcher], told: list[BudgetAlert]
) -> None:
    """A second thread of the process would wait behind a slow callback."""
    inside, go_on = threading.Event(), threading.Event()

    def slow(alert: BudgetAlert) -> None:
        inside.set()
        assert go_on.wait(30)
        told.append(alert)

    a_budget(store)
    spend(store, "u-1")
    alerts = deliverer(slow)
    first = threading.Thread(target=alerts.deliver)
    first.start()
    assert inside.wait(30)
    assert alerts.deliver() == 0
    go_on.set()
    first.join()
    assert len(told) == 1


DELIVERING = """
import sys
from vital_tracking.alerts.dispatcher import AlertDispatcher
from vital_tracking.stores.postgres import PostgresStore

store = PostgresStore(sys.argv[1])
alerts = AlertDispatcher(store, [lambda alert: print(alert.entity_id)], [], sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
for _ in range(20):
    alerts.deliver()
store.close()
"""


def test_processes_deliver_each_alert_once(store: PostgresStore, database_url: str, rows: Rows) -> None:
    """With ten workers every alert would come ten times."""
    command = [sys.executable, "-c", DELIVERING, database_url]
    workers = [
        subprocess.Popen([*command, f"p-{number}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for number in range(3)
    ]
    a_budget(store)
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    users = [f"u-{number}" for number in range(60)]
    spend(store, *users[:20])
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    for user in users[20:]:
        spend(store, user)
    said = [line for worker in workers for line in worker.communicate(timeout=60)[0].splitlines()]
    assert [worker.returncode for worker in workers] == [0, 0, 0]
    assert len(said) == len(set(said))
    assert sorted(said + undelivered(rows)) == sorted(users)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_delivers_its_own_alerts(
    store: PostgresStore, deliverer: Callable[..., AlertDispatcher], hooks: Hooks, rows: Rows
) -> None:
    """A preforking server's workers would hang on apprise's threads, which only the parent has."""
    a_budget(store)
    alerts = deliverer(urls=[hooks.url()])
    spend(store, "u-1")
    assert alerts.deliver() == 1
    spend(store, "u-2")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            store.after_fork()
            alerts.reset_after_fork()
            code = 0 if alerts.deliver() == 1 else 2
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert [post["title"] for post in hooks.posts] == [f"Budget alert: user u-{number}" for number in (1, 2)]
    assert undelivered(rows) == []


def test_an_outage_of_the_database_is_not_counted_as_a_fault(
    deliverer: Callable[..., AlertDispatcher], database_url: str
) -> None:
    """An outage would be counted and logged as a fault of ours, every second."""
    store = AwayStore(PostgresStore(database_url))
    store.away = ("claim_alerts_v1", "settle_alerts_v1")
    assert AlertDispatcher(store, [lambda _: None], [], "here").deliver() == 0


def test_a_channel_that_stays_broken_takes_no_more_memory() -> None:
    """A process that runs for months with a broken channel would grow without end."""
    recent = Recent()
    for number in range(5000):
        recent.add([number])
    assert 4999 in recent
    assert 1 not in recent
    assert len(recent._ids) == channel._KEPT


# Secrets


def test_no_alert_url_is_ever_logged(
    store: PostgresStore, deliverer: Callable[..., AlertDispatcher], hooks: Hooks, caplog: pytest.LogCaptureFixture
) -> None:
    """The token of the team's Slack would stand in every log that is set to DEBUG."""
    nobody = SecretStr(f"json://{SECRET}:{SECRET}@127.0.0.1:1/{SECRET}?+X-Token={SECRET}")
    a_budget(store)
    spend(store, "u-1")
    hooks.statuses = [200, 403]
    with caplog.at_level(1):
        alerts = deliverer(urls=[hooks.url(), nobody])
        assert alerts.deliver() == 1
        spend(store, "u-2")
        assert alerts.deliver() == 0
        shown = f"{alerts!r} {vars(alerts)!r}"
        for wrong in ("json://", f"nonsense {SECRET}", f"slack://{SECRET}", f"https://example.org/{SECRET}", ""):
            with pytest.raises(SettingsError) as error:
                deliverer(urls=[hooks.url(), SecretStr(wrong)])
            shown += str(error.value)
    assert SECRET not in caplog.text
    assert SECRET not in shown
    assert "alert URL 1 of 2 (JSON): HTTP 403" in caplog.text
    assert not [
        record for record in caplog.records if record.name.partition(".")[0] in ("apprise", "urllib3", "requests")
    ]


def test_what_others_do_with_apprise_is_still_logged(
    deliverer: Callable[..., AlertDispatcher], hooks: Hooks, caplog: pytest.LogCaptureFixture
) -> None:
    """An application that uses apprise itself would lose its log."""
    import apprise

    deliverer(urls=[hooks.url()])
    with caplog.at_level(logging.DEBUG, "apprise"):
        own = apprise.Apprise()
        own.add(f"json://127.0.0.1:{hooks.server.server_port}/own")
        assert own.notify(title="theirs", body="theirs")
    assert [record for record in caplog.records if record.name == "apprise"]


def test_a_url_that_apprise_cannot_use_is_named_by_its_place(
    deliverer: Callable[..., AlertDispatcher], hooks: Hooks
) -> None:
    """A typing error would be found out when the first alert does not come."""
    with pytest.raises(SettingsError, match="alert URL 2 of 3") as error:
        deliverer(urls=[hooks.url(), SecretStr("slak://a/b/c"), hooks.url()])
    assert error.value.variable == "VITAL_ALERT_URLS"


def test_a_missing_extra_is_named(
    deliverer: Callable[..., AlertDispatcher], hooks: Hooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason would be an ImportError of a library that nobody asked for."""
    monkeypatch.setitem(sys.modules, "apprise", None)
    with pytest.raises(MissingExtra, match=r"vital-tracking\[alerts\]"):
        deliverer(urls=[hooks.url()])
    assert deliverer(print).active, "callbacks need no extra"
