"""Budgets for the examples: set when one begins, removed when it ends.

In earnest budgets are set once, by an admin: `vital-tracking budgets set`, or SQL. See docs/budgets.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from vital_tracking import VitalTracker


@contextmanager
def budgets(tracker: VitalTracker, *wanted: dict[str, Any]) -> Iterator[None]:
    """Set budgets, columns of `budget_limits` each, for the time of a `with` block."""
    with ExitStack() as stack:
        for columns in wanted:
            stored = tracker.store.call("set_budget_v1", budget=json.dumps(columns))
            stack.callback(tracker.store.call, "remove_budget_v1", budget_id=stored["id"])
        yield
