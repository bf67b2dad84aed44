"""An agent of `create_agent` with a tool: each request to the model is a call, those inside the tool too.

Run it: python examples/agent.py
"""

from __future__ import annotations

from datetime import UTC, datetime

from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.tools import tool
from models import chat_model, tool_calling_model

from vital_tracking import Agent, VitalTracker

TRIAGE = Agent("triage", name="Triage nurse", tier="tier_3")

summarizer = chat_model("claude-haiku-4-5")


@tool
def guideline(topic: str) -> str:
    """Look up the guideline on a topic."""
    return summarizer.invoke(f"Summarize the guideline on {topic}.").text


def said(content: str, tokens: tuple[int, int], topic: str | None = None) -> AIMessage:
    """What the fake model answers: text, or the wish to look up a topic."""
    calls = [{"name": "guideline", "args": {"topic": topic}, "id": "call-1"}] if topic else []
    usage = UsageMetadata(input_tokens=tokens[0], output_tokens=tokens[1], total_tokens=sum(tokens))
    return AIMessage(content=content, tool_calls=calls, usage_metadata=usage)


def main() -> None:
    """One question; the agent looks something up before it answers."""
    started = datetime.now(UTC)
    model = tool_calling_model(said("", (410, 22), topic="palpitations"), said("See a doctor today.", (640, 31)))
    nurse = create_agent(model, tools=[guideline], name="triage")
    with VitalTracker.from_env() as tracker:
        with tracker.conversation(user_id="u-1", session_id="s-1", agent=TRIAGE) as turn:
            question = {"role": "user", "content": "I have palpitations. Look up the guideline, then advise me."}
            answer = nurse.invoke({"messages": [question]}, config=turn.config())
            print(answer["messages"][-1].text)

        tracker.flush()
        for by in ("agent", "message_type", "model"):
            for row in tracker.store.breakdown(by, since=started):
                print(f"{by} {row['label']}: {row['calls']} calls, ${row['total_cost']:f}")


if __name__ == "__main__":
    main()
