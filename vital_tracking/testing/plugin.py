"""What pytest knows by itself where this package is installed: see `docs/testing.md`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from vital_tracking.testing import MemoryStore
    from vital_tracking.tracker import VitalTracker

# Nothing of the package is imported before a test asks for it: pytest loads this for whoever has it installed.


@pytest.fixture
def vital_store() -> MemoryStore:
    """A store in memory, empty: `calls`, `runs`, `set_budget(...)` and `breakdown(...)`."""
    from vital_tracking.testing import MemoryStore

    return MemoryStore()


@pytest.fixture
def vital_tracker(vital_store: MemoryStore) -> Iterator[VitalTracker]:
    """A tracker that writes to `vital_store`, when it is told to: `vital_tracker.flush()`."""
    from vital_tracking.settings import Settings
    from vital_tracking.tracker import VitalTracker

    with VitalTracker(vital_store, settings=Settings(background=False)) as tracker:
        yield tracker
