"""Plans, subscriptions and quotas: months that begin on any day, limits that hold, sums that are those of the calls."""

from __future__ import annotations

import json
import threading
from calendar import monthrange
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sql.helpers import (
    ADMIN,
    ALICE,
    BOB,
    Connection,
    Row,
    a_cost,
    acquire,
    acting_as,
    alerts,
    audit,
    call,
    connect,
    record,
    windows,
    wish,
)
from tests.sql.test_budget_properties import SETTINGS
from tests.support.effort import examples
from tests.support.postgres import PostgresServer

ZONES = ("UTC", "Europe/Berlin", "America/Santiago", "Asia/Beirut", "Asia/Kolkata", "America/Havana")


@pytest.fixture(scope="module")
def url(postgres_server: PostgresServer, template_database: str) -> Iterator[str]:
    """One database for the tests of this file: each has subscribers of its own."""
    postgres_server.create_database("quotas", template=template_database)
    yield postgres_server.url("quotas")
    postgres_server.drop_database("quotas")


@pytest.fixture
def db(url: str) -> Iterator[Connection]:
    """The owner's connection; every statement is a transaction, as it is for an API."""
    with connect(url) as connection:
        yield connection


def subscribe(db: Connection, who: str, plan: str | None = None, kind: str = "user", **columns: Any) -> Row:
    named = {"entity_type": kind, "entity_id": who, **({"plan": plan} if plan else {}), **columns}
    return dict(call(db, "set_subscription_v1", subscription=json.dumps(named, default=str)))


def end(db: Connection, who: str, kind: str = "user", **columns: Any) -> Row:
    return dict(
        call(
            db,
            "end_subscription_v1",
            subscription=json.dumps({"entity_type": kind, "entity_id": who, **columns}, default=str),
        )
    )


def quota(db: Connection, who: str) -> Row:
    [found] = call(db, "quota_status_v1", ids=json.dumps([who]))
    return dict(found)


def used(db: Connection, who: str) -> tuple[str, str | None]:
    found = quota(db, who)
    return found["calls_used"], found["calls_limit"]


def keepers(db: Connection, kind: str = "user", organization: str | None = None) -> list[int]:
    """The budgets that block what is over a quota."""
    return [
        row["id"]
        for row in call(db, "budgets_v1")["budgets"]
        if row["by_plan"]
        and row["action"] == "block"
        and (row["entity_type"], row["organization_id"]) == (kind, organization)
    ]


def now(db: Connection) -> datetime:
    found = db.execute("select clock_timestamp() as now").fetchone()
    assert found is not None
    moment: datetime = found["now"]
    return moment


_NUMBERS = iter(range(1_000_000, 2_000_000))


def use(db: Connection, who: str, *moments: datetime, **more: Any) -> None:
    """Record a call of 120 tokens at each of these moments."""
    calls = [a_cost(next(_NUMBERS), **{"user_id": who, "created_at": moment.isoformat(), **more}) for moment in moments]
    assert record(db, *calls)["inserted"] == len(calls)


# Months


