"""What the tests of admission share: budgets, the audit of all sums, and stores that are watched or slow."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from tests.integration.helpers import Rows
from vital_tracking import VitalTracker
from vital_tracking.core.admission import Request
from vital_tracking.core.context import CallContext
from vital_tracking.stores.postgres import PostgresStore

# A call whose cost is known beforehand: the hold is the cost.
CALL: dict[str, Any] = {"provider": "openai", "model": "gpt-4o-mini", "prompt_tokens": 100, "max_tokens": 20}
USAGE: dict[str, Any] = {"prompt_tokens": 100, "completion_tokens": 20}
COST = Decimal("0.000027")  # 100 at $0.15 and 20 at $0.60 a million


def set_budget(store: PostgresStore, **columns: Any) -> dict[str, Any]:
    """Make or change a budget; by default one of every user, in calls, that blocks."""
    budget = {"entity_type": "user", "entity_id": "*", "metric": "calls", "action": "block", "timezone": noon_zone()}
    stored = store.call("set_budget_v1", budget=json.dumps(budget | columns))
    return dict(stored)


def noon_zone() -> str:
    """A time zone in which it is about noon now, so that no day or month ends while a test runs."""
    ahead = 12 - datetime.now(UTC).hour
    return f"Etc/GMT{'-' if ahead >= 0 else '+'}{abs(ahead)}"


def check_sums(store: PostgresStore) -> None:
    """Every window's spent is the sum of its calls, its granted that of its grants, and none is over its limit."""
    found = store.call("audit_budgets_v1")
    assert (found["differences"], found["overshoot"]) == ([], [])


def granted(rows: Rows) -> Decimal:
    """What is set aside in all windows."""
    return Decimal(rows("select coalesce(sum(granted), 0) as granted from budget_windows")[0]["granted"])


def request_for(user: str | None = "u-1", **changes: Any) -> Request:
    """A request of CALL's model and size."""
    return Request(CallContext(user_id=user), "openai", "gpt-4o-mini", prompt_tokens=100, max_tokens=20, **changes)


def until(condition: Callable[[], Any], timeout: float = 10.0) -> Any:
    """Wait for something that only looking can tell, such as the state of another process; its first true value."""
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.005)
    return found


def knows_its_budgets(tracker: VitalTracker) -> VitalTracker:
    """The tracker, once it has read the budgets."""
    tracker.controller.start()
    until(lambda: tracker.controller.policy is not None)
    return tracker


class WatchedStore(PostgresStore):
    """Counts calls of functions; `hold` makes those that follow wait for `go`, `fail` has them fail."""

    def __init__(self, conninfo: str) -> None:
        super().__init__(conninfo)
        self.asks: list[list[dict[str, Any]]] = []  # of each round trip for grants
        self.called: list[str] = []
        self.go = threading.Event()
        self.go.set()
        self.waiting = threading.Semaphore(0)

    def call(self, function: str, /, **arguments: Any) -> Any:
        self.called.append(function)
        if function == "acquire_grants_v1":
            self.asks.append(json.loads(arguments["asks"]))
        if not self.go.is_set():
            self.waiting.release()
            self.go.wait(30)
        return super().call(function, **arguments)

    @property
    def misses(self) -> list[list[dict[str, Any]]]:
        """Round trips that somebody waited for."""
        return [asks for asks in self.asks if not all(ask["ahead"] for ask in asks)]
