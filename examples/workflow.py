"""A LangGraph workflow: its nodes are the steps; `step(...)` gives them names and agents; a subgraph is one step of them.

Run it: python examples/workflow.py
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from models import chat_model

from vital_tracking import Agent, VitalTracker, step

CARDIO = Agent("cardio", name="Cardiologist", tier="tier_1")
LEGAL = Agent("legal", name="Counsel", tier="tier_2")


class Case(TypedDict):
    """The state of the graph."""

    text: str


# The nodes know nothing of tracking: LangGraph hands the config on to the models.


def triage(state: Case) -> Case:
    """Say how urgent the case is."""
    return {"text": chat_model("gpt-4o").invoke(state["text"]).text}


def sources(state: Case) -> Case:
    """Collect what is known."""
    return {"text": chat_model().invoke(state["text"]).text}


def weigh(state: Case) -> Case:
    """Weigh it."""
    return {"text": chat_model().invoke(state["text"]).text}


def report(state: Case) -> Case:
    """Write it up."""
    return {"text": chat_model("claude-haiku-4-5").invoke(state["text"]).text}


def build() -> CompiledStateGraph[Case, None, Case, Case]:
    """Triage, then research, which is a subgraph of two nodes, then a report."""
    research = StateGraph(Case)
    research.add_node("sources", sources)
    research.add_node("weigh", weigh)
    research.add_edge(START, "sources")
    research.add_edge("sources", "weigh")
    research.add_edge("weigh", END)

    graph = StateGraph(Case)
    graph.add_node("triage", triage, metadata=step("triage", name="Triage", agent=CARDIO))
    graph.add_node("research", research.compile())
    graph.add_node("report", report, metadata=step("report", name="Report", agent=LEGAL))
    graph.add_edge(START, "triage")
    graph.add_edge("triage", "research")
    graph.add_edge("research", "report")
    graph.add_edge("report", END)
    return graph.compile()


def main() -> None:
    """One run of the workflow `intake`."""
    started = datetime.now(UTC)
    graph = build()
    with VitalTracker.from_env() as tracker:
        with tracker.workflow("intake", user_id="u-1", name="Intake") as workflow:
            config = workflow.config(configurable={"thread_id": "t-1"})
            print(graph.invoke({"text": "A patient with palpitations."}, config=config)["text"])

        tracker.flush()
        for row in tracker.store.breakdown("workflow_step", since=started):
            print(f"{row['label']}: {row['calls']} calls, ${row['total_cost']:f}")


if __name__ == "__main__":
    main()
