"""Settings from the environment, `.env.local` and `.env`, in this order. Nothing is written back to the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, SecretStr

from vital_tracking.core.rates import ceiling_rates
from vital_tracking.environment import (
    OUR_OWN,
    PROVIDER_KEYS,
    Found,
    Given,
    found_settings,
    in_file,
    misspelt,
    read_environment,
)
from vital_tracking.errors import SettingsError
from vital_tracking.store_choice import store_choice


class Settings(BaseModel):
    """Where the data go and how they are sent. Times (`_s`) are seconds; keys are SecretStr and never printed.

    Where: `supabase_url` with `supabase_service_key`, else `database_url` (a URL or libpq's connection string), else the embedded
    PostgreSQL in `data_dir`, of `postgres_version` 16 or 18. A copy for reading is in the ClickHouse at `clickhouse_url`.
    `organization_id` is that of calls which name none. `found` says which variables were read, and where.

    Delivery: as soon as `batch_size` calls wait or `flush_interval_s` have passed, up to `max_batch_size` at once; with
    `background` False only in `flush`. `spool` in `spool_dir`: segments of `segment_bytes`, `spool_bytes` in all, synced every
    `sync_interval_s`; `queue_bytes` is the memory for what finds no room there. `call_timeout_s`: how long a call may be silent.

    Budgets: `budgets` False asks none; `budget_deadline_s` is the longest wait for the database's answer, after which each
    budget's own `when_unavailable` decides, and this one (`allow` or `deny`) where the budgets are not known; they are read
    every `budget_refresh_s`; a grant lapses `grant_lifetime_s` after its process was last heard of. `ceiling_price` is what a
    call without a known price counts, input/output in US dollars per million tokens. `alert_urls` are apprise's, and so are those
    of the `channels`, by name, to which reports are sent; the alerts' own are the channel `alerts`.

    Privacy: `metadata_keys` and `event_properties` are further keys of metadata and of events' properties that may be stored;
    `hash_key` keys the hashes of requests, by which equal ones are found, and of addresses, None: no hash. `provider_keys` are
    for the demonstration alone. `litellm_key` is sent to a LiteLLM proxy whose metrics are imported.
    """

    # Built when the first is made, not with the package: that takes as long as all other classes of it together.
    model_config = ConfigDict(frozen=True, defer_build=True)

    supabase_url: str | None = None
    supabase_service_key: SecretStr | None = None
    database_url: SecretStr | None = None
    clickhouse_url: SecretStr | None = None
    data_dir: Path | None = None
    postgres_version: int = 18
    organization_id: str | None = None
    batch_size: int = 100
    max_batch_size: int = 1000
    flush_interval_s: float = 5.0
    queue_bytes: int = 16 << 20
    spool: bool = True
    spool_dir: Path | None = None
    spool_bytes: int = 256 << 20
    segment_bytes: int = 8 << 20
    sync_interval_s: float = 0.05
    background: bool = True
    call_timeout_s: float = 900.0
    budgets: bool = True
    budget_deadline_s: float = 1.5
    budget_refresh_s: float = 15.0
    grant_lifetime_s: float = 60.0
    when_unavailable: str = "allow"
    ceiling_price: str = "15/75"
    alert_urls: tuple[SecretStr, ...] = ()
    channels: Mapping[str, tuple[SecretStr, ...]] = {}
    metadata_keys: frozenset[str] = frozenset()
    event_properties: frozenset[str] = frozenset()
    hash_key: SecretStr | None = None
    litellm_key: SecretStr | None = None
    provider_keys: Mapping[str, SecretStr] = {}
    found: tuple[Found, ...] = ()

    @property
    def hash_key_bytes(self) -> bytes | None:
        """The key of hashes as they take it; None: no hash."""
        return self.hash_key.get_secret_value().encode() if self.hash_key else None

    @property
    def store(self) -> str:
        """Which of STORES these settings name."""
        if self.supabase_url and self.supabase_service_key:
            return "supabase"
        return "postgresql" if self.database_url else "embedded"

    def says(self, name: str) -> bool:
        """Whether a variable, by its `name`, is set."""
        return any(one.name == name for one in self.found)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, *, dotenv: Path | str | None = None) -> Settings:
        """Read the settings; SettingsError names the variable and the fix.

        `environ` replaces the process's environment. `dotenv` names a file; by default `.env.local` and `.env` are read, the
        nearest at or above the working directory. The environment wins over both, and `.env.local` over `.env`.
        """
        return _read(read_environment(environ, dotenv))

    def __repr__(self) -> str:
        return "Settings(...)"

    __str__ = __repr__


def _read(given: Mapping[str, Given]) -> Settings:
    env = {name: one.value for name, one in given.items()}
    for name, meant in misspelt(given):
        if meant in OUR_OWN and meant not in given:
            raise SettingsError(name, f"is no setting{in_file(given[name])}", f"Did you mean {meant}?")
    place = store_choice(given)
    alert_urls = tuple(SecretStr(url) for url in env.get("VITAL_ALERT_URLS", "").split())
    return Settings(
        supabase_url=place.supabase_url,
        supabase_service_key=SecretStr(place.service_key) if place.service_key else None,
        database_url=SecretStr(place.database_url) if place.database_url else None,
        clickhouse_url=SecretStr(env["VITAL_CLICKHOUSE_URL"]) if env.get("VITAL_CLICKHOUSE_URL") else None,
        data_dir=_folder(env, "VITAL_DATA_DIR"),
        postgres_version=_choice(env, "VITAL_POSTGRES_VERSION", 18, (16, 18)),
        organization_id=env.get("VITAL_ORGANIZATION_ID"),
        batch_size=_integer(env, "VITAL_BATCH_SIZE", 100, 1, 1000),
        flush_interval_s=_seconds(env, "VITAL_FLUSH_INTERVAL", 5.0, 0.05, 3600),
        queue_bytes=_integer(env, "VITAL_QUEUE_MIB", 16, 1, 1 << 20) << 20,
        spool=one_of(env, "VITAL_SPOOL", "on", ("on", "off")) == "on",
        spool_dir=_folder(env, "VITAL_SPOOL_DIR"),
        spool_bytes=_integer(env, "VITAL_SPOOL_MIB", 256, 1, 1 << 20) << 20,
        sync_interval_s=_seconds(env, "VITAL_SPOOL_SYNC", 0.05, 0, 60),
        background=one_of(env, "VITAL_BACKGROUND", "on", ("on", "off")) == "on",
        call_timeout_s=_seconds(env, "VITAL_CALL_TIMEOUT", 900.0, 1, 86_400),
        budgets=one_of(env, "VITAL_BUDGETS", "on", ("on", "off")) == "on",
        budget_deadline_s=_seconds(env, "VITAL_BUDGET_DEADLINE", 1.5, 0.05, 60),
        budget_refresh_s=_seconds(env, "VITAL_BUDGET_REFRESH", 15.0, 0.1, 3600),
        grant_lifetime_s=_seconds(env, "VITAL_GRANT_LIFETIME", 60.0, 3, 3600),
        when_unavailable=one_of(env, "VITAL_WHEN_UNAVAILABLE", "allow", ("allow", "deny")),
        ceiling_price=_ceiling_price(env),
        alert_urls=alert_urls,
        channels=_channels(env, alert_urls),
        metadata_keys=names_in(env, "VITAL_METADATA_KEYS"),
        event_properties=names_in(env, "VITAL_EVENT_PROPERTIES"),
        hash_key=SecretStr(env["VITAL_HASH_KEY"]) if env.get("VITAL_HASH_KEY") else None,
        litellm_key=SecretStr(env["VITAL_LITELLM_KEY"]) if env.get("VITAL_LITELLM_KEY") else None,
        provider_keys={name: SecretStr(env[name]) for name in PROVIDER_KEYS if env.get(name)},
        found=found_settings(given),
    )


def default_data_dir() -> Path:
    """The user's data folder. The superuser's is one that the server's own user can pass through: it never runs as root."""
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        return Path("/var/lib/vital_tracking")
    import platformdirs

    return Path(platformdirs.user_data_dir("vital_tracking", appauthor=False))


def names_in(env: Mapping[str, str], name: str) -> frozenset[str]:
    """A variable's list of names, which commas separate."""
    return frozenset(part.strip() for part in env.get(name, "").split(",") if part.strip())


def _channels(env: Mapping[str, str], alert_urls: tuple[SecretStr, ...]) -> Mapping[str, tuple[SecretStr, ...]]:
    """The channels by name. A name may be given several times, with a URL each."""
    found = {"alerts": alert_urls} if alert_urls else {}
    for word in env.get("VITAL_REPORT_CHANNELS", "").split():
        named = re.fullmatch(r"([a-z][a-z0-9_-]{0,39})=([a-z][a-z0-9+.-]*://.+)", word, re.IGNORECASE)
        if named is None or named[1] != named[1].lower() or named[1] == "alerts":
            raise SettingsError(
                "VITAL_REPORT_CHANNELS",
                "is no list of channels",
                "Give each as name=URL of apprise, separated by blanks: finance=mailto://user:password@example.com. "
                "The channel `alerts` is that of VITAL_ALERT_URLS.",
            )
        found[named[1]] = (*found.get(named[1], ()), SecretStr(named[2]))
    return found


def _folder(env: Mapping[str, str], name: str) -> Path | None:
    folder = env.get(name)
    return Path(folder).expanduser().absolute() if folder else None  # the working folder may change


def _integer(env: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    try:
        value = int(env.get(name, default))
    except ValueError:
        value = low - 1
    if not low <= value <= high:
        raise SettingsError(name, "is not a whole number in its range", f"Give a number from {low} to {high}.")
    return value


def _choice(env: Mapping[str, str], name: str, default: int, choices: tuple[int, ...]) -> int:
    value = _integer(env, name, default, min(choices), max(choices))
    if value not in choices:
        raise SettingsError(name, "is not one of its values", f"Choose one of {', '.join(map(str, choices))}.")
    return value


def one_of(env: Mapping[str, str], name: str, default: str, choices: tuple[str, ...]) -> str:
    """A variable's value, which is one of its choices: SettingsError otherwise."""
    value = env.get(name, default).strip().lower()
    if value not in choices:
        raise SettingsError(name, "is not one of its values", f"Choose one of {', '.join(choices)}.")
    return value


def _ceiling_price(env: Mapping[str, str]) -> str:
    text = env.get("VITAL_CEILING_PRICE", "15/75")
    try:
        ceiling_rates(text)
    except ValueError:
        raise SettingsError(
            "VITAL_CEILING_PRICE",
            "is not a price",
            "Give US dollars per million tokens in and out, such as 15/75.",
        ) from None
    return text


def _seconds(env: Mapping[str, str], name: str, default: float, low: float, high: float) -> float:
    try:
        value = float(env.get(name, default))
    except ValueError:
        value = low - 1
    if not low <= value <= high:
        raise SettingsError(name, "is not a number of seconds in its range", f"Give {low:g} to {high:g} seconds.")
    return value
