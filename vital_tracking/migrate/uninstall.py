"""Takes everything that the migrations made out of a database, as SQL."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from vital_tracking.migrate.files import Migration
from vital_tracking.migrate.objects import objects_of

_TEMPLATE: Final = Path(__file__).with_suffix(".sql")


def uninstall_sql(migrations: Iterable[Migration]) -> str:
    """One statement that drops all tables, views and functions, with what is in them, and fails where others depend on them.

    The roles stay, since they belong to the whole server, and so does `auth` where the migrations made it.
    """
    made = objects_of(migrations)
    names = {kind: sorted(one.name for one in made if one.kind == kind) for kind in ("relation", "function")}
    return (
        _TEMPLATE.read_text(encoding="utf-8")
        .replace("'{relations}'", f"'{{{', '.join(names['relation'])}}}'")
        .replace("'{functions}'", f"'{{{', '.join(names['function'])}}}'")
    )
