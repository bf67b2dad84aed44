"""`vital-tracking stop`: stops the embedded PostgreSQL."""

from __future__ import annotations

from vital_tracking.cli.render.console import say
from vital_tracking.settings import Settings
from vital_tracking.stores.embedded import EmbeddedStore, server_dir


def stop() -> None:
    """Stop the embedded PostgreSQL, which otherwise goes on running for the next process. Data are kept.

    It is the embedded one that is stopped, whatever else is configured. The next command that needs it starts it again.
    """
    settings = Settings.from_env()
    folder = server_dir(settings.data_dir, settings.postgres_version)
    if not (folder / "postmaster.pid").exists():
        say(f"no embedded PostgreSQL is running in {folder}")
        return
    store = EmbeddedStore(settings.data_dir, version=settings.postgres_version, migrated=False)
    store.stop()
    say(f"stopped the {store.description}")