def first_instant(day: date, zone: str) -> datetime:
    """The first instant of a local day: of all quarters of an hour around its midnight the first that is in it, or past it."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    quarters = (midnight + timedelta(minutes=15 * number) for number in range(-15 * 4, 15 * 4))
    return next(quarter for quarter in quarters if quarter.astimezone(ZoneInfo(zone)).date() >= day)


def month_of(moment: datetime, zone: str, reset_day: int) -> tuple[datetime, datetime]:
    """The month that a moment is in, by walking through all the months around it."""
    months = [divmod(moment.year * 12 + moment.month - 1 + number, 12) for number in range(-2, 4)]
    days = [date(year, month + 1, min(reset_day, monthrange(year, month + 1)[1])) for year, month in months]
    starts = [first_instant(day, zone) for day in days]
    place = max(number for number, start in enumerate(starts) if start <= moment)
    return starts[place], starts[place + 1]


@settings(SETTINGS, max_examples=examples(25))
@given(
    drawn=st.lists(
        st.tuples(
            st.datetimes(datetime(1996, 1, 1), datetime(2026, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
            st.sampled_from(ZONES),
            st.integers(1, 31) | st.sampled_from([28, 29, 30, 31]),
        ),
        min_size=8,
        max_size=8,
    )
)
def test_months_that_begin_on_any_day_are_those_of_the_calendar(url: str, drawn: list[Any]) -> None:
    """If this failed, a quota would begin anew on the wrong day, or in the wrong hour where clocks change."""
    with connect(url) as db:
        found = db.execute(
            "select vital_private.window_start('month', m.moment, m.zone, null, m.day) as starts_at,"
            " vital_private.window_end('month', m.moment, m.zone, m.day) as ends_at"
            " from unnest(%s::timestamptz[], %s::text[], %s::integer[]) with ordinality as m (moment, zone, day, place)"
            " order by m.place",
            [[row[0] for row in drawn], [row[1] for row in drawn], [row[2] for row in drawn]],
        ).fetchall()
    assert [(row["starts_at"], row["ends_at"]) for row in found] == [month_of(*row) for row in drawn]


# Quotas


def test_what_was_used_stays_used_through_every_change(db: Connection) -> None:
    """If this failed, changing the plan, or ending and beginning it again, would give anybody a new month."""
    moment = now(db)
    use(db, "u-stays", moment, moment)
    told = subscribe(db, "u-stays", "trial")
    assert (told["calls_used"], told["tokens_used"]) == ("2", "240")
    assert used(db, "u-stays") == ("2", "700")
    use(db, "u-stays", moment)
    assert subscribe(db, "u-stays", "starter")["calls_used"] == "3"
    assert used(db, "u-stays") == ("3", "30000")
    assert subscribe(db, "u-stays", enforced=True)["calls_used"] == "3"
    assert end(db, "u-stays") == {"ended": 1}
    assert call(db, "quota_status_v1", ids='["u-stays"]') == []
    assert [acquire(db, "h", [wish(budget, "u-stays", unit=10**9)])[0]["windows"] for budget in keepers(db)] == [[], []]
    use(db, "u-stays", moment)
    assert subscribe(db, "u-stays", "enterprise")["calls_used"] == "4"
    assert used(db, "u-stays") == ("4", None)
    history = call(db, "subscriptions_v1", entity_type="user", entity_id="u-stays")
    assert [row["plan"] for row in history] == ["enterprise", "starter", "starter", "trial"]
    assert [row["until"] for row in history[2:]] == [row["since"] for row in history[1:3]]
    assert audit(db) == []


def test_a_changed_reset_day_counts_from_its_own_month(db: Connection) -> None:
    moment = now(db)
    subscribe(db, "u-day", "trial")
    month = quota(db, "u-day")
    start = datetime.fromisoformat(month["starts_at"])
    use(db, "u-day", start, moment)
    assert used(db, "u-day")[0] == "2"
    day = (moment - timedelta(days=1)).day
    told = subscribe(db, "u-day", reset_day=day)
    expected = month_of(moment, "UTC", day)
    assert (datetime.fromisoformat(told["starts_at"]), datetime.fromisoformat(told["ends_at"])) == expected
    assert told["calls_used"] == str(sum(expected[0] <= at < expected[1] for at in (start, moment)))
    assert audit(db) == []


def test_an_upgrade_holds_at_once_and_a_quota_holds_for_all_who_ask_together(db: Connection, url: str) -> None:
    """If this failed, many processes at once would use more than a plan has, or one that was paid for would not count."""
    call(db, "set_plan_v1", plan=json.dumps({"name": "tiny", "calls": 20}))
    subscribe(db, "u-many", "tiny", enforced=True)
    [calls, _] = keepers(db)
    admitted: list[bool] = []

    def ask(holder: str) -> None:
        with connect(url) as connection:
            admitted.extend(
                acquire(connection, holder, [wish(calls, "u-many", want=3)])[0]["admitted"] for _ in range(8)
            )

    threads = [threading.Thread(target=ask, args=(f"h-{number}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [window] = windows(db, entity_id="u-many", budget_id=calls)
    assert sum(admitted) <= 20
    assert window["granted"] == window["limit_amount"] == 20
    [refused] = acquire(db, "late", [wish(calls, "u-many")])
    assert not refused["admitted"]
    assert alerts(db)
    subscribe(db, "u-many", "trial")
    assert acquire(db, "late", [wish(calls, "u-many")])[0]["admitted"]
    call(db, "set_plan_v1", plan=json.dumps({"name": "trial", "calls": 21}))
    assert not acquire(db, "late", [wish(calls, "u-many", have={})])[0]["admitted"]
    call(db, "set_plan_v1", plan=json.dumps({"name": "trial", "calls": 700}))
    assert acquire(db, "late", [wish(calls, "u-many")])[0]["admitted"]


def test_only_who_has_an_enforced_quota_is_asked_for_it(db: Connection) -> None:
    """If this failed, one subscriber's quota would stop everybody else, or a watched one would stop its own."""
    subscribe(db, "u-enforced", "trial", enforced=True)
    subscribe(db, "u-watched", "trial")
    for budget in keepers(db):
        [mine, others, nobodys] = acquire(
            db, "h", [wish(budget, "u-enforced")], [wish(budget, "u-watched")], [wish(budget, "u-nobody")]
        )
        assert [row["entity"] for row in mine["windows"]] == ["u-enforced"]
        assert others["windows"] == nobodys["windows"] == []
        assert others["admitted"]
        assert nobodys["admitted"]


