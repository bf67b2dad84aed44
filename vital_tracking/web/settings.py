"""Settings of the API and the pages: who signs in where, and how often anybody may ask."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, SecretStr

from vital_tracking.core.urls import fits_in_a_header, split_url
from vital_tracking.environment import JWT_SECRET, PUBLISHABLE_KEYS, SUPABASE_URLS, first_of, read_environment
from vital_tracking.errors import SettingsError
from vital_tracking.settings import names_in, one_of

_SHORTEST_SECRET: Final = 32


class WebSettings(BaseModel):
    """Who is who, and how often they may ask. Keys are SecretStr and never printed; times (`_s`) are seconds.

    Tokens are those of `jwt_issuer` for `jwt_audience`, signed with a key of `jwks_url` (ES256, RS256) or with `jwt_secret`
    (HS256). With `supabase_url` all three follow from it, and with `anon_key` people sign in on a page of ours.
    `public_url` is where browsers find the pages, if a proxy does not tell. `redis_url` is where several processes count
    requests together; `user_requests` and `organization_requests` are a minute's, `burst_requests` more may come at once.
    `monitoring_token` opens the metrics. `answer_s` is how long the database may take for a page.
    Of events that are sent here, `event_properties` are further properties that may be stored, `hash_key` keys the hashes of
    addresses (None: none is kept), and `event_addresses` says whether that of the request is taken. `event_origins` are the other
    sites whose pages may send them, such as https://app.example.com.
    """

    model_config = ConfigDict(frozen=True)

    supabase_url: str | None = None
    anon_key: SecretStr | None = None
    jwks_url: str | None = None
    jwt_issuer: str | None = None
    jwt_audience: str = "authenticated"
    jwt_secret: SecretStr | None = None
    public_url: str | None = None
    redis_url: SecretStr | None = None
    monitoring_token: SecretStr | None = None
    user_requests: int = 100
    organization_requests: int = 1000
    burst_requests: int = 20
    answer_s: float = 10.0
    event_properties: frozenset[str] = frozenset()
    event_addresses: bool = False
    event_origins: frozenset[str] = frozenset()
    hash_key: SecretStr | None = None

    @property
    def hash_key_bytes(self) -> bytes | None:
        """The key of hashes as they take it; None: no hash."""
        return self.hash_key.get_secret_value().encode() if self.hash_key else None

    @property
    def knows_users(self) -> bool:
        """Whether any token can be verified."""
        return bool(self.jwks_url or self.jwt_secret)

    @property
    def signs_in(self) -> bool:
        """Whether people can sign in on a page of ours."""
        return bool(self.knows_users and self.supabase_url and self.anon_key)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, *, dotenv: Path | str | None = None) -> WebSettings:
        """Read the settings as Settings.from_env does; SettingsError names the variable and the fix."""
        return _read({name: given.value for name, given in read_environment(environ, dotenv).items()})

    def __repr__(self) -> str:
        return "WebSettings(...)"

    __str__ = __repr__


def _read(env: Mapping[str, str]) -> WebSettings:
    url_name = first_of(env, SUPABASE_URLS)
    supabase = _url(env, url_name) if url_name else None
    jwks, issuer = _url(env, "VITAL_JWKS_URL"), env.get("VITAL_JWT_ISSUER", "").strip() or None
    audience = env.get("VITAL_JWT_AUDIENCE", "").strip() or None
    if jwks and not (issuer and audience):
        raise SettingsError(
            "VITAL_JWKS_URL",
            "is set, but not whose tokens count and for whom",
            "Set VITAL_JWT_ISSUER and VITAL_JWT_AUDIENCE to the `iss` and `aud` of your tokens.",
        )
    if supabase and not jwks:
        jwks, issuer = f"{supabase}/auth/v1/.well-known/jwks.json", issuer or f"{supabase}/auth/v1"
    return WebSettings(
        supabase_url=supabase,
        anon_key=_anon_key(env),
        jwks_url=jwks,
        jwt_issuer=issuer,
        jwt_audience=audience or "authenticated",
        jwt_secret=_jwt_secret(env),
        public_url=_url(env, "VITAL_PUBLIC_URL"),
        redis_url=SecretStr(env["REDIS_URL"].strip()) if env.get("REDIS_URL") else None,
        monitoring_token=_token(env, "VITAL_MONITORING_TOKEN"),
        event_properties=names_in(env, "VITAL_EVENT_PROPERTIES"),
        event_addresses=one_of(env, "VITAL_EVENT_ADDRESSES", "off", ("on", "off")) == "on",
        event_origins=frozenset(_origin(name) for name in names_in(env, "VITAL_EVENT_ORIGINS")),
        hash_key=SecretStr(env["VITAL_HASH_KEY"]) if env.get("VITAL_HASH_KEY") else None,
    )


def _anon_key(env: Mapping[str, str]) -> SecretStr | None:
    name = first_of(env, PUBLISHABLE_KEYS)
    if name is None:
        return None
    key = env[name].strip()
    if key.startswith("sb_secret_"):
        raise SettingsError(name, "holds a secret key", "Browsers may see this one: use the publishable or anon key.")
    _check_key(name, key)
    return SecretStr(key)


def _jwt_secret(env: Mapping[str, str]) -> SecretStr | None:
    secret = _token(env, JWT_SECRET)
    if secret and "-----BEGIN" in secret.get_secret_value():
        raise SettingsError(
            JWT_SECRET,
            "holds a key pair's half, not a shared secret",
            "Public keys are fetched from SUPABASE_URL or VITAL_JWKS_URL; leave this one out.",
        )
    return secret


def _token(env: Mapping[str, str], name: str) -> SecretStr | None:
    token = env.get(name, "").strip()
    if token and len(token) < _SHORTEST_SECRET:
        raise SettingsError(
            name,
            f"is shorter than {_SHORTEST_SECRET} characters",
            'Make a long one: python -c "import secrets; print(secrets.token_urlsafe(32))"',
        )
    if token and name != JWT_SECRET:  # which signs, and is never sent
        _check_key(name, token)
    return SecretStr(token) if token else None


def _check_key(name: str, key: str) -> None:
    if not fits_in_a_header(key):
        raise SettingsError(name, "holds a character that no key has", "Copy it anew, on one line.")


def _url(env: Mapping[str, str], name: str) -> str | None:
    text = env.get(name, "").strip().rstrip("/")
    if not text:
        return None
    parts = split_url(text)
    if parts is None:
        raise SettingsError(name, "is not a URL", "It looks like https://example.com.")
    if parts.scheme == "http" and not is_loopback(parts.hostname or "") and name == "VITAL_JWKS_URL":
        raise SettingsError(name, "is not fetched over https", "Whoever sits between could hand out keys: use https.")
    return text


def _origin(text: str) -> str:
    """One origin as browsers write it: a scheme, a host in small letters, a port where it is not the scheme's own."""
    parts = split_url(text.rstrip("/").lower())
    if parts is None or text.rstrip("/").lower() != f"{parts.scheme}://{parts.netloc}":
        raise SettingsError(
            "VITAL_EVENT_ORIGINS",
            "holds something else than origins",
            "Separate them by commas, each with its scheme and no path: https://app.example.com,https://www.example.com.",
        )
    usual = {"http": ":80", "https": ":443"}[parts.scheme]
    return f"{parts.scheme}://{parts.netloc.removesuffix(usual)}"


def is_loopback(host: str) -> bool:
    """Whether a host is this machine alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"
