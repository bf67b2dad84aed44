"""What the tables refuse, whoever writes: each rule once, by the name of its constraint."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from psycopg import sql
from psycopg.errors import CheckViolation, IntegrityError, NotNullViolation, UniqueViolation

from tests.sql.helpers import Connection, Row, a_call, a_run, an_end, an_unpriced_call

TOKENS = (
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "reasoning_tokens",
    "audio_tokens",
    "audio_output_tokens",
)
AMOUNTS = ("input_cost", "output_cost", "fees", "total_cost", "potential_cost")
DURATIONS = ("latency_ms", "ttft_ms", "first_word_ms", "throttled_ms")
PRICES = (
    "input_usd_per_mtok",
    "output_usd_per_mtok",
    "cache_read_usd_per_mtok",
    "cache_write_usd_per_mtok",
    "cache_write_1h_usd_per_mtok",
    "reasoning_usd_per_mtok",
    "audio_input_usd_per_mtok",
    "audio_output_usd_per_mtok",
    "request_usd",
)
FREE: Row = {"input_cost": 0, "output_cost": 0, "total_cost": 0}


def insert(connection: Connection, table: str, row: Row) -> None:
    """Insert as the owner, past every function, and leave nothing behind."""
    with connection.transaction(force_rollback=True):
        connection.execute(
            sql.SQL("insert into {} ({}) values ({})").format(
                sql.Identifier(table),
                sql.SQL(", ").join(map(sql.Identifier, row)),
                sql.SQL(", ").join(sql.Placeholder() * len(row)),
            ),
            list(row.values()),
        )


def refuses(connection: Connection, table: str, row: Row, rule: str) -> None:
    """The row is refused, by this rule."""
    with pytest.raises(CheckViolation) as refused:
        insert(connection, table, row)
    assert refused.value.diag.constraint_name == rule


@pytest.mark.parametrize("column", TOKENS)
def test_tokens_are_never_negative(db: Connection, column: str) -> None:
    """If this failed, a negative count would lower a sum."""
    with pytest.raises(CheckViolation):
        insert(db, "token_usage_logs", a_call(**{column: -1}))


@pytest.mark.parametrize("calls", [0, -1])
def test_a_row_stands_for_at_least_one_call(db: Connection, calls: int) -> None:
    """If this failed, a row would lower the number of calls."""
    refuses(db, "token_usage_logs", a_call(calls=calls), "token_usage_logs_calls")
    insert(db, "token_usage_logs", a_call(calls=2**31 - 1))


BUCKETS: list[tuple[Row, bool]] = [
    ({"cache_read_tokens": 100}, True),
    ({"cache_read_tokens": 60, "cache_write_tokens": 30, "audio_tokens": 10}, True),
    ({"cache_read_tokens": 60, "cache_write_tokens": 30, "audio_tokens": 11}, False),
    ({"cache_read_tokens": 101}, False),
    ({"cache_write_tokens": 101}, False),
    ({"audio_tokens": 101}, False),
    ({"reasoning_tokens": 20}, True),
    ({"reasoning_tokens": 21}, False),
    ({"audio_tokens": 20, "audio_output_tokens": 20}, True),
    ({"audio_tokens": 15, "audio_output_tokens": 10, "reasoning_tokens": 10}, True),
    ({"audio_tokens": 15, "audio_output_tokens": 10, "reasoning_tokens": 11}, False),
    ({"audio_tokens": 9, "audio_output_tokens": 10}, False),
    ({"cache_write_tokens": 10, "cache_write_1h_tokens": 10}, True),
    ({"cache_write_tokens": 10, "cache_write_1h_tokens": 11}, False),
]


@pytest.mark.parametrize(("changes", "fits"), BUCKETS)
def test_no_token_is_counted_in_two_buckets(db: Connection, changes: Row, fits: bool) -> None:
    """If this failed, one token could be counted, and billed, in two buckets."""
    if fits:
        insert(db, "token_usage_logs", a_call(**changes))
    else:
        refuses(db, "token_usage_logs", a_call(**changes), "token_usage_logs_tokens_disjoint")


def test_total_tokens_are_the_sum_of_prompt_and_completion(db: Connection) -> None:
    """If this failed, totals would not add up."""
    refuses(db, "token_usage_logs", a_call(total_tokens=121), "token_usage_logs_total_tokens")


@pytest.mark.parametrize("column", AMOUNTS)
@pytest.mark.parametrize("value", ["NaN", "Infinity", "-0.000000001"])
def test_costs_are_finite_and_not_negative(db: Connection, column: str, value: str) -> None:
    """If this failed, one NaN would make every sum of money NaN."""
    with pytest.raises(CheckViolation) as refused:
        insert(db, "token_usage_logs", a_call(**{column: value}))
    assert refused.value.diag.constraint_name in (
        "token_usage_logs_costs_not_negative",
        "token_usage_logs_total_cost",  # checked first, where an infinite part exceeds the total
    )


@pytest.mark.parametrize("total", ["0.4199999999999999999999", "0.4200000000000000000001", "0.43"])
def test_a_total_is_the_sum_of_its_parts(db: Connection, total: str) -> None:
    """If this failed, input cost, output cost and fees would not add up to the total."""
    refuses(db, "token_usage_logs", a_call(total_cost=total, fees="0"), "token_usage_logs_total_cost")
    fees = str(Decimal(total) - Decimal("0.42"))
    if not fees.startswith("-"):
        insert(db, "token_usage_logs", a_call(total_cost=total, fees=fees))


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-0.000000001"])
def test_a_provider_s_own_figure_is_an_amount_whether_the_call_is_priced_or_not(db: Connection, value: str) -> None:
    """If this failed, the difference between a provider's bill and ours would be NaN, or the figure be lost."""
    for make in (a_call, an_unpriced_call):
        refuses(db, "token_usage_logs", make(reported_cost=value), "token_usage_logs_costs_not_negative")
        insert(db, "token_usage_logs", make(reported_cost="0.41"))


