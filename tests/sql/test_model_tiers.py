"""How good the team finds models: one entry a provider and model, set by the service role, audited."""

from __future__ import annotations

import pytest
from psycopg.errors import CheckViolation, NullValueNotAllowed

from tests.sql.helpers import ADMIN, Connection, acting_as, call


def test_a_tier_is_set_changed_and_taken_away_and_audited(db: Connection) -> None:
    """If this failed, nobody could say who called a model good."""
    first = call(db, "set_model_tier_v1", model=" GPT-4o ", tier=1, provider=" ", note="Bob's trial")
    assert (first["model"], first["provider"], first["tier"], first["before"], first["note"]) == (
        "GPT-4o", None, 1, None, "Bob's trial",
    )  # fmt: skip
    again = call(db, "set_model_tier_v1", model="gpt-4o", tier=1, note="Bob's trial")
    assert {**again, "before": None} == first
    own = call(db, "set_model_tier_v1", model="gpt-4o", tier=3, provider="azure")
    with acting_as(db, "service_role", {"sub": ADMIN}):
        changed = call(db, "set_model_tier_v1", model="gpt-4o", tier=2, provider=None, note=None)
    assert (changed["model"], changed["before"], changed["set_by"], changed["note"]) == ("GPT-4o", 1, ADMIN, None)
    call(db, "set_model_tier_v1", model="gpt-4o", tier=2)
    assert (own["before"], own["set_by"]) == (None, first["set_by"])
    assert [(row["provider"], row["tier"]) for row in call(db, "model_tiers_v1")] == [(None, 2), ("azure", 3)]
    told = db.execute(
        "select operation, key ->> 'provider' as provider, changes -> 'tier' as tier, changes::text as text"
        " from admin_audit where table_name = 'model_tiers' order by id"
    ).fetchall()
    assert [(row["operation"], row["provider"], row["tier"]) for row in told] == [
        ("insert", None, [None, "1"]),
        ("insert", "azure", [None, "3"]),
        ("update", None, ["1", "2"]),
    ]
    assert "Bob" not in str(told)
    assert call(db, "remove_model_tier_v1", model="gpt-4o", provider="AZURE") == {"removed": 1}
    assert call(db, "remove_model_tier_v1", model="gpt-4o", provider="azure") == {"removed": 0}
    assert [row["provider"] for row in call(db, "model_tiers_v1")] == [None]


@pytest.mark.parametrize("tier", [0, 4, -1])
def test_what_is_no_tier_is_refused(db: Connection, tier: int) -> None:
    with pytest.raises(CheckViolation):
        call(db, "set_model_tier_v1", model="m", tier=tier)


@pytest.mark.parametrize("given", [{"model": None, "tier": 1}, {"model": "m", "tier": None}])
def test_a_model_and_its_tier_are_given(db: Connection, given: dict[str, object]) -> None:
    with pytest.raises(NullValueNotAllowed):
        call(db, "set_model_tier_v1", **given)
    with pytest.raises(NullValueNotAllowed):
        call(db, "remove_model_tier_v1", model=None)
