"""`forget_user`: the person is gone from everywhere, and every sum of tokens and money is what it was."""

from __future__ import annotations

import hashlib
import json
import random
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from tests.sql import usage_sums
from tests.sql.helpers import (
    ADMIN,
    ALICE,
    BOB,
    CAROL,
    NOON,
    STRANGER,
    Connection,
    Row,
    a_call,
    a_cost,
    a_run,
    acquire,
    an_end,
    an_unpriced_call,
    audit,
    call,
    connect,
    record,
    record_runs,
    set_budget,
    windows,
    wish,
)

DIGEST = "sha256:" + hashlib.sha256(ALICE.encode()).hexdigest()

# What a bill is made of: no column that a person could be found by.
BILL = """
    select
      date_trunc('minute', created_at) as minute, organization_id, service_type, agent_id, agent_tier, workflow_id, workflow_step,
      panel_id, panel_position, solution_id, provider, model, requested_model, status, cache_hit, priced, price_version,
      usage_estimated, budget_action, sum(calls) as calls, sum(prompt_tokens) as prompt, sum(completion_tokens) as completion,
      sum(total_tokens) as tokens, sum(cache_read_tokens) as read, sum(cache_write_tokens) as write,
      sum(reasoning_tokens) as reasoning,
      sum(audio_tokens) as audio, sum(input_cost) as input, sum(output_cost) as output, sum(fees) as fees,
      sum(total_cost) as cost,
      sum(potential_cost) as potential, sum(ceiling_cost) as ceiling, sum(reported_cost) as reported,
      sum((billed_units ->> 'web_searches')::numeric) as searches, sum((billed_units ->> 'audio_seconds')::numeric) as seconds
    from token_usage_logs
    group by 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19
    order by 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19
"""
# What aggregations come to, without the latencies, which are of single calls, and without users.
SUMS = {
    "hourly_totals": "hour_start, organization_id, service_type",
    "daily_totals": "day, organization_id, service_type",
    "daily_agents": "day, organization_id, service_type, agent_id, agent_tier, framework, provider, model, message_type,"
    " call_type",
    "daily_users": "day, organization_id, service_type",
    "daily_parts": "day, organization_id, service_type, panel_id, panel_position, workflow_id, workflow_step, agent_id",
}
MEASURES = [name for name in usage_sums.MEASURES if not name.startswith(("latency", "timed"))]


def bill(db: Connection) -> list[Row]:
    return db.execute(BILL).fetchall()


def sums(db: Connection) -> dict[str, list[Row]]:
    return {
        name: db.execute(
            f"select {keys}, {', '.join(f'sum({m}) as {m}' for m in MEASURES)} from usage_aggregations_{name}"
            f" group by {keys} having sum(calls) <> 0 order by {keys}"
        ).fetchall()
        for name, keys in SUMS.items()
    }


def by_user(db: Connection) -> dict[Any, Decimal]:
    found = db.execute(
        "select user_id, sum(calls) as calls from usage_aggregations_daily_users group by 1 having sum(calls) <> 0"
    )
    return {row["user_id"]: row["calls"] for row in found}


def forget(db: Connection, user: str = ALICE, organization: str | None = None, max_rows: int = 20000) -> Row:
    """Call it until it is done; the last answer."""
    for _ in range(100):
        answer = call(db, "forget_user", user_id=user, organization_id=organization, max_rows=max_rows)
        if answer["done"]:
            return dict(answer)
    raise AssertionError("it never ends")


def everywhere(db: Connection, text: str) -> set[str]:
    """The tables in whose rows a text is found, partitions and internals included."""
    tables = db.execute(
        "select c.oid::regclass::text as name from pg_class as c"
        " where c.relnamespace in ('public'::regnamespace, 'vital_private'::regnamespace) and c.relkind in ('r', 'm')"
    ).fetchall()
    return {
        row["name"]
        for row in tables
        if db.execute(
            f"select from {row['name']} as t where strpos(to_jsonb(t)::text, %s) > 0 limit 1", [text]
        ).fetchall()
    }


