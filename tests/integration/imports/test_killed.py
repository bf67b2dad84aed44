"""An import is killed, at any moment, and started again: each line once, and the sums are those of the rows."""

from __future__ import annotations

import gzip
import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.integration.imports.logs import json_line, nginx_line
from tests.sql.helpers import connect
from tests.sql.platform_rows import differences
from tests.support.effort import LONG
from tests.support.folders import REPOSITORY
from tests.support.forked import Forked

LINES = 4_000_000 if LONG else 6_000  # a gigabyte, or a megabyte
KILLS = 40 if LONG else 5
BLOCK = 1 << 20 if LONG else 1 << 15
PATIENCE_S = 3600 if LONG else 60
PROGRAM = f"""
import sys
from vital_tracking.cli.imports.access_log import access_log
from vital_tracking.imports import log_text
log_text.BLOCK = {BLOCK}
access_log(sys.argv[1:], cost=["search=/api/search*"])
"""


def write(path: Path, first: int, lines: int) -> None:
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wb", **({"compresslevel": 1} if path.suffix == ".gz" else {})) as file:  # type: ignore[operator]
        for number in range(first, first + lines):
            file.write((json_line if number % 2 else nginx_line)(number) + b"\n")


def started(url: str, *files: Path) -> Forked:
    arguments = [sys.executable, "-c", PROGRAM, *map(str, files)]
    return Forked(arguments, REPOSITORY, {**os.environ, "VITAL_DATABASE_URL": url})


@pytest.mark.timeout(3 * PATIENCE_S)
def test_a_killed_import_goes_on_where_it_stood(database_url: str, tmp_path: Path) -> None:
    """If this failed, whoever starts an import again would miss lines, or pay for them twice."""
    files = tmp_path / "access.log.1.gz", tmp_path / "access.log"
    write(files[0], 0, LINES // 2)
    write(files[1], LINES // 2, LINES // 2)
    chance = random.Random(4711)
    with connect(database_url) as connection:

        def stands() -> int:
            row = connection.execute(
                "select coalesce(sum(lines), 0)::int as lines from vital_private.import_files"
            ).fetchone()
            assert row is not None
            return int(row["lines"])

        for _ in range(KILLS):
            goal = min(stands() + chance.randint(1, max(LINES // KILLS, 2)), LINES - 1)
            with started(database_url, *files) as process:
                while process.poll() is None and stands() < goal:
                    time.sleep(0.002)
                process.send_signal(signal.SIGKILL)
                process.wait()
        with started(database_url, *files) as process:
            assert process.communicate(timeout=PATIENCE_S)[1] == ""
        assert stands() == LINES
        count = connection.execute(
            "select count(*) as rows, count(distinct value) as lines, count(distinct id) as ids,"
            " (select count(*) from tenant_cost_events) as costs from platform_events"
        ).fetchone()
        assert count == {"rows": LINES, "lines": LINES, "ids": LINES, "costs": LINES // 2}
        if not LONG:  # which reads all rows
            assert differences(connection) == []
