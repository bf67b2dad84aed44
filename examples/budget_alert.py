"""A budget that only alerts: nothing is stopped, and somebody is told at half, at four fifths and at the whole of it.

Run it: python examples/budget_alert.py
"""

from __future__ import annotations

from queue import SimpleQueue
from uuid import uuid4

from limits import budgets
from models import chat_model

from vital_tracking import BudgetAlert, VitalTracker


def main() -> None:
    """Four calls of a user who may spend two cents a day."""
    user = f"u-{uuid4().hex[:8]}"
    model = chat_model("gpt-4o")
    # On the command line: vital-tracking budgets set user u-1 --daily 0.02 --action alert
    day = {"entity_type": "user", "entity_id": user, "daily_limit": "0.02", "action": "alert"}

    # `on_alert` is called on a background thread, so hand on what it is given: to a queue, a pager, a webhook.
    # With VITAL_ALERT_URLS alerts go to Slack, e-mail and the like without any code.
    told: SimpleQueue[BudgetAlert] = SimpleQueue()
    with VitalTracker.from_env(on_alert=told.put) as tracker, budgets(tracker, day):
        for _ in range(2):
            with tracker.conversation(user_id=user) as turn:
                for question in ("What does the ECG show?", "And compared with last year?"):
                    print(model.invoke(question, config=turn.config()).text)
            tracker.flush()  # alerts are raised when calls are recorded: after five seconds, or here
            print(told.get(timeout=45).message)


if __name__ == "__main__":
    main()
