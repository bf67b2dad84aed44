"""Helpers for your own tests: a store in memory and a fake model that reports usage.

```python
from vital_tracking import VitalTracker
from vital_tracking.testing import MemoryStore, fake_chat_model

store = MemoryStore()
tracker = VitalTracker(store)
fake_chat_model().invoke("Hello", config={"callbacks": [tracker.handler]})
tracker.flush()
assert store.calls[0]["total_tokens"] == 120
```
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from vital_tracking.errors import StoreNotReady
from vital_tracking.stores.protocol import ANSWER_S, Row, Store
from vital_tracking.stores.relations import Relation, Values

if TYPE_CHECKING:
    from vital_tracking.langchain.fake import FakeUsageModel


class MemoryStore:
    """Keeps the rows that would have been sent: `calls` and `runs`, as dictionaries with the columns' names.

    As the database does, it takes each id once, but for the true end of a call given up before; checks, views and sums are
    the database's.
    """

    description = identity = "memory"
    in_memory = True

    def __init__(self) -> None:
        self.calls: list[Row] = []
        self.runs: list[Row] = []

    def call(self, function: str, /, **arguments: object) -> Any:
        """The recording functions; no own prices and no budgets; StoreNotReady for anything else."""
        if function == "model_prices_v1":
            return []
        if function == "database_time_v1":
            return datetime.now(UTC).isoformat()
        if function == "budgets_v1":
            return {"version": "", "budgets": []}
        if function == "renew_grants_v1":
            return {"version": "", "grants": {}}
        if function == "record_calls_v1":
            return _add(self.calls, json.loads(str(arguments["calls"])))
        if function == "record_runs_v1":
            return _add(self.runs, json.loads(str(arguments["runs"])), replace=True)
        raise StoreNotReady(f"MemoryStore has no function {function}; use a real database for it.")

    def read(
        self,
        relation: str,
        *,
        columns: Sequence[str],
        equals: Mapping[str, object] | None = None,
        since: datetime | None = None,
        limit: int = 100,
    ) -> list[Row]:
        """Views need a database."""
        raise StoreNotReady(f"MemoryStore has no view {relation}; look at .calls and .runs.")

    def stream(
        self,
        relation: Relation,
        *,
        equals: Mapping[str, object] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        batch: int = 5_000,
    ) -> Iterator[list[Values]]:
        """Relations need a database."""
        raise StoreNotReady(f"MemoryStore has no relation {relation.name}; look at .calls and .runs.")

    def breakdown(self, by: str, *, since: datetime | None = None, organization: str | None = None) -> list[Row]:
        """Sums need a database."""
        raise StoreNotReady("MemoryStore sums nothing up; look at .calls and .runs.")

    def as_user(
        self, claims: Mapping[str, object], *, access_token: str = "", anon_key: str = "", timeout_s: float = ANSWER_S
    ) -> Store:
        """Row level security needs a database."""
        raise StoreNotReady("MemoryStore knows no users; use a real database for them.")

    def within(self, timeout_s: float) -> Store:
        """Nothing here takes long."""
        return self

    def after_fork(self) -> None:
        """Nothing is shared with the parent but a copy of its memory."""

    def close(self) -> None:
        """Nothing to close."""


_: type[Store] = MemoryStore  # so that the type checker holds it against the protocol

_GIVEN_UP = ("abandoned", "cancelled")


def _add(kept: list[Row], rows: list[Row], *, replace: bool = False) -> Row:
    known = {row["id"]: position for position, row in enumerate(kept)}
    inserted = 0
    for row in rows:
        replaces = row.pop("replaces_abandoned", False)
        if row["id"] not in known:
            known[row["id"]] = len(kept)
            kept.append(row)
            inserted += 1
        elif replace or (replaces and kept[known[row["id"]]]["status"] in _GIVEN_UP):
            kept[known[row["id"]]] |= row
            inserted += 1
    return {"inserted": inserted, "duplicate": len(rows) - inserted, "rejected": []}


def fake_chat_model(
    *,
    replies: Sequence[str] = ("Hello there.",),
    model: str = "gpt-4o-mini",
    provider: str = "openai",
    input_tokens: int = 100,
    output_tokens: int = 20,
    cache_read_tokens: int = 0,
    reasoning_tokens: int = 0,
) -> FakeUsageModel:
    """A chat model that answers `replies` in turn and reports the given usage; it makes no request."""
    from vital_tracking.langchain.fake import FakeUsageModel

    return FakeUsageModel(
        responses=list(replies),
        model=model,
        provider=provider,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cache_read_tokens=cache_read_tokens,
        reasoning_tokens=reasoning_tokens,
    )
