"""`vital-tracking members`: who belongs to an organization, made, promoted and removed by hand, and noted in the audit."""

from __future__ import annotations

import csv
import json
from io import StringIO

from tests.acceptance.cli.helpers import Cli, Several, fine, refused
from vital_tracking import Agent, VitalTracker

ACME = ("--organization", "acme")


def test_members_are_added_promoted_demoted_and_removed(several: Several) -> None:
    """If this failed, the first admin of an organization could be made in SQL alone."""
    empty, added, admin, listed, auditor, mistaken, last, forced, gone, after, audit = several(
        ["members", "list"],
        ["members", "add", "u-1", *ACME],
        ["members", "add", "u-2", *ACME, "--role", "admin", "--json"],
        ["members", "list", *ACME, "--json"],
        ["members", "promote", "u-1", *ACME, "--to", "auditor"],
        ["members", "add", "u-1", *ACME],
        ["members", "remove", "u-2", *ACME, "--yes"],
        ["members", "demote", "u-2", *ACME, "--force"],
        ["members", "remove", "u-2", *ACME, "--yes"],
        ["members", "list", "--csv"],
        ["export", "audit", "-"],
    )
    assert "vital-tracking members add" in fine(empty)
    assert "u-1 is now a member of organization acme" in fine(added)
    assert json.loads(fine(admin))["after"] == "admin"
    assert [(row["user_id"], row["role"]) for row in json.loads(fine(listed))] == [("u-2", "admin"), ("u-1", "member")]
    assert "u-1 is now an auditor of organization acme (was member)" in fine(auditor)
    assert "members promote or demote" in refused(mistaken)
    assert "the last admin" in refused(last)
    assert "--force" in refused(last)
    assert "u-2 is now a member" in fine(forced)
    assert "u-2 is no longer in organization acme (was member)" in fine(gone)
    assert [row["user_id"] for row in csv.DictReader(StringIO(fine(after)))] == ["u-1"]
    noted = [
        row["operation"] for row in csv.DictReader(StringIO(fine(audit))) if row["table_name"] == "organization_members"
    ]
    assert noted == ["insert", "insert", "update", "refused", "refused", "update", "delete"]


def test_a_member_needs_an_organization_and_a_role_that_there_is(several: Several) -> None:
    nowhere, by_setting, unknown, nobody, empty = several(
        ["members", "add", "u-1"],
        ["VITAL_ORGANIZATION_ID=acme", "members", "add", "u-1"],
        ["members", "add", "u-2", *ACME, "--role", "amdin"],
        ["members", "promote", "u-9", *ACME],
        ["members", "add", " ", *ACME],
    )
    assert "--organization" in refused(nowhere, code=2)
    assert "organization acme" in fine(by_setting)
    assert "did you mean admin?" in refused(unknown, code=2)
    assert "members add" in refused(nobody)
    assert "is empty" in refused(empty, code=2)


def test_values_that_were_seen_complete_an_option(cli: Cli, tracker: VitalTracker) -> None:
    """If this failed, ids would be copied from tables by hand."""
    tracker.record(provider="openai", model="gpt-4o-mini", prompt_tokens=1, completion_tokens=1, agent=Agent("cardio"))
    assert tracker.flush().complete

    def complete(words: str) -> list[str]:
        asked = {
            "_VITAL_TRACKING_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": len(words.split(" ")) - 1,
        }
        return sorted(fine(cli(**asked)).split())

    assert complete("vital-tracking calls --model gpt-4") == ["gpt-4o-mini"]
    assert complete("vital-tracking export --agent car") == ["cardio"]
    assert complete("vital-tracking members add u-1 --role a") == ["admin", "auditor"]
    assert complete("vital-tracking calls --status ab") == ["abandoned"]
    with_none = {
        "_VITAL_TRACKING_COMPLETE": "complete_bash",
        "COMP_WORDS": "vital-tracking calls --model ",
        "COMP_CWORD": 3,
    }
    assert fine(cli(VITAL_DATABASE_URL="postgresql://127.0.0.1:1/away", **with_none)).split() == []
