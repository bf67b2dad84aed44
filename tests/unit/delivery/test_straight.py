"""The straight way makes the same rows as the long one, to the last digit; what it does not know it leaves alone."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import orjson
import pytest

from vital_tracking.calls.row_literal import decoded_row
from vital_tracking.calls.wire import END_FACTS, START_FACTS, USUAL_END
from vital_tracking.core.price import Price
from vital_tracking.core.price_spans import PriceSpans
from vital_tracking.core.pricing import PriceBook
from vital_tracking.delivery.costs import Costs
from vital_tracking.delivery.encoding import decoded
from vital_tracking.delivery.rows import encode_call
from vital_tracking.delivery.straight import StraightCall, StraightWay
from vital_tracking.ids import uuid7
from vital_tracking.spool.log_record import LogRecord, RecordKind

CALLS: Final = int(os.environ.get("VITAL_STRAIGHT_CALLS", "400"))
NOON: Final = datetime(2026, 11, 20, 12, tzinfo=UTC)
DRAWS: Final = [(7, "0.25"), (9, "12")]


def fails(error: BaseException) -> None:
    raise error


def a_book() -> PriceBook:
    """Prices of the team's own, one of which changes in the middle of a quarter of an hour."""
    return PriceBook(
        [
            Price("ours", "1", "2.5", provider="openai"),
            Price("ours", "1.25", "3", provider="openai", valid_from=NOON + timedelta(minutes=7, seconds=30)),
            Price("cached", "2", "8", provider="openai", cache_read="0.125"),
            Price("by-request", "2", "8", provider="openai", per_request="0.01"),
        ]
    )


class World:
    """Both ways, over one price book."""

    def __init__(self) -> None:
        self.book = a_book()
        self.costs = Costs(self.book, "15/75")
        self.straight = StraightWay(PriceSpans(self.book))

    def straight_row(self, record: LogRecord) -> str | None:
        """The row of the straight way, None where the call does not go it."""
        self.straight.renew()
        call = self.straight.call(record)
        return None if call is None else call.encoded(DRAWS)

    def long_row(self, record: LogRecord) -> str:
        """The row that is right."""
        call = decoded(record, fails)
        cost = self.costs.cost_of(call)
        return encode_call(call, cost, self.costs.counted(call, cost) if cost is None else None, DRAWS)


USUAL_REST: Final[list[object]] = [None, None, False, True, False, [], None, None, [], None]


def chance(draw: random.Random, share: float) -> bool:
    return draw.random() < share


