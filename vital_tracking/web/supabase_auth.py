"""Supabase Auth (GoTrue): a password or a refresh token for tokens, asked by the server, so that no script holds them."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
from anyio import to_thread

from vital_tracking.web.problems import Problem

_log = logging.getLogger("vital_tracking")

_SHARED_S: Final = 10.0
"""How long requests that come together share one refresh: a refresh token works once, and a browser sends several at a time."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """What somebody who has signed in holds. `expires_in` is the access token's life in seconds."""

    access: str = field(repr=False)
    refresh: str = field(repr=False)
    expires_in: int


class SignInFailed(Exception):
    """Unknown user, wrong password, or a refresh token that is no good any more: which of them nobody is told."""


class SupabaseAuth:
    """A project's Auth with its publishable key. All methods are safe to use from many requests at once."""

    def __init__(self, url: str, anon_key: str, client: Callable[[], httpx.Client], clock: Callable[[], float]) -> None:
        self._url = f"{url}/auth/v1"
        self._anon_key = anon_key
        self._client = client
        self._clock = clock
        self._lock = threading.Lock()
        self._refreshed: dict[bytes, _Refresh] = {}

    async def sign_in(self, email: str, password: str) -> Tokens:
        """Tokens for a password; SignInFailed for any reason that is the user's."""
        return await to_thread.run_sync(self._tokens, "password", {"email": email, "password": password})

    async def refresh(self, refresh_token: str) -> Tokens:
        """New tokens for a refresh token; requests with the same one share them for a while."""
        return await to_thread.run_sync(self._refresh_once, refresh_token)

    async def sign_out(self, access_token: str) -> None:
        """End the session there, too. Where that fails the browser forgets it all the same."""

        def post() -> None:
            headers = {"apikey": self._anon_key, "Authorization": f"Bearer {access_token}"}
            try:
                self._client().post(f"{self._url}/logout", params={"scope": "local"}, headers=headers)
            except httpx.HTTPError as error:
                _log.warning("A session was not ended at Supabase Auth: %s", type(error).__name__)

        await to_thread.run_sync(post)

    def _refresh_once(self, refresh_token: str) -> Tokens:
        digest = hashlib.sha256(refresh_token.encode()).digest()
        now = self._clock()
        with self._lock:
            for known in [one for one, shared in self._refreshed.items() if shared.until < now]:
                del self._refreshed[known]
            shared = self._refreshed.setdefault(digest, _Refresh(now + _SHARED_S))
        with shared.lock:
            if shared.tokens is None and not shared.failed:
                try:
                    shared.tokens = self._tokens("refresh_token", {"refresh_token": refresh_token})
                except SignInFailed:
                    shared.failed = True
        if shared.tokens is None:
            raise SignInFailed
        return shared.tokens

    def _tokens(self, grant: str, given: dict[str, str]) -> Tokens:
        try:
            answer = self._client().post(
                f"{self._url}/token", params={"grant_type": grant}, json=given, headers={"apikey": self._anon_key}
            )
        except httpx.HTTPError as error:
            raise _unavailable(type(error).__name__) from None
        if answer.status_code == 429:
            raise Problem(
                429,
                "too-many-requests",
                "Supabase Auth has had too many sign-ins",
                hint="Try again in a minute.",
                headers={"Retry-After": "60"},
            )
        if answer.status_code in (400, 401, 403, 404, 422):
            raise SignInFailed
        try:
            return _read(answer.raise_for_status().json())
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            raise _unavailable(f"status {answer.status_code}") from None


@dataclass
class _Refresh:
    until: float
    tokens: Tokens | None = None
    failed: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)


def _read(answer: Any) -> Tokens:
    access, refresh = answer["access_token"], answer["refresh_token"]
    if not (isinstance(access, str) and isinstance(refresh, str)):
        raise TypeError
    return Tokens(access, refresh, int(answer.get("expires_in", 3600)))


def _unavailable(why: str) -> Problem:
    _log.warning("Supabase Auth cannot be asked: %s", why)
    return Problem(
        503,
        "sign-in-unavailable",
        "Nobody can sign in at the moment",
        detail="Supabase Auth does not answer as it should.",
        hint="Try again soon.",
        headers={"Retry-After": "10"},
    )
