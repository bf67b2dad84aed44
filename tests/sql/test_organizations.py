"""Which organizations there are, and how a plan goes that nobody is on."""

from __future__ import annotations

import json

import psycopg
import pytest

from tests.sql.helpers import ADMIN, Connection, a_cost, acting_as, call, record
from vital_tracking.core.platform import COST_TYPES, USUAL_UNITS


def subscribe(db: Connection, who: str, plan: str, kind: str = "user") -> None:
    given = {"entity_type": kind, "entity_id": who, "plan": plan}
    assert "subscription" in call(db, "set_subscription_v1", subscription=json.dumps(given))


def test_a_plan_that_nobody_is_on_can_be_removed(db: Connection) -> None:
    """If this failed, a plan made by mistake would stay for good, or somebody's limits would go with his plan."""
    subscribe(db, "u-1", "starter")
    call(db, "set_plan_v1", plan=json.dumps({"name": "tiny", "calls": 2}))
    call(db, "set_plan_v1", plan=json.dumps({"name": "tiny", "calls": 3, "valid_from": "2099-01-01"}))
    with acting_as(db, "authenticated", {"sub": ADMIN}):
        assert call(db, "remove_plan_v1", plan="tiny") == {"refused": "not_an_operator"}
    with pytest.raises(psycopg.errors.RestrictViolation, match="Plan starter has subscribers"), db.transaction():
        call(db, "remove_plan_v1", plan="starter")
    assert call(db, "remove_plan_v1", plan="tiny") == {"removed": 2}
    assert call(db, "remove_plan_v1", plan="tiny") == {"removed": 0}
    ending = json.dumps({"entity_type": "user", "entity_id": "u-1"})
    assert call(db, "end_subscription_v1", subscription=ending) == {"ended": 1}
    assert call(db, "remove_plan_v1", plan="starter") == {"removed": 1}
    assert [row["plan"] for row in call(db, "subscriptions_v1", entity_type="user", entity_id="u-1")] == ["starter"]
    noted = db.execute(
        "select operation from admin_audit where table_name = 'plans' and operation <> 'insert' order by id"
    )
    assert [row["operation"] for row in noted] == ["delete"] * 3


def test_a_mistyped_organization_is_told_from_a_new_one(db: Connection) -> None:
    db.execute("insert into organization_members values ('acme', %s, 'admin')", [ADMIN])
    subscribe(db, "beta", "starter", "organization")
    record(db, a_cost(1, organization_id="gamma"))
    found = call(db, "unknown_organizations_v1", names=["acme", "beta", "gamma", "acne", "a-very-long-name"])
    assert found == {"unknown": ["a-very-long-name", "acne"], "known": ["acme", "beta", "gamma"]}
    for names in (["acme"], []):
        assert call(db, "unknown_organizations_v1", names=names) == {"unknown": [], "known": []}


def test_usual_units_are_those_of_the_database(db: Connection) -> None:
    for kind in COST_TYPES:
        found = db.execute("select vital_private.usual_unit(%s) as unit", [kind]).fetchone()
        assert found == {"unit": USUAL_UNITS.get(kind)}
