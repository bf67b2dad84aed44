"""The solution builder: whatever runs inside a solution belongs to it, workflows and panels included.

Run it: python examples/solution.py
"""

from __future__ import annotations

from datetime import UTC, datetime

from models import chat_model

from vital_tracking import Agent, VitalTracker

LEGAL = Agent("legal", name="Counsel", tier="tier_2", role="reviewer")
MARKET = Agent("market", name="Market analyst", tier="tier_3", role="analyst")


def main() -> None:
    """A plan, a workflow that drafts it, and a panel that reviews the draft."""
    started = datetime.now(UTC)
    planner, writer = chat_model("gpt-4o"), chat_model()
    reviewers = {"legal": chat_model("claude-haiku-4-5"), "market": chat_model()}
    with VitalTracker.from_env() as tracker:
        with tracker.solution("care-plan", user_id="u-1", name="Care plan") as solution:
            plan = planner.invoke("Outline a care plan.", config=solution.config())
            with solution.workflow("drafting") as workflow:
                draft = writer.invoke(plan.text, config=workflow.config())
            with solution.panel("review-board", members=[LEGAL, MARKET]) as panel:
                for seat in panel.seats:
                    print(reviewers[seat.agent.id].invoke(draft.text, config=seat.config()).text)

        tracker.flush()
        for by in ("solution", "service"):
            for row in tracker.store.breakdown(by, since=started):
                print(f"{by} {row['label']}: {row['calls']} calls, ${row['total_cost']:f}")


if __name__ == "__main__":
    main()
