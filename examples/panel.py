"""A virtual panel: three members answer from their seats, and each seat's calls are its own.

Run it: python examples/panel.py
"""

from __future__ import annotations

from datetime import UTC, datetime

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from models import chat_model

from vital_tracking import Agent, VitalTracker

CARDIO = Agent("cardio", name="Cardiologist", tier="tier_1", role="expert")
LEGAL = Agent("legal", name="Counsel", tier="tier_2", role="reviewer")
MARKET = Agent("market", name="Market analyst", tier="tier_3", role="analyst")

PROMPT = ChatPromptTemplate.from_template("You are the {role}. In one sentence: {question}")


def main() -> None:
    """Two rounds of a panel of three, each member with a model of its own."""
    started = datetime.now(UTC)
    models = {"cardio": chat_model("gpt-4o"), "legal": chat_model("claude-haiku-4-5"), "market": chat_model()}
    chains = {member: PROMPT | model | StrOutputParser() for member, model in models.items()}
    with VitalTracker.from_env() as tracker:
        with tracker.panel("launch-board", user_id="u-1", members=[CARDIO, LEGAL, MARKET]) as panel:
            for question in ("Should we launch?", "What would change your mind?"):
                for seat in panel.seats:
                    asked = {"role": seat.agent.role, "question": question}
                    print(f"{seat.agent.name}: {chains[seat.agent.id].invoke(asked, config=seat.config())}")

        tracker.flush()
        for row in tracker.store.breakdown("panel_seat", since=started):
            print(f"{row['label']}: {row['calls']} calls, ${row['total_cost']:f}")


if __name__ == "__main__":
    main()
