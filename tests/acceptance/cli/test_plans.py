"""`plans`, `subscriptions`, `quotas` and `rate-limits`, as they are typed."""

from __future__ import annotations

import json
from pathlib import Path

from tests.acceptance.cli.helpers import Several, fine, refused


def test_who_is_on_which_plan_from_the_command_line(several: Several, tmp_path: Path) -> None:
    """If this failed, a typing error would make a plan, or leave somebody on one, without a word."""
    customers = tmp_path / "customers.csv"
    customers.write_text(
        "entity_id,plan,organization_id,reset_day\nu-2,team,north,\nu-3,gold,north,\nu-4,team,north,32\nu-5,team,nroth,\n,team\n",
        encoding="utf-8",
    )
    no_header = tmp_path / "other.csv"
    no_header.write_text("u-2,team\n", encoding="utf-8")
    done = several(
        ["plans", "set", "profesional", "--price", "59"],
        ["plans", "set", "team", "--calls", "5000", "--tokens", "unlimited", "--calls-per-minute", "60"],
        ["plans", "list", "--json"],
        ["subscriptions", "set", "user", "u-1", "team", "--organization", "north", "--enforced"],
        ["subscriptions", "end", "user", "u-1"],
        ["subscriptions", "import", str(customers)],
        ["subscriptions", "list"],
        ["quotas", "--subscribers"],
        ["rate-limits"],
        ["subscriptions", "end", "user", "u-1", "--organization", "north"],
        ["subscriptions", "end", "user", "u-1", "--organization", "north"],
        ["subscriptions", "set", "user", "u-6", "team", "--organization", "nort"],
        ["subscriptions", "set", "organization", "nort", "team"],
        ["subscriptions", "set", "organization", "nort", "team", "--new"],
        ["subscriptions", "import", str(customers), "--json", "--new"],
        ["subscriptions", "import", str(no_header)],
        ["plans", "remove", "starer", "--yes"],
        ["plans", "remove", "team", "--yes"],
        ["plans", "remove", "starter"],
        ["plans", "remove", "starter", "--yes"],
        ["plans", "list"],
        ["plans", "set", "professional", "--price", "1e400"],
    )
    *done, absurd = done
    assert "--price takes US dollars such as 49" in refused(absurd, code=2)
    *done, mistyped, mistyped_too, new, anew, headless, no_plan, in_use, unasked, removed, left = done
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
    assert "On plan team with --organization north" in refused(elsewhere)
    assert imported.returncode == 1
    assert imported.stdout.splitlines() == [
        "customers.csv: 1 subscription set, 0 as before, 4 bad lines",
        "  line 3: There is no plan 'gold'. One of: enterprise, professional, starter, team, trial.",
        "  line 4: reset_day '32' is no day from 1 to 31",
        "  line 5: Nothing is known of organization nroth; did you mean north? For a new one: --new",
        "  line 6: no entity_id",
    ]
    assert "did you mean north? If it is a new one, say so: --new" in refused(mistyped)
    assert "did you mean north?" in refused(mistyped_too)
    assert "nort" in fine(new)
    assert anew.returncode == 1
    told = json.loads(anew.stdout)
    assert (told["set"], told["unchanged"], [bad["line"] for bad in told["rejected"]]) == (1, 1, [3, 4, 6])
    assert "the header lacks entity_id, plan" in refused(headless)
    assert "did you mean starter?" in refused(no_plan)
    assert "Plan team has subscribers, now or to come: 3. Put them on another plan" in refused(in_use)
    assert "Remove plan starter" in unasked.stdout + unasked.stderr
    assert unasked.returncode == 1
    fine(removed)
    assert "starter" not in fine(left)
    assert all(who in fine(listed) for who in ("u-1", "u-2"))
    assert "u-1" in fine(used)
    fine(minutes)
    assert "on no plan any more" in fine(ended)
    assert "on no plan in organization north" in refused(again)
