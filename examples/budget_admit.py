"""Budgets for code that calls a provider by itself: ask first, use the model that is allowed, record what it took.

Run it: python examples/budget_admit.py
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from uuid import uuid4

from limits import budgets

from vital_tracking import BudgetExceeded, VitalTracker

PROMPT = "Summarize the guideline on palpitations."


@dataclass
class Answer:
    """What a provider's own SDK gives: text, and what it took."""

    text: str
    prompt_tokens: int
    completion_tokens: int


def ask_provider(model: str | None, prompt: str, max_tokens: int | None) -> Answer:
    """Stands for a call of a provider's SDK, with the model and the limit that were admitted."""
    text = f"{model} would answer {prompt!r} in at most {max_tokens} tokens."
    return Answer(text, prompt_tokens=420, completion_tokens=60)


def main() -> None:
    """Two budgets for one session: over two calls a cheaper model, over three none."""
    session = f"s-{uuid4().hex[:8]}"
    who = {"entity_type": "session", "entity_id": session, "metric": "calls"}
    cheaper = {**who, "total_limit": 2, "action": "downgrade", "downgrade_to": "gpt-4o-mini"}
    nothing = {**who, "total_limit": 3, "action": "block"}
    with VitalTracker.from_env() as tracker, budgets(tracker, cheaper, nothing):
        for _ in range(3):
            with tracker.admit(
                provider="openai",
                model="gpt-4o",
                downgrade_to="gpt-4o-mini",
                prompt=PROMPT,
                max_tokens=200,
                max_wait=10,
                user_id="u-1",
                session_id=session,
            ) as call:
                answer = ask_provider(call.model, PROMPT, call.max_tokens)
                call.record(prompt_tokens=answer.prompt_tokens, completion_tokens=answer.completion_tokens)
            print(f"{call.model}, {call.action or 'within every limit'}: {answer.text}")

        # The same in an event loop.
        async def once_more() -> None:
            async with await tracker.aadmit(provider="openai", model="gpt-4o-mini", session_id=session) as call:
                call.release()  # no call after all: what was set aside for it goes back

        try:
            asyncio.run(once_more())
        except BudgetExceeded as stop:
            print(stop)
        tracker.flush()


if __name__ == "__main__":
    main()
