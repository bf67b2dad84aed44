"""How long the server takes for every page and every report of one organization, at three million calls.

`vital-tracking dashboard` in a process of its own over a database of 300 organizations; each address is asked one after the
other, in turns, over a connection that stays open, and timed until its last byte is there. Who asks:

  operator  who started the dashboard, of the largest organization, which has an eighth of all calls
  admin     that organization's admin, by row level security
  user      its busiest user, who is answered from his own calls

Medians of the rounds after one that warms up. `--folder` keeps the database there for the next time; `--days` is the time that is
asked for.
"""

from __future__ import annotations

import http.client
import statistics
import time
from collections.abc import Mapping
from typing import Any

import psycopg

from benchmarks.figures import Claim, Found, Part, Table, number, spread
from benchmarks.pages_site import Site, a_dashboard, operator_session, server_of
from benchmarks.reports_database import ADMIN, BIG_ORGANIZATION, BIG_USER, Size, a_server, filled
from vital_tracking.web.pages.frame import NAVIGATION

PAGE_MS = 200
READERS = ("operator", "admin", "user")
_OF_HOUSE = ("status", "prices", "audit")
"""Pages that are about no organization."""

REPORTS = ("overview", "patterns", "by-user", "by-service", "costs", "performance")


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
    """A connection of somebody to the dashboard, as a browser keeps it open."""

    def __init__(self, site: Site, cookie: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=60)
        self._headers = {"Cookie": cookie, "Accept-Encoding": "gzip", "Accept": "text/html,*/*"}

    def once(self, address: str) -> tuple[float, int, int]:
        """Milliseconds, status and bytes of an answer."""
        started = time.perf_counter()
        self._connection.request("GET", address, headers=self._headers)
        answer = self._connection.getresponse()
        body = answer.read()
        return (time.perf_counter() - started) * 1000, answer.status, len(body)


def sessions(site: Site) -> dict[str, Asking]:
    """Those who ask."""
    cookies = {
        "operator": operator_session(site),
        "admin": site.cookie(ADMIN),
        "user": site.cookie(BIG_USER),
    }
    return {reader: Asking(site, cookie) for reader, cookie in cookies.items()}


def timed(site: Site, asked: Mapping[str, str], rounds: int) -> dict[str, dict[str, Any]]:
    """{address: {reader: {"ms": the spread, "status", "bytes"}}}."""
    people = sessions(site)
    times: dict[tuple[str, str], list[float]] = {}
    found: dict[str, dict[str, Any]] = {name: {} for name in asked}
    for turn in range(rounds + 1):
        for name, address in asked.items():
            for reader, asking in people.items():
                took, status, size = asking.once(address)
                while status == 429:  # a user has a hundred requests a minute
                    time.sleep(3)
                    took, status, size = asking.once(address)
                found[name][reader] = {"status": status, "bytes": size}
                if turn:
                    times.setdefault((name, reader), []).append(took)
    for (name, reader), taken in times.items():
        found[name][reader]["ms"] = spread(taken)
    return found


def measure(calls: int, days: int, rounds: int, folder: str, only: str = "") -> Found:
    """All figures, of a week and of a month."""
    size = Size(calls, 120)
    with a_server(folder) as server:
        url = filled(server, size)
        found: Found = {"size": str(size), "rounds": rounds, "days": days, "idle": {}}
        with a_dashboard(server_of(url)) as site:
            asked = {name: one for name, one in addresses(url, days).items() if only in name}
            found["ms"] = timed(site, asked, rounds)
        return found


# Telling


def tables(found: Found) -> list[Table]:
    """The figures as tables."""
    return [
        Table(
            f"Server time of pages and reports, ms ({found['size']}, the last {found['days']} days, {found['rounds']} rounds)",
            ["", *READERS, "kB"],
            [
                [
                    name,
                    *(_cell(by_reader.get(reader)) for reader in READERS),
                    number(by_reader["admin"]["bytes"] / 1000),
                ]
                for name, by_reader in found["ms"].items()
            ],
        )
    ]


def _cell(one: dict[str, Any] | None) -> str:
    if one is None or "ms" not in one:
        return ""
    if one["status"] != 200:
        return f"({one['status']})"
    told = number(one["ms"]["median"])
    return f"**{told}**" if one["ms"]["median"] > PAGE_MS else told


def claims(found: Found) -> list[Claim]:
    """The slowest page of one organization for each who may ask."""
    told = []
    for reader in READERS:
        medians = {
            name: by_reader[reader]["ms"]["median"]
            for name, by_reader in found["ms"].items()
            if by_reader[reader]["status"] == 200
        }
        slowest = max(medians, key=lambda name: medians[name])
        told.append(
            Claim(f"slowest page of one organization, {reader} ({slowest})", medians[slowest], "at most", PAGE_MS, "ms")
        )
        middle = statistics.median(medians.values())
        told.append(Claim(f"half of all pages, {reader}", middle, "at most", PAGE_MS, "ms"))
    return told


PART = Part(
    "pages_server",
    __doc__,
    measure,
    tables,
    claims,
    quick={"calls": 3_000_000, "days": 7, "rounds": 5, "folder": "", "only": ""},
    full={"rounds": 15},
)

if __name__ == "__main__":
    PART.main()
