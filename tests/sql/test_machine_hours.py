"""How busy machines are that serve models of the team's own: computed by hand from a few calls."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from tests.sql.helpers import ADMIN, Connection, a_call, acting_as, call, record
from tests.sql.platform_rows import a_cost, send
from vital_tracking.queries.answers import typed
from vital_tracking.queries.machine_hours import MachineHours

TIME = {"since": "2026-01-15T00:00:00Z", "until": "2026-01-16T00:00:00Z"}


def hours(db: Connection, **asked: Any) -> MachineHours:
    return typed(MachineHours, call(db, "machine_hours_v1", **{**TIME, **asked}))


def figures(found: MachineHours) -> dict[tuple[str, int], tuple[Decimal, Decimal, int, int, Decimal, int]]:
    return {
        (row["model"], row["hour"].hour): (
            row["machine_hours"], row["cost_usd"], row["calls"], row["untimed_calls"], row["busy_s"], row["most_in_flight"],
        )
        for row in found["rows"]
    }  # fmt: skip


def compute(number: int, hour: str, **changes: Any) -> dict[str, Any]:
    return a_cost(
        number, cost_type="compute", unit="hour", quantity=1, unit_price="2", cost_usd="2", resource="llama-70b",
        occurred_at=f"2026-01-15T{hour}:00:00Z", **changes,
    )  # fmt: skip


def test_machines_are_busy_while_calls_are_in_flight(db: Connection) -> None:
    """If this failed, machines that are needed would be called idle, or the other way round."""
    db.execute("insert into organization_members values ('acme', %s, 'admin')", [ADMIN])
    costs = [
        compute(1, "10", organization_id="acme"),
        compute(2, "11", organization_id="acme"),
        {**compute(3, "12", organization_id="acme"), "quantity": 2, "cost_usd": "4"},
        compute(4, "13", organization_id="acme"),
        {**compute(5, "15", organization_id="other"), "unit_price": None, "cost_usd": None},
        {**compute(6, "10", organization_id="acme"), "resource": "gpu-1"},
        {**compute(7, "10"), "unit": "call"},  # not by the hour
        {**compute(8, "10"), "cost_type": "storage"},
    ]
    assert send(db, "tenant_cost_events", *costs)["inserted"] == len(costs)
    times: list[tuple[str, float | None, dict[str, Any]]] = [
        ("10:10:00", 600_000, {}),  # to 10:20
        ("10:15:00", 600_000, {}),  # to 10:25: together 15 minutes of one machine, 2 at once
        ("10:50:00", 1_200_000, {"model": "LLaMA-70B"}),  # to 11:10: 10 minutes of each hour
        ("10:30:00", 600_000, {"status": "blocked", "input_cost": "0", "output_cost": "0", "total_cost": "0"}),
        ("10:30:00", 600_000, {"cache_hit": True, "input_cost": "0", "output_cost": "0", "total_cost": "0"}),
        ("10:30:00", 600_000, {"model": "another"}),
        ("12:00:00", 3_600_000, {}),  # two machines: one of them a whole hour,
        ("12:30:00", 600_000, {}),  # the other ten minutes,
        ("12:30:00", 600_000, {}),  # a third call at the same time finds both busy
        ("12:45:00", None, {}),  # nobody knows how long
        ("14:00:00", 600_000, {}),  # an hour that was not billed
        ("15:00:00", 360_000, {"status": "error", "organization_id": "other"}),
    ]
    calls = [
        a_call(number, **{
            "created_at": f"2026-01-15T{at}Z", "latency_ms": ms, "provider": "vllm", "model": "llama-70b",
            "organization_id": "acme", "status": "ok", **more,
        })
        for number, (at, ms, more) in enumerate(times, 1)
    ]  # fmt: skip
    assert record(db, *calls)["inserted"] == len(calls)
    one, two, free = Decimal(1), Decimal(2), Decimal(0)
    expected = {
        ("llama-70b", 10): (one, Decimal(2), 3, 0, Decimal(900 + 600), 2),
        ("llama-70b", 11): (one, Decimal(2), 0, 0, Decimal(600), 1),
        ("llama-70b", 12): (two, Decimal(4), 4, 1, Decimal(3600 + 600), 3),
        ("llama-70b", 13): (one, Decimal(2), 0, 0, free, 0),
        ("llama-70b", 15): (one, free, 1, 0, Decimal(360), 1),
    }
    found = hours(db)
    assert figures(found) == expected
    assert [row["unpriced_costs"] for row in found["rows"]] == [0, 0, 0, 0, 1]
    assert found["not_called"] == ["gpu-1"]
    # Of an organization its machines, and the calls of all that used them.
    of_other = hours(db, organization="other")
    assert (figures(of_other), of_other["not_called"]) == ({("llama-70b", 15): expected["llama-70b", 15]}, [])
    with acting_as(db, "authenticated", {"sub": ADMIN}):
        seen = hours(db)
        assert set(figures(seen)) == {key for key in expected if key[1] != 15}
        assert seen["not_called"] == ["gpu-1"]
    with acting_as(db, "authenticated", {"sub": "nobody"}):
        none = hours(db)
        assert (none["rows"], none["not_called"]) == ([], [])


def test_machines_for_a_model_that_nobody_called_are_named(db: Connection) -> None:
    """If this failed, a machine that serves nobody would be passed over without a word."""
    assert send(db, "tenant_cost_events", compute(1, "10"), compute(2, "11"))["inserted"] == 2
    before = a_call(1, model="llama-70b", created_at="2026-01-14T23:30:00Z", latency_ms=5)
    assert record(db, before)["inserted"] == 1
    found = hours(db)
    assert (found["rows"], found["not_called"]) == ([], ["llama-70b"])
