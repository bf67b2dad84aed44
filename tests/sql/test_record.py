"""`record_calls_v2`, what older clients call, and `record_runs_v1`: one batch, good and bad rows, once each."""

from __future__ import annotations

import contextlib
import json
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from tests.sql.helpers import (
    Connection,
    Row,
    a_call,
    a_run,
    an_end,
    an_unpriced_call,
    assert_waits_for_lock,
    call_id,
    connect,
    literal_of,
    record,
    record_runs,
    rejections,
    report,
)

NONE_REJECTED = {"rejected": []}


def stored(db: Connection) -> list[str]:
    return [str(row["id"]) for row in db.execute("select id from token_usage_logs order by id").fetchall()]


def test_a_batch_is_stored_as_it_was_sent(db: Connection) -> None:
    """If this failed, money or attribution would change on the way into the database."""
    call = a_call(
        organization_id="acme",
        user_id="u-1",
        service_type="virtual_panel",
        panel_position=2,
        panel_size=3,
        input_cost="0.300000000000000000000000000001",
        total_cost="0.420000000000000000000000000001",
        latency_ms=12.5,
        tags=["a", "b"],
        metadata={"k": [1, 2]},
    )
    assert record(db, call, an_unpriced_call(2)) == {"inserted": 2, "duplicate": 0, **NONE_REJECTED}
    first, second = db.execute("select * from token_usage_logs order by id").fetchall()
    assert first["input_cost"] == Decimal("0.300000000000000000000000000001")
    assert first["total_cost"] == Decimal("0.420000000000000000000000000001")
    assert (first["panel_position"], first["panel_size"], first["latency_ms"]) == (2, 3, 12.5)
    assert (first["tags"], first["metadata"]) == (["a", "b"], {"k": [1, 2]})
    assert (first["status"], first["success"], first["call_type"], first["cache_hit"]) == ("ok", True, "chat", False)
    assert (second["priced"], second["total_cost"], second["price_version"]) == (False, None, None)
    assert first["recorded_at"] == second["recorded_at"]


def test_a_row_stands_for_one_call_unless_it_says_more(db: Connection) -> None:
    """If this failed, calls that were merged would count as one, or rows of an older library would be refused."""
    merged = {
        "prompt_tokens": 10**12,
        "completion_tokens": 10**11,
        "total_tokens": 11 * 10**11,
        "total_cost": "98765.43",
    }
    record(db, a_call(1), a_call(2, calls=None), a_call(3, calls=7, metadata={"notes": ["merged"]}, **merged))
    rows = db.execute("select calls, total_tokens, total_cost from token_usage_logs order by id").fetchall()
    assert [row["calls"] for row in rows] == [1, 1, 7]
    assert (rows[2]["total_tokens"], rows[2]["total_cost"]) == (11 * 10**11, Decimal("98765.43"))


def test_an_empty_batch_is_accepted(db: Connection) -> None:
    """If this failed, a writer with nothing to send would stumble."""
    assert record(db) == {"inserted": 0, "duplicate": 0, **NONE_REJECTED}
    assert record_runs(db) == {"inserted": 0, "duplicate": 0, **NONE_REJECTED}


HOLDS = {
    "record_calls_v1": "a JSON array of objects",
    "record_calls_v2": "an array of rows",
    "record_runs_v1": "a JSON array of objects",
}


@pytest.mark.parametrize("function", HOLDS)
@pytest.mark.parametrize("batch", ["{", "3", "null", '"[]"', "", "nonsense", "[", None])
def test_a_batch_that_is_no_array_is_refused_in_plain_words(db: Connection, function: str, batch: str | None) -> None:
    """If this failed, a client that sends the wrong thing would be told that all went well, or be shown its own data."""
    with pytest.raises(psycopg.DataError) as refused:
        report(db, function, batch)
    assert refused.value.sqlstate == ("22004" if batch is None else "22023")
    words = "must be given: it is NULL" if batch is None else f"The batch must be text that holds {HOLDS[function]}."
    assert words in (refused.value.diag.message_primary or "")
    assert refused.value.diag.message_detail is None


