"""Cases of exact cost: what a provider sends, the tokens and units that it bills, and the cost spelled out as arithmetic."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Context, Decimal
from typing import Any, Final

import pytest

from tests.support.wire_server import Json, WireAnswer, WireRequest, WireServer
from vital_tracking import Settings, VitalTracker
from vital_tracking.testing import MemoryStore

AT: Final = datetime(2026, 11, 15, 12, tzinfo=UTC)
"""When the calls of the corpus began: the prices in force then are those of the arithmetic."""

_EXACT: Final = Context(prec=60)
_PER: Final = {"M": Decimal(10**6), "K": Decimal(10**3)}
_OPERATORS: Final[Mapping[type[ast.operator], Callable[[Decimal, Decimal], Decimal]]] = {
    ast.Add: _EXACT.add,
    ast.Sub: _EXACT.subtract,
    ast.Mult: _EXACT.multiply,
    ast.Div: _EXACT.divide,
}
_TOKENS: Final = (
    "prompt_tokens",
    "completion_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "reasoning_tokens",
    "audio_tokens",
    "audio_output_tokens",
)


def tracker_at(store: MemoryStore) -> VitalTracker:
    """A tracker by whose clock it is that day, so that its prices are in force."""
    tracker = VitalTracker(store, settings=Settings(spool=False))
    now = datetime.now(UTC)
    tracker._recorder.clock.sample(AT, now, now)
    return tracker


@dataclass(frozen=True, kw_only=True)
class Case:
    """One answer of a provider and what it costs.

    `source` is the page of the provider's documentation that the body and the prices follow; `body` what comes over the wire,
    `chunks` the same as a stream (None: made of the body by the dialect; empty: it cannot be streamed). `settings` are the
    model's, `request` the call's own arguments. `invoked` is False where it can only be streamed. `sent` is what comes in
    place of a whole answer, `fails` says that the caller gets an error.

    `cost` and its part `fees` are arithmetic in US dollars, such as `4000*2.50/M + 4*10/K`: M is a million, K a thousand;
    a `cost` of None is a price that nobody knows. `tokens` are the columns that are not 0, `units` what stands in
    `billed_units`, `reported` the provider's own figure, `notes` those that must be there.
    """

    name: str
    source: str
    model: str
    body: Json
    chunks: Sequence[Json] | None = None
    settings: Json = field(default_factory=dict)
    request: Json = field(default_factory=dict)
    invoked: bool = True
    sent: WireAnswer | None = None
    fails: bool = False
    tokens: Mapping[str, int]
    units: Mapping[str, Any] = field(default_factory=dict)
    cost: str | None
    fees: str = "0"
    reported: str | None = None
    notes: tuple[str, ...] = ()
    estimated: bool = False


def usable(cases: Iterable[Case], *, streamed: bool) -> list[Case]:
    """The cases that can be invoked, or streamed."""
    return [case for case in cases if (case.chunks is None or case.chunks if streamed else case.invoked)]


def amount(arithmetic: str) -> Decimal:
    """The exact value of such arithmetic."""
    return _value(ast.parse(arithmetic, mode="eval").body, arithmetic)


def _value(node: ast.expr, text: str) -> Decimal:
    if isinstance(node, ast.BinOp) and (operation := _OPERATORS.get(type(node.op))) is not None:
        return operation(_value(node.left, text), _value(node.right, text))
    if isinstance(node, ast.Name):
        return _PER[node.id]
    return Decimal((ast.get_source_segment(text, node) or "").replace("_", ""))


def row_of(
    case: Case,
    build: Callable[[str, Case], Any],
    answer: Callable[[Case, WireRequest], WireAnswer],
    *,
    streamed: bool,
) -> dict[str, Any]:
    """The row of a call that the real integration makes of a case; `build` makes its model for the server's address."""
    store = MemoryStore()
    with WireServer(lambda request: answer(case, request)) as server:
        tracker = tracker_at(store)
        try:
            model = build(server.url, case)
            config = {"callbacks": [tracker.handler]}
            with pytest.raises(Exception) if case.fails else nullcontext():
                if streamed:
                    for _ in model.stream("Hello", config=config, **case.request):
                        pass
                else:
                    model.invoke("Hello", config=config, **case.request)
            tracker.flush()
        finally:
            tracker.close()
    (row,) = store.calls
    return row


def check(case: Case, row: Mapping[str, Any]) -> None:
    """Hold a row against what a case says of it."""
    found = {name: row[name] for name in _TOKENS if row.get(name)}
    assert found == dict(case.tokens), "tokens"
    units = {name: Decimal(str(value)) for name, value in (row.get("billed_units") or {}).items() if name != "passes"}
    assert units == {name: Decimal(str(value)) for name, value in case.units.items()}, "units"
    assert bool(row.get("usage_estimated")) is case.estimated, "estimated"
    notes = (row.get("metadata") or {}).get("notes", [])
    assert set(case.notes) <= set(notes), "notes"
    if case.cost is None:
        assert not row["priced"], "unpriced"
        return
    assert row["priced"], "priced"
    costs = [Decimal(row[name]) for name in ("input_cost", "output_cost", "fees")]
    assert _sum(costs) == Decimal(row["total_cost"]), "the parts add up"
    assert Decimal(row["total_cost"]) == amount(case.cost), "total"
    assert costs[2] == amount(case.fees), "fees"
    reported = row.get("reported_cost")
    assert (None if reported is None else Decimal(reported)) == (
        None if case.reported is None else amount(case.reported)
    ), "reported"


def _sum(values: Iterable[Decimal]) -> Decimal:
    total = Decimal(0)
    for value in values:
        total = _EXACT.add(total, value)
    return total
