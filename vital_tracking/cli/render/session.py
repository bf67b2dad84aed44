"""What commands have in common: the store of the environment, and options that mean the same everywhere."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Annotated, TypeAlias

import typer

from vital_tracking.cli.render.options import named, one_format
from vital_tracking.clickhouse.reading import open_reading_store
from vital_tracking.settings import Settings
from vital_tracking.stores import Store

Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON; amounts are text.", callback=one_format)]
Csv: TypeAlias = Annotated[bool, typer.Option("--csv", help="Print CSV.", callback=one_format)]
Yes: TypeAlias = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def one_organization(given: str | None) -> str:
    """The organization that is named, else the one of the settings."""
    organization = given if given is not None else Settings.from_env().organization_id
    if organization is None:
        raise typer.BadParameter(
            "of which organization? --organization acme, or set VITAL_ORGANIZATION_ID; which have calls: "
            "vital-tracking report organizations"
        )
    return named(organization, "--organization")


@contextlib.contextmanager
def opened(settings: Settings | None = None) -> Iterator[Store]:
    """The store that the settings name, by default those of the environment; closed at the end, whatever happens."""
    store = open_reading_store(settings or Settings.from_env())
    try:
        yield store
    finally:
        store.close()


@contextlib.contextmanager
def opened_if_there() -> Iterator[Store | None]:
    """The store that the settings name; None where they name none and there is no embedded database yet: none is made."""
    from vital_tracking.stores.embedded import server_dir

    settings = Settings.from_env()
    if settings.store == "embedded" and not server_dir(settings.data_dir, settings.postgres_version).exists():
        yield None
        return
    with opened(settings) as store:
        yield store
