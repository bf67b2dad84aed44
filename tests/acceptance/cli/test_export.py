"""`vital-tracking export`: every row, every digit, no formula, no more memory for more rows."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Generator
from decimal import Context, Decimal
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from tests.acceptance.cli.helpers import Several, fine, refused
from tests.acceptance.helpers import environment
from tests.integration.helpers import Rows
from tests.sql.helpers import a_call, an_unpriced_call, call_id
from tests.sql.platform_rows import a_cost as a_platform_cost
from tests.sql.platform_rows import an_event, an_execution
from tests.sql.test_retention import NOW
from vital_tracking import Agent, VitalTracker
from vital_tracking.errors import MissingExtra, VitalError
from vital_tracking.queries.csv import write_csv
from vital_tracking.queries.parquet import ParquetWriter, read_back
from vital_tracking.stores.postgres import PostgresStore
from vital_tracking.stores.relations import CALLS, RELATIONS, ColumnKind, Relation, time_text, value_text

NASTY = [
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "\tx",
    "\rx",
    "\nx",
    "plain",
    'quo"te, comma',
    "line\nend",
    "",
    "\\N",
    "'apostrophe",
    "\uff1d1",
]
EXACT = "123456789012345678.00000000000000000001"


@pytest.fixture
def calls(store: PostgresStore) -> list[dict[str, Any]]:
    """Calls whose users' names are nasty, with an amount of 38 digits and one without a price."""
    made = [
        a_call(n, user_id=name, created_at=f"2026-01-{n:02}T10:00:00.5Z", organization_id="o-1" if n % 2 else None)
        for n, name in enumerate(NASTY, start=1)
    ]
    made.append(
        a_call(
            20,
            created_at="2026-02-01T00:00:00Z",
            total_cost=EXACT,
            billed_units={"web_searches": 4, "audio_seconds": "2.5"},
            reported_cost="0.4300",
            sent_model="m-alias",
            first_word_ms=3.5,
            tags=["a,b", "=c"],
            metadata={"k": [1, "x"]},
            latency_ms=0.1,
        )
    )
    made.append(an_unpriced_call(21, created_at="2026-02-02T00:00:00Z", cache_hit=False, status="error"))
    report = store.call("record_calls_v1", calls=json.dumps(made))
    assert report["inserted"] == len(made), report
    return made


def duck(query: str) -> list[list[Any]]:
    """What DuckDB answers, in a process of its own: it leaves threads and chatter behind."""
    code = "import duckdb, json, sys; print(json.dumps(duckdb.connect().execute(sys.argv[1]).fetchall()))"
    done = subprocess.run([sys.executable, "-c", code, query], capture_output=True, text=True, check=True)
    answer: list[list[Any]] = json.loads(done.stdout)
    return answer


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_calls_as_csv_hold_every_row_and_digit(several: Several, calls: list[dict[str, Any]]) -> None:
    """If this failed, a bill made of the export would differ from the database's."""
    every, january, one, user, empty = several(
        ["export", "calls", "-"],
        ["export", "calls", "-", "--since", "2026-01-02", "--until", "2026-01-04T10:00:00.5+00:00"],
        ["export", "-", "--organization", "o-1"],
        ["export", "calls", "-", "--user", "-1"],
        ["export", "daily", "-", "--organization", "nobody"],
    )
    rows = table(fine(every))
    assert list(rows[0]) == list(CALLS.columns)
    assert len(rows) == len(calls)
    by_id = {row["id"]: row for row in rows}
    last, unpriced = by_id[call_id(20)], by_id[call_id(21)]
    assert last["total_cost"] == EXACT
    assert last["fees"] == "123456789012345677.58000000000000000001"
    assert json.loads(last["billed_units"]) == {"web_searches": 4, "audio_seconds": "2.5"}
    assert (last["reported_cost"], last["sent_model"], last["first_word_ms"]) == ("0.4300", "m-alias", "3.5")
    assert [unpriced[name] for name in ("fees", "billed_units", "reported_cost", "sent_model", "first_word_ms")] == [
        ""
    ] * 5
    assert (last["created_at"], last["tags"], json.loads(last["metadata"])) == (
        "2026-02-01T00:00:00+00:00",
        '["a,b", "=c"]',
        {"k": [1, "x"]},
    )
    assert (last["latency_ms"], last["priced"], last["cache_hit"]) == ("0.1", "true", "false")
    assert (unpriced["total_cost"], unpriced["priced"], unpriced["success"]) == ("", "false", "false")
    assert [row["id"] for row in table(fine(january))] == [call_id(2), call_id(3)]
    assert {row["organization_id"] for row in table(fine(one))} == {"o-1"}
    assert [row["id"] for row in table(fine(user))] == [call_id(3)]
    assert table(fine(empty)) == []
    names = {by_id[call_id(n)]["user_id"] for n in range(1, len(NASTY) + 1)}
    assert {
        "'=1+1",
        "'+1",
        "'-1",
        "'@SUM(A1)",
        "'\tx",
        "'\rx",
        "'\nx",
        "'\uff1d1",
        "plain",
        "line\nend",
        "\\N",
    } <= names