# What a row may not be, the SQLSTATE and the rule that the report names.
BAD: list[tuple[str, Any, str, str | None]] = [
    ("null", None, "22023", None),
    ("number", 7, "22023", None),
    ("text", "secret", "22023", None),
    ("array", [["secret"]], "22023", None),
    ("nothing in it", {}, "23502", "id"),
    ("no id", {**a_call(), "id": None}, "23502", "id"),
    ("id is no uuid", a_call(id="secret"), "22P02", None),
    ("id is a number", a_call(id=3), "22P02", None),
    ("no time", a_call(50, created_at=None), "23502", "created_at"),
    ("time is no time", a_call(50, created_at="secret"), "22007", None),
    ("time out of range", a_call(50, created_at="999999-01-01T00:00:00Z"), "22008", None),
    ("time beyond clients", a_call(50, created_at="infinity"), "23514", "token_usage_logs_created_at"),
    ("tokens are text", a_call(50, prompt_tokens="secret"), "22P02", None),
    ("tokens overflow", a_call(50, prompt_tokens=10**30), "22003", None),
    ("tokens sum overflows", a_call(50, prompt_tokens=2**63 - 1, completion_tokens=5), "22003", None),
    ("tokens are a fraction", a_call(50, prompt_tokens=1.5), "22P02", None),
    ("stands for no call", a_call(50, calls=0), "23514", "token_usage_logs_calls"),
    ("stands for less than none", a_call(50, calls=-1), "23514", "token_usage_logs_calls"),
    ("calls are a fraction", a_call(50, calls=1.5), "22P02", None),
    ("calls overflow", a_call(50, calls=2**31), "22003", None),
    ("seat overflows", a_call(50, panel_position=99999), "22003", None),
    ("cost overflows", a_call(50, total_cost="1e999999"), "22003", None),
    ("cost is NaN", a_call(50, potential_cost="NaN"), "23514", "token_usage_logs_costs_not_negative"),
    ("negative cost", a_call(50, potential_cost="-1"), "23514", "token_usage_logs_costs_not_negative"),
    ("cost and unpriced", a_call(50, priced=False), "23514", "token_usage_logs_priced"),
    ("priced unsaid", {k: v for k, v in a_call(50).items() if k != "priced"}, "23502", "priced"),
    ("bool is garbage", a_call(50, cache_hit="secret"), "22P02", None),
    ("tags are text", a_call(50, tags="secret"), "22P02", None),
    ("tags are an object", a_call(50, tags={"secret": 1}), "22P02", None),
    ("metadata is a list", a_call(50, metadata=["secret"]), "23514", "token_usage_logs_metadata_small"),
    ("NUL in text", a_call(50, user_id="sec\0ret"), "22P05", None),
    ("NUL in metadata", a_call(50, metadata={"k": "sec\0ret"}), "22P05", None),
    ("NUL in the id", a_call(id="sec\0ret"), "22P05", None),
    ("lone surrogate", a_call(50, user_id="\ud800surrogate"), "22P02", None),
    ("too long for an index", a_call(50, user_id=random.Random(7).randbytes(20_000).hex()), "54000", None),
    ("unknown service", a_call(50, service_type="secret"), "23514", "token_usage_logs_service_type"),
]


# What no literal can hold is not sent: the package's encoder refuses it.
BAD_CASES = [
    pytest.param(*case, function, id=f"{name}, {function}")
    for function in ("record_calls_v1", "record_calls_v2")
    for name, *case in BAD
    if function == "record_calls_v1" or not ("NUL" in name or "surrogate" in name)
]


@pytest.mark.parametrize(("bad", "sqlstate", "rule", "function"), BAD_CASES)
def test_a_bad_row_is_set_aside_alone(db: Connection, bad: Any, sqlstate: str, rule: str | None, function: str) -> None:
    """If this failed, one bad row would take its neighbours with it, or its content would show in the report."""
    if function == "record_calls_v2" and not isinstance(bad, dict):
        refused = pytest.raises(psycopg.DataError, match="must be text that holds an array of rows")
        with (
            refused,
            db.transaction(),
        ):  # what cannot be named in a report fails the batch, which is halved until it stands alone
            record(db, a_call(1), bad, a_call(99), function=function)
        return
    answer = record(db, a_call(1), bad, a_call(99), function=function)
    assert (answer["inserted"], answer["duplicate"]) == (2, 0)
    [(reported_id, *reported)] = rejections(answer)
    assert reported == [sqlstate, rule]
    assert stored(db) == [call_id(1), call_id(99)]
    given = str(bad["id"]) if isinstance(bad, dict) and bad.get("id") is not None else None
    unreadable = sqlstate == "22P05" or "surrogate" in str(bad)  # PostgreSQL reads no part of such a row
    assert reported_id == (None if unreadable else given)
    assert "secret" not in json.dumps(answer["rejected"] if given != "secret" else reported)


