"""What a budget can be made of is written once in the database and once in the library, and both say the same."""

from __future__ import annotations

import pytest
from psycopg.errors import CheckViolation

from tests.sql.helpers import NOON, Connection, a_call, audit, call, record, set_budget, spent
from vital_tracking.core.entities import ACTIONS, ENTITY_FIELDS, ENTITY_TYPES, METRICS, PERIODS


def names(connection: Connection, kind: str) -> list[str]:
    """The names of a kind, in their order."""
    found = connection.execute(
        "select name from vital_private.budget_terms where kind = %s order by position", [kind]
    ).fetchall()
    return [row["name"] for row in found]


def test_both_sides_name_the_same_entities(db: Connection) -> None:
    """If this failed, a budget could stand on something that the library does not know, and never stop a call."""
    found = db.execute("select name, of_call from vital_private.budget_terms where kind = 'entity'").fetchall()
    fields = {row["name"]: row["of_call"].removeprefix("call.") for row in found}
    fields.pop("model")  # no part of a call's context: it depends on the price book and on downgrades
    assert fields == dict(ENTITY_FIELDS)
    assert names(db, "entity") == list(ENTITY_TYPES)


def test_both_sides_name_the_same_periods(db: Connection) -> None:
    """If this failed, the command line would offer a period that no budget has, or hide one that it has."""
    columns = db.execute(
        "select column_name from information_schema.columns where table_name = 'budget_limits' and column_name like '%\\_limit'"
    ).fetchall()
    assert {row["column_name"] for row in columns} == set(PERIODS.values())


def test_both_sides_name_the_same_metrics_in_one_order(db: Connection) -> None:
    """If this failed, a limit in tokens could be counted in dollars."""
    assert names(db, "metric") == list(METRICS)


def test_both_sides_order_actions_by_strictness(db: Connection) -> None:
    """If this failed, the mildest of several budgets could win where the strictest should."""
    assert names(db, "action") == ["alert", "throttle", "downgrade", "block"]
    assert names(db, "action") == list(ACTIONS)


def test_a_new_entity_is_one_row(db: Connection) -> None:
    """If this failed, a new kind of budget would be accepted and count nothing."""
    with pytest.raises(CheckViolation), db.transaction():
        set_budget(db, entity_type="framework", daily_limit=5)
    db.execute("insert into vital_private.budget_terms values ('entity', 20, 'framework', 'call.framework')")
    db.execute("select vital_private.build_budget_terms()")
    budget = set_budget(db, entity_type="framework", daily_limit=5, total_limit=9)["id"]
    record(db, a_call(1, created_at=NOON, framework="langgraph"), a_call(2, created_at=NOON, framework="autogen"))
    for period in ("day", "total"):
        amounts = spent(db, budget_id=budget, period=period)
        assert {entity: str(amount) for entity, amount in amounts.items()} == {"langgraph": "0.42", "autogen": "0.42"}
    assert audit(db) == []
    [met] = [w for w in call(db, "check_budget_v1", entities='{"framework": "langgraph"}') if w["period"] == "day"]
    assert (met["entity_id"], met["limit_amount"]) == ("langgraph", "5")


def test_a_new_metric_is_one_row(db: Connection) -> None:
    """If this failed, a limit in a new metric would be counted in another one."""
    db.execute("insert into vital_private.budget_terms values ('metric', 4, 'cached_tokens', 'call.cache_read_tokens')")
    db.execute("select vital_private.build_budget_terms()")
    budget = set_budget(db, metric="cached_tokens", total_limit=9)["id"]
    record(db, a_call(1, created_at=NOON, user_id="u-1", cache_read_tokens=7))
    assert {entity: int(amount) for entity, amount in spent(db, budget_id=budget).items()} == {"u-1": 7}
    assert audit(db) == []