def test_a_users_quota_counts_in_its_organization_alone(db: Connection) -> None:
    moment = now(db)
    subscribe(db, "u-both", "trial", organization_id="o-1")
    use(db, "u-both", moment, moment, organization_id="o-1")
    use(db, "u-both", moment, organization_id="o-2")
    subscribe(db, "o-2", "starter", kind="organization")
    assert used(db, "u-both") == ("2", "700")
    assert used(db, "o-2") == ("1", "30000")
    use(db, "u-both", moment, organization_id="o-2")
    assert used(db, "u-both") == ("2", "700")
    assert used(db, "o-2") == ("2", "30000")
    by_plan = {row["plan"]: row for row in call(db, "quotas_v1", organization="o-2")}
    assert (by_plan["starter"]["subscribers"], by_plan["starter"]["calls_used"]) == (1, "2")
    assert (by_plan["trial"]["subscribers"], by_plan["trial"]["calls_limit"]) == (0, "0")
    assert by_plan["enterprise"]["calls_limit"] is None
    assert audit(db) == []


def test_limits_of_a_plan_change_by_the_clock(db: Connection) -> None:
    """A subscription that ends, a change that was set for later, and a version of a plan to come need nobody to be there."""
    subscribe(db, "u-clock", "trial", enforced=True)
    soon = now(db) + timedelta(days=40)
    subscribe(db, "u-clock", "professional", since=soon)
    assert used(db, "u-clock")[1] == "700"
    use(db, "u-clock", soon + timedelta(days=1))
    [later] = [row for row in windows(db, entity_id="u-clock", metric="calls") if row["starts_at"] > now(db)]
    assert later["spent"] == 1
    assert subscribe(db, "u-clock", "starter")["subscription"]["until"] is None
    plans = [row["plan"] for row in call(db, "subscriptions_v1", entity_type="user", entity_id="u-clock")]
    assert plans == ["starter", "trial"]
    acquire(db, "h", [wish(budget, "u-clock") for budget in keepers(db)])
    ends = now(db) + timedelta(hours=1)
    end(db, "u-clock", until=ends)
    [window] = [
        row for row in windows(db, entity_id="u-clock", metric="calls", action="block") if row["starts_at"] <= now(db)
    ]
    assert (window["limit_amount"], window["limit_until"]) == (30_000, ends)
    with db.transaction():  # as if that hour had passed
        db.execute("set local session_replication_role = replica")
        db.execute(
            "update subscriptions set until = clock_timestamp() where entity_id = 'u-clock' and until = %s", [ends]
        )
        db.execute("update budget_windows set limit_until = clock_timestamp() where limit_until = %s", [ends])
    use(db, "u-clock", now(db))
    [lapsed] = windows(db, id=window["id"])
    assert (lapsed["spent"], lapsed["limit_amount"], lapsed["limit_until"]) == (1, None, None)
    [answer] = acquire(db, "h", [wish(budget, "u-clock", unit=10**9) for budget in keepers(db)])
    assert (answer["admitted"], answer["windows"]) == (True, [])
    assert audit(db) == []