def a_record(draw: random.Random, **facts: Any) -> LogRecord:
    """A call as the spool holds it; most are usual ones."""
    text = draw.choice(["x", "Zoë", 'a "quoted", one', "back\\slash", "l" * 300, "nul\0here", "line\nbreak", ""])
    context: dict[str, Any] = {
        "organization_id": "acme",
        "user_id": f"u-{draw.randrange(9)}",
        "service_run_id": str(uuid7()) if chance(draw, 0.5) else "run",
        "service_type": draw.choice(["workflow", "1:1_conversation", "virtual_panel"]),
        "agent_name": draw.choice(["Cardiologist", text]),
    }
    if chance(draw, 0.1):
        context |= {"panel_position": draw.choice([2, 40_000, "3"]), "service_type": draw.choice(["none", "workflow"])}
    names = ["thread_id", "langgraph_node", "langgraph_step", "langgraph_checkpoint_ns", "vital_metadata"]
    shared = {
        "context": context,
        "scope": draw.choice([{}, {"ticket": text, "count": 3}]),
        "keys": {
            "kept": names,
            "allowed": names[:3],
            "unknown": ["vital_usr"] if chance(draw, 0.05) else [],
        },
    }
    values = [
        "t-1",
        draw.choice(["triage", text, None]),
        draw.choice([1, 2, True, 1.0, -0.0, None, [1, "a"], 10**17]),
        draw.choice([None, "outer:1|inner:2", "outer:3"]),
        draw.choice([None, None, {"ward": 3, "note": text}, {"big": "x" * 5000}]),
    ]
    provider = draw.choice(
        ["openai"] * 6 + ["anthropic", "perplexity", "mistralai", "google_genai", "deepseek", "nobody", None]
    )
    models = {
        "anthropic": ["claude-sonnet-4-5"],
        "google_genai": ["gemini-2.5-pro", "gemini-2.5-flash"],
        "deepseek": ["deepseek-chat"],
    }
    model = draw.choice(
        models.get(provider or "", ["gpt-4o-mini", "gpt-4o", "ours", "cached", "by-request", "o3-mini", "unheard-of"])
    )
    start = {
        "started": (NOON + timedelta(seconds=draw.randrange(3600), microseconds=draw.randrange(10**6))).timestamp(),
        "skew_s": draw.choice([0.0, 0.0, 2.5, None]),
        "call_type": draw.choice(["chat", "chat", "completion"]),
        "run_id": str(uuid7()),
        "parent_run_id": draw.choice([str(uuid7()), None]),
        "root_run_id": draw.choice([str(uuid7()), None]),
        "tool": draw.choice([None, None, "look_up"]),
        "trace_id": draw.choice([None, str(uuid7())]),
        "project": draw.choice([None, "default", text]),
        "provider": provider,
        "requested_model": model,
        "prompt_bytes": 100,
        "batch_size": draw.choice([1] * 9 + [3]),
        "attempt": draw.choice([None, None, 1, 2]),
        "request_hash": draw.choice([None, "ab" * 16]),
        "tags": draw.choice([None, [], ["seq:step:1"], ["mine", text, 3]]),
        "budget_action": draw.choice([None, None, "throttle", "downgrade"]),
        "throttled_ms": draw.choice([None, None, 12.34567]),
        "dearer_model": draw.choice([None, None, None, "gpt-4o"]),
        "prefix_hashes": draw.choice([None, ["aa", "bb"]]),
        "hashed_bytes": 9000,
    }
    prompt, answer = draw.randrange(1, 300_000), draw.randrange(1, 9000)
    read, thought = draw.choice([0, 0, draw.randrange(prompt + 1)]), draw.choice([0, 0, draw.randrange(answer + 1)])
    usage: dict[str, Any] = {"input_tokens": prompt, "output_tokens": answer, "total_tokens": prompt + answer}
    if read or chance(draw, 0.3):
        usage["input_token_details"] = {"audio": 0, "cache_read": read}
    if thought or chance(draw, 0.3):
        usage["output_token_details"] = {"reasoning": thought}
    counts: dict[str, Any] | None = None
    if chance(draw, 0.5):
        counts = {
            "prompt_tokens": prompt,
            "completion_tokens": answer,
            "total_tokens": prompt + answer,
            "prompt_tokens_details": {"audio_tokens": 0, "cached_tokens": read},
            "completion_tokens_details": {"reasoning_tokens": thought, "accepted_prediction_tokens": None},
        }
        if provider == "anthropic":
            counts = {
                "input_tokens": prompt - read,
                "cache_read_input_tokens": read,
                "cache_creation_input_tokens": 0,
                "cache_creation": {"ephemeral_1h_input_tokens": 0, "ephemeral_5m_input_tokens": 0},
                "output_tokens": answer,
                "server_tool_use": None,
                "service_tier": "standard",
            }
    response: dict[str, Any] = {}
    if chance(draw, 0.9):
        response["model_name"] = draw.choice([model, f"{model}-2024-07-18", "gpt-4o-mini", ""])
    if chance(draw, 0.8):
        response[draw.choice(["finish_reason", "stop_reason"])] = draw.choice(["stop", "end_turn", "r" * 40])
    if chance(draw, 0.3):
        response["service_tier"] = draw.choice(["default", "auto", "flex", "batch", "priority", text])
    end: dict[str, Any] = {
        "status": "ok",
        "duration_ms": draw.choice([12.5, 1234.56789, 0.0, -1.0]),
        "ttft_ms": draw.choice([None, 3.25]),
        "message_id": None,
        "response": response,
        "usage": usage,
        "token_usage": counts,
        "estimate": None,
        "error": None,
        "answered_inside": False,
        "batch_reported": True,
        "replaces_abandoned": False,
        "notes": [],
        "stopped_by": None,
        "first_word_ms": draw.choice([None, 4.5]),
        "hidden": [],
        "blocked_by": None,
    }
    if chance(draw, 0.15):
        spoil(draw, end, usage, counts, response)
    start |= {name: value for name, value in facts.items() if name in start}
    end |= {name: value for name, value in facts.items() if name in end}
    lines = (
        shared,
        [*(start[name] for name in START_FACTS), *values],
        [end[name] for name in END_FACTS],
    )
    if chance(draw, 0.5) and lines[2][USUAL_END:] == USUAL_REST:  # as they are written now; earlier versions wrote all
        del lines[2][USUAL_END:]
    return LogRecord(
        RecordKind.CALL, uuid7().bytes, b"\n".join(map(orjson.dumps, lines)), former_skew_s=draw.choice([0.0, 5.0])
    )


