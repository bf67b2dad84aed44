"""A 1:1 conversation: every turn is a service run, and its calls carry user, session and agent.

Run it: python examples/conversation.py
"""

from __future__ import annotations

from datetime import UTC, datetime

from models import chat_model

from vital_tracking import Agent, VitalTracker

CARDIO = Agent("cardio", name="Cardiologist", tier="tier_1", role="expert")


def main() -> None:
    """Three turns of one session, the last one streamed."""
    started = datetime.now(UTC)
    model = chat_model("gpt-4o")
    with VitalTracker.from_env() as tracker:
        for question in ("What does the ECG show?", "And compared with last year?"):
            with tracker.conversation(user_id="u-1", session_id="s-1", agent=CARDIO) as turn:
                print(model.invoke(question, config=turn.config()).text)
        with tracker.conversation(user_id="u-1", session_id="s-1", agent=CARDIO) as turn:
            for chunk in model.stream("What comes next?", config=turn.config()):
                print(chunk.text, end="")
        print()

        tracker.flush()
        for row in tracker.store.breakdown("agent", since=started):
            print(f"{row['label']}: {row['calls']} calls, ${row['total_cost']:f}")


if __name__ == "__main__":
    main()
