"""Who asks: a token is verified here, and nowhere else."""

from __future__ import annotations

import hmac
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

import jwt

from vital_tracking.web.keys import ALGORITHMS, Fetch, KeySet, KeysUnavailable
from vital_tracking.web.problems import Problem, SignInNeeded
from vital_tracking.web.settings import WebSettings

_LONGEST_TOKEN: Final = 16_384
_LONGEST_SUBJECT: Final = 255
_USERS_ROLE: Final = "authenticated"
_NO_USERS: Final = ("anon", "service_role", "supabase_admin", "postgres")
_LEEWAY_S: Final = 5
"""By how much clocks may differ."""


class Kind(StrEnum):
    """What somebody is to us. What a user may see is the database's affair."""

    user = "user"
    operator = "operator"
    monitor = "monitor"


@dataclass(frozen=True, slots=True)
class Identity:
    """Somebody who asks. A user has a subject, the verified claims of the token, and the token itself.

    `by_cookie`: a browser sent it by itself, so what changes something must come from a page of ours.
    """

    kind: Kind
    subject: str | None = None
    claims: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    token: str = field(default="", repr=False)
    by_cookie: bool = False

    @property
    def is_operator(self) -> bool:
        """Whether it is who started the dashboard: reads with the store's own rights."""
        return self.kind is Kind.operator

    @property
    def name(self) -> str:
        """What the page calls somebody: the token's e-mail address, else the subject."""
        email = self.claims.get("email")
        return email if isinstance(email, str) and email else self.subject or self.kind.value


class TokenRefused(SignInNeeded):
    """A token that is no good; `expired` where it was good once."""

    def __init__(self, detail: str, *, expired: bool = False) -> None:
        super().__init__(detail, error="invalid_token")
        self.expired = expired


class TokenVerifier:
    """Verifies tokens against the settings: signature by the key's own algorithm, issuer, audience, times, and their form."""

    def __init__(self, settings: WebSettings, fetch: Fetch, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._keys = KeySet(settings.jwks_url, fetch, clock) if settings.jwks_url else None
        self._clock = clock

    async def verify(self, token: str, *, by_cookie: bool = False) -> Identity:
        """The user whose token it is; TokenRefused for every other token, Problem 503 where the keys cannot be had."""
        if self.is_monitors(token) and not by_cookie:
            return Identity(Kind.monitor)
        if len(token) > _LONGEST_TOKEN:
            raise TokenRefused("The token is too long.")
        try:
            header = jwt.get_unverified_header(token)
            key, algorithm = await self._key(header)
            claims = self._decoded(token, key, algorithm)
        except jwt.PyJWTError:
            raise TokenRefused("The token is not one of ours.") from None
        except KeysUnavailable:
            raise Problem(
                503,
                "keys-unavailable",
                "Nobody can be recognised at the moment",
                detail="The keys of the identity provider cannot be fetched.",
                hint="Try again soon.",
                headers={"Retry-After": "10"},
            ) from None
        self._check_times(claims)
        self._check_role(claims)
        return Identity(Kind.user, _subject(claims), MappingProxyType(claims), token, by_cookie)

    def is_monitors(self, token: str) -> bool:
        """Whether it is the monitoring token."""
        expected = self._settings.monitoring_token
        return expected is not None and hmac.compare_digest(token.encode(), expected.get_secret_value().encode())

    async def _key(self, header: Mapping[str, Any]) -> tuple[Any, str]:
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm == "HS256" and self._settings.jwt_secret is not None:
            return self._settings.jwt_secret.get_secret_value(), algorithm
        if algorithm in ALGORITHMS and self._keys is not None and (kid is None or isinstance(kid, str)):
            key = await self._keys.key(algorithm, kid)
            if key is not None:
                return key, algorithm
        raise jwt.InvalidKeyError

    def _decoded(self, token: str, key: Any, algorithm: str) -> dict[str, Any]:
        """The claims under a good signature; issuer and times are checked by us, so that a token cannot leave them open."""
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=[algorithm],
            audience=self._settings.jwt_audience,
            options={
                "require": ["exp", "sub", "aud"],
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,
                "verify_iss": False,
            },
        )
        issuer = self._settings.jwt_issuer
        # Some servers of Supabase Auth name no issuer under the shared secret, which is the project's own.
        unnamed = algorithm == "HS256" and self._settings.supabase_url and "iss" not in claims
        if issuer and claims.get("iss") != issuer and not unnamed:
            raise jwt.InvalidIssuerError
        return claims

    def _check_role(self, claims: Mapping[str, Any]) -> None:
        """Refuse the API's other roles, whose keys are tokens, too. At Supabase the API takes on the role that a token names."""
        role = claims.get("role", _USERS_ROLE)
        if not isinstance(role, str) or role in _NO_USERS or (self._settings.supabase_url and role != _USERS_ROLE):
            raise TokenRefused("The token is not a signed-in user's.")

    def _check_times(self, claims: Mapping[str, Any]) -> None:
        now = self._clock()
        expires, begins = _time(claims, "exp"), _time(claims, "nbf")
        issued = _time(claims, "iat")
        if expires is None or expires + _LEEWAY_S <= now:
            raise TokenRefused("The token has expired.", expired=True)
        if max(begins or 0, issued or 0) - _LEEWAY_S > now:
            raise TokenRefused("The token is not valid yet.")


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise TokenRefused("The token's times are no times.")
    return float(value)


def _subject(claims: Mapping[str, Any]) -> str:
    """The subject, which is compared as text everywhere."""
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= _LONGEST_SUBJECT or not subject.isprintable():
        raise TokenRefused("The token names nobody.")
    return subject
