"""A machine's clock that somebody sets, as far as Python can tell. To be installed before anything else is imported."""

from __future__ import annotations

import datetime
import time
from typing import Any

_true_time, _TrueDatetime = time.time, datetime.datetime
_off_s = 0.0


class _Datetime(datetime.datetime):
    __slots__ = ()

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> Any:
        return _TrueDatetime.now(tz) + datetime.timedelta(seconds=_off_s)


def install() -> None:
    """From now on the clock of this process is one that `step` sets."""
    time.time = lambda: _true_time() + _off_s
    datetime.datetime = _Datetime  # type: ignore[misc]


def step(seconds: float) -> None:
    """Set the clock to so many seconds from the true time."""
    global _off_s  # noqa: PLW0603 - there is one clock
    _off_s = seconds
