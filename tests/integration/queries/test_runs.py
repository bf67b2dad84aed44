"""Runs as they were: real LangGraph graphs with retries, subgraphs, panels and workflows in nodes, over a real database."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import RetryPolicy

from tests.integration.helpers import Rows
from tests.sql.helpers import a_call, a_run, an_end, an_unpriced_call, call_id
from tests.support.postgres import PostgresServer
from vital_tracking import Agent, VitalTracker, step
from vital_tracking.errors import StoreRejected
from vital_tracking.queries import Filters, RunUnknown, run_place, run_tree, service_runs, usage_records
from vital_tracking.queries.run_nodes import RunNode
from vital_tracking.stores.postgres import PostgresStore
from vital_tracking.testing import fake_chat_model

CARDIO, LEGAL = Agent("cardio", name="Cardiologist"), Agent("legal")
RECENT = Filters(since=datetime.now(UTC) - timedelta(days=1))


class Flaky(Exception):
    """What a node fails with that is tried again."""


def outline(node: RunNode) -> Any:
    """A tree as its kinds and names, each with the calls in it."""
    label = f"{node.kind} {node.name} {node.sums.calls}"
    return {label: [outline(child) for child in node.children]} if node.children else label


def asks(times: int = 1) -> Callable[[Any], dict[str, Any]]:
    """A node that asks a model so often."""
    model = fake_chat_model()

    def node(_: Any) -> dict[str, Any]:
        for _ in range(times):
            model.invoke("Hi")
        return {}

    return node


def graph(*nodes: tuple[str, Any], **options: Any) -> Any:
    """A graph of nodes one after another; `options` are those of the node of that name."""
    builder, before = StateGraph(MessagesState), START
    for name, node in nodes:
        builder.add_node(name, node, **options.get(name, {}))
        builder.add_edge(before, name)
        before = name
    return builder.compile()


def a_solution(tracker: VitalTracker) -> str:
    """A solution with a workflow in it, whose nodes retry, hold a subgraph, a panel and another workflow; and a turn."""
    tries: list[int] = []
    model, inner = fake_chat_model(), graph(("leaf", asks()))

    def flaky(_: Any) -> dict[str, Any]:
        model.invoke("Hi")
        tries.append(1)
        if len(tries) < 3:
            raise Flaky
        return {}

    def board(_: Any) -> dict[str, Any]:
        with tracker.panel("board", members=[CARDIO, LEGAL]) as panel:
            for seat in panel.seats:
                model.invoke("Hi", seat.config())
        return {}

    def delegate(_: Any) -> dict[str, Any]:
        with tracker.workflow("sub-flow") as nested:
            inner.invoke({"messages": []}, nested.config())
        return {}

    retry = RetryPolicy(max_attempts=3, initial_interval=0.001, jitter=False, retry_on=Flaky)
    intake = graph(
        ("plan", asks(2)),
        ("flaky", flaky),
        ("sub", inner),
        ("board", board),
        ("delegate", delegate),
        plan={"metadata": step("planning", name="Planning")},
        flaky={"retry_policy": retry},
        board={"metadata": step("meeting", name="Meeting")},
    )
    with tracker.solution("care-plan", user_id="u-1", organization_id="acme") as solution:
        with solution.workflow("intake", name="Intake") as workflow:
            intake.invoke({"messages": []}, workflow.config())
        with tracker.conversation(session_id="s-9") as turn:
            model.invoke("Hi", turn.config())
    assert tracker.flush(30).complete
    return solution.run_id


TREE = {
    "run care-plan 10": [
        {
            "run Intake 9": [
                {"step Planning 2": ["call gpt-4o-mini 1", "call gpt-4o-mini 1"]},
                {
                    "step flaky 3": [
                        {"attempt attempt 1 1": ["call gpt-4o-mini 1"]},
                        {"attempt attempt 2 1": ["call gpt-4o-mini 1"]},
                        {"attempt attempt 3 1": ["call gpt-4o-mini 1"]},
                    ]
                },
                {"step sub 1": [{"node leaf 1": ["call gpt-4o-mini 1"]}]},
                {
                    "step Meeting 2": [
                        {
                            "run board 2": [
                                {"seat seat 1 1": ["call gpt-4o-mini 1"]},
                                {"seat seat 2 1": ["call gpt-4o-mini 1"]},
                            ]
                        }
                    ]
                },
                {"step delegate 1": [{"run sub-flow 1": [{"step leaf 1": ["call gpt-4o-mini 1"]}]}]},
            ]
        },
        {"run s-9 1": ["call gpt-4o-mini 1"]},
    ]
}


def test_a_run_is_told_as_it_was(tracker: VitalTracker, store: PostgresStore, rows: Rows) -> None:
    """If this failed, an author would look for a cost at the wrong step, or under a run that had nothing to do with it."""
    run = a_solution(tracker)
    tree = run_tree(store, run)
    assert outline(tree.root) == TREE
    assert (tree.root.sums.retried_calls, tree.calls_told, tree.within) == (2, 10, ())
    stored = rows()
    assert tree.root.sums.total_cost == sum(row["total_cost"] for row in stored) > 0
    assert {leaf.id for leaf in tree.root.leaves()} == {str(row["id"]) for row in stored}
    # A run's time is its own, and holds that of what is in it.
    [intake, _] = tree.root.children
    assert intake.duration_ms is not None
    assert intake.duration_ms >= sum(child.duration_ms or 0 for child in intake.children) * 0.99
    [meeting] = [child for child in intake.children if child.name == "Meeting"]
    assert [seat.agent_id for seat in meeting.children[0].children] == ["cardio", "legal"]


def test_a_run_inside_another_names_those_around_it(tracker: VitalTracker, store: PostgresStore) -> None:
    """If this failed, nobody would find the solution that a dear panel was part of."""
    top = run_tree(store, a_solution(tracker))
    [board] = service_runs(store, Filters(panel="board"), nested=True)
    tree = run_tree(store, board["id"])
    assert [around["service_id"] for around in tree.within] == ["care-plan", "intake"]
    assert tree.within[0]["id"] == top.id
    assert [(child.kind, child.agent_id) for child in tree.root.children] == [("seat", "cardio"), ("seat", "legal")]


def test_runs_are_listed_with_what_is_nested_in_them(tracker: VitalTracker, store: PostgresStore, rows: Rows) -> None:
    """If this failed, a solution would seem to cost nothing, since all its calls are those of its workflows."""
    run = a_solution(tracker)
    [row] = service_runs(store, RECENT)
    assert (row["id"], row["calls"], row["nested_runs"], row["retried_calls"], row["status"]) == (run, 10, 4, 2, "ok")
    assert row["total_cost"] == sum(call["total_cost"] for call in rows())
    every = service_runs(store, nested=True)
    assert [one["service_id"] for one in every] == ["s-9", "sub-flow", "board", "intake", "care-plan"]
    assert {one["service_id"]: one["calls"] for one in every}["intake"] == 9
    first = service_runs(store, nested=True, limit=2)
    after = service_runs(store, nested=True, limit=9, after=run_place(first[-1]))
    assert [one["id"] for one in [*first, *after]] == [one["id"] for one in every]
    assert service_runs(store, Filters(status="error")) == []
    with pytest.raises(StoreRejected):
        service_runs(store, Filters(model="gpt-4o"))


def test_calls_of_a_run_are_those_of_its_tree(tracker: VitalTracker, store: PostgresStore) -> None:
    """If this failed, a link from the tree to its calls would show others."""
    run = a_solution(tracker)
    assert len(usage_records(store, Filters(run=run))) == 10
    for wanted, calls in (
        (Filters(step="planning"), 2),
        (Filters(step="Planning"), 2),
        (Filters(step="sub"), 1),
        (Filters(run=run, panel="board"), 2),
        (Filters(workflow="intake", framework="langgraph", search="LEGAL board"), 1),
        (Filters(search="nobody"), 0),
        (Filters(search="100%"), 0),
        (Filters(metadata={"attempt": "3"}), 1),
    ):
        assert len(usage_records(store, wanted)) == calls, wanted


def test_a_run_is_found_by_how_its_id_begins(store: PostgresStore) -> None:
    """If this failed, thirty-six letters would have to be typed; or a beginning would show another run."""
    runs = [an_end(name) for name in ("abc-1", "abc-2", "abd", "ab")]
    assert store.call("record_runs_v1", runs=json.dumps(runs))["inserted"] == 4
    assert [run_tree(store, wanted).id for wanted in ("abd", "abc-1", "ab")] == ["abd", "abc-1", "ab"]
    with pytest.raises(RunUnknown, match="abc-1, abc-2") as several:
        run_tree(store, "abc")
    assert several.value.candidates == ["abc-1", "abc-2"]
    for wanted in ("x", "", "%", "ab_"):
        with pytest.raises(RunUnknown, match="vital-tracking runs"):
            run_tree(store, wanted)


def test_what_went_wrong_is_marked(store: PostgresStore) -> None:
    """If this failed, an unpriced, blocked or abandoned call would look like one that cost nothing."""
    mine = {"service_run_id": "r-1", "workflow_step": "a"}
    calls = [
        a_call(1, **mine),
        a_call(2, **mine, status="error", error_type="TimeoutError"),
        a_call(3, **mine, status="abandoned", usage_estimated=True),
        a_call(
            4, **mine, status="blocked", prompt_tokens=0, completion_tokens=0, total_tokens=0, input_cost="0",
            output_cost="0", total_cost="0", potential_cost="0",
        ),
        an_unpriced_call(5, **mine),
        a_call(6, service_run_id="lost"),
    ]  # fmt: skip
    assert store.call("record_runs_v1", runs=json.dumps([a_run("r-1")]))["inserted"] == 1
    assert store.call("record_calls_v1", calls=json.dumps(calls))["rejected"] == []
    root = run_tree(store, "r-1").root
    sums = root.sums
    assert (root.status, root.ended_at, root.duration_ms) == ("running", None, None)
    assert (sums.calls, sums.failed_calls, sums.blocked_calls, sums.abandoned_calls) == (5, 3, 1, 1)
    assert (sums.unpriced_calls, sums.estimated_calls, sums.total_cost) == (1, 1, Decimal("1.26"))
    assert [leaf.status for leaf in root.leaves()] == ["ok", "error", "abandoned", "blocked", "ok"]
    lost = run_tree(store, "lost").root
    assert (lost.run, lost.sums.calls) == (None, 1)


def test_ten_thousand_calls_are_told_in_sums_and_the_first_one_by_one(store: PostgresStore) -> None:
    """If this failed, the page of a large run would take minutes, or not add up."""
    where = {"service_run_id": "big"}
    calls = [
        a_call(n, **where, workflow_step=f"s-{n % 7}", metadata={"attempt": n % 3, "langgraph_path": f"s-{n % 7}/leaf"})
        for n in range(10_000)
    ]
    store.call("record_runs_v1", runs=json.dumps([an_end("big")]))
    for first in range(0, len(calls), 1000):
        store.call("record_calls_v1", calls=json.dumps(calls[first : first + 1000]))
    tree = run_tree(store, "big", max_calls=100)
    assert (tree.calls_told, tree.root.sums.calls, tree.root.sums.total_cost) == (100, 10_000, 10_000 * Decimal("0.42"))
    leaves = list(tree.root.leaves())
    assert sum(leaf.sums.calls for leaf in leaves) == 10_000
    assert sum(leaf.sums.total_cost for leaf in leaves) == tree.root.sums.total_cost
    assert sum(leaf.kind == "calls" for leaf in leaves) == 21


@pytest.fixture(scope="module")
def forest(postgres_server: PostgresServer, template_database: str) -> Iterator[PostgresStore]:
    """A database for runs of many shapes."""
    postgres_server.create_database("forest", template=template_database)
    store = PostgresStore(postgres_server.url("forest"))
    yield store
    store.close()
    postgres_server.drop_database("forest")


_examples = itertools.count(1)


@settings(max_examples=40)
@given(seed=st.integers(0, 2**40), told=st.sampled_from((0, 3, 1000)))
def test_leaves_add_up_to_the_rows_whatever_the_shape(forest: PostgresStore, seed: int, told: int) -> None:
    """If this failed, some run would show a total that is not the sum of its lines, or miss a call."""
    choose = random.Random(seed)
    example = next(_examples)
    runs: list[dict[str, Any]] = []
    for number in range(choose.randint(1, 6)):
        parent = choose.choice(runs) if runs else None
        around = {"parent_run_id": parent["id"], "ancestor_run_ids": [parent["id"]]} if parent else {}
        service = choose.choice(("workflow", "virtual_panel", "solution_builder", "1:1_conversation"))
        runs.append(an_end(f"{example}-{number}", **around, service_type=service))
    calls = []
    for number in range(choose.randint(0, 12)):
        run = choose.choice(runs)["id"]
        amount = format(Decimal(choose.randint(0, 10**20)).scaleb(-30), "f")
        money = {"input_cost": amount, "output_cost": "0", "total_cost": amount, "potential_cost": amount}
        path = choose.choice((None, "a", "a/b", "b/a", "a/b/c"))
        metadata = {"attempt": choose.choice((1, 2, 3)), **({"langgraph_path": path} if path else {})}
        calls.append(
            a_call(
                number,
                id=call_id(1000 * example + number),
                **money,
                service_run_id=run,
                workflow_step=choose.choice((None, "a", "b", "c", "named")),
                panel_position=choose.choice((None, 1, 2)),
                trace_id=choose.choice((None, "t-1", "t-2")),
                metadata=metadata,
                calls=choose.choice((1, 1, 3)),
            )
        )
    forest.call("record_runs_v1", runs=json.dumps(runs))
    assert forest.call("record_calls_v1", calls=json.dumps(calls))["inserted"] == len(calls)
    root = run_tree(forest, runs[0]["id"], max_calls=told).root
    leaves = [leaf for leaf in root.leaves() if leaf.kind in ("call", "calls")]
    total = sum((Decimal(call["total_cost"]) for call in calls), Decimal(0))
    assert root.sums.total_cost == sum((leaf.sums.total_cost for leaf in leaves), Decimal(0)) == total
    assert root.sums.calls == sum(leaf.sums.calls for leaf in leaves) == sum(call["calls"] for call in calls)
    [row] = [row for row in service_runs(forest, limit=10_000) if row["id"] == runs[0]["id"]]
    assert (row["calls"], row["total_cost"]) == (root.sums.calls, total)
