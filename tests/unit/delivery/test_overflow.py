"""The sums of calls for which there was no room: exact to the last digit, and bounded."""

from __future__ import annotations

import decimal
import gc
import threading
from collections import defaultdict
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vital_tracking.core.context import CallContext
from vital_tracking.core.cost import Cost
from vital_tracking.core.record import CallRecord
from vital_tracking.core.usage import TokenUsage
from vital_tracking.delivery import overflow as overflow_module
from vital_tracking.delivery.overflow import MergedCalls
from vital_tracking.delivery.rows import call_row
from vital_tracking.ids import new_id

TRIES = settings(max_examples=60, deadline=None, derandomize=True)
NOON = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
MONEY = st.decimals(min_value=0, max_value=1000, places=15, allow_nan=False)


def a_cost(total: Decimal | str, version: str = "v1") -> Cost:
    amount = Decimal(total)
    return Cost.of({"input": amount, "total": amount, "potential": amount}, version)


def a_call(**fields: Any) -> CallRecord:
    context = CallContext(**{name: fields.pop(name) for name in list(fields) if name in CallContext._fields})
    known: dict[str, Any] = {"model": "m", "provider": "p", "usage": TokenUsage(10, 2), "created_at": NOON}
    return CallRecord(**{"id": new_id(), "context": context, **known, **fields})


def added(*calls: CallRecord, cost: Cost | None = None) -> list[CallRecord]:
    """The rows that these calls become."""
    overflow = MergedCalls()
    for call in calls:
        overflow.add(call, cost, None, [])
    return [record for record, *_ in overflow.drain()]


CALLS = st.lists(
    st.tuples(
        st.sampled_from(["u-1", "u-2", None]),
        st.sampled_from(["m-1", "m-2"]),
        st.integers(0, 120),  # minutes
        MONEY | st.none(),
        st.integers(0, 10**9),
        st.integers(0, 10**9),
        st.sampled_from(["v1", "v2"]),
        st.lists(st.tuples(st.integers(1, 3), MONEY.map(str)), max_size=2),
        st.sampled_from([None, "h-1", "h-2"]),
    ),
    max_size=40,
)


