"""`vital-tracking abuse` and `health`: found, acted on, marked and silenced by hand; and how tenants fare."""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime, timedelta
from io import StringIO

from tests.acceptance.cli.helpers import Several, fine, refused
from vital_tracking import VitalTracker


def test_abuse_is_found_met_and_marked(several: Several, tracker: VitalTracker) -> None:
    """If this failed, an admin without a browser could do nothing about a stolen key."""
    start = datetime.now(UTC) - timedelta(minutes=3)
    with tracker.conversation(user_id="u-1", organization_id="acme"):
        for number in range(130):
            tracker.record(
                provider="openai",
                model="gpt-4o",
                prompt_tokens=10,
                completion_tokens=1,
                started_at=start + timedelta(seconds=number),
            )
    assert tracker.flush().complete
    scanned, listed, shown, blocked, budgets, again, told, settings, opened, ruled, exported, nothing, healthy = (
        several(
            ["abuse", "scan"],
            ["abuse", "list", "--state", "open", "--json"],
            ["abuse", "show", "1"],
            ["abuse", "act", "1", "block", "--for", "2h", "--why", "stolen key", "--yes"],
            ["budgets", "list", "--json"],
            ["abuse", "mark", "1", "--why", "the nightly import"],
            ["abuse", "scan", "--json"],
            ["abuse", "settings", "--json"],
            ["abuse", "reopen", "1"],
            ["abuse", "rule", "throttle", "--pattern", "user_calls", "--organization", "acme"],
            ["abuse", "list", "--csv"],
            ["abuse", "show", "99"],
            ["health", "--organization", "acme", "--json"],
        )
    )
    assert "1 new or worse" in fine(scanned)
    [finding] = json.loads(fine(listed))
    assert (finding["pattern"], finding["subject"], finding["severity"]) == ("user_calls", "u-1", "low")
    assert "130 calls in 5 minutes" in fine(shown)
    assert "select * from token_usage_logs" in shown.stdout
    assert "block until" in fine(blocked)
    [budget] = json.loads(fine(budgets))
    assert (budget["entity_id"], budget["action"], budget["daily_limit"]) == ("u-1", "block", "0")
    assert "false alarm" in fine(again)
    assert json.loads(fine(told))["silenced"] == 1
    assert [mark["silenced"] for mark in json.loads(fine(settings))["marks"]] == [1]
    assert len(json.loads(settings.stdout)["patterns"]) == 12
    assert ": open" in fine(opened)
    assert "rule: throttle for 1:00:00, user_calls from high on, acme" in fine(ruled)
    assert [row["state"] for row in csv.DictReader(StringIO(fine(exported)))] == ["open"]
    assert "none with the id 99" in refused(nothing)
    [tenant] = json.loads(fine(healthy))["rows"]
    assert (tenant["organization_id"], tenant["performance"], tenant["is_new"]) == ("acme", "100.00", True)
