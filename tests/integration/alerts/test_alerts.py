"""Alerts of budgets: each gets to people once, whoever crossed the threshold and whatever fails."""

from __future__ import annotations

import itertools
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from pydantic import SecretStr

from tests.integration.helpers import Rows, only
from tests.sql.helpers import a_call
from tests.support.hooks import SECRET, Hooks
from tests.support.stores import AwayStore
from vital_tracking.alerts import channel
from vital_tracking.alerts.alert import BudgetAlert
from vital_tracking.alerts.dispatcher import AlertDispatcher, log
from vital_tracking.errors import MissingExtra, SettingsError
from vital_tracking.stores.postgres import PostgresStore

_calls = itertools.count(1)


@pytest.fixture
def told() -> list[BudgetAlert]:
    """What a callback took."""
    return []


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """What failed may be tried again at once; the pause itself is tested by itself."""
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


# Who hears of it


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
