"""The database is away, or so slow that nobody can wait for it: calls are decided in time, as each budget says.

If one of these fails, an outage of the database becomes an outage of everything that calls a model; or it lets calls through
that a budget would rather stop; or money that was granted before it is spent twice.
"""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from tests.integration.budgets.helpers import (
    CALL,
    USAGE,
    check_sums,
    granted,
    knows_its_budgets,
    request_for,
    set_budget,
)
from tests.integration.helpers import Rows
from tests.support.folders import REPOSITORY
from tests.support.postgres import PostgresServer, outage
from tests.support.provider_server import ProviderServer
from tests.support.slow_proxy import SlowProxy
from tests.support.waiting import until
from vital_tracking import BudgetUnavailable, Settings, VitalTracker
from vital_tracking.stores.postgres import PostgresStore

SLACK_S = 0.5  # of a busy machine
MakeTracker = Callable[..., VitalTracker]


@pytest.fixture
def proxy(postgres_server: PostgresServer) -> Iterator[SlowProxy]:
    """The network before the test's database."""
    with SlowProxy(postgres_server.port) as between:
        yield between


@pytest.fixture
def behind(proxy: SlowProxy, database_url: str) -> Iterator[MakeTracker]:
    """Makes trackers whose database is behind the proxy."""
    made: list[VitalTracker] = []

    def make(**settings: Any) -> VitalTracker:
        made.append(VitalTracker(PostgresStore(proxy.url(database_url)), settings=Settings(**settings)))
        return made[-1]

    yield make
    proxy.delay_s = 0
    for tracker in made:
        tracker.close()


@pytest.fixture
def allow_and_deny(store: PostgresStore) -> None:
    """Two users with a thousand calls each, one of whom is stopped where nobody can say."""
    for user in ("allow", "deny"):
        set_budget(store, entity_id=user, total_limit="1000", when_unavailable=user)


def admitted(tracker: VitalTracker, user: str) -> tuple[str | None, bool]:
    """Make one call: what the admission says, and whether anything was held for it."""
    admission = tracker._controller.admit(request_for(user))
    held = admission.hold is not None
    tracker._controller.release(admission)
    return admission.action, held


def timed(work: Callable[[], Any]) -> float:
    begun = time.monotonic()
    work()
    return time.monotonic() - begun


def is_decided(tracker: VitalTracker, user: str) -> None:
    """Unchecked for one user, stopped for the other."""
    if user == "deny":
        with pytest.raises(BudgetUnavailable):
            admitted(tracker, "deny")
    else:
        assert admitted(tracker, "allow") == ("unchecked", False)


@pytest.mark.usefixtures("allow_and_deny")
@pytest.mark.parametrize("user", ["allow", "deny"])
def test_a_slow_database_delays_one_call_to_its_deadline_and_no_other(
    user: str, behind: MakeTracker, proxy: SlowProxy, store: PostgresStore, rows: Rows, caplog: pytest.LogCaptureFixture
) -> None:
    """One call waits, until its deadline; the others are decided at once, until the database answers in time again."""
    tracker = knows_its_budgets(behind(flush_interval_s=60))
    proxy.delay_s = 5
    assert timed(lambda: is_decided(tracker, user)) == pytest.approx(1.5, abs=SLACK_S)
    for _ in range(20):
        assert timed(lambda: is_decided(tracker, user)) < 0.2
    assert tracker.stats().unchecked == (21 if user == "allow" else 0)
    # The answer comes after all, but slowly: still nobody waits for the next one.
    proxy.delay_s = 0.4  # three times for each function called
    until(lambda: tracker._controller.ledger.has_grants, 10)
    assert timed(lambda: tracker._controller.admit(request_for("somebody else"))) < 0.2
    proxy.delay_s = 0
    until(lambda: "The database answers in time again; budgets are checked." in caplog.messages, 10)
    assert admitted(tracker, user) == (None, True)
    assert len([text for text in caplog.messages if "did not answer within 1.5 s" in text]) == 1
    assert tracker.close().complete
    assert granted(rows) == 0
    assert tracker.stats().faults == 0
    check_sums(store)


@pytest.mark.usefixtures("allow_and_deny")
def test_an_answer_that_comes_too_late_loses_no_money(
    behind: MakeTracker, proxy: SlowProxy, store: PostgresStore, rows: Rows
) -> None:
    """What it brings is there for the next call; what it brings for the one that has gone is free again."""
    tracker = knows_its_budgets(behind(flush_interval_s=60, budget_deadline_s=0.3))
    proxy.delay_s = 1
    is_decided(tracker, "allow")
    until(lambda: tracker._controller.ledger.has_grants)
    assert admitted(tracker, "allow") == (None, True)
    tracker._controller.ledger.return_unused(idle=False)
    (window,) = tracker._controller.ledger._windows.values()
    assert window.free == window.granted == granted(rows)
    proxy.delay_s = 0
    tracker.close()
    assert granted(rows) == 0