def person(user: str | None = ALICE, session: str = "alice-session", **changes: Any) -> Row:
    return {"user_id": user, "session_id": session, "organization_id": "acme", "created_at": NOON, **changes}


def test_the_person_is_gone_from_every_table_and_all_sums_stay(db: Connection) -> None:
    """If this failed, a request to be forgotten would leave traces, or change the bill."""
    set_budget(db, daily_limit=100, alert_thresholds=["0.001"], action="alert")
    set_budget(db, entity_id=ALICE, daily_limit=50)
    set_budget(db, entity_type="session", daily_limit=40, alert_thresholds=["0.001"])
    set_budget(db, entity_type="session", entity_id="alice-session", total_limit=30)
    for entity in ("organization", "service", "tier", "agent", "workflow", "panel", "solution", "model"):
        for metric in ("cost_usd", "tokens", "calls"):
            set_budget(db, entity_type=entity, minute_limit=1, monthly_limit=100, total_limit=1000, metric=metric)
    db.execute("insert into organization_members values ('acme', %s, 'member'), ('acme', %s, 'admin')", [ALICE, BOB])
    where = {
        "service_type": "1:1_conversation",
        "service_id": "alice-session",
        "service_name": "Alice",
        "agent_id": "a",
        "agent_tier": "t",
        "workflow_id": "w",
        "workflow_step": "s",
        "panel_id": "p",
        "solution_id": "x",
        "model": "m-2026-01-01",
        "requested_model": "m",
    }
    secret = {
        "service_run_id": "alice-run",
        "run_id": "alice-lc",
        "parent_run_id": "alice-lc-parent",
        "trace_id": "alice-trace",
        "langsmith_project": "alice",
        "request_hash": "alice-hash",
        "prefix_hashes": ["alice-prefix"],
        "prompt_bytes": 5000,
        "tags": ["alice-tag"],
        "metadata": {"thread_id": "alice-thread", "service_tier": "flex"},
    }
    later = NOON.replace(":00+", ":31.123456+")
    record(
        db,
        a_cost(1, "0.1", **person(latency_ms=5, **where, **secret)),
        a_cost(2, "0.000000000000000000003", **person(created_at=later, **where, **secret)),
        a_cost(3, "0.3", **person(created_at=later.replace("T12:00", "T12:07"), **where, **secret)),
        an_unpriced_call(4, ceiling_cost="0.7", **person(**where, **secret)),
        a_cost(5, 0, **person(cache_hit=True, **where, **secret)),
        a_cost(6, 0, **person(status="blocked", budget_action="block", **where, **secret)),
        a_cost(7, "0.2", **person(user=BOB, session="bob-session", **where)),
        a_cost(8, "0.9", **person(user=BOB, session="alice-session", **where)),
        a_cost(9, "1.1", **person(calls=5, metadata={"notes": ["merged"]})),
    )
    record_runs(
        db,
        an_end(
            "alice-run",
            user_id=ALICE,
            session_id="alice-session",
            organization_id="acme",
            metadata={"a": "alice"},
            service_type="1:1_conversation",
            service_id="alice-session",
            started_at=NOON,
            ended_at=later,
        ),
        a_run(
            "alice-child",
            parent_run_id="alice-run",
            ancestor_run_ids=["alice-run"],
            user_id=ALICE,
            organization_id="acme",
            started_at=NOON,
        ),
        a_run("bob-run", user_id=BOB, organization_id="acme", started_at=NOON),
    )
    budget = db.execute("select id from budget_limits where entity_type = 'user' and entity_id = '*'").fetchone()
    assert budget is not None
    acquire(db, "h", [wish(budget["id"], ALICE)])
    before, summed = bill(db), sums(db)
    others = [row for row in windows(db) if row["entity_type"] not in ("user", "session")]
    bobs = [row for row in windows(db) if row["entity_id"] in (BOB, "bob-session")]
    assert len(others) > 30
    traces = call(db, "user_traces_v1", user_id=ALICE)
    assert {name: traces[name] for name in ("rows", "calls", "runs", "memberships", "unpriced_calls")} == {
        "rows": 7,
        "calls": 11,
        "runs": 2,
        "memberships": 1,
        "unpriced_calls": 1,
    }
    answer = forget(db)
    assert answer["digest"] == DIGEST
    assert {name: answer["total"][name] for name in ("rows", "calls", "runs", "memberships", "limits")} == {
        "rows": 7,
        "calls": 11,
        "runs": 2,
        "memberships": 1,
        "limits": 1,
    }
    for text in (
        ALICE,
        "alice-run",
        "alice-child",
        "alice-lc",
        "alice-trace",
        "alice-hash",
        "alice-prefix",
        "alice-tag",
        "alice-thread",
        '"alice"',
    ):
        assert everywhere(db, text) == set(), text
    # A session in which somebody else spoke too is that one's as well.
    assert {
        table.removeprefix("vital_private.").removesuffix("_default") for table in everywhere(db, "alice-session")
    } <= {
        "token_usage_logs",
        "budget_windows",
        "cost_alerts",
        "budget_limits",
        "admin_audit",
    }
    assert {
        row["session_id"] for row in db.execute("select session_id from token_usage_logs where session_id is not null")
    } == {
        "bob-session",
        "alice-session",
    }
    assert [row["spent"] for row in windows(db, entity_id="alice-session")] == [Decimal("0.9")] * 2
    assert bill(db) == before
    assert sums(db) == summed
    assert [row for row in windows(db) if row["entity_type"] not in ("user", "session")] == others
    assert [row for row in windows(db) if row["entity_id"] in (BOB, "bob-session")] == bobs
    assert audit(db) == []
    assert by_user(db) == {None: Decimal(11), BOB: Decimal(2)}
    rows = db.execute("select * from token_usage_logs where user_id is null").fetchall()
    assert {row["created_at"].second for row in rows} == {0}
    assert {row["service_id"] for row in rows} == {None}
    assert sorted(row["calls"] for row in rows) == [1, 1, 1, 1, 2, 5]
    assert all(row["metadata"]["notes"] == ["forgotten"] for row in rows)
    assert [row["metadata"].get("service_tier") for row in rows if not row["priced"]] == ["flex"], (
        "it could not be repriced"
    )
    [run] = db.execute("select * from service_runs where status = 'ok'").fetchall()
    assert (run["ended_at"] - run["started_at"]).total_seconds() == pytest.approx(31.123456)
    assert (run["user_id"], run["session_id"], run["service_id"], run["metadata"]) == (None, None, None, {})


