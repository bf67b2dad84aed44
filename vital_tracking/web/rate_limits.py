"""How often somebody may ask: counted in memory, or in Redis where several processes serve together."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from anyio import to_thread
from limits.errors import StorageError
from limits.limits import RateLimitItem, RateLimitItemPerHour, RateLimitItemPerMinute
from limits.storage import MemoryStorage, Storage, storage_from_string
from limits.strategies import MovingWindowRateLimiter

from vital_tracking.errors import SettingsError
from vital_tracking.web.problems import Problem
from vital_tracking.web.settings import WebSettings

_log = logging.getLogger("vital_tracking")

_FAILED_SIGN_INS: Final = RateLimitItemPerHour(10, multiples=1, namespace="vital-failed")
_PATIENCE: Final[dict[str, Any]] = {"socket_timeout": 1.0, "socket_connect_timeout": 1.0}
"""How long, in seconds, a request waits to be counted. A Redis that hangs must not hang the pages."""

_FAILED_FROM_ONE_PLACE: Final = RateLimitItemPerHour(200, multiples=1, namespace="vital-failed-from")


_REFRESHES: Final = 10
_YOU: Final = "You ask too often"
_YOUR_ORGANIZATION: Final = "Your organization asks too often"


@dataclass(frozen=True, slots=True)
class RateAsker:
    """Whose requests are counted: a user's, and those of the user's organizations."""

    user: str
    organizations: Sequence[str]


class RateLimits:
    """Requests of users and organizations in a moving minute, and failed sign-ins in a moving hour.

    Past the limit of a minute a user has `burst_requests` more in ten minutes, so that a page with many parts does not stop
    half-way. Open pages that only ask whether they are still right have limits of their own, ten times as high. Where Redis
    cannot be reached nobody is stopped, and that is logged.
    """

    def __init__(self, settings: WebSettings, clock: Callable[[], float] = time.time) -> None:
        self._storage = _storage(settings)
        self._in_memory = isinstance(self._storage, MemoryStorage)
        self._limiter = MovingWindowRateLimiter(self._storage)
        self._clock = clock
        self._user = RateLimitItemPerMinute(settings.user_requests, namespace="vital-user")
        self._burst = RateLimitItemPerMinute(settings.burst_requests, multiples=10, namespace="vital-burst")
        self._organization = RateLimitItemPerMinute(settings.organization_requests, namespace="vital-organization")
        self._refreshes = tuple(
            RateLimitItemPerMinute(_REFRESHES * amount, namespace=f"vital-refreshes-of-{whose}")
            for whose, amount in (("user", settings.user_requests), ("organization", settings.organization_requests))
        )

    async def count(self, asker: RateAsker) -> None:
        """Count a user's request; Problem 429 where the user or an organization of theirs has asked too often."""
        await self._do(lambda: self._count(asker))

    async def count_refresh(self, asker: RateAsker) -> None:
        """Count a page that asks whether it is still right; Problem 429 where far too many do."""
        await self._do(lambda: self._count_refresh(asker))

    def count_at_once(self, asker: RateAsker) -> None:
        """Count a request as `count` does, in a thread of its own."""
        with self._without_redis():
            self._count(asker)

    async def check_sign_in(self, name: str, place: str) -> None:
        """Problem 429 where too many sign-ins have failed, for a name from a place, or from that place for any name."""
        limits = ((_FAILED_SIGN_INS, _hashed(place, name)), (_FAILED_FROM_ONE_PLACE, _hashed(place)))

        def check() -> None:
            for limit, key in limits:
                if not self._limiter.test(limit, key):
                    raise self._too_many(limit, key, "Too many sign-ins have failed")

        await self._do(check)

    async def sign_in_failed(self, name: str, place: str) -> None:
        """Count a sign-in that failed."""

        def count() -> None:
            self._limiter.hit(_FAILED_SIGN_INS, _hashed(place, name))
            self._limiter.hit(_FAILED_FROM_ONE_PLACE, _hashed(place))

        await self._do(count)

    def _count(self, asker: RateAsker) -> None:
        user = _hashed(asker.user)
        if not self._limiter.hit(self._user, user) and not self._limiter.hit(self._burst, user):
            raise self._too_many(self._user, user, _YOU)
        for organization in map(_hashed, asker.organizations):
            if not self._limiter.hit(self._organization, organization):
                raise self._too_many(self._organization, organization, _YOUR_ORGANIZATION)

    def _count_refresh(self, asker: RateAsker) -> None:
        of_user, of_organization = self._refreshes
        for limit, whose, title in (
            (of_user, asker.user, _YOU),
            *((of_organization, one, _YOUR_ORGANIZATION) for one in asker.organizations),
        ):
            if not self._limiter.hit(limit, _hashed(whose)):
                raise self._too_many(limit, _hashed(whose), title)

    def _too_many(self, limit: RateLimitItem, key: str, title: str) -> Problem:
        reset = self._limiter.get_window_stats(limit, key).reset_time
        wait = max(1, math.ceil(reset - self._clock()))
        return Problem(
            429,
            "too-many-requests",
            title,
            detail=f"{limit.amount} are let through in {_span(limit.get_expiry())}.",
            hint=f"Try again in {wait} s.",
            headers={"Retry-After": str(wait)},
        )

    async def _do(self, work: Callable[[], None]) -> None:
        with self._without_redis():
            if self._in_memory:
                work()
            else:
                await to_thread.run_sync(work)

    @contextlib.contextmanager
    def _without_redis(self) -> Iterator[None]:
        try:
            yield
        except StorageError as error:
            _log.warning("Requests are not counted, because Redis does not answer: %s", type(error).__name__)


def _span(seconds: int) -> str:
    return {60: "a minute", 3600: "an hour"}.get(seconds, f"{seconds} s")


def _storage(settings: WebSettings) -> Storage:
    url = settings.redis_url
    if url is None:
        return MemoryStorage()
    if importlib.util.find_spec("redis") is None:
        _log.warning("REDIS_URL is set, but redis is not installed: each process counts requests by itself")
        return MemoryStorage()
    try:
        storage = storage_from_string(url.get_secret_value(), wrap_exceptions=True, **_PATIENCE)
    except Exception:  # noqa: BLE001 - the library's error holds the URL, and with it the password
        storage = None
    if not isinstance(storage, Storage) or isinstance(storage, MemoryStorage):
        raise SettingsError(
            "REDIS_URL", "cannot be used", "It looks like redis://:password@host:6379/0 or rediss://..."
        )
    return storage


def _hashed(*parts: str) -> str:
    """What is counted, in a form that tells nobody who it is."""
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()