def test_limits_of_a_minute_come_with_the_plan(db: Connection) -> None:
    call(db, "set_plan_v1", plan=json.dumps({"name": "slow", "calls_per_minute": 2, "valid_from": "2020-01-01"}))
    subscribe(db, "u-slow", "slow", enforced=True, since=now(db) - timedelta(minutes=5))
    later = now(db).replace(second=0, microsecond=0) + timedelta(minutes=2)
    use(db, "u-slow", later, later, later + timedelta(minutes=1))
    minutes = {row["starts_at"]: row["spent"] for row in windows(db, entity_id="u-slow", period="minute")}
    assert minutes == {later: 2, later + timedelta(minutes=1): 1}
    assert audit(db) == []
    blocked = {"budget": windows(db, entity_id="u-slow", period="minute")[0]["budget_id"], "entity_id": "u-slow"}
    use(
        db, "u-slow", now(db), status="blocked", blocked_by={**blocked, "period": "minute"}, cost=0, total_tokens=0,
        prompt_tokens=0, completion_tokens=0,
    )  # fmt: skip
    [told] = [row for row in call(db, "rate_limits_v1") if row["entity_id"] == "u-slow"]
    assert (told["minutes"], told["fullest_percent"], told["average_percent"]) == (2, "100.00", "75.00")
    assert (told["blocked_calls"], told["violations"], told["by_plan"]) == (1, 0, True)


def test_minutes_go_after_a_month(db: Connection) -> None:
    """If this failed, a row a minute and subscriber would stay for two years, of which reports read a month."""
    with db.transaction(force_rollback=True):
        limit = {"entity_type": "user", "metric": "calls", "action": "alert", "minute_limit": 9, "monthly_limit": 99}
        call(db, "set_budget_v1", budget=json.dumps(limit))
        # As if it had been there all the time.
        db.execute("alter table budget_limits disable trigger budget_limits_check")
        db.execute("update budget_limits set counting_since = counting_since - interval '90 days' where not by_plan")
        db.execute("alter table budget_limits enable trigger budget_limits_check")
        db.execute("update vital_private.budget_periods set since = since - interval '90 days'")
        call(db, "recount_budgets_v1")
        use(db, "u-minutes", *(now(db) - timedelta(days=days) for days in (40, 30, 0)))
        held = [row["period"] for row in windows(db, entity_id="u-minutes")]
        assert held.count("minute") == 3
        call(db, "apply_retention", dry_run=False)
        assert [row["period"] for row in windows(db, entity_id="u-minutes")].count("minute") == 2
        assert audit(db) == []
        assert call(db, "recount_budgets_v1") == {"mended": 0}


STEP = st.one_of(
    st.tuples(st.just("subscribe"), st.sampled_from(["trial", "starter", "enterprise", None]), st.booleans()),
    st.tuples(st.just("day"), st.integers(1, 31), st.sampled_from(ZONES)),
    st.tuples(st.just("use"), st.integers(-40, 3), st.sampled_from(["o-p", None])),
    st.tuples(st.just("end"), st.none(), st.none()),
    st.tuples(st.just("schedule"), st.integers(1, 40), st.sampled_from(["trial", "professional"])),
    st.tuples(st.just("delete"), st.none(), st.none()),
)


@settings(SETTINGS, max_examples=examples(4))
@given(steps=st.lists(STEP, min_size=6, max_size=10), organization=st.sampled_from(["o-p", None]))
def test_windows_are_the_sums_of_the_calls_through_any_changes(
    url: str, steps: list[Any], organization: str | None
) -> None:
    """If this failed, some order of changes and late calls would lose what was used, or count it twice."""
    who = f"u-{next(_NUMBERS)}"
    where = {"organization_id": organization} if organization else {}
    with connect(url) as db:
        moment = now(db)
        made: list[tuple[datetime, str | None]] = []
        for what, first, second in steps:
            if what == "subscribe":
                subscribe(db, who, first, enforced=second, **where)
            elif what == "day":
                subscribe(db, who, reset_day=first, timezone=second, **where)
            elif what == "use":
                at = moment + timedelta(days=first, minutes=first)
                use(db, who, at, organization_id=second)
                made.append((at, second))
            elif what == "schedule":
                subscribe(db, who, second, since=moment + timedelta(days=first), **where)
            elif what == "end":
                end(db, who, **where)
            else:
                db.execute("delete from subscriptions where entity_id = %s", [who])
            assert audit(db) == []
            for status in call(db, "quota_status_v1", ids=json.dumps([who])):
                start, finish = (datetime.fromisoformat(status[name]) for name in ("starts_at", "ends_at"))
                assert (start, finish) == month_of(now(db), status["timezone"], status["reset_day"])
                mine = [at for at, place in made if start <= at < finish and organization in (None, place)]
                assert status["calls_used"] == str(len(mine))


