"""`plans`, `subscriptions`, `quotas` and `rate-limits`, as they are typed."""

from __future__ import annotations

import json
from pathlib import Path

from tests.acceptance.cli.helpers import Several, fine, refused


def test_who_is_on_which_plan_from_the_command_line(several: Several, tmp_path: Path) -> None:
    """If this failed, a typing error would make a plan, or leave somebody on one, without a word."""
    customers = tmp_path / "customers.csv"
    customers.write_text("entity_id,plan,organization_id\nu-2,team,o-1\nu-3,gold,o-1\n", encoding="utf-8")
    done = several(
        ["plans", "set", "profesional", "--price", "59"],
        ["plans", "set", "team", "--calls", "5000", "--tokens", "unlimited", "--calls-per-minute", "60"],
        ["plans", "list", "--json"],
        ["subscriptions", "set", "user", "u-1", "team", "--organization", "o-1", "--enforced"],
        ["subscriptions", "end", "user", "u-1"],
        ["subscriptions", "import", str(customers)],
        ["subscriptions", "list"],
        ["quotas", "--subscribers"],
        ["rate-limits"],
        ["subscriptions", "end", "user", "u-1", "--organization", "o-1"],
        ["subscriptions", "end", "user", "u-1", "--organization", "o-1"],
    )
    typed, made, plans, put, elsewhere, imported, listed, used, minutes, ended, again = done
    assert "There is no plan profesional; did you mean professional?" in refused(typed)
    assert "5,000 calls and unlimited tokens a month, 60 calls a minute" in fine(made)
    assert {plan["name"] for plan in json.loads(fine(plans))} == {
        "trial",
        "starter",
        "professional",
        "enterprise",
        "team",
    }
    assert "u-1" in fine(put)
    assert "On plan team with --organization o-1" in refused(elsewhere)
    assert imported.returncode == 1
    assert "gold" in imported.stdout + imported.stderr
    assert all(who in fine(listed) for who in ("u-1", "u-2"))
    assert "u-1" in fine(used)
    fine(minutes)
    assert "on no plan any more" in fine(ended)
    assert "on no plan in organization o-1" in refused(again)
