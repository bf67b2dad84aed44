"""Groups of calls, and what-if over them: exactly what the calls themselves come to, one by one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.effort import examples
from tests.support.supabase_lite import SupabaseLite
from vital_tracking import Price, PriceBook
from vital_tracking.advice.changes import ExactCache, Factors, Processing, PromptCaching, Scenario, SwitchModel, Where
from vital_tracking.advice.recommendation import NOTHING
from vital_tracking.advice.what_if import FIXED, UNPRICED, WhatIf
from vital_tracking.advice.window import Model, ask_what_if, cuts_for
from vital_tracking.core.record import CallRecord
from vital_tracking.core.request_size import Size, size_of
from vital_tracking.core.usage import TokenUsage
from vital_tracking.queries.call_groups import Cuts, read_call_groups, read_summed_calls
from vital_tracking.queries.explore import ANY, Period
from vital_tracking.stores import Store
from vital_tracking.stores.postgres import PostgresStore
from vital_tracking.stores.supabase import SupabaseStore

START = datetime(2026, 11, 2, tzinfo=UTC)
PERIOD = Period(START, START + timedelta(days=3))
EXACTLY = Factors(Decimal(1), Decimal(1), Decimal(1))

# One whose price depends on the size of the prompt, one whose price changes in the period, and plain ones.
MODELS = ("gemini-2.5-pro", "changing", "gpt-4o", "claude-haiku-4-5", "plain")
PROVIDERS = {"gemini-2.5-pro": "google", "gpt-4o": "openai", "claude-haiku-4-5": "anthropic"}
BOOK = PriceBook(
    [
        Price("changing", "1", "2", valid_from=START - timedelta(days=9)),
        Price("changing", "0.7", "2.3", valid_from=START + timedelta(days=1, hours=7)),
        Price("plain", "0.01", "0.03", cache_read="0.001"),
    ]
)


@pytest.fixture
def store(reused_database: str) -> Iterator[Store]:
    opened = PostgresStore(reused_database)
    yield opened
    opened.close()


def stored(record: CallRecord, **columns: Any) -> dict[str, Any]:
    """A record as its row, priced."""
    usage = record.usage
    cost = BOOK.cost_of(record)
    row = {
        "id": record.id,
        "created_at": record.created_at.isoformat(),
        "provider": record.provider,
        "model": record.model,
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "cache_read_tokens": usage.cache_read_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "cache_write_1h_tokens": usage.cache_write_1h_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "priced": cost is not None,
        **columns,
    }
    if cost is not None:
        row |= {
            f"{name}": format(amount, "f")
            for name, amount in (
                ("input_cost", cost.input),
                ("output_cost", cost.output),
                ("fees", cost.fees),
                ("total_cost", cost.total),
                ("potential_cost", cost.potential),
            )
        }
        row["price_version"] = cost.version
    return row


def write(store: Store, rows: list[dict[str, Any]]) -> None:
    answer = store.call("record_calls_v1", calls=json.dumps(rows))
    assert not answer["rejected"], answer


def number(low: int = 0, high: int = 300_000) -> st.SearchStrategy[int]:
    return st.one_of(
        st.integers(low, 700), st.integers(low, high), st.sampled_from((200_000, 200_001, 499, 500, 2_000))
    )


@st.composite
def calls(draw: st.DrawFn) -> tuple[CallRecord, dict[str, Any]]:
    place = draw(st.integers(0, 2**32))
    model = draw(st.sampled_from((*MODELS, "nobody knows")))
    prompt, answer = draw(number()), draw(number(high=9_000))
    read = draw(st.integers(0, prompt))
    write_ = draw(st.integers(0, prompt - read))
    record = CallRecord(
        id=f"01890000-0000-7000-8000-{place:012x}",
        created_at=START + timedelta(minutes=draw(st.integers(0, 3 * 24 * 60 - 1))),
        provider=PROVIDERS.get(model),
        model=model,
        usage=TokenUsage(prompt, answer, read, write_, draw(st.integers(0, write_)), draw(st.integers(0, answer))),
    )
    columns = {
        "agent_id": draw(st.sampled_from((None, "a", "b"))),
        "service_type": draw(st.sampled_from((None, "workflow", "1:1_conversation"))),
        "status": draw(st.sampled_from(("ok", "error"))),
    }
    return record, columns


def of_each(found: list[tuple[CallRecord, dict[str, Any]]], change: SwitchModel) -> tuple[Decimal, Decimal]:
    """The bill, and the bill after a switch, by the price book alone, call by call."""
    bill, after = Decimal(0), Decimal(0)
    for record, columns in found:
        cost = BOOK.cost_of(record)
        if cost is None:
            continue
        bill += cost.total
        where = change.where
        wanted = (
            where.agent in (ANY, columns["agent_id"])
            and where.size in (None, size_of(record.usage.prompt_tokens))
            and where.model in (ANY, record.model)
        )
        room = BOOK.context_window(change.provider or record.provider, change.model)
        if room is not None and record.usage.prompt_tokens >= room:
            wanted = False  # the other model would not have taken it
        switched = BOOK.cost_of(record._replace(model=change.model, provider=change.provider or record.provider))
        after += switched.total if wanted and switched is not None else cost.total
    return bill, after


@settings(max_examples=examples(15), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    found=st.lists(calls(), max_size=40, unique_by=lambda each: each[0].id),
    model=st.sampled_from(MODELS),
    of=st.sampled_from((None, *MODELS)),
    agent=st.sampled_from((None, "a")),
    size=st.sampled_from((None, *Size)),
)
def test_a_switch_of_groups_comes_to_what_its_calls_come_to(
    reused_database: str,
    found: list[tuple[CallRecord, dict[str, Any]]],
    model: str,
    of: str | None,
    agent: str | None,
    size: Size | None,
) -> None:
    with psycopg.connect(reused_database, autocommit=True) as connection:
        connection.execute("delete from token_usage_logs")
    store = PostgresStore(reused_database)
    try:
        write(store, [stored(record, **columns) for record, columns in found])
        change = SwitchModel(
            where=Where(model=of or ANY, agent=agent or ANY, size=size),
            model=model,
            provider=PROVIDERS.get(model),
            tokens=EXACTLY,
            answers=EXACTLY,
        )
        asked = ask_what_if(store, PERIOD, [change], prices=BOOK)
        bill, after = of_each(found, change)
        assert asked.bill == bill
        # The cheapest keeps every cached token where it is, as the calls themselves do when another model answers them.
        assert asked.after[Scenario.cheapest] == after
        assert asked.calls == len(found)
        assert sum(effect.saving.high for effect in asked.effects) == asked.saving.high
        assert asked.saving.high <= asked.bill
    finally:
        store.close()


def a_record(place: int, model: str = "gpt-4o", prompt: int = 1_000, answer: int = 100, **more: Any) -> CallRecord:
    return CallRecord(
        id=f"01890000-0000-7000-8000-{place:012x}",
        created_at=more.pop("at", START + timedelta(minutes=place)),
        provider=PROVIDERS.get(model),
        model=model,
        usage=TokenUsage(prompt, answer),
        **more,
    )


def asked(store: Store, *changes: Any, **more: Any) -> WhatIf:
    return ask_what_if(store, PERIOD, changes, prices=BOOK, **more)


def test_sums_answer_where_they_say_all_of_it(store: Store) -> None:
    """From the calls and from the sums it is the same, to the last digit; a size, or a price by size, needs the calls."""
    write(store, [stored(a_record(place), agent_id="a") for place in range(20)])
    plain = SwitchModel(where=Where(agent="a"), model="gpt-4o-mini")
    from_sums = asked(store, plain)
    from_calls = asked(store, replace(plain, where=Where(agent="a", size=Size.medium)))
    assert (from_sums.source, from_calls.source) == ("sums", "calls")
    assert from_sums.after == from_calls.after
    assert from_sums.bill == Decimal("0.070") == from_calls.bill
    # 20 x (1,000 x $0.15 + 100 x $0.60) a million
    assert from_sums.after[Scenario.expected] == Decimal("0.0042")
    assert asked(store, replace(plain, model="gemini-2.5-pro", provider="google")).source == "calls"
    assert read_summed_calls(store, PERIOD).groups[0].calls == 20


def test_a_switch_that_names_no_provider_is_cut_where_the_price_of_its_model_changes(store: Store) -> None:
    """The provider is that of the calls; of two prompts in one group the longer one would have the price of the shorter."""
    calls = [
        a_record(place, "gemini-2.5-flash", prompt, 0)._replace(provider="google")
        for place, prompt in enumerate((150_000, 250_000))
    ]
    write(store, [stored(record) for record in calls])
    found = asked(store, SwitchModel(where=Where(model="gemini-2.5-flash"), model="gemini-2.5-pro", answers=EXACTLY))
    switched = [BOOK.cost_of(record._replace(model="gemini-2.5-pro")) for record in calls]
    assert found.after[Scenario.expected] == sum((cost.total for cost in switched if cost is not None), Decimal(0))
    # Up to 200,000 tokens at $1.25 a million, from there on at $2.50.
    assert found.after[Scenario.expected] == Decimal("0.8125")


def test_sums_are_not_believed_where_a_cache_answered(store: Store) -> None:
    write(store, [stored(a_record(1)), stored(a_record(2)._replace(cache_hit=True), cache_hit=True)])
    found = asked(store, SwitchModel(where=Where(), model="gpt-4o-mini"))
    assert (found.source, found.calls) == ("calls", 1)


def test_what_cannot_be_repriced_is_left_out_and_said(store: Store) -> None:
    write(
        store,
        [
            stored(a_record(1, "nobody knows")),
            stored(a_record(2), billed_units={"web_searches": 2}),
            stored(a_record(3, "claude-haiku-4-5")),
            stored(a_record(4, "plain")),
        ],
    )
    found = asked(store, SwitchModel(where=Where(), model="no such model"), Processing(where=Where()))
    unknown, batch = found.effects
    assert found.unpriced_calls == 1
    assert unknown.left_out == {UNPRICED: 1, FIXED: 1, "no price is known for no such model": 2}
    assert unknown.saving == NOTHING
    # 1,000 tokens at $1.00 and 100 at $5.00 a million, in a batch for half; for the other one the list has no price of batches.
    assert batch.left_out == {UNPRICED: 1, FIXED: 1, "no price of batch processing is listed for plain": 1}
    assert batch.saving.amounts == (Decimal("0.00075"),) * 3


def test_an_exact_cache_keeps_an_answer_for_its_time_and_no_longer(store: Store) -> None:
    minutes = (0, 1, 30, 59, 61, 62, 130)
    rows = [
        stored(a_record(place, at=START + timedelta(minutes=at)), request_hash="h", latency_ms=1_000)
        for place, at in enumerate(minutes)
    ]
    rows.append(stored(a_record(90, at=START + timedelta(seconds=0.5)), request_hash="h", latency_ms=1_000))
    rows.append(stored(a_record(91, at=START + timedelta(minutes=3)), request_hash="h", status="error"))
    rows.append(stored(a_record(92, at=START + timedelta(minutes=3)), request_hash="h", organization_id="other"))
    rows.append(stored(a_record(93, at=START + timedelta(minutes=3)), request_hash="h", agent_id="another"))
    write(store, rows)
    found = asked(store, ExactCache(), ttl=timedelta(hours=1))
    # Written at 0, answers 1, 30 and 59; written anew at 61, answers 62; and at 130. At 0.5 s the first was still under way.
    assert found.effects[0].calls == 4
    assert found.saving.expected == 4 * Decimal("0.0035")
    # The first of a slice may be answered by one before it.
    groups = read_call_groups(
        store, Period(START + timedelta(minutes=30), START + timedelta(minutes=60)), Cuts(ttl=timedelta(hours=1))
    )
    assert [(group.key.repeated, group.calls) for group in groups] == [(True, 2)]


def test_calls_that_nobody_waited_for_are_told(store: Store) -> None:
    night, day = START + timedelta(hours=23), START + timedelta(hours=12)
    rows = [
        stored(a_record(1, at=night), service_type="workflow"),
        stored(a_record(2, at=day), service_type="workflow"),
        stored(a_record(3, at=night), service_type="workflow", ttft_ms=100),
        stored(a_record(4, at=night), service_type="1:1_conversation"),
        stored(a_record(5, at=day), call_type="embedding"),
        stored(a_record(6, at=day), call_type="embedding", service_type="1:1_conversation"),
    ]
    write(store, rows)
    groups = read_call_groups(store, PERIOD)
    assert sorted(group.key.unattended for group in groups for _ in range(group.calls)) == [False] * 4 + [True] * 2
    groups = read_call_groups(store, replace(PERIOD, timezone="Asia/Tokyo"))
    # 23 o'clock is 8 in the morning there, and noon is 21 o'clock.
    assert sum(group.calls for group in groups if group.key.unattended) == 1


def test_prices_that_change_within_the_period_cut_it() -> None:
    cuts = cuts_for(BOOK, [Model(None, "changing"), Model("google", "gemini-2.5-pro")], PERIOD)
    assert START + timedelta(days=1, hours=7) in cuts.eras
    assert list(cuts.sizes) == [500, 2_000, 200_001]


def test_what_a_providers_cache_would_read_and_write_is_told_by_the_beginnings_of_prompts(store: Store) -> None:
    """Calls begin alike in 8,192 of 16,384 bytes, then in all of them."""

    def a_prompt(place: int, *hashes: str, **more: Any) -> dict[str, Any]:
        record = a_record(place, "claude-haiku-4-5", prompt=4_000, **more)
        return stored(record, prefix_hashes=list(hashes), prompt_bytes=16_384)

    write(
        store,
        [
            a_prompt(0, "a1", "a2", "a3"),  # writes 2,000, since another begins alike
            a_prompt(2, "a1", "a2", "b3"),  # reads 2,000, and writes 2,000 more for the next
            a_prompt(6, "a1", "a2", "b3"),  # reads 4,000
            a_prompt(12, "a1", "a2", "b3"),  # too late: the next is as well
            a_prompt(18, "c1"),
            stored(a_record(19, "claude-haiku-4-5")),
        ],
    )
    alike, others = sorted(
        read_call_groups(store, PERIOD, Cuts(prefix_ttl=timedelta(minutes=5))), key=lambda group: -group.key.alike
    )
    assert (alike.calls, alike.prefixed_calls, others.calls, others.prefixed_calls) == (3, 3, 3, 2)
    assert (alike.prefix_read_tokens, alike.prefix_write_tokens) == (6_000, 4_000)
    found = asked(store, PromptCaching(), prefix_ttl=timedelta(minutes=5))
    # Reads at $0.10 and writes at $1.25 a million, both at $1.00 before.
    assert (found.saving.expected, found.saving.low) == (Decimal("0.0044"), 0)
    assert found.effects[0].calls == 3


def test_over_supabase_it_is_the_same(lite: SupabaseLite, store: Store) -> None:
    """Instants and sizes travel as lists; a price that changes within the period needs them."""
    rows = [
        stored(a_record(place, model, prompt=300 * place, at=START + timedelta(hours=7 * place)), request_hash="h")
        for place, model in enumerate(
            ("changing", "changing", "plain", "changing", "gemini-2.5-pro", "changing", "gpt-4o")
        )
    ]
    changes = [ExactCache(), SwitchModel(where=Where(size=Size.medium), model="changing")]
    over_api = SupabaseStore(lite.url, lite.service_key)
    with psycopg.connect(lite.database_url, autocommit=True) as connection:
        connection.execute("delete from token_usage_logs")
    try:
        write(store, rows)
        write(over_api, rows)
        told = [ask_what_if(each, PERIOD, changes, prices=BOOK, ttl=timedelta(days=1)) for each in (store, over_api)]
        assert told[0] == told[1]
        assert told[0].bill > told[0].after[Scenario.expected] > 0
        assert [effect.calls > 0 for effect in told[0].effects] == [True, True]
    finally:
        over_api.close()
        with psycopg.connect(lite.database_url, autocommit=True) as connection:
            connection.execute("delete from token_usage_logs")
