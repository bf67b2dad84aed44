"""What an installed wheel holds: without the repository beside it everything must still be found."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from vital_tracking.ids import new_id
from vital_tracking.migrate import find_migrations, migrations_dir

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    return next(folder.glob("*.whl"))


def test_the_wheel_carries_migrations_types_and_license(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    wanted = {f"vital_tracking/supabase/migrations/{path.name}" for path in migrations_dir().glob("*.sql")}
    assert wanted <= set(names)
    assert "vital_tracking/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if name.startswith(("tests", "benchmarks", "examples"))]


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


def test_migrations_run_in_the_order_of_their_names() -> None:
    versions = [migration.version for migration in find_migrations()]
    assert versions == sorted(set(versions))
    assert all(len(version) == 14 and version.isdigit() for version in versions)


def test_ids_are_uuid7_and_sort_by_time() -> None:
    ids = [new_id() for _ in range(1000)]
    assert ids == sorted(ids)
    assert len(set(ids)) == 1000
    assert {text[14] for text in ids} == {"7"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_children_mint_other_ids_than_each_other() -> None:
    """A collision would lose a call: its row would be taken for a duplicate."""
    new_id()
    reading, writing = os.pipe()
    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            os.write(writing, "".join(f"{new_id()}\n" for _ in range(200)).encode())
            os._exit(0)
        children.append(child)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        ids = pipe.read().split()
    for child in children:
        os.waitpid(child, 0)
    assert len(ids) == 800
    assert len(set(ids)) == 800
