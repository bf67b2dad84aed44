"""The exporter with stores that answer as no store should: every call arrives all the same."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.support.stores import ScriptedStore, StoreDouble
from vital_tracking import Settings, VitalTracker
from vital_tracking.testing import MemoryStore


def test_a_store_that_stumbles_in_a_way_nobody_foresaw_loses_nothing(memory: MemoryStore) -> None:
    store = ScriptedStore(memory, "record_calls_v2", [RuntimeError("canary"), TypeError("canary")])
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


class OtherClock(StoreDouble):
    """A store whose clock is so far ahead, and told with each delivery alone."""

    ahead = timedelta()

    def call(self, function: str, /, **arguments: object) -> Any:
        answer = super().call(function, **arguments)
        if function == "record_calls_v2":
            answer = {**answer, "now": (datetime.now(UTC) + self.ahead).isoformat()}
        return answer


def test_each_delivery_tells_how_far_the_clock_is_off(memory: MemoryStore) -> None:
    """Without budgets a clock that is set while the process runs would be known late: its calls would lie in another day."""
    store = OtherClock(memory)
    with VitalTracker(store, settings=Settings(flush_interval_s=60)) as tracker:
        for hours in (3, -2):
            store.ahead = timedelta(hours=hours)
            tracker.record(provider="openai", prompt_tokens=1, completion_tokens=1)
            assert tracker.flush(30).complete
            skew_s = tracker._recorder.clock.skew_s
            assert skew_s is not None
            assert round(skew_s / 3600) == hours
