"""Exploring is answered from the copy and PostgreSQL together as PostgreSQL alone would answer, whoever asks."""

from __future__ import annotations

import json
import random
import re
from datetime import datetime, timedelta
from importlib.resources import files
from typing import Any

import pytest

from tests.sql.helpers import ADMIN, ALICE, Row, a_call, connect, record
from tests.sql.usage_questions import READERS, SINCE, UNTIL, a_question, assert_answered, calls_at_random
from vital_tracking.clickhouse.client import ClickHouse, address_of
from vital_tracking.clickhouse.copying import Copying
from vital_tracking.clickhouse.reading import CopiedStore, Copy
from vital_tracking.clickhouse.schema import copy_id, migrate
from vital_tracking.stores import Store
from vital_tracking.stores.postgres import PostgresStore

MEASURES = [
    "calls", "cached_calls", "failed_calls", "blocked_calls", "unpriced_calls", "estimated_calls", "timed_calls",
    "timed_out_calls",
    "prompt_tokens", "completion_tokens", "total_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens",
    "audio_tokens", "input_cost", "output_cost", "fees", "total_cost", "potential_cost", "reported_calls", "reported_cost",
    "reported_total_cost", "average_cost", "average_latency_ms", "p50_latency_ms", "p95_latency_ms", "p99_latency_ms",
    "success_rate",
]  # fmt: skip


@pytest.fixture
def history(store: PostgresStore, database_url: str, clickhouse: ClickHouse) -> list[Row]:
    """Three hundred calls of two weeks, of which a copy holds those that were there before the last fifty and before a change."""
    calls = sorted(calls_at_random(random.Random(7), 300), key=lambda one: str(one["created_at"]))
    with connect(database_url) as db:
        db.execute(
            "insert into organization_members values ('acme', %s, 'admin'), ('acme', %s, 'member')", [ADMIN, ALICE]
        )
        record(db, *calls[:250])
        Copying(store, clickhouse).bring_up_to_date()
        record(db, *calls[250:])
        db.execute("update token_usage_logs set total_tokens = total_tokens where id = %s", [calls[240]["id"]])
        return db.execute("select * from token_usage_logs").fetchall()


def asked_as(store: Store, claims: dict[str, str] | None) -> Store:
    """The store as somebody sees it."""
    return store if claims is None else store.as_user(claims, timeout_s=60)


def ask(store: Store, **asked: Any) -> Row:
    """What exploring answers."""
    asked = {"since": SINCE, "until": UNTIL, **asked}
    return dict(store.call("usage_explore_v1", **{**asked, "filters": json.dumps(asked.get("filters", {}))}))


def assert_same(alone: Row, joined: Row, question: object) -> None:
    """Both answers are the same, but for when they were made and from what."""
    assert {**alone, "fresh_at": 0, "copied_until": 0} == {**joined, "fresh_at": 0, "copied_until": 0}, question


@pytest.mark.parametrize("reader", READERS)
def test_every_answer_is_what_the_calls_add_up_to(
    store: PostgresStore, clickhouse: ClickHouse, history: list[Row], reader: str, caplog: pytest.LogCaptureFixture
) -> None:
    chance = random.Random(reader)
    claims, may_see = READERS[reader]
    alone, joined = asked_as(store, claims), asked_as(CopiedStore(store, Copy(clickhouse, least=0)), claims)
    from_copy = 0
    for _ in range(25):
        question = a_question(chance, history)
        answer = ask(joined, **question)
        from_copy += answer["copied_until"] is not None
        assert_answered(answer, question, [row for row in history if may_see(row)])
        more = {
            **question, "measures": [*question["measures"][5:], *chance.sample(MEASURES, 9)],
            **chance.choice([{}, {"order_by": "p95_latency_ms"}, {"max_rows": 3}, {"top": 2}, {"ascending": True}]),
        }  # fmt: skip
        assert_same(ask(alone, **more), ask(joined, **more), more)
    assert from_copy > 5
    assert not caplog.records


def test_reports_tell_the_course_of_each_row(store: PostgresStore, clickhouse: ClickHouse, history: list[Row]) -> None:
    joined = CopiedStore(store, Copy(clickhouse, least=0))
    for claims, _ in READERS.values():
        for zone, grain in (
            ("UTC", "hour"),
            ("Asia/Kolkata", "day"),
            ("Europe/Berlin", "week"),
            ("America/New_York", "month"),
        ):
            question = {
                "dimensions": ["user", "agent", "session"], "grain": grain, "timezone": zone, "ascending": True,
                "order_by": "calls", "filters": {"any": {"panel": "*", "step": "*"}},
            }  # fmt: skip
            answer = ask(asked_as(joined, claims), **question)
            assert answer["copied_until"] is not None
            assert_same(ask(asked_as(store, claims), **question), answer, question)


def test_the_copy_answers_until_the_first_call_that_it_does_not_hold_as_it_is(
    store: PostgresStore, database_url: str, clickhouse: ClickHouse, history: list[Row]
) -> None:
    """A deleted, repriced or late call would be counted as it was, or twice."""
    joined, asked = CopiedStore(store, Copy(clickhouse, least=0)), {"dimensions": ["session", "model"]}
    by_time = sorted(history, key=lambda row: row["created_at"])

    def answered() -> datetime:
        answer = ask(joined, **asked)
        assert_same(ask(store, **asked), answer, asked)
        return datetime.fromisoformat(answer["copied_until"])

    with connect(database_url) as db:
        assert answered() == by_time[240]["created_at"]
        db.execute("delete from token_usage_logs where id = %s", [by_time[100]["id"]])
        assert answered() == by_time[100]["created_at"]
        db.execute("update token_usage_logs set organization_id = 'moved' where id = %s", [by_time[90]["id"]])
        assert answered() == by_time[90]["created_at"]
        late = by_time[50]["created_at"] + timedelta(seconds=1)
        record(db, a_call(1000, created_at=late.isoformat()))
        assert answered() == late
        Copying(store, clickhouse).bring_up_to_date()
        assert answered() == UNTIL


