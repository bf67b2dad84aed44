"""What unit tests share: a tracker whose rows stay in memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from vital_tracking import Settings, VitalTracker
from vital_tracking.testing import MemoryStore


@pytest.fixture
def memory() -> MemoryStore:
    """Where the rows of `quick` go."""
    return MemoryStore()


@pytest.fixture
def quick(memory: MemoryStore) -> Iterator[VitalTracker]:
    """A tracker that needs no database, and sends when it is told to."""
    tracker = VitalTracker(memory, settings=Settings(flush_interval_s=60))
    yield tracker
    tracker.close()
