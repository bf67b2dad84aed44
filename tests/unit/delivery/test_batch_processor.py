"""When the batch processor sends, where no database is needed to tell."""

from __future__ import annotations

from tests.support.stores import WatchedStore
from vital_tracking import Settings, VitalTracker
from vital_tracking.testing import MemoryStore


def test_few_calls_wait_for_company_while_others_are_sent(memory: MemoryStore) -> None:
    """A steady trickle must not become a transaction a call: what comes during a request waits for the next one's time."""
    store = WatchedStore(memory, only="record_calls_v2")
    store.go.clear()
    tracker = VitalTracker(store, settings=Settings(flush_interval_s=3600, batch_size=10))
    for _ in range(10):
        tracker.record(provider="openai", prompt_tokens=1, completion_tokens=1)
    assert store.entered.wait(30)
    for _ in range(3):
        tracker.record(provider="openai", prompt_tokens=1, completion_tokens=1)
    store.go.set()
    store.wait_for(10)
    assert tracker.stats().waiting >= 3
    tracker.close()
    assert store.batches == [10, 3]