def test_a_deeply_nested_row_is_refused_without_a_crash(db: Connection) -> None:
    """If this failed, one hostile row could stop delivery for good."""
    batch = json.dumps([a_call(1)])[:-1] + ', {"metadata": ' + "[" * 20_000 + "]" * 20_000 + "}]"
    # Either refused whole, with 54001, which has the client halve the batch until the row stands alone, or set aside.
    with contextlib.suppress(psycopg.errors.StatementTooComplex):
        assert report(db, "record_calls_v1", batch)["inserted"] == 1
    nested = literal_of([a_call(2), a_call(3, metadata={"nested": 0})]).replace(
        ": 0", ": " + "[" * 20_000 + "]" * 20_000
    )
    assert rejections(report(db, "record_calls_v2", nested)) == [(call_id(3), "54001", None)]
    assert record(db, a_call(4))["inserted"] == 1


@pytest.mark.parametrize("function", ["record_calls_v1", "record_calls_v2"])
def test_many_bad_rows_are_all_reported_and_all_others_stored(db: Connection, function: str) -> None:
    """If this failed, the counts would not add up to what was sent."""
    calls = [a_call(number, status="nonsense" if number % 3 == 0 else "ok") for number in range(300)]
    answer = record(db, *calls, function=function)
    assert (answer["inserted"], answer["duplicate"], len(answer["rejected"])) == (200, 0, 100)
    assert {bad["rule"] for bad in answer["rejected"]} == {"token_usage_logs_status"}
    again = record(db, *calls, function=function)
    assert (again["inserted"], again["duplicate"], len(again["rejected"])) == (0, 200, 100)


def test_a_long_id_is_shortened_in_the_report(db: Connection) -> None:
    """If this failed, a report could be as large as the batch."""
    [bad] = record(db, a_call(id="x" * 10_000))["rejected"]
    assert bad["id"] == "x" * 64


def test_the_same_call_twice_is_one_row(db: Connection) -> None:
    """If this failed, a lost acknowledgement would bill a call twice."""
    assert record(db, a_call(1), a_call(1), a_call(2)) == {"inserted": 2, "duplicate": 1, **NONE_REJECTED}
    assert record(db, a_call(2, user_id="other"), a_call(3)) == {"inserted": 1, "duplicate": 1, **NONE_REJECTED}
    answer = record(db, a_call(1), {"id": "x"}, a_call(4), a_call(4))
    assert (answer["inserted"], answer["duplicate"], len(answer["rejected"])) == (1, 2, 1)
    assert stored(db) == [call_id(number) for number in (1, 2, 3, 4)]
    assert db.execute("select user_id from token_usage_logs where id = %s", [call_id(2)]).fetchone() == {
        "user_id": None
    }


def test_unknown_keys_are_ignored(db: Connection) -> None:
    """If this failed, dead letters of a newer library could not be sent to an older database."""
    assert record(db, a_call(1, column_of_tomorrow=1), function="record_calls_v1")["inserted"] == 1


def test_a_rule_of_the_team_s_own_sets_one_row_aside(db: Connection) -> None:
    """If this failed, a unique index of the team's own would hold up every call, or take calls for stored that are not."""
    db.execute("create unique index own_rule on token_usage_logs (run_id, created_at)")
    record(db, a_call(1, run_id="r"), a_call(3))
    answer = record(db, a_call(4, run_id="r"), a_call(3), a_call(5))
    assert (answer["inserted"], answer["duplicate"], [bad["id"] for bad in answer["rejected"]]) == (1, 1, [call_id(4)])


def test_generated_and_own_columns_cannot_be_forged(db: Connection) -> None:
    """If this failed, a client could claim success for a failure, or date its own recording."""
    record(db, a_call(1, status="error", success=True, recorded_at="2000-01-01T00:00:00Z"))
    row = db.execute("select success, recorded_at > '2020-01-01Z' as fresh from token_usage_logs").fetchone()
    assert row == {"success": False, "fresh": True}


def abandoned(number: int = 1) -> Row:
    return a_call(number, status="abandoned")


def late(number: int = 1, **changes: Any) -> Row:
    return a_call(number, total_cost="0.50", replaces_abandoned=True, **changes)


def the_row(db: Connection) -> tuple[str, str]:
    [row] = db.execute("select status, total_cost from token_usage_logs").fetchall()
    return row["status"], str(row["total_cost"])


