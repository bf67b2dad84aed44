"""Calls whose answer never reaches the caller: refused, broken off, or paid and then of no use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from decimal import Decimal
from typing import Any

from tests.integration.providers.corpus import Case, amount, row_of
from tests.support.wire_server import WireAnswer


class _Suppressed:
    """A model whose errors do not matter: what counts is the row that they leave behind."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def invoke(self, *arguments: Any, **more: Any) -> None:
        with suppress(Exception):
            self._model.invoke(*arguments, **more)

    def stream(self, *arguments: Any, **more: Any) -> list[Any]:
        chunks = []
        with suppress(Exception):
            for chunk in self._model.stream(*arguments, **more):
                chunks.append(chunk)  # noqa: PERF402 - what came before the error counts
        return chunks


def failed_row(
    case: Case, build: Callable[[str, Case], Any], answer: WireAnswer, *, streamed: bool = False
) -> dict[str, Any]:
    """The row of a call that gets this answer, whatever its integration makes of that."""
    return row_of(case, lambda url, asked: _Suppressed(build(url, asked)), lambda *_: answer, streamed=streamed)


def check_not_billed(row: Mapping[str, Any]) -> None:
    """The provider refused the call: nothing was used, and nothing is owed."""
    assert row["status"] == "error", "status"
    assert _counts(row) == (0, 0), "tokens"
    assert row["priced"], "priced"
    assert Decimal(row["total_cost"]) == 0, "total"
    assert not row.get("usage_estimated"), "estimated"


def check_estimate(row: Mapping[str, Any], prompt: int, completion: int, cost: str | None) -> None:
    """What was said, thoughts among it, is counted by its size, priced, and flagged."""
    assert (*_counts(row), bool(row.get("usage_estimated"))) == (prompt, completion, True), "tokens, estimated"
    assert row["priced"] is (cost is not None), "priced"
    if cost is not None:
        assert Decimal(row["total_cost"]) == amount(cost), "total"


def check_never_free(row: Mapping[str, Any], prompt: int, completion: int) -> None:
    """A paid answer that the client could not use is counted, exactly where its usage can be reached, else by an estimate."""
    assert _counts(row) == (prompt, completion) or row.get("usage_estimated"), "counted or flagged"
    assert not row["priced"] or Decimal(row["total_cost"]) > 0, "free"


def _counts(row: Mapping[str, Any]) -> tuple[int, int]:
    return row.get("prompt_tokens", 0), row.get("completion_tokens", 0)
