"""`vital-tracking advise`: found, shown whole, decided about, applied, told as Markdown, and measured by hand."""

from __future__ import annotations

import csv
import json
from io import StringIO

from tests.acceptance.cli.helpers import Several, fine, refused
from tests.sql.advice_rows import a_recommendation, an_advice, an_id
from vital_tracking import VitalTracker
from vital_tracking.queries.recommendations import save_advice

BUDGET = "vital-tracking budgets set user u-1 --daily 4"


def test_advice_is_found_shown_decided_about_applied_and_measured(several: Several, tracker: VitalTracker) -> None:
    """If this failed, an admin without a browser could not follow any advice, nor learn what it saved."""
    tracker.record(provider="openai", model="gpt-4o", prompt_tokens=10, completion_tokens=1, user_id="u-1")
    assert tracker.flush().complete
    small = {"low": "0", "expected": "0.00000028", "high": "1"}
    save_advice(
        tracker.store,
        an_advice(
            a_recommendation(1),
            a_recommendation(2, type="plan_optimization", command=BUDGET, saving=small, counted=False),
            a_recommendation(3, assumptions=["A cold cache."]),
        ),
    )
    one, two, three = an_id(1), an_id(2), an_id(3)
    listed, shown, taken, dismissed, applied, not_ours, budgets, decided, unknown, both = several(
        ["advise", "list", "--status", "open", "--csv"],
        ["advise", "show", three[:8]],
        ["advise", "take", one, "--why", "as of release 41"],
        ["advise", "dismiss", three, "--why", "quality counts here"],
        ["advise", "apply", two, "--yes"],
        ["advise", "apply", three, "--yes"],
        ["budgets", "list", "--json"],
        ["advise", "list", "--json"],
        ["advise", "show", "0123456789abcdef"],
        ["advise", "--json", "--markdown"],
    )
    rows = {row["id"]: row for row in csv.DictReader(StringIO(fine(listed)))}
    assert rows[two]["saving_expected"] == "0.00000028"
    assert "$10.00 to $20.00, $15.00 as expected" in fine(shown)
    assert "assumed: A cold cache." in shown.stdout
    assert "vital-tracking calls --since 2026-11-01 --until 2026-12-01 --model m-3" in shown.stdout
    assert "$10.00 to $20.00 a month were promised" in fine(taken)
    assert "dismissed" in fine(dismissed)
    assert BUDGET in fine(applied)
    assert "no setting of ours" in refused(not_ours)
    [budget] = json.loads(fine(budgets))
    assert (budget["entity_id"], budget["daily_limit"]) == ("u-1", "4")
    became = {row["id"]: (row["status"], row["reason"]) for row in json.loads(fine(decided))}
    assert became == {
        one: ("taken", "as of release 41"),
        two: ("taken", None),
        three: ("dismissed", "quality counts here"),
    }
    assert "no recommendation with the id 0123456789abcdef" in refused(unknown)
    assert "two forms of the same answer" in refused(both, code=2)

    tried, looked, told, again, nothing = several(
        ["advise", "--no-save", "--json"],
        ["advise"],
        ["advise", "--markdown"],
        ["advise", "reopen", three],
        ["advise", "--measure"],
    )
    found = json.loads(fine(tried))
    assert {row["type"] for row in found["not_applicable"]} >= {"auto_scaling", "caching", "model_switch"}
    assert found["total_potential_savings"].endswith("/month")
    assert "Nothing is advised that is not decided already." in fine(looked)
    assert "No auto scaling: " in looked.stdout
    assert "## What does not apply, and why" in fine(told)
    assert "open again" in fine(again)
    assert "Nothing is due" in fine(nothing)
