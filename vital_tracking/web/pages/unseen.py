"""How many alerts are new since a browser looked at them, which it remembers by the id of the newest one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from starlette.requests import Request

from vital_tracking.queries.alerts import recent_alerts
from vital_tracking.stores.protocol import Store
from vital_tracking.web.cookies import read_cookie

ALERTS_SEEN: Final = "vital_alerts_seen"
_MOST: Final = 100
_LONGEST_ID: Final = 19


def newest_seen(request: Request) -> int:
    """The id of the newest alert that was shown; 0 where none was."""
    text = read_cookie(request, ALERTS_SEEN)
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= _LONGEST_ID else 0


def unseen(request: Request, store: Store) -> str:
    """How many alerts of the last 30 days are new, as the navigation says it; empty for none."""
    seen = newest_seen(request)
    found = recent_alerts(store, since=datetime.now(UTC) - timedelta(days=30), limit=_MOST)
    new = sum(row["id"] > seen for row in found)
    return f"{_MOST - 1}+" if new == _MOST else str(new or "")
