"""The calls behind a recommendation are those that its saving rests on: as many, at the same cost, for each kind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.support.postgres import PostgresServer
from vital_tracking import Price, PriceBook
from vital_tracking.advice.change_json import change_from_json, where_from_json
from vital_tracking.advice.changes import Change, OffPeak
from vital_tracking.advice.evidence import calls_asked
from vital_tracking.advice.life import look_for_advice
from vital_tracking.advice.recommendation import Kind
from vital_tracking.advice.window import Window, read_window, so_far
from vital_tracking.core.usage import TokenUsage
from vital_tracking.queries.calls import every_call
from vital_tracking.queries.chosen import chosen_of
from vital_tracking.queries.explore import DIMENSIONS, Period
from vital_tracking.queries.filters import Filters
from vital_tracking.queries.model_tiers import set_model_tier
from vital_tracking.queries.plans import set_plan, subscribe
from vital_tracking.queries.recommendations import LastAdvice, SavedRecommendation
from vital_tracking.stores.postgres import PostgresStore

NOW = datetime(2026, 11, 16, 15, 30, tzinfo=UTC)
NOON, NIGHT = datetime(2026, 11, 5, 12, tzinfo=UTC), datetime(2026, 11, 5, 23, tzinfo=UTC)
BOOK = PriceBook(
    [Price("big", "10", "30"), Price("small", "1", "2"), Price("tiny", "0.1", "0.2"), Price("middle", "2", "3")]
)
PROVIDERS = {"claude-haiku-4-5": "anthropic", "claude-sonnet-4-5": "anthropic", "deepseek-chat": "deepseek"}


class Made:
    """The calls of the window, as rows to be recorded."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def add(
        self, calls: int, model: str, *, prompt: int = 1000, answer: int = 100, at: datetime = NOON, **columns: Any
    ) -> None:
        """So many calls alike, a minute apart, priced as they were made."""
        for _ in range(calls):
            number = len(self.rows) + 1
            begun = at + timedelta(minutes=number % 50, days=-(number % 7))
            audio = columns.get("audio_tokens", 0)
            usage = TokenUsage(prompt, answer, audio_input_tokens=audio)
            cost = BOOK.cost(usage, PROVIDERS.get(model), (model,), begun)
            row = {
                "id": f"01890000-0000-7000-8000-{number:012x}", "created_at": begun.isoformat(), "provider": PROVIDERS.get(model),
                "model": model, "prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer,
                "ttft_ms": 100, "latency_ms": 900, "priced": cost is not None, "request_hash": f"h-{number}",
                **({} if cost is None else {
                    "input_cost": str(cost.input), "output_cost": str(cost.output), "fees": str(cost.fees),
                    "total_cost": str(cost.total), "potential_cost": str(cost.potential), "price_version": cost.version,
                }),
            }  # fmt: skip
            given = {name: value(number) if callable(value) else value for name, value in columns.items()}
            if given.get("cache_hit") or given.get("status") == "blocked":
                row |= dict.fromkeys(("input_cost", "output_cost", "fees", "total_cost"), "0")
            self.rows.append({**row, **given})

    def beside(self, model: str, **columns: Any) -> None:
        """Calls of the same work that no saving rests on: each of another kind."""
        self.add(3, model, **{**columns, "cache_hit": True})
        self.add(2, model, **{**columns, "status": "blocked"})
        self.add(2, model, **{**columns, "billed_units": {"web_searches": 1}})
        self.add(2, model, **{**columns, "metadata": {"shadow_of": "x"}})
        self.add(1, "nobody knows", **columns)
        self.add(3, model, **{**columns, "status": "error", "error_type": "Timeout"})  # which was paid for