def test_every_relation_can_be_taken_out_in_both_formats(
    several: Several, calls: list[dict[str, Any]], tmp_path: Path, store: PostgresStore
) -> None:
    """If this failed, a column was added, renamed or typed otherwise than the export knows."""
    store.call(
        "record_runs_v1",
        runs=json.dumps([{"id": "r", "service_type": "workflow", "started_at": "2026-01-01T00:00:00Z"}]),
    )
    for kind, row in {"events": an_event(), "costs": a_platform_cost(), "executions": an_execution()}.items():
        store.call(f"record_{kind}_v1", **{kind: json.dumps([row])})
    store.call("set_budget_v1", budget='{"entity_type": "user", "monthly_limit": "0.1"}')
    store.call(
        "record_calls_v1",
        calls=json.dumps([a_call(50, user_id="u", workflow_id="w", created_at=NOW.isoformat())]),
    )
    # Amounts of 38 digits are for calls to carry; sums of them in files of 38 digits are not.
    with psycopg.connect(store.conninfo) as connection:
        connection.execute("delete from token_usage_logs where id = %s", [call_id(20)])
    done = several(
        *[["export", name, f"{name}.{suffix}", "--json"] for name in RELATIONS for suffix in ("csv", "parquet")]
    )
    written = {Path(row["file"]).name: row["rows"] for row in (json.loads(fine(one)) for one in done)}
    for name in RELATIONS:
        assert written[f"{name}.csv"] == written[f"{name}.parquet"]
        assert written[f"{name}.csv"] > 0, name
        text = (tmp_path / f"{name}.csv").read_bytes().decode()
        found = parquet.read_table(tmp_path / f"{name}.parquet")
        assert [list(RELATIONS[name].columns)] * 2 == [found.column_names, list(table(text)[0])]
    sums = "select sum(total_cost)::text, sum(calls)::text from '{}'"
    assert duck(sums.format(tmp_path / "daily.parquet")) == duck(sums.format(tmp_path / "calls.parquet"))


def test_duckdb_reads_from_parquet_what_the_database_holds(
    several: Several, calls: list[dict[str, Any]], tmp_path: Path
) -> None:
    """If this failed, DuckDB would add up something else than the database."""
    [done] = several(["export", "calls", "calls.parquet"])
    assert "duckdb -c" in fine(done)
    file = tmp_path / "calls.parquet"
    [[cost, names, tags, kind]] = duck(
        f"select sum(total_cost)::text, list(user_id order by id), max(tags), max(typeof(created_at)) from '{file}'"
    )
    assert Decimal(cost) == Context(prec=60).add(Decimal(EXACT), Decimal("0.42") * len(NASTY))
    assert names[: len(NASTY)] == NASTY
    assert (tags, kind) == (["a,b", "=c"], "TIMESTAMP WITH TIME ZONE")
    assert read_back(file).rows == len(calls)


