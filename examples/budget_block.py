"""A budget that blocks: when the money is gone, calls are stopped before they are made, and the caller learns why.

Run it: python examples/budget_block.py
"""

from __future__ import annotations

from uuid import uuid4

from limits import budgets
from models import chat_model

from vital_tracking import BudgetExceeded, VitalTracker


def main() -> None:
    """A session that may cost ten cents, spent to the end."""
    session = f"s-{uuid4().hex[:8]}"
    model = chat_model("gpt-4o")
    # On the command line: vital-tracking budgets set session --total 0.10 --action block
    limit = {"entity_type": "session", "entity_id": session, "total_limit": "0.10", "action": "block"}
    with VitalTracker.from_env() as tracker, budgets(tracker, limit):
        answers = 0
        try:
            for _ in range(100):
                with tracker.conversation(user_id="u-1", session_id=session) as turn:
                    model.invoke("What comes next?", config=turn.config())
                answers += 1
        except BudgetExceeded as stop:
            # No request was sent. What is left would not pay for one more call, by what such calls have cost so far.
            print(f"{answers} answers, then: {stop}")
            print(f"{stop.action}: {stop.entity_type} {stop.entity_id}, {stop.period}, limit ${stop.limit}")

        tracker.flush()
        for window in tracker.store.call("budget_windows_v1", entity=session):
            print(f"spent ${window['spent']} of ${window['limit_amount']}")


if __name__ == "__main__":
    main()