UNITS: list[tuple[str, bool]] = [
    ('{"web_searches": 4, "audio_seconds": 2.5}', True),
    ('{"web_searches": 0}', True),
    ('{"output_image_tokens": 1290, "passes": [{"model": "m", "input_tokens": 5}]}', True),
    ("{}", False),
    ("[]", False),
    ("4", False),
    ("null", False),
    ('{"web_searches": -1}', False),
    ('{"audio_seconds": "2.500000000000001"}', True),
    ('{"audio_seconds": "-2.5"}', False),
    ('{"audio_seconds": "NaN"}', False),
    ('{"audio_seconds": "2.5 seconds"}', False),
    ('{"audio_seconds": "2.5\\n"}', False),
    ('{"web_searches": ""}', False),
    ('{"web_searches": null}', False),
    ('{"web_searches": [4]}', False),
    ('{"web_searches": {"count": 4}}', False),
    ('{"web_searches": true}', False),
    ('{"passes": 2}', False),
    ('{"passes": {"input_tokens": 5}}', False),
    ('{"' + 4096 * "x" + '": 1}', False),
]


@pytest.mark.parametrize(("value", "fits"), UNITS)
def test_units_are_a_small_object_of_counts(db: Connection, value: str, fits: bool) -> None:
    """If this failed, a call could not be repriced, or text of a prompt be stored beside its counts."""
    if fits:
        insert(db, "token_usage_logs", a_call(billed_units=value))
    else:
        refuses(db, "token_usage_logs", a_call(billed_units=value), "token_usage_logs_billed_units")


@pytest.mark.parametrize("column", [*AMOUNTS, "price_version"])
def test_a_priced_call_has_every_amount_and_an_unpriced_one_none(db: Connection, column: str) -> None:
    """If this failed, an unknown price could pass for a cost of nothing."""
    refuses(db, "token_usage_logs", a_call(**{column: None}), "token_usage_logs_priced")
    refuses(db, "token_usage_logs", an_unpriced_call(**{column: "0"}), "token_usage_logs_priced")


