"""What an installed wheel holds: without the repository beside it everything must still be found."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

from tests.support.folders import REPOSITORY
from vital_tracking.migrate import find_migrations, migrations_dir


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
    )
    return next(folder.glob("*.whl"))


def test_the_wheel_carries_migrations_types_and_license(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    wanted = {f"vital_tracking/supabase/migrations/{path.name}" for path in migrations_dir().glob("*.sql")}
    assert wanted <= set(names)
    assert "vital_tracking/py.typed" in names
    web = {
        f"vital_tracking/web/{name}" for name in ("static/charts.js", "static/charts.NOTICE.txt", "templates/page.html")
    }
    assert web <= set(names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if name.startswith(("tests", "benchmarks", "examples"))]


def test_the_wheel_registers_the_command_and_pytest_s_fixtures(wheel: Path) -> None:
    """If this failed, the tests in docs/testing.md would end with "fixture 'vital_tracker' not found"."""
    archive = zipfile.ZipFile(wheel)
    [name] = [name for name in archive.namelist() if name.endswith("/entry_points.txt")]
    registered = archive.read(name).decode()
    assert "[pytest11]\nvital_tracking = vital_tracking.testing.plugin" in registered
    assert "vital-tracking = vital_tracking.cli:main" in registered


def test_the_package_page_leads_to_the_repository(wheel: Path) -> None:
    """If this failed, every link and picture of the README would be broken where most people see it first."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = message_from_bytes(archive.read(name))
    addresses = dict(url.split(", ", 1) for url in metadata.get_all("Project-URL", []))
    assert {"Repository", "Documentation", "Changelog", "Issues"} <= set(addresses)
    assert all(address.startswith(addresses["Repository"]) for address in addresses.values())
    shown = metadata.get_payload()
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)]+)\)", str(shown))
    written = re.findall(r"\]\(([^)]+)\)", readme)
    assert len(targets) == len(written)
    for target, path in zip(targets, written, strict=True):
        if path.startswith(("#", "https://")):
            assert target == path
        else:
            assert re.fullmatch(rf"{addresses['Repository']}/(blob|raw|tree)/main/{re.escape(path)}", target)
    assert f"{addresses['Repository']}/raw/main/docs/demo.svg" in targets
    assert f"{addresses['Repository']}/tree/main/examples" in targets


def test_an_installed_wheel_finds_its_migrations(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    script = (
        "import vital_tracking, vital_tracking.migrate as m; print(vital_tracking.__file__, len(m.find_migrations()))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    assert answer[0].startswith(str(tmp_path))
    assert int(answer[1]) == len(find_migrations())


def test_the_page_of_the_installation_says_what_each_dependency_is_for() -> None:
    """Whoever weighs an installation would have to guess why a package is in it."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    page = (REPOSITORY / "docs" / "install.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w-]+)`", "\n".join(line for line in page.splitlines() if line.startswith("| `"))))
    needed = {re.split(r"[^\w-]", text)[0] for text in project["dependencies"]}
    assert needed | set(project["optional-dependencies"]) <= named
