"""`runs`, `run`, `invoice`, and reports by zone, key and filter, on a real database, on wide and narrow terminals."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from tests.acceptance.cli.helpers import Several
from tests.acceptance.cli.test_report import Done, execute, fine
from tests.sql.helpers import a_call, a_run, an_end, an_unpriced_call
from tests.support.postgres import PostgresServer
from vital_tracking.cli.render.console import console
from vital_tracking.errors import VitalError
from vital_tracking.stores.postgres import PostgresStore

Say = Callable[..., str]

RUN, SOLUTION = "0193f2c4-1a2b-7c3d-8e4f-5a6b7c8d9e0f", "0193f2c4-1a2b-7c3d-8e4f-000000000000"
ACME = {"organization_id": "acme", "user_id": "u-1", "provider": "openai", "model": "gpt-4o"}


def costing(amount: str) -> dict[str, str]:
    return {"input_cost": amount, "output_cost": "0", "total_cost": amount, "potential_cost": amount}


def at(second: int) -> dict[str, str]:
    return {"created_at": f"2025-12-31T20:00:0{second}+00:00"}


def some_calls() -> list[dict[str, Any]]:
    """Calls of a run on New Year's Eve of UTC, which is January in Kolkata, and of a February with two versions of a prompt."""
    step = {**ACME, "service_type": "workflow", "workflow_id": "intake", "service_run_id": RUN}
    free = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0, **costing("0")}
    triage = {"workflow_step": "triage", "workflow_step_name": "Triage"}
    calls = [
        a_call(1, **step, **at(1), **triage, metadata={"attempt": 1}, status="error", error_type="TimeoutError"),
        a_call(2, **step, **at(2), **triage, metadata={"attempt": 2}, **costing("0.00000028")),
        a_call(3, **step, **at(3), workflow_step="answer", status="blocked", **free),
        an_unpriced_call(4, **at(4), **{**step, "model": "house-llm"}, usage_estimated=True),
    ]
    versions = {"v1": ("0.333", "0.333"), "v2": ("0.334",)}
    number = 10
    for version, amounts in versions.items():
        for amount in amounts:
            number += 1
            month = {"created_at": f"2026-02-0{number - 9}T10:00:00+00:00", "metadata": {"prompt_version": version}}
            calls.append(a_call(number, **{**ACME, "model": f"gpt-{number}"}, **month, **costing(amount)))
    fees = {"input_cost": "0.30", "output_cost": "0.12", "total_cost": "0.46", "potential_cost": "0.46"}
    calls.append(a_call(20, **ACME, created_at="2026-02-28T23:59:59.999999+00:00", session_id="s-1", **fees))
    calls.append(a_call(21, organization_id="other", created_at="2026-02-15T10:00:00+00:00"))
    path = {"langgraph_path": "gather/ask"}
    calls.append(a_call(22, organization_id="other", created_at="2025-11-15T10:00:00+00:00", metadata=path))
    return calls


@pytest.fixture(scope="module")
def database(postgres_server: PostgresServer, template_database: str) -> Iterator[str]:
    """The URL of a database with these calls and their runs, which tests only read."""
    postgres_server.create_database("runs", template=template_database)
    store = PostgresStore(postgres_server.url("runs"))
    assert store.call("record_calls_v1", calls=json.dumps(some_calls()))["rejected"] == []
    solution = {"service_type": "solution_builder", "service_id": "care-plan", "workflow_id": None}
    whose = {"organization_id": "acme", "user_id": "u-1", "started_at": "2025-12-31T19:59:59+00:00"}
    inside = {"parent_run_id": SOLUTION, "ancestor_run_ids": [SOLUTION], "service_name": "Intake"}
    ended = {"ended_at": "2025-12-31T20:01:19+00:00"}
    runs = [
        an_end(SOLUTION, **whose, **solution, **ended),
        an_end(RUN, **whose, **inside, **ended, status="error", error_type="BudgetExceeded"),
        a_run("r-9", started_at="2026-02-01T00:00:00+00:00", organization_id="other"),
    ]
    assert store.call("record_runs_v1", runs=json.dumps(runs))["inserted"] == 3
    store.close()
    yield postgres_server.url("runs")
    postgres_server.drop_database("runs")


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "_width", 200)


