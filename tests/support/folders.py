"""Where the repository lies, and where tests keep what need not outlive them: in memory where there is room."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

_MEMORY = Path("/dev/shm")
_ROOM_BYTES = 2 << 30  # a server of each worker takes some 200 MiB; in a container there are often 64 MiB in all


@cache
def quick_folder() -> Path:
    """The parent of folders that tests make: waiting for a disk takes a good part of what they do with databases."""
    try:
        mounted = [line.split()[1:3] for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
        if [str(_MEMORY), "tmpfs"] in mounted and shutil.disk_usage(_MEMORY).free > _ROOM_BYTES:
            tempfile.TemporaryFile(dir=_MEMORY).close()
            return _MEMORY
    except OSError:
        pass
    return Path(tempfile.gettempdir())


@contextmanager
def quick_temporary(prefix: str) -> Iterator[Path]:
    """A folder there, for as long as the block."""
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=quick_folder()))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
