"""The wheel in an empty environment, on every Python that is supported and here: what a new user does first.

If this failed, the two commands of the README would end in a traceback.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.support.folders import REPOSITORY
from vital_tracking import __version__

pytestmark = pytest.mark.timeout(900)

SUPPORTED = ("3.11", "3.12", "3.13")
EXTRAS = "cli,local,agents,web"


@cache
def interpreter(version: str) -> str | None:
    """A Python of that version: on the path, or one of pyenv's."""
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    pyenv = sorted((Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python"), reverse=True)
    for candidate in [sys.executable] * (own == version) + [f"python{version}", *map(str, pyenv)]:
        try:
            asked = subprocess.run([candidate, "-V"], capture_output=True, text=True, check=False)
        except OSError:
            continue
        if asked.returncode == 0 and asked.stdout.startswith(f"Python {version}."):
            return candidate
    return None


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=REPOSITORY, check=True, capture_output=True)
    [built] = folder.glob("*.whl")
    return built


@pytest.mark.parametrize("version", SUPPORTED)
def test_the_demo_runs_where_only_the_wheel_is_installed(version: str, wheel: Path, tmp_path: Path) -> None:
    python = interpreter(version)
    if python is None:
        pytest.skip(f"no Python {version} is here")
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    outside |= {"VITAL_DATA_DIR": str(tmp_path / "data"), "NO_COLOR": "1", "COLUMNS": "120"}
    outside.pop("VITAL_SPOOL_DIR", None)  # a test's own

    def run(*command: str) -> str:
        ran = subprocess.run(
            command, cwd=tmp_path, env=outside, capture_output=True, text=True, timeout=600, check=False
        )
        assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-4000:]
        return ran.stdout

    run(python, "-m", "venv", "venv")
    tools = tmp_path / "venv" / "bin"
    pip = (str(tools / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile")
    run(*pip, f"vital-tracking[{EXTRAS}] @ {wheel.as_uri()}")
    assert run(str(tools / "vital-tracking"), "--version").split()[-1] == __version__
    shown = run(str(tools / "vital-tracking"), "demo")
    assert re.search(r"\$\d+\.\d{2}", shown)
    assert "Traceback" not in shown
    assert "22 calls" in run(str(tools / "vital-tracking"), "doctor")