# Who may


def test_admins_change_subscriptions_of_their_organization_and_operators_all(db: Connection) -> None:
    """If this failed, a user could put himself on a larger plan, or an admin of one tenant block the users of another."""
    db.execute(
        "insert into organization_members (organization_id, user_id, role)"
        " values ('o-roles', %s, 'admin'), ('o-roles', %s, 'member')",
        [ADMIN, ALICE],
    )
    subscribe(db, BOB, "trial", organization_id="o-else")
    subscribe(db, ALICE, "trial", organization_id="o-roles")
    subscribe(db, "o-roles", "starter", kind="organization")
    refused = {"refused": "not_an_admin"}
    with acting_as(db, "authenticated", {"sub": ADMIN}):
        assert subscribe(db, "u-new", "trial", organization_id="o-roles")["subscription"]["plan"] == "trial"
        assert subscribe(db, "o-roles", "professional", kind="organization") == refused, "they pay for it"
        assert end(db, "o-roles", kind="organization") == refused
        assert subscribe(db, BOB, "trial", organization_id="o-else") == refused
        assert subscribe(db, ALICE, "enterprise") == refused
        assert subscribe(db, "o-else", "trial", kind="organization") == refused
        assert end(db, BOB, organization_id="o-else") == refused
        assert call(db, "set_plan_v1", plan='{"name": "trial", "calls": 1}') == {"refused": "not_an_operator"}
        told = call(
            db,
            "set_subscriptions_v1",
            subscriptions=json.dumps(
                [
                    {"entity_type": "user", "entity_id": "u-csv", "plan": "trial", "organization_id": "o-roles"},
                    {"entity_type": "user", "entity_id": "u-csv", "plan": "trial"},
                    {"entity_type": "user", "entity_id": "u-csv-2", "plan": "gold", "organization_id": "o-roles"},
                ]
            ),
        )
        assert (told["set"], told["refused"], [bad["row"] for bad in told["rejected"]]) == (1, 1, [2])
        seen = {row["entity_id"] for row in call(db, "quota_status_v1")}
        assert seen == {"u-new", "u-csv", ALICE, "o-roles"}
    with acting_as(db, "authenticated", {"sub": ALICE}):
        assert subscribe(db, ALICE, "enterprise", organization_id="o-roles") == refused
        assert [row["entity_id"] for row in call(db, "quota_status_v1")] == [ALICE]
        assert used(db, ALICE)[1] == "700"
    noted = db.execute(
        "select operation, key ->> 'entity_id' as who from admin_audit"
        " where table_name = 'subscriptions' and organization_id = 'o-roles' order by id"
    ).fetchall()
    assert [(row["operation"], row["who"]) for row in noted] == [("insert", ALICE), ("insert", "o-roles")]


def test_a_refused_try_is_in_the_audit(url: str) -> None:
    with connect(url) as db:
        db.execute("select set_config('request.jwt.claims', %s, false)", [json.dumps({"sub": ALICE})])
        db.execute("set role authenticated")
        subscribe(db, ALICE, "enterprise", organization_id="o-refused")
        call(db, "set_plan_v1", plan='{"name": "trial", "calls": 1}')
        db.execute("reset role")
        found = db.execute(
            "select table_name, actor, changes from admin_audit where operation = 'refused' and actor = %s order by id",
            [ALICE],
        ).fetchall()
    assert [row["table_name"] for row in found] == ["subscriptions", "plans"]
    assert found[0]["changes"]["plan"] == [None, "enterprise"]


def holds_budgets(db: Connection) -> bool:
    """Whether this transaction makes all others wait that admit calls."""
    return bool(
        db.execute(
            "select from pg_locks where pid = pg_backend_pid() and locktype = 'advisory' and mode = 'ExclusiveLock'"
        ).fetchall()
    )