@pytest.mark.parametrize(
    "batches",
    [
        [[abandoned()], [late()]],
        [[late()], [abandoned()]],
        [[abandoned(), late()]],
        [[late(), abandoned()]],
        [[abandoned(), {"bad": 1}, late()]],
        [[late(), {"bad": 1}, abandoned()]],
        [[abandoned()], [late()], [late()], [abandoned()]],
    ],
    ids=["late", "early", "one batch", "one batch reversed", "row by row", "row by row reversed", "sent again"],
)
@pytest.mark.parametrize("function", ["record_calls_v1", "record_calls_v2"])
def test_the_true_end_of_an_abandoned_call_stays(db: Connection, batches: list[list[Row]], function: str) -> None:
    """If this failed, a slow call would stay on the books as given up, with a cost that is not its own."""
    for batch in batches:
        record(db, *batch, function=function)
    assert the_row(db) == ("ok", "0.50")


def test_only_abandoned_rows_are_replaced(db: Connection) -> None:
    """If this failed, a recorded call could be overwritten."""
    record(db, a_call(1))
    assert record(db, late())["duplicate"] == 1
    assert the_row(db) == ("ok", "0.42")


def test_a_row_that_stands_for_several_calls_is_not_replaced(db: Connection) -> None:
    """If this failed, the end of one call would take the money of the others off the books."""
    record(db, a_call(1, status="abandoned", calls=7))
    assert record(db, late())["duplicate"] == 1
    assert the_row(db) == ("abandoned", "0.42")


def test_a_replacement_that_is_refused_leaves_the_abandoned_row(db: Connection) -> None:
    """If this failed, a call would be in no row at all."""
    record(db, abandoned())
    answer = record(db, late(prompt_tokens="garbage"))
    assert (answer["inserted"], len(answer["rejected"])) == (0, 1)
    assert the_row(db) == ("abandoned", "0.42")


def test_a_text_that_names_the_flag_replaces_no_row(db: Connection) -> None:
    """If this failed, metadata that happens to hold the word would delete rows."""
    record(db, abandoned())
    record(db, a_call(1, metadata={"replaces_abandoned": True}))
    assert the_row(db)[0] == "abandoned"


def test_the_same_call_from_two_connections_at_once_is_one_row(own_db: Connection, database_url: str) -> None:
    """If this failed, two processes that send one spool would bill it twice, or fail."""
    with connect(database_url) as first, connect(database_url) as second, ThreadPoolExecutor(1) as pool:
        with first.transaction():
            assert record(first, a_call(1))["inserted"] == 1
            waiting = pool.submit(record, second, a_call(1), a_call(2))
            assert_waits_for_lock(own_db)
        assert waiting.result(30) == {"inserted": 1, "duplicate": 1, **NONE_REJECTED}
    assert stored(own_db) == [call_id(1), call_id(2)]


def test_a_call_is_stored_by_the_second_where_the_first_gives_up(own_db: Connection, database_url: str) -> None:
    """If this failed, a call would be counted as a duplicate of a row that never was."""
    with connect(database_url) as first, connect(database_url) as second, ThreadPoolExecutor(1) as pool:
        with first.transaction(force_rollback=True):
            record(first, a_call(1))
            waiting = pool.submit(record, second, a_call(1))
            assert_waits_for_lock(own_db)
        assert waiting.result(30) == {"inserted": 1, "duplicate": 0, **NONE_REJECTED}


@pytest.mark.parametrize("poisoned", [False, True], ids=["clean", "with bad rows"])
def test_eight_connections_with_overlapping_batches_store_each_call_once(
    own_db: Connection, database_url: str, poisoned: bool
) -> None:
    """If this failed, writers under load would deadlock, or a call would be stored twice or not at all."""
    start = threading.Barrier(8)

    def send(worker: int) -> list[Row]:
        shuffled = random.Random(worker)
        answers = []
        with connect(database_url) as connection:
            for batch_number in range(6):
                calls: list[Any] = [a_call(batch_number * 50 + number) for number in range(100)]
                if poisoned:
                    calls += [{"id": "poison"}, {}]
                shuffled.shuffle(calls)
                start.wait(60)
                answers.append(record(connection, *calls))
        return answers

    with ThreadPoolExecutor(8) as pool:
        answers = [answer for found in pool.map(send, range(8)) for answer in found]
    assert stored(own_db) == [call_id(number) for number in range(350)]
    assert sum(answer["inserted"] for answer in answers) == 350
    assert sum(answer["duplicate"] for answer in answers) == 8 * 6 * 100 - 350
    assert sum(len(answer["rejected"]) for answer in answers) == (96 if poisoned else 0)
    assert own_db.execute("select deadlocks from pg_stat_database where datname = current_database()").fetchone() == {
        "deadlocks": 0
    }