def spoil(
    draw: random.Random,
    end: dict[str, Any],
    usage: dict[str, Any],
    counts: dict[str, Any] | None,
    response: dict[str, Any],
) -> None:
    """Make an unusual one of it."""
    end |= draw.choice(
        [
            {"status": "abandoned", "usage": None, "estimate": [100, 20, 0]},
            {"notes": ["start_missed"]},
            {"hidden": ["audio"]},
            {"answered_inside": True},
            {"replaces_abandoned": True},
            {"usage": {**usage, "total_tokens": usage["total_tokens"] + 7}},
            {"usage": {**usage, "total_cost": 0}},
            {"usage": {**usage, "input_token_details": {"cache_read": usage["input_tokens"] + 5}}},
            {"usage": {**usage, "input_token_details": {"cache_creation": 1, "ephemeral_1h_input_tokens": 1}}},
            {"usage": {**usage, "input_token_details": {"flex_cache_read": 1, "flex": usage["input_tokens"] - 1}}},
            {"usage": {**usage, "output_token_details": {"audio": 1, "reasoning": 0}}},
            {"usage": {**usage, "input_token_details": {"image": None}}},
            {"usage": {"input_tokens": 0, "output_tokens": 5, "total_tokens": 5}},
            {"token_usage": {**(counts or {}), "cost": 0.25}},
            {"token_usage": {"prompt_tokens": usage["input_tokens"] + 1, "completion_tokens": 3}},
            {"token_usage": {"prompt_tokens_details": [{"modality": "AUDIO", "token_count": 1}]}},
            {"token_usage": {"num_search_queries": 2}},
            {"response": {**response, "num_search_queries": 3}},
            {"response": {**response, "blocks": {"web_search_call": 1}}},
            {"response": {**response, "speed": "fast"}},
        ]
    )


def some_records(seed: int, count: int) -> Iterator[LogRecord]:
    draw = random.Random(seed)
    return (a_record(draw) for _ in range(count))


def test_both_ways_make_the_same_rows() -> None:
    """If this failed, what a call costs, or for whom it was, would depend on which way its row was made."""
    world, straight = World(), 0
    for record in some_records(18, CALLS):
        row = world.straight_row(record)
        if row is not None:
            straight += 1
            assert row == world.long_row(record)
    assert straight > CALLS / 4  # of these, which are stranger than most; or else nothing was compared


def test_calls_that_follow_each_other_in_a_scope_have_that_scope_s_rows() -> None:
    """If this failed, a call would be billed to whoever made the one before it."""
    draw, straight = random.Random(5), 0
    used = World()
    lines = [record.payload.split(b"\n", 1)[0] for record in some_records(6, 4)]
    for record in some_records(7, 300):
        payload = draw.choice(lines) + b"\n" + record.payload.split(b"\n", 1)[1]
        same = record._replace(payload=payload)
        rows = [world.straight_row(same) for world in (used, World())]
        assert rows[0] == rows[1]
        if rows[0] is not None:
            straight += 1
            assert rows[0] == used.long_row(same)
            first, _, rest = payload.partition(b"\n")
            for broken in (payload + b"\n[]", first, first + b"\n" + rest.partition(b"\n")[0]):
                assert used.straight_row(record._replace(payload=broken)) is None
    assert straight > 30


def test_a_price_holds_from_its_instant_on() -> None:
    """Within a quarter of an hour as well: if this failed, calls around a change would be billed at the other price."""
    world, draw = World(), random.Random(1)
    change = NOON + timedelta(minutes=7, seconds=30)
    usual = {
        "provider": "openai",
        "requested_model": "ours",
        "response": {},
        "token_usage": None,
        "batch_size": 1,
        "skew_s": 0.0,
    }
    usual |= {
        "dearer_model": None,
        "usage": {"input_tokens": 8, "output_tokens": 2, "total_tokens": 10},
        "status": "ok",
    }
    usual |= {"notes": [], "hidden": [], "answered_inside": False, "replaces_abandoned": False}
    costs = []
    for moved in (-0.000001, 0.0, -60.0, 60.0, -0.000001):
        record = a_record(draw, **usual, started=change.timestamp() + moved)
        row = world.straight_row(record)
        while row is None:  # its context was unusual
            record = a_record(draw, **usual, started=change.timestamp() + moved)
            row = world.straight_row(record)
        assert row == world.long_row(record)
        costs.append(decoded_row(row)["total_cost"])
    before, after = "0.0000130", "0.00001600"
    assert list(map(Decimal, costs)) == list(map(Decimal, [before, after, before, after, before]))


def test_prices_of_the_team_hold_from_the_next_batch_on() -> None:
    """If this failed, a price that was set would hold when the process is started anew."""
    world = World()
    records = [record for record in some_records(2, 60) if world.straight_row(record) is not None]
    world.book.set_team_prices([Price("gpt-4o-mini", "100", "200", provider="openai", version="set now")])
    rows = [world.straight_row(record) for record in records]
    assert [row for row in rows if row is not None] == [
        world.long_row(record) for record, row in zip(records, rows, strict=True) if row is not None
    ]
    assert any("set now" in row for row in rows if row is not None)


@pytest.mark.parametrize("payload", [b"", b"{}\n[]\n[]", b"no\njson\nat all", b"{}\n[1]\n[2]\n[3]"])
def test_what_cannot_be_read_is_left_to_the_long_way(payload: bytes) -> None:
    straight = StraightWay(PriceSpans(a_book()))
    try:
        found: StraightCall | None = straight.call(LogRecord(RecordKind.CALL, uuid7().bytes, payload))
    except ValueError:
        found = None
    assert found is None
