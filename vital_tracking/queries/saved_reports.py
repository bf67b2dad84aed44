"""Reports that somebody keeps by name: what the page `explore` was asked. Each sees his own, the operators theirs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from vital_tracking.stores.protocol import Store


@dataclass(frozen=True, slots=True)
class SavedReport:
    """A report: its name, and what is asked, as pairs of a parameter and its value."""

    name: str
    asked: tuple[tuple[str, str], ...]


def saved_reports(store: Store) -> list[SavedReport]:
    """The reports of whoever asks, by name."""
    return [_report(row) for row in store.call("saved_reports_v1")]


def save_report(store: Store, name: str, asked: Iterable[tuple[str, str]]) -> SavedReport:
    """Keep a report; one of the same name asks this from now on. Raises StoreRejected for a name or question that is too long."""
    return _report(store.call("save_report_v1", name=name, asked=json.dumps(list(asked))))


def remove_report(store: Store, name: str) -> bool:
    """Remove a report of one's own; False where there is none of that name."""
    return bool(store.call("remove_report_v1", name=name))


def _report(row: dict[str, object]) -> SavedReport:
    asked = row["asked"]
    pairs = asked if isinstance(asked, list) else []
    return SavedReport(str(row["name"]), tuple((str(name), str(value)) for name, value in pairs))