def test_every_call_says_whether_it_is_priced(db: Connection) -> None:
    """If this failed, unpriced calls could not be found again."""
    with pytest.raises(NotNullViolation):
        insert(db, "token_usage_logs", a_call(priced=None))
    insert(db, "token_usage_logs", an_unpriced_call())


def test_a_cached_answer_costs_nothing_and_keeps_its_potential_cost(db: Connection) -> None:
    """If this failed, answers from the cache would be billed."""
    refuses(db, "token_usage_logs", a_call(cache_hit=True), "token_usage_logs_cache_hit_costs_nothing")
    insert(db, "token_usage_logs", a_call(cache_hit=True, **FREE))
    insert(db, "token_usage_logs", an_unpriced_call(cache_hit=True))


def test_a_blocked_call_costs_nothing(db: Connection) -> None:
    """If this failed, a call that never ran would be billed, or wait for a price."""
    rule = "token_usage_logs_blocked_costs_nothing"
    refuses(db, "token_usage_logs", a_call(status="blocked"), rule)
    refuses(db, "token_usage_logs", an_unpriced_call(status="blocked"), rule)
    insert(db, "token_usage_logs", a_call(status="blocked", **FREE))


@pytest.mark.parametrize("column", DURATIONS)
@pytest.mark.parametrize("value", ["NaN", "Infinity", "-1"])
def test_times_are_finite_and_not_negative(db: Connection, column: str, value: str) -> None:
    """If this failed, one NaN would make every average latency NaN."""
    refuses(db, "token_usage_logs", a_call(**{column: value}), "token_usage_logs_times_not_negative")


@pytest.mark.parametrize(
    ("column", "value"), [("service_type", "chat"), ("call_type", "image"), ("status", "done"), ("status", "OK")]
)
def test_a_misspelt_service_call_type_or_status_is_refused(db: Connection, column: str, value: str) -> None:
    """If this failed, a misspelt service would vanish from every report by service."""
    refuses(db, "token_usage_logs", a_call(**{column: value}), f"token_usage_logs_{column}")


@pytest.mark.parametrize("value", ["[]", '"text"', "3", '{"k": "' + 4096 * "x" + '"}'])
def test_metadata_is_a_small_object(db: Connection, value: str) -> None:
    """If this failed, metadata could carry whole prompts into the database."""
    refuses(db, "token_usage_logs", a_call(metadata=value), "token_usage_logs_metadata_small")


@pytest.mark.parametrize("value", ["infinity", "-infinity", "20000-01-01Z", "9999-12-31 23:59:59Z", "0044-03-15Z BC"])
def test_a_call_s_time_is_one_that_clients_can_read(db: Connection, value: str) -> None:
    """If this failed, one call with a wild clock would make every list of the newest calls fail."""
    refuses(db, "token_usage_logs", a_call(created_at=value), "token_usage_logs_created_at")


@pytest.mark.parametrize("status", ["ok", "error", "cancelled", "abandoned"])
def test_success_follows_from_the_status(db: Connection, status: str) -> None:
    """If this failed, success and status could contradict each other."""
    with db.transaction(force_rollback=True):
        db.execute(
            "insert into token_usage_logs (id, created_at, priced, status) values (gen_random_uuid(), now(), false, %s)",
            [status],
        )
        assert db.execute("select success from token_usage_logs").fetchone() == {"success": status == "ok"}


RUNS: list[tuple[Callable[..., Row], Row, str]] = [
    (a_run, {"service_type": "chat"}, "service_runs_service_type"),
    (a_run, {"status": "finished", "ended_at": "2026-01-15T10:00:01Z"}, "service_runs_status"),
    (a_run, {"status": "ok"}, "service_runs_ended"),
    (an_end, {"status": "running"}, "service_runs_ended"),
    (an_end, {"ended_at": "2026-01-15T09:59:59Z"}, "service_runs_order"),
    (a_run, {"metadata": "[]"}, "service_runs_metadata_small"),
]


