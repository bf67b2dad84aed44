"""What the acceptance tests share: programs run as a user runs them, in a clean environment."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.support import forked

COMMAND = Path(sys.executable).with_name("vital-tracking")

_SETTINGS = ("VITAL_", "SUPABASE_", "LANGSMITH_", "LANGCHAIN_", "OPENAI_", "ANTHROPIC_", "PG")
_KEY = re.compile(r"_API_KEY$")


def environment(home: Path, **settings: object) -> dict[str, str]:
    """This process's environment without any setting or key, and with `settings`; wide enough for every table."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(_SETTINGS) and not _KEY.search(name)
    }
    plain = {
        "HOME": str(home),
        "VITAL_DATA_DIR": str(home / "data"),
        "COLUMNS": "200",
        "NO_COLOR": "1",
        "TERM": "dumb",
        "TZ": "UTC",
    }
    return kept | plain | {name: str(value) for name, value in settings.items()}


def run(
    command: list[str], home: Path, *, timeout: float = 60, stdin: str | None = None, **settings: object
) -> subprocess.CompletedProcess[str]:
    """Run a program in the folder `home` and give what it said."""
    return subprocess.run(
        command,
        cwd=home,
        env=environment(home, **settings),
        input=stdin if stdin is not None else "",
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def run_forked(
    command: list[str], home: Path, *, timeout: float = 60, stdin: str = "", **settings: object
) -> subprocess.CompletedProcess[str]:
    """As `run`, in a fork that has imported already what most programs import: for whatever does not test how it is started."""
    return forked.run_forked(command, home, environment(home, **settings), stdin=stdin, timeout=timeout)


# Runs commands as the console script does, one after the other in one process: starting Python is most of a command's time.
_SESSION = """
import contextlib, io, json, os, sys
from vital_tracking.cli import main
answers, settings = [], dict(os.environ)
for words in json.load(sys.stdin):
    out, err, code = io.StringIO(), io.StringIO(), 0
    os.environ.update(settings)
    while "=" in words[0]:
        name, _, os.environ[name] = words.pop(0).partition("=")
    sys.argv = ["vital-tracking", *words]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
    answers.append((code, out.getvalue(), err.getvalue()))
    os.environ.clear()
json.dump(answers, sys.stdout)
"""


def run_commands(commands: Sequence[Sequence[str]], home: Path, **settings: object) -> list[tuple[int, str, str]]:
    """Run `vital-tracking` with each of the arguments in turn: exit code, output and errors of each.

    As in a shell, `NAME=value` before a command is a setting for it alone.
    """
    done = run_forked([sys.executable, "-c", _SESSION], home, stdin=json.dumps(commands), **settings)
    assert done.returncode == 0, done.stderr
    return [(code, out, err) for code, out, err in json.loads(done.stdout)]
