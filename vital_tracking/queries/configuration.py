"""What is configured, and where: the store that the variables name, each variable that is read, and those that count for nothing.

No database is asked, and none is started.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vital_tracking.environment import (
    ENVIRONMENT,
    LIBPQ,
    NAMES_A_DATABASE,
    PUBLISHABLE_KEYS,
    SERVICE_KEYS,
    SUPABASE_URLS,
    Found,
    found_settings,
    read_environment,
    unknown_settings,
)
from vital_tracking.errors import VitalError
from vital_tracking.queries.spool import database_of
from vital_tracking.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A variable that is set: where, its value (of secrets nothing), and, where it counts for nothing or little, why."""

    name: str
    shown: str
    source: str
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """The store by its kind (`supabase`, `postgresql`, `embedded`) and description, or the problem why there is none.

    `named_by`: the variables that name the store, with their files; empty where nothing does. `unknown`: names that begin
    as ours do.
    """

    store: str | None
    description: str | None
    named_by: str
    problem: str | None
    settings: tuple[Setting, ...]
    unknown: tuple[str, ...]


def configuration(environ: Mapping[str, str] | None = None, *, dotenv: Path | str | None = None) -> Configuration:
    """What the environment and the files configure, as `Settings.from_env` reads them. A wrong setting is the answer's problem.

    Raises SettingsError where a file cannot be read.
    """
    given = read_environment(environ, dotenv)
    found = found_settings(given)
    settings, store, description, problem = None, None, None, None
    try:
        settings = Settings.from_env(environ, dotenv=dotenv)
        store, description = settings.store, database_of(settings)[1]
    except VitalError as error:
        problem = str(error)
    return Configuration(
        store=store,
        description=description,
        named_by=named_by(settings) if settings else "",
        problem=problem,
        settings=tuple(
            Setting(name=one.name, shown=one.shown, source=one.source, note=_note(one.name, found, settings))
            for one in found
        ),
        unknown=tuple(unknown_settings(given)),
    )


def named_by(settings: Settings) -> str:
    """The variables that name the store, with the files they are in: `VITAL_DATABASE_URL (in .env)`."""
    there = {one.name: one for one in settings.found}
    if settings.store == "supabase":
        names = [_first(there, SUPABASE_URLS), _first(there, SERVICE_KEYS)]
    elif settings.store == "postgresql":
        names = ["VITAL_DATABASE_URL"] if "VITAL_DATABASE_URL" in there else [n for n in NAMES_A_DATABASE if n in there]
    else:
        names = [name for name in ("VITAL_STORE", "VITAL_DATA_DIR") if name in there]
    return ", ".join(
        name if there[name].source == ENVIRONMENT else f"{name} (in {there[name].source})" for name in names if name
    )


def _note(name: str, found: tuple[Found, ...], settings: Settings | None) -> str | None:
    """Why a variable that is set does not name the store, where one might think it does."""
    names = {one.name for one in found}
    for group in (SUPABASE_URLS, SERVICE_KEYS, PUBLISHABLE_KEYS):
        if name in group and (first := _first(names, group)) != name:
            return f"not used: {first} comes first"
    if settings is None:
        return None
    if name in PUBLISHABLE_KEYS or name == "SUPABASE_JWT_SECRET":
        return "for signing in"
    of_supabase, of_libpq = name in (*SUPABASE_URLS, *SERVICE_KEYS), name in LIBPQ
    if settings.store == "embedded":
        if of_supabase or name == "VITAL_DATABASE_URL" or of_libpq:
            return "not used: VITAL_STORE=embedded" if "VITAL_STORE" in names else "not used: it names no database"
    elif settings.store == "postgresql":
        if of_supabase:
            return "not used for storing"
        if of_libpq and "VITAL_DATABASE_URL" in names:
            return "only where VITAL_DATABASE_URL says nothing"
    elif name == "VITAL_DATABASE_URL":
        return "for migrate and psql"
    elif of_libpq:
        return "not used: Supabase comes first"
    return None


def _first(there: Mapping[str, object] | set[str], names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in there), None)
