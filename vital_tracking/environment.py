"""Where settings are found: the environment, `.env.local` and `.env`; which names there are, and which are nearly right."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from vital_tracking.errors import SettingsError

ENVIRONMENT: Final = "the environment"

SUPABASE_URLS: Final = ("SUPABASE_URL", "NEXT_PUBLIC_SUPABASE_URL")
"""What names a project's URL; where several are set, the first one counts, as in the lists below."""

SERVICE_KEYS: Final = ("SUPABASE_SERVICE_KEY", "SUPABASE_SERVICE_ROLE_KEY", "SUPABASE_SECRET_KEY")
"""What names a project's secret key."""

PUBLISHABLE_KEYS: Final = (
    "SUPABASE_ANON_KEY",
    "NEXT_PUBLIC_SUPABASE_ANON_KEY",
    "SUPABASE_PUBLISHABLE_KEY",
    "NEXT_PUBLIC_SUPABASE_PUBLISHABLE_KEY",
    "NEXT_PUBLIC_SUPABASE_PUBLISHABLE_DEFAULT_KEY",
)
"""What names the key that browsers may know, with which people sign in."""

JWT_SECRET: Final = "SUPABASE_JWT_SECRET"  # noqa: S105 - a name

PROVIDER_KEYS: Final = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY")
"""Keys that the demonstration uses, when they are there, to speak to real models."""

# Every variable of libpq that stands for a parameter of a connection (PostgreSQL documentation, 32.15 and 32.1.2).
LIBPQ: Final[Mapping[str, str]] = MappingProxyType(
    {
        "PGAPPNAME": "application_name",
        "PGCHANNELBINDING": "channel_binding",
        "PGCLIENTENCODING": "client_encoding",
        "PGCONNECT_TIMEOUT": "connect_timeout",
        "PGDATABASE": "dbname",
        "PGGSSDELEGATION": "gssdelegation",
        "PGGSSENCMODE": "gssencmode",
        "PGGSSLIB": "gsslib",
        "PGHOST": "host",
        "PGHOSTADDR": "hostaddr",
        "PGKRBSRVNAME": "krbsrvname",
        "PGLOADBALANCEHOSTS": "load_balance_hosts",
        "PGOPTIONS": "options",
        "PGPASSFILE": "passfile",
        "PGPASSWORD": "password",
        "PGPORT": "port",
        "PGREQUIREAUTH": "require_auth",
        "PGREQUIREPEER": "requirepeer",
        "PGSERVICE": "service",
        "PGSSLCERT": "sslcert",
        "PGSSLCERTMODE": "sslcertmode",
        "PGSSLCOMPRESSION": "sslcompression",
        "PGSSLCRL": "sslcrl",
        "PGSSLCRLDIR": "sslcrldir",
        "PGSSLKEY": "sslkey",
        "PGSSLMAXPROTOCOLVERSION": "ssl_max_protocol_version",
        "PGSSLMINPROTOCOLVERSION": "ssl_min_protocol_version",
        "PGSSLMODE": "sslmode",
        "PGSSLNEGOTIATION": "sslnegotiation",
        "PGSSLROOTCERT": "sslrootcert",
        "PGSSLSNI": "sslsni",
        "PGTARGETSESSIONATTRS": "target_session_attrs",
        "PGUSER": "user",
    }
)
"""libpq's variables and the parameters they stand for."""

NAMES_A_DATABASE: Final = ("PGHOST", "PGHOSTADDR", "PGDATABASE", "PGSERVICE")
"""Those of libpq's variables of which one is enough to name a database; a PGUSER or PGPORT alone names none."""

