"""The installed command, on this test's database."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.acceptance.cli.helpers import Cli, Done, Several
from tests.acceptance.helpers import COMMAND, run_commands, run_forked
from tests.support.postgres import PostgresServer


@pytest.fixture
def cli(database_url: str, tmp_path: Path) -> Cli:
    """Runs `vital-tracking` on this test's database; None as a setting takes the setting away."""

    def command(*arguments: str, **settings: object) -> Done:
        chosen = {"VITAL_DATABASE_URL": database_url, **settings}
        given = {name: value for name, value in chosen.items() if value is not None}
        return run_forked([str(COMMAND), *arguments], tmp_path, **given)

    return command


@pytest.fixture
def several(database_url: str, tmp_path: Path) -> Several:
    """Runs `vital-tracking` several times in one process of its own: much faster, and otherwise the same."""

    def commands(*commands: Sequence[str]) -> list[Done]:
        answers = run_commands(commands, tmp_path, VITAL_DATABASE_URL=database_url)
        return [subprocess.CompletedProcess([], code, out, err) for code, out, err in answers]

    return commands


@pytest.fixture
def empty_database(postgres_server: PostgresServer) -> Iterator[str]:
    """The URL of a database without our migrations."""
    name = f"empty_{os.getpid()}"
    postgres_server.create_database(name)
    yield postgres_server.url(name)
    postgres_server.drop_database(name)
