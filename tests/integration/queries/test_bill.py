"""The one bill: calls and everything else, apart and together, in every report and in the invoice, and nothing counted twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sql.helpers import ALICE, BOB, Connection, Row, a_call, connect, record
from tests.sql.platform_rows import a_cost, send
from tests.support.effort import examples
from tests.support.postgres import PostgresServer
from vital_tracking.core.platform import COST_TYPES
from vital_tracking.errors import StoreRejected
from vital_tracking.queries import Period, cost_forecast, invoice, reports
from vital_tracking.queries.bill import bill_month, total
from vital_tracking.queries.month import month
from vital_tracking.queries.other_costs import explore_costs
from vital_tracking.stores.postgres import PostgresStore

SINCE, UNTIL = datetime(2026, 2, 1, tzinfo=UTC), datetime(2026, 3, 1, tzinfo=UTC)
FEBRUARY = Period(SINCE, UNTIL)
AMOUNTS = st.decimals("-20", "2000", places=9) | st.sampled_from([Decimal("0.005"), Decimal("0.0000000001")])

CALLS = st.fixed_dictionaries(
    {
        "call_type": st.sampled_from(["chat", "embedding"]),
        "provider": st.sampled_from(["openai", "own"]),
        "service_type": st.sampled_from(["workflow", None]),
        "user_id": st.sampled_from([ALICE, BOB]),
        "total_cost": st.decimals("0", "5", places=9),
        "hour": st.integers(0, 27 * 24),
    }
)
COSTS = st.fixed_dictionaries(
    {
        "cost_type": st.sampled_from(COST_TYPES),
        "cost_usd": st.none() | AMOUNTS,
        "user_id": st.sampled_from([ALICE, None]),
        "service": st.sampled_from(["documents", None]),
        "quantity": st.sampled_from(["1", "2.5"]),
        "hour": st.integers(0, 27 * 24),
    }
)


@pytest.fixture(scope="module")
def bill_url(postgres_server: PostgresServer, template_database: str) -> Iterator[str]:
    """A database for bills."""
    postgres_server.create_database("bills", template=template_database)
    yield postgres_server.url("bills")
    postgres_server.drop_database("bills")


@pytest.fixture(scope="module")
def store(bill_url: str) -> Iterator[PostgresStore]:
    """A store on it."""
    with closing(PostgresStore(bill_url)) as opened:
        yield opened


@pytest.fixture(scope="module")
def db(bill_url: str) -> Iterator[Connection]:
    """Its owner's connection."""
    with connect(bill_url) as connection:
        yield connection


def at(hour: int) -> str:
    return (SINCE + timedelta(hours=hour)).isoformat()


def fill(db: Connection, organization: str, calls: list[Row], costs: list[Row]) -> None:
    """Calls and costs of an organization that has none yet."""
    rows = []
    for number, one in enumerate(calls, 1):
        told = {name: value for name, value in one.items() if name not in ("hour", "total_cost")}
        cost = format(Decimal(one["total_cost"]), "f")
        money = {"input_cost": cost, "output_cost": "0", "total_cost": cost, "potential_cost": cost}
        rows.append(a_call(number, organization_id=organization, created_at=at(one["hour"]), **told, **money))
    assert not record(db, *rows)["rejected"]
    others = [
        a_cost(
            number, organization_id=organization, occurred_at=at(one["hour"]), unit="x",
            **{name: value for name, value in one.items() if name != "hour"},
        )
        for number, one in enumerate(costs, 1)
    ]  # fmt: skip
    assert not others or not send(db, "tenant_cost_events", *others)["rejected"]


@settings(max_examples=examples(12), deadline=None)
@given(calls=st.lists(CALLS, max_size=6), costs=st.lists(COSTS, max_size=8))
def test_the_parts_of_every_report_are_its_whole(
    db: Connection, store: PostgresStore, calls: list[Row], costs: list[Row]
) -> None:
    """If this failed, a tenant would be told two different sums, or pay for something twice."""
    for table in ("token_usage_logs", "tenant_cost_events"):
        db.execute(f"delete from {table}")  # the ids are those of the example before
    fill(db, "acme", calls, costs)
    model = total(one["total_cost"] for one in calls)
    other = total(one["cost_usd"] for one in costs)
    asked = {"organization": ["acme"]}
    seen = reports.overview(store, FEBRUARY, asked)
    assert (seen["total_cost"], seen["model_cost"], seen["other_cost"]) == (model + other, model, other)
    assert total(part["cost"] for part in seen["by_service"].values()) == model + other
    assert total(part["cost"] for part in seen["by_service_type"].values()) == model
    assert seen["unpriced_costs"] == sum(one["cost_usd"] is None for one in costs)
    assert total(one["total_cost"] for one in reports.by_service(store, FEBRUARY, asked)) == model + other
    spent = reports.costs(store, FEBRUARY, asked)
    for parts in (spent["cost_breakdown"], spent["cost_per_service"]):
        assert total(parts.values()) == spent["total_cost"] == model + other
    assert total(day["cost"] for day in spent["cost_trends"]) == model + other
    of_calls = reports.overview(store, FEBRUARY, {**asked, "provider": ["openai", "own"]})
    assert (of_calls["total_cost"], of_calls["other_cost"]) == (model, Decimal(0))
    bill = invoice(store, "acme", since=SINCE, until=UNTIL)
    assert bill.cost == model + other == bill.model_cost + bill.other_cost
    assert bill.model_cost == model
    assert total(line.amount for line in bill.lines) == bill.amount
    assert bill.amount == round_half_up(model + other)
    assert total(cost for cost, _ in bill.subtotals().values()) == bill.cost
    assert total(amount for _, amount in bill.subtotals().values()) == bill.amount
    for line in bill.lines:
        if line.cost is None or line.amount is None:
            assert line.cost is line.amount is None
            assert line.unpriced_calls + line.unpriced_costs == line.calls + line.costs > 0, (
                "0 is what is known to be 0"
            )
        else:
            assert abs(line.amount - line.cost) < Decimal("0.01")
    tenant = db.execute("select get_tenant_cost('acme', %s, %s) as cost", [SINCE, UNTIL]).fetchone()
    assert tenant == {"cost": model + other}


