"""A tracker's life: once closed, it is out of everybody's way."""

from __future__ import annotations

from vital_tracking import VitalTracker
from vital_tracking.testing import MemoryStore, fake_chat_model


def test_a_closed_tracker_stays_out_of_the_way(memory: MemoryStore) -> None:
    """Its handler must not grow, and its scopes must not keep a live tracker's handler out."""
    closed, live_store = VitalTracker(memory), MemoryStore()
    handler = closed.handler
    scope = closed.conversation(user_id="u-1")
    closed.close()
    model = fake_chat_model()
    for _ in range(50):
        model.invoke("q", config={"callbacks": [handler]})
    assert (len(handler._calls._ended), handler.in_flight, closed.stats().dropped) == (0, 0, 50)
    with VitalTracker(live_store) as live:
        live.install()
        with scope:
            model.invoke("q", config=scope.config())
    assert len(live_store.calls) == 1
