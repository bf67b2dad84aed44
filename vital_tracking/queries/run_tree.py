"""Puts the tree of a run together from what the database tells: runs under runs, parts under runs, calls under parts."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, TypeAlias
from uuid import UUID

from typing_extensions import TypedDict

from vital_tracking.queries.answers import answer_type
from vital_tracking.queries.run_nodes import SUMS, NodeKind, RunAround, RunFacts, RunNode, RunSums, total


@answer_type
class _PartSums(TypedDict):
    calls: int
    failed_calls: int
    blocked_calls: int
    abandoned_calls: int
    retried_calls: int
    cached_calls: int
    unpriced_calls: int
    estimated_calls: int
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    input_cost: Decimal
    output_cost: Decimal
    fees: Decimal
    total_cost: Decimal
    potential_cost: Decimal
    model_ms: Decimal


@answer_type
class Part(_PartSums):
    """Calls of a run that share seat, step, path through the graph, and attempt. `traces` are those of its calls in a graph."""

    part: int
    service_run_id: str
    panel_position: int | None
    workflow_step: str | None
    workflow_step_name: str | None
    path: str | None
    step_number: str | None
    attempt: str | None
    agent_id: str | None
    agent_name: str | None
    traces: list[str | None] | None
    started_at: datetime
    ended_at: datetime


@answer_type
class PartCall(TypedDict):
    """A call, with the number of its part."""

    id: UUID
    part: int
    created_at: datetime
    response_time_ms: float | None
    calls: int
    agent_id: str | None
    agent_name: str | None
    provider: str | None
    model: str | None
    call_type: str
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    input_cost: Decimal | None
    output_cost: Decimal | None
    fees: Decimal | None
    total_cost: Decimal | None
    potential_cost: Decimal | None
    priced: bool
    usage_estimated: bool
    cache_hit: bool
    status: str
    error_type: str | None
    attempt: str | None


@answer_type
class ToldRun(TypedDict):
    """What the database tells of a run."""

    id: str
    within: list[RunAround]
    runs: list[RunFacts]
    parts: list[Part]
    calls: list[PartCall]


_Level: TypeAlias = tuple[str, str]
"""A step or node: its id, and its name for people."""


class _Growing:
    """A node that is being put together; its sums are those of its leaves."""

    __slots__ = ("children", "facts", "kind", "leaves")

    def __init__(self, kind: NodeKind, **facts: Any) -> None:
        self.kind: NodeKind = kind
        self.facts = facts
        self.children: dict[tuple[str, object], _Growing] = {}
        self.leaves: list[RunNode] = []

    def child(self, kind: NodeKind, key: object, **facts: Any) -> _Growing:
        """The node of that key below this one, made where it is missing; facts that it lacks are added."""
        known = self.children.get((kind, key))
        if known is None:
            known = self.children[kind, key] = _Growing(kind, **facts)
        for name, value in facts.items():
            if known.facts.get(name) is None:
                known.facts[name] = value
        return known

    def level(self, kind: NodeKind, level: _Level) -> _Growing:
        """The step or node below this one."""
        found = self.child(kind, level[0], id=level[0], name=level[1])
        if found.facts["name"] == level[0]:
            found.facts["name"] = level[1]
        return found

    def attempt(self, number: str) -> _Growing:
        """The attempt below this node."""
        return self.child("attempt", number, id=number, name=f"attempt {number}")

    def grown(self) -> RunNode:
        """The node as it will stay, with all below it. A run keeps its own times; the others take those of what is in them."""
        children = [child.grown() for child in self.children.values()] + self.leaves
        children.sort(key=lambda node: (node.started_at is None, node.started_at, node.id or ""))
        facts = dict(self.facts)
        if facts.get("run") is None:
            facts["started_at"] = min((node.started_at for node in children if node.started_at), default=None)
            facts["ended_at"] = max((node.ended_at for node in children if node.ended_at), default=None)
        started, ended = facts["started_at"], facts["ended_at"]
        if started is not None and ended is not None:
            facts["duration_ms"] = (ended - started) / timedelta(milliseconds=1)
        return RunNode(kind=self.kind, sums=total(node.sums for node in children), children=tuple(children), **facts)


class RunGrower:
    """Makes the tree of a run."""

    def __init__(self, told: ToldRun) -> None:
        self._id = told["id"]
        self._facts = {run["id"]: run for run in told["runs"]}
        self._parts: dict[str, list[Part]] = {}
        for part in told["parts"]:
            self._parts.setdefault(part["service_run_id"], []).append(part)
        self._nested: dict[str, list[str]] = {}
        for run in told["runs"]:
            if run["id"] != self._id:
                parent = run["parent_run_id"]
                self._nested.setdefault(parent if parent in self._facts else self._id, []).append(run["id"])
        self._calls: dict[int, list[PartCall]] = {}
        for call in told["calls"]:
            self._calls.setdefault(call["part"], []).append(call)
        self._traces = {run: {t for part in parts for t in part["traces"] or ()} for run, parts in self._parts.items()}

    def tree(self) -> RunNode:
        """The run with everything in it."""
        top = _Growing("run", **self._run_facts(self._id))
        waiting: list[tuple[str, _Growing, int, str | None]] = [(self._id, top, 0, None)]
        placed = {self._id}
        while waiting:
            run, node, depth, around = waiting.pop()
            self._add_parts(run, node, depth, around)
            shared = self._shared_traces(run)
            for nested in self._nested.get(run, ()):
                if nested not in placed:
                    placed.add(nested)
                    where, inside, step = self._place_of(run, nested, node, depth, around, shared)
                    waiting.append((nested, where.child("run", nested, **self._run_facts(nested)), inside, step))
        return top.grown()

    def _run_facts(self, run: str) -> dict[str, Any]:
        facts = self._facts.get(run)
        if facts is None:  # only calls of it are known
            return {"id": run, "name": run}
        named = facts["service_name"] or facts["service_id"] or facts["service_type"]
        taken = {name: facts[name] for name in ("status", "error_type", "started_at", "ended_at", "agent_id")}
        return {"id": run, "name": named, "run": facts, **taken}

    def _add_parts(self, run: str, node: _Growing, depth: int, around: str | None) -> None:
        """Put a run's parts under its node: seat, step, inner nodes, attempt, calls."""
        parts = self._parts.get(run, [])
        retried = {_where(part) for part in parts if part["attempt"] not in (None, "0", "1")}
        for part in parts:
            place = node
            if (seat := part["panel_position"]) is not None:
                agent = {"agent_id": part["agent_id"], "agent_name": part["agent_name"]}
                place = node.child("seat", seat, id=str(seat), name=f"seat {seat}", **agent)
            for number, level in enumerate(_levels(part, depth, around)):
                place = place.level("node" if number else "step", level)
            if part["attempt"] is not None and _where(part) in retried:
                place = place.attempt(part["attempt"])
            place.leaves += self._leaves(part)

    def _shared_traces(self, run: str) -> dict[str | None, int]:
        """How many of a run and the runs in it have calls in each trace."""
        seen: dict[str | None, int] = {}
        for one in (run, *self._nested.get(run, ())):
            for trace in self._traces.get(one, ()):
                seen[trace] = seen.get(trace, 0) + 1
        return seen

    def _place_of(
        self, run: str, nested: str, node: _Growing, depth: int, around: str | None, shared: dict[str | None, int]
    ) -> tuple[_Growing, int, str | None]:
        """Where a nested run belongs, how many nodes of the graph are around it, and the step that it is in.

        It is in a node of its parent's graph where all its calls were made in that one node, in a trace that the parent or
        another run of the parent has as well. Else it is in the parent itself.
        """
        parts = self._parts.get(nested, [])
        paths = [_elements(part) for part in parts]
        within = paths[0][: depth + 1] if paths else []
        alone = not all(part["traces"] and all(shared[trace] > 1 for trace in part["traces"]) for part in parts)
        if len(within) <= depth or alone or any(path[: depth + 1] != within for path in paths):
            return node, depth, around
        like = next((part for part in self._parts.get(run, ()) if _elements(part)[: depth + 1] == within), None)
        facts = self._facts[nested]
        if like is None and facts["service_type"] != "workflow":  # its calls carry the step of the workflow around it
            like = parts[0]
        level = _levels(like, depth, around)[0] if like is not None else (within[depth], within[depth])
        place = node.level("node" if depth else "step", level)
        attempts = {part["attempt"] for path, part in zip(paths, parts, strict=True) if path == within}
        if len(attempts) == 1 and all(path == within for path in paths):
            [attempt] = attempts
            others = (part for one in (run, *self._nested[run]) for part in self._parts.get(one, ()))
            if attempt is not None and any(
                part["attempt"] not in (None, "0", "1") for part in others if _elements(part) == within
            ):
                place = place.attempt(attempt)
        return place, depth + 1, level[0]

    def _leaves(self, part: Part) -> Iterator[RunNode]:
        """The calls of a part, and what they lack of its sums as one more leaf."""
        told = [_leaf(call) for call in self._calls.get(part["part"], ())]
        yield from told
        rest = RunSums(**{name: part[name] for name in SUMS}).minus(total(leaf.sums for leaf in told))  # type: ignore[literal-required]
        if rest.calls:
            more = "more call" if told else "call"
            yield RunNode(
                kind="calls",
                id=None,
                name=f"{rest.calls:,} {more}{'' if rest.calls == 1 else 's'}",
                agent_id=part["agent_id"],
                agent_name=part["agent_name"],
                started_at=max((leaf.started_at for leaf in told if leaf.started_at), default=part["started_at"]),
                ended_at=part["ended_at"],
                sums=rest,
            )


