"""`vital-tracking report`, `refresh`, `backfill` and what `doctor` says of sums, on a real database."""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import json
import re
import shlex
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import psycopg
import pytest
from typer.main import get_command

from tests.acceptance.helpers import COMMAND, environment
from tests.integration.helpers import Rows, only
from tests.sql.helpers import a_call, an_unpriced_call
from tests.support.fault_proxy import FaultProxy
from tests.support.postgres import PostgresServer
from vital_tracking.cli.app import app
from vital_tracking.cli.render.console import console
from vital_tracking.cli.report import tables
from vital_tracking.cli.report.charts import course, periods_between, sparkline
from vital_tracking.cli.report.forecast import error_sentence, forecast_sentence, forecast_text
from vital_tracking.queries.catalogue import GROUPINGS, Grouping
from vital_tracking.queries.csv import safe_cell
from vital_tracking.queries.filters import Filters
from vital_tracking.queries.forecast import cost_forecast
from vital_tracking.queries.usage import usage_report
from vital_tracking.stores.postgres import PostgresStore

Report = Callable[..., str]

DAYS = ("--since", "2026-01-10", "--until", "2026-01-20")
JANUARY = Filters(since=datetime(2026, 1, 10, tzinfo=UTC), until=datetime(2026, 1, 20, tzinfo=UTC))
MARCH = ("--since", "2026-03-20", "--until", "2026-04-01")


def costing(amount: str) -> dict[str, str]:
    return {"input_cost": amount, "output_cost": "0", "total_cost": amount, "potential_cost": amount}


CARDIO = {"agent_id": "cardio", "agent_name": "Cardiologist", "agent_tier": "tier_1"}
TALK = {
    "organization_id": "acme",
    "user_id": "u-1",
    "service_type": "1:1_conversation",
    "provider": "openai",
    "model": "gpt-4o",
    **CARDIO,
}
SEAT = {
    "organization_id": "acme",
    "user_id": "u-2",
    "service_type": "virtual_panel",
    "panel_id": "launch-board",
    "panel_position": 2,
    "panel_size": 3,
    "agent_id": "legal",
    "provider": "openai",
    "model": "gpt-4o-mini",
}
STEP = {
    "organization_id": "globex",
    "user_id": "=cmd()",
    "service_type": "workflow",
    "workflow_id": "intake",
    "workflow_step": "triage",
    "workflow_step_name": "Triage",
    "provider": "anthropic",
    "model": "claude-haiku-4-5",
}
FREE = {**costing("0"), "potential_cost": "0.42"}
TOTAL, POTENTIAL = Decimal("2.680000001"), Decimal("3.100000001")


def some_usage() -> list[dict[str, Any]]:
    """Ten days of January with a call of each sort, and a March with one day and one request that stand out."""
    number = itertools.count(1)

    def on(day: str, **columns: Any) -> dict[str, Any]:
        return a_call(next(number), created_at=f"{day}T10:00:00+00:00", **columns)

    calls = [
        on("2026-01-12", **TALK, latency_ms=850),
        on("2026-01-14", **TALK, latency_ms=900),
        on("2026-01-14", **TALK, usage_estimated=True),
        on("2026-01-15", **TALK, cache_hit=True, **FREE),
        on("2026-01-15", **SEAT, cache_read_tokens=50, **costing("1.000000001")),
        on(
            "2026-01-15", **SEAT, status="blocked", prompt_tokens=0, completion_tokens=0, total_tokens=0, **costing("0")
        ),
        on("2026-01-16", **STEP, status="error", error_type="TimeoutError"),
        an_unpriced_call(next(number), **{**TALK, "model": "house-llm-7b"}),
    ]
    days = [date(2026, 3, 1) + timedelta(days=n) for n in range(25)]
    calls += [on(str(day), **TALK, **costing("9" if day.day == 24 else "0.40")) for day in days]
    calls += [on("2026-03-25", **SEAT, request_hash="ab" * 32) for _ in range(3)]
    return calls


@pytest.fixture(scope="module")
def usage_url(postgres_server: PostgresServer, template_database: str) -> Iterator[str]:
    """The URL of a database with some usage, which tests only read."""
    postgres_server.create_database("reports", template=template_database)
    store = PostgresStore(postgres_server.url("reports"))
    answer = store.call("record_calls_v1", calls=json.dumps(some_usage()))
    assert answer["rejected"] == []
    store.call(
        "set_budget_v1", budget=json.dumps({"entity_type": "organization", "entity_id": "acme", "monthly_limit": "21"})
    )
    store.call(
        "set_budget_v1",
        budget=json.dumps(
            {"entity_type": "organization", "monthly_limit": "10", "action": "block", "timezone": "Europe/Berlin"}
        ),
    )
    store.close()
    yield postgres_server.url("reports")
    postgres_server.drop_database("reports")