@pytest.fixture
def said(database: str, monkeypatch: pytest.MonkeyPatch) -> Say:
    """Runs `vital-tracking` on the database; what it printed."""
    monkeypatch.setenv("VITAL_DATABASE_URL", database)
    return lambda *words: fine(execute(*words))


@pytest.fixture
def done(database: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Done]:
    """Runs `vital-tracking` on the database; how it ended."""
    monkeypatch.setenv("VITAL_DATABASE_URL", database)
    return execute


def table_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


# Runs


def test_runs_are_listed_newest_first_with_what_is_in_them(said: Say) -> None:
    """An admin would not see which runs were dear, failed, or are still under way."""
    shown = said("runs")
    assert re.search(r"^r-9 +02-01 00:00:00 +intake +workflow +other +0 +\$0\.00 +- +running", shown, re.MULTILINE)
    facts = r"care-plan +solution_builder +acme +u-1 +4 +\$0\.42\* +80\.0 s +ok +1 failed, 1 blocked, 1 in retries"
    assert re.search(rf"^{SOLUTION} .*{facts}", shown, re.MULTILINE)
    assert RUN not in shown
    assert "Which: vital-tracking calls --unpriced" in shown
    assert RUN in said("runs", "--workflow", "intake", "--status", "error", "--month", "2025-12")
    assert "BudgetExceeded" in said("runs", "--nested", "--user", "u-1")
    for words in (("--organization", "nobody"), ("--until", "2025-01-01"), ("--since", "today", "--panel", "x")):
        assert "No runs match" in said("runs", *words)
    [first] = json.loads(said("runs", "--limit", "1", "--json"))
    page = said("runs", "--limit", "1")
    [after] = re.findall(r"the same with: --after (\S+)", page)
    [second] = json.loads(said("runs", "--limit", "1", "--after", after, "--json"))
    assert (first["id"], second["id"], second["total_cost"]) == ("r-9", SOLUTION, "0.42000028")
    assert [row["id"] for row in table_of(said("runs", "--csv"))] == ["r-9", SOLUTION]


def test_runs_are_filtered_by_each_of_their_options(several: Several, store: PostgresStore) -> None:
    """An admin would take the runs of all for those of the one whom he asked for."""
    who = {"organization_id": "acme", "user_id": "u-1", "session_id": "s-1", "agent_id": "cardio"}
    panel = {"service_type": "virtual_panel", "service_id": "board", "workflow_id": None, "panel_id": "board"}
    solution = {"service_type": "solution_builder", "service_id": "plan", "workflow_id": None, "solution_id": "plan"}
    of_runs = {
        "turn": {**who, "service_type": "1:1_conversation", "service_id": "chat", "workflow_id": None},
        "flow": {"service_id": "intake", "workflow_id": "intake", "status": "error"},
        "panel": {**panel, "organization_id": "other"},
        "solution": {**solution, "user_id": "u-2"},
    }
    runs = [
        an_end(name, started_at=f"2026-01-{day}T10:00:00+00:00", **facts)
        for day, (name, facts) in zip(range(11, 15), of_runs.items(), strict=True)
    ]
    assert store.call("record_runs_v1", runs=json.dumps(runs))["inserted"] == 4
    expected = {
        (): ["solution", "panel", "flow", "turn"],
        ("--service", "workflow"): ["flow"],
        ("--workflow", "intake"): ["flow"],
        ("--panel", "board"): ["panel"],
        ("--solution", "plan"): ["solution"],
        ("--user", "u-1"): ["turn"],
        ("--session", "s-1"): ["turn"],
        ("--organization", "other"): ["panel"],
        ("--agent", "cardio"): ["turn"],
        ("--status", "error"): ["flow"],
        ("--since", "2026-01-13"): ["solution", "panel"],
        ("--until", "2026-01-13"): ["flow", "turn"],
        ("--since", "2026-01-12T10:00:00+00:00", "--until", "2026-01-13T10:00:00+00:00"): ["flow"],
        ("--since", "2026-01-13T12:00:00", "--timezone", "Asia/Kolkata"): ["solution", "panel"],
        ("--month", "2026-02"): [],
    }
    answers = several(*(["runs", "--json", *arguments] for arguments in expected))
    found = [[row["id"] for row in json.loads(one.stdout)] for one in answers]
    assert dict(zip(expected, found, strict=True)) == expected


