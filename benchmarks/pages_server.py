"""How long the server takes for every page and every report of one organization, at three million calls.

`vital-tracking dashboard` in a process of its own over a database of 300 organizations; each address is asked one after the
other, in turns. What is told is the time that the dashboard's process and the database's have worked for an answer, which is what
one waits on a machine that has nothing else to do. Who asks:

  operator  who started the dashboard, of the largest organization, which has an eighth of all calls
  admin     that organization's admin, by row level security
  user      its busiest user, who is answered from his own calls

Milliseconds, the fewest of the rounds after one that warms up, since what else runs on a machine only adds to it; `waited` is the
median until the last byte was there, with all that ran beside. `--days` is the time that is asked for. `--folder` keeps the
database there for the next time, `--database` names one that is there already.
"""

from __future__ import annotations

import contextlib
import http.client
import statistics
import time
from collections.abc import Iterator, Mapping
from typing import Any

import psycopg

from benchmarks.database import cpu_ms
from benchmarks.figures import Claim, Found, Part, Table, number
from benchmarks.pages_client import EVERY_S
from benchmarks.pages_site import Site, a_dashboard, operator_session, server_of
from benchmarks.reports import Connection
from benchmarks.reports_database import ADMIN, BIG_ORGANIZATION, BIG_USER, Size, a_server, filled
from vital_tracking.web.pages.frame import NAVIGATION

PAGE_MS = 200
PAGES, CORES = 1000, 2
READERS = ("operator", "admin", "user")
REFRESHED = ("page overview", "page users")
AGAIN = ", asked again"
"""What the rows are called of pages that the browser has, and that have not changed."""
_OF_HOUSE = ("status", "prices", "audit")
"""Pages that are about no organization."""

REPORTS = ("overview", "patterns", "by-user", "by-service", "costs", "performance")


def size_of(calls: int) -> Size:
    """So many calls, of as many days as keep the calls of a day: three million are of 120."""
    return Size(calls, max(round(calls * 120 / 3_000_000), 1))


def addresses(url: str, days: int) -> dict[str, str]:
    """All pages and reports, and one of each kind of thing, by the names that the tables give them."""
    with psycopg.connect(url, autocommit=True) as connection:

        def one(query: str) -> Any:
            return connection.execute(query.encode(), [BIG_ORGANIZATION]).fetchall()[0][0]

        mine = "organization_id = %s and user_id = 'user-0-0'"
        run = one(f"select service_run_id from token_usage_logs where {mine} order by created_at desc limit 1")
        call = one(f"select id from token_usage_logs where {mine} order by created_at desc limit 1")
        budget = one("select id from budget_limits where entity_id = %s limit 1")
    time_asked = f"days={days}&organization={BIG_ORGANIZATION}"
    found = {}
    for _, links in NAVIGATION:
        for name, _, path in links:
            found[f"page {name}"] = f"/{path}?{f'days={days}' if name in _OF_HOUSE else time_asked}"
    for page, filtered in (
        ("users", f"user={BIG_USER}"),
        ("services", "service=workflow"),
        ("agents", "agent=agent-3"),
        ("models", "model=model-1"),
        ("workflows", "workflow=workflow-0"),
        ("panels", "panel=panel-0"),
    ):
        found[f"page {page}, of one"] = f"/{page}?{time_asked}&{filtered}"
    found["page runs, of one"] = f"/runs/{run}"
    found["page calls, of one"] = f"/calls/{call}"
    found["page budgets, of one"] = f"/budgets/{budget}"
    for report in REPORTS:
        found[f"report {report}"] = f"/api/v1/analytics/usage/{report}?{time_asked}"
    found["api calls"] = f"/api/v1/calls?{time_asked}"
    found["api runs"] = f"/api/v1/runs?{time_asked}"
    found["api explore"] = f"/api/v1/explore?{time_asked}&by=agent&by=model"
    found["api budgets"] = "/api/v1/budgets"
    found["api alerts"] = "/api/v1/alerts"
    found["api forecast"] = f"/api/v1/forecast?organization={BIG_ORGANIZATION}"
    return found


class Asking:
    """Somebody who asks the dashboard, over a connection for each question."""

    def __init__(self, site: Site, connection: Connection, cookie: str) -> None:
        self._port = site.port
        self._pid = site.pid
        self._database = connection
        self._tag = ""
        self._headers = {"Cookie": cookie, "Accept-Encoding": "gzip", "Accept": "text/html,*/*"}

    def once(self, address: str, again: bool = False) -> tuple[float, dict[str, float], int, int]:
        """Milliseconds until an answer is there, those that the dashboard and the database worked, status and bytes.

        `again` asks as a browser does that has the page already.
        """
        headers = {**self._headers, **({"If-None-Match": self._tag} if again else {})}
        before, started = self._worked(), time.perf_counter()
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)) as connection:
            connection.request("GET", address, headers=headers)
            answer = connection.getresponse()
            body = answer.read()
        self._tag = answer.getheader("ETag") or ""
        waited = (time.perf_counter() - started) * 1000
        after = self._worked()
        return waited, {name: after[name] - before.get(name, 0.0) for name in after}, answer.status, len(body)

    def _worked(self) -> dict[str, float]:
        query = "select pid from pg_stat_activity where application_name = 'vital_tracking'"
        backends = [pid for (pid,) in self._database.execute(query).fetchall()]
        return {"dashboard": cpu_ms([self._pid]), **{str(pid): cpu_ms([pid]) for pid in backends}}