@pytest.fixture
def usage(usage_url: str) -> Iterator[PostgresStore]:
    """A store on the database with some usage."""
    store = PostgresStore(usage_url)
    yield store
    store.close()


COMMAND_LINE = get_command(app)
"""Put together once, not for every command: that takes longer than most of them."""


@dataclass(frozen=True)
class Done:
    """What a command ended with, and what it said."""

    code: int
    stdout: str
    stderr: str


def execute(*words: str, encoding: str = "utf-8") -> Done:
    """Run `vital-tracking` in this process, as in a terminal with such an encoding."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2))
    code: Any = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            COMMAND_LINE.main([*words], prog_name="vital-tracking")
        except SystemExit as end:
            code = end.code or 0
    said = []
    for stream in (out, err):
        stream.flush()
        said.append(cast("io.BytesIO", stream.buffer).getvalue().decode(encoding))
        stream.close()
    return Done(code, *said)


def fine(done: Done) -> str:
    assert (done.code, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test depends on the terminal that it is run from."""
    monkeypatch.setattr(console, "_width", 200)


@pytest.fixture
def report(usage_url: str, monkeypatch: pytest.MonkeyPatch) -> Report:
    """Runs `vital-tracking report` on the database with some usage; what it printed."""
    monkeypatch.setenv("VITAL_DATABASE_URL", usage_url)
    return lambda *words, **options: fine(execute("report", *words, **options))


@pytest.fixture
def run(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Done]:
    """Runs `vital-tracking` on this test's database."""
    monkeypatch.setenv("VITAL_DATABASE_URL", database_url)
    return execute


def line_of(said: str, beginning: str) -> str:
    """The one line that begins so."""
    found = [line for line in said.splitlines() if line.strip().startswith(beginning)]
    assert len(found) == 1, said
    return found[0]


# Help and what is refused


def test_help_names_every_option_with_examples() -> None:
    """Nobody would find what there is."""
    options = {
        "report": [
            "--days",
            "--since",
            "--until",
            "--organization",
            "--limit",
            "--exact",
            "--period",
            "--timezone",
            "--csv",
        ],
        "refresh": ["--every"],
        "backfill": ["--since", "--until"],
        "doctor": ["--full", "--json"],
    }
    for name, wanted in options.items():
        said = fine(execute(name, "--help"))
        assert f"  vital-tracking {name}" in said.partition("Examples:")[2]
        assert [option for option in wanted if option not in said] == []


def test_a_wrong_option_is_refused_with_what_to_write(run: Callable[..., Done]) -> None:
    """A typing error would become a report of something else."""
    for words, hint in {
        "cost": "services",
        "--csv": "vital-tracking report services --csv",
        "forecast --days 3": "leave out --days",
        "users --days 3 --since 3d": "leave one of them out",
        "users --since 2026-02-01 --until 2026-01-01": "must be earlier than --until",
        "users --since tomorrow": "--since takes a span",
        "forecast --period week": "One of: day, month",
        "forecast --timezone Europe/Berln": "did you mean Europe/Berlin",
    }.items():
        done = run("report", *words.split())
        assert done.code == 2
        assert hint in done.stderr


def test_without_any_call_it_says_what_to_do(run: Callable[..., Done], store: PostgresStore) -> None:
    """An empty table would leave a newcomer with no idea of what comes next; programs get their empty rows."""
    for name in ("", "panels", "forecast", "anomalies", "duplicates"):
        assert "vital-tracking demo" in fine(run("report", *name.split()))
    assert json.loads(fine(run("report", "users", "--json")))["rows"] == []
    columns = fine(run("report", "users", "--csv"))
    assert columns.startswith("organization_id,user_id,services,last_day,calls,")
    assert columns.count("\n") == 1
    assert "no day waits" in fine(run("backfill"))

    store.call("record_calls_v1", calls=json.dumps([a_call(**TALK)]))
    said = fine(run("report", "--until", "2020-01-01"))
    assert "The last was on 2026-01-15: vital-tracking report --since 2026-01-15" in said
    assert "Which organizations there are: vital-tracking report organizations" in fine(
        run("report", "--organization", "nobody")
    )
    assert "No call of a panel" in fine(run("report", "panels", *DAYS))
    assert "Nothing out of the ordinary" in fine(run("report", "anomalies", *DAYS))
    assert "VITAL_HASH_KEY" in fine(run("report", "duplicates", *DAYS))


