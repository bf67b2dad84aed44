"""How long every view and every reading function takes, as the service role, as an organization's admin and as a user.

Fills an embedded PostgreSQL with so many calls of 300 organizations, and asks what the database's own catalogue lists:

  all     the service role, of all organizations
  one     the service role, of the largest organization, which has an eighth of all calls
  admin   that organization's admin, by row level security
  user    its busiest user, by row level security

Milliseconds of the server's own time until the last row is there, planning included and without parallel workers: what somebody
waits on a machine that has nothing else to do and its data in memory. Fewest of the rounds after one that warms up, since what
else runs on a machine only adds to it; on PostgreSQL as it is delivered. `--only "explore_v1() run,preview"` asks for less.

Then the same of small databases, of which each has four times as many calls, days, organizations or users as another one. The
exponents say how the time grows: 0 not at all, 1 linearly. `--folder` keeps the databases there for the next time.
"""

from __future__ import annotations

import contextlib
import math
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.figures import Claim, Found, Part, Table, number
from benchmarks.reports import Connection
from benchmarks.reports_database import ADMIN, BIG_USER, Size, a_server, claims_of, filled
from benchmarks.reports_questions import Question, questions

LIMITS_MS = {"all": 1000, "one": 300, "admin": 300, "user": 300}
DASHBOARD, DASHBOARD_MS = "get_dashboard_stats()", 50
PATIENCE_S = 30  # for one answer
TIMES = 4  # by which the small databases differ
SHORT_MS = 10  # what takes less says nothing about growth: a plan that is kept or made anew outweighs it
LINEAR = 1.15  # an exponent of at most 1, and what chance adds to it
TOLD = 0.25  # of its limit: what takes less, whoever asks, stands in no table


@contextlib.contextmanager
def read_by(connection: Connection, reader: str) -> Iterator[None]:
    """Inside, the connection is a request of the service role, or of somebody with a token."""
    with connection.transaction(force_rollback=True):
        connection.execute(f"set local statement_timeout = '{PATIENCE_S}s'".encode())
        if reader in ("all", "one"):
            connection.execute("set local role service_role")
        else:
            claims = claims_of(ADMIN if reader == "admin" else BIG_USER)
            connection.execute("select set_config('request.jwt.claims', %s, true)", [claims])
            connection.execute("set local role authenticated")
        yield


def query_of(question: Question, reader: str) -> str | None:
    """How a reader asks it: admins and users leave out what the policies say anyway, but for functions, where they name it."""
    if reader == "all":
        return question.of_all
    if reader == "one":
        return question.of_one
    if not question.signed_in:
        return None
    return question.of_one if "()" in question.name and question.of_one else question.of_all


def once(connection: Connection, query: str, reader: str) -> tuple[float, float, str]:
    """Milliseconds until the answer is there, those of the server's process alone, and what went wrong."""
    schedule = Path(f"/proc/{connection.info.backend_pid}/schedstat")
    before, started, wrong = int(schedule.read_text().split()[0]), time.perf_counter(), ""
    try:
        with read_by(connection, reader):
            connection.execute(query.encode()).fetchall()
    except psycopg.errors.QueryCanceled:
        wrong = "cut off"
    except (psycopg.errors.InsufficientPrivilege, psycopg.DataError):
        wrong = "refused"
    return (time.perf_counter() - started) * 1000, (int(schedule.read_text().split()[0]) - before) / 1e6, wrong


def measured(connection: Connection, rounds: int, only: str = "", say: bool = False) -> dict[str, dict[str, Any]]:
    """All questions, or those with one of these words, by all readers: {question: {reader: {"ms", "waited_ms", "wrong"}}}."""
    connection.execute("set max_parallel_workers_per_gather = 0")  # their time is not this process's
    found: dict[str, dict[str, Any]] = {}
    for question in questions(connection):
        if not any(words in question.name for words in only.split(",")):
            continue
        for reader in LIMITS_MS:
            query = query_of(question, reader)
            if query is None:
                continue
            times = [once(connection, query, reader)]
            if not times[0][2]:
                times = [once(connection, query, reader) for _ in range(1 if times[0][0] > 3000 else rounds)]
            found.setdefault(question.name, {})[reader] = {
                "waited_ms": statistics.median(one[0] for one in times),
                "ms": min(one[1] for one in times),
                "wrong": times[0][2],
            }
        if say:
            told = {reader: one["wrong"] or number(one["ms"]) for reader, one in found[question.name].items()}
            print(f"{question.name:70} {told}", flush=True)
    return found


def limit_ms(question: str, reader: str) -> int:
    """How long an answer may take."""
    return DASHBOARD_MS if question.startswith(DASHBOARD) and reader != "all" else LIMITS_MS[reader]