def test_the_audit_says_that_somebody_was_forgotten_and_not_who(db: Connection) -> None:
    """If this failed, nobody could prove that the request was met; or the proof itself would name the person."""
    db.execute("insert into organization_members values ('acme', %s, 'admin')", [ALICE])
    db.execute("update organization_members set user_id = %s where user_id = %s", [BOB, ALICE])
    db.execute("update organization_members set user_id = %s where user_id = %s", [ALICE, BOB])
    set_budget(db, entity_id=ALICE, organization_id="acme", daily_limit=1)
    with db.transaction():
        db.execute("select set_config('request.jwt.claims', %s, true)", [json.dumps({"sub": ALICE})])
        set_budget(db, entity_type="service", entity_id=ALICE, organization_id="other", daily_limit=1)
        db.execute("select set_config('request.jwt.claims', '', true)")
    record(db, a_cost(1, 1, **person()))
    forget(db)
    entries = db.execute("select * from admin_audit order by id").fetchall()
    named = [entry for entry in entries if ALICE in json.dumps(entry, default=str)]
    assert [(entry["key"]["entity_type"], entry["actor"]) for entry in named] == [("service", DIGEST)], (
        "a service of that name is no person"
    )
    assert [entry["changes"].get("user_id") for entry in entries[:3]] == [None, [DIGEST, BOB], [BOB, DIGEST]]
    done = entries[-1]
    assert (done["operation"], done["key"], done["organization_id"]) == ("forget_user", {"user": DIGEST}, None)
    assert {name: done["changes"][name] for name in ("rows", "calls", "merged", "memberships")} == {
        "rows": 1,
        "calls": 1,
        "merged": 1,
        "memberships": 1,
    }
    with pytest.raises(psycopg.errors.InsufficientPrivilege), db.transaction():
        db.execute("delete from admin_audit")


