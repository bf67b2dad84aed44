"""`vital-tracking calls`: the calls that were asked for, with exact amounts, for people, programs and spreadsheets."""

from __future__ import annotations

import csv
import io
import json
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from tests.acceptance.cli.helpers import Cli, Several, fine, refused, some_calls
from tests.integration.helpers import dollars, only
from vital_tracking import Agent, VitalTracker
from vital_tracking.cli.render.seen import seen


def test_calls_filters_by_each_of_its_options(several: Several, tracker: VitalTracker) -> None:
    some_calls(tracker)
    with tracker.solution("care-plan", user_id="u-3"), tracker.panel("board", user_id="u-3", members=[Agent("sage")]):
        tracker.record(provider="openai", model="gpt-5", prompt_tokens=9, framework="autogen", message_type="summary")
    assert tracker.flush().complete

    yesterday = (datetime.now(UTC) - timedelta(days=1)).date().isoformat()
    newest = ["gpt-5", "house-llm-7b", "gpt-4o", "claude-haiku-4-5", "gpt-4o-mini"]
    expected = {
        (): [*newest, "gpt-4o"],
        ("--limit", "2"): newest[:2],
        ("--user", "u-1"): ["house-llm-7b", "gpt-4o-mini"],
        ("--user", "u-1", "--session", "s-1"): ["gpt-4o-mini"],
        ("--organization", "o-1"): ["gpt-4o-mini"],
        ("--agent", "cardio"): ["gpt-4o-mini"],
        ("--tier", "tier_1"): ["gpt-4o-mini"],
        ("--provider", "anthropic"): ["claude-haiku-4-5"],
        ("--framework", "autogen"): ["gpt-5"],
        ("--message-type", "summary"): ["gpt-5"],
        ("--panel", "board"): ["gpt-5"],
        ("--solution", "care-plan"): ["gpt-5"],
        ("--model", "gpt-4o"): ["gpt-4o", "gpt-4o"],
        ("--service", "workflow"): ["gpt-4o", "claude-haiku-4-5"],
        ("--workflow", "intake"): ["gpt-4o", "claude-haiku-4-5"],
        ("--status", "error"): ["claude-haiku-4-5"],
        ("--unpriced",): ["house-llm-7b"],
        ("--user", "nobody"): [],
        ("--until", "3h"): ["gpt-4o"],
        ("--since", "30m"): newest,
        ("--since", "24h"): newest,
        ("--since", "4d"): [*newest, "gpt-4o"],
        ("--since", yesterday): newest,
        ("--since", f"{yesterday}T00:00:00+00:00"): newest,
    }
    done = several(*(["calls", "--json", *arguments] for arguments in expected))
    found = [[row["model"] for row in json.loads(fine(one))] for one in done]
    assert dict(zip(expected, found, strict=True)) == expected


def test_calls_prints_exact_amounts(several: Several, tracker: VitalTracker) -> None:
    some_calls(tracker)
    one, waiting, table = several(["calls", "--json", "--session", "s-1"], ["calls", "--json", "--unpriced"], ["calls"])
    row = only(json.loads(fine(one)))
    assert isinstance(row["total_cost"], str), "a JSON number would be read as a float"
    assert Decimal(row["total_cost"]) == dollars((1000, "0.15"), (100, "0.60"))
    unpriced = only(json.loads(fine(waiting)))
    assert (unpriced["total_cost"], unpriced["priced"]) == (None, False)

    shown = fine(table)
    assert re.search(r"1:1_conversation / u-1 / Cardiologist +gpt-4o-mini +1,100 +\$0\.00021 ", shown)
    assert re.search(r"house-llm-7b +450 +unpriced ", shown)
    assert re.search(r"gpt-4o +1,100 +\$0\.0035 +850 +ok", shown)
    assert "error TimeoutError" in shown
    assert "quoting somebody" not in shown


def test_calls_without_any_says_where_to_get_some(several: Several) -> None:
    shown, listed = several(["calls"], ["calls", "--json"])
    assert "vital-tracking demo" in fine(shown)
    assert json.loads(fine(listed)) == []


def test_calls_as_csv_holds_nothing_that_a_spreadsheet_runs(cli: Cli, tracker: VitalTracker) -> None:
    for user in ("=HYPERLINK(1)", "+1", "-1", "@SUM(1)", "plain, with a comma"):
        tracker.record(provider="openai", model="gpt-4o", prompt_tokens=1, completion_tokens=0, user_id=user)
    tracker.flush()
    rows = list(csv.DictReader(io.StringIO(fine(cli("calls", "--csv")))))
    assert {row["user_id"] for row in rows} == {"'=HYPERLINK(1)", "'+1", "'-1", "'@SUM(1)", "plain, with a comma"}
    assert not any(cell.startswith(("=", "+", "-", "@")) for row in rows for cell in row.values())
    assert {Decimal(row["total_cost"]) for row in rows} == {dollars((1, "2.50"))}


