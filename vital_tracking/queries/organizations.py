"""Which organizations there are. None is made: one is there once anything names it, so a typing error would make another one."""

from __future__ import annotations

from collections.abc import Collection

from typing_extensions import TypedDict

from vital_tracking.core.closest import closest
from vital_tracking.queries.answers import answer_type, typed
from vital_tracking.stores import Store


@answer_type
class _Unknown(TypedDict):
    unknown: list[str]
    known: list[str]


def unknown_organizations(store: Store, names: Collection[str]) -> dict[str, list[str]]:
    """Of these organizations those that nothing names yet, each with the known ones that may be meant, the closest first.

    For operators alone: it tells of all organizations. Raises StoreError.
    """
    if not names:
        return {}
    found = typed(_Unknown, store.call("unknown_organizations_v1", names=sorted(names)))
    return {name: closest(name, found["known"]) for name in found["unknown"]}