# Usage


def test_every_row_and_the_total_say_what_was_spent(report: Report) -> None:
    """An admin would read other amounts than the bill's."""
    said = report("services", *DAYS)
    assert said.startswith("Services, 10 Jan to 19 Jan 2026, 10 days (UTC)")
    heading = said.splitlines()[1].split()
    assert (
        " ".join(heading) == "service calls tokens cost share by day p50 p95 failed blocked saved hit rate tokens a $"
    )
    assert line_of(said, "1:1_conversation").split()[:5] == ["1:1_conversation", "5", "600~", "$1.26*", "47"]
    assert re.search(r"virtual_panel +2 +120 +\$1\.00 +37 %", said)
    assert re.search(r"workflow +1 +120 +\$0\.42 +16 %", said)
    total = line_of(said, "total").split()
    assert total[:4] == ["total", "8", "840~", "$2.68*"]
    assert total[-5:] == ["1", "1", "$0.42", "12", "%"]
    assert "▁▁▅▁█▁▁▁▁▁" in said
    assert "██████████" in line_of(said, "1:1_conversation")
    assert "* 1 of 8 calls without a known price, in no amount here. Which: vital-tracking calls --unpriced" in said
    assert "vital-tracking prices set MODEL --input USD --output USD, then: vital-tracking reprice" in said
    assert "~ tokens of 1 of 8 calls are estimates" in said
    assert "$2.680000001*" in report("services", *DAYS, "--exact")


def test_fees_and_what_providers_report_have_columns_where_there_are_any(
    run: Callable[..., Done], store: PostgresStore
) -> None:
    """An admin would not see what searches cost, or that a provider's bill is another one."""
    searched = {"fees": "0.04", "total_cost": "0.46", "potential_cost": "0.46", "billed_units": {"web_searches": 4}}
    calls = [a_call(1, **TALK), a_call(2, **TALK, **searched), a_call(3, **SEAT, **searched, reported_cost="0.50")]
    assert store.call("record_calls_v1", calls=json.dumps(calls))["inserted"] == 3
    services, models = (fine(run("report", name, *DAYS)) for name in ("services", "models"))
    assert re.search(r" cost +fees +share ", services)
    assert re.search(r"1:1_conversation +2 +240 +\$0\.88 +\$0\.04 ", services)
    assert re.search(r"total +3 +360 +\$1\.34 +\$0\.08 ", services)
    assert "reported cost" not in services
    assert re.search(r"cost of these by our prices *$", models.splitlines()[1])
    assert re.search(r"gpt-4o-mini .*\$0\.50 +\$0\.46 *$", models, re.MULTILINE)
    row = json.loads(fine(run("report", "models", *DAYS, "--json")))["rows"][0]
    assert (row["fees"], row["reported_calls"], row["reported_cost"], row["reported_total_cost"]) == (
        "0.04",
        0,
        "0",
        "0",
    )


def test_each_report_names_its_rows(report: Report) -> None:
    """Nobody could tell whose cost it is."""
    users, agents, models = (report(name, *DAYS) for name in ("users", "agents", "models"))
    assert re.search(r"^u-1 +acme +1 +2026-01-15 +5 ", users, re.MULTILINE)
    assert re.search(r"^=cmd\(\) +globex +1 +2026-01-16 +1 ", users, re.MULTILINE)
    assert re.search(r"^Cardiologist \(cardio\) +acme +tier_1 +5 ", agents, re.MULTILINE)
    assert re.search(r"^\(none\) +globex +1 ", agents, re.MULTILINE)
    assert re.search(r"^house-llm-7b +openai +1 +120 +unpriced\*", models, re.MULTILINE)
    assert re.search(r"^launch-board +acme +2 +legal +2 ", report("panels", *DAYS), re.MULTILINE)
    assert re.search(r"^intake +globex +Triage +1 ", report("workflows", *DAYS), re.MULTILINE)
    cache = report("cache", *DAYS)
    assert re.search(r"^1:1_conversation +gpt-4o +4 +\$1\.68 +\$1\.26 +\$0\.42 +25 % +█+ +25 %", cache, re.MULTILINE)
    assert "globex" not in report("users", *DAYS, "--organization", "acme")
    assert "$2.26" in line_of(report("users", *DAYS, "--organization", "acme"), "total")