@pytest.mark.parametrize(
    "line",
    [
        ["runs", "--workflow", ""],
        ["run", " "],
        ["export", "x.csv", "--agent", ""],
        ["report", "models", "--organization", ""],
        ["members", "list", "--organization", ""],
        ["subscriptions", "list", "--organization", ""],
        ["quotas", "--organization", ""],
        ["rate-limits", "--organization", ""],
        ["alerts", "list", "--organization", ""],
        ["health", "--organization", ""],
        ["forget-user", "u-1", "--organization", ""],
        ["prices", "set", "", "--input", "1", "--output", "1"],
    ],
)
def test_a_name_that_is_empty_is_told_from_one_that_nothing_has(several: Several, line: list[str]) -> None:
    """If this failed, a variable of a script that is not set would read as if nobody had called."""
    (done,) = several(line)
    assert "is empty" in done.stderr
    assert done.returncode == 2, done.stdout + done.stderr


@pytest.mark.parametrize(
    "line",
    [
        ["abuse", "show", f"{2**63}"],
        ["abuse", "unmark", f"{2**63}"],
        ["plans", "set", "team", "--calls", f"{10**15 + 1}", "--tokens", "5"],
        ["plans", "set", "team", "--calls", "9" * 5000, "--tokens", "5"],
    ],
)
def test_a_number_that_no_column_holds_is_refused_before_the_database_is_asked(
    several: Several, line: list[str]
) -> None:
    """If this failed, a slip would read as if the database lacked its migrations."""
    (done,) = several(line)
    assert "Invalid value" in done.stderr
    assert done.returncode == 2, done.stdout + done.stderr


def test_calls_says_what_it_does_not_understand(several: Several) -> None:
    hints = {
        ("--since", "soon"): "30m, 24h or 7d",
        ("--since", "99999999999999w"): "30m, 24h or 7d",
        ("--since", "2026-13-45"): "2026-01-31",
        ("--since", "9999-12-31"): "days are from 1970-01-01 to 2999-12-31",
        ("--since", "0001-01-01", "--timezone", "Asia/Tokyo"): "days are from 1970-01-01 to 2999-12-31",
        ("--since", "40000d"): "days are from 1970-01-01 to 2999-12-31",
        ("--since", "2026-02-01", "--until", "2026-01-01"): "--since must be earlier than --until",
        ("--month", "0001-01", "--timezone", "Asia/Tokyo"): "it looks like 2026-11",
        ("--month", "9999-12"): "it looks like 2026-11",
        ("--timezone", "localtime"): "is no IANA time zone",
        ("--timezone", "Factory"): "is no IANA time zone",
        ("--timezone", "CET"): "Europe/Berlin",
        ("--after", "0001-01-01T00:00:00+00:00/0193f2c4-1a2b-7c3d-8e4f-5a6b7c8d9e0f"): "--after takes the place",
        ("--only", "begun_from=0001-01-01T00:00:00+14:00"): "2026-11-02T08:00:00Z",
        ("--user", ""): "--user is empty",
        ("--organization", " "): "--organization is empty",
        ("--model", "x" * 300): "--model holds characters that no call carries, or is longer than 256",
        ("--status", "fine"): "One of: ok, error, cancelled, abandoned, blocked",
        ("--limit", "0"): "--limit",
        ("--limit", "many"): "--limit",
        ("--nonsense",): "--nonsense",
    }
    for hint, done in zip(hints.values(), several(*(["calls", *arguments] for arguments in hints)), strict=True):
        assert hint in refused(done, code=2)


def test_values_are_completed_by_what_was_seen(
    tracker: VitalTracker, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this failed, people would type ids by heart; or a key would end in a traceback while the database is away."""
    some_calls(tracker)
    monkeypatch.setenv("VITAL_DATABASE_URL", database_url)
    assert seen("models", "model")("gpt") == ["gpt-4o", "gpt-4o-mini"]
    assert seen("users", "user_id")("u-") == ["u-1", "u-2", "u-old"]
    assert seen("agents", "agent_id")("x") == []
    monkeypatch.setenv("VITAL_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    assert seen("models", "model")("gpt") == []
