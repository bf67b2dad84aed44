"""The public keys of whoever signs tokens: fetched when needed, each bound to the one algorithm that it is for."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Final

import jwt
from anyio import to_thread

ALGORITHMS: Final = ("ES256", "RS256")

_FOR: Final = {("EC", "P-256"): "ES256", ("RSA", ""): "RS256"}

_AGAIN_S: Final = 60.0
"""An unknown key is looked for at most so often: whoever makes up key ids must not make us ask."""
_AFTER_FAILURE_S: Final = 10.0
_FRESH_S: Final = 600.0
"""After that the keys are fetched anew, since one may have been withdrawn."""
_SHORTEST_RSA: Final = 2048
_MOST_KEYS: Final = 64

_log = logging.getLogger("vital_tracking")

Fetch = Callable[[str], bytes]


class KeysUnavailable(Exception):
    """The issuer's keys cannot be fetched, and none are known."""


class KeySet:
    """The keys at an address (RFC 7517). `fetch` gets it, `clock` counts seconds."""

    def __init__(self, url: str, fetch: Fetch, clock: Callable[[], float] = time.monotonic) -> None:
        self._url = url
        self._fetch = fetch
        self._clock = clock
        self._lock = threading.Lock()
        self._keys: dict[tuple[str, str | None], jwt.PyJWK] | None = None
        self._fetched = 0.0
        self._next_try = 0.0

    async def key(self, algorithm: str, kid: str | None) -> jwt.PyJWK | None:
        """The key for a token's algorithm and key id; None where the issuer has none. Without an id: the only one."""
        found = self._known(algorithm, kid)
        if found is None or self._clock() - self._fetched > _FRESH_S:
            await to_thread.run_sync(self._refresh)
            found = self._known(algorithm, kid)
        if self._keys is None:
            raise KeysUnavailable
        return found

    def _known(self, algorithm: str, kid: str | None) -> jwt.PyJWK | None:
        keys = self._keys or {}
        if kid is not None:
            return keys.get((algorithm, kid))
        fitting = [key for (for_algorithm, _), key in keys.items() if for_algorithm == algorithm]
        return fitting[0] if len(fitting) == 1 else None

    def _refresh(self) -> None:
        with self._lock:
            now = self._clock()
            if self._next_try and now < self._next_try:
                return
            try:
                keys = _parsed(self._fetch(self._url))
            except Exception as error:  # noqa: BLE001 - whatever it is, what is known stays, and it is tried again
                _log.warning("The keys at %s could not be fetched: %s", self._url, type(error).__name__)
                self._next_try = now + _AFTER_FAILURE_S
                return
            self._keys, self._fetched, self._next_try = keys, now, now + _AGAIN_S


def _parsed(body: bytes) -> dict[tuple[str, str | None], jwt.PyJWK]:
    """Keys by algorithm and id. Those for other uses, shared secrets and weak ones are left out."""
    found = {}
    for jwk in json.loads(body)["keys"][:_MOST_KEYS]:
        algorithm = _algorithm(jwk)
        if algorithm is None:
            continue
        try:
            key = jwt.PyJWK(jwk, algorithm=algorithm)
        except jwt.PyJWTError:
            continue
        if algorithm == "RS256" and key.key.key_size < _SHORTEST_RSA:
            continue
        found[algorithm, jwk.get("kid")] = key
    return found


def _algorithm(jwk: Any) -> str | None:
    """The one algorithm that a key may be used with; what it is made of decides, and what it says must not differ."""
    if not isinstance(jwk, dict) or jwk.get("use", "sig") != "sig":
        return None
    algorithm = _FOR.get((str(jwk.get("kty")), str(jwk.get("crv", ""))))
    return algorithm if jwk.get("alg", algorithm) == algorithm else None