def test_the_catalogue_is_that_of_the_database(usage: PostgresStore) -> None:
    """A measure or a label of one of them alone would be an empty column, or be shown to nobody."""
    for grouping in GROUPINGS.values():
        answer = usage_report(usage, grouping.name, JANUARY)
        for row in answer["rows"]:
            assert set(row) == {*grouping.columns, "days"}, grouping.name


@pytest.mark.parametrize("labels", [("service_type",), ("organization_id", "team_id", "squad")])
def test_a_new_grouping_is_shown_by_its_labels(
    labels: tuple[str, ...], usage: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever adds a grouping would have to find the table that draws it, or see a traceback."""
    answer = usage_report(usage, "services", JANUARY)
    for row in answer["rows"]:
        row.update({"team_id": "cardiology", "squad": None})
    monkeypatch.setattr(tables, "GROUPINGS", {"teams": Grouping("teams", "Teams", labels)})
    with console.capture() as shown:
        console.print(tables.usage_table({**answer, "report": "teams"}, title="Teams"))
    heading = labels[-2 if len(labels) > 1 else 0].replace("_", " ")
    assert shown.get().splitlines()[1].startswith(heading)


def test_rows_that_are_not_shown_are_summed_up(report: Report) -> None:
    """The rows would not add up to the total, and nobody would know that there are more."""
    said = report("users", *DAYS, "--limit", "1")
    assert line_of(said, "u-1").split()[0] == "u-1"
    assert re.search(r"\(others\) +3 +240 +\$1\.42 +53 %", said)
    assert re.search(r"total +8 ", said)
    following = line_of(said, "The first 1; for more:").partition("vital-tracking ")[2]
    assert following == "report users --since 2026-01-10 --until 2026-01-20 --limit 10"
    assert "u-2" in report(*shlex.split(following)[1:])


def test_programs_get_every_digit(report: Report, usage: PostgresStore) -> None:
    """A float would lose the last decimals, and a name that begins with = would be run by a spreadsheet."""
    arguments = {"since": datetime(2026, 1, 10, tzinfo=UTC), "until": datetime(2026, 1, 20, tzinfo=UTC)}
    for name in ("users", "panels", "cache"):
        answer = json.loads(report(name, *DAYS, "--json"))
        asked = usage.call("usage_report_v1", report=name, organization=None, rows=1000, **arguments)
        assert {**answer, "fresh_at": None} == {**asked, "fresh_at": None}
        rows = list(csv.DictReader(io.StringIO(report(name, *DAYS, "--csv"))))
        assert [Decimal(row["total_cost"]) for row in rows] == [Decimal(row["total_cost"]) for row in answer["rows"]]
    services = json.loads(report("services", *DAYS, "--json"))["total"]
    assert (services["total_cost"], services["potential_cost"]) == (str(TOTAL), str(POTENTIAL))
    users = list(csv.DictReader(io.StringIO(report("users", *DAYS, "--csv"))))
    assert [row["user_id"] for row in users] == ["u-1", "u-2", "'=cmd()"]
    assert users[1]["total_cost"] == "1.000000001"


def test_no_cell_is_a_formula_and_numbers_stay_numbers() -> None:
    """A spreadsheet would run what a user chose as a name."""
    for text in ("=1+1", "+1", "-1", "@x", "\tx", "\rx", "\nx", "\uff1d1"):
        assert safe_cell(text) == f"'{text}"
    values = (Decimal("-1E-7"), -2, 0.5, True, None, "a=1", ["=x"], date(2026, 1, 31))
    assert [safe_cell(value) for value in values] == [
        *("-0.0000001", "-2", "0.5", "True", "", "a=1", '["=x"]', "2026-01-31"),
    ]


def test_the_overview_of_all_reports_fits_on_one_screen(report: Report) -> None:
    """Whoever types the command alone would have to know the reports by heart."""
    said = report(*DAYS, "--organization", "acme")
    assert said.startswith("$2.26  10 Jan to 19 Jan 2026, 10 days (UTC), organization acme  ▁▁▄▁▇█▁▁▁▁\n")
    assert "7 calls, 1 blocked by budgets; 720 tokens; half of them within 8" in said
    assert "Caches saved $0.42 of $2.68, 16 %; 14 % of the calls came from LangChain's cache" in said
    assert "More: vital-tracking report forecast --organization acme" in line_of(said, "Spent on calls in ")
    titles = [line.strip() for line in said.splitlines() if line.strip() in ("Services", "Models", "Users")]
    assert titles == ["Services", "Models", "Users"]
    assert "Next: vital-tracking report users --since 2026-01-10 --until 2026-01-20 --organization acme" in said
    assert (
        "More: agents, panels, workflows, cache, organizations, sessions, solutions, runs, time, forecast, anomalies"
        in said
    )
    assert "duplicates" in said
    together = json.loads(report(*DAYS, "--json"))
    assert list(together) == ["services", "models", "users", "forecast", "other_costs"]
    assert together["services"]["total"]["total_cost"] == str(TOTAL)


def test_tables_fit_the_terminal(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a narrow window every line would be folded into three; in one without blocks there would be a traceback."""
    for width in (160, 100, 60):
        monkeypatch.setattr(console, "_width", width)
        table = report("users", *DAYS).partition("\n* ")[0].splitlines()
        assert max(map(len, table)) <= width
        assert re.search(r"u-1 .*\$1\.26\*", "\n".join(table))
    monkeypatch.setattr(console, "_width", 120)
    plain = report("services", *DAYS, encoding="ascii") + report(*DAYS, encoding="ascii")
    assert plain.isascii()
    assert "##########" in plain
    assert "__=_#_____" in plain


def test_a_day_without_calls_is_shown_as_nothing() -> None:
    """A day without calls would look like a cheap one, and the last day of several like a fall."""
    assert sparkline([Decimal(0), Decimal("0.001"), Decimal(100)]) == "▁▂█"
    assert sparkline([Decimal(0), Decimal(0)]) == "▁▁"
    days = {date(2026, 1, n): Decimal(n) for n in range(1, 8)}
    week = periods_between("day", datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 8, tzinfo=UTC), "UTC")
    assert course(days, week, 4) == [1, 5, 9, 13]
    assert course({}, week[:3]) == [0, 0, 0]


