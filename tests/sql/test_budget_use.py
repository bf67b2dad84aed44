"""How far budgets were used in a time: windows, those that reached their limit, and the fullest."""

from __future__ import annotations

from tests.sql.helpers import ADMIN, NOON, Connection, a_cost, acting_as, call, record, set_budget


def test_each_limit_of_a_budget_is_told_with_its_windows(db: Connection) -> None:
    """If this failed, advice on budgets would rest on the days of somebody else."""
    db.execute("insert into organization_members values ('acme', %s, 'admin')", [ADMIN])
    users = set_budget(db, entity_type="user", organization_id="acme", daily_limit="4", monthly_limit="100")["id"]
    unused = set_budget(db, entity_type="agent", entity_id="nobody", daily_limit="5")["id"]
    days = ("10", "11", "12")
    calls = [
        a_cost(number, cost, created_at=NOON.replace("-10T", f"-{day}T"), user_id="u-1", organization_id="acme")
        for number, (day, cost) in enumerate(zip(days, (1, 4, 5), strict=True), 1)
    ]
    assert record(db, *calls)["inserted"] == 3
    time = {"since": "2033-05-11T00:00:00Z", "until": "2033-05-13T00:00:00Z"}
    told = {(row["budget_id"], row["period"]): row for row in call(db, "budget_use_v1", **time)}
    assert set(told) == {(users, "day"), (users, "month"), (unused, "day")}
    assert [told[users, "day"][name] for name in ("windows", "met", "most_spent", "fullest_percent", "limit_amount")] == [
        2, 2, "5", "125.00", "4",
    ]  # fmt: skip
    assert [told[users, "month"][name] for name in ("windows", "met", "fullest_percent")] == [1, 0, "10.00"]
    assert [told[unused, "day"][name] for name in ("windows", "met", "most_spent", "fullest_percent")] == [
        0,
        0,
        "0",
        None,
    ]
    assert {row["budget_id"] for row in call(db, "budget_use_v1", **time, organization="acme")} == {users}
    with acting_as(db, "authenticated", {"sub": ADMIN}):
        assert {row["budget_id"] for row in call(db, "budget_use_v1", **time)} == {users}