OUR_OWN: Final = (
    "VITAL_STORE",
    "VITAL_DATABASE_URL",
    "VITAL_CLICKHOUSE_URL",
    "VITAL_DATA_DIR",
    "VITAL_POSTGRES_VERSION",
    "VITAL_ORGANIZATION_ID",
    "VITAL_METADATA_KEYS",
    "VITAL_EVENT_PROPERTIES",
    "VITAL_EVENT_ADDRESSES",
    "VITAL_EVENT_ORIGINS",
    "VITAL_HASH_KEY",
    "VITAL_LITELLM_KEY",
    "VITAL_BATCH_SIZE",
    "VITAL_FLUSH_INTERVAL",
    "VITAL_SPOOL",
    "VITAL_SPOOL_DIR",
    "VITAL_SPOOL_MIB",
    "VITAL_SPOOL_SYNC",
    "VITAL_QUEUE_MIB",
    "VITAL_BACKGROUND",
    "VITAL_CALL_TIMEOUT",
    "VITAL_BUDGETS",
    "VITAL_BUDGET_DEADLINE",
    "VITAL_BUDGET_REFRESH",
    "VITAL_GRANT_LIFETIME",
    "VITAL_WHEN_UNAVAILABLE",
    "VITAL_CEILING_PRICE",
    "VITAL_ALERT_URLS",
    "VITAL_REPORT_CHANNELS",
    "VITAL_JWKS_URL",
    "VITAL_JWT_ISSUER",
    "VITAL_JWT_AUDIENCE",
    "VITAL_PUBLIC_URL",
    "VITAL_MONITORING_TOKEN",
)
"""The variables that are ours alone."""

KNOWN: Final = (
    *SUPABASE_URLS,
    *SERVICE_KEYS,
    *PUBLISHABLE_KEYS,
    JWT_SECRET,
    "REDIS_URL",
    *OUR_OWN,
    *LIBPQ,
    *PROVIDER_KEYS,
)
"""Every variable that is read."""

_SECRET: Final = frozenset(
    (
        *SERVICE_KEYS,
        *PUBLISHABLE_KEYS,
        JWT_SECRET,
        *PROVIDER_KEYS,
        "VITAL_CLICKHOUSE_URL",
        "VITAL_HASH_KEY",
        "VITAL_ALERT_URLS",
        "VITAL_REPORT_CHANNELS",
        "VITAL_MONITORING_TOKEN",
        "REDIS_URL",
        "PGPASSWORD",
    )
)
_STORES: Final = (*SUPABASE_URLS, *SERVICE_KEYS)
# What somebody writes who does not know our name for the database's address. Other VITAL_ names may be another program's.
_A_DATABASE: Final = re.compile(r"VITAL_(DB|DATABASE|PG|POSTGRES|POSTGRESQL|SUPABASE|DSN|URL)(_\w+)?")
_A_SERVICE_KEY: Final = re.compile(r"(NEXT_PUBLIC_)?SUPABASE_(SERVICE|SERVICE_ROLE|SECRET)(_\w+)?")
_A_PROJECT: Final = re.compile(r"(\w+_)?SUPABASE_(URL|KEY|SERVICE\w*|SECRET\w*|ANON_KEY|PUBLISHABLE_KEY)")


class Given(NamedTuple):
    """A variable that is set: its value, and where: the environment, or a file's path."""

    value: str
    source: str


class Found(NamedTuple):
    """A variable that is set, for showing: its name, where, and its value, of secrets nothing."""

    name: str
    source: str
    shown: str


def read_environment(environ: Mapping[str, str] | None = None, dotenv: Path | str | None = None) -> dict[str, Given]:
    """Every variable that is set, and not empty: of the environment, else `.env.local`, else `.env`.

    `environ` replaces the process's environment. `dotenv` names a file that takes the place of both. Raises SettingsError
    where a file cannot be read.
    """
    files = [Path(dotenv)] if dotenv is not None else list(_files())
    found: dict[str, Given] = {}
    for path in files:
        found |= {name: Given(value, str(path)) for name, value in _read(path).items() if value.strip()}
    of_process = os.environ if environ is None else environ
    return found | {name: Given(value, ENVIRONMENT) for name, value in of_process.items() if value.strip()}


def found_settings(given: Mapping[str, Given]) -> tuple[Found, ...]:
    """The variables that are read, among those that are set, in the order of KNOWN; secrets are masked."""
    return tuple(Found(name, given[name].source, _shown(name, given[name].value)) for name in KNOWN if name in given)


