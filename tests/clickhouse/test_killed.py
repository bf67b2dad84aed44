"""A process that is killed loses no row and sends none twice, wherever it was."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

from tests.clickhouse.both import in_postgres
from tests.sql.helpers import a_call, a_run, connect, record, record_runs
from vital_tracking.clickhouse.schema import COPIED


def copying(database_url: str, copy_url: str, inserts: int, when: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.clickhouse.killed_copy", database_url, copy_url, str(inserts), when]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_copy_that_is_killed_again_and_again_is_whole_in_the_end(database_url: str, tmp_path: Path) -> None:
    copy_url = f"chdb://{tmp_path}/engine"
    with connect(database_url) as db:
        record_runs(db, *(a_run(f"r-{number}") for number in range(3)))
        record(db, *(a_call(number) for number in range(1, 40)))
        # While rows are loaded, and while changes are followed; inserts 1 and 2 are the schema's own.
        for inserts, when in ((3, "after"), (5, "before"), (2, "after")):
            done = copying(database_url, copy_url, inserts, when)
            assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
        assert copying(database_url, copy_url, 0, "").returncode == 0
        record(db, *(a_call(number) for number in range(40, 80)))
        db.execute("update token_usage_logs set user_id = 'u-9' where user_id = 'u-1'")
        for inserts, when in ((2, "before"), (3, "after")):
            assert copying(database_url, copy_url, inserts, when).returncode == -signal.SIGKILL
        done = copying(database_url, copy_url, 0, "")
        assert done.returncode == 0, done.stderr[-2000:]
        there = json.loads(done.stdout)
        for relation in COPIED:
            ours = json.loads(json.dumps(in_postgres(db, relation), default=str))
            assert there[relation.name] == ours
