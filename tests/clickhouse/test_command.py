"""`vital-tracking export clickhouse`, as it is typed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from tests.sql.helpers import Connection, a_call, connect, record
from tests.support.waiting import until

COMMAND = [sys.executable, "-c", "from vital_tracking.cli import main; main()"]


def sent(db: Connection) -> int:
    [row] = db.execute("select coalesce(sum(sent_rows), 0)::integer as n from vital_private.export_places").fetchall()
    return int(row["n"])


def test_follow_takes_up_what_comes_and_stops_when_it_is_told(database_url: str, tmp_path: Path) -> None:
    """If this failed, a service manager that stops the export would have to kill it, or it would stand still."""
    settings = {**os.environ, "VITAL_DATABASE_URL": database_url, "VITAL_CLICKHOUSE_URL": f"chdb://{tmp_path}/engine"}
    with connect(database_url) as db:
        record(db, a_call(1))
        following = subprocess.Popen(
            [*COMMAND, "export", "clickhouse", "--follow", "--every", "0.1", "--json"],
            env=settings,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            until(lambda: sent(db) == 1)
            record(db, a_call(2), a_call(3))
            until(lambda: sent(db) == 3)
            following.send_signal(signal.SIGTERM)
            out, _ = following.communicate(timeout=60)
        finally:
            following.kill()
        assert following.returncode == 0
        assert json.loads(out)["rows"] == 3
        # Once more, without --follow: at most the last transaction is sent again. And status says that all is there.
        again = subprocess.run(
            [*COMMAND, "export", "clickhouse"], env=settings, capture_output=True, text=True, check=True
        )
        assert re.search(r": [02] rows sent$", again.stdout.strip())
        told = subprocess.run([*COMMAND, "status"], env=settings, capture_output=True, text=True, check=True)
        assert "0 s behind, 0 rows on the way" in told.stdout


def test_without_a_url_it_says_what_to_give(database_url: str) -> None:
    done = subprocess.run(
        [*COMMAND, "export", "clickhouse"],
        env={**os.environ, "VITAL_DATABASE_URL": database_url},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "VITAL_CLICKHOUSE_URL" in done.stderr
