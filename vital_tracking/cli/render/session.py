"""What commands have in common: the store of the environment, and options that mean the same everywhere."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Annotated, TypeAlias

import typer

from vital_tracking.cli.render.options import one_format
from vital_tracking.settings import Settings
from vital_tracking.stores import Store, open_store

Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON; amounts are text.", callback=one_format)]
Csv: TypeAlias = Annotated[bool, typer.Option("--csv", help="Print CSV.", callback=one_format)]
Yes: TypeAlias = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@contextlib.contextmanager
def opened(settings: Settings | None = None) -> Iterator[Store]:
    """The store that the settings name, by default those of the environment; closed at the end, whatever happens."""
    store = open_store(settings or Settings.from_env())
    try:
        yield store
    finally:
        store.close()
