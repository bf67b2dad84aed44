"""Keeps this process and the database up to date: the team's prices, the clock, the database's id, and partitions ahead."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from vital_tracking.core.price import Price
from vital_tracking.core.pricing import PriceBook
from vital_tracking.delivery.clock import DatabaseClock
from vital_tracking.errors import StoreError, StoreNotReady, StoreUnavailable
from vital_tracking.stores.protocol import Store

logger = logging.getLogger("vital_tracking.delivery")

_PRICES_EVERY_S: Final = 300.0
_PARTITIONS_EVERY_S: Final = 86_400.0


class Upkeep:
    """Asks the database for what is due.

    `on_prices` is called when the team's prices were read; `on_database` with the database's id, each time it was asked. Both
    before anything is sent.
    """

    def __init__(
        self,
        store: Store,
        prices: PriceBook,
        clock: DatabaseClock,
        fault: Callable[[BaseException], None],
        *,
        on_prices: Callable[[], None] = lambda: None,
        on_database: Callable[[str], None] = lambda _database_id: None,
    ) -> None:
        self._store = store
        self._prices = prices
        self._clock = clock
        self._fault = fault
        self._on_prices = on_prices
        self._on_database = on_database
        self._prices_due = 0.0
        self._partitions_due = 0.0

    def refresh(self) -> None:
        """Take id, prices and time from the database where they are due: before the first batch, and every five minutes.

        Raises StoreUnavailable or StoreNotReady: without the team's prices, rows would be priced wrongly.
        """
        now = time.monotonic()
        if now >= self._prices_due:
            try:
                before = self._clock.read()
                answer = self._store.call("database_time_v1")
                self._clock.told(datetime.fromisoformat(answer), before)
                self._prices.set_team_prices(team_prices(self._store.call("model_prices_v1")))
                self._on_prices()
                self._identify()
            except (StoreUnavailable, StoreNotReady):
                raise
            except Exception as error:  # noqa: BLE001 - an unforeseen answer must not stop delivery
                self._fault(error)
            self._prices_due = now + _PRICES_EVERY_S

    def _identify(self) -> None:
        """Ask the database for its id; one that lacks the migration has none."""
        with contextlib.suppress(StoreNotReady):
            answer = self._store.call("database_id_v1")
            if isinstance(answer, str):
                self._on_database(str(UUID(answer)))

    def keep_partitions(self) -> None:
        """Have the database make the coming months' partitions: after the first batch, and once a day."""
        if time.monotonic() >= self._partitions_due:
            self._partitions_due = time.monotonic() + _PARTITIONS_EVERY_S
            try:
                self._store.call("maintain_partitions_v1")
            except StoreError:
                pass  # an older database has no such function, and where the store has gone a later process tries again
            except Exception as error:  # noqa: BLE001 - what was sent is stored
                self._fault(error)


def team_prices(rows: Any) -> list[Price]:
    """Prices from the JSON of `model_prices_v1`, oldest first; an entry that cannot be read is left out and logged."""
    prices: list[Price] = []
    for row in reversed(rows or []):
        try:
            prices.append(Price.from_row(row))
        except (ValueError, KeyError, TypeError) as error:
            logger.warning("Entry %s of model_prices cannot be used (%s).", row.get("id"), type(error).__name__)
    return prices
