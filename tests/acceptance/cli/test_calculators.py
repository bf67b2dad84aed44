"""`vital-tracking compare-models` and `calculate`: with the team's own prices and plans, and without any database."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.acceptance.cli.helpers import UNREACHABLE, Cli, Several, fine, refused
from tests.acceptance.helpers import run_commands
from vital_tracking.advice.plan_terms import PLANS, PlanTerms
from vital_tracking.queries.plans import plans
from vital_tracking.stores.postgres import PostgresStore


def test_models_are_compared_by_the_teams_own_prices(several: Several) -> None:
    _, shown, as_json, as_csv, nobody = several(
        ["prices", "set", "gpt-4o", "--provider", "openai", "--input", "1", "--output", "2"],
        ["compare-models", "1000", "500", "--only", "gpt-4o", "--only", "gpt-4o-mini", "--only", "nobody"],
        ["compare-models", "1000", "500", "--provider", "openai", "--limit", "2", "--json"],
        ["compare-models", "200000", "500", "--only", "gpt-4o", "--csv"],
        ["compare-models", "1000", "500", "--provider", "opnai"],
    )
    said = fine(shown)
    assert re.search(r"openai +gpt-4o-mini +\$0\.00015 +\$0\.0003 +\$0\.00045 +1\.00x", said)
    assert re.search(r"openai +gpt-4o +\$0\.0010 +\$0\.0010 +\$0\.0020 +4\.44x +128,000 +model_prices \d", said)
    assert re.search(r"- +nobody +unpriced", said)
    assert "and 1 price of your own over them." in said
    assert "No price is known for nobody." in said
    told = json.loads(fine(as_json))
    assert told["models"] > 20
    assert [row["provider"] for row in told["rows"]] == ["openai", "openai"]
    assert isinstance(told["rows"][0]["total_cost"], str), "amounts are text"
    header, row = fine(as_csv).splitlines()
    cells = dict(zip(header.split(","), row.split(","), strict=True))
    assert (cells["model"], cells["total_cost"].rstrip("0"), cells["fits"]) == ("gpt-4o", "0.201", "False")
    assert "did you mean openai" in refused(nobody)


def test_calculators_need_no_database_and_make_none(tmp_path: Path) -> None:
    """If this failed, whoever only looks around would have to wait for a database."""
    requests = tmp_path / "requests.csv"
    requests.write_text("in,out\n100,50\n1000 100\n2000\n", encoding="utf-8")
    bad = tmp_path / "bad.csv"
    bad.write_text("100,50\n1,2,3\n", encoding="utf-8")
    answers = run_commands(
        [
            ["compare-models", "1000", "500", "--limit", "5"],
            ["compare-models", "1000", "500", "--limit", "5", "--free"],
            ["calculate", "caching", "50000", "35", "0.002"],
            ["calculate", "plan", "125000", "18400000"],
            ["calculate", "complexity", str(requests), "--model", "gpt-4o", "--simple-model", "gpt-4o-mini"],
            ["calculate", "complexity", str(bad)],
            ["calculate", "caching", "50000", "135", "0.002"],
        ],
        tmp_path,
    )
    compared, free, caching, plan, complexity, no_numbers, no_share = [out for _, out, _ in answers]
    assert [code for code, _, _ in answers] == [0, 0, 0, 0, 0, 1, 2], answers
    assert "no database is configured" in compared
    assert "listed as free left out: --free" in compared
    assert " free" in free
    assert "a cache answers 14,000 of them" in caching
    for amount in ("$28.00", "$10.00", "$18.00, 180 %"):
        assert amount in caching
    for told in ("professional, $49.00 a month", "41.7 % used", "36.8 % used", "58.3 %"):
        assert told in plan
    assert "33.3 % of the requests are simple" in complexity
    # 100 x ($2.50 - $0.15) + 50 x ($10 - $0.60), for a million
    assert "Saving: $0.000705 for these requests" in complexity
    assert (no_numbers, no_share) == ("", "")
    assert "Line 2 of" in answers[5][2]
    assert "from 0 to 100" in answers[6][2]
    assert not (tmp_path / "data").exists(), "no embedded database was made"


def test_plans_are_those_of_the_database_and_an_unreachable_one_is_said(
    several: Several, cli: Cli, store: PostgresStore
) -> None:
    assert tuple(map(PlanTerms.of, plans(store))) == PLANS, "a new database begins with other plans"
    _, plan, as_json = several(
        ["plans", "set", "starter", "--calls", "200000", "--tokens", "20000000", "--price", "19"],
        ["calculate", "plan", "125000", "18400000"],
        ["calculate", "plan", "125000", "18400000", "--json"],
    )
    assert "starter, $19.00 a month" in fine(plan)
    assert json.loads(fine(as_json)) == {
        "recommended_tier": "starter",
        "monthly_cost": "19",
        "call_utilization_percent": "62.5",
        "token_utilization_percent": "92.0",
        "buffer_remaining_percent": "8.0",
    }
    away = fine(cli("calculate", "plan", "125000", "18400000", VITAL_DATABASE_URL=UNREACHABLE))
    assert "professional, $49.00" in away
    assert "yours are not known" in away