def world() -> list[dict[str, Any]]:
    made = Made()
    chat: dict[str, Any] = {"service_type": "1:1_conversation"}
    # One model for another; sound, and what is too long, stay.
    made.add(400, "big", agent_id="lawyer", **chat)
    made.add(5, "big", agent_id="lawyer", audio_tokens=10, **chat)
    made.beside("big", agent_id="lawyer", **chat)
    # Many small agents.
    made.add(200, "big", agent_id=lambda number: f"small-{number % 100}", **chat)
    # Short ones to a model one tier lower.
    made.add(300, "small", prompt=100, agent_id="clerk", **chat)
    made.add(300, "small", prompt=3000, agent_id="clerk", **chat)
    made.beside("small", prompt=100, agent_id="clerk", **chat)
    # Asked again, by the same agent and by another one.
    made.add(500, "small", prompt=400, agent_id="faq", request_hash=lambda number: f"faq-{number % 420}", **chat)
    made.add(100, "small", prompt=600, agent_id="faq", request_hash=lambda number: f"faq-{number % 420}", **chat)
    made.add(100, "small", agent_id="other", request_hash=lambda number: f"faq-{number % 420}", **chat)
    made.beside("small", prompt=400, agent_id="faq", **chat)
    # Prompts that begin alike, and some that do not.
    long: dict[str, Any] = {"prompt": 4000, "agent_id": "reader", "prompt_bytes": 16_384, **chat}
    made.add(300, "claude-sonnet-4-5", prefix_hashes=lambda number: ["a1", "a2", f"{number}"], **long)
    made.add(50, "claude-sonnet-4-5", prefix_hashes=lambda number: [f"{number}"], **long)
    made.beside("claude-sonnet-4-5", **long, prefix_hashes=["a1", "a2"])
    # A model that is hardly used.
    made.add(10, "middle", agent_id="clerk", **chat)
    made.beside("middle", agent_id="clerk", **chat)
    # Nights, batches among them, and days.
    nightly: dict[str, Any] = {"service_type": "workflow", "workflow_id": "nightly", "workflow_step": "read"}
    made.add(900, "claude-haiku-4-5", at=NIGHT, ttft_ms=None, **nightly)
    made.add(100, "claude-haiku-4-5", at=NOON, ttft_ms=None, **nightly)
    made.add(20, "claude-haiku-4-5", at=NIGHT, ttft_ms=None, metadata={"service_tier": "batch"}, **nightly)
    made.beside("claude-haiku-4-5", at=NIGHT, **{**nightly, "ttft_ms": None})
    # Prices by the hour: with and without somebody waiting, at the dear and at the cheap hours.
    for hour in (0, 2, 8, 12, 17, 20):
        at = NOON.replace(hour=hour)
        made.add(700, "deepseek-chat", at=at, agent_id="chatty", **chat)
        made.add(700, "deepseek-chat", at=at, call_type="embedding", ttft_ms=None, service_type="workflow")
    made.beside("deepseek-chat", agent_id="chatty", **chat)
    # After the window, which ends where it was looked at.
    made.add(9, "big", agent_id="lawyer", at=NOW + timedelta(days=7, hours=2), **chat)
    return made.rows


@pytest.fixture(scope="module")
def url(postgres_server: PostgresServer, template_database: str) -> Iterator[str]:
    postgres_server.create_database("evidence", template=template_database)
    address = postgres_server.url("evidence")
    with closing(PostgresStore(address)) as store:
        rows = world()
        for first in range(0, len(rows), 1000):
            answer = store.call("record_calls_v1", calls=json.dumps(rows[first : first + 1000]))
            assert not answer["rejected"], answer["rejected"][:3]
        for model, tier in (("big", 1), ("small", 1), ("tiny", 2), ("claude-sonnet-4-5", 1)):
            set_model_tier(store, model, tier)
    yield address
    postgres_server.drop_database("evidence")


@pytest.fixture(scope="module")
def store(url: str) -> Iterator[PostgresStore]:
    opened = PostgresStore(url)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def advice(store: PostgresStore) -> LastAdvice:
    return look_for_advice(store, BOOK, now=NOW)


@pytest.fixture(scope="module")
def window(store: PostgresStore) -> Window:
    return read_window(store, so_far(Period.last_days(30, now=NOW), NOW), prices=BOOK)


def behind(store: PostgresStore, one: SavedRecommendation) -> tuple[int, Decimal]:
    """How many calls its link shows, and what they cost."""
    asked = calls_asked(one)
    chosen = chosen_of(asked)
    only = dict(asked)
    since = datetime.combine(date.fromisoformat(only["since"]), datetime.min.time(), UTC)
    until = datetime.combine(date.fromisoformat(only["until"]) + timedelta(days=1), datetime.min.time(), UTC)
    where: dict[str, list[str | None]] = {name: [value or None] for name, value in asked if name in DIMENSIONS}
    filters = Filters(
        since=chosen.pop("begun_from", since), until=chosen.pop("begun_before", until), where=where, chosen=chosen
    )
    found = list(every_call(store, filters, at_once=5000))
    return sum(call["calls"] for call in found), sum((call["total_cost"] or Decimal(0) for call in found), Decimal(0))


OF_CALLS = (
    Kind.model_switch, Kind.smart_routing, Kind.caching, Kind.semantic_caching, Kind.model_consolidation, Kind.batch_processing,
    Kind.job_scheduling, Kind.peak_shifting,
)  # fmt: skip