@pytest.mark.parametrize(("make", "changes", "rule"), RUNS)
def test_a_service_run_with_impossible_times_or_status_is_refused(
    db: Connection, make: Any, changes: Row, rule: str
) -> None:
    """If this failed, a run could have ended before it began, or run on after its end."""
    refuses(db, "service_runs", make(**changes), rule)


def test_a_run_may_end_in_the_instant_it_began(db: Connection) -> None:
    """If this failed, very short runs would be lost."""
    insert(db, "service_runs", an_end(ended_at="2026-01-15T10:00:00Z"))


@pytest.mark.parametrize("column", PRICES)
@pytest.mark.parametrize("value", ["NaN", "Infinity", "-0.01"])
def test_prices_are_finite_and_not_negative(db: Connection, column: str, value: str) -> None:
    """If this failed, a slip in one price would make costs NaN or negative."""
    row = {"model": "m", "input_usd_per_mtok": "1", "valid_from": "2026-01-01Z", column: value}
    refuses(db, "model_prices", row, "model_prices_not_negative")


@pytest.mark.parametrize(
    "value",
    [
        "{}",
        "[]",
        "1",
        '{"web_searches": -0.01}',
        '{"web_searches": "0.01"}',
        '{"web_searches": null}',
        '{"web_searches": [1]}',
        '{"' + 2048 * "x" + '": 1}',
    ],
)
def test_unit_prices_are_a_small_object_of_amounts(db: Connection, value: str) -> None:
    """If this failed, a slip in one price would stop or falsify every cost with that unit."""
    row = {"model": "m", "input_usd_per_mtok": 1, "unit_prices": value}
    refuses(db, "model_prices", row, "model_prices_unit_prices")


@pytest.mark.parametrize("column", PRICES)
def test_a_price_without_a_price_for_prompts_is_of_units_alone(db: Connection, column: str) -> None:
    """If this failed, an entry for searches would make half of a model's tokens free."""
    units = {"model": "m", "unit_prices": '{"web_searches": 0.01}'}
    insert(db, "model_prices", units)
    insert(db, "model_prices", {**units, "input_usd_per_mtok": 1, column: 1})
    if column != "input_usd_per_mtok":
        refuses(db, "model_prices", {**units, column: 1}, "model_prices_complete")
        refuses(db, "model_prices", {"model": "m", column: 1}, "model_prices_complete")
    refuses(db, "model_prices", {"model": "m"}, "model_prices_complete")


def test_a_price_names_its_model(db: Connection) -> None:
    """If this failed, a price for nothing would sit in the table unnoticed."""
    refuses(db, "model_prices", {"model": "  ", "input_usd_per_mtok": 1}, "model_prices_model_named")


def test_one_price_a_model_and_instant_whatever_the_case(db: Connection) -> None:
    """If this failed, two prices would be in force at once."""
    db.execute(
        "insert into model_prices (provider, model, valid_from, input_usd_per_mtok) values ('A', 'M', '2026-01-01Z', 1)"
    )
    with pytest.raises(UniqueViolation):
        insert(
            db,
            "model_prices",
            {"provider": "a", "model": "m", "valid_from": "2026-01-01Z", "input_usd_per_mtok": 2},
        )


def test_members_have_a_known_role_and_are_members_once(db: Connection) -> None:
    """If this failed, a misspelt role would silently be no admin."""
    refuses(
        db,
        "organization_members",
        {"organization_id": "acme", "user_id": "a", "role": "owner"},
        "organization_members_role",
    )
    db.execute("insert into organization_members values ('acme', 'a')")
    with pytest.raises(IntegrityError):
        insert(db, "organization_members", {"organization_id": "acme", "user_id": "a", "role": "admin"})
