"""What keeps a call's money where a part of ours fails: each fault costs detail, and no call.

If one of these fails, a bug of ours, or a value that nobody has thought of, would take calls out of the bill.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from tests.integration.helpers import Rows, record
from tests.support.stores import WatchedStore
from tests.support.waiting import until
from vital_tracking import Settings, VitalTracker
from vital_tracking.calls.live import LiveCall
from vital_tracking.delivery import encoding, exporter
from vital_tracking.delivery.costs import Costs
from vital_tracking.delivery.straight import StraightWay
from vital_tracking.langchain.fake import FakeUsageModel
from vital_tracking.spool.disk_queue import Spool
from vital_tracking.spool.disk_writer import SpoolWriter
from vital_tracking.stores.postgres import PostgresStore

COST = Decimal(10 * 15 + 60) / 100_000_000  # of one call of `record`


def breaks(works: Callable[..., Any], times: int = 1) -> Callable[..., Any]:
    """The same, with a fault of ours the first `times` times."""
    left = iter(range(times))

    def broken(*arguments: Any, **named: Any) -> Any:
        if next(left, None) is not None:
            raise ZeroDivisionError("ours")
        return works(*arguments, **named)

    return broken


def is_whole(tracker: VitalTracker, rows: Rows, calls: int) -> list[dict[str, Any]]:
    """Every call is there once, with its owner and its cost; the rows that have lost details."""
    assert tracker.flush(60).complete
    stats = tracker.stats()
    assert (stats.rejected, stats.dropped) == (0, 0)
    assert stats.faults > 0
    found = rows()
    assert sum(row["calls"] for row in found) == calls
    assert {row["user_id"] for row in found} == {"u-1"}
    assert sum(row["total_cost"] for row in found) == calls * COST
    return [row for row in found if "department" not in row["metadata"]]


def make(tracker: VitalTracker, calls: int = 3) -> None:
    record(tracker, calls, user_id="u-1", metadata={"department": "d"})


def test_a_price_that_cannot_be_worked_out_is_worked_out_of_less(
    tracker: VitalTracker, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Costs, "cost_of", breaks(Costs.cost_of))
    make(tracker)
    [short] = is_whole(tracker, rows, 3)
    assert short["metadata"] == {"notes": ["shortened"]}


def test_a_row_that_cannot_be_encoded_is_encoded_without_details(
    tracker: VitalTracker, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "encode_call", breaks(exporter.encode_call))
    make(tracker)
    [short] = is_whole(tracker, rows, 3)
    assert short["metadata"] == {"notes": ["shortened"]}


def test_a_call_that_cannot_be_packed_is_merged(
    tracker: VitalTracker, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "pack_record", breaks(encoding.pack_record, times=2))
    make(tracker)
    [merged] = is_whole(tracker, rows, 3)
    assert (merged["calls"], merged["metadata"]) == (2, {"notes": ["merged", "shortened"]})


def test_a_call_that_the_spool_fails_to_append_waits_in_memory(
    make_tracker: Callable[..., VitalTracker], rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SpoolWriter, "append", breaks(SpoolWriter.append, times=2))
    tracker = make_tracker()
    make(tracker)
    assert len(tracker._recorder._queue.waiting) == 2
    assert is_whole(tracker, rows, 3) == []


@pytest.mark.parametrize("spool", [True, False])
def test_a_call_whose_record_cannot_be_made_in_full_is_stored_in_its_shortest_form(
    spool: bool, make_tracker: Callable[..., VitalTracker], rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "record_of", breaks(encoding.record_of))
    monkeypatch.setattr(StraightWay, "call", breaks(StraightWay.call))
    tracker = make_tracker(spool=spool)
    model = FakeUsageModel(responses=["Well."], input_tokens=10, output_tokens=1)
    metadata = {"vital_user_id": "u-1", "vital_metadata": {"department": "d"}}
    for _ in range(2):
        model.invoke("Hi", {"callbacks": [tracker.handler], "metadata": metadata})
    [short] = is_whole(tracker, rows, 2)
    assert short["metadata"]["notes"] == ["shortened"]


@pytest.mark.parametrize("spool", [True, False])
def test_usual_calls_go_straight_wherever_they_wait(
    spool: bool, make_tracker: Callable[..., VitalTracker], rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this failed, each would take three times as long to deliver, and nobody would notice."""
    monkeypatch.setattr(exporter, "decoded", breaks(exporter.decoded, 100))
    tracker = make_tracker(spool=spool, budgets=False)
    model = FakeUsageModel(responses=["Well."], input_tokens=10, output_tokens=1)
    metadata = {"vital_user_id": "u-1", "vital_metadata": {"department": "d"}}
    for _ in range(3):
        model.invoke("Hi", {"callbacks": [tracker.handler], "metadata": metadata})
    assert tracker.flush(60).complete
    assert tracker.stats().faults == 0
    assert [row["metadata"]["department"] for row in rows()] == ["d"] * 3