def test_a_run_is_a_tree_with_amounts_attempts_and_outcomes(said: Say, done: Callable[..., Done]) -> None:
    """An author would have to add up calls by hand to find the dear step, or not see that a node was tried twice."""
    shown = said("run", SOLUTION, "--exact")
    lines = [line.rstrip() for line in shown.splitlines()]
    assert lines[0] == f"Run {SOLUTION}, 2025-12-31 19:59:59 UTC, organization acme, user u-1"
    for line in (
        r"solution_builder care-plan +4 +360~ +\$0\.42000028\* +80\.0 s +ok, 1 failed, 1 blocked, 1 in retries",
        r"└─ workflow Intake +4 .*error BudgetExceeded, 1 failed",
        r"   ├─ step Triage +2 .*1 failed, 1 in retries",
        r"   │  ├─ attempt 1 +1 +120 +\$0\.42 .*1 failed",
        r"   │  │  └─ gpt-4o +1 +120 +\$0\.42 .*error TimeoutError",
        r"   │  └─ attempt 2 +1 +120 +\$0\.00000028 .*retry",
        r"   │     └─ gpt-4o +1 +120 +\$0\.00000028",
        r"   ├─ step answer +1 .*1 blocked",
        r"   └─ house-llm +1 +120~ +unpriced",
    ):
        assert any(re.match(line, one) for one in lines), (line, shown)
    assert "* 1 call without a known price" in shown
    assert f"--unpriced --run {SOLUTION}" in shown
    tree = json.loads(said("run", RUN[:8] + "-1a2b-7c3d-8e4f-5", "--json"))
    assert tree["within"][0]["id"] == SOLUTION
    assert tree["root"]["sums"]["total_cost"] == "0.42000028"
    rows = table_of(said("run", SOLUTION, "--csv"))
    leaves = [row for row in rows if row["kind"] == "call"]
    assert sum(Decimal(row["total_cost"]) for row in leaves) == Decimal(rows[0]["total_cost"]) == Decimal("0.42000028")
    assert not re.search(r"\dE-\d", said("run", SOLUTION) + said("calls") + "".join(rows[0].values()))
    folded = said("run", SOLUTION, "--calls", "0")
    assert "gpt-4o" not in folded
    assert "No calls are told one by one" in folded
    assert " min " not in folded, "a call without a latency took no time"
    with pytest.raises(VitalError, match=RUN):
        done("run", "0193")


def test_calls_are_filtered_by_run_step_and_more(said: Say) -> None:
    """An admin would have to page through all calls for the few of a step."""

    def calls(*words: str) -> list[str]:
        return [row["id"][-2:] for row in json.loads(said("calls", "--json", *words))]

    assert calls("--run", SOLUTION) == ["04", "03", "02", "01"]
    assert calls("--run", RUN, "--step", "Triage") == ["02", "01"]
    assert calls("--step", "triage") == ["02", "01"]
    assert calls("--step", "answer") == ["03"]
    assert calls("--step", "gather") == ["16"]  # the outermost node
    assert calls("--blocked") == ["03"]
    assert calls("--workflow", "intake", "--status", "error") == ["01"]
    assert calls("--since", "2025-12-31", "--until", "2026-01-01") == ["04", "03", "02", "01"]
    assert calls("--since", "2025-12-31T20:00:02+00:00", "--until", "2025-12-31T20:00:04+00:00") == ["03", "02"]
    kolkata = ("--timezone", "Asia/Kolkata")
    assert calls("--since", "2026-01-01T01:30:02", "--until", "2026-01-01T01:30:04", *kolkata) == ["03", "02"]
    assert calls("--month", "2026-01") == []
    assert calls("--month", "2026-01", "--timezone", "Asia/Kolkata") == ["04", "03", "02", "01"]
    assert calls("--where", "prompt_version=v2") == ["0d"]
    assert calls("--search", "TRIAGE intake") == ["02", "01"]
    assert calls("--provider", "openai", "--session", "s-1") == ["14"]
    page = said("calls", "--limit", "3")
    [after] = re.findall(r"the same with: --after (\S+)", page)
    assert calls("--limit", "3") + calls("--limit", "100", "--after", after) == calls()


