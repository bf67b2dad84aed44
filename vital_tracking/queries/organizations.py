"""Which organizations there are. None is made: one is there once anything names it, so a typing error would make another one."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from typing_extensions import TypedDict

from vital_tracking.core.closest import closest
from vital_tracking.queries.answers import answer_type, typed
from vital_tracking.stores import Store

_EACH: Final = "*"


@answer_type
class _Unknown(TypedDict):
    unknown: list[str]
    known: list[str]


def organizations_named(columns: Mapping[str, Any]) -> dict[str, str]:
    """The organizations that a budget or a subscription names, by the columns that name them.

    `organization_id` is the one in which it counts, `entity_id` the one that it stands on; `*`, each one, names none.
    """
    names = {"organization_id": columns.get("organization_id")}
    if columns.get("entity_type") == "organization":
        names["entity_id"] = columns.get("entity_id")
    return {column: name for column, name in names.items() if name and name != _EACH}


def unknown_organizations(store: Store, names: Collection[str]) -> dict[str, list[str]]:
    """Of these organizations those that nothing names yet, each with the known ones that may be meant, the closest first.

    For operators alone: it tells of all organizations. Raises StoreError.
    """
    if not names:
        return {}
    found = typed(_Unknown, store.call("unknown_organizations_v1", names=sorted(names)))
    return {name: closest(name, found["known"]) for name in found["unknown"]}
