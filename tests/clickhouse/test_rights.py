"""The rights that the documentation grants are enough, and are all that whoever fills a copy has."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def test_the_writer_of_the_documentation_fills_a_copy(database_url: str, tmp_path: Path) -> None:
    """If this failed, a copy would be refused with ACCESS_DENIED, at the latest where somebody is forgotten."""
    command = [sys.executable, "-m", "tests.clickhouse.as_writer", database_url, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    # What was not granted is refused (ACCESS_DENIED), so the grants are those that hold. The ten calls
    # of a person who is forgotten become one of nobody.
    assert json.loads(done.stdout) == {"refused": 497, "rows": [30, 21]}