def test_units_and_facts_of_forgotten_calls_can_still_be_priced(db: Connection) -> None:
    """If this failed, forgetting somebody would lose searches that were billed, or price them by another tier."""
    fast: Row = {"model": "m", "sent_model": "m-alias", "metadata": {"speed": "fast", "thread_id": "alice-thread"}}
    reported: Row = {"reported_cost": "0.5"}
    passes = {"web_searches": 1, "passes": [{"input_tokens": 5}]}
    many = {f"unit_{number}": 1 for number in range(100)}
    record(
        db,
        an_unpriced_call(1, **person(**fast, billed_units={"web_searches": 4, "audio_seconds": 0.5})),
        an_unpriced_call(2, **person(**fast, billed_units={"audio_seconds": 0.25, "web_searches": 3})),
        an_unpriced_call(3, **person(**fast, billed_units={"web_searches": 1})),
        an_unpriced_call(4, **person(**fast, **reported, billed_units={"web_searches": 1})),
        an_unpriced_call(5, **person(**fast, **reported, billed_units={"web_searches": 1})),
        an_unpriced_call(6, **person(**fast, billed_units=passes)),
        an_unpriced_call(7, **person(**fast, billed_units=passes)),
        an_unpriced_call(8, **person(**fast, billed_units=many)),
        an_unpriced_call(9, **person(**fast, billed_units=many)),
        an_unpriced_call(10, **person(**{**fast, "metadata": {"speed": "slow"}}, billed_units={"web_searches": 1})),
        an_unpriced_call(11, **person(**fast)),
    )
    before, summed = bill(db), sums(db)
    forget(db)
    assert (bill(db), sums(db)) == (before, summed)
    found = db.execute("select calls, billed_units, reported_cost::text, sent_model, metadata from token_usage_logs")
    kept = [(row["calls"], row["billed_units"], row["reported_cost"], row["metadata"]["speed"]) for row in found]
    expected = [
        (2, {"web_searches": 7, "audio_seconds": 0.75}, None, "fast"),
        (1, {"web_searches": 1}, None, "fast"),
        (2, {"web_searches": 2}, "1.0", "fast"),
        (1, passes, None, "fast"),
        (1, passes, None, "fast"),
        (1, many, None, "fast"),
        (1, many, None, "fast"),
        (1, {"web_searches": 1}, None, "slow"),
        (1, None, None, "fast"),
    ]

    def as_text(row: object) -> str:
        return json.dumps(row, sort_keys=True)

    assert sorted(as_text(one) for one in kept) == sorted(as_text(one) for one in expected)


def test_forgetting_again_changes_nothing_and_late_calls_can_be_forgotten_too(db: Connection) -> None:
    """If this failed, a request that is repeated would be counted twice, or calls from a spool would stay for ever."""
    record(db, a_cost(1, 1, **person()))
    forget(db)
    before = db.execute("select * from token_usage_logs order by id").fetchall()
    entries = len(db.execute("select from admin_audit").fetchall())
    assert forget(db)["total"]["rows"] == 0
    assert forget(db, "nobody-knows-him")["total"]["rows"] == 0
    assert db.execute("select * from token_usage_logs order by id").fetchall() == before
    assert len(db.execute("select from admin_audit").fetchall()) == entries
    assert db.execute("select from vital_private.forgettings").fetchall() == []
    record(db, a_cost(2, 2, **person()))
    assert forget(db)["total"]["rows"] == 1
    assert by_user(db) == {None: Decimal(2)}


