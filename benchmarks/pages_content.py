"""What the overview shows, as data that other stacks can show, too: cards, and parts with their tables and charts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vital_tracking.queries.explore import Period
from vital_tracking.stores.postgres import PostgresStore
from vital_tracking.web.asked import Asked
from vital_tracking.web.page import Part
from vital_tracking.web.pages import overview
from vital_tracking.web.view import View

DAYS = 30


def content(url: str) -> dict[str, Any]:
    """The overview of a month over a database."""
    store = PostgresStore(url)
    try:
        page = overview.page(View(store, Asked(Period.last_days(DAYS), "day", {})))
    finally:
        store.close()
    return {
        "title": page.title,
        "lead": page.lead,
        "cards": [{"label": card.label, "value": card.value, "note": card.note} for card in page.cards],
        "parts": [_part(part) for part in page.parts],
    }


def _part(part: Part) -> dict[str, Any]:
    chart = part.chart
    return {
        "title": part.title,
        "columns": [{"name": column.name, "label": column.label} for column in part.columns],
        "rows": [{column.name: column.text(row) for column in part.columns} for row in part.rows],
        "chart": None
        if chart is None
        else {
            "kind": chart.kind,
            "horizontal": chart.horizontal,
            "x": [str(row[chart.x]) for row in part.rows],
            "y": [
                {"name": name, "values": [None if row[name] is None else float(row[name]) for row in part.rows]}
                for name in chart.y
            ],
            "series": None if chart.series is None else [str(row[chart.series]) for row in part.rows],
        },
    }


def read(file: str) -> dict[str, Any]:
    """The same from a file."""
    found: dict[str, Any] = json.loads(Path(file).read_text(encoding="utf-8"))
    return found
