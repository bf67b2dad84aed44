"""Which store the variables name: Supabase over its API, PostgreSQL directly, or the embedded PostgreSQL."""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Mapping
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from vital_tracking.core.urls import fits_in_a_header, split_url
from vital_tracking.environment import (
    LIBPQ,
    NAMES_A_DATABASE,
    SERVICE_KEYS,
    SUPABASE_URLS,
    Given,
    first_of,
    in_file,
    misspelt,
    nearly_a_store,
    of_a_project,
)
from vital_tracking.errors import SettingsError

STORES: Final = ("supabase", "postgresql", "embedded")
"""What VITAL_STORE can name."""


class StoreChoice(NamedTuple):
    """Where the data go; of a store that is not used nothing, but for the project's URL, by which people sign in."""

    supabase_url: str | None = None
    service_key: str | None = None
    database_url: str | None = None


def store_choice(given: Mapping[str, Given]) -> StoreChoice:
    """The store that VITAL_STORE names, else the first of the three of which all is there that it needs.

    What is nearly there is an error only where nothing else is: an application may have a project of Supabase's, or variables
    of libpq, for purposes of its own. Raises SettingsError.
    """
    env = {name: one.value for name, one in given.items()}
    chosen = env.get("VITAL_STORE", "").strip().lower()
    if chosen and chosen not in STORES:
        raise SettingsError("VITAL_STORE", "is not one of its values", f"Choose one of {', '.join(STORES)}.")
    if chosen == "embedded":
        return StoreChoice()
    url_name, key_name = first_of(env, SUPABASE_URLS), first_of(env, SERVICE_KEYS)
    named, by_parts = _database_url(env), _conninfo(env)
    url = env[url_name].strip().rstrip("/") if url_name else None
    if chosen == "postgresql" or (not chosen and not (url_name and key_name) and (named or by_parts)):
        if not (named or by_parts):
            raise SettingsError(
                "VITAL_DATABASE_URL",
                "is not set, but VITAL_STORE is postgresql",
                f"Set it, or one of {', '.join(NAMES_A_DATABASE)}.",
            )
        return StoreChoice(url, None, named or by_parts)
    if url_name and key_name:
        _check_supabase(env, url_name, key_name)
        # The variables of libpq may be those of another database: they do not stand for the project's.
        return StoreChoice(url, env[key_name].strip(), named)
    if url_name or key_name or chosen:
        raise _incomplete(given, url_name)
    for name, meant in (*misspelt(given), *nearly_a_store(given)):
        if meant not in given:
            raise SettingsError(
                name, f"is no setting{in_file(given[name])}", f"Did you mean {meant}? If not: VITAL_STORE=embedded."
            )
    return StoreChoice()


def _incomplete(given: Mapping[str, Given], url_name: str | None) -> SettingsError:
    """Half of what Supabase needs is there: what is set, and what is missing."""
    there = [f"{name}{in_file(given[name])}" for name in of_a_project(given)]
    set_ = (
        f", but {' and '.join(there)} {'is' if len(there) == 1 else 'are'}"
        if there
        else ", but VITAL_STORE is supabase"
    )
    meant = {meaning: name for name, meaning in (*nearly_a_store(given), *misspelt(given))}
    otherwise = "For another store set VITAL_DATABASE_URL, or VITAL_STORE=embedded."
    if url_name:
        almost = next((meant[name] for name in SERVICE_KEYS if name in meant), None)
        almost = almost or ("SUPABASE_KEY" if "SUPABASE_KEY" in given else None)
        hint = f"If {almost} holds the project's secret key, call it SUPABASE_SERVICE_KEY. " if almost else ""
        return SettingsError(
            "SUPABASE_SERVICE_KEY",
            f"is not set{set_}",
            f"{hint}Copy the secret key (sb_secret_... or service_role) from Supabase: Project Settings, API Keys. {otherwise}",
        )
    almost = next((meant[name] for name in SUPABASE_URLS if name in meant), None)
    hint = f"If {almost} holds the project's URL, call it SUPABASE_URL. " if almost else ""
    return SettingsError(
        "SUPABASE_URL",
        f"is not set{set_}",
        f"{hint}Copy the project's URL, like https://abc.supabase.co, from Supabase: Project Settings, Data API. {otherwise}",
    )


def _check_supabase(env: Mapping[str, str], url_name: str, key_name: str) -> None:
    if split_url(env[url_name].strip()) is None:
        raise SettingsError(url_name, "is not a URL", "It looks like https://abc.supabase.co.")
    key = env[key_name].strip()
    if not fits_in_a_header(key):
        raise SettingsError(
            key_name,
            "holds a character that no key has",
            "Copy the secret key (sb_secret_... or service_role) anew, on one line, from Project Settings, API Keys.",
        )
    if key.startswith("sb_publishable_") or _role_in(key) in ("anon", "authenticated"):
        raise SettingsError(
            key_name,
            "holds a publishable key, which may not write",
            "Use the secret key (sb_secret_... or service_role), on servers only.",
        )


def _role_in(key: str) -> str | None:
    """The role that one of Supabase's older keys is for: they are JSON web tokens."""
    parts = key.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, binascii.Error):
        return None
    return claims.get("role") if isinstance(claims, dict) else None


def _database_url(env: Mapping[str, str]) -> str | None:
    url = env.get("VITAL_DATABASE_URL", "").strip()
    if url and not _is_database_url(url):
        raise SettingsError(
            "VITAL_DATABASE_URL",
            "is not a PostgreSQL URL",
            "It looks like postgresql://user:password@host:5432/database.",
        )
    return url or None


def _is_database_url(text: str) -> bool:
    """Whether it is one at all: libpq takes several hosts in one URL, or none, and says itself what is wrong with them."""
    try:
        return urlsplit(text).scheme in ("postgresql", "postgres")
    except ValueError:
        return False


def _conninfo(env: Mapping[str, str]) -> str | None:
    """libpq's variables as a connection string, where they name a database."""
    if not any(name in env for name in NAMES_A_DATABASE):
        return None
    # What a service file says comes before the environment, which libpq reads by itself, and after the connection string.
    left = os.environ if "PGSERVICE" in env else {}
    parts = [
        f"{keyword}={_quoted(env[name])}"
        for name, keyword in LIBPQ.items()
        if name in env and (name == "PGSERVICE" or left.get(name) != env[name])
    ]
    return " ".join(parts)


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