# Findings


def test_a_forecast_is_a_chart_and_plain_words(usage: PostgresStore, report: Report) -> None:
    """Whoever plans would get a number without its error, or not hear that a budget runs out before the month."""
    now = datetime(2026, 3, 25, 12, tzinfo=UTC)
    answer = cost_forecast(usage, organization="acme", period="month", timezone="UTC", moment=now)
    lines = [line.rstrip() for part in forecast_text(answer, exact=False) for line in part.plain.splitlines()]
    assert lines[0] == "Forecast for March 2026 (UTC), organization acme"
    assert lines[1].startswith("$9.00 ")
    assert "██" in lines[1]
    assert lines[8].split() == [str(day) for day in range(1, 32)]
    assert lines[7].split() == ["▂▂"] * 23 + ["██"] * 2 + ["░░"] * 6
    said = "\n".join(lines)
    spent = answer["spent"]
    assert spent == Decimal("0.40") * 24 + 9 + Decimal("0.42") * 3
    assert f"Spent on calls in March: ${spent}, and by the end about $" in said
    assert "most likely $" in said
    assert "The last 7 days cost $" in said
    assert re.search(r"it was off by [\d.]+ % on average|How right it is cannot be told yet", said)
    assert re.search(r"Budget 2, \$10 a month \(block\): ran out about 2\d Mar \d\d:\d\d CET\. See: vital-", said)
    assert re.search(r"Budget 1, \$21 a month \(alert\): (lasts, 9\d % of it|runs out about \d\d Mar)", said)

    early = cost_forecast(usage, organization="acme", moment=datetime(2026, 3, 2, 12, tzinfo=UTC))
    assert early["error"] is None
    assert forecast_sentence(early).startswith("Spent on calls in March: $0.80, and by the end about $")
    assert ", perhaps $0.80 to $" in forecast_sentence(early)
    assert "How right it is cannot be told yet" in error_sentence(early["error"])

    assert sum(on_the_day or 0 for _, on_the_day, _ in answer["days"]) == spent
    live = json.loads(report("forecast", "--organization", "acme", "--timezone", "Asia/Kolkata", "--json"))
    assert live["timezone"] == "Asia/Kolkata"
    rows = list(csv.DictReader(io.StringIO(report("forecast", "--csv"))))
    assert rows[0]["day"].endswith("-01")
    assert len(rows) >= 28


