"""STUB to be written when the engine is there."""

from __future__ import annotations

from vital_tracking.queries.recommendations import SavedRecommendation
from vital_tracking.stores import Store


def measure_due(store: Store, writer: Store, *, organization: str | None = None) -> list[SavedRecommendation]:
    """..."""
    del store, writer, organization
    return []
