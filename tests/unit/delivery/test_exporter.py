"""The exporter with stores that answer as no store should: every call arrives all the same."""

from __future__ import annotations

import itertools

from tests.support.stores import ScriptedStore
from vital_tracking import Settings, VitalTracker
from vital_tracking.testing import MemoryStore


def test_a_store_that_stumbles_in_a_way_nobody_foresaw_loses_nothing(memory: MemoryStore) -> None:
    store = ScriptedStore(memory, "record_calls_v1", [RuntimeError("canary"), TypeError("canary")])
    with VitalTracker(store, settings=Settings(flush_interval_s=60)) as tracker:
        for _ in range(20):
            tracker.record(provider="openai", prompt_tokens=1, completion_tokens=1)
        delivered = tracker.flush(30)
    assert (delivered.inserted, delivered.rejected, delivered.complete) == (20, 0, True)


def test_a_price_list_that_cannot_be_read_does_not_stop_delivery(memory: MemoryStore) -> None:
    store = ScriptedStore(memory, "model_prices_v1", itertools.repeat(5))
    with VitalTracker(store) as tracker:
        tracker.record(provider="openai", prompt_tokens=1, completion_tokens=1)
        assert tracker.flush(30).inserted == 1
    assert tracker.stats().faults == 1