def subscribe_all(db: Connection, *rows: Row) -> Row:
    return dict(call(db, "set_subscriptions_v1", subscriptions=json.dumps(rows)))


def test_who_may_not_or_changes_nothing_stops_nobody(db: Connection) -> None:
    """If this failed, a member of nothing could stop all calls, and fill the audit of any organization."""
    db.execute(
        "insert into organization_members (organization_id, user_id, role) values ('o-mine', %s, 'member')", [ALICE]
    )
    row = {"entity_type": "user", "entity_id": "u-asked", "plan": "trial", "organization_id": "o-asked"}
    subscribe_all(db, row)
    refusals = (
        "select organization_id, key, changes from admin_audit where operation = 'refused' and actor = %s"
        " and at >= transaction_timestamp() order by id"
    )
    with acting_as(db, "authenticated", {"sub": ALICE}):
        mine = {**row, "organization_id": "o-mine"}
        assert subscribe_all(db, row, row, mine)["refused"] == 3
        assert subscribe_all(db, mine, mine)["refused"] == 2
        assert subscribe(db, "u-asked", "starter", organization_id="o-asked") == {"refused": "not_an_admin"}
        assert not holds_budgets(db)
        db.execute("reset role")
        noted = db.execute(refusals, [ALICE]).fetchall()
    assert [(line["organization_id"], line["changes"].get("rows")) for line in noted[:2]] == [(None, 3), ("o-mine", 2)]
    with db.transaction():
        assert subscribe_all(db, row) == {"set": 0, "unchanged": 1, "refused": 0, "rejected": []}
        assert subscribe(db, "u-asked", "trial", organization_id="o-asked")["subscription"]["plan"] == "trial"
        assert not holds_budgets(db)
        assert subscribe_all(db, {**row, "plan": "starter"})["set"] == 1
        assert holds_budgets(db)
    with pytest.raises(psycopg.DataError, match=r"At most 1,000 .* 1001"):
        subscribe_all(db, *([row] * 1001))


def test_a_dated_end_stays_through_other_changes(db: Connection) -> None:
    """If this failed, to enforce a trial that ends next month would make it one for ever."""
    ends, later = (now(db) + timedelta(days=days) for days in (60, 20))

    def until() -> list[Any]:
        rows = call(db, "subscriptions_v1", entity_type="user", entity_id="u-dated")
        return [row["until"] and datetime.fromisoformat(row["until"]) for row in rows]

    subscribe(db, "u-dated", "trial", until=ends)
    subscribe(db, "u-dated", enforced=True)
    assert until()[0] == ends
    subscribe(db, "u-dated", "starter", since=later)
    assert until()[:2] == [ends, later]
    subscribe(db, "u-dated", "trial")
    assert until()[0] == ends, "what was to follow has gone, with its beginning"
    subscribe(db, "u-dated", until=None)
    assert until()[0] is None
    assert audit(db) == []


def test_a_claim_of_the_token_sets_a_plan_that_nobody_else_has_set(url: str) -> None:
    """If this failed, whoever may write his own metadata could pick his plan, or a claim would undo what an admin has set."""
    with connect(url) as db:
        subscribe(db, "u-set", "trial")

        def claim(who: str, **claims: Any) -> Row:
            with acting_as(db, "authenticated", {"sub": who, **claims}):
                answer = dict(call(db, "claim_plan_v1"))
                found = [row["plan"] for row in call(db, "quota_status_v1")]
            return {**answer, "found": found}

        assert claim("u-claims", user_metadata={"plan": "enterprise"}, plan="enterprise")["found"] == []
        told = claim("u-claims", app_metadata={"plan": "starter", "plan_reset_day": 9})
        assert told == {"plan": "starter", "changed": True, "found": ["starter"]}
        assert claim("u-set", app_metadata={"plan": "enterprise"}) == {
            "plan": "enterprise",
            "changed": False,
            "found": ["trial"],
        }
        assert claim("u-claims", app_metadata={"plan": "no such plan"})["found"] == []


