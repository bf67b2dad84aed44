"""A copy that is filled by a user with the rights of docs/clickhouse.md, in a process of its own: users are read once.

python -m tests.clickhouse.as_writer DATABASE_URL FOLDER
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import clickhouse_connect

from tests.clickhouse.both import assert_equal
from tests.sql.helpers import a_call, a_run, call, connect, record, record_runs
from vital_tracking.clickhouse.client import ClickHouse, address_of
from vital_tracking.clickhouse.copying import Copying
from vital_tracking.errors import CopyRefused
from vital_tracking.stores.postgres import PostgresStore

PAGE = Path(__file__).parents[2] / "docs" / "clickhouse.md"
USERS = """
<clickhouse>
  <users><default>
    <password></password><profile>default</profile><quota>default</quota><grants><query>{grant}</query></grants>
  </default></users>
  <profiles><default/></profiles>
  <quotas><default/></quotas>
  <user_directories><users_xml><path>{file}</path></users_xml></user_directories>
</clickhouse>
"""


class AsWriter(ClickHouse):
    """The engine of this process, whose only user may do what the page grants the writer, and no more."""

    def __init__(self, folder: Path) -> None:
        super().__init__(address_of(f"chdb://{folder}/engine"))
        granted = re.search(
            r"^(grant .* on vital_tracking\.\*) to writer$", PAGE.read_text(encoding="utf-8"), re.MULTILINE
        )
        assert granted is not None
        file = folder / "users.xml"
        file.write_text(USERS.format(grant=granted[1], file=file), encoding="utf-8")
        self._client = clickhouse_connect.get_client(
            interface="chdb", path=str(folder / "engine"), chdb_options={"config-file": str(file)}
        )


def main() -> None:
    """Copy, change, forget, copy again; print what became of it."""
    url, folder = sys.argv[1], Path(sys.argv[2])
    server, store = AsWriter(folder), PostgresStore(url)
    try:
        server.command("create database another", database=False)
        refused = None
    except CopyRefused as error:
        refused = error.code
    copying = Copying(store, server)
    with connect(url) as db:
        record(db, *(a_call(number, user_id=f"u-{number % 3}") for number in range(1, 30)))
        record_runs(db, a_run("r-1"))
        copying.bring_up_to_date()
        first = assert_equal(db, server)
        db.execute("update token_usage_logs set model = 'other' where user_id = 'u-1'")
        while not call(db, "forget_user", user_id="u-2")["done"]:
            pass
        copying.bring_up_to_date()
        second = assert_equal(db, server)
    store.close()
    server.close()
    print(json.dumps({"refused": refused, "rows": [first, second]}))


if __name__ == "__main__":
    main()