def test_a_user_can_be_forgotten_in_one_organization_only(db: Connection) -> None:
    """If this failed, one customer's request would erase what the person is to another."""
    everyone = set_budget(db, daily_limit=100)["id"]
    for organization in ("acme", "other"):
        set_budget(db, organization_id=organization, daily_limit=100)
        set_budget(db, organization_id=organization, entity_id=ALICE, daily_limit=100, action="alert")
        db.execute("insert into organization_members values (%s, %s, 'member')", [organization, ALICE])
    record(
        db,
        a_cost(1, 1, **person()),
        a_cost(2, 2, **person(organization_id="other")),
        a_cost(3, 4, **person(organization_id=None)),
    )
    assert forget(db, organization="acme")["total"]["rows"] == 1
    assert [row["user_id"] for row in db.execute("select user_id from token_usage_logs order by total_cost")] == [
        None,
        ALICE,
        ALICE,
    ]
    assert [row["spent"] for row in windows(db, entity_id=ALICE, budget_id=everyone)] == [Decimal(6)]
    assert [row["organization_id"] for row in db.execute("select organization_id from organization_members")] == [
        "other"
    ]
    left = {
        row["organization_id"]
        for row in db.execute("select organization_id from budget_limits where entity_id = %s", [ALICE])
    }
    assert left == {"other"}
    assert audit(db) == []
    entry = db.execute("select * from admin_audit order by id desc limit 1").fetchone()
    assert entry is not None
    assert (entry["organization_id"], entry["operation"]) == ("acme", "forget_user")
    forget(db)
    assert everywhere(db, ALICE) == set()
    assert audit(db) == []


def test_a_forgotten_name_is_gone_from_days_without_rows_too(db: Connection) -> None:
    """If this failed, the sums of seven years would remember everybody for seven years."""
    record(
        db,
        a_cost(1, 1, **person(created_at="2020-01-01T10:00:00Z")),
        a_cost(2, 2, **person(created_at="2020-01-01T11:00:00Z", user=None)),
    )
    record(db, a_cost(3, 4, **person(created_at="2020-01-02T10:00:00Z", latency_ms=100)))
    call(db, "apply_retention", dry_run=False)
    assert db.execute("select from token_usage_logs").fetchall() == []
    record(db, a_cost(4, 8, **person()))
    summed = sums(db)
    total = forget(db)["total"]
    assert (total["rows"], total["sums"]) == (1, 2)
    assert sums(db) == summed
    assert by_user(db) == {None: Decimal(4)}
    assert everywhere(db, ALICE) == set()
    timed = db.execute(
        "select day::text, timed_calls, latency_us from usage_aggregations_daily_users where timed_calls > 0"
    ).fetchall()
    assert timed == [{"day": "2020-01-02", "timed_calls": 1, "latency_us": Decimal(100_000)}]