def test_a_token_from_before_puts_nobody_back(db: Connection) -> None:
    """If this failed, who was put on a smaller plan, or on none, could send his former token until it expires."""
    with acting_as(db, "authenticated"):

        def claim(issued: int | None, plan: str | None, who: str = "u-iat") -> tuple[bool, list[str]]:
            token: Row = {"sub": who, "app_metadata": {"plan": plan} if plan else {}}
            token |= {"iat": issued} if issued else {}
            db.execute("select set_config('request.jwt.claims', %s, true)", [json.dumps(token)])
            changed = call(db, "claim_plan_v1")["changed"]
            return changed, [row["plan"] for row in call(db, "quota_status_v1")]

        assert claim(1_790_000_000, "starter") == (True, ["starter"])
        assert claim(1_790_000_060, "trial") == (True, ["trial"])
        for issued in (1_790_000_000, None):
            assert claim(issued, "starter") == (False, ["trial"])
            assert claim(issued, None) == (False, ["trial"])
        assert claim(1_790_000_120, None) == (True, [])
        assert claim(1_790_000_060, "trial") == (False, [])
        assert claim(1_790_000_180, "starter") == (True, ["starter"])
        assert claim(None, "starter", "u-without") == (True, ["starter"])
        assert claim(None, "trial", "u-without") == (True, ["trial"])
        assert claim(None, None, "u-nothing") == (False, [])


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({"plan": "gold"}, "There is no plan 'gold'"),
        ({"plan": "trial", "reset_day": 32}, "subscriptions_reset_day"),
        ({"plan": "trial", "timezone": "Mars/Olympus"}, "no IANA time zone"),
        ({"plan": "trial", "timezone": "CET"}, "no IANA time zone"),
        ({"plan": "trial", "until": "2020-01-01"}, "subscriptions_times"),
    ],
)
def test_what_cannot_be_is_said(db: Connection, columns: Row, problem: str) -> None:
    assert problem in subscribe(db, "u-wrong", **columns)["problem"]
    assert call(db, "quota_status_v1", ids='["u-wrong"]') == []


def test_budgets_that_keep_quotas_are_nobodys_to_change(db: Connection) -> None:
    subscribe(db, "u-kept", "trial", enforced=True)
    [budget, _] = keepers(db)
    assert call(db, "remove_budget_v1", budget_id=budget) == {"removed": 0}
    assert budget in keepers(db)
    made = call(
        db,
        "set_budget_v1",
        budget='{"entity_type": "user", "metric": "calls", "action": "block", "daily_limit": 5, "by_plan": true}',
    )
    assert (made["by_plan"], made["id"] != budget) == (False, True)
    db.execute("delete from budget_limits where id = %s", [made["id"]])
    raised = {"entity_type": "user", "entity_id": "u-kept", "metric": "calls", "raise_by": 50, "until": "2099-01-01"}
    call(db, "raise_budget_v1", raise_=json.dumps(raised))
    use(db, "u-kept", now(db))
    assert used(db, "u-kept") == ("1", str(Decimal(750)))


def test_a_raise_until_tomorrow_ends_at_the_subscribers_midnight(db: Connection) -> None:
    for zone in ("Pacific/Kiritimati", "Pacific/Pago_Pago"):  # 25 hours apart
        who = f"u-{zone}"
        subscribe(db, who, "trial", timezone=zone)
        raised = {"entity_type": "user", "entity_id": who, "metric": "calls", "raise_by": 5, "until": "tomorrow"}
        day = now(db).astimezone(ZoneInfo(zone)).date()
        [told] = call(db, "raise_budget_v1", raise_=json.dumps(raised))
        ends = datetime.fromisoformat(told["until"]).astimezone(ZoneInfo(zone))
        assert (ends.hour, ends.minute) == (0, 0)
        assert ends.date() > day


def test_forgetting_a_user_takes_his_plan_along(db: Connection) -> None:
    """If this failed, a user who is forgotten would still be known by name to the plan that he was on."""
    subscribe(db, "u-gone", "trial", enforced=True)
    use(db, "u-gone", now(db))
    assert used(db, "u-gone")[0] == "1"
    db.execute("select forget_user('u-gone')")
    assert call(db, "subscriptions_v1", entity_type="user", entity_id="u-gone") == []
    assert windows(db, entity_id="u-gone") == []
    assert (
        db.execute(
            "select from admin_audit where key::text like '%u-gone%' or changes::text like '%u-gone%'"
        ).fetchall()
        == []
    )
    assert audit(db) == []
