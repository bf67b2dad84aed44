"""What the acceptance tests share: programs run as a user runs them, in a clean environment."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
COMMAND = Path(sys.executable).with_name("vital-tracking")

_SETTINGS = ("VITAL_", "SUPABASE_", "LANGSMITH_", "LANGCHAIN_", "OPENAI_", "ANTHROPIC_", "PG")
_KEY = re.compile(r"_API_KEY$")


def environment(home: Path, **settings: object) -> dict[str, str]:
    """This process's environment without any setting or key, and with `settings`; wide enough for every table."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(_SETTINGS) and not _KEY.search(name)
    }
    plain = {"HOME": str(home), "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb", "TZ": "UTC"}
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