@TRIES
@given(CALLS, st.integers(1, 3))
def test_the_sums_of_merged_calls_are_exact(calls: list[tuple[Any, ...]], times: int) -> None:
    """If this failed, the bill would not be what the calls cost, though every one of them was seen."""
    overflow = MergedCalls()
    expected: dict[tuple[Any, ...], list[Any]] = defaultdict(lambda: [0, 0, 0, Decimal(0)])
    drawn: dict[tuple[Any, ...], Decimal] = defaultdict(Decimal)
    for user, model, minutes, price, prompt, completion, version, draws, holder in calls:
        moment = NOON + timedelta(minutes=minutes)
        record = a_call(user_id=user, model=model, created_at=moment, usage=TokenUsage(prompt, completion))
        cost = a_cost(price, version) if price is not None else None
        overflow.add(record, cost, holder, draws)
        key = (user, model, minutes // 15, None if cost is None else version, holder)
        total = expected[key]
        total[0] += 1
        total[1] += prompt
        total[2] += completion
        total[3] += price or 0
        for window, amount in draws:
            drawn[(holder, window)] += Decimal(amount)
    for _ in range(times - 1):  # there was no room for the rows either: they come back, and are the same sums
        for record, taken, holder, _ in overflow.drain():
            overflow.add(record, record.cost, holder, taken)
    found: dict[tuple[Any, ...], list[Any]] = {}
    drawn_found: dict[tuple[Any, ...], Decimal] = defaultdict(Decimal)
    for record, taken, holder, _ in overflow.drain():
        quarter = (record.created_at - NOON) // timedelta(minutes=15)
        version = record.cost.version if record.cost is not None else None
        total_cost = record.cost.total if record.cost is not None else Decimal(0)
        key = (record.context.user_id, record.model, quarter, version, holder)
        assert key not in found
        found[key] = [record.calls, record.usage.prompt_tokens, record.usage.completion_tokens, total_cost]
        for window, amount in taken:
            drawn_found[(holder, window)] += Decimal(amount)
        row = call_row(record, record.cost)
        assert row.get("calls", 1) == record.calls
        assert "latency_ms" not in row
        assert record.notes == ("merged",)
        assert row["metadata"]["notes"] == ["merged"]
    assert found == dict(expected)
    assert drawn_found == drawn
    assert len(overflow) == 0


def test_a_callers_decimal_context_changes_no_sum() -> None:
    """If this failed, a program that computes with few digits would have a wrong bill, or none."""
    parts = ["123456789.123456789012345678", "0.000000000000000001", "0.1"]

    def sums() -> list[CallRecord]:
        overflow = MergedCalls()
        for part in parts:
            overflow.add(a_call(), a_cost(part), "h", [(1, part)])
        [(record, draws, *_)] = overflow.drain()
        assert draws == [(1, "123456789.223456789012345679")]
        return [record]

    with decimal.localcontext() as context:
        context.prec = 4
        context.traps[decimal.Inexact] = True
        [record] = sums()
    assert record.cost is not None
    assert record.cost.total == record.cost.potential == Decimal("123456789.223456789012345679")


def test_every_kind_of_tokens_of_merged_calls_is_summed() -> None:
    """If this failed, merged calls could not be priced again, or would be refused for sums that do not agree."""
    usage = TokenUsage(100, 50, 10, 20, 15, 5, 3, 2)
    [record] = added(*(a_call(usage=usage) for _ in range(3)))
    assert record.usage == TokenUsage(300, 150, 30, 60, 45, 15, 9, 6)
    [mixed] = added(a_call(usage=usage), a_call(usage=TokenUsage(1, 1, estimated=True)))
    assert mixed.usage.estimated


@pytest.mark.parametrize(
    "other",
    [
        {"user_id": "u-2"},
        {"organization_id": "o-2"},
        {"session_id": "s-2"},
        {"agent_id": "a-2"},
        {"service_type": "workflow"},
        {"model": "m-2"},
        {"provider": "p-2"},
        {"call_type": "embedding"},
        {"cache_hit": True},
        {"status": "blocked"},
        {"status": "error"},
        {"price_facts": {"service_tier": "priority"}},
        {"sent_model": "m-2"},
        {"created_at": NOON + timedelta(minutes=15)},
        {"created_at": NOON - timedelta(microseconds=1)},
        {"requested_model": "m-2"},
        {"requested_model": "m-2", "budget_action": "downgrade"},
    ],
)
def test_calls_that_budgets_or_prices_tell_apart_stay_apart(other: dict[str, Any]) -> None:
    """If this failed, a budget would be charged with what is not its own, or a row be refused."""
    first, second = added(a_call(), a_call(**other))
    for name, value in other.items():
        assert getattr(second, name, None) == value or getattr(second.context, name) == value
    assert len(added(a_call(**other), a_call(**other))) == 1
    assert first.calls == second.calls == 1


def test_calls_that_differ_only_in_detail_are_merged() -> None:
    """If this failed, each call would have a row of its own, and there would be no bound."""
    [record] = added(
        a_call(metadata={"a": 1}, tags=["x"], latency_ms=3.0, run_id="r-1", error_type="E"),
        a_call(metadata={"b": "y" * 10_000}, service_name="n", agent_name="m"),
    )
    assert record.calls == 2
    assert (record.metadata, list(record.tags), record.latency_ms, record.run_id) == ({}, [], None, None)


def test_a_time_without_a_zone_is_in_utc_as_it_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    """If this failed, calls of another day would be counted for this one."""
    zone = timezone(timedelta(hours=-7))
    same = [NOON, NOON.replace(tzinfo=None), NOON.astimezone(zone)]
    [record] = added(*(a_call(created_at=moment) for moment in same))
    assert record.calls == 3
    other = NOON.astimezone(zone).replace(tzinfo=None)  # five in the morning, of UTC
    assert len(added(a_call(), a_call(created_at=other))) == 2
    assert len(added(a_call(created_at=datetime(1, 1, 1)), a_call(created_at=datetime(9999, 12, 31, 23, 59)))) == 2  # noqa: DTZ001


class Nobody:
    """Somebody's idea of a user."""

    __hash__ = None  # type: ignore[assignment]

    def __str__(self) -> str:
        return "u-7"


HOSTILE: list[Any] = [
    ["u", 1],
    {"a": 1},
    Nobody(),
    b"u",
    7,
    10**30,
    "\ud800",
    "nul\0",
    "x" * 1_000_000,
    float("nan"),
    object,
]


@pytest.mark.parametrize("owner", HOSTILE, ids=lambda value: type(value).__name__)
def test_the_money_of_any_owner_is_kept(owner: Any) -> None:
    """If this failed, the money of calls with a strange user id would be lost."""
    [record] = added(
        a_call(user_id=owner, model="m\0", session_id=owner), a_call(user_id=owner, model="m", session_id=owner)
    )
    assert record.calls == 2
    assert isinstance(record.context.user_id, str)
    assert len(record.context.user_id) <= 256
    assert call_row(record, None)["user_id"] == call_row(a_call(user_id=owner), None)["user_id"]


def test_merged_calls_of_many_users_take_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """If this failed, an outage would take all memory where users are many."""
    names = [names for names, _ in overflow_module._TOLD_APART]
    monkeypatch.setattr(overflow_module, "_TOLD_APART", tuple(zip(names, (10, 20, 30), strict=True)))
    overflow = MergedCalls()
    for number in range(100):
        owners = {"user_id": f"u-{number // 2}", "session_id": f"s-{number}", "organization_id": f"o-{number // 10}"}
        overflow.add(a_call(**owners), a_cost("0.25"), "h", [(1, "0.25")])
    assert len(overflow) <= 31
    taken = overflow.drain()
    assert sum(record.calls for record, *_ in taken) == 100
    assert sum(record.cost.total for record, *_ in taken if record.cost) == 25
    assert sum(Decimal(amount) for _, draws, *_ in taken for _, amount in draws) == 25
    contexts = [record.context for record, *_ in taken]
    assert (contexts[0].session_id, contexts[0].user_id, contexts[0].organization_id) == ("s-0", "u-0", "o-0")
    assert [context.session_id for context in contexts[10:]] == [None] * (len(contexts) - 10)
    assert (contexts[12].user_id, contexts[12].organization_id) == ("u-7", "o-1")
    assert [context.user_id for context in contexts[20:]] == [None] * (len(contexts) - 20)


def test_merged_calls_of_many_organizations_take_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """If this failed, a thousand organizations would still take all memory."""
    names = [names for names, _ in overflow_module._TOLD_APART]
    monkeypatch.setattr(overflow_module, "_TOLD_APART", tuple(zip(names, (10, 20, 30), strict=True)))
    overflow = MergedCalls()
    for number in range(1000):
        overflow.add(a_call(user_id=f"u-{number}", organization_id=f"o-{number}"), a_cost("0.25"), None, [])
    assert len(overflow) <= 31
    assert sum(record.cost.total for record, *_ in overflow.drain() if record.cost) == 250


def test_metadata_of_merged_calls_leave_memory() -> None:
    """If this failed, metadata and tags of merged calls would stay in memory, which is full."""

    class Heavy(dict[str, Any]):
        pass

    overflow = MergedCalls()
    overflow.add(a_call(metadata=Heavy(a="b"), tags=["t" * 1000], hold=Heavy()), None, None, [])
    gc.collect()
    assert not [one for one in gc.get_objects() if type(one) is Heavy]


def test_no_money_is_lost_while_many_threads_add_and_one_takes() -> None:
    """If this failed, the money of calls that end in the same moment would be lost."""
    overflow = MergedCalls()
    done = threading.Event()
    taken: list[CallRecord] = []

    def add() -> None:
        for _ in range(500):
            overflow.add(a_call(), a_cost("0.001"), None, [])

    def take() -> None:
        while not done.is_set():
            taken.extend(record for record, *_ in overflow.drain())

    threads = [threading.Thread(target=add) for _ in range(8)]
    taker = threading.Thread(target=take)
    for thread in (*threads, taker):
        thread.start()
    for thread in threads:
        thread.join(60)
    done.set()
    taker.join(60)
    taken.extend(record for record, *_ in overflow.drain())
    assert sum(record.calls for record in taken) == 4000
    assert sum(record.cost.total for record in taken if record.cost) == 4
    assert len({record.id for record in taken}) == len(taken)