@pytest.mark.usefixtures("allow_and_deny")
async def test_nobody_waits_for_the_database_in_the_event_loop(behind: MakeTracker, proxy: SlowProxy) -> None:
    """A server goes on serving while calls wait for their deadline."""
    tracker = knows_its_budgets(behind(flush_interval_s=60, budget_deadline_s=0.5))
    proxy.delay_s = 3
    lags: list[float] = []

    async def tick() -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.005)
            lags.append(time.perf_counter() - before - 0.005)

    ticking = asyncio.create_task(tick())
    outcomes = await asyncio.gather(
        *(tracker._controller.aadmit(request_for(user)) for user in ("allow", "deny") for _ in range(10)),
        return_exceptions=True,
    )
    ticking.cancel()
    assert [type(one).__name__ for one in outcomes] == ["Admission"] * 10 + ["BudgetUnavailable"] * 10
    assert sorted(lags)[-3] < 0.05
    assert len(lags) > 30


@pytest.mark.usefixtures("allow_and_deny")
async def test_the_handler_holds_the_event_loop_up_no_longer_than_the_deadline(
    behind: MakeTracker, proxy: SlowProxy, provider: ProviderServer
) -> None:
    """It cannot wait otherwise; then at least not for every call."""
    tracker = knows_its_budgets(behind(flush_interval_s=60, budget_deadline_s=0.5))
    config: Any = {"callbacks": [tracker.handler], "metadata": {"vital_user_id": "allow"}}
    model = provider.chat_openai()
    await model.ainvoke("warm", {"callbacks": [tracker.handler], "metadata": {"vital_user_id": "somebody else"}})
    proxy.delay_s = 3
    begun = time.monotonic()
    await asyncio.gather(*(model.ainvoke("Hi", config) for _ in range(10)))
    assert time.monotonic() - begun < 0.5 + 2 * SLACK_S
    assert len(provider.requests) == 11
    proxy.delay_s = 0
    assert tracker.stats().unchecked == 10


@pytest.mark.parametrize("when_unavailable", ["allow", "deny"])
def test_without_a_database_calls_are_decided_in_time_as_the_setting_says(when_unavailable: str) -> None:
    """Before the budgets are known, VITAL_WHEN_UNAVAILABLE decides; in time as well."""
    nowhere = PostgresStore("postgresql://postgres@127.0.0.1:9/absent")
    settings = Settings(when_unavailable=when_unavailable, budget_deadline_s=0.3)
    tracker = VitalTracker(nowhere, settings=settings)

    def decide() -> None:
        if when_unavailable == "deny":
            with pytest.raises(BudgetUnavailable, match="VITAL_WHEN_UNAVAILABLE"):
                tracker._controller.admit(request_for())
        else:
            assert tracker._controller.admit(request_for()).action == "unchecked"

    assert timed(decide) < 0.3 + SLACK_S
    for _ in range(10):
        assert timed(decide) < 0.1
    assert tracker.stats().unchecked == (11 if when_unavailable == "allow" else 0)
    assert timed(lambda: tracker.close(0.1)) < 3
    assert tracker.stats().faults == 0