def growing(server: str, calls: int, rounds: int, only: str = "") -> dict[str, dict[str, dict[str, float]]]:
    """Exponents: {what grows: {question: {reader: exponent}}}, of what takes long enough to tell."""
    most = Size(calls * TIMES, 30)
    smaller = {
        "calls": replace(most, calls=calls),
        "organizations": replace(most, organizations=most.organizations // TIMES),
        "users": replace(most, users=most.users // TIMES),
    }
    longer = replace(most, days=most.days * TIMES)
    shorter = replace(longer, days=most.days, calls=calls)
    pairs = {**{what: (size, most) for what, size in smaller.items()}, "days": (shorter, longer)}
    cpu: dict[Size, dict[str, dict[str, Any]]] = {}
    for size in {size: None for pair in pairs.values() for size in pair}:
        with psycopg.connect(filled(server, size), autocommit=True, prepare_threshold=None) as connection:
            cpu[size] = measured(connection, rounds, only)
    return {
        what: {
            question: {
                reader: math.log(max(one["ms"], 1e-3) / max(cpu[few][question][reader]["ms"], 1e-3)) / math.log(TIMES)
                for reader, one in by_reader.items()
                if not one["wrong"] and max(one["ms"], cpu[few][question][reader]["ms"]) >= SHORT_MS
            }
            for question, by_reader in cpu[many].items()
        }
        for what, (few, many) in pairs.items()
    }


def measure(calls: int, days: int, rounds: int, growth: int, folder: str, only: str = "") -> Found:
    """All figures; `growth` is how many calls the smallest of the growing databases has, and 0 leaves them out."""
    size = Size(calls, days)
    with a_server(folder) as server:
        url = filled(server, size)
        with psycopg.connect(url, autocommit=True, prepare_threshold=None) as connection:
            found = measured(connection, rounds, only, say=True)
        return {
            "size": str(size),
            "rounds": rounds,
            "ms": found,
            "growth": growing(server, growth, rounds, only) if growth else {},
        }


# Telling


def cell(question: str, reader: str, one: dict[str, Any] | None) -> str:
    """A figure, marked where it is over its limit."""
    if one is None:
        return ""
    if one["wrong"]:
        return f"**{one['wrong']}**" if one["wrong"] == "cut off" else one["wrong"]
    return f"**{number(one['ms'])}**" if one["ms"] > limit_ms(question, reader) else number(one["ms"])


def share(question: str, by_reader: dict[str, dict[str, Any]]) -> float:
    """How much of its limit an answer takes, at most."""
    return max(
        (one["ms"] / limit_ms(question, reader) for reader, one in by_reader.items() if one["wrong"] != "refused"),
        default=0.0,
    )


def tables(found: Found) -> list[Table]:
    """The figures as tables: what takes a good part of its limit, the slowest first, and how that grows."""
    shares = {question: share(question, by_reader) for question, by_reader in found["ms"].items()}
    slow = sorted((question for question in shares if shares[question] >= TOLD), key=lambda question: -shares[question])
    told = [
        Table(
            f"Views and reading functions, ms ({found['size']}, {found['rounds']} rounds; the {len(shares) - len(slow)} that are"
            f" not here take less than {TOLD:.0%} of their limits)",
            ["", *LIMITS_MS],
            [
                [question, *(cell(question, reader, found["ms"][question].get(reader)) for reader in LIMITS_MS)]
                for question in slow
            ],
        )
    ]
    if found["growth"]:
        highest = {
            what: {question: max(by_reader.values()) for question, by_reader in grown.items() if by_reader}
            for what, grown in found["growth"].items()
        }
        rows = [
            [
                question,
                *(number(round(highest[what][question], 2)) if question in highest[what] else "" for what in highest),
            ]
            for question in slow
            if any(question in grown for grown in highest.values())
        ]
        told.append(
            Table("How the server's time grows with it, the highest exponent of all readers", ["", *highest], rows)
        )
    return told


def claims(found: Found) -> list[Claim]:
    """The slowest answer for each reader, and the highest exponent."""
    told = []
    for reader, limit in LIMITS_MS.items():
        asked = {question: one[reader] for question, one in found["ms"].items() if reader in one}
        asked = {question: one for question, one in asked.items() if one["wrong"] != "refused"}
        slowest = max(asked, key=lambda question: asked[question]["ms"])
        told.append(Claim(f"slowest answer, {reader} ({slowest})", asked[slowest]["ms"], "at most", limit, "ms"))
    for question, by_reader in found["ms"].items():
        if question.startswith(DASHBOARD):
            slow = max(one["ms"] for reader, one in by_reader.items() if reader != "all" and not one["wrong"])
            told.append(Claim(f"{question} of 30 days, one organization", slow, "at most", DASHBOARD_MS, "ms"))
    for what, grown in found["growth"].items():
        every = {
            f"{question}, {reader}": one for question, by_reader in grown.items() for reader, one in by_reader.items()
        }
        steepest = max(every, key=lambda name: every[name])
        told.append(Claim(f"steepest growth with {what} ({steepest})", every[steepest], "at most", LINEAR))
    return told


PART = Part(
    "reports_readers",
    __doc__,
    measure,
    tables,
    claims,
    quick={"calls": 3_000_000, "days": 120, "rounds": 3, "growth": 100_000, "folder": "", "only": ""},
)

if __name__ == "__main__":
    PART.main()
