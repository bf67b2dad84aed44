"""What is kept of other costs for which there is room neither on disk nor in memory: their money and quantities, exactly.

Costs of the same owner, kind, resource and price become one row in each quarter of an hour, which says how many they were.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import orjson
from uuid_utils import uuid7

from vital_tracking.core.cost import MONEY
from vital_tracking.core.sanitize import money
from vital_tracking.delivery.platform_record import PlatformRecord
from vital_tracking.spool.log_record import RecordKind

_ALIKE: Final = ("organization_id", "user_id", "cost_type", "service", "resource", "unit", "unit_price")
_TOLD_APART: Final = (
    (("organization_id", "cost_type", "unit", "unit_price"), 2_000),
    (("cost_type", "unit", "unit_price"), 3_000),
)
_QUARTER_S: Final = 900


class MergedCosts:
    """The sums of costs that could not be kept one by one. Bounded: past two thousand only organizations and kinds are told
    apart, past three thousand kinds alone. Safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._sums: dict[tuple[Any, ...], dict[str, Any]] = {}

    def __len__(self) -> int:
        return len(self._sums)

    def add(self, record: PlatformRecord) -> None:
        """Add a cost."""
        row = orjson.loads(record.payload)
        moment = datetime.fromisoformat(row["occurred_at"])
        with self._lock:
            names = _ALIKE
            for fewer, most in _TOLD_APART:
                if len(self._sums) >= most:
                    names = fewer
            # A cost that was given as a whole adds up with others that were; one that the database prices, with those alone.
            key = (*(row.get(name) for name in names), "cost_usd" in row, moment.timestamp() // _QUARTER_S)
            total = self._sums.get(key)
            if total is None:
                same = {name: row[name] for name in names if name in row}
                total = self._sums[key] = {**same, "occurred_at": row["occurred_at"], "costs": 0}
            total["costs"] += row.get("metadata", {}).get("costs", 1)
            for name in ("quantity", "cost_usd"):
                if name in row:
                    total[name] = MONEY.add(total.get(name, Decimal(0)), Decimal(row[name]))

    def drain(self) -> Iterator[PlatformRecord]:
        """The sums as costs; nothing is left here."""
        with self._lock:
            sums, self._sums = self._sums, {}
        for total in sums.values():
            key = uuid7()
            amounts = {name: money(total[name]) for name in ("quantity", "cost_usd") if name in total}
            metadata = {"costs": total.pop("costs"), "notes": ["merged"]}
            row = {**total, **amounts, "id": str(key), "metadata": metadata}
            yield PlatformRecord(RecordKind.COST, key.bytes, orjson.dumps(row))
