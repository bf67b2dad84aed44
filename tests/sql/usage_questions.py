"""Calls and questions about them at random, and what the answers must come to: for every store that answers."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from zoneinfo import ZoneInfo

from tests.sql.helpers import ADMIN, ALICE, STRANGER, Row, a_call, an_unpriced_call

SINCE: Final = datetime(2026, 3, 20, tzinfo=UTC)
UNTIL: Final = datetime(2026, 4, 3, tzinfo=UTC)  # clocks change in Berlin on the 29th of March

COLUMNS: Final = {
    "organization": "organization_id",
    "user": "user_id",
    "session": "session_id",
    "service": "service_type",
    "agent": "agent_id",
    "tier": "agent_tier",
    "role": "agent_role",
    "workflow": "workflow_id",
    "step": "workflow_step",
    "panel": "panel_id",
    "seat": "panel_position",
    "provider": "provider",
    "model": "model",
    "framework": "framework",
    "message_type": "message_type",
    "status": "status",
    "error": "error_type",
}


def times_of(zone: ZoneInfo) -> dict[str, Callable[[datetime], Any]]:
    """The times of a call by the clocks of a zone, by dimension."""
    return {
        "hour": lambda at: instant(at.astimezone(zone).replace(minute=0, second=0, microsecond=0).isoformat()),
        "day": lambda at: at.astimezone(zone).date().isoformat(),
        "week": lambda at: (at.astimezone(zone).date() - timedelta(days=at.astimezone(zone).weekday())).isoformat(),
        "month": lambda at: at.astimezone(zone).date().replace(day=1).isoformat(),
        "weekday": lambda at: at.astimezone(zone).isoweekday(),
        "hour_of_day": lambda at: at.astimezone(zone).hour,
    }


def calls_at_random(chance: random.Random, count: int) -> Iterator[Row]:
    """Calls of those two weeks."""
    for number in range(1, count + 1):
        at = SINCE + (UNTIL - SINCE) * chance.random()
        embedding = chance.random() < 0.1
        about: Row = {
            "created_at": at.isoformat(),
            "organization_id": chance.choice(["acme", "acme", "other", None]),
            "user_id": chance.choice([ALICE, ADMIN, "bob", None]),
            "session_id": chance.choice(["s-1", "s-2", None]),
            "service_type": chance.choice(["workflow", "virtual_panel", "1:1_conversation", None]),
            "agent_id": (agent := chance.choice(["cardio", "legal", None])),
            "agent_name": agent and f"{agent} of {at:%d}",
            "agent_tier": chance.choice(["tier_1", "tier_2"]),
            "agent_role": chance.choice(["expert", None]),
            "workflow_id": chance.choice(["intake", None]),
            "workflow_step": chance.choice(["triage", "close", None]),
            "panel_id": chance.choice(["board", None]),
            "panel_position": chance.choice([1, 2, None]),
            "provider": chance.choice(["openai", "anthropic"]),
            "model": chance.choice(["gpt-4o", "claude", "o'model"]),
            "framework": chance.choice(["langchain", "langgraph"]),
            "message_type": chance.choice(["question", "answer", None]),
            "call_type": "embedding" if embedding else "chat",
            "latency_ms": chance.choice([None, 10.0 * chance.randint(1, 200)]),
            "metadata": {"prompt_version": chance.choice(["1", "2"])} if chance.random() < 0.5 else {},
        }
        if chance.random() < 0.1:
            yield an_unpriced_call(number, **about)
        else:
            cost = Decimal(chance.randint(1, 10**9)).scaleb(-9)
            failed = chance.random() < 0.2
            yield a_call(
                number,
                **about,
                input_cost=str(cost),
                output_cost="0",
                total_cost=str(cost),
                potential_cost=str(cost * 2),
                status="error" if failed else "ok",
                error_type=chance.choice(["TimeoutError", "RateLimitError"]) if failed else None,
            )


READERS: Final[dict[str, tuple[dict[str, str] | None, Callable[[Row], bool]]]] = {
    "the service role": (None, lambda _: True),
    "an admin of acme": ({"sub": ADMIN}, lambda row: row["organization_id"] == "acme" or row["user_id"] == ADMIN),
    "a user": ({"sub": ALICE}, lambda row: row["user_id"] == ALICE),
    "a stranger": ({"sub": STRANGER}, lambda _: False),
}


def a_question(chance: random.Random, history: list[Row]) -> Row:
    """A question at random; half of them are such as sums can answer."""
    zone = chance.choice(["UTC", "UTC", "Europe/Berlin", "Asia/Kolkata", "America/New_York"])
    times = times_of(ZoneInfo(zone))
    from_sums = chance.random() < 0.5
    names = ["organization", "service", *times] if from_sums else [*COLUMNS, "kind", "metadata.prompt_version", *times]
    measures = ["calls", "failed_calls", "unpriced_calls", "total_cost", "total_tokens"]
    if chance.random() < (0.2 if from_sums else 0.5):
        measures.append("active_users")
    dimensions = list(dict.fromkeys(chance.choices(names, k=chance.randint(0, 3))))
    filters: dict[str, Any] = {}
    for name in chance.sample([name for name in names if name not in times], k=chance.choice([0, 0, 1, 2])):
        values = sorted({_value(row, name) for row in history}, key=str)
        picked = chance.sample(values, k=min(len(values), chance.randint(1, 2)))
        filters[name] = picked[0] if len(picked) == 1 and chance.random() < 0.5 else picked
        if chance.random() < 0.2:
            filters[name] = chance.choice(["*", ["*", None], ["*", *picked]])
    since = SINCE + chance.choice(
        [timedelta(0), timedelta(days=2), timedelta(hours=5), timedelta(minutes=0 if from_sums else 7)]
    )
    until = UNTIL - chance.choice([timedelta(0), timedelta(days=1), timedelta(hours=3)])
    return {
        "since": since, "until": until, "dimensions": dimensions, "filters": filters, "timezone": zone,
        "measures": measures,
    }  # fmt: skip


def assert_answered(answer: Row, question: Row, may_see: list[Row]) -> None:
    """An answer tells what the calls that one may see add up to."""
    times, dimensions, measures = times_of(ZoneInfo(question["timezone"])), question["dimensions"], question["measures"]
    seen = [
        row for row in may_see
        if question["since"] <= row["created_at"] < question["until"]
        and all(
            _fits(_value(row, name), value if isinstance(value, list) else [value])
            for name, value in question["filters"].items()
        )
    ]  # fmt: skip
    groups: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in seen:
        key = tuple(times[d](row["created_at"]) if d in times else _value(row, d) for d in dimensions)
        groups[key].append(row)
    assert _told(answer["total"], measures) == _sums(seen, measures)
    if dimensions or seen:
        told = {
            tuple(instant(shown[d]) if d == "hour" else shown[d] for d in dimensions): _told(shown, measures)
            for shown in answer["rows"]
        }
        assert told == {key: _sums(rows, measures) for key, rows in groups.items()}, (question, answer["source"])


def _value(row: Row, dimension: str) -> Any:
    if dimension == "kind":
        return "embeddings" if row["call_type"] == "embedding" else "llm"
    if dimension.startswith("metadata."):
        return row["metadata"].get(dimension.removeprefix("metadata."))
    return row[COLUMNS[dimension]]


def _sums(rows: list[Row], measures: list[str]) -> Row:
    sums = {
        "calls": len(rows),
        "failed_calls": sum(row["status"] != "ok" for row in rows),
        "unpriced_calls": sum(not row["priced"] for row in rows),
        "total_cost": sum((row["total_cost"] or Decimal(0) for row in rows), Decimal(0)),
        "total_tokens": sum(row["total_tokens"] for row in rows),
        "active_users": len({row["user_id"] for row in rows} - {None}),
    }
    return {name: sums[name] for name in measures}


def _told(shown: Row, measures: list[str]) -> Row:
    return {name: Decimal(shown[name]) if name == "total_cost" else shown[name] for name in measures}


def _fits(value: Any, wanted: list[Any]) -> bool:
    return value in wanted or ("*" in wanted and value is not None)


def instant(text: str) -> str:
    """An instant in one form."""
    return datetime.fromisoformat(text).astimezone(UTC).isoformat()