def unknown_settings(given: Mapping[str, Given]) -> list[str]:
    """Names that begin as ours do and are none: another program's, or misspelt."""
    return sorted(name for name in given if name.startswith("VITAL_") and name not in OUR_OWN)


def misspelt(given: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Names of ours that are set all but right, each with the name that was meant: one letter off, or without a `_`."""
    for name in sorted(set(given) - set(KNOWN)):
        if re.match(r"VI?T|NEXT_PU|SU?P", name.upper()):
            for meant in (*OUR_OWN, *_STORES):
                if _nearly(_letters(name), _letters(meant)):
                    yield name, meant


def nearly_a_store(given: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Names that somebody sets who means to name a store, and that are not read, each with the name that was meant."""
    for name in sorted(set(given) - set(KNOWN)):
        if _A_DATABASE.fullmatch(name):
            yield name, "SUPABASE_URL" if name == "VITAL_SUPABASE_URL" else "VITAL_DATABASE_URL"
        elif _A_SERVICE_KEY.fullmatch(name):
            yield name, SERVICE_KEYS[0]


def of_a_project(given: Iterable[str]) -> list[str]:
    """Every name that is set and speaks of a project of Supabase's, read or not: what an error can name."""
    return sorted(name for name in given if _A_PROJECT.fullmatch(name))


def in_file(given: Given) -> str:
    """Which file something is set in, to stand behind its name; of the environment nothing."""
    return "" if given.source == ENVIRONMENT else f" (in {given.source})"


def first_of(env: Mapping[str, str], names: Sequence[str]) -> str | None:
    """The first of these names that is set."""
    return next((name for name in names if name in env), None)


def without_password(url: str) -> str:
    """A database's URL or connection string without what is secret in it; where it cannot be read, nothing of it."""
    try:
        parts = urlsplit(url.strip())
        if parts.scheme not in ("postgresql", "postgres") or "@" in parts.path or "password" in parts.query:
            return _MASK
        user = f"{parts.username or ''}{':***' if parts.password is not None else ''}"
        place = parts.netloc.rpartition("@")[2]
    except ValueError:
        return _MASK
    return urlunsplit((parts.scheme, f"{user}@{place}" if user else place, parts.path, parts.query, ""))


_MASK: Final = "(set, not shown)"


def _shown(name: str, value: str) -> str:
    if name == "VITAL_DATABASE_URL":
        return without_password(value)
    return _MASK if name in _SECRET else value.strip()


def _files() -> Iterator[Path]:
    """The nearest `.env` at or above the working directory, then the nearest `.env.local` that is no farther away."""
    try:
        here = Path.cwd()
    except OSError:  # it was deleted
        return
    folders = (here, *here.parents)
    base = next((folder for folder in folders if _is_there(folder / ".env")), None)
    if base is not None:
        yield base / ".env"
    for folder in folders:
        if _is_there(folder / ".env.local"):
            yield folder / ".env.local"
            return
        if folder == base:
            return


def _is_there(path: Path) -> bool:
    try:
        return path.is_file() or path.is_fifo()
    except OSError:  # in a folder that this user may not look into
        return False


def _read(path: Path) -> dict[str, str]:
    from dotenv import dotenv_values

    try:
        return {name: value for name, value in dotenv_values(path).items() if value}
    except (OSError, UnicodeDecodeError) as error:
        problem = f"cannot be read ({type(error).__name__})"
    raise SettingsError(str(path), problem, "Let this user read it, and save it as UTF-8.")


def _letters(name: str) -> str:
    return re.sub(r"[^A-Z0-9]", "", name.upper())


def _nearly(one: str, other: str) -> bool:
    """Whether two words are the same, or one letter is wrong, missing or too many, or two have changed places."""
    if abs(len(one) - len(other)) > 1:
        return False
    at = next(
        (at for at, (left, right) in enumerate(zip(one, other, strict=False)) if left != right),
        min(len(one), len(other)),
    )
    rest, others = one[at:], other[at:]
    swapped = rest[:2] == others[1::-1] and rest[2:] == others[2:]
    return rest[1:] == others[1:] or rest[1:] == others or rest == others[1:] or swapped