def test_an_anomaly_comes_with_the_query_that_shows_it(report: Report, usage_url: str) -> None:
    """An admin would hear that something is odd, and search for the rows."""
    said = report("anomalies", *MARCH)
    found = re.search(r"2026-03-24 +agent cardio +acme +cost +\$9\.00 +\$0\.40 +22\.5 +1 +\$8\.60", said)
    assert found, said
    queries = [line for line in said.splitlines() if line.startswith("select ")]
    rows = json.loads(report("anomalies", *MARCH, "--json"))["rows"]
    assert len(queries) == len(rows) >= 2
    with psycopg.connect(usage_url) as connection:
        for query in queries:
            names = [column.name for column in connection.execute(query.encode()).description or []]
            row = only([dict(zip(names, values, strict=True)) for values in connection.execute(query.encode())])
            assert row["total_cost"] == 9
    listed = list(csv.DictReader(io.StringIO(report("anomalies", *MARCH, "--csv"))))
    assert {row["value"] for row in listed} == {"9"}


def test_repeated_requests_show_what_a_cache_would_save(report: Report, usage_url: str) -> None:
    """Nobody would know that the same answer is paid for again and again."""
    said = report("duplicates", *MARCH)
    assert re.search(r"abababababab +3 +gpt-4o-mini +legal +2026-03-25 10:00 +2026-03-25 10:00 +\$1\.26 +\$0\.84", said)
    assert "1 request made again, 2 times in all: a cache of answers would have saved $0.84" in said
    query = said.partition("in SQL: ")[2].strip()
    with psycopg.connect(usage_url) as connection:
        assert len(connection.execute(query.encode()).fetchall()) == 3
    row = only(list(csv.DictReader(io.StringIO(report("duplicates", *MARCH, "--csv")))))
    assert (row["calls"], row["saved_by_caching"]) == ("3", "0.84")
    assert json.loads(report("duplicates", *MARCH, "--json"))["saved_by_caching"] == "0.84"


# refresh, backfill, doctor


def test_refresh_says_how_long_each_view_took(run: Callable[..., Done], store: PostgresStore, rows: Rows) -> None:
    """Views would be of yesterday, and nobody would see which of them is slow."""
    long_ago = f"{datetime.now(UTC) - timedelta(days=400):%Y-%m-%dT%H:%M:%SZ}"
    store.call("record_calls_v1", calls=json.dumps([a_call(created_at=long_ago, **TALK)]))
    rows("update analytics_freshness set refreshed_at = now() - interval '3 days' returning name")
    doctor = run("doctor", "--json")
    stale, outside = (
        next(found for found in json.loads(fine(doctor)) if word in found["what"])
        for word in ("materialized views", "outside every monthly partition")
    )
    assert stale["state"] == "warn"
    assert "mv_service_costs" in stale["what"]
    assert "vital-tracking refresh --every 5m" in stale["fix"]
    assert "vital-tracking refresh" in outside["fix"]

    said = fine(run("refresh"))
    for name in ("mv_service_costs", "mv_workflow_efficiency", "mv_panel_performance", "mv_user_service_usage"):
        assert re.search(rf"^{name} +\d+\.\d\d s$", said, re.MULTILINE)
    assert re.search(r"^refreshed 4 views in \d+\.\d\d s$", said, re.MULTILINE)
    assert "1 partition made, 1 call moved to theirs" in said
    assert rows("select from analytics_freshness where refreshed_at < now() - interval '1 minute'") == []
    healthy = json.loads(fine(run("doctor", "--json")))
    assert [found["state"] for found in healthy if "materialized" in found["what"]] == ["ok"]
    assert not any("partition," in found["what"] or "outside" in found["what"] for found in healthy)


