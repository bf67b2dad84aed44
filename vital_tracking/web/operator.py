"""The operator who started the dashboard on this machine: lets himself in by a link that works once, as Jupyter's does."""

from __future__ import annotations

import hmac
import secrets
import threading


class OperatorLink:
    """A token that opens one session, and the secret of that session, which lives in this process's memory alone."""

    def __init__(self) -> None:
        self.token = secrets.token_urlsafe(32)
        self._session = secrets.token_urlsafe(32)
        self._used = False
        self._lock = threading.Lock()

    def open(self, token: str) -> str | None:
        """The secret of the session, once; None for any other token, and for the right one from then on."""
        right = hmac.compare_digest(token.encode(), self.token.encode())
        with self._lock:
            if not right or self._used:
                return None
            self._used = True
        return self._session

    def knows(self, session: str) -> bool:
        """Whether a browser has the secret of the session."""
        return self._used and hmac.compare_digest(session.encode(), self._session.encode())

    def end(self) -> None:
        """End the session: the browser's secret is worth nothing from then on."""
        self._session = secrets.token_urlsafe(32)
