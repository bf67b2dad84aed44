"""Where the spool of a database lies, and what in the spool belongs to it.

A database is known by the id that it keeps. Until a process has first spoken to it, the database is known by how it is reached:
its store's `identity`. Under the root lie, beside each other:

    database-<id>/          the spool of a database, once its id is known
    connection-<hash>/      the spool of what a connection leads to, as long as its id is not known; and, in the file `database`,
                            the id that was found behind the connection last
    <hash>/                 what earlier versions wrote: by a hash of the store's description

In each lies a folder for each process, and the dead letters. A process goes on with the folder that it has begun, and notes there
which database it has spoken to, so nothing is moved that somebody has open. Whoever looks for what dead processes have left looks
into the folders of all processes, and takes those that belong to its own database:

1. those that note this database's id;
2. of those that note no id, those that lie in this database's folder, or in one named by its connection (or, of earlier versions,
   by its description);
3. and, of those that note no id, those that note the same connection.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import tempfile
from pathlib import Path
from typing import Final
from uuid import UUID

from vital_tracking.settings import Settings, default_data_dir
from vital_tracking.spool.owner import about_owner, make_private, owners_in
from vital_tracking.spool.segment import CAN_LOCK

logger = logging.getLogger("vital_tracking.delivery")

_DATABASE: Final = "database"


class SpoolLocation:
    """The place in a spool of the database that a store leads to: `identity` and `description` are the store's."""

    def __init__(self, root: Path, identity: str, description: str) -> None:
        self.root = root
        self.identity = identity
        self.description = description
        self._connection_folder = root / f"connection-{_hash(identity)}"
        self._former_folder = root / _hash(description)
        self.database_id = self._known_id()
        self.confirmed = False
        """Whether the database itself has told this process its id."""

    @property
    def folder(self) -> Path:
        """The folder for what is spooled from now on."""
        return self._connection_folder if self.database_id is None else self.root / f"database-{self.database_id}"

    @property
    def former_folders(self) -> tuple[Path, ...]:
        """Other folders with calls for this database: from before its id was known, and from earlier versions."""
        return tuple(path for path in (self._connection_folder, self._former_folder) if path != self.folder)

    @property
    def about(self) -> dict[str, str]:
        """What a process notes in its own folder: for which store, connection and database its calls are."""
        about = {"store": self.description, "connection": self.identity}
        return about | {"database": self.database_id} if self.confirmed and self.database_id is not None else about

    def learn(self, database_id: str) -> bool:
        """Take over the id that the database has told. Returns whether this connection led to another database before."""
        known, self.database_id, self.confirmed = self.database_id, database_id, True
        if database_id != known:
            # Two processes may do this at once: each writes a file of its own, and the last one counts.
            path = self._connection_folder / _DATABASE
            written = path.with_name(f"{_DATABASE}.{os.getpid()}")
            with contextlib.suppress(OSError):  # the next process asks again
                make_private(self._connection_folder)
                written.touch(mode=0o600)
                written.write_text(database_id)
                written.replace(path)
        return known is not None and database_id != known

    def owns(self, owner: Path) -> bool:
        """Whether what is in the folder of a process belongs to this database."""
        about = about_owner(owner)
        database_id = about.get("database")
        if database_id is not None:
            return bool(database_id == self.database_id)
        return owner.parent in (self.folder, *self.former_folders) or about.get("connection") == self.identity

    def owners(self) -> list[Path]:
        """The folders of all processes, living and dead, whose calls belong to this database; the oldest first."""
        owners = [owner for folder in folders_in(self.root) for owner in owners_in(folder)]
        return sorted(filter(self.owns, owners), key=lambda owner: owner.name)

    def is_in_doubt(self) -> bool:
        """Whether a process in the spool notes an id that may be this database's: only the database itself can tell."""
        return not self.confirmed and any(
            about_owner(owner).get("database") not in (None, self.database_id)
            for folder in folders_in(self.root)
            for owner in owners_in(folder)
        )

    def _known_id(self) -> str | None:
        """The id that was found behind this connection last."""
        with contextlib.suppress(OSError, ValueError):
            return str(UUID((self._connection_folder / _DATABASE).read_text()))
        return None


def spool_root(settings: Settings) -> Path:
    """Where the spools of all databases lie."""
    root = settings.spool_dir or (settings.data_dir or default_data_dir()) / "spool"
    return root.absolute()  # the working folder may change


def spool_location(settings: Settings, identity: str, description: str) -> SpoolLocation | None:
    """The place in the spool of the database that a store leads to; None where there is no spool, or can be none."""
    if not settings.spool or not CAN_LOCK:
        return None
    root = spool_root(settings)
    if settings.spool_dir is None and not _usable(root):
        root = Path(tempfile.gettempdir()) / f"vital_tracking-{os.getuid() if hasattr(os, 'getuid') else 0}" / "spool"
        if not (_usable(root.parent) and _usable(root)):  # in a folder that all share, another user may have been first
            logger.warning("There is no folder for the spool; name one: VITAL_SPOOL_DIR. Calls wait in memory alone.")
            return None
        logger.warning("The spool is in %s, which may not last; name a better folder: VITAL_SPOOL_DIR.", root)
    return SpoolLocation(root, identity, description)


def fault_of(root: Path, *, to_write: bool = False) -> str | None:
    """Why a folder can be no spool for this user to read, or to write; None where it can, or can be made."""
    try:
        there = next(folder for folder in (root, *root.parents) if _is_known(folder))
        is_folder = there.is_dir()
    except OSError as error:  # a name that is too long, or a folder above it that this user may not look into
        return f"it cannot be looked at ({error.strerror or type(error).__name__})"
    name = "it" if there == root else str(there)
    if not is_folder:
        return f"{name} is no folder"
    if there != root and not os.access(there, os.W_OK | os.X_OK):
        return f"this user may make no folder in {there}"
    if there == root and not os.access(there, os.R_OK | os.X_OK):
        return "it is another user's: run this as the user whose processes write it"
    return "this user may not write to it" if to_write and not os.access(there, os.W_OK | os.X_OK) else None


def _is_known(folder: Path) -> bool:
    """Whether something is there; OSError where that cannot be told."""
    try:
        os.lstat(folder)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def folders_in(root: Path) -> list[Path]:
    """The folders of databases in a spool."""
    try:
        return sorted(path for path in root.iterdir() if path.is_dir())
    except OSError:
        return []


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:16]


def _usable(folder: Path) -> bool:
    """Whether a folder is this user's, who alone may write to it; made where it is missing."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        stat = os.lstat(folder)
        mine = not hasattr(os, "getuid") or (stat.st_uid == os.getuid() and not stat.st_mode & 0o022)
        return mine and os.access(folder, os.W_OK | os.X_OK)
    except OSError:
        return False