def test_a_page_goes_on_among_calls_of_one_instant(several: Several, store: PostgresStore) -> None:
    """An admin would miss calls that were made at once, or see them twice."""
    instant = "2026-02-01T10:00:00+00:00"
    calls = [a_call(number, created_at=instant) for number in range(1, 4)]
    assert store.call("record_calls_v1", calls=json.dumps(calls))["inserted"] == 3
    [listed] = several(["calls", "--json"])
    ids = [row["id"] for row in json.loads(listed.stdout)]
    pages = several(*(["calls", "--json", "--after", f"{instant}/{one}"] for one in ids))
    assert [[row["id"] for row in json.loads(page.stdout)] for page in pages] == [ids[1:], ids[2:], []]


# Reports


def test_reports_know_zones_months_and_filters(said: Say) -> None:
    """A month in India would be billed five and a half hours late, and a filter would be passed over."""

    def total(*words: str) -> tuple[int, str]:
        found = json.loads(said("report", *words, "--json"))["total"]
        return found["calls"], found["total_cost"]

    assert total("services", "--month", "2025-12") == (4, "0.42000028")
    assert total("services", "--month", "2025-12", "--timezone", "Asia/Kolkata") == (0, "0")
    assert total("services", "--month", "2026-01", "--timezone", "Asia/Kolkata") == (4, "0.42000028")
    assert total("models", "--month", "2026-02", "--organization", "acme") == (4, "1.46")
    assert total("models", "--month", "2026-02", "--timezone", "Asia/Kolkata", "--organization", "acme") == (3, "1")
    assert total("users", "--month", "2026-02", "--where", "prompt_version=v1") == (2, "0.666")
    assert total("agents", "--since", "2025-12", "--until", "2026-03", "--run", RUN) == (4, "0.42000028")
    shown = said("report", "services", "--since", "2025-12-31", "--until", "2026-01-01")
    assert shown.startswith("Services, 31 Dec 2025 (UTC)")


def test_the_sums_and_the_calls_tell_the_same(said: Say) -> None:
    """The same report would show other amounts as soon as somebody sorts it."""
    for name in ("services", "users", "agents", "models", "cache", "organizations"):
        summed, told = (
            json.loads(said("report", name, "--month", "2026-02", *more, "--json"))
            for more in ((), ("--sort", "total_cost"))
        )
        assert summed["total"] == told["total"], name
        assert [{**row, "share": 0} for row in summed["rows"]] == [
            {key: row[key] for key in first} | {"share": 0}
            for first, row in zip(summed["rows"], told["rows"], strict=True)
        ], name


def test_variants_stand_side_by_side(said: Say) -> None:
    """A team would not see which version of its prompt is cheaper."""
    shown = said("report", "organizations", "--by", "prompt_version", "--month", "2026-02", "--organization", "acme")
    assert shown.startswith("Organizations and prompt_version, 1 Feb to 28 Feb 2026")
    assert re.search(r"^acme +v1 +2 +240 +\$0\.67", shown, re.MULTILINE)
    assert re.search(r"^acme +v2 +1 +120 +\$0\.33", shown, re.MULTILINE)
    assert re.search(r"^acme +\(none\) +1 ", shown, re.MULTILINE)
    rows = table_of(said("report", "models", "--by", "prompt_version", "--month", "2026-02", "--csv"))
    assert {row["metadata.prompt_version"] for row in rows} == {"v1", "v2", ""}
    missing = said("report", "models", "--by", "prompt_versoin", "--month", "2026-02")
    assert "did you mean prompt_version?" in missing
    assert "They have: prompt_version." in missing
    assert re.search(
        r"^gpt-4o +openai +\(none\) ", said("report", "models", "--by", "framework", "--month", "2026-02"), re.MULTILINE
    )