def test_every_batch_of_forgetting_leaves_the_sums_right(db: Connection) -> None:
    """If this failed, forgetting somebody with a million calls would hold up everybody, or stop half-way with wrong sums."""
    dice = random.Random(7)
    set_budget(db, daily_limit=1000)
    set_budget(db, entity_type="session", daily_limit=1000)
    set_budget(db, entity_type="organization", minute_limit=1000, daily_limit=1000)
    calls = [
        a_cost(
            number,
            Decimal(dice.randrange(10**6)) / 10**6,
            agent_id=f"a-{dice.randrange(3)}",
            status=dice.choice(["ok", "error"]),
            **person(
                session=f"s-{dice.randrange(4)}",
                user=dice.choice([ALICE, BOB]),
                created_at=f"2033-05-10T12:{dice.randrange(10):02}:{dice.randrange(60):02}Z",
            ),
        )
        for number in range(1, 121)
    ]
    record(db, *calls)
    before, summed = bill(db), sums(db)
    organization = windows(db, entity_type="organization")
    steps = 0
    while not call(db, "forget_user", user_id=ALICE, max_rows=7)["done"]:
        steps += 1
        assert (bill(db), sums(db), audit(db)) == (before, summed, [])
        assert windows(db, entity_type="organization") == organization
    assert steps >= 6
    assert (bill(db), sums(db), audit(db)) == (before, summed, [])
    assert everywhere(db, ALICE) == set()
    entry = db.execute("select changes from admin_audit where operation = 'forget_user'").fetchall()
    assert [row["changes"]["rows"] for row in entry] == [sum(row["user_id"] == ALICE for row in calls)]


def test_forgetting_while_calls_come_in_loses_none(own_db: Connection, database_url: str) -> None:
    """If this failed, forgetting would deadlock with those who record, or lose what they record."""
    set_budget(own_db, daily_limit=100000)
    set_budget(own_db, entity_type="organization", daily_limit=100000)
    record(own_db, *[a_cost(number, 1, **person(agent_id=f"a-{number % 5}")) for number in range(1, 201)])

    def write(start: int) -> int:
        with connect(database_url) as writer:
            return sum(
                record(
                    writer,
                    *[
                        a_cost(start + n * 10 + k, 1, **person(agent_id=f"a-{k % 5}", user=[ALICE, BOB][k % 2]))
                        for k in range(10)
                    ],
                )["inserted"]
                for n in range(20)
            )

    with ThreadPoolExecutor(2) as pool, connect(database_url) as eraser:
        writing = [pool.submit(write, start) for start in (1000, 2000)]
        forget(eraser, max_rows=20)
        assert [done.result(60) for done in writing] == [200, 200]
    forget(own_db)
    assert audit(own_db) == []
    assert everywhere(own_db, ALICE) == set()
    totals = own_db.execute("select sum(calls) as calls, sum(total_cost) as cost from token_usage_logs").fetchone()
    assert totals == {"calls": 600, "cost": Decimal(600)}
    hourly = own_db.execute(
        "select sum(calls) as calls, sum(total_cost) as cost from usage_aggregations_hourly_totals"
    ).fetchone()
    assert hourly == {"calls": Decimal(600), "cost": Decimal(600)}


def test_names_that_look_like_wildcards_forget_nobody_else(db: Connection) -> None:
    """If this failed, a user called * would take everybody's budget along; or an empty name would forget everyone."""
    for name in ("", None):
        with pytest.raises(psycopg.DataError, match="user_id is empty"), db.transaction():
            call(db, "forget_user", user_id=name)
    everyone = set_budget(db, daily_limit=100)["id"]
    record(db, a_cost(1, 1, **person(user="*")), a_cost(2, 1, **person(user=BOB)), a_call(3, **person(user=None)))
    forget(db, "*")
    assert [row["id"] for row in db.execute("select id from budget_limits")] == [everyone]
    assert {row["entity_id"] for row in windows(db)} == {BOB}
    quoted = "O'Brien \\ \" %s"
    record(db, a_cost(4, 1, **person(user=quoted)))
    db.execute("insert into organization_members values ('acme', %s, 'member')", [quoted])
    forget(db, quoted)
    assert by_user(db) == {None: Decimal(3), BOB: Decimal(1)}
    assert everywhere(db, "Brien") == set()


def test_only_the_service_role_can_forget_a_user(anywhere: Connection) -> None:
    """If this failed, an admin of one organization could erase people of another."""
    with anywhere.transaction(force_rollback=True):
        record(anywhere, a_cost(1, 1, **person()))
        anywhere.execute("set local role service_role")
        assert forget(anywhere)["total"]["rows"] == 1
        anywhere.execute("reset role")
        anywhere.execute("insert into organization_members values ('acme', %s, 'admin')", [ADMIN])
        anywhere.execute("select set_config('request.jwt.claims', %s, true)", [json.dumps({"sub": ADMIN})])
        anywhere.execute("set local role authenticated")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            forget(anywhere)


