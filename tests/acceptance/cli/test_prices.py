"""`vital-tracking prices` and `reprice`: the team's own prices, and calls that waited for one."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from tests.acceptance.cli.helpers import Cli, Several, fine, refused, some_calls
from tests.integration.helpers import Rows, dollars, only
from tests.sql.helpers import an_unpriced_call
from vital_tracking import VitalTracker
from vital_tracking.stores.postgres import PostgresStore


def test_a_price_set_is_listed_and_shown(several: Several, rows: Rows) -> None:
    none_yet, _, as_json, as_table, own, other, _ = several(
        ["prices", "list"],
        ["prices", "set", "gpt-4o", "--input", "2.25", "--output", "9", "--provider", "openai", "--note", "contract"],
        ["prices", "list", "--json"],
        ["prices", "list"],
        ["prices", "show", "gpt-4o", "--provider", "openai"],
        ["prices", "show", "gpt-4o-mini"],
        ["prices", "set", "gpt-4o", "--input", "2", "--output", "8", "--provider", "openai"],
    )
    assert "genai-prices has them all" in fine(none_yet)
    entry, later = rows(
        "select provider, model, input_usd_per_mtok, output_usd_per_mtok, note, valid_from from model_prices order by id"
    )
    assert entry.pop("valid_from") == datetime(1970, 1, 1, tzinfo=UTC), "calls that wait for the first price are older"
    assert later["valid_from"] > datetime.now(UTC) - timedelta(minutes=5), "a second price counts from now on"
    assert list(entry.values()) == ["openai", "gpt-4o", Decimal("2.25"), Decimal(9), "contract"]
    listed = only(json.loads(fine(as_json)))
    assert (listed["input_usd_per_mtok"], listed["output_usd_per_mtok"]) == ("2.25", "9")
    assert re.search(r"openai +gpt-4o +.* 2\.25 +9", fine(as_table))
    assert "model_prices" in fine(own)
    assert re.search(r"input tokens +\$2\.25 per million", own.stdout)
    assert "genai-prices" in fine(other)


def test_a_price_takes_every_amount_and_a_date(several: Several, rows: Rows) -> None:
    amounts = {
        "--input": "1",
        "--output": "2",
        "--cache-read": "0.1",
        "--cache-write": "1.25",
        "--cache-write-1h": "2",
        "--reasoning": "3",
        "--audio-input": "4",
        "--audio-output": "5",
        "--request": "0.005",
    }
    dated = ["prices", "set", "house-llm-7b", "--from", "2026-01-31"]
    given = [part for pair in amounts.items() for part in pair]
    first, shown, again = several([*dated, *given], ["prices", "show", "house-llm-7b"], [*dated, "--input", "9"])
    fine(first)
    entry = only(rows("select * from model_prices"))
    assert entry["valid_from"] == datetime(2026, 1, 31, tzinfo=UTC)
    stored = [value for name, value in entry.items() if name.endswith("_usd_per_mtok")] + [entry["request_usd"]]
    assert stored == [Decimal(amount) for amount in amounts.values()]
    assert "$0.005 each" in fine(shown)
    assert refused(again)
    assert only(rows("select input_usd_per_mtok from model_prices"))["input_usd_per_mtok"] == 1, "never overwritten"


def test_a_price_of_units_is_set_alone_or_beside_those_of_tokens(several: Several, rows: Rows) -> None:
    both, alone, listed, shown = several(
        ["prices", "set", "m", "--input", "1", "--unit", "web_searches=0.010", "--unit", "output_image_tokens = 30"],
        ["prices", "set", "n", "--provider", "openai", "--unit", "web_searches=0.008"],
        ["prices", "list", "--json"],
        ["prices", "list"],
    )
    assert "m: $1 in, $0 out per million tokens, web searches $0.010 each, output image tokens $30 per million" in fine(
        both
    )
    assert "n: web searches $0.008 each, from the first call on" in fine(alone)
    units = {row["model"]: (row["input_usd_per_mtok"], row["unit_prices"]) for row in json.loads(fine(listed))}
    assert units == {
        "m": ("1", {"web_searches": "0.010", "output_image_tokens": "30"}),
        "n": (None, {"web_searches": "0.008"}),
    }
    assert re.search(r"openai +n +the first call +web_searches 0\.008", fine(shown))
    found = rows(
        "select model, output_usd_per_mtok, unit_prices ->> 'web_searches' as price from model_prices order by model"
    )
    assert [tuple(row.values()) for row in found] == [("m", Decimal(0), "0.010"), ("n", None, "0.008")]


def test_a_unit_that_nobody_knows_or_a_price_of_nothing_is_refused(several: Several, rows: Rows) -> None:
    wrong = {
        ("--input", "1", "--unit", "web_search=0.01"): "did you mean web_searches",
        ("--unit", "image=0.01"): "output_image_tokens",
        ("--unit", "web_searches"): "web_searches=0.01",
        ("--unit", "web_searches=a cent"): "--unit web_searches must be an amount",
        ("--unit", "web_searches=-1"): "--unit web_searches must be an amount",
        ("--output", "1", "--unit", "web_searches=1"): "--input is missing",
        ("--output", "1"): "--input is missing",
        (): "give --input, --unit or both",
    }
    for said, done in zip(
        wrong.values(), several(*(["prices", "set", "m", *options] for options in wrong)), strict=True
    ):
        assert said in refused(done, code=2)
    assert rows("select * from model_prices") == []


UNREACHED = {"HTTPS_PROXY": "http://127.0.0.1:1", "NO_PROXY": ""}


def test_prices_that_changed_are_found_and_calls_keep_theirs(
    cli: Cli, several: Several, tracker: VitalTracker, rows: Rows
) -> None:
    some_calls(tracker)
    before = rows("select id, total_cost from token_usage_logs order by id")
    same, listed = several(["prices", "check", "--offline"], ["prices", "check", "--offline", "--json"])
    assert "5 calls: all cost what they would by these prices" in fine(same)
    assert json.loads(fine(listed))["changes"] == []

    *_, table, listed, none = several(
        ["prices", "set", "gpt-4o", "--input", "5", "--output", "20"],
        ["prices", "set", "house-llm-7b", "--input", "1", "--output", "1"],
        ["prices", "check", "--offline", "--since", "4d"],
        ["prices", "check", "--offline", "--since", "4d", "--json"],
        ["prices", "check", "--offline", "--since", "1s"],
    )
    said = fine(table)
    assert "2 prices of your own" in said
    assert "3 of 5 calls would cost something else" in said
    assert re.search(r"openai +gpt-4o +2 +\$0\.0070 +\$0\.0140 +\+\$0\.0070 +genai-prices ", said)
    assert re.search(r"in_house +house-llm-7b +1 +unpriced +\$0\.00045 +\+\$0\.00045", said)
    assert "vital-tracking reprice" in said
    found = {row["model"]: row for row in json.loads(fine(listed))["changes"]}
    assert Decimal(found["gpt-4o"]["difference"]) == 2 * dollars((1000, "2.50"), (100, "10"))
    assert found["house-llm-7b"]["stored"] is None
    assert "0 calls: all cost" in fine(none)
    assert rows("select id, total_cost from token_usage_logs order by id") == before

    away = cli("prices", "check", **UNREACHED)
    assert "cannot be fetched (ConnectError). Compared with the installed ones." in fine(away)


def test_what_a_provider_reports_stands_beside_what_we_count(cli: Cli, tracker: VitalTracker, rows: Rows) -> None:
    some_calls(tracker)
    rows(
        "update token_usage_logs set reported_cost = total_cost + case model when 'gpt-4o' then 0.001 else 0 end"
        " where priced returning id"
    )
    done = cli("prices", "check", "--offline", "--json")
    reported = only(json.loads(fine(done))["reported"])
    assert (reported["model"], reported["calls"], Decimal(reported["difference"])) == ("gpt-4o", 2, Decimal("0.002"))
    said = fine(cli("prices", "check", "--offline"))
    assert re.search(r"openai +gpt-4o +2 +\$0\.0090 +\$0\.0070 +\+\$0\.0020", said)


AMOUNTS_REFUSED = ("-1", "nan", "inf", "1,50", "", "1e400", "1e-320")


def test_a_price_that_is_no_amount_or_from_no_date_is_refused(several: Several, rows: Rows) -> None:
    amounts = [["prices", "set", "m", "--input", "1", f"--output={text}"] for text in AMOUNTS_REFUSED]
    *refusals, undated = several(*amounts, ["prices", "set", "m", "--input", "1", "--from", "tomorrow"])
    for done in refusals:
        assert "--output" in refused(done, code=2)
    assert "--from" in refused(undated, code=2)
    assert rows("select * from model_prices") == []


def test_a_model_without_a_price_is_shown_how_to_get_one(cli: Cli) -> None:
    done = cli("prices", "show", "house-llm-7b")
    assert (done.returncode, done.stderr) == (1, "")
    assert "vital-tracking prices set house-llm-7b --input USD --output USD" in done.stdout


def test_reprice_prices_what_waited_once_and_leaves_the_rest(
    several: Several, tracker: VitalTracker, rows: Rows
) -> None:
    some_calls(tracker)
    before = {row["id"]: row["total_cost"] for row in rows()}
    cost = dollars((400, "0.40"), (50, "1.20"))

    # The advice of `doctor`, as it stands: the price reaches back to the calls that wait for it.
    too_early, _, dry = several(
        ["reprice"],
        ["prices", "set", "house-llm-7b", "--input", "0.40", "--output", "1.20"],
        ["reprice", "--dry-run"],
    )
    assert "1 call still without a price" in fine(too_early)
    assert "would price 1 of 1 call: $0.00022" in fine(dry)
    assert {row["id"]: row["total_cost"] for row in rows()} == before

    real, _, again = several(["reprice"], ["prices", "set", "house-llm-7b", "--input", "99"], ["reprice"])
    assert "priced 1 of 1 call: $0.00022" in fine(real)
    assert "priced 0 of 0 calls" in fine(again)
    after = {row["id"]: row["total_cost"] for row in rows()}
    assert after == {call: cost if amount is None else amount for call, amount in before.items()}, (
        "a call keeps its price"
    )
    priced = only(rows("select * from token_usage_logs where model = 'house-llm-7b'"))
    assert (priced["priced"], priced["input_cost"], priced["output_cost"]) == (
        True,
        dollars((400, "0.40")),
        dollars((50, "1.20")),
    )


def test_reprice_prices_searches_and_every_pass_of_an_answer(
    several: Several, store: PostgresStore, rows: Rows
) -> None:
    """If this failed, a call that waited for its price would never pay for what it searched."""
    model = {"provider": "in_house", "model": "house-llm-7b"}
    passes = [
        {"prompt_tokens": 60, "completion_tokens": 10},
        {"prompt_tokens": 40, "completion_tokens": 10},
        {"model": "house-advisor", "prompt_tokens": 1000, "completion_tokens": 500},
    ]
    calls = [
        an_unpriced_call(1, **model, billed_units={"web_searches": 3, "audio_seconds": "2.5"}),
        an_unpriced_call(2, **model, billed_units={"web_searches": 1, "passes": passes}),
    ]
    assert store.call("record_calls_v1", calls=json.dumps(calls))["inserted"] == 2
    *_, done = several(
        [
            *("prices", "set", "house-llm-7b", "--input", "1", "--output", "2"),
            *("--unit", "web_searches=0.01", "--unit", "audio_seconds=0.0004"),
        ],
        ["prices", "set", "house-advisor", "--input", "3", "--output", "4"],
        ["reprice"],
    )
    assert "priced 2 of 2 calls" in fine(done)
    searched, advised = rows("select * from token_usage_logs order by id")
    tokens = (dollars((100, "1")), dollars((20, "2")))
    assert (searched["input_cost"], searched["output_cost"], searched["fees"]) == (*tokens, Decimal("0.031"))
    advice = dollars((1000, "3"), (500, "4"))
    assert (advised["input_cost"], advised["output_cost"], advised["fees"]) == (*tokens, Decimal("0.01") + advice)
    assert advised["total_cost"] == sum(tokens) + Decimal("0.01") + advice