def the_run(db: Connection, run_id: str = "r-1") -> Row:
    row = db.execute("select * from service_runs where id = %s", [run_id]).fetchone()
    assert row is not None
    return row


def test_a_run_begins_and_ends(db: Connection) -> None:
    """If this failed, admins would not see which workflows run and which have ended."""
    assert record_runs(db, a_run(user_id="u-1", metadata={"k": 1})) == {"inserted": 1, "duplicate": 0, **NONE_REJECTED}
    assert (the_run(db)["status"], the_run(db)["ended_at"]) == ("running", None)
    assert record_runs(db, an_end(status="error", error_type="ValueError"))["inserted"] == 1
    row = the_run(db)
    assert (row["status"], row["error_type"], row["user_id"], row["metadata"]) == (
        "error",
        "ValueError",
        "u-1",
        {"k": 1},
    )
    assert (row["ended_at"] - row["started_at"]).total_seconds() == 90


@pytest.mark.parametrize(
    "batches",
    [
        [[an_end()], [a_run()]],
        [[a_run(), an_end()]],
        [[an_end(), a_run()]],
        [[a_run(), {"bad": 1}, an_end()]],
        [[an_end(), {"bad": 1}, a_run()]],
        [[a_run()], [a_run()], [an_end()], [an_end(status="error")], [a_run()]],
    ],
    ids=["end first", "one batch", "one batch reversed", "row by row", "row by row reversed", "sent again"],
)
def test_an_end_is_final_in_whatever_order_it_comes(db: Connection, batches: list[list[Row]]) -> None:
    """If this failed, a run that has ended would show as running for ever."""
    for batch in batches:
        record_runs(db, *batch)
    assert the_run(db)["status"] == "ok"
    assert db.execute("select count(*) as runs from service_runs").fetchone() == {"runs": 1}


@pytest.mark.parametrize("at_once", [True, False])
def test_the_true_end_of_an_abandoned_run_replaces_that_and_no_other_end(db: Connection, at_once: bool) -> None:
    """If this failed, a run whose parent process has died would be shown as abandoned, although it was brought to its end."""
    states = [an_end(status="abandoned"), an_end(status="ok"), an_end(status="abandoned"), an_end(status="error")]
    for batch in [states[:3], states[3:]] if at_once else [[state] for state in states]:
        record_runs(db, *batch)
    assert the_run(db)["status"] == "ok"


def test_a_run_ends_after_it_began_although_the_clock_was_set_meanwhile(db: Connection) -> None:
    """If this failed, its end would be refused, and it would be running for ever."""
    late = "2026-03-01T12:00:00+00:00"
    record_runs(db, a_run(started_at=late))
    assert record_runs(db, an_end())["rejected"] == []  # by a clock that was set back
    row = the_run(db)
    assert (row["status"], (row["ended_at"] - row["started_at"]).total_seconds()) == ("ok", 90)
    assert row["started_at"].isoformat() == late


def test_a_bad_run_is_set_aside_alone(db: Connection) -> None:
    """If this failed, one bad run would take the others with it."""
    answer = record_runs(
        db,
        a_run("r-1"),
        an_end("r-2", ended_at="2026-01-15T09:00:00+00:00"),
        a_run("r-3", service_type=None),
        a_run(None),  # type: ignore[arg-type]
        "garbage",
        a_run("r-4", ancestor_run_ids="secret"),
        a_run("r-5"),
    )
    assert (answer["inserted"], answer["duplicate"]) == (2, 0)
    assert rejections(answer) == [
        ("r-2", "23514", "service_runs_order"),
        ("r-3", "23502", "service_type"),
        ("r-4", "22P02", None),
        (None, "22023", None),
        (None, "23502", "id"),
    ]
    assert "secret" not in json.dumps(answer)
    assert [row["id"] for row in db.execute("select id from service_runs order by id")] == ["r-1", "r-5"]


def test_eight_connections_that_end_the_same_runs_do_not_deadlock(own_db: Connection, database_url: str) -> None:
    """If this failed, delivery would stall under load."""
    start = threading.Barrier(8)

    def send(worker: int) -> None:
        runs: list[Any] = [make(f"r-{number}") for number in range(60) for make in (a_run, an_end)]
        if worker % 2:
            runs.append({"bad": 1})
        random.Random(worker).shuffle(runs)
        with connect(database_url) as connection:
            start.wait(60)
            record_runs(connection, *runs)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(send, range(8)))
    assert own_db.execute("select status, count(*) as runs from service_runs group by 1").fetchall() == [
        {"status": "ok", "runs": 60}
    ]