def test_refreshing_goes_on_through_an_outage_until_it_is_stopped(
    database_url: str, tmp_path: Path, postgres_server: PostgresServer
) -> None:
    """A restart of the database would end it, and the views would stand still from then on."""
    with FaultProxy(postgres_server.port) as proxy:
        proxy.lose(1, b"refresh_analytics", "answer")
        with subprocess.Popen(
            [COMMAND, "refresh", "--every", "200ms"],
            env={**environment(tmp_path, VITAL_DATABASE_URL=proxy.url(database_url)), "PYTHONUNBUFFERED": "1"},
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as refreshing:
            assert refreshing.stdout is not None
            assert refreshing.stderr is not None
            assert refreshing.stdout.readline() == "Refreshing every 200 ms; Ctrl-C ends.\n"
            assert "Trying again every 200 ms." in refreshing.stderr.readline()
            assert "there again; refreshed in" in refreshing.stdout.readline()
            assert "mv_service_costs" in refreshing.stdout.readline()
            refreshing.send_signal(signal.SIGINT)
            out, err = refreshing.communicate(timeout=90)
    assert (refreshing.returncode, err, out.splitlines()[-1]) == (0, "", "Stopped.")


def test_a_backfill_mends_what_doctor_finds(run: Callable[..., Done], store: PostgresStore, rows: Rows) -> None:
    """Sums that differ from the calls would stay so, or nobody would know how to mend them."""
    today = f"{datetime.now(UTC) - timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}"
    calls = [
        a_call(1, created_at=today, **TALK),
        *(a_call(n, created_at=f"2026-01-{n}T10:00:00Z", **TALK) for n in (10, 11, 12)),
    ]
    store.call("record_calls_v1", calls=json.dumps(calls))

    def sums(*words: str) -> list[dict[str, Any]]:
        found = json.loads(run("doctor", "--json", *words).stdout)
        return [one for one in found if "usage_aggregations" in one["what"] or "sum" in one["what"].partition(":")[0]]

    assert [found["what"] for found in sums()] == ["sums of the last 7 days: those of the calls"]
    rows("update usage_aggregations_daily_agents set calls = calls + 1, total_cost = total_cost - 1 returning 1")
    recent, every = only(sums()), only(sums("--full"))
    assert (recent["state"], every["state"]) == ("fail", "fail")
    assert "usage_aggregations_daily_agents: 1 sum not those of the calls" in recent["what"]
    assert "calls +1 (" in recent["what"]
    assert "user_id" not in recent["what"]
    assert "organization_id acme" in recent["what"]
    assert "4 sums" in every["what"]

    mend = shlex.split(every["fix"].partition("Run: ")[2])
    assert mend[:4] == ["vital-tracking", "backfill", "--since", "2026-01-10"]
    assert "counted 4 days anew: 4 calls" in fine(run(*mend[1:]))
    assert [found["state"] for found in sums("--full")] == ["ok"]

    rows("update usage_aggregations_daily_agents set calls = calls + 1 returning 1")
    store.call("queue_backfill_v1", since=datetime(2026, 1, 11, tzinfo=UTC), until=datetime(2026, 1, 13, tzinfo=UTC))
    waiting = next(found for found in sums() if "not summed up" in found["what"])
    assert (waiting["state"], waiting["fix"]) == ("warn", "Run: vital-tracking backfill")
    assert waiting["what"].startswith("2 days of calls")
    assert "2 days are still to be summed up" in fine(run("report", "--until", "2020-01-01"))
    assert "counted 2 days anew: 2 calls" in fine(run("backfill"))
    assert "no day waits" in fine(run("backfill"))
    assert "counted 2 days anew: 2 calls" in fine(run("backfill", "--until", "2026-01-12"))


def test_a_backfill_that_is_interrupted_goes_on(
    run: Callable[..., Done], store: PostgresStore, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever stops it would have to begin again."""
    calls = [a_call(n, created_at=f"2026-01-{n}T10:00:00Z", **TALK) for n in (10, 11, 12)]
    store.call("record_calls_v1", calls=json.dumps(calls))
    rows("update usage_aggregations_daily_agents set calls = calls + 1 returning 1")
    counting, original = itertools.count(1), PostgresStore.call

    def interrupted(self: PostgresStore, function: str, /, **arguments: object) -> Any:
        if function == "backfill_usage_v1" and next(counting) == 2:
            raise KeyboardInterrupt
        return original(self, function, **arguments)

    monkeypatch.setattr(PostgresStore, "call", interrupted)
    done = run("backfill", "--since", "2026-01-01")
    assert done.code == 130
    assert "counted 1 day anew: 1 call" in done.stdout
    assert "Interrupted. 2 days left. To go on: vital-tracking backfill" in done.stdout
    assert "counted 2 days anew: 2 calls" in fine(run("backfill"))
    assert only(rows("select sum(calls) as calls from usage_aggregations_daily_agents"))["calls"] == 3
