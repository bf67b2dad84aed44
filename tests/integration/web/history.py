"""Three weeks of calls of two organizations and of people without one, in which every kind of call is met."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from fastapi.testclient import TestClient

from tests.sql.helpers import (
    ADMIN,
    ALICE,
    BOB,
    CAROL,
    STRANGER,
    Connection,
    a_call,
    an_end,
    an_unpriced_call,
    record,
    record_runs,
)

CALLS = 240
ORGANIZATIONS = ("acme", "other", None)


def make_history(connection: Connection, seed: int = 11) -> None:
    """Members, calls and runs, up to this moment."""
    for member in (
        ("acme", ADMIN, "admin"),
        ("acme", ALICE, "member"),
        ("acme", BOB, "member"),
        ("other", CAROL, "admin"),
    ):
        connection.execute("insert into organization_members values (%s, %s, %s)", member)
    calls = list(_calls(random.Random(seed), datetime.now(UTC)))
    runs: dict[str, dict[str, Any]] = {}
    for call in calls:
        run = {name: call[name] for name in ("organization_id", "user_id", "service_type", "workflow_id", "panel_id")}
        runs.setdefault(
            call["service_run_id"], {**run, "started_at": call["created_at"], "ended_at": call["created_at"]}
        )
    assert record_runs(connection, *(an_end(run, **told) for run, told in runs.items()))["rejected"] == []
    assert record(connection, *calls)["inserted"] == len(calls)


def _calls(chance: random.Random, now: datetime) -> Iterator[dict[str, Any]]:
    for number in range(1, CALLS + 1):
        run = number // 4
        of_run = random.Random(run)
        organization = of_run.choice(["acme", "acme", "other", None])
        user = of_run.choice([ALICE, BOB, ADMIN] if organization == "acme" else [CAROL, "user with a / & <b>", None])
        service = of_run.choice(["workflow", "virtual_panel", "1:1_conversation", "solution_builder"])
        priced = chance.random() < 0.9
        failed = chance.random() < 0.1
        tokens, answer = chance.randint(1, 9000), chance.randint(0, 900)
        cost = f"{Decimal(tokens * 3 + answer * 12) / 10**7:f}"
        money = {"input_cost": cost, "output_cost": "0", "total_cost": cost, "potential_cost": cost} if priced else {}
        yield (a_call if priced else an_unpriced_call)(
            number,
            created_at=(now - timedelta(days=21) * (run / (CALLS // 4)) - timedelta(seconds=number)).isoformat(),
            organization_id=organization,
            user_id=user,
            session_id=f"s-{run % 9}",
            service_type=service,
            service_run_id=f"run {run}/x",
            agent_id=(agent := chance.choice(["cardio", "legal", "=cmd()", None])),
            agent_name={"legal": "Legal counsel"}.get(agent or ""),
            workflow_id="intake" if service == "workflow" else None,
            workflow_step=chance.choice(["triage", "close"]) if service == "workflow" else None,
            panel_id="board" if service == "virtual_panel" else None,
            panel_position=chance.choice([1, 2]) if service == "virtual_panel" else None,
            framework=chance.choice(["langchain", "langgraph"]),
            provider=(provider := chance.choice(["openai", "anthropic"])),
            model=chance.choice(["gpt-4o", "gpt-4.1"]) if provider == "openai" else "claude-haiku-4-5",
            call_type=chance.choice(["chat", "chat", "embedding"]),
            prompt_tokens=tokens,
            completion_tokens=answer,
            total_tokens=tokens + answer,
            latency_ms=chance.randint(1, 20_000),
            status="error" if failed else "ok",
            error_type=chance.choice(["RateLimitError", "APITimeoutError"]) if failed else None,
            usage_estimated=chance.random() < 0.05,
            **money,
        )


Row = dict[str, Any]


@dataclass(frozen=True)
class Reader:
    """Somebody who looks at the pages: nobody's `subject` is the operator's."""

    subject: str | None
    administers: frozenset[str] = frozenset()

    def sees(self, row: Row) -> bool:
        """Whether a call or a run is shown to them."""
        mine = self.subject is None or row["user_id"] == self.subject
        return mine or row["organization_id"] in self.administers


READERS = {
    "operator": Reader(None),
    "organization admin": Reader(ADMIN, frozenset({"acme"})),
    "admin of another": Reader(CAROL, frozenset({"other"})),
    "user": Reader(ALICE),
    "stranger": Reader(STRANGER),
}

Open = Callable[[str], TestClient]
"""The browser of a reader by his name."""


def total(rows: Iterable[Row]) -> Decimal:
    """What calls cost; those without a price count nothing."""
    return sum((row["total_cost"] or Decimal(0) for row in rows), Decimal(0))