def _elements(part: Part) -> list[str]:
    """The nodes of the graph that a part is in, the outermost first."""
    return part["path"].split("/") if part["path"] else []


def _levels(part: Part, depth: int, around: str | None) -> list[_Level]:
    """The step of a part and the nodes in it, below the first `depth` nodes of the graph and the step `around` the run."""
    elements, step, name = _elements(part), part["workflow_step"], part["workflow_step_name"]
    levels = [(element, name or element if element == step else element) for element in elements[depth:]]
    if step is not None and step != around and step not in elements:  # as its author named it
        levels[:1] = [(step, name or step)]
    return levels


def _where(part: Part) -> tuple[object, ...]:
    return part["panel_position"], part["workflow_step"], part["path"]


def _leaf(call: PartCall) -> RunNode:
    calls, zero, took = call["calls"], Decimal(0), call["response_time_ms"]
    sums = RunSums(
        calls=calls,
        failed_calls=0 if call["status"] == "ok" else calls,
        blocked_calls=calls if call["status"] == "blocked" else 0,
        abandoned_calls=calls if call["status"] == "abandoned" else 0,
        retried_calls=0 if call["attempt"] in (None, "0", "1") else calls,
        cached_calls=calls if call["cache_hit"] else 0,
        unpriced_calls=0 if call["priced"] else calls,
        estimated_calls=calls if call["usage_estimated"] else 0,
        prompt_tokens=call["prompt_tokens"],
        completion_tokens=call["completion_tokens"],
        total_tokens=call["total_tokens"],
        input_cost=call["input_cost"] or zero,
        output_cost=call["output_cost"] or zero,
        fees=call["fees"] or zero,
        total_cost=call["total_cost"] or zero,
        potential_cost=call["potential_cost"] or zero,
        model_ms=Decimal(str(took or 0)),
    )
    return RunNode(
        kind="call",
        id=str(call["id"]),
        name=call["model"] or call["call_type"],
        status=call["status"],
        error_type=call["error_type"],
        started_at=call["created_at"],
        ended_at=call["created_at"] + timedelta(milliseconds=min(took, 1e12)) if took is not None else None,
        duration_ms=took,
        agent_id=call["agent_id"],
        agent_name=call["agent_name"],
        provider=call["provider"],
        model=call["model"],
        sums=sums,
    )
