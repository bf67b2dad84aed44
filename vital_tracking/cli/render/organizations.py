"""Organizations that commands write to: a typing error is told before it makes another one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, TypeAlias

import typer

from vital_tracking.cli.render.options import either
from vital_tracking.errors import VitalError
from vital_tracking.queries.organizations import unknown_organizations
from vital_tracking.stores import Store

New: TypeAlias = Annotated[
    bool, typer.Option("--new", help="The organization is new, though it is called much like one that there is.")
]


def mistyped(store: Store, names: Iterable[str | None], *, new: bool = False) -> dict[str, str]:
    """What is wrong with organizations that nothing names yet, and that are called much like others, by their names.

    One that is like no other is taken for new; with `new` all are.
    """
    if new:
        return {}
    wanted = {name for name in names if name}
    return {
        name: f"Nothing is known of organization {name}; did you mean {either(meant) if meant[1:] else meant[0]}?"
        for name, meant in unknown_organizations(store, wanted).items()
        if meant
    }


def check_organizations(store: Store, names: Iterable[str | None], *, new: bool = False) -> None:
    """Refuse an organization that is probably mistyped. Raises VitalError, which says how one that is new is named."""
    for problem in mistyped(store, names, new=new).values():
        raise VitalError(f"{problem} If it is a new one, say so: --new")