def round_half_up(amount: Decimal) -> Decimal:
    return amount.quantize(Decimal("0.01"), ROUND_HALF_UP)


def test_the_kinds_are_those_that_are_promised(db: Connection, store: PostgresStore) -> None:
    day = {"hour": 40, "user_id": ALICE}
    calls = [
        {**day, "call_type": kind, "provider": "openai", "service_type": None, "total_cost": "1"}
        for kind in ("chat", "embedding")
    ]
    fill(db, "kinds", calls, [])
    rows = [
        a_cost(100 + number, organization_id="kinds", occurred_at=at(41), cost_type=kind, cost_usd="1", quantity=3)
        for number, kind in enumerate(COST_TYPES)
    ]
    send(db, "tenant_cost_events", *rows)
    found = reports.overview(store, FEBRUARY, {"organization": ["kinds"]})["by_service"]
    assert {kind: (part["calls"], part["cost"]) for kind, part in found.items()} == {
        "llm": (1, Decimal(2)),
        "embeddings": (1, Decimal(2)),
        **dict.fromkeys(("search", "tts", "stt"), (3, Decimal(1))),
        **dict.fromkeys(("storage", "bandwidth", "compute", "other"), (0, Decimal(1))),
    }


def test_the_month_of_other_costs_is_its_average_day(db: Connection, store: PostgresStore) -> None:
    """If this failed, the month's end would leave the storage out, or count today twice."""
    rows = [
        a_cost(200 + number, organization_id="month", occurred_at=at(24 * number + 1), cost_type="other", cost_usd=cost)
        for number, cost in enumerate(["1", "3", "2", "2", "0.5"])
    ]
    send(db, "tenant_cost_events", *rows)
    moment = datetime(2026, 2, 5, 12, tzinfo=UTC)  # 24 days of 28 are to come, today's rest included
    ahead = cost_forecast(store, organization="month", moment=moment)
    bill = bill_month(store, ahead, organization="month")
    assert (bill["spent"], bill["other_spent"]) == (Decimal("8.5"), Decimal("8.5"))
    assert bill["other_projected"] == Decimal("8.5") + Decimal("1.5") + 23 * Decimal(2) == bill["projected"]
    assert bill["low"] < bill["projected"] < bill["high"]
    assert bill["other_days"][4] == (date(2026, 2, 5), Decimal("0.5"), Decimal("1.5"))
    assert bill["other_days"][-1] == (date(2026, 2, 28), None, Decimal(2))
    assert total(day[1] for day in bill["other_days"]) == bill["other_spent"]
    shared = a_cost(300, organization_id="month", occurred_at=at(2), cost_type="other", cost_usd="1200", unit="share")
    send(db, "tenant_cost_events", shared)
    again = bill_month(store, ahead, organization="month")
    assert again["other_spent"] == bill["other_spent"] + 1200
    assert again["other_projected"] == bill["other_projected"] + 1200, "an invoice that was shared comes once"
    db.execute("delete from tenant_cost_events where unit = 'share'")
    found = month(store, FEBRUARY, organization="month")
    assert sum(one["other_cost"] for one in found["months"]) in (Decimal(0), Decimal("8.5"))  # as far back as it looks


def test_an_invoice_of_parts_of_days_that_are_gone_is_refused(db: Connection, store: PostgresStore) -> None:
    """If this failed, an invoice in another time zone would lose an evening's costs without a word."""
    send(
        db,
        "tenant_cost_events",
        a_cost(400, organization_id="gone", occurred_at=at(1), cost_type="other", cost_usd="5"),
    )
    zoned = {"since": SINCE + timedelta(hours=1), "until": UNTIL, "timezone": "Europe/Berlin"}
    assert invoice(store, "gone", **zoned).other_cost == 5
    keep = "update vital_private.monthly_tables set rows_kept_since = %s where table_name = 'tenant_cost_events'"
    db.execute(keep, [SINCE + timedelta(days=3)])
    with pytest.raises(StoreRejected) as refused:
        invoice(store, "gone", **zoned)
    assert refused.value.sqlstate == "22VT1"
    assert invoice(store, "gone", since=SINCE, until=UNTIL).other_cost == 5
    db.execute(keep, ["-infinity"])


def test_what_has_no_price_is_unknown_whatever_answers(db: Connection, store: PostgresStore) -> None:
    """If this failed, a team would read that machines without a price cost nothing."""
    send(db, "tenant_cost_events", a_cost(500, organization_id="blank", occurred_at=at(5), cost_type="compute"))
    asked = {"organization": ["blank"]}
    for period in (
        FEBRUARY,
        Period(SINCE, SINCE + timedelta(hours=7, minutes=5)),
        Period(SINCE, UNTIL - timedelta(seconds=1)),
    ):
        for by in (("cost_type",), ("day",), ("cost_type", "resource")):
            found = explore_costs(store, period, by=by, filters=asked)
            assert [(row["costs"], row["cost_usd"]) for row in (*found.rows, found.total)] == [(1, None)] * 2, (
                period,
                by,
            )
