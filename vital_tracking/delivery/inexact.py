"""Says, once a model, that its cost is not exact, why, and what to do about it. Each row says so itself, in its notes."""

from __future__ import annotations

import logging
from typing import Final

from vital_tracking.core.cost import Cost
from vital_tracking.core.doubts import doubt_about
from vital_tracking.core.record import CallRecord

logger = logging.getLogger("vital_tracking.pricing")

_MOST: Final = 4096


class InexactCosts:
    """Tells of each kind of doubt once a model, by the logger `vital_tracking.pricing`."""

    def __init__(self) -> None:
        self._said: set[tuple[str | None, str | None, str]] = set()

    def look(self, record: CallRecord, cost: Cost | None) -> None:
        """Look at a record and its cost."""
        notes = record.usage.notes if cost is None else (*record.usage.notes, *cost.notes)
        said = any(note.endswith("_hidden") for note in notes)
        # Of embeddings few clients report usage, and there is nothing to set.
        if record.usage.estimated and record.status == "ok" and not said and record.call_type != "embedding":
            notes = ("usage_estimated", *notes)
        for note in notes:
            key = (record.provider, record.model, note)
            if key in self._said or len(self._said) >= _MOST or (doubt := doubt_about(note)) is None:
                continue
            self._said.add(key)
            logger.warning(
                "The cost of calls of model %.80r of provider %.40r is not exact: %s. %s",
                record.model,
                record.provider,
                doubt.why,
                doubt.fix,
            )
