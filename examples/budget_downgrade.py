"""A budget that downgrades: over the limit a guarded model goes on with a cheaper one, of its own provider or another.

Run it: python examples/budget_downgrade.py
"""

from __future__ import annotations

from uuid import uuid4

from limits import budgets
from models import chat_model

from vital_tracking import Agent, BudgetExceeded, VitalTracker

TRIAGE = Agent("triage", name="Triage nurse", tier="tier_3")


def main() -> None:
    """A session of two calls with any model; over that, with one no dearer than claude-haiku-4-5."""
    session = f"s-{uuid4().hex[:8]}"
    # On the command line:
    # vital-tracking budgets set session --metric calls --total 2 --action downgrade --downgrade-to claude-haiku-4-5
    limit = {
        "entity_type": "session",
        "entity_id": session,
        "metric": "calls",
        "total_limit": 2,
        "action": "downgrade",
        "downgrade_to": "claude-haiku-4-5",
    }
    dear = chat_model("gpt-4o")
    with VitalTracker.from_env() as tracker, budgets(tracker, limit):
        # The name of a model of the same provider, another chat model, or several of these, best first.
        same_provider = tracker.guard(dear, downgrade_to="gpt-4o-mini")
        other_provider = tracker.guard(dear, downgrade_to=[chat_model("claude-haiku-4-5"), "gpt-4o-mini"])
        with tracker.conversation(user_id="u-1", session_id=session, agent=TRIAGE) as turn:
            for model in (same_provider, same_provider, same_provider, other_provider):
                answer = model.invoke("Is this urgent?", config=turn.config())
                print(f"{answer.response_metadata['model_name']}: {answer.text}")

            # The plain handler cannot change a model: a dear one is stopped, a cheap one passes.
            try:
                dear.invoke("Is this urgent?", config=turn.config())
            except BudgetExceeded as stop:
                print(stop)
            print(chat_model().invoke("Is this urgent?", config=turn.config()).text)
        tracker.flush()


if __name__ == "__main__":
    main()