def test_postgresql_answers_for_what_the_copy_cannot_tell_exactly(
    store: PostgresStore, database_url: str, clickhouse: ClickHouse
) -> None:
    """Amounts with more digits than a Decimal(38, 12), fractions in metadata, and the edges of buckets of latencies."""
    at = {"created_at": SINCE.isoformat()}
    with connect(database_url) as db:
        db.execute("set extra_float_digits = 3")
        edges = [float(1.1**power * nudge) for power in range(-80, 90, 7) for nudge in (1, 1 - 2**-52, 1 + 2**-52)]
        record(
            db,
            a_call(1, **at, metadata={"temperature": 0.7, "seed": 3, "flag": True, "list": [1, 2]}),
            a_call(
                2,
                **at,
                organization_id="odd",
                input_cost="0.1234567890123",
                output_cost="0",
                total_cost="0.1234567890123",
            ),
            *(a_call(10 + number, **at, latency_ms=edge) for number, edge in enumerate([0.00001, 1e12, *edges])),
        )
        Copying(store, clickhouse).bring_up_to_date()
    joined = CopiedStore(store, Copy(clickhouse, least=0))
    for dimensions, filters, from_copy in (
        (["session", "organization"], {}, False),
        (["session", "organization"], {"organization": None}, True),
        (["metadata.seed", "metadata.flag", "metadata.none"], {"organization": None}, True),
        (["metadata.temperature"], {"organization": None}, False),
        (["metadata.list"], {"organization": None}, False),
    ):
        question = {"dimensions": dimensions, "filters": filters, "measures": MEASURES}
        answer = ask(joined, **question)
        assert_same(ask(store, **question), answer, question)
        assert (answer["copied_until"] is not None) == from_copy, question


def test_what_the_copy_may_tell_follows_from_the_policies(database_url: str) -> None:
    """A policy that is added or changed has to be said to copies, too: vital_private.reader_of_calls."""
    with connect(database_url) as db:
        policies = db.execute(
            """
            select roles::text, qual from pg_policies
            where tablename = 'token_usage_logs' and cmd in ('SELECT', 'ALL') order by qual
            """
        ).fetchall()
        mine = [row["qual"] for row in policies if row["roles"] == "{authenticated}"]
        assert len(mine) == 2
        assert re.search(r"user_id = .*'sub'", mine[1])
        assert re.search(r"organization_id = ANY .*administered_organizations", mine[0])
        assert {row["roles"] for row in policies} == {"{authenticated}", "{service_role}", "{vital_auditor}"}


def test_the_same_errors_are_time_outs(database_url: str) -> None:
    sql = (files("vital_tracking") / "clickhouse" / "questions" / "explored_calls.sql").read_text()
    there = set(re.findall(r"'(\w+)'", sql[sql.index("error_type in (") : sql.index("m_timed_out_calls")]))
    with connect(database_url) as db:
        here = db.execute("select pg_get_functiondef('vital_private.is_time_out'::regproc) as body").fetchone()
        assert here is not None
        assert there == set(re.findall(r"\w+", re.findall(r"\{(.*?)\}", here["body"], re.DOTALL)[0]))


def test_a_copy_that_is_away_leaves_the_answer_to_postgresql(
    store: PostgresStore, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with connect(database_url) as db:
        record(db, a_call(1, created_at=SINCE.isoformat()))
    for url in ("http://127.0.0.1:1/vital_tracking",):
        joined = CopiedStore(store, Copy(ClickHouse(address_of(url)), least=0))
        for _ in range(2):
            assert ask(joined, dimensions=["session"])["total"]["calls"] == 1
        assert [record.levelname for record in caplog.records if record.name.endswith("reading")] == ["WARNING"]


def test_a_copy_of_which_postgresql_knows_nothing_is_not_asked(
    store: PostgresStore, database_url: str, clickhouse: ClickHouse
) -> None:
    """A copy that was made anew, and not filled yet, would have answered for the one before it."""
    with connect(database_url) as db:
        record(db, a_call(1, created_at=SINCE.isoformat()))
    Copying(store, clickhouse).bring_up_to_date()
    joined = CopiedStore(store, Copy(clickhouse, least=0))
    assert ask(joined, dimensions=["session"])["copied_until"] is not None
    clickhouse.command(f"drop database {clickhouse.address.database}", database=False)
    migrate(clickhouse)
    copy_id(clickhouse, store.call("database_id_v1"))
    for _ in range(2):
        answer = ask(joined, dimensions=["session"])
        assert (answer["copied_until"], answer["total"]["calls"]) == (None, 1)


def test_of_few_calls_the_database_tells_by_itself(
    store: PostgresStore, clickhouse: ClickHouse, history: list[Row]
) -> None:
    for least, asked in ((200, True), (400, False)):
        joined = CopiedStore(store, Copy(clickhouse, least=least))
        assert (ask(joined, dimensions=["session"])["copied_until"] is not None) == asked
        of_a_user = joined.as_user({"sub": ALICE}, timeout_s=60)
        assert ask(of_a_user, dimensions=["session"])["copied_until"] is None