def test_a_wrong_option_is_said_in_words_and_no_file_is_touched(
    several: Several, calls: list[dict[str, Any]], tmp_path: Path
) -> None:
    """If this failed, a slip would overwrite a file, or leave half of one."""
    (tmp_path / "there.csv").write_text("mine")
    there, forced, folder, user, since, nowhere, what, no_file, twice, too_many, all_days, swapped = several(
        ["export", "calls", "there.csv"],
        ["export", "calls", "there.csv", "--force"],
        ["export", "calls", str(tmp_path)],
        ["export", "daily", "x.csv", "--user", "u"],
        ["export", "calls", "x.csv", "--since", "whenever"],
        ["export", "calls", "no/such/folder/x.csv"],
        ["export", "everything", "x.csv"],
        ["export", "daily"],
        ["export", "x.csv", "--days", "3", "--since", "3d"],
        ["export", "x.csv", "--days", "36501"],
        ["export", "all.csv", "--days", "36500"],
        ["export", "x.csv", "--since", "2026-02-01", "--until", "2026-01-01"],
    )
    assert "--force" in refused(there)
    assert f"{len(calls)} rows" in fine(forced)
    assert "folder" in refused(folder)
    assert "--user does not go with daily" in refused(user, code=2)
    assert "--since takes" in refused(since, code=2)
    assert "cannot be written" in refused(nowhere)
    assert "daily-users" in refused(what, code=2)
    assert "daily.csv" in refused(no_file, code=2)
    assert "one of them" in refused(twice, code=2)
    assert "36500" in refused(too_many, code=2)
    assert f"{len(calls)} rows" in fine(all_days)
    assert "--since must be earlier than --until" in refused(swapped, code=2)
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {"all.csv", "there.csv"}


def test_calls_are_exported_by_what_they_are(several: Several, store: PostgresStore) -> None:
    """If this failed, whoever wants one framework's calls would take out all of them and sort by hand."""
    with VitalTracker(store) as tracker:
        usual = {"provider": "openai", "model": "gpt-4o", "prompt_tokens": 1, "completion_tokens": 1}
        tracker.record(**usual | {"user_id": "u-1", "framework": "autogen", "message_type": "tool_execution"})
        tracker.record(**usual | {"user_id": "u-2", "model": "gpt-4o-mini", "agent": Agent("cardio")})
        tracker.record(**usual | {"user_id": "u-3", "provider": "anthropic", "model": "claude-haiku-4-5"})
        tracker.record(**usual | {"user_id": "u-4", "error": TimeoutError()})
        tracker.record(**usual | {"user_id": "u-5", "provider": "in_house", "model": "house-llm-7b"})
        assert tracker.flush().complete
    asked = {
        ("--framework", "autogen"): {"u-1"},
        ("--message-type", "tool_execution"): {"u-1"},
        ("--provider", "openai"): {"u-1", "u-2", "u-4"},
        ("--provider", "openai", "--model", "gpt-4o-mini"): {"u-2"},
        ("--agent", "cardio"): {"u-2"},
        ("--status", "error"): {"u-4"},
        ("--unpriced",): {"u-5"},
        ("--model", "absent"): set(),
    }
    for expected, done in zip(asked.values(), several(*(["export", "-", *words] for words in asked)), strict=True):
        assert {row["user_id"] for row in csv.DictReader(io.StringIO(fine(done)))} == expected
    parquet_done, of_sums, other_sums = several(
        ["export", "mini.parquet", "--model", "gpt-4o-mini"],
        ["export", "daily", "-", "--model", "gpt-4o-mini"],
        ["export", "hourly", "x.csv", "--message-type", "tool_execution"],
    )
    assert "1 row" in fine(parquet_done)
    assert {row["model"] for row in csv.DictReader(io.StringIO(fine(of_sums)))} == {"gpt-4o-mini"}
    assert "--message-type does not go with hourly" in refused(other_sums, code=2)


def test_a_suffix_that_is_not_written_is_refused(several: Several, tmp_path: Path) -> None:
    """If this failed, somebody would open CSV as a workbook, or read a Parquet file that is none."""
    wrong = {
        "calls.csv or calls.parquet": ["export", "calls.xlsx"],
        ".gz is not written": ["export", "calls.csv.gz"],
        "calls.parquet says parquet": ["export", "calls.parquet", "--format", "csv"],
    }
    for words, done in zip(wrong, several(*wrong.values()), strict=True):
        assert words in refused(done, code=2)
    for done in several(["export", "calls.txt", "--format", "csv"], ["export", "bare"], ["export", "CALLS.CSV"]):
        fine(done)
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {"calls.txt", "CALLS.CSV", "bare"}


