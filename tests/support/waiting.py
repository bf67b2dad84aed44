"""Waiting for what tells nobody that it has happened."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def until(condition: Callable[[], Any], timeout: float = 60.0) -> Any:
    """Wait for something that only looking can tell, such as the state of another process; its first true value."""
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.005)
    return found
