"""What the routes work with, put together once an application and found by each request."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar
from weakref import WeakSet, finalize

import httpx
from anyio import to_thread
from starlette.requests import Request

from vital_tracking.queries.access import Membership, memberships
from vital_tracking.stores.protocol import Store
from vital_tracking.web.audit import Audit
from vital_tracking.web.identity import Identity, Kind, TokenVerifier
from vital_tracking.web.operator import OperatorLink
from vital_tracking.web.rate_limits import RateLimits
from vital_tracking.web.rendering import Rendering
from vital_tracking.web.settings import WebSettings
from vital_tracking.web.supabase_auth import SupabaseAuth

Result = TypeVar("Result")

_LARGEST_KEY_SET: Final = 256 << 10
_KNOWN_S: Final = 60.0
_MOST_KNOWN: Final = 10_000


class Outgoing:
    """The client for what the server itself asks: keys and sign-ins. Opened when needed; no redirects are followed."""

    def __init__(self) -> None:
        self._client: httpx.Client | None = None
        self._inherited: list[object] = []
        self._lock = threading.Lock()

    def client(self) -> httpx.Client:
        """The client, which threads share."""
        with self._lock:
            if self._client is None:
                self._client = httpx.Client(timeout=httpx.Timeout(10.0, connect=5.0), follow_redirects=False)
                # An application that is mounted in another is never told that it ends.
                finalize(self, self._client.close).atexit = False
            return self._client

    def fetch(self, url: str) -> bytes:
        """The body at an address, if it is of a reasonable size."""
        answer = self.client().get(url)
        answer.raise_for_status()
        if len(answer.content) > _LARGEST_KEY_SET:
            raise ValueError("too large")
        return answer.content

    def after_fork(self) -> None:
        """Leave the parent's connections alone."""
        self._lock = threading.Lock()
        self._inherited.append(self._client)
        self._client = None

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()


@dataclass(eq=False)
class Parts:
    """The store, who may ask it how often, and how pages are drawn. `operator` is there where a link of the console counts.

    `channels` are the names of those to which the operator may have reports sent.
    """

    store: Store
    settings: WebSettings
    operator: OperatorLink | None = None
    clock: Callable[[], float] = time.time
    outgoing: Outgoing = field(default_factory=Outgoing)
    channels: Sequence[str] = ()

    def __post_init__(self) -> None:
        _parts_of_this_process.add(self)
        self._members: dict[str, tuple[float, tuple[Membership, ...]]] = {}
        self.tokens = TokenVerifier(self.settings, self.outgoing.fetch, self.clock)
        self.limits = RateLimits(self.settings, self.clock)
        self.audit = Audit(self.store, self.clock)
        self.rendering = Rendering()
        auth = self.settings
        self.auth = (
            SupabaseAuth(auth.supabase_url, auth.anon_key.get_secret_value(), self.outgoing.client, self.clock)
            if auth.signs_in and auth.supabase_url and auth.anon_key
            else None
        )

    async def memberships(self, who: Identity) -> tuple[Membership, ...]:
        """The organizations of a user, asked with the user's own rights; known for a minute.

        For limits, audit and what the menu offers. What may be seen is decided anew by the database with each question.
        """
        if who.kind is not Kind.user or who.subject is None:
            return ()
        now = self.clock()
        known = self._members.get(who.subject)
        if known is None or known[0] < now:
            found = await to_thread.run_sync(self._ask_memberships, who)
            if len(self._members) > _MOST_KNOWN:
                self._members.clear()
            known = self._members[who.subject] = (now + _KNOWN_S, found)
        return known[1]

    def _ask_memberships(self, who: Identity) -> tuple[Membership, ...]:
        return memberships(self.as_user(who))

    async def in_store(self, ask: Callable[[Store], Result]) -> Result:
        """Ask the store with its own rights, in a thread: only for what is nobody's data."""
        return await to_thread.run_sync(ask, self.store.within(self.settings.answer_s))

    def as_user(self, who: Identity) -> Store:
        """The store as a user sees it, with a limit to how long it may take."""
        anon_key = self.settings.anon_key.get_secret_value() if self.settings.anon_key else ""
        return self.store.as_user(
            who.claims, access_token=who.token, anon_key=anon_key, timeout_s=self.settings.answer_s
        )

    async def attach(self, request: Request) -> None:
        """Let a request find the parts: a dependency of all routes, so that they work in anybody's application."""
        request.state.vital = self

    def after_fork(self) -> None:
        """Leave the parent's connections alone, in a server that forks after the application was made."""
        self.outgoing.after_fork()
        self.store.after_fork()

    def close(self, *, with_store: bool) -> None:
        """Close the connections; those of the store where it is ours."""
        self.outgoing.close()
        if with_store:
            self.store.close()


def parts(request: Request) -> Parts:
    """The parts that serve a request."""
    found: Parts = request.state.vital
    return found


_parts_of_this_process: Final[WeakSet[Parts]] = WeakSet()


def _reset_all_after_fork() -> None:
    for one in list(_parts_of_this_process):
        one.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_all_after_fork)
