"""Whatever happens in whatever order, both sides are equal in the end: late commits, prices, forgetting, retention, kills."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from tests.clickhouse.both import in_clickhouse, in_postgres
from tests.sql.helpers import a_call, a_run, an_end, an_unpriced_call, call, connect, record, record_runs
from tests.sql.platform_rows import a_cost, an_event, an_execution, send
from tests.support.postgres import PostgresServer
from vital_tracking.clickhouse.client import ClickHouse, address_of
from vital_tracking.clickhouse.copying import Copying
from vital_tracking.clickhouse.schema import COPIED
from vital_tracking.stores.postgres import PostgresStore

USERS = ("u-1", "u-2", None)
STEPS = (
    "calls", "calls", "unpriced", "abandoned", "true_end", "late", "late", "commit", "reprice", "runs", "end_runs", "platform",
    "forget", "delete", "move", "old_month", "retention", "copy", "copy", "copy_killed_before", "copy_killed_after", "restart",
)  # fmt: skip


class Killed(Exception):
    """The process ended here."""


class Mortal(ClickHouse):
    """A ClickHouse whose client ends at an insert: before it is stored, or after it and before that is noted."""

    inserts_to_live = -1
    after = False

    def insert(self, table: str, columns: Any, data: bytes, *, token: str) -> None:
        self.inserts_to_live -= 1
        if self.inserts_to_live == 0 and not self.after:
            raise Killed
        super().insert(table, columns, data, token=token)
        if self.inserts_to_live == 0:
            raise Killed


class World:
    """Both sides, and what has been done."""

    def __init__(self, url: str, copy_url: str) -> None:
        self.db = connect(url)
        self.late_db = connect(url)
        self.store = PostgresStore(url)
        self.server = Mortal(address_of(copy_url))
        self.numbers = itertools.count(1)
        self.late: Any = None
        self.abandoned: list[int] = []
        self.runs: list[str] = []
        self.now = datetime.now(UTC).replace(microsecond=0)
        self.restart(0)

    def close(self) -> None:
        self.commit(0)
        for connection in (self.db, self.late_db):
            connection.close()
        self.store.close()
        self.server.close()

    def row(self, choice: int, **changes: Any) -> dict[str, Any]:
        at = self.now - timedelta(days=choice % 3, seconds=choice)
        return {
            "user_id": USERS[choice % 3],
            "organization_id": ("a", "b", None)[choice % 2],
            "created_at": at.isoformat(),
            **changes,
        }

    def calls(self, choice: int) -> None:
        record(
            self.db,
            *(a_call(next(self.numbers), **self.row(choice + n, organization_id="a")) for n in range(choice + 2)),
        )

    def unpriced(self, choice: int) -> None:
        record(self.db, an_unpriced_call(next(self.numbers), **self.row(choice)))

    def abandoned_(self, choice: int) -> None:
        number = next(self.numbers)
        self.abandoned.append(number)
        nothing = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
        record(self.db, a_call(number, **self.row(1, user_id=None), status="abandoned", **nothing))

    def true_end(self, choice: int) -> None:
        self.commit(0)
        if self.abandoned:
            number = self.abandoned.pop()
            moved = {"organization_id": "c"} if choice % 2 else {}
            record(self.db, a_call(number, **{**self.row(1, user_id=None), **moved}, replaces_abandoned=True))

    def late_(self, choice: int) -> None:
        """A transaction that is over later than others that began after it. (Its sums are of an organization of its own.)"""
        if self.late is None:
            self.late = self.late_db.transaction()
            self.late.__enter__()
        record(self.late_db, a_call(next(self.numbers), **self.row(choice, organization_id="late")))
        if choice % 2:  # others are over before it, and copied
            self.calls(choice)
            self.copy(0)

    def commit(self, choice: int) -> None:
        if self.late is not None:
            self.late.__exit__(None, None, None)
            self.late = None

    def reprice(self, choice: int) -> None:
        self.commit(0)
        waiting = call(self.db, "unpriced_calls_v1", after_created_at=None, after_id=None, batch_size=10)
        price = {"input_cost": "0.000000000001", "output_cost": "0", "fees": "0", "total_cost": "0.000000000001"}
        prices = [
            {"id": row["id"], "created_at": row["created_at"], "potential_cost": "1", "price_version": "p", **price}
            for row in waiting
        ]
        call(self.db, "reprice_calls_v1", prices=json.dumps(prices, default=str))

    def runs_(self, choice: int) -> None:
        name = f"run-{next(self.numbers)}"
        self.runs.append(name)
        record_runs(self.db, a_run(name, user_id=USERS[choice % 3], started_at=self.now.isoformat()))

    def end_runs(self, choice: int) -> None:
        while self.runs:
            ended = (self.now + timedelta(seconds=5)).isoformat()
            record_runs(self.db, an_end(self.runs.pop(), started_at=self.now.isoformat(), ended_at=ended))

    def platform(self, choice: int) -> None:
        number, at = next(self.numbers), self.now.isoformat()
        send(self.db, "platform_events", an_event(number, user_id=USERS[choice % 3], occurred_at=at))
        send(self.db, "tenant_cost_events", a_cost(number, user_id=USERS[choice % 3], occurred_at=at))
        send(self.db, "agent_executions", an_execution(number, user_id=USERS[choice % 3], started_at=at))

    def forget(self, choice: int) -> None:
        self.commit(0)
        while not call(self.db, "forget_user", user_id=USERS[choice % 2])["done"]:
            pass

    def delete(self, choice: int) -> None:
        self.commit(0)
        self.db.execute(
            "delete from token_usage_logs where id = (select id from token_usage_logs order by id desc limit 1)"
        )

    def move(self, choice: int) -> None:
        self.commit(0)
        self.db.execute(
            "update token_usage_logs set organization_id = 'moved'"
            " where id = (select id from token_usage_logs order by id limit 1)"
        )

    def old_month(self, choice: int) -> None:
        at = self.now - timedelta(days=150 + choice)
        record(self.db, a_call(next(self.numbers), **self.row(choice, created_at=at.isoformat())))

    def retention(self, choice: int) -> None:
        self.commit(0)
        self.db.execute("select apply_retention(false)")

    def copy(self, choice: int) -> None:
        self.copying.bring_up_to_date()

    def copy_killed_before(self, choice: int) -> None:
        self.calls(11)
        self.server.inserts_to_live, self.server.after = choice % 5 + 1, False
        self.killed()

    def copy_killed_after(self, choice: int) -> None:
        self.server.inserts_to_live, self.server.after = choice % 5 + 1, True
        self.killed()

    def killed(self) -> None:
        try:
            self.copying.bring_up_to_date()
        except Killed:
            self.restart(0)
        self.server.inserts_to_live = -1

    def restart(self, choice: int) -> None:
        # Chunks of a few rows, so that there is something between two of them.
        self.copying = Copying(self.store, self.server, chunk_bytes=1500)

    def check(self) -> None:
        self.commit(0)
        self.copying.bring_up_to_date()
        for relation in COPIED:
            ours, theirs = in_postgres(self.db, relation), in_clickhouse(self.server, relation)
            dropped = {
                key for key in theirs.keys() - ours.keys() if theirs[key][relation.time] < self.now - timedelta(days=90)
            }
            assert ours.keys() == theirs.keys() - dropped, relation.name
            assert {key: theirs[key] for key in ours} == ours, relation.name


@pytest.fixture(scope="module")
def world(postgres_server: PostgresServer, template_database: str, engine_folder: Path) -> Iterator[World]:
    """A world that goes on from one example to the next: what was before is history like any other."""
    postgres_server.create_database("any_sequence", template=template_database)
    made = World(postgres_server.url("any_sequence"), f"chdb://{engine_folder}?database=any_sequence")
    yield made
    made.close()


@hypothesis.settings(
    max_examples=12, suppress_health_check=list(hypothesis.HealthCheck), phases=[hypothesis.Phase.generate]
)
@hypothesis.given(steps=st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 11)), max_size=14))
def test_both_are_equal_after_any_sequence(world: World, steps: list[tuple[str, int]]) -> None:
    for name, choice in steps:
        step = getattr(world, f"{name}_", None) or getattr(world, name)
        step(choice)
    world.check()
