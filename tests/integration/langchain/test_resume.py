"""A graph that is resumed in another process: the service runs of both are one case, by their thread."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.helpers import Rows
from tests.support.folders import REPOSITORY
from tests.support.forked import run_forked
from vital_tracking import Agent, VitalTracker

# Two nodes that ask a model; in between a person is asked, or the process dies. What a checkpointer keeps goes through a file.
STEP = """
import os, pickle, signal, sys
from pathlib import Path
from typing import TypedDict
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt
from tests.support.spool_worker import FakeUsageModel, open_tracker

kept, way, first = Path(os.environ["KEPT"]), os.environ["WAY"], os.environ["FIRST"] == "1"
model = FakeUsageModel(responses=["Well."])
saver = InMemorySaver()

def keep():
    storage = {thread: {name: dict(part) for name, part in spaces.items()} for thread, spaces in saver.storage.items()}
    kept.write_bytes(pickle.dumps((storage, {key: dict(part) for key, part in saver.writes.items()}, dict(saver.blobs))))

if not first:
    storage, writes, blobs = pickle.loads(kept.read_bytes())
    for thread, spaces in storage.items():
        for name, part in spaces.items():
            saver.storage[thread][name].update(part)
    for key, part in writes.items():
        saver.writes[key].update(part)
    saver.blobs.update(blobs)

class State(TypedDict):
    said: str

def triage(state):
    return {"said": model.invoke("Hi").text}

def report(state):
    if way == "interrupted":
        interrupt("Go on?")
    elif first:
        keep()
        assert tracker.flush(60).complete
        os.kill(os.getpid(), signal.SIGKILL)
    return {"said": model.invoke("Hi").text}

graph = StateGraph(State).add_node("triage", triage).add_node("report", report)
graph = graph.add_edge(START, "triage").add_edge("triage", "report").add_edge("report", END).compile(checkpointer=saver)
tracker = open_tracker(flush_interval_s=3600)
config = {"configurable": {"thread_id": "t-1"}}
given = {"said": ""} if first else Command(resume="yes") if way == "interrupted" else None
with tracker.workflow("intake", user_id="u-1") as workflow:
    if os.environ["CONFIG"] == "the scope's":
        config = workflow.config(**config)
    else:
        config["callbacks"] = [tracker.handler]
    graph.invoke(given, config, durability="sync")
keep()
assert tracker.close(60).complete
"""


@pytest.mark.parametrize("config", ["the scope's", "the caller's"])
@pytest.mark.parametrize("way", ["interrupted", "killed"])
def test_the_runs_of_a_graph_that_is_resumed_elsewhere_are_one_case(
    way: str,
    config: str,
    make_tracker: Callable[..., VitalTracker],
    database_url: str,
    spool_dir: Path,
    tmp_path: Path,
    rows: Rows,
) -> None:
    """If this failed, what a case has cost would be known of its last part alone, and the first would be a stranger's."""
    environment = {"DATABASE": database_url, "SPOOL": str(spool_dir), "KEPT": str(tmp_path / "kept"), "WAY": way}
    for first in (True, False):
        settings = {"FIRST": str(int(first)), "CONFIG": config, "PATH": os.environ["PATH"]}
        done = run_forked([sys.executable, "-c", STEP], REPOSITORY, environment | settings, timeout=100)
        assert done.returncode == (-signal.SIGKILL if first and way == "killed" else 0), done.stderr
    assert make_tracker(spool_dir=spool_dir).replay(60)
    found = rows("select session_id, status from service_runs order by started_at")
    assert found == [
        {"session_id": "t-1", "status": "ok" if way == "interrupted" else "abandoned"},
        {"session_id": "t-1", "status": "ok"},
    ]
    [case] = rows("select session_id, sum(calls)::int as calls from workflow_analytics group by session_id")
    assert case == {"session_id": "t-1", "calls": 2}


def test_a_run_keeps_the_session_that_it_was_given(tracker: VitalTracker, rows: Rows) -> None:
    """If this failed, a thread that a library makes up would take a run out of its user's session."""
    with tracker.workflow("mine", session_id="s-1") as mine:
        tracker.handler.on_chain_start(None, {}, run_id=mine.run_id, metadata={"thread_id": "t-9"})  # type: ignore[arg-type]
    with tracker.panel("board", members=[Agent("a")]) as panel, panel.seats[0]:
        for thread in ("t-1", "t-2"):
            tracker.handler.on_chain_start(None, {}, run_id=mine.run_id, metadata={"thread_id": thread})  # type: ignore[arg-type]
    assert tracker.flush(60).complete
    assert rows("select service_id, session_id, status from service_runs order by 1") == [
        {"service_id": "board", "session_id": "t-1", "status": "ok"},
        {"service_id": "mine", "session_id": "s-1", "status": "ok"},
    ]
