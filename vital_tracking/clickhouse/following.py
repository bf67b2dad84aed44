"""Keeps a copy up to date until it is told to stop, whatever is away meanwhile."""

from __future__ import annotations

import logging
import time
from typing import Final

from vital_tracking.clickhouse.copying import Copying
from vital_tracking.errors import CopyUnavailable, StoreUnavailable

_LONGEST_WAIT_S: Final = 60.0

logger = logging.getLogger("vital_tracking")


def follow(copying: Copying, *, every_s: float = 5.0) -> int:
    """Bring the copy up to date every so many seconds; how many rows were sent in all.

    Where PostgreSQL or ClickHouse is away, it is tried again, ever more rarely, up to once a minute; that is logged once, and so
    is the end of it. Raises other errors.
    """
    sent, failures, wait = 0, 0, 0.0
    while not copying.stopping():
        began = time.monotonic()
        try:
            if not copying.begun:
                copying.begin()
            sent += copying.bring_up_to_date()
        except (CopyUnavailable, StoreUnavailable) as error:
            failures += 1
            if failures == 1:
                logger.warning("%s The copy waits and goes on by itself.", error)
            wait = min(_LONGEST_WAIT_S, max(every_s, 1.0) * 2 ** min(failures, 6))
        else:
            if failures:
                logger.warning("The copy goes on.")
            failures, wait = 0, every_s - (time.monotonic() - began)
        copying.pause(wait)
    return sent
