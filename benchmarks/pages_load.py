"""A thousand open pages, each of which asks every minute whether something has changed.

`vital-tracking dashboard` in a process of its own, over three million calls of 300 organizations. A thousand people have a page
open, each with a session of his own: two admins of each organization, and plain members, who are answered from their own calls;
the overview in four of ten browsers, the other pages in the rest. They open it within three minutes, and then each browser asks
once a minute, as the page's own script does: with the tag of what it shows, over a new connection. Meanwhile calls are
recorded, of organizations by Zipf's law, so some pages have changed and most have not.

Beside the pages a program asks the API for the reports of these organizations, one after the other, once a second.

`still` is a minute in which nothing is recorded, `recording` are those in which it is. The client that asks runs on the same
machine, and takes from it what the last table says.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from benchmarks.figures import Claim, Found, Part, Table, number
from benchmarks.pages_client import EVERY_S, Answers, OpenPage, ask, keep_open
from benchmarks.pages_server import REPORTS, a_database_of, size_of
from benchmarks.pages_site import Site, a_dashboard, server_of
from benchmarks.usage import install

P95_MS, MEMORY_MB, GROWTH_MB = 180, 150, 3
OPENED_IN_S = 180
ADMINS = 2  # of each organization
# Which pages are open, of ten browsers each.
OPEN = ("", "", "", "", "services", "users", "models", "budgets", "calls", "runs")
_RECORD = "call bench.load_calls('token_usage_logs', %s, %s, %s, %s, %s)"


def people(url: str, organizations: int, pages: int) -> list[tuple[str, str]]:
    """Who looks, and at which page; the admins become members of their organizations."""
    found = []
    with psycopg.connect(url) as connection:
        for number_ in range(pages):
            organization = number_ % organizations
            place = number_ // organizations
            subject = f"admin-{place}-of-{organization}" if place < ADMINS else f"user-{organization}-{place - ADMINS}"
            role = "admin" if place < ADMINS else "member"
            connection.execute(
                "insert into organization_members values (%s, %s, %s) on conflict do nothing",
                [f"org-{organization}", subject, role],
            )
            found.append((subject, f"/{OPEN[number_ * 7 % len(OPEN)]}"))
    return found


async def record(url: str, a_second: float, first: int, until: float) -> int:
    """Record calls of now, one after the other, at this pace, past nothing: the triggers keep the sums. How many."""
    made = 0
    connection = await psycopg.AsyncConnection.connect(url, autocommit=True)
    async with connection:
        while time.monotonic() < until:
            call = first + made * 8  # of a session, and so an organization and user, of its own
            half_an_hour_ago = datetime.now(UTC) - timedelta(minutes=30)
            await connection.execute(_RECORD, [call, call, 2 * call, half_an_hour_ago, [0.0, 1.0]])
            made += 1
            await asyncio.sleep(1 / a_second)
    return made


async def ask_reports(site: Site, cookies: Sequence[str], until: float, answers: Answers) -> None:
    """A program that asks for a report every second, of one organization after the other."""
    number_ = 0
    while time.monotonic() < until:
        report = OpenPage(f"/api/v1/analytics/usage/{REPORTS[number_ % len(REPORTS)]}", cookies[number_ % len(cookies)])
        started = time.monotonic()
        status, size = await ask(site.port, report)
        answers.ms.setdefault(report.address, []).append((time.monotonic() - started) * 1000)
        answers.statuses[status] += 1
        answers.size += size
        number_ += 1
        await asyncio.sleep(max(0.0, 1 - (time.monotonic() - started)))


async def watch(site: Site, until: float, memory: list[float]) -> None:
    """The memory of the process, every second."""
    while time.monotonic() < until:
        memory.append(site.memory_mb())
        await asyncio.sleep(1)


async def stretch(
    site: Site,
    url: str,
    pages: list[OpenPage],
    admins: Sequence[str],
    for_s: float,
    calls_a_second: float,
    first: int,
    every_s: float = EVERY_S,
) -> dict[str, Any]:
    """Some minutes: what came back, and what it took."""
    answers, reports, memory = Answers(), Answers(), [site.memory_mb()]
    until = time.monotonic() + for_s
    cpu, own, started = site.cpu_s(), time.process_time(), time.monotonic()
    tasks = [keep_open(site.port, pages, for_s, answers, every_s), watch(site, until, memory)]
    if admins:
        tasks.append(ask_reports(site, admins, until, reports))
    recorded = 0
    if calls_a_second:
        _, recorded = await asyncio.gather(asyncio.gather(*tasks), record(url, calls_a_second, first, until))
    else:
        await asyncio.gather(*tasks)
    took = time.monotonic() - started
    return {
        "answers": told(answers),
        "reports": told(reports) if admins else {},
        "kinds": {kind: shares(taken) for kind, taken in sorted(answers.ms.items())},
        "memory_mb": {"first": memory[0], "last": statistics.median(memory[-5:]), "most": max(memory)},
        "server_cores": (site.cpu_s() - cpu) / took,
        "client_cores": (time.process_time() - own) / took,
        "recorded": recorded,
        "seconds": took,
    }


def cpu_ms(stage: dict[str, Any]) -> float:
    """What the dashboard worked for an answer."""
    count = stage["answers"]["answers"] + stage["reports"].get("answers", 0)
    return 1000 * float(stage["server_cores"]) * float(stage["seconds"]) / max(count, 1)


def told(answers: Answers) -> dict[str, Any]:
    """What came back in short."""
    count = sum(answers.statuses.values())
    return {
        **shares(answers.all_ms()),
        "answers": count,
        "not_modified": answers.statuses[304] / max(count, 1),
        "errors": sum(answers.errors.values()) + sum(n for s, n in answers.statuses.items() if s not in (200, 304)),
        "what": {str(what): n for what, n in (*answers.statuses.items(), *answers.errors.items())},
        "kb": answers.size / 1000 / max(count, 1),
        "late_p95_ms": shares(answers.late).get("p95", 0.0),
    }


def shares(taken: Sequence[float]) -> dict[str, float]:
    """Percentiles in ms."""
    if len(taken) < 2:
        return {}
    cuts = statistics.quantiles(taken, n=100)
    return {"p50": cuts[49], "p95": cuts[94], "p99": cuts[98], "most": max(taken)}


def measure(calls: int, pages: int, minutes: int, calls_a_second: float, folder: str, database: str) -> Found:
    """All figures."""
    size = size_of(calls)
    with a_database_of(calls, folder, database) as url:
        seen = people(url, size.organizations, pages)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("drop schema if exists bench cascade")
            install(connection)
            [(first,)] = connection.execute("select count(*) from token_usage_logs").fetchall()
        with a_dashboard(server_of(url)) as site:
            opened = [OpenPage(address, site.cookie(subject)) for subject, address in seen]
            admins = [site.cookie(f"admin-0-of-{number_}") for number_ in range(size.organizations)]

            async def all_of_it() -> dict[str, Any]:
                before = site.memory_mb()
                found = {"before_mb": before}
                first_at = 8 * int(first) + int(time.time()) * 8
                found["opening"] = await stretch(site, url, opened, [], OPENED_IN_S, 0, first_at, OPENED_IN_S)
                found["still"] = await stretch(site, url, opened, admins, EVERY_S, 0, first_at)
                found["recording"] = await stretch(
                    site, url, opened, admins, EVERY_S * minutes, calls_a_second, first_at
                )
                return found

            return {
                "size": str(size),
                "pages": pages,
                "minutes": minutes,
                "calls_a_second": calls_a_second,
                **asyncio.run(all_of_it()),
            }


# Telling

_STAGES = ("opening", "still", "recording")


def tables(found: Found) -> list[Table]:
    """The figures as tables."""
    about = f"{found['pages']:,} pages, {found['size']}"
    asked = [
        *((stage, found[stage]["answers"]) for stage in _STAGES),
        *((f"{stage}: reports of the API", found[stage]["reports"]) for stage in _STAGES[1:]),
    ]
    return [
        Table(
            f"Answers, ms ({about}; {number(found['calls_a_second'])} calls a second recorded for {found['minutes']} minutes)",
            ["", "answers", "p50", "p95", "p99", "longest", "304", "errors", "kB each"],
            [
                [
                    name,
                    f"{one['answers']:,}",
                    *(number(one[share]) for share in ("p50", "p95", "p99", "most")),
                    f"{one['not_modified']:.0%}",
                    f"{one['errors']:,}",
                    number(one["kb"]),
                ]
                for name, one in asked
            ],
        ),
        Table(
            "By page while calls are recorded, ms",
            ["", "p50", "p95", "p99"],
            [
                [kind, *(number(one[share]) for share in ("p50", "p95", "p99"))]
                for kind, one in found["recording"]["kinds"].items()
                if one
            ],
        ),
        Table(
            f"What it took (before the first page: {number(found['before_mb'])} MB)",
            [
                "",
                "memory at its end, MB",
                "at most, MB",
                "cores of the dashboard",
                "its CPU for an answer, ms",
                "cores of the client",
                "asked late by (p95), ms",
            ],
            [
                [
                    stage,
                    number(found[stage]["memory_mb"]["last"]),
                    number(found[stage]["memory_mb"]["most"]),
                    number(found[stage]["server_cores"]),
                    number(cpu_ms(found[stage])),
                    number(found[stage]["client_cores"]),
                    number(found[stage]["answers"]["late_p95_ms"]),
                ]
                for stage in _STAGES
            ],
        ),
    ]


def claims(found: Found) -> list[Claim]:
    """What was promised for two cores."""
    recording = found["recording"]
    most = max(found[stage]["memory_mb"]["most"] for stage in _STAGES)
    grown = recording["memory_mb"]["last"] - found["still"]["memory_mb"]["last"]
    wrong = sum(found[stage][what].get("errors", 0) for stage in _STAGES for what in ("answers", "reports"))
    return [
        Claim(
            f"{found['pages']:,} open pages, p95 of their answers", recording["answers"]["p95"], "at most", P95_MS, "ms"
        ),
        Claim("reports of the API beside them, p95", recording["reports"]["p95"], "at most", P95_MS, "ms"),
        Claim("memory of the dashboard", most, "at most", MEMORY_MB, "MB"),
        Claim(f"the same, grown in {found['minutes']} minutes", grown, "at most", GROWTH_MB, "MB"),
        Claim("answers that were errors", wrong, "at most", 0),
    ]


PART = Part(
    "pages_load",
    __doc__,
    measure,
    tables,
    claims,
    quick={"calls": 3_000_000, "pages": 1000, "minutes": 3, "calls_a_second": 1.0, "folder": "", "database": ""},
    full={"minutes": 15},
)

if __name__ == "__main__":
    PART.main()