def test_reports_are_sorted_and_told_by_week(said: Say) -> None:
    """The slowest step would be looked for by eye, and half a year of days be a wall of numbers."""
    rows = json.loads(said("report", "models", "--month", "2026-02", "--sort", "total_cost:asc", "--json"))["rows"]
    assert [row["total_cost"] for row in rows] == ["0.333", "0.333", "0.334", "0.42", "0.46"]
    assert rows[0]["tokens_per_dollar"] == pytest.approx(120 / 0.333, abs=0.001)
    weeks = said("report", "time", "--grain", "week", "--month", "2026-02", "--organization", "acme")
    assert [line.split()[0] for line in weeks.splitlines()[2:]] == ["2026-02-02", "2026-02-23", "total"]
    months = json.loads(
        said("report", "sessions", "--grain", "month", "--since", "2025-12", "--until", "2026-03", "--json")
    )
    assert [(row["session_id"], row["days"]) for row in months["rows"]] == [("s-1", [["2026-02-01", "0.46"]])]
    assert re.search(rf"^{RUN} ", said("report", "runs", "--month", "2025-12"), re.MULTILINE)
    assert "No call of a solution" in said("report", "solutions", "--month", "2026-02")


def test_words_are_checked_and_the_closest_named(done: Callable[..., Done]) -> None:
    """A typing error would end in a list of twenty words, or in a report of something else."""
    for words, hint in {
        "report modles": "did you mean models?",
        "report models --sort costs": "did you mean total_cost",
        "report models --sort cots": "did you mean total_cost or potential_cost? One of: calls",
        "report models --sort p95": "did you mean p95_latency_ms?",
        "report time --by week": "vital-tracking report time --grain week",
        "export runes runs.csv": "did you mean runs?",
        "report models --grain weeks": "did you mean week?",
        "report models --month 2026-13": "looks like 2026-11",
        "report models --month 2026-01 --days 3": "--month says all",
        "report models --since yesteday": "did you mean yesterday?",
        "report forecast --user u-1": "leave that out",
        "report anomalies --timezone Europe/Berlin": "--timezone",
        "report models --where x": "KEY=VALUE",
        "report models --json --csv": "leave one of them out",
        "calls --csv --json": "leave one of them out",
        "runs --json --csv": "leave one of them out",
        "calls --status errors": "did you mean error?",
        "calls --after x": "--after takes the place",
        "invoice 2026 --organization acme": "looks like 2026-11",
        "invoice 2026-02": "which have calls: vital-tracking report organizations",
    }.items():
        ended = done(*words.split())
        assert ended.code == 2, words
        assert hint in " ".join(ended.stderr.split()), (words, ended.stderr)