def timed(site: Site, url: str, asked: Mapping[str, str], rounds: int) -> dict[str, dict[str, Any]]:
    """{address: {reader: {"ms", "database_ms", "waited_ms", "status", "bytes"}}}."""
    cookies = {"operator": operator_session(site), "admin": site.cookie(ADMIN), "user": site.cookie(BIG_USER)}
    found: dict[str, dict[str, Any]] = {}
    with psycopg.connect(url, autocommit=True) as connection:
        people = {reader: Asking(site, connection, cookie) for reader, cookie in cookies.items()}
        for name, address in asked.items():
            for reader, asking in people.items():
                for again in (False, True) if name in REFRESHED else (False,):
                    answers = [_patiently(asking, address, again) for _ in range(rounds + 1)][1:]
                    best = min(answers, key=lambda answer: sum(answer[1].values()))
                    found.setdefault(f"{name}{AGAIN * again}", {})[reader] = {
                        "ms": sum(best[1].values()),
                        "database_ms": sum(best[1].values()) - best[1]["dashboard"],
                        "waited_ms": statistics.median(answer[0] for answer in answers),
                        "status": best[2],
                        "bytes": best[3],
                    }
    return found


def _patiently(asking: Asking, address: str, again: bool) -> tuple[float, dict[str, float], int, int]:
    """An answer, later where a user has asked a hundred times in a minute."""
    answer = asking.once(address, again)
    while answer[2] == 429:
        time.sleep(3)
        answer = asking.once(address, again)
    return answer


@contextlib.contextmanager
def a_database_of(calls: int, folder: str, database: str) -> Iterator[str]:
    """How to connect to a database of so many calls: the one that is named, or one in a folder, else in one that is removed."""
    if database:
        yield database
        return
    with a_server(folder) as server:
        yield filled(server, size_of(calls))


def measure(calls: int, days: int, rounds: int, folder: str, database: str, only: str = "") -> Found:
    """All figures."""
    with a_database_of(calls, folder, database) as url:
        found: Found = {"size": str(size_of(calls)), "rounds": rounds, "days": days}
        with a_dashboard(server_of(url)) as site:
            asked = {name: one for name, one in addresses(url, days).items() if only in name}
            found["ms"] = timed(site, url, asked, rounds)
        return found


# Telling


def tables(found: Found) -> list[Table]:
    """The figures as tables."""
    return [
        Table(
            f"Server time of pages and reports, ms ({found['size']}, the last {found['days']} days, {found['rounds']} rounds)",
            ["", *READERS, "of the admin's in the database", "the admin waited", "kB"],
            [
                [
                    name,
                    *(_cell(by_reader[reader]) for reader in READERS),
                    number(by_reader["admin"]["database_ms"]),
                    number(by_reader["admin"]["waited_ms"]),
                    number(by_reader["admin"]["bytes"] / 1000),
                ]
                for name, by_reader in found["ms"].items()
            ],
        )
    ]


def _cell(one: dict[str, Any]) -> str:
    if one["status"] not in (200, 304):
        return f"({one['status']})"
    return f"**{number(one['ms'])}**" if one["ms"] > PAGE_MS else number(one["ms"])


def claims(found: Found) -> list[Claim]:
    """The slowest page of one organization for each who may ask, and how long half of them take."""
    told = []
    for reader in READERS:
        took = {
            name: by_reader[reader]["ms"]
            for name, by_reader in found["ms"].items()
            if by_reader[reader]["status"] == 200 and name != "page status"  # that is about the installation
        }
        slowest = max(took, key=lambda name: took[name])
        told += [
            Claim(f"slowest page of one organization, {reader} ({slowest})", took[slowest], "at most", PAGE_MS, "ms"),
            Claim(f"half of all pages, {reader}", statistics.median(took.values()), "at most", PAGE_MS, "ms"),
        ]
    again = max(found["ms"][f"{REFRESHED[0]}{AGAIN}"][reader]["ms"] for reader in READERS)
    cores = again * PAGES / EVERY_S / 1000
    return [*told, Claim(f"cores that {PAGES:,} open pages take that have not changed", cores, "at most", CORES)]


PART = Part(
    "pages_server",
    __doc__,
    measure,
    tables,
    claims,
    quick={"calls": 3_000_000, "days": 7, "rounds": 5, "folder": "", "database": "", "only": ""},
    full={"rounds": 15},
)

if __name__ == "__main__":
    PART.main()
