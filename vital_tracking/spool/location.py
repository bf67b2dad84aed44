"""Where the spool of a database lies."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from pathlib import Path

from vital_tracking.settings import Settings, default_data_dir
from vital_tracking.spool.segment import CAN_LOCK

logger = logging.getLogger("vital_tracking.delivery")


def spool_root(settings: Settings) -> Path:
    """Where the spools of all databases lie."""
    root = settings.spool_dir or (settings.data_dir or default_data_dir()) / "spool"
    return root.absolute()  # the working folder may change


def spool_folder(settings: Settings, database: str) -> Path | None:
    """The folder of a database's spool, by what its store calls it; None where there is none, or can be none."""
    if not settings.spool or not CAN_LOCK:
        return None
    name = hashlib.sha256(database.encode()).hexdigest()[:16]
    root = spool_root(settings)
    if settings.spool_dir is None and not _usable(root):
        root = Path(tempfile.gettempdir()) / f"vital_tracking-{os.getuid() if hasattr(os, 'getuid') else 0}" / "spool"
        if not (_usable(root.parent) and _usable(root)):  # in a folder that all share, another user may have been first
            logger.warning("There is no folder for the spool; name one: VITAL_SPOOL_DIR. Calls wait in memory alone.")
            return None
        logger.warning("The spool is in %s, which may not last; name a better folder: VITAL_SPOOL_DIR.", root)
    return root / name


def _usable(folder: Path) -> bool:
    """Whether a folder is this user's, who alone may write to it; made where it is missing."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        stat = os.lstat(folder)
        mine = not hasattr(os, "getuid") or (stat.st_uid == os.getuid() and not stat.st_mode & 0o022)
        return mine and os.access(folder, os.W_OK | os.X_OK)
    except OSError:
        return False
