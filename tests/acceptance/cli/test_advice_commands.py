"""Advice on plans, budgets and machines, read from a real database; and its commands, typed as they stand."""

from __future__ import annotations

import json
import shlex
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from tests.acceptance.cli.helpers import Several, fine
from tests.integration.helpers import Rows
from tests.sql.helpers import a_call
from vital_tracking.advice.kinds import (
    auto_scaling,
    billing_model,
    plan_optimization,
    plan_upgrade,
    resource_optimization,
)
from vital_tracking.advice.machine_evidence import read_machine_evidence
from vital_tracking.advice.plan_evidence import read_plan_evidence
from vital_tracking.advice.recommendation import NotApplicable, Recommendation
from vital_tracking.queries.budgets import all_budgets, set_budget
from vital_tracking.queries.explore import Period
from vital_tracking.queries.plans import plans_of, subscribe
from vital_tracking.stores.postgres import PostgresStore

NOW = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
PERIOD = Period(NOW - timedelta(days=30), NOW + timedelta(days=1))


def only(found: list[Recommendation] | NotApplicable) -> Recommendation:
    assert isinstance(found, list), found
    (one,) = found
    return one


def spent(number: int, cost: str, **changes: Any) -> dict[str, Any]:
    amounts = {"input_cost": cost, "output_cost": "0", "total_cost": cost, "potential_cost": cost, "fees": "0"}
    return a_call(number, **{
        "created_at": NOW.isoformat(), "organization_id": "acme", "user_id": "u-1", "status": "ok", **amounts, **changes,
    })  # fmt: skip


def typed_in(several: Several, *advice: Recommendation) -> None:
    """Run the commands of recommendations, as they stand."""
    commands = [shlex.split(line)[1:] for each in advice for line in (each.command or "").splitlines()]
    for done in several(*([*command, *(["--yes"] if "remove" in command else [])] for command in commands)):
        fine(done)


def test_advice_on_plans_and_budgets_can_be_followed(several: Several, store: PostgresStore, rows: Rows) -> None:
    """If this failed, whoever did what the advice says would be told that there is no such command."""
    calls = [spent(number, "30.00") for number in range(1, 3)]
    calls.append(spent(3, "0", prompt_tokens=200_000, completion_tokens=0, total_tokens=200_000, user_id="u-2"))
    calls.append(
        spent(4, "0", prompt_tokens=1, completion_tokens=0, total_tokens=1, user_id="u-1", organization_id="other")
    )
    assert store.call("record_calls_v1", calls=json.dumps(calls))["inserted"] == len(calls)
    cost = {"id": a_call(9)["id"], "occurred_at": NOW.isoformat(), "cost_type": "search", "cost_usd": "5.50"}
    whose = {"organization_id": "acme", "user_id": "u-1"}
    assert store.call("record_costs_v1", costs=json.dumps([{**cost, **whose}]))["inserted"] == 1
    for user, plan in (("u-1", "professional"), ("u-2", "trial")):
        subscribe(store, {"entity_type": "user", "entity_id": user, "organization_id": "acme", "plan": plan})
    rows("update subscriptions set since = now() - interval '90 days' returning id")
    rows("update plans set price_usd = 9.50 where name in ('starter') returning id")
    rows("update plans set price_usd = 0 where name in ('trial') returning id")
    set_budget(
        store,
        {
            "entity_type": "user",
            "organization_id": "acme",
            "daily_limit": "1000",
            "monthly_limit": "9000",
            "action": "block",
        },
    )
    set_budget(store, {"entity_type": "organization", "entity_id": "acme", "daily_limit": "40"})
    set_budget(store, {"entity_type": "agent", "entity_id": "nobody", "monthly_limit": "1"})
    rows("update budget_limits set created_at = now() - interval '90 days' returning id")

    evidence = read_plan_evidence(store, PERIOD)
    of_acme = read_plan_evidence(store, PERIOD, "acme")
    assert {subscriber.cost for subscriber in of_acme.subscribers} == {Decimal("65.50"), Decimal(0)}
    assert [use["entity_type"] for use in of_acme.budgets] == ["user", "user", "organization"]

    upgrade = only(plan_upgrade.advise(evidence))
    assert (upgrade.subject, upgrade.recommended) == ({"user": "u-2", "organization": "acme"}, "plan starter")
    assert upgrade.revenue == Decimal("9.50")
    billed = only(billing_model.advise(evidence))
    # $65.50 in 31 days is $63.39 in 30; less $49.00.
    assert (billed.subject["user"], billed.revenue) == ("u-1", Decimal("14.39"))

    faults = plan_optimization.advise(evidence)
    assert isinstance(faults, list)
    by_fault = {each.subject.get("budgets"): each for each in faults if "budgets" in each.subject}
    assert set(by_fault) == {"too_high", "too_low", "never_met"}
    high = by_fault.pop("too_high")
    assert (high.command or "").count("vital-tracking budgets set user ") == 2, "a limit of a day and one of a month"
    _, applied, gone = several(
        ["advise", "--days", "31"],
        ["advise", "apply", high.id, "--yes"],
        ["advise", "apply", by_fault.pop("never_met").id, "--yes"],
    )
    assert "--monthly 120" in fine(applied)
    assert "removed budget" in fine(gone)
    typed_in(several, upgrade, *by_fault.values())
    assert plans_of(store, ["u-2"])["u-2"]["plan"] == "starter"
    left = {(row["entity_type"], row["daily_limit"]) for row in all_budgets(store)["budgets"]}
    # Twice $60.00 is $120.00; a quarter more than $60.00 is $75.00.
    assert left == {("user", Decimal(120)), ("organization", Decimal(75))}

    middle = evidence.subscribers[0].quota["ends_at"] - timedelta(days=1)
    late = plan_optimization.advise(read_plan_evidence(store, PERIOD, now=middle))
    assert isinstance(late, list)
    review = next(each for each in late if each.subject.get("user") == "u-1")
    typed_in(several, review)
    assert plans_of(store, ["u-1"])["u-1"]["plan"] == "trial"


def test_advice_on_machines_is_read_from_costs_and_calls(store: PostgresStore) -> None:
    start = NOW - timedelta(hours=12)
    hours = [
        {
            "id": a_call(number)["id"], "occurred_at": (start + timedelta(hours=number)).isoformat(), "cost_type": "compute",
            "resource": "llama-70b", "quantity": 1, "cost_usd": "3",
        }
        for number in range(6)
    ]  # fmt: skip
    assert store.call("record_costs_v1", costs=json.dumps(hours))["inserted"] == 6
    call = spent(1, "0", model="llama-70b", latency_ms=1_800_000, created_at=start.isoformat())
    assert store.call("record_calls_v1", calls=json.dumps([call]))["inserted"] == 1
    evidence = read_machine_evidence(store, PERIOD)
    # Busy half an hour of six: 1/12 of $18. Off: five idle hours but the last, $12; smaller: 18 x (1 - 1/8.4).
    scaling, smaller = only(auto_scaling.advise(evidence)), only(resource_optimization.advise(evidence))
    assert (scaling.saving.expected, scaling.saving.high, scaling.counted) == (Decimal(12), Decimal(15), False)
    assert smaller.saving.expected.quantize(Decimal("0.0001")) == Decimal("15.8571")
    assert "no compute cost by the hour" in str(auto_scaling.advise(read_machine_evidence(store, PERIOD, "acme")))