def test_a_call_in_memory_of_which_no_facts_can_be_taken_is_stored_in_its_shortest_form(
    make_tracker: Callable[..., VitalTracker], rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a spool a call waits as it is, and its facts are taken in the thread that delivers it, straight or the long way."""
    monkeypatch.setattr(LiveCall, "end_facts", breaks(LiveCall.end_facts, 2))
    tracker = make_tracker(spool=False, budgets=False)
    model = FakeUsageModel(responses=["Well."], input_tokens=10, output_tokens=1)
    for _ in range(3):
        metadata = {"vital_user_id": "u-1", "vital_metadata": {"department": "d"}}
        model.invoke("Hi", {"callbacks": [tracker.handler], "metadata": metadata})
    [short] = is_whole(tracker, rows, 3)
    assert short["metadata"]["notes"] == ["shortened"]


@pytest.mark.parametrize("times", [1, 2])
def test_a_store_that_fails_in_a_way_nobody_foresaw_is_asked_again(
    times: int, tracker: VitalTracker, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = breaks(tracker.store.call, times)
    call = tracker.store.call

    def answers(function: str, /, **arguments: Any) -> Any:
        return (recorded if function.startswith("record_calls") else call)(function, **arguments)

    monkeypatch.setattr(tracker.store, "call", answers)
    make(tracker)
    assert is_whole(tracker, rows, 3) == []


def test_a_run_that_cannot_be_encoded_costs_no_call(
    tracker: VitalTracker, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "run_row", breaks(exporter.run_row))
    for _ in range(2):
        with tracker.workflow("intake", user_id="u-1"):
            make(tracker, 2)
    assert is_whole(tracker, rows, 4) == []
    assert [run["status"] for run in rows("select status from service_runs")] == ["ok"]


def test_what_an_exporter_cannot_encode_at_all_is_halved_to_the_one_at_fault(
    tracker: VitalTracker, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch whose encoding raises is delivered but for the item that makes it raise, which is set aside with its money."""
    encode = exporter.StoreExporter.encode
    bad: set[bytes] = set()

    def fails(self: exporter.StoreExporter, items: Any) -> Any:
        bad.update(item.id for item in items[1:2] if not bad)
        if bad.intersection(item.id for item in items):
            raise ZeroDivisionError("ours")
        return encode(self, items)

    monkeypatch.setattr(exporter.StoreExporter, "encode", fails)
    make(tracker, 5)
    delivered = tracker.flush(60)
    assert (delivered.complete, delivered.inserted, delivered.rejected) == (True, 4, 1)
    folder = tracker._recorder.folder
    assert folder is not None
    assert "gpt-4o-mini" in (folder / "rejected.jsonl").read_text()


def test_a_frame_that_cannot_be_read_is_set_aside_and_its_neighbours_are_stored(
    tracker: VitalTracker, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "decoded", breaks(exporter.decoded))
    make(tracker)
    delivered = tracker.flush(60)
    assert (delivered.complete, delivered.inserted, delivered.rejected) == (True, 2, 1)
    folder = tracker._recorder.folder
    assert folder is not None
    assert "gpt-4o-mini" in (folder / "rejected.jsonl").read_text()


@pytest.mark.parametrize("background", [True, False])
def test_a_fault_before_a_batch_is_sent_holds_up_no_call(
    background: bool, make_tracker: Callable[..., VitalTracker], rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a thread of ours the caller's own `flush` would raise."""
    tracker = make_tracker(background=background)
    tracker._recorder.on_tick.insert(0, breaks(lambda: None, times=2))
    monkeypatch.setattr(Spool, "read", breaks(Spool.read))
    make(tracker)
    assert tracker.flush(60).complete
    assert len(rows()) == 3


def test_ctrl_c_while_flush_waits_loses_nothing(database_url: str, spool_dir: Any, rows: Rows) -> None:
    """The user does not want to wait: what is on its way is stored all the same, once."""
    store = WatchedStore(PostgresStore(database_url), only="record_calls_v2")
    tracker = VitalTracker(store, settings=Settings(spool_dir=spool_dir, flush_interval_s=3600, budgets=False))
    record(tracker, 5)
    store.go.clear()

    def press() -> None:
        assert store.waiting.acquire(timeout=60)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        tracker.flush(60)
    store.go.set()
    until(lambda: tracker.stats().inserted == 5)
    record(tracker, 1)
    assert tracker.flush(60).complete
    assert tracker.close(60).complete
    assert len(rows()) == 6
