"""A budget that throttles: over the limit calls pass one by one. A guarded model waits for its turn, the plain handler says when.

Run it: python examples/budget_throttle.py
"""

from __future__ import annotations

import asyncio
import time
from uuid import uuid4

from limits import budgets
from models import chat_model

from vital_tracking import BudgetThrottled, VitalTracker


def main() -> None:
    """A session of two calls; over that, one every half second."""
    session = f"s-{uuid4().hex[:8]}"
    model = chat_model()
    # On the command line: vital-tracking budgets set session --metric calls --total 2 --action throttle --every 500ms
    limit = {
        "entity_type": "session",
        "entity_id": session,
        "metric": "calls",
        "total_limit": 2,
        "action": "throttle",
        "throttle_interval_s": 0.5,
    }
    with VitalTracker.from_env() as tracker, budgets(tracker, limit):
        patient = tracker.guard(model, max_wait=10)
        with tracker.conversation(user_id="u-1", session_id=session) as turn:
            for number in range(1, 5):
                asked = time.perf_counter()
                patient.invoke("What slows the heart?", config=turn.config())
                print(f"call {number}: after {time.perf_counter() - asked:.1f} s")

            # In an event loop a wait holds up nobody else.
            async def together() -> None:
                await asyncio.gather(*(patient.ainvoke("What slows the heart?", config=turn.config()) for _ in "abc"))

            asked = time.perf_counter()
            asyncio.run(together())
            print(f"three more at once: after {time.perf_counter() - asked:.1f} s")

            # Without a guard nothing waits: a call whose turn it is not yet is stopped.
            try:
                model.invoke("What slows the heart?", config=turn.config())
            except BudgetThrottled as stop:
                print(f"not now: come again in {stop.retry_after:.1f} s")
        tracker.flush()


if __name__ == "__main__":
    main()