def test_an_export_ends_quietly_when_its_reader_stops(
    database_url: str, calls: list[dict[str, Any]], tmp_path: Path
) -> None:
    """If this failed, `| head` would end in a traceback."""
    code = (
        "import sys; sys.argv = ['vital-tracking', 'export', 'calls', '-']; from vital_tracking.cli import main; main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env=environment(tmp_path, VITAL_DATABASE_URL=database_url, PYTHONUNBUFFERED="1"),
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert b"Traceback" not in process.stderr.read()
    process.wait(30)
    process.stderr.close()


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """If this failed, a missing library would be a traceback."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"vital-tracking\[parquet\]"):
        ParquetWriter(tmp_path / "x.parquet", CALLS)


# A formula in a spreadsheet runs with the rights of who opens it; the names of users and models come from anywhere.
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")) | st.sampled_from(NASTY)
SMALL = Relation(
    "r",
    {"name": ColumnKind.text, "amount": ColumnKind.decimal, "calls": ColumnKind.integer},
    time="name",
    key=("name",),
)


@given(
    st.lists(
        st.tuples(st.none() | TEXTS, st.none() | st.decimals(-9, 9, places=3), st.none() | st.integers(-9, 9)),
        max_size=5,
    )
)
@settings(max_examples=100, deadline=None)
def test_no_cell_of_text_is_a_formula_and_no_number_is_text(rows: list[tuple[Any, ...]]) -> None:
    """If this failed, opening an export could run what somebody wrote into a name; or a negative amount would not add up."""
    file = io.StringIO(newline="")
    given_rows = [tuple(None if value is None else str(value) for value in row) for row in rows]
    assert write_csv(file, SMALL, [given_rows]) == len(rows)
    read = list(csv.reader(io.StringIO(file.getvalue(), newline="")))[1:]
    assert len(read) == len(rows)
    for (name, amount, number), (cell, *numbers) in zip(given_rows, read, strict=True):
        assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20"))
        assert cell in (name or "", f"'{name}")
        assert numbers == [amount or "", number or ""]


AMOUNTS = st.decimals(0, 10**25, allow_nan=False, allow_infinity=False, places=None).map(abs)


@given(st.lists(AMOUNTS | st.none(), min_size=1, max_size=6))
@settings(max_examples=30, deadline=None)
def test_parquet_never_rounds(tmp_path_factory: pytest.TempPathFactory, amounts: list[Decimal | None]) -> None:
    """If this failed, an amount with many digits would be another one in the archive."""
    texts = [None if amount is None else format(amount, "f") for amount in amounts]
    digits = [(len(text.partition(".")[0]), len(text.partition(".")[2].rstrip("0"))) for text in texts if text]
    wanted = {"total_cost": [max((a for a, _ in digits), default=1), max((b for _, b in digits), default=0)]}
    relation = Relation(
        "r", {"id": ColumnKind.text, "total_cost": ColumnKind.decimal}, time="total_cost", key=("total_cost",)
    )
    path = tmp_path_factory.mktemp("parquet") / "x.parquet"
    with ParquetWriter(path, relation, wanted) as writer:
        writer.write([(call_id(number), text) for number, text in enumerate(texts)])
    found = parquet.read_table(path)["total_cost"].to_pylist()
    assert [None if value is None else Decimal(value) for value in found] == [text and Decimal(text) for text in texts]
    assert read_back(path).amount == sum((Decimal(text) for text in texts if text), Decimal(0)) or len(str(found)) > 28


def test_an_amount_that_does_not_fit_is_refused_and_leaves_no_file(tmp_path: Path) -> None:
    """If this failed, an amount that came while the file was written would be cut."""
    relation = Relation("r", {"total_cost": ColumnKind.decimal}, time="total_cost", key=("total_cost",))
    with pytest.raises(VitalError, match="more digits"), ParquetWriter(tmp_path / "x.parquet", relation) as writer:
        writer.write([("0.1",), ("0." + "0" * 26 + "1",)])
    assert list(tmp_path.iterdir()) == []


def test_exporting_more_rows_takes_no_more_memory(tmp_path: Path, database_url: str, store: PostgresStore) -> None:
    """If this failed, exporting ten million calls would need as much memory as they take."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("alter table token_usage_logs disable trigger user")
        connection.execute(
            "insert into token_usage_logs (id, created_at, priced, user_id) select gen_random_uuid(), '2026-01-01Z', false,"
            " repeat(n::text, 20) from generate_series(1, 8500) as n"
        )
    peaks = {}
    for batches in (2, 16):
        stream = store.stream(CALLS, batch=500)
        assert isinstance(stream, Generator)
        with contextlib.closing(stream), (tmp_path / "x.csv").open("w", newline="") as file:
            next(stream)
            tracemalloc.start()
            assert write_csv(file, CALLS, islice(stream, batches)) == 500 * batches
            peaks[batches] = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
    assert peaks[16] < 1.5 * peaks[2] + 100_000, peaks


def test_an_export_has_every_column_of_its_table(
    store: PostgresStore, rows: Callable[..., list[dict[str, Any]]]
) -> None:
    """If this failed, a column that was added to a table would be missing in every archive."""
    kinds = {
        "uuid": {ColumnKind.text},
        "text": {ColumnKind.text},
        "bigint": {ColumnKind.integer},
        "integer": {ColumnKind.integer},
        "smallint": {ColumnKind.integer},
        "numeric": {ColumnKind.decimal, ColumnKind.integer},
        "double precision": {ColumnKind.real},
        "boolean": {ColumnKind.truth},
        "jsonb": {ColumnKind.json},
        "timestamp with time zone": {ColumnKind.time},
        "date": {ColumnKind.day},
        "ARRAY": {ColumnKind.list},
    }
    for relation in RELATIONS.values():
        found = rows(
            "select column_name, data_type from information_schema.columns where table_schema = 'public' and table_name = %s",
            relation.name,
        )
        # How far a copy elsewhere has come is nothing to export.
        left_out = {"latency_histogram", "xact"} | (
            {"claimed_by", "claimed_until"} if relation.name == "cost_alerts" else set()
        )
        assert {row["column_name"] for row in found} - left_out == set(relation.columns), relation.name
        for row in found:
            if row["column_name"] in relation.columns:
                assert relation.columns[row["column_name"]] in kinds[row["data_type"]], (relation.name, row)


def test_exports_from_supabase_and_postgresql_are_the_same() -> None:
    """If this failed, the same table would be exported otherwise from Supabase than from PostgreSQL."""
    assert (
        time_text("2026-01-15 10:00:00.5+00")
        == time_text("2026-01-15T10:00:00.5+00:00")
        == "2026-01-15T10:00:00.5+00:00"
    )
    assert time_text("2026-01-15T12:00:00+02:00") == "2026-01-15T10:00:00+00:00"
    assert [value_text(value) for value in (None, "x", True, 5, 0.1, ["a"], {"b": None})] == [
        None,
        "x",
        "true",
        "5",
        "0.1",
        '["a"]',
        '{"b": null}',
    ]


def test_a_copy_is_ended_without_its_clickhouse(several: Several, rows: Rows, store: PostgresStore) -> None:
    """If this failed, a ClickHouse that is gone would have deletions kept for it for ever, and triggers on each change."""
    there, other = "https://ch.example:8443/vital_tracking", "https://ch.example:8443/other"
    for target in (there, other):
        store.call("export_begin_v1", copy=uuid4(), target=target, session=uuid4())
    secret = there.replace("//", "//writer:canary@")
    wrong, asked, ended, again, mixed = several(
        ["export", "clickhouse", "https://ch.example:8443/nothing", "--end", "--yes"],
        ["export", "clickhouse", secret, "--end"],
        ["export", "clickhouse", secret, "--end", "--yes", "--json"],
        ["export", "clickhouse", secret, "--end", "--yes"],
        ["export", "clickhouse", secret, "--end", "--follow"],
    )
    assert f"Copies there are: {other}, {there}" in refused(wrong)
    assert asked.returncode == 1
    assert "last filled at" in asked.stdout
    assert json.loads(fine(ended))["target"] == there
    assert f"There is no copy in {there}. Copies there are: {other}" in refused(again)
    assert "--end sends nothing" in mixed.stderr
    assert "canary" not in "".join(done.stdout + done.stderr for done in (wrong, asked, ended, again, mixed))
    triggers = "select count(*) as n from pg_trigger where tgname like 'export\\_%'"
    assert rows(triggers) != [{"n": 0}]
    [last] = several(["export", "clickhouse", other, "--end", "--yes"])
    assert "it was the last one" in fine(last)
    assert rows(triggers) == [{"n": 0}]
