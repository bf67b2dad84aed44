"""Processes die by kill -9 at any moment, threads die, recorders break: every call is stored once, as what it became."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.integration.helpers import Rows, dollars
from tests.support.spool_worker import PROMPT_TOKENS, Story
from vital_tracking import VitalTracker
from vital_tracking.delivery import Stats

REPOSITORY = Path(__file__).resolve().parents[2]
KILLS = 50


def worker(job: str, database: str, spool: Path, **options: Any) -> subprocess.Popen[str]:
    """A worker at its job."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.spool_worker", job, json.dumps(options)],
        env={"DATABASE": database, "SPOOL": str(spool), "PYTHONPATH": str(REPOSITORY), "PATH": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str], timeout: float = 120) -> str:
    """What a worker has said, once it has ended well."""
    try:
        said, complaints = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert process.returncode == 0, complaints
    assert "Traceback" not in complaints, complaints
    return said


def deliver_the_rest(make_tracker: Callable[..., VitalTracker], spool_dir: Path) -> Stats:
    """Have a fresh tracker deliver all that dead processes have left; what it says it did."""
    heir = make_tracker(spool_dir=spool_dir)
    assert heir._recorder.replay(120)
    assert heir.close(60).complete
    assert not list(spool_dir.rglob("*.segment"))
    assert not list(spool_dir.rglob("rejected.jsonl*"))
    stats: Stats = heir.stats()
    assert (stats.rejected, stats.dropped, stats.damaged, stats.faults, stats.merged) == (0, 0, 0, 0, 0)
    return stats


def compare(story: Story, found: list[dict[str, Any]]) -> Counter[str]:
    """Hold every row against the log: each call once, each end as it was, and each amount to the last digit."""
    assert len({row["id"] for row in found}) == len(found)
    calls = {row["run_id"]: row for row in found if row["run_id"] is not None}
    records = {str(row["id"]): row for row in found if row["run_id"] is None}
    assert len(calls) + len(records) == len(found)
    assert story.started <= calls.keys()
    assert story.recorded.keys() <= records.keys()
    total = Decimal(0)
    for key, row in {**calls, **records}.items():
        status = row["status"]
        known = story.ended.get(key) or story.recorded.get(key)
        if known is not None:
            assert (status, row["prompt_tokens"], row["completion_tokens"]) == known
        elif key in story.started and status != "ok":
            # It was given up, or has failed and was killed before the log heard of it.
            assert status in ("abandoned", "cancelled", "error"), row
        # What is in no log had begun, or had ended, in the moment that its process was killed.
        if status in ("abandoned", "cancelled"):
            assert (row["prompt_tokens"], row["completion_tokens"]) == (PROMPT_TOKENS, 0)
        expected = dollars((row["prompt_tokens"], "0.15"), (row["completion_tokens"], "0.60"))
        assert row["total_cost"] == expected
        total += expected
    assert sum(row["total_cost"] for row in found) == total
    return Counter(row["status"] for row in found)


def test_kill_9_at_fifty_random_points(
    make_tracker: Callable[..., VitalTracker], database_url: str, spool_dir: Path, rows: Rows, tmp_path: Path
) -> None:
    """If this failed, a crash, or a machine short of memory, would lose or double calls that were paid for."""
    log = tmp_path / "log"
    options = {"log": str(log), "kills": KILLS // 2, "at_once": 5}
    workers = [
        worker("doomed", database_url, spool_dir, seed=1000 * inherited, inherited=inherited, **options)
        for inherited in (False, True)
    ]
    for process in workers:
        assert finish(process) == f"{KILLS // 2} killed\n"
    before = len(rows())
    stats = deliver_the_rest(make_tracker, spool_dir)
    story, found = Story.read(log), rows()
    statuses = compare(story, found)
    print(len(story.started), "started,", before, "delivered before, then", stats.replayed, dict(statuses))
    # Enough has gone on for this to prove something.
    assert before > 0
    assert stats.replayed > 0
    assert {"ok", "error", "cancelled", "abandoned"} <= statuses.keys()
    assert len(story.ended) + len(story.recorded) > 1000


def test_two_hundred_forks_under_load(
    make_tracker: Callable[..., VitalTracker], database_url: str, spool_dir: Path, rows: Rows, tmp_path: Path
) -> None:
    """If this failed, a pre-forking server would lose calls, store them twice, or hang now and then."""
    log = tmp_path / "log"
    forking = worker("forking", database_url, spool_dir, log=str(log), forks=200, at_once=8, patience_s=60)
    assert finish(forking) == "200 forked\n"
    deliver_the_rest(make_tracker, spool_dir)
    story, found = Story.read(log), rows()
    compare(story, found)
    assert {row["run_id"] or str(row["id"]) for row in found} == story.ended.keys() | story.recorded.keys()
    assert {row["status"] for row in found} <= {"ok", "error"}
