"""Lines of the audit for what the database itself cannot see: that somebody reads other people's data, or was refused.

What changes something is written down by the database's own triggers, under the name of whoever did it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from anyio import to_thread

from vital_tracking.queries.access import note_access
from vital_tracking.stores.protocol import Store
from vital_tracking.web.identity import Identity

_ONCE_IN_S: Final = 3600.0
"""A page that refreshes itself every minute is one reading an hour."""
_MOST_KNOWN: Final = 10_000

Line = tuple[str, str, str | None, str | None, str | None]


class Audit:
    """Writes lines with the store's own rights, which no user has; the same line once an hour."""

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._written: dict[Line, float] = {}

    async def write(
        self, operation: Any, what: str, who: Identity, organization: str | None = None, user: str | None = None
    ) -> None:
        """Write a line, if it was not written lately. Errors are the store's: without its line nothing is read."""
        now = self._clock()
        line = (operation, what, who.subject, organization, user)
        if self._written.get(line, 0.0) > now:
            return
        await to_thread.run_sync(
            lambda: note_access(self._store, operation, what, actor=who.subject, organization=organization, user=user)
        )
        if len(self._written) >= _MOST_KNOWN:
            self._written.clear()
        self._written[line] = now + _ONCE_IN_S
