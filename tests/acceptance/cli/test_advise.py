"""`vital-tracking advise`: found, shown whole, decided about, applied, sent as Markdown, and measured by hand."""

from __future__ import annotations

import csv
import json
from io import StringIO
from typing import Any

from tests.acceptance.cli.helpers import Several, fine, refused
from tests.sql.advice_rows import a_recommendation, an_advice, an_id
from vital_tracking import VitalTracker
from vital_tracking.queries.recommendations import save_advice
from vital_tracking.settings import Settings
from vital_tracking.stores import open_store

BUDGET = "vital-tracking budgets set user --entity u-1 --daily 4 --new"


def seeded(settings: Settings) -> None:
    """Two pieces of advice, of which one sets a budget."""
    with open_store(settings) as store:
        save_advice(store, an_advice(a_recommendation(1), a_recommendation(2, type="plan_optimization", command=BUDGET)))


def test_advice_is_found_shown_decided_about_applied_and_measured(several: Several, tracker: VitalTracker) -> None:
    """If this failed, an admin without a browser could not follow any advice, nor learn what it saved."""
    tracker.record(provider="openai", model="gpt-4o", prompt_tokens=10, completion_tokens=1)
    assert tracker.flush().complete
    one, two = an_id(1), an_id(2)
    (looked,) = several(["advise", "--no-save", "--json"])
    found: dict[str, Any] = json.loads(fine(looked))
    assert {row["type"] for row in found["not_applicable"]} >= {"auto_scaling", "caching"}
    assert found["total_potential_savings"].endswith("/month")