def test_without_migrations_calls_go_on_and_it_is_said_once(
    postgres_server: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever has not run the migrations is told so, once; calls go on."""
    postgres_server.create_database("without_tables")
    tracker = VitalTracker(PostgresStore(postgres_server.url("without_tables")), settings=Settings())
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert tracker._controller.admit(request_for()).action == "unchecked"
    assert [text for text in caplog.messages if "vital-tracking migrate" in text and "Budgets are not checked" in text]
    assert len(caplog.records) == 1
    tracker.close()
    assert tracker.stats().faults == 0
    postgres_server.drop_database("without_tables")


@pytest.mark.usefixtures("allow_and_deny")
def test_grants_in_hand_go_on_being_spent_until_they_lapse(
    postgres_server: PostgresServer, make_tracker: MakeTracker, store: PostgresStore, rows: Rows
) -> None:
    """The server is down: what was granted is spent, then budgets decide; what could not be renewed is spent no more."""
    lifetime_s = 3
    tracker = make_tracker(budget_deadline_s=0.3, grant_lifetime_s=lifetime_s)
    for user in ("allow", "deny"):
        tracker.admit(user_id=user, **CALL).record(**USAGE)
    tracker.flush()
    free = {window.account.entity: window.free for window in tracker._controller.ledger._windows.values()}
    assert min(free.values()) >= 5
    with outage(postgres_server):
        begun = time.monotonic()
        for _ in range(3):
            for user in ("allow", "deny"):
                call = tracker.admit(user_id=user, **CALL)
                assert call.action is None
                call.record(**USAGE)
        assert time.monotonic() - begun < lifetime_s / 2
        until(
            lambda: (
                time.monotonic() >= tracker._controller.ledger.valid_until or not tracker._controller.ledger.has_grants
            ),
            5,
        )
        for user in ("allow", "deny"):
            is_decided(tracker, user)
        assert time.monotonic() - begun < lifetime_s + 2
        # Neither are they once the lapsed grants are given up.
        until(lambda: not tracker._controller.ledger.has_grants, 10)
        for user in ("allow", "deny"):
            is_decided(tracker, user)
        unchecked = tracker.admit(user_id="allow", **CALL)
        assert unchecked.action == "unchecked"
        unchecked.record(**USAGE)
    assert tracker.flush(30).complete
    until(lambda: not tracker._controller.lease_thread.availability.troubled, 10)
    assert admitted(tracker, "deny") == (None, True)
    tracker.close()
    store.close()  # its connection was the old server's
    other = make_tracker(budget_refresh_s=0.1)
    other._controller.start()
    until(lambda: granted(rows) == 0, lifetime_s + 5)
    check_sums(store)
    assert tracker.stats().faults == 0
    spent = rows("select entity_id, spent from budget_windows order by 1")
    assert [(row["entity_id"], row["spent"]) for row in spent] == [("allow", 5), ("deny", 4)]
    actions = "select count(*) as calls from token_usage_logs where budget_action = 'unchecked'"
    assert rows(actions) == [{"calls": 1}]


def test_a_call_that_the_database_cannot_take_switches_no_budget_off(
    database_url: str, make_tracker: MakeTracker, store: PostgresStore
) -> None:
    """If this failed, a single odd id would switch all budgets off for a while, again and again."""
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute(
            "create function refuse() returns trigger language plpgsql as $$ begin"
            " if new.entity_id = 'odd' then raise exception 'no' using errcode = '22000'; end if; return new; end $$"
        )
        owner.execute("create trigger refuse before insert on budget_windows for each row execute function refuse()")
    set_budget(store, total_limit="3")
    tracker = knows_its_budgets(make_tracker())
    for _ in range(2):
        assert admitted(tracker, "odd") == ("unchecked", False)
        assert admitted(tracker, "even") == (None, True)
    assert not tracker._controller.lease_thread.availability.troubled
    assert tracker.stats().unchecked == 2


CLOCK = """
import datetime, os, sys, time

# A machine whose clock is off, as far as Python can tell.
off = datetime.timedelta(days=float(sys.argv[1]))
set_to = datetime.timedelta(days=float(sys.argv[2]))  # what it is off by after some calls
true_time, true_datetime = time.time, datetime.datetime
time.time = lambda: true_time() + off.total_seconds()


class Shifted(true_datetime):
    @classmethod
    def now(cls, tz=None):
        return true_datetime.now(tz) + off


datetime.datetime = Shifted

import json
from langchain_core.messages import HumanMessage
from vital_tracking import BudgetExceeded, Settings, VitalTracker
from vital_tracking.stores.postgres import PostgresStore
from vital_tracking.testing import fake_chat_model

tracker = VitalTracker(PostgresStore(os.environ["DATABASE"]), settings=Settings(grant_lifetime_s=3, flush_interval_s=60))
config = {"callbacks": [tracker.handler], "metadata": {"vital_user_id": "u-1"}}
admitted = 0
for number in range(20):
    if number == 4:
        off = set_to
    try:
        if number % 2:
            tracker.admit(user_id="u-1", model="gpt-4o-mini", max_tokens=5).record(prompt_tokens=5, completion_tokens=5)
        else:
            fake_chat_model().invoke("Hi", config)
        admitted += 1
    except BudgetExceeded as error:
        ends_at = error.ends_at
delivered = tracker.close()
print(json.dumps([admitted, delivered.complete, tracker.stats().unchecked, tracker.stats().faults, ends_at.isoformat()]))
"""


@pytest.mark.parametrize(("days", "set_to"), [(-1, -1), (1, 1), (0, 2), (0, -2), (3, 0)])
def test_budgets_hold_where_the_clock_is_off_or_is_set(
    days: int, set_to: int, database_url: str, store: PostgresStore, rows: Rows
) -> None:
    """The database's clock decides in which day a call counts, and by when a grant lapses, also where ours is set meanwhile."""
    set_budget(store, daily_limit="7", monthly_limit="1000")
    done = subprocess.run(
        [sys.executable, "-c", CLOCK, str(days), str(set_to)],
        env={"DATABASE": database_url, "PYTHONPATH": str(REPOSITORY), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    admitted_calls, complete, unchecked, faults, ends_at = json.loads(done.stdout)
    assert (admitted_calls, complete, unchecked, faults) == (7, True, 0, 0), done.stderr
    found = rows(
        "select count(*) as calls, count(*) filter (where status = 'ok') as ok,"
        " bool_and(abs(extract(epoch from now() - created_at)) < 60) as dated_now from token_usage_logs"
    )
    assert found == [{"calls": 20, "ok": 7, "dated_now": True}]
    windows = rows("select spent, granted, starts_at <= now() and ends_at > now() as runs from budget_windows")
    assert windows == [{"spent": 7, "granted": 0, "runs": True}] * 2
    check_sums(store)
    assert rows("select 1 from budget_windows where ends_at = %s::timestamptz and period = 'day'", ends_at)