def test_of_a_person_of_one_organization_nothing_is_left_in_the_budgets_of_all(db: Connection) -> None:
    """If this failed, the name would stay where the default budget of every user had counted it."""
    set_budget(db, daily_limit=2, alert_thresholds=[0.5, 1])
    set_budget(db, entity_type="session", entity_id="alice-session", daily_limit=100)
    record(db, a_cost(1, 3, **person()))
    assert {"public.budget_windows", "public.cost_alerts", "budget_windows", "cost_alerts"} & everywhere(db, ALICE)
    forget(db, organization="acme")
    assert everywhere(db, ALICE) == set()
    assert everywhere(db, "alice-session") == set(), "the audit names a session"
    assert audit(db) == []


def test_absurd_numbers_do_not_make_a_person_unforgettable(db: Connection) -> None:
    """If this failed, one row of garbage would keep a person's calls for ever."""
    huge = {"prompt_tokens": 4 * 10**18, "completion_tokens": 0, "total_tokens": 4 * 10**18}
    record(db, *(a_cost(number, 1, **person(), **huge) for number in range(1, 4)))
    record(db, *(a_cost(number, 1, **person(), calls=2 * 10**9) for number in range(4, 6)))
    before = sums(db)
    assert forget(db)["total"]["rows"] == 5
    assert everywhere(db, ALICE) == set()
    assert sums(db) == before


@pytest.mark.parametrize("who", [ADMIN, CAROL, ALICE, STRANGER, None])
def test_an_admin_forgets_in_the_own_organization_and_nobody_else_does(db: Connection, who: str | None) -> None:
    """If this failed, an admin could not meet the request of a person, or anybody could wipe out what others did."""
    for organization, user, role in (("acme", ADMIN, "admin"), ("acme", ALICE, "member"), ("other", CAROL, "admin")):
        db.execute("insert into organization_members values (%s, %s, %s)", [organization, user, role])
    calls = [
        a_call(n, user_id=ALICE, organization_id=place) for n, place in enumerate(("acme", "acme", "other", None), 1)
    ]
    assert record(db, *calls)["inserted"] == 4
    lines = (
        "select actor, operation, organization_id, key from admin_audit where operation in ('refused', 'forget_user')"
    )
    db.execute("select set_config('request.jwt.claims', %s, true)", [json.dumps({"sub": who})])
    db.execute("set local role authenticated")
    answers = [call(db, "forget_user_v1", user_id=ALICE, organization_id=place) for place in ("other", None, "acme")]
    last = call(db, "forget_user_v1", user_id=who or "nobody", organization_id="acme")
    db.execute("reset role")
    of_acme, of_other = who == ADMIN, who == CAROL
    assert [answer.get("refused") for answer in answers] == [
        None if of_other else "not_an_admin", "not_an_admin", None if of_acme else "not_an_admin",
    ]  # fmt: skip
    assert last == {"refused": "is_the_last_admin" if of_acme else "not_an_admin"}
    left = db.execute("select organization_id from token_usage_logs where user_id = %s", [ALICE]).fetchall()
    gone = {"acme"} if of_acme else {"other"} if of_other else set()
    assert {row["organization_id"] for row in left} == {"acme", "other", None} - gone
    found = [(row["actor"], row["operation"], row["organization_id"]) for row in db.execute(lines).fetchall()]
    refused = [(who, "refused", place) for place in ("other", None, "acme", "acme")]
    refused = [line for line in refused if line[2] not in gone] + [(who, "refused", "acme")] * of_acme
    refused += [(who, "forget_user", place) for place in gone]
    assert sorted(found, key=str) == sorted(refused, key=str)
