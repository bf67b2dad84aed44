"""A Redis of the test's own: Debian's redis-server on a socket, without files."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

HOW = "no Redis here: apt-get install redis-server"
_READY = "ready to accept connections"


@contextmanager
def running_redis() -> Iterator[str]:
    """The URL of a Redis that ends with the test. Skips where there is none, and fails in CI."""
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail(HOW)
        pytest.skip(HOW)
    with tempfile.TemporaryDirectory(prefix="redis") as folder:
        place = Path(folder) / "s"
        options = ["--port", "0", "--unixsocket", str(place), "--save", "", "--appendonly", "no", "--dir", folder]
        with subprocess.Popen([found, *options], stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            try:
                for line in server.stdout:
                    if _READY in line:
                        break
                else:
                    pytest.fail("Redis has ended before it was ready")
                yield f"redis+unix://{place}"
            finally:
                server.terminate()
