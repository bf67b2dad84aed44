"""A database full of calls for the reports: an embedded PostgreSQL as it is delivered, on disk, with budgets and members."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from benchmarks import usage
from benchmarks.database import a_database, a_folder
from benchmarks.reports import Connection, backfill, only
from vital_tracking.stores.embedded import EmbeddedStore

BIG_ORGANIZATION, BIG_USER = "org-0", "user-0-0"
ADMIN = "the-admin-of-org-0"
BUDGETS: tuple[dict[str, Any], ...] = (
    {"entity_type": "organization", "entity_id": "*", "daily_limit": 1000, "monthly_limit": 20000, "action": "alert"},
    {"entity_type": "user", "entity_id": "*", "daily_limit": 50, "monthly_limit": 500, "action": "block"},
    {"entity_type": "organization", "entity_id": BIG_ORGANIZATION, "monthly_limit": 50000, "action": "alert"},
)
# What these budgets have counted in the last 30 days, as if every call had met them when it was recorded.
WINDOWS = """
insert into budget_windows (budget_id, entity_id, period, starts_at, ends_at, limit_amount, spent)
select
  b.id, case b.entity_type when 'user' then u.user_id else u.organization_id end, p.period, p.starts_at,
  vital_private.window_end(p.period, p.starts_at, 'UTC'), p.limit_amount, sum(u.total_cost)
from budget_limits as b
inner join usage_aggregations_daily_users as u on b.entity_type = 'user' or b.entity_id in ('*', u.organization_id)
cross join lateral (
  values
  ('day', u.day::timestamp at time zone 'UTC', b.daily_limit),
  ('month', date_trunc('month', u.day::timestamp) at time zone 'UTC', b.monthly_limit)
) as p (period, starts_at, limit_amount)
where u.day > current_date - 30 and p.limit_amount is not null
group by 1, 2, 3, 4, 5, 6
"""


@dataclass(frozen=True)
class Size:
    """How many calls, of how many days and organizations, and how many users the largest of these has."""

    calls: int
    days: int
    organizations: int = 300
    users: int = 400

    @property
    def database(self) -> str:
        """The name of its database."""
        return f"bench_{self.calls}_{self.days}_{self.organizations}_{self.users}"

    def __str__(self) -> str:
        return f"{self.calls:,} calls of {self.days} days and {self.organizations} organizations"


@contextlib.contextmanager
def a_server(folder: str) -> Iterator[str]:
    """The embedded PostgreSQL in a folder that is kept, or without a name in one that is removed; its URL."""
    with contextlib.ExitStack() as opened:
        if folder:
            kept = Path(folder)
            kept.mkdir(parents=True, exist_ok=True)
            kept.chmod(0o755)
        else:
            kept = opened.enter_context(a_folder())
        store = EmbeddedStore(kept, migrated=False)  # its databases are of whichever version filled them
        opened.callback(store.stop)
        yield str(store._start().get_uri())


def filled(server: str, size: Size) -> str:
    """The URL of a database of that size on a server; filled now, unless it is there already."""
    with psycopg.connect(server, autocommit=True) as connection:
        there = connection.execute("select from pg_database where datname = %s", [size.database]).fetchall()
    if there:
        return make_conninfo(server, dbname=size.database)
    with psycopg.connect(server, autocommit=True) as connection:  # what an interrupted run has left
        connection.execute(f"drop database if exists {size.database}_unfinished".encode())
    url = a_database(server, f"{size.database}_unfinished", [{n: str(v) for n, v in b.items()} for b in BUDGETS])
    usage.load(url, size.calls, size.days, size.organizations, size.users)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("set synchronous_commit = off")
        fill_the_rest(connection, url)
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"alter database {size.database}_unfinished rename to {size.database}".encode())
    return make_conninfo(server, dbname=size.database)


def fill_the_rest(connection: Connection, url: str) -> None:
    """The sums, the windows of budgets, an admin, and the materialized views."""
    backfill(connection, url)
    connection.execute(WINDOWS.encode())
    connection.execute("insert into organization_members values (%s, %s, 'admin')", [BIG_ORGANIZATION, ADMIN])
    only(connection, "select refresh_analytics()")
    connection.execute("vacuum analyze")


def claims_of(subject: str) -> str:
    """The claims of somebody's token."""
    return json.dumps({"sub": subject, "role": "authenticated"})
