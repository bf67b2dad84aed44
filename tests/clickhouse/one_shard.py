"""A copy on a cluster of one shard, in a process of its own: the engine reads its configuration once.

    python -m tests.clickhouse.one_shard DATABASE_URL FOLDER

The engine has no keeper and runs no statement for others, so what is left out of our statements is `on cluster` and, where rows
are kept, `Replicated`; such tables remember tokens by a setting of another name. Tables that replicate are made, too, in another
database, and stay without rows.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import clickhouse_connect

from tests.clickhouse.both import assert_equal
from tests.sql.helpers import Connection, a_call, call_id, connect, record
from vital_tracking.clickhouse.client import ClickHouse, address_of
from vital_tracking.clickhouse.compare import differences
from vital_tracking.clickhouse.copying import Copying
from vital_tracking.clickhouse.reading import CopiedStore, Copy
from vital_tracking.clickhouse.schema import input_table, local_table, schema_files
from vital_tracking.queries.call_groups import Cuts, read_call_groups
from vital_tracking.queries.explore import Period
from vital_tracking.queries.usage import duplicates
from vital_tracking.stores import Store
from vital_tracking.stores.changes import key_columns
from vital_tracking.stores.postgres import PostgresStore
from vital_tracking.stores.relations import CALLS

CONFIGURATION = """
<clickhouse>
  <tcp_port>9000</tcp_port>
  <default_replica_path>/clickhouse/tables/{database}/{table}/{shard}</default_replica_path>
  <macros><shard>1</shard><replica>ch-1a</replica></macros>
  <remote_servers><main><shard>
    <internal_replication>true</internal_replication>
    <replica><host>127.0.0.1</host><port>9000</port></replica>
  </shard></main></remote_servers>
  <zookeeper><implementation>testkeeper</implementation></zookeeper>
</clickhouse>
"""
OF_A_CLUSTER = re.compile(r"on cluster 'main'")


class OneShard(ClickHouse):
    """The engine of this process as the only server of the cluster `main`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(address_of("http://localhost/copy?cluster=main"))
        (folder / "cluster.xml").write_text(CONFIGURATION, encoding="utf-8")
        self._client = clickhouse_connect.get_client(
            interface="chdb", path=str(folder / "engine"), chdb_options={"config-file": str(folder / "cluster.xml")}
        )

    def command(self, statement: str, *, settings: Mapping[str, Any] | None = None, database: bool = True) -> None:
        alone = re.sub(r"engine = Replicated(\w+)\('[^']*', '[^']*'\)|engine = Replicated", _alone, statement)
        alone = re.sub(r"\breplicated_deduplication_window", "non_replicated_deduplication_window", alone)
        super().command(OF_A_CLUSTER.sub("", alone), settings=settings, database=database)

    def replicating(self) -> int:
        """Make all our tables as a cluster has them, and tell how many of them replicate."""
        super().command("create database replicating", database=False)
        self._client.database = "replicating"
        for file in schema_files("main"):
            for statement in file.statements("main"):
                self._client.command(OF_A_CLUSTER.sub("", statement))
        return len(
            self.query("select 1 from system.tables where database = 'replicating' and engine like 'Replicated%'")
        )


def _alone(found: re.Match[str]) -> str:
    return f"engine = {found[1] or ''}"


_FIRST = datetime(2026, 1, 15, tzinfo=UTC)


def _a_call(number: int) -> dict[str, Any]:
    """Calls of three organizations that ask the same, a minute apart."""
    at = _FIRST + timedelta(minutes=number)
    same = {"request_hash": "a", "prefix_hashes": ["p"], "prompt_bytes": 5000}
    return a_call(number, organization_id=f"o-{number % 3}", created_at=at.isoformat(), **same)


def _repeated(store: Store) -> list[int]:
    """How many of the calls that are left are repeated, how many begin as others do, and how many are duplicates."""
    day = timedelta(days=1)
    groups = read_call_groups(store, Period(_FIRST - day, _FIRST + day), Cuts(ttl=day, prefix_ttl=day))
    again = duplicates(store, since=_FIRST - day, until=_FIRST + day)["repeated_calls"]
    return [*(sum(one.calls for one in groups if getattr(one.key, what)) for what in ("repeated", "alike")), again]


def _repeated_in(server: ClickHouse, store: PostgresStore, db: Connection) -> list[int]:
    """The same, where only the copy can tell it."""
    with db.transaction():
        db.execute("set local vital_tracking.keep_sums = 'on'")
        db.execute("delete from token_usage_logs")
    return _repeated(CopiedStore(store, Copy(server, least=0)))


def _kept_of_ten(server: ClickHouse) -> int:
    """How many rows of an organization of their own are kept, unmerged, of ten that are sent twice with the same token."""
    id_ = "00000000-0000-0000-0000-{:012d}"
    rows = "".join(f"7\tsent-twice\t2026-0{n % 9 + 1}-01 00:00:00\t{id_.format(n)}\t9\t0\n" for n in range(10))
    for _ in range(2):
        server.insert(input_table(CALLS), key_columns(CALLS), rows.encode(), token="sent twice")
    [kept] = server.query(f"select count() as n from {local_table(CALLS, 'main')} where organization_id = 'sent-twice'")
    return int(kept["n"])


def main() -> None:
    """Copy, change, copy again; print what became of it."""
    url, folder = sys.argv[1], Path(sys.argv[2])
    server, store = OneShard(folder), PostgresStore(url)
    copying = Copying(store, server)
    with connect(url) as db:
        record(db, *(_a_call(number) for number in range(1, 30)))
        copying.bring_up_to_date()
        first = assert_equal(db, server)
        db.execute("delete from token_usage_logs where id = %s", [call_id(1)])
        db.execute("update token_usage_logs set organization_id = 'moved' where id = %s", [call_id(2)])
        copying.bring_up_to_date()
        second = assert_equal(db, server)
        copy = store.call("export_status_v1")[0]["copy"]
        repeated = _repeated(store)
        [kept] = server.query(f"select count() as n from {local_table(CALLS, 'main')}")
        found = {
            "rows": [first, second],
            "differences": len(list(differences(store, server, copy))),
            "rows_of_the_shard": kept["n"],
            "repeated": [repeated, _repeated_in(server, store, db)],
            "kept_of_ten": _kept_of_ten(server),
            "replicating": server.replicating(),
        }
    store.close()
    print(json.dumps(found), flush=True)
    os._exit(0)  # the engine waits for ever for tables that replicate, which have no keeper to tell that they end


if __name__ == "__main__":
    main()