def test_what_a_narrow_terminal_has_no_room_for_is_named(said: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    """A column would be missing, and nobody would know that there is one."""
    monkeypatch.setattr(console, "_width", 80)
    shown = said("report", "models", "--month", "2026-02")
    table = shown.splitlines()
    assert max(map(len, table)) <= 80
    assert re.search(r"\d columns? hidden: .*tokens a \$.*; wider terminal or --json", " ".join(table))
    for words in (("runs",), ("run", SOLUTION), ("calls",), ("invoice", "2026-02", "--organization", "acme")):
        shown = said(*words)
        for line in shown.splitlines():  # sentences wrap; tables have room between their columns
            assert len(line.rstrip()) <= 80 or not re.search(r"\S {2,}\S", line), line
        monkeypatch.setattr(console, "_width", 200)
        wide = said(*words).splitlines()
        monkeypatch.setattr(console, "_width", 80)
        heading = next(line for line in wide if "cost" in line or "USD" in line)
        hidden = re.findall(r"hidden: ([^;]*);", " ".join(shown.split()))
        told = " ".join(shown.split())
        for word in heading.split():
            assert word in told or any(word in one for one in hidden), (words, word)


# The invoice


def test_an_invoice_adds_up_to_the_cent(said: Say) -> None:
    """A customer who adds the lines up would find another sum."""
    bill = json.loads(said("invoice", "2026-02", "--organization", "acme", "--json"))
    assert (bill["cost"], bill["amount"], bill["calls"]) == ("1.460", "1.46", 4)
    assert sum(Decimal(line["amount"]) for line in bill["lines"]) == Decimal("1.46")
    assert sum(Decimal(line["cost"]) for line in bill["lines"]) == Decimal("1.46")
    amounts = {(line["model"], line["kind"]): line["amount"] for line in bill["lines"]}
    assert amounts == {
        ("gpt-4o", "tokens"): "0.42",
        ("gpt-4o", "fees"): "0.04",
        ("gpt-11", "tokens"): "0.33",
        ("gpt-12", "tokens"): "0.33",
        ("gpt-13", "tokens"): "0.34",
    }
    shown = said("invoice", "2026-02", "--organization", "acme")
    assert shown.startswith("Invoice for organization acme, 1 Feb to 28 Feb 2026, 28 days (UTC)")
    assert re.search(r"gpt-4o: fees +\$0\.0400 +0\.04$", shown, re.MULTILINE)
    assert re.search(r"^total +\$1\.4600 +1\.46$", shown, re.MULTILINE)
    rows = table_of(said("invoice", "2026-02", "--organization", "acme", "--csv"))
    assert (rows[-1]["line"], rows[-1]["amount"], rows[-1]["calls"]) == ("total", "1.46", "4")
    assert sum(Decimal(row["amount"]) for row in rows[:-1]) == Decimal(rows[-1]["amount"])
    assert json.loads(said("report", "models", "--month", "2026-02", "--organization", "acme", "--json"))["total"][
        "total_cost"
    ] == str(Decimal(bill["cost"]).normalize())


def test_an_invoice_names_what_has_no_price_and_heeds_the_zone(said: Say) -> None:
    """Calls without a price would be given away unsaid, and a month in another zone be billed by that of London."""
    shown = said("invoice", "2025-12", "--organization", "acme")
    assert re.search(r"^workflow +openai +house-llm: unpriced +1 +1 +120 ", shown, re.MULTILINE)
    assert "Not in it: 1 call without a known price, of house-llm." in shown
    assert "In it by estimated tokens" in shown
    assert "$0.42000028" in shown
    kolkata = ("--organization", "acme", "--timezone", "Asia/Kolkata", "--json")
    assert json.loads(said("invoice", "2025-12", *kolkata))["lines"] == []
    january, february = (json.loads(said("invoice", month, *kolkata)) for month in ("2026-01", "2026-02"))
    assert (january["cost"], january["since"]) == ("0.42000028", "2026-01-01T00:00:00+05:30")
    assert (february["calls"], february["amount"]) == (3, "1.00")
    assert "Nothing was used" in said("invoice", "2026-02", "--organization", "nobody")
    assert "has not begun" in said("invoice", "2999-02", "--organization", "acme")


def test_a_zone_is_refused_where_calls_are_gone(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A month whose first hours are gone would be billed too low, and nobody would know."""
    monkeypatch.setenv("VITAL_DATABASE_URL", database_url)
    store = PostgresStore(database_url)
    store.call("record_calls_v1", calls=json.dumps(some_calls()))
    store.close()
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "update vital_private.monthly_tables set rows_kept_since = %s", [datetime(2027, 1, 1, tzinfo=UTC)]
        )
    assert "1.46" in fine(execute("invoice", "2026-02", "--organization", "acme"))
    with pytest.raises(VitalError, match="Leave --timezone out"):
        execute("invoice", "2026-02", "--organization", "acme", "--timezone", "Asia/Kolkata")
    assert "are gone by age" in fine(execute("report", "sessions", "--month", "2026-02"))
