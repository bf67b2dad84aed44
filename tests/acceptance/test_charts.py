"""The bundle of charts is what its lock file gives, with its licences beside it."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.support.house import PACKAGE, REPOSITORY
from tests.support.node import run_npm

BUILT = ("charts.js", "charts.NOTICE.txt")


def test_the_charts_are_what_the_lock_file_gives(tmp_path: Path) -> None:
    """If this failed, nobody could say what the script is that runs in the browsers of those who look at the pages."""
    folder = tmp_path / "charts"
    shutil.copytree(REPOSITORY / "charts", folder, ignore=shutil.ignore_patterns("node_modules"))
    made = tmp_path / "vital_tracking" / "web" / "static"
    made.mkdir(parents=True)
    run_npm("ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", folder=folder)
    run_npm("run", "build", folder=folder)
    for name in BUILT:
        assert (made / name).read_bytes() == (PACKAGE / "web" / "static" / name).read_bytes(), f"{name}: npm run build"


def test_the_licences_of_the_charts_are_there() -> None:
    """If this failed, we would hand on others' work without their licence."""
    text = (PACKAGE / "web" / "static" / "charts.NOTICE.txt").read_text(encoding="utf-8")
    for words in ("Apache License", "Version 2.0", "The Apache Software Foundation", "BSD 3-Clause", "Baidu Inc."):
        assert words in text
