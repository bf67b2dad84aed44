"""A call has one time, however many processes deliver it, and whatever they know of the clock by then.

The database knows a call again by its id and its time. If one of these fails, calls that were paid for once count twice.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding

from tests.integration.helpers import Rows
from tests.support.folders import REPOSITORY
from vital_tracking import VitalTracker
from vital_tracking.delivery.encoding import decoded
from vital_tracking.langchain.fake import FakeUsageModel
from vital_tracking.spool.log_record import read_records

# A machine whose clock is ten seconds off, as far as Python can tell.
OFF = """
import datetime, os, sys, time

off = datetime.timedelta(seconds=float(os.environ["OFF"]))
true_time, true_datetime = time.time, datetime.datetime
time.time = lambda: true_time() + off.total_seconds()

class Shifted(true_datetime):
    @classmethod
    def now(cls, tz=None):
        return true_datetime.now(tz) + off

datetime.datetime = Shifted
"""

# Calls of all kinds wait for a database that is away; then the disk is full, the database is back, and the backlog goes out.
DIES = """
import json, resource, threading
from pathlib import Path
from langchain_core.callbacks import BaseCallbackHandler
from tests.support.spool_worker import MODEL, FakeUsageModel, HangingModel
from tests.support.stores import AwayStore, SteppedStore
from vital_tracking import Settings, VitalTracker
from vital_tracking.stores.postgres import PostgresStore

store = AwayStore(SteppedStore(PostgresStore(os.environ["DATABASE"])), away=True)
settings = Settings(spool_dir=Path(os.environ["SPOOL"]), flush_interval_s=3600, max_batch_size=50, batch_size=50, budgets=False)
tracker = VitalTracker(store, settings=settings)
model = FakeUsageModel(responses=["Well."])
config = {"callbacks": [tracker.handler]}
counted = {"provider": "openai", "model": MODEL}

def calls(number):
    for _ in range(number // 3):
        model.invoke("Hi", config)
        tracker.record(**counted, prompt_tokens=5, completion_tokens=1)
        tracker.admit(**counted, prompt_tokens=5).record(prompt_tokens=5, completion_tokens=1)

open_since = [tracker.admit(**counted, prompt_tokens=5) for _ in range(20)]
calls(200)
class Began(BaseCallbackHandler):
    run_inline = True
    def on_chat_model_start(self, *args, **kwargs):
        began.release()
began = threading.Semaphore(0)
for _ in range(10):
    ask = (HangingModel(responses=[""]), "Hi", {"callbacks": [tracker.handler, Began()]})
    threading.Thread(target=HangingModel.invoke, args=ask, daemon=True).start()
for _ in range(10):
    began.acquire()
sizes = [path.stat().st_size for path in Path(os.environ["SPOOL"]).rglob("*.segment")]
resource.setrlimit(resource.RLIMIT_FSIZE, (min(sizes), resource.RLIM_INFINITY))
for call in open_since:
    call.record(prompt_tokens=5, completion_tokens=1)
calls(50)
store.away = False
tracker.flush(60)
"""

DELIVERS = """
from pathlib import Path
from vital_tracking import Settings, VitalTracker
from vital_tracking.stores.postgres import PostgresStore

settings = Settings(spool_dir=Path(os.environ["SPOOL"]), flush_interval_s=3600)
tracker = VitalTracker(PostgresStore(os.environ["DATABASE"]), settings=settings)
assert tracker.replay(60)
assert tracker.close().complete
"""


def started(script: str, database: str, spool: Path, off: float) -> subprocess.Popen[str]:
    """A process on a machine whose clock is so many seconds off."""
    return subprocess.Popen(
        [sys.executable, "-c", OFF + script],
        env={"DATABASE": database, "SPOOL": str(spool), "OFF": str(off), "PYTHONPATH": str(REPOSITORY), "PATH": ""},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("batches", [1, 3])
def test_a_call_that_was_sent_before_its_process_was_killed_is_not_stored_twice(
    batches: int, database_url: str, spool_dir: Path, rows: Rows
) -> None:
    """The clock is off, the database was away, the disk is full: what is known of the clock can be written nowhere."""
    dying = started(DIES, database_url, spool_dir, 10)
    assert dying.stdin is not None
    assert dying.stdout is not None
    with dying:
        for _ in range(batches - 1):
            assert int(dying.stdout.readline()) > 0
            print(file=dying.stdin, flush=True)
        assert int(dying.stdout.readline()) > 0  # stored, and not acknowledged
        dying.kill()
    assert dying.returncode == -signal.SIGKILL
    before = {str(row["id"]): row["created_at"] for row in rows()}
    assert 50 <= len(before) < 228
    for off in (-7, 10):
        with started(DELIVERS, database_url, spool_dir, off) as heir:
            _, complaints = heir.communicate(timeout=60)
        assert heir.returncode == 0, complaints
    found = rows()
    assert len({row["id"] for row in found}) == len(found) >= 198 + 30
    assert {str(row["id"]): row["created_at"] for row in found if str(row["id"]) in before} == before


def test_a_call_that_began_before_the_clock_was_known_keeps_its_time(
    make_tracker: Callable[..., VitalTracker], rows: Rows
) -> None:
    """Its beginning is in the spool with that time, and another process may store it as abandoned."""
    tracker = make_tracker()
    call = tracker.admit(provider="openai", model="gpt-4o-mini", prompt_tokens=5)
    now = datetime.now(UTC)
    tracker._recorder.clock.sample(now + timedelta(hours=1), now, now)
    call.record(prompt_tokens=5, completion_tokens=1)
    tracker.record(provider="openai", model="gpt-4o-mini", prompt_tokens=5, completion_tokens=1)
    FakeUsageModel(responses=["Well."]).invoke("Hi", {"callbacks": [tracker.handler]})
    assert tracker.flush(60).complete
    off = [round((row["created_at"] - row["recorded_at"]).total_seconds() / 3600) for row in rows()]
    assert off == [0, 1, 1]


def test_the_beginning_and_the_end_of_a_call_have_one_time(make_tracker: Callable[..., VitalTracker]) -> None:
    """Each may reach the database by a way of its own, where the disk was full when the call ended."""
    tracker = make_tracker(budgets=False)
    now = datetime.now(UTC)
    tracker._recorder.clock.sample(now + timedelta(hours=1), now, now)
    FakeUsageModel(responses=["Well."]).invoke("Hi", {"callbacks": [tracker.handler]})
    tracker.admit(provider="openai", model="gpt-4o-mini", prompt_tokens=5).record(prompt_tokens=5, completion_tokens=1)
    tracker.embeddings(DeterministicFakeEmbedding(size=2), provider="openai", model="m").embed_query("Hi")
    spool = tracker._recorder.spool
    assert spool is not None
    assert spool.path is not None
    [segment] = spool.path.glob("*.segment")
    times: dict[bytes, list[datetime]] = {}
    for record, _ in read_records(segment.read_bytes()):
        assert record is not None
        times.setdefault(record.id, []).append(decoded(record, tracker._recorder.fault).created_at)
    assert [len(of_one) for of_one in times.values()] == [2, 2, 2]
    assert all(began == ended for began, ended in times.values())
