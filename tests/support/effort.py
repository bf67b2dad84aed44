"""How much the tests try: `VITAL_LONG_TESTS=1` asks for all of it, otherwise for what a developer waits for."""

from __future__ import annotations

import os
from typing import Final

LONG: Final = os.environ.get("VITAL_LONG_TESTS") == "1"


def examples(most: int) -> int:
    """How many examples a property is tried with: all of them, or a half."""
    return most if LONG else most // 2