@pytest.mark.parametrize("kind", OF_CALLS)
def test_the_link_shows_the_calls_that_the_saving_rests_on(
    advice: LastAdvice, window: Window, store: PostgresStore, kind: Kind
) -> None:
    """If it showed more, an admin would look at calls of which none is meant, and believe none of it."""
    found = [one for one in advice["recommendations"] if one["type"] == kind]
    assert found, [one for one in advice["not_applicable"] if one["type"] == kind]
    for one in found:
        calls, cost = behind(store, one)
        assert calls == one["calls"], (one["recommended"], one["evidence"])
        if kind is not Kind.semantic_caching:
            changes = [change_of(told) for told in one["changes"]]
            assert cost == sum((effect.cost for effect in window.what_if(*changes).effects), Decimal(0)), one[
                "evidence"
            ]
        else:
            assert abs(cost - one["saving"]["high"] * window.days / 30) < Decimal("1e-9")


def change_of(told: dict[str, Any]) -> Change:
    return change_from_json(told) or OffPeak(where=where_from_json(told["where"]))


# Plans and machines: by the clock of the database, since what is used of a plan is counted in its month


@pytest.fixture(scope="module")
def platform(postgres_server: PostgresServer, template_database: str) -> Iterator[PostgresStore]:
    """Subscribers of whom one uses too much, one too little, and one costs more than he pays; and machines that are idle."""
    postgres_server.create_database("evidence_of_plans", template=template_database)
    store = PostgresStore(postgres_server.url("evidence_of_plans"))
    now = datetime.now(UTC)
    month = (now - timedelta(days=20)).replace(hour=0, minute=0, second=0, microsecond=0)
    for user, plan in (("much", "trial"), ("little", "professional"), ("dear", "starter")):
        subscribe(
            store,
            {"entity_type": "user", "entity_id": user, "plan": plan, "since": (now - timedelta(days=60)).isoformat(),
             "reset_day": min(month.day, 28)},
        )  # fmt: skip
    for plan, price in (("trial", "0"), ("starter", "1"), ("professional", "49")):
        set_plan(store, {"name": plan, "price_usd": price})
    made = Made()
    for user, calls in (("much", 710), ("little", 40), ("dear", 60)):
        made.add(calls, "big", prompt=10_000, user_id=user, at=now - timedelta(days=2))
        made.add(20, "big", user_id=user, at=month - timedelta(days=12))  # of the month before
        made.add(4, "big", user_id=user, cache_hit=True, at=now - timedelta(days=2))
        made.add(3, "big", user_id=user, status="blocked", at=now - timedelta(days=2))
    made.add(30, "tiny", at=now.replace(minute=0) - timedelta(days=3), latency_ms=60_000)
    made.add(3, "tiny", at=now.replace(minute=0) - timedelta(days=3), cache_hit=True)
    for first in range(0, len(made.rows), 1000):
        answer = store.call("record_calls_v1", calls=json.dumps(made.rows[first : first + 1000]))
        assert not answer["rejected"], answer["rejected"][:3]
    hours = [
        {"id": f"01890000-0000-7000-9000-{hour:012x}", "occurred_at": (now - timedelta(hours=hour)).isoformat(),
         "cost_type": "compute", "service": "inference", "resource": "tiny", "quantity": "1", "unit": "hour", "unit_price": "2",
         "cost_usd": "2", "priced": True, "price_version": "as recorded"}
        for hour in range(1, 24 * 12)
    ]  # fmt: skip
    answer = store.call("record_costs_v1", costs=json.dumps(hours))
    assert not answer["rejected"], answer
    yield store
    store.close()
    postgres_server.drop_database("evidence_of_plans")


@pytest.fixture(scope="module")
def advice_of_platform(platform: PostgresStore) -> LastAdvice:
    return look_for_advice(platform, BOOK)


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind not in OF_CALLS])
def test_what_rests_on_plans_and_machines_shows_their_calls(
    advice_of_platform: LastAdvice, platform: PostgresStore, kind: Kind
) -> None:
    found = [one for one in advice_of_platform["recommendations"] if one["type"] == kind]
    assert found, [one for one in advice_of_platform["not_applicable"] if one["type"] == kind]
    for one in found:
        calls, cost = behind(platform, one)
        assert calls == one["calls"] > 0, (one["current"], one["evidence"])
        if kind is Kind.billing_model:
            # What it costs a month is what its calls of the window did, over as many days.
            days = Decimal((one["until"] - one["since"]) // timedelta(seconds=1)) / 86_400
            assert f"${cost * 30 / days:,.2f}" in one["current"]
