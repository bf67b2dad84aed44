"""Says, once a model, that its cost is not exact, why, and what to do about it. Each row says so itself, in its notes."""

from __future__ import annotations

import logging
from typing import Final

from vital_tracking.core.cost import Cost
from vital_tracking.core.record import CallRecord

logger = logging.getLogger("vital_tracking.pricing")

_WHY: Final = {
    "usage_estimated": "reported no usage, so tokens are estimated.",
    "stream_estimated": (
        "was streamed without usage, so tokens are estimated. Streams of ChatOpenAI with a base_url or a client of your own "
        "carry usage where you set stream_usage=True."
    ),
    "modality_hidden": "has a modality in it that its integration does not count; the cost takes it for text.",
    "modality_unpriced": "has a modality that no price is known for; it is priced as text. Set one: vital-tracking prices set.",
    "unit_unpriced": "is billed for a unit that no price is known for. Set one: vital-tracking prices set --unit.",
    "unit_unknown": "reports a unit that is not known. Set a price: vital-tracking prices set --unit.",
    "passes_hidden": "took a pass more, whose tokens a stream does not report; invoke it to have them counted.",
    "cache_ttl_hidden": "wrote to a cache for five minutes and an hour, which a stream does not tell apart; invoke it for that.",
    "cache_hidden": "may have read from a cache, which its integration leaves out of a stream; invoke it to have that counted.",
    "billed_units_hidden": "is billed for less than the tokens that its integration hands on; stream it to have them exactly.",
    "tier_unpriced": "was processed in a tier that no price is known for; it is priced at the standard one.",
    "total_unexplained": "reports a total that its parts do not add up to.",
}
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
            notes = ("usage_estimated" if record.ttft_ms is None else "stream_estimated", *notes)
        for note in notes:
            kind, _, unit = note.partition(":")
            key = (record.provider, record.model, note)
            if kind in _WHY and key not in self._said and len(self._said) < _MOST:
                self._said.add(key)
                logger.warning(
                    "The cost of model %.80r of provider %.40r is not exact: it %s%s",
                    record.model,
                    record.provider,
                    _WHY[kind],
                    f" ({unit})" if unit else "",
                )
