"""`vital-tracking prices tier` and `prices tiers`."""

from __future__ import annotations

import json
import re

from tests.acceptance.cli.helpers import Several, fine, refused
from vital_tracking.queries.model_tiers import model_tiers, tier_of
from vital_tracking.stores.postgres import PostgresStore


def test_the_team_says_how_good_its_models_are(several: Several, store: PostgresStore) -> None:
    none, first, own, changed, wrong, listed, as_json, as_csv = several(
        ["prices", "tiers"],
        ["prices", "tier", "gpt-4o", "2"],
        ["prices", "tier", "gpt-4o", "3", "--provider", "bedrock", "--note", "our trial"],
        ["prices", "tier", "gpt-4o", "1"],
        ["prices", "tier", "gpt-4o", "4"],
        ["prices", "tiers"],
        ["prices", "tiers", "--json"],
        ["prices", "tiers", "--csv"],
    )
    assert "No model has a tier." in fine(none)
    assert fine(first) == "gpt-4o: tier 2\n"
    assert fine(own) == "gpt-4o of bedrock: tier 3\n"
    assert fine(changed) == "gpt-4o: tier 1, 2 before\n"
    assert "One of: 1, 2, 3, none" in refused(wrong, code=2)
    assert re.search(r"1 +any +gpt-4o.*\n *3 +bedrock +gpt-4o .* our trial", fine(listed))
    assert [row["tier"] for row in json.loads(fine(as_json))] == [1, 3]
    assert fine(as_csv).startswith("provider,model,tier,set_by,set_at,note")

    tiers = model_tiers(store)
    assert tier_of(tiers, "openai", "GPT-4o") == 1
    assert tier_of(tiers, "aws", "gpt-4o") == 3, "providers have several names"
    assert (tier_of(tiers, "azure", "gpt-4o-2024-08-06"), tier_of(tiers, "bedrock", "gpt-4o-20240806")) == (1, 3)
    assert (tier_of(tiers, "openai", "gpt-4"), tier_of(tiers, None, None)) == (None, None)

    gone, again = several(["prices", "tier", "gpt-4o", "none"], ["prices", "tier", "gpt-4o", "none"])
    assert fine(gone) == "gpt-4o: no tier any more\n"
    assert fine(again) == "gpt-4o: had no tier\n"
    assert tier_of(model_tiers(store), "openai", "gpt-4o") is None


def test_names_that_nobody_knows_are_refused_with_what_was_meant(several: Several) -> None:
    """If they were taken, a typing error would be a tier of nothing, and an empty answer would look like good news."""
    mistyped, gateway, new, compared, asked = several(
        ["prices", "tier", "gpt-4o-mimi", "2"],
        ["prices", "tier", "gpt-4o", "2", "--provider", "opnai"],
        ["prices", "tier", "house-llm-7b", "2", "--new"],
        ["compare-models", "100", "10", "--only", "gpt-4o-mimi"],
        ["what-if", "--cache", "1h", "--agent", "nobody"],
    )
    assert "did you mean gpt-4o-mini" in refused(mistyped)
    assert "did you mean openai" in refused(gateway)
    assert fine(new) == "house-llm-7b: tier 2\n"
    assert "did you mean gpt-4o-mini" in refused(compared)
    assert "No call of agent nobody was made in this time" in refused(asked)
