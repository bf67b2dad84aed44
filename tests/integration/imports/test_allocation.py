"""A month's invoice is shared to its last digit, by a rule that one can see, and again in place of itself."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sql.helpers import Connection, a_call, connect, record
from tests.sql.platform_rows import a_cost, an_event, differences, send
from vital_tracking.errors import VitalError
from vital_tracking.imports.allocation import Allocation, Rule, allocate
from vital_tracking.queries.resource_prices import add_resource_price, reprice_costs, resource_prices
from vital_tracking.stores.postgres import PostgresStore

WEIGHTS = st.lists(
    st.decimals("0", "1000000", places=9) | st.sampled_from([Decimal(0), Decimal(1)]), min_size=1, max_size=9
)


@pytest.fixture(scope="module")
def db(url: str) -> Any:
    """A month of three organizations: 1 call of acme at 1 dollar and 9 of other at nothing; storage of acme; an event of idle."""
    with connect(url) as connection:
        record(
            connection,
            a_call(
                1,
                organization_id="acme",
                created_at="2025-03-02T00:00:00Z",
                total_cost="1",
                input_cost="1",
                output_cost="0",
            ),
        )
        record(
            connection,
            *(
                a_call(
                    10 + n,
                    organization_id="other",
                    created_at="2025-03-31T23:59:59Z",
                    total_cost="0",
                    input_cost="0",
                    output_cost="0",
                )
                for n in range(9)
            ),
        )
        send(
            connection,
            "tenant_cost_events",
            a_cost(20, organization_id="acme", occurred_at="2025-03-01T00:00:00Z", cost_usd="0.5"),
        )
        send(
            connection,
            "tenant_cost_events",
            a_cost(21, organization_id="other", occurred_at="2025-03-01T00:00:00Z", cost_usd="0.75"),
        )
        send(
            connection,
            "tenant_cost_events",
            a_cost(22, organization_id="later", occurred_at="2025-04-01T00:00:00Z", cost_usd="9"),
        )
        send(connection, "tenant_cost_events", a_cost(23, occurred_at="2025-03-01T00:00:00Z", cost_usd="9"))
        send(
            connection,
            "platform_events",
            an_event(24, organization_id="idle", user_id="u", occurred_at="2025-03-09T00:00:00Z"),
        )
        yield connection


@given(
    amount=st.decimals("-1000000", "1000000", places=6).filter(bool),
    weights=WEIGHTS.filter(any),
    digits=st.integers(6, 12),
)
def test_shares_add_up_and_are_never_off_by_more_than_a_unit(
    db: Connection, amount: Decimal, weights: list[Decimal], digits: int
) -> None:
    """If this failed, an invoice would not be what its tenants pay for it."""
    names = [f"o-{number}" for number in range(len(weights))]
    found = db.execute(
        "select * from vital_private.shares(%s, %s, %s, %s)", [amount, digits, names, weights]
    ).fetchall()
    shares = {row["name"]: row["share"] for row in found}
    assert sum(shares.values()) == amount
    unit = Decimal(1).scaleb(-digits)
    for name, weight in zip(names, weights, strict=True):
        assert abs(shares[name] - amount * weight / sum(weights)) < unit
        assert weight or not shares[name]


def shares(made: Allocation) -> dict[str, str]:
    return {share["organization_id"]: str(share["cost_usd"]) for share in made["shares"]}


@pytest.mark.parametrize(
    ("by", "amount", "meant"),
    [
        ("equal", "100", {"acme": "33.34", "idle": "33.33", "other": "33.33"}),
        ("calls", "100", {"other": "90.00", "acme": "10.00", "idle": "0.00"}),
        ("cost", "0.01", {"acme": "0.01", "idle": "0.00", "other": "0.00"}),  # 1.50 beside 0.75
        ("cost", "0.0003", {"acme": "0.0002", "other": "0.0001", "idle": "0.0000"}),
    ],
)
def test_the_rule_is_what_it_says(
    db: Connection, shared: PostgresStore, by: Rule, amount: str, meant: dict[str, str]
) -> None:
    assert shares(allocate(shared, "2025-03", Decimal(amount), by=by, dry_run=True)) == meant
    assert rows(db) == []


def rows(db: Connection) -> list[tuple[Any, ...]]:
    found = db.execute(
        "select service, organization_id, cost_usd, price_version, metadata ->> 'allocated_by' as by from tenant_cost_events"
        " where occurred_at between '2025-03-02' and '2025-03-30' order by 1, 2"
    ).fetchall()
    return [tuple(row.values()) for row in found]


def test_again_replaces_and_what_was_allocated_weighs_nothing(db: Connection, shared: PostgresStore) -> None:
    """If this failed, a corrected invoice would be paid twice, or the order of two invoices would change who pays what."""
    first = allocate(shared, "2025-03", Decimal("77.77"), by="cost", name="monitoring")
    assert (first["before"], sum(share["cost_usd"] for share in first["shares"])) == (0, Decimal("77.77"))
    allocate(shared, "2025-03", Decimal(10), organizations=["newcomer"], by="equal")
    second = allocate(shared, "2025-03", Decimal(30), by="cost")
    assert (second["before"], shares(second)) == (10, {"acme": "20.00", "other": "10.00", "idle": "0.00"})
    assert shares(allocate(shared, "2025-03", Decimal(30), by="cost")) == shares(second)
    assert rows(db) == [
        ("infrastructure", "acme", 20, "allocation", "cost"),
        ("infrastructure", "other", 10, "allocation", "cost"),
        ("monitoring", "acme", Decimal("51.85"), "allocation", "cost"),
        ("monitoring", "other", Decimal("25.92"), "allocation", "cost"),
    ]
    reprice_costs(shared, again=True)
    assert len(rows(db)) == 4
    assert differences(db) == []
    noted = db.execute("select key, changes from admin_audit where operation = 'allocate' order by id").fetchall()
    assert len(noted) == 4
    assert noted[2] == {
        "key": {"month": "2025-03", "name": "infrastructure"},
        "changes": {"cost_usd": ["10.00", "30"], "by": [None, "cost"]},
    }
    for name in ("infrastructure", "monitoring"):
        assert allocate(shared, "2025-03", Decimal(0), name=name)["shares"] == []
    assert rows(db) == []
    assert differences(db) == []


def test_nobody_to_share_it_is_said(shared: PostgresStore) -> None:
    with pytest.raises(VitalError, match="No organization had calls, events or costs in 2024-01"):
        allocate(shared, "2024-01", Decimal(5))
    with pytest.raises(VitalError, match=r"No organization had any calls in 2025-04\. .*--by equal"):
        allocate(shared, "2025-04", Decimal(5), by="calls")
    with pytest.raises(VitalError, match="names its month, such as 2026-11"):
        allocate(shared, "2025-13", Decimal(5))


def test_prices_of_resources_are_dated_audited_and_never_overwritten(db: Connection, shared: PostgresStore) -> None:
    send(
        db,
        "tenant_cost_events",
        a_cost(30, cost_type="compute", resource="gpu-9", quantity=2, occurred_at="2025-05-02T00:00:00Z"),
    )
    since = resource_prices(shared)[0]["valid_from"].replace(year=2025)
    add_resource_price(shared, "compute", Decimal("1.60"), resource="gpu-9", valid_from=since, note="secret remark")
    entry = next(price for price in resource_prices(shared) if price["resource"] == "gpu-9")
    assert (entry["unit"], entry["unit_price"], entry["valid_from"]) == ("hour", Decimal("1.60"), since)
    assert reprice_costs(shared)["repriced"] == 1
    row = db.execute("select cost_usd from tenant_cost_events where resource = 'gpu-9'").fetchone()
    assert row == {"cost_usd": Decimal("3.20")}
    with pytest.raises(VitalError, match="another price from that moment"):
        add_resource_price(shared, "compute", Decimal("1.70"), resource="gpu-9", valid_from=since)
    with pytest.raises(VitalError, match="no usual unit"):
        add_resource_price(shared, "other", Decimal(1))
    audited = db.execute(
        "select changes from admin_audit where table_name = 'resource_prices' and operation = 'insert'"
    ).fetchall()
    assert "secret remark" not in json.dumps([row["changes"] for row in audited])
    assert audited[-1]["changes"]["unit_price"] == [None, "1.60"]


def test_a_month_whose_costs_are_gone_is_not_allocated_again(db: Connection, shared: PostgresStore) -> None:
    """If this failed, a corrected invoice of an archived month would be in the sums beside the one that it corrects."""
    allocate(shared, "2025-03", Decimal(100))
    keep = "update vital_private.monthly_tables set rows_kept_since = %s where table_name = 'tenant_cost_events'"
    db.execute(keep, ["2025-03-02"])
    with pytest.raises(VitalError, match="2025-03 were archived"):
        allocate(shared, "2025-03", Decimal(120))
    db.execute(keep, ["-infinity"])
    assert allocate(shared, "2025-03", Decimal(0))["before"] == 100
