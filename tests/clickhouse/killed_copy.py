"""A process that fills a copy and is killed: `python -m tests.clickhouse.killed_copy DATABASE COPY INSERTS before|after`.

It kills itself with SIGKILL at so many inserts, before the rows are stored, or after that and before it is noted. With 0 it goes
on to the end and prints what the copy holds, as JSON by table and id.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from typing import Any

from tests.clickhouse.both import in_clickhouse
from vital_tracking.clickhouse.client import ClickHouse, address_of
from vital_tracking.clickhouse.copying import Copying
from vital_tracking.clickhouse.schema import COPIED
from vital_tracking.stores.postgres import PostgresStore


class Mortal(ClickHouse):
    """Ends its process at an insert."""

    left = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    counting = threading.Lock()  # two inserts are under way at once

    def insert(self, table: str, columns: Any, data: bytes, *, token: str) -> None:
        with self.counting:
            self.left -= 1
            left = self.left
        if left == 0 and sys.argv[4] == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        super().insert(table, columns, data, token=token)
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    store, server = PostgresStore(sys.argv[1]), Mortal(address_of(sys.argv[2]))
    Copying(store, server, chunk_bytes=1500).bring_up_to_date()
    print(json.dumps({relation.name: in_clickhouse(server, relation) for relation in COPIED}, default=str))
    store.close()
    server.close()
