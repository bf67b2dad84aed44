"""`vital-tracking reports`: saved reports are shown, scheduled and sent by hand and by cron."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tests.acceptance.cli.helpers import Several, fine, refused

Rows = Callable[..., list[dict[str, Any]]]

NOBODY = "VITAL_REPORT_CHANNELS=finance=json://nobody:Geheim-7391@127.0.0.1:1/x"


def test_reports_are_listed_shown_scheduled_sent_and_removed(several: Several, rows: Rows) -> None:
    """If this failed, a report could be mailed by SQL alone, or its channel's password would be on the screen."""
    rows(
        """insert into saved_reports (owner, name, asked) values (null, 'by model', '[["by", "model"]]') returning id"""
    )
    rows("""insert into saved_reports (owner, name, asked) values ('u-1', 'mine', '[]') returning id""")
    answers = several(
        ["reports", "show", "by model"],
        ["reports", "show", "mine", "--owner", "u-1", "--format", "html"],
        ["reports", "show", "by modle"],
        ["reports", "schedule", "by model"],
        [NOBODY, "reports", "schedule", "by model", "--to", "finanse"],
        [NOBODY, "reports", "schedule", "by model", "--to", "finance", "--timezone", "Europe/Berlin", "--hour", "7"],
        [NOBODY, "reports", "schedule", "mine", "--owner", "u-1", "--to", "finance", "--every", "month", "--day", "31"],
        [NOBODY, "reports", "send", "--due"],
        [NOBODY, "reports", "send", "by model", "--json"],
        ["reports", "send"],
        ["reports", "list"],
        ["reports", "show", "by model", "--json"],
        ["reports", "unschedule", "mine", "--owner", "u-1", "--json"],
        ["reports", "remove", "by model", "--yes"],
        ["reports", "list", "--json"],
        [
            "reports",
            "summary",
            "--month",
            "--organization",
            "acme",
            "--timezone",
            "Asia/Tokyo",
            "--save",
            "acme, monthly",
        ],
        [NOBODY, "reports", "schedule", "summary", "--to", "finance", "--every", "month", "--timezone", "Asia/Tokyo"],
        [NOBODY, "reports", "schedule", "caches", "--to", "finance", "--every", "day", "--json"],
        ["reports", "show", "summary", "--json"],
        ["reports", "show", "acme, monthly", "--format", "html"],
        ["reports", "show", "caches"],
        ["reports", "summary", "--week", "--month"],
    )
    shown, html, misspelt, nowhere, typo, weekly, monthly, none_due, sent, what, listed, told, off, gone, left = (
        answers[:15]
    )
    summary, monthly_summary, caches, kept, saved, falls, both = answers[15:]
    assert "No calls in this time" in fine(shown)
    assert fine(html).strip().startswith("<!doctype html>")
    assert "did you mean by model?" in refused(misspelt)
    assert "VITAL_REPORT_CHANNELS" in refused(nowhere, code=2)
    assert "did you mean finance?" in refused(typo, code=2)
    assert "by model goes to finance, first on" in fine(weekly)
    assert "mine goes to finance" in fine(monthly)
    assert "Nothing is due" in fine(none_due)
    assert sent.returncode == 1
    [line] = json.loads(sent.stdout)
    assert (line["name"], line["delivered"]) == ("by model", False)
    assert "--due" in refused(what, code=2)
    assert "Mondays at 07:00 (Europe/Berlin)" in fine(listed)
    assert "on day 31 of the month at 08:00 (UTC)" in fine(listed)
    assert "No channel of this machine: finance" in fine(listed)
    assert json.loads(fine(told))["asked"] == [["by", "model"]]
    assert json.loads(fine(off)) == {"name": "mine", "owner": "u-1", "unscheduled": True}
    assert "is removed" in fine(gone)
    assert [row["name"] for row in json.loads(fine(left))] == ["mine"]
    assert "(Asia/Tokyo), organization acme, against" in fine(summary)
    assert "summary goes to finance" in fine(monthly_summary)
    assert json.loads(fine(caches))["channel"] == "finance"
    told_summary = json.loads(fine(kept))
    assert dict(told_summary["asked"]) == {"report": "summary", "period": "month", "timezone": "Asia/Tokyo"}
    assert (told_summary["schedule"]["every"], told_summary["schedule"]["day"]) == ("month", 1)
    assert "organization acme" in fine(saved)
    assert "No hit rate fell" in fine(falls)
    assert "two times" in refused(both, code=2)
    assert not [answer for answer in answers if "Geheim" in answer.stdout + answer.stderr]
