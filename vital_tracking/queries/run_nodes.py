"""What the tree of a run is made of: nodes with their sums."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, Literal, TypeAlias

from typing_extensions import TypedDict

from vital_tracking.core.cost import MONEY
from vital_tracking.queries.answers import Amount, answer_type

NodeKind: TypeAlias = Literal["run", "seat", "step", "node", "attempt", "call", "calls"]
"""What a node of the tree is: a service run, a seat of a panel, a step, an inner node, an attempt, a call, or several calls that
are not told one by one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSums:
    """What calls come to. Costs are those of calls with a price; `model_ms` is how long they took one after another."""

    calls: int = 0
    failed_calls: int = 0
    blocked_calls: int = 0
    abandoned_calls: int = 0
    retried_calls: int = 0
    cached_calls: int = 0
    unpriced_calls: int = 0
    estimated_calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    input_cost: Amount = Decimal(0)
    output_cost: Amount = Decimal(0)
    fees: Amount = Decimal(0)
    total_cost: Amount = Decimal(0)
    potential_cost: Amount = Decimal(0)
    model_ms: Amount = Decimal(0)

    def plus(self, other: RunSums) -> RunSums:
        """Both together, exactly."""
        return RunSums(**{name: _plus(getattr(self, name), getattr(other, name)) for name in SUMS})

    def minus(self, other: RunSums) -> RunSums:
        """This without the other, exactly."""
        return RunSums(**{name: _plus(getattr(self, name), -getattr(other, name)) for name in SUMS})


SUMS: Final = tuple(one.name for one in fields(RunSums))


@dataclass(frozen=True, slots=True, kw_only=True)
class RunNode:
    """A node of the tree: what it is, how it ended, what it came to, and what is in it, in the order of time.

    `status` is that of a run or a call, None for the rest; `run` has the facts of a run. `sums` are those of all calls below; a
    leaf is a call, or several (`calls`) that are not told one by one.
    """

    kind: NodeKind
    id: str | None
    name: str
    status: str | None = None
    error_type: str | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    duration_ms: float | None = None
    agent_id: str | None = None
    agent_name: str | None = None
    provider: str | None = None
    model: str | None = None
    run: RunFacts | None = None
    sums: RunSums = field(default_factory=RunSums)
    children: tuple[RunNode, ...] = ()

    def leaves(self) -> Iterator[RunNode]:
        """The calls below, or the node itself where it is one."""
        stack = [self]
        while stack:
            node = stack.pop()
            if node.children:
                stack.extend(reversed(node.children))
            else:
                yield node


@answer_type
class RunFacts(TypedDict):
    """A service run as it was recorded."""

    id: str
    parent_run_id: str | None
    organization_id: str | None
    user_id: str | None
    session_id: str | None
    service_type: str
    service_id: str | None
    service_name: str | None
    agent_id: str | None
    workflow_id: str | None
    panel_id: str | None
    panel_size: int | None
    solution_id: str | None
    status: str
    started_at: datetime
    ended_at: datetime | None
    error_type: str | None
    metadata: dict[str, Any]


class RunAround(TypedDict):
    """A run that another one is inside of."""

    id: str
    service_type: str
    service_id: str | None
    service_name: str | None


def total(parts: Iterable[RunSums]) -> RunSums:
    """All of them together, exactly."""
    found = RunSums()
    for part in parts:
        found = found.plus(part)
    return found


def _plus(one: Any, other: Any) -> Any:
    return MONEY.add(one, other) if isinstance(one, Decimal) else one + other
