"""resource_optimization and auto_scaling: hand-computed savings, and every reason why they say nothing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from vital_tracking.advice.kinds import auto_scaling, resource_optimization
from vital_tracking.advice.machine_evidence import Machine, MachineEvidence
from vital_tracking.advice.recommendation import Kind, Level, NotApplicable, Recommendation, Saving
from vital_tracking.queries.explore import Period
from vital_tracking.queries.machine_hours import MachineHour

START = datetime(2026, 3, 1, tzinfo=UTC)
PERIOD = Period(START, START + timedelta(days=2))


def hour(at: int, busy_s: int = 0, calls: int | None = None, **changes: Any) -> MachineHour:
    """One machine for $2, `at` hours after the start, busy for so long."""
    made: MachineHour = {
        "model": "llama-70b", "hour": START + timedelta(hours=at), "machine_hours": Decimal(1), "cost_usd": Decimal(2),
        "unpriced_costs": 0, "calls": int(busy_s > 0) if calls is None else calls, "untimed_calls": 0,
        "busy_s": Decimal(busy_s), "most_in_flight": int(busy_s > 0),
    }  # fmt: skip
    return {**made, **changes}  # type: ignore[typeddict-item]


def evidence(*hours: MachineHour, not_called: Sequence[str] = ()) -> MachineEvidence:
    return MachineEvidence(PERIOD, "acme", [Machine("llama-70b", hours)] if hours else [], not_called)


def only(found: list[Recommendation] | NotApplicable) -> Recommendation:
    assert isinstance(found, list), found
    (one,) = found
    return one


def reason(found: list[Recommendation] | NotApplicable) -> str:
    assert isinstance(found, NotApplicable), found
    return found.reason


def saving(*amounts: str) -> Saving:
    return Saving(*map(Decimal, amounts))


def test_machines_that_are_busy_too_little_are_too_many() -> None:
    # 4 hours for $8, busy 0.35 x 4 hours: half of 70 %. Expected 8 x (1 - 0.35 / 0.7) = 4, at most 8 x 0.65 = 5.20.
    hours = [hour(at, 1260) for at in range(4)]
    found = only(resource_optimization.advise(evidence(*hours)))
    assert (found.kind, found.organization, found.subject) == (
        Kind.resource_optimization,
        "acme",
        {"resource": "llama-70b"},
    )
    assert found.saving == saving("0", "4", "5.2"), "nobody can have less than one machine"
    assert (found.calls, found.evidence, found.confidence) == (4, {"model": "llama-70b", "reached": "yes"}, Level.low)
    assert found.current == "4 hours of machines for llama-70b, busy 35.0% of them"
    assert found.counted


def test_of_several_machines_those_that_never_had_a_call_are_certain() -> None:
    # Hour 0: 4 machines for $8, never more than 1 call: 3 of 4 were never needed, $6. Hour 1: 2 machines for $4, both in use.
    hours = [
        hour(0, 1800, machine_hours=Decimal(4), cost_usd=Decimal(8)),
        hour(1, 3600, machine_hours=Decimal(2), cost_usd=Decimal(4), most_in_flight=3),
    ]
    found = only(resource_optimization.advise(evidence(*hours)))
    # 1.5 of 6 machine-hours: 25 %. Expected 12 x (1 - 0.25 / 0.7), at most 12 x 0.75 = 9.
    assert (found.saving.low, found.saving.high) == (Decimal(6), Decimal(9))
    assert abs(found.saving.expected - Decimal(12) * (1 - Decimal(5) / Decimal(14))) < Decimal("1e-20")
    assert found.confidence == Level.medium


def test_machines_that_are_busy_enough_stay() -> None:
    found = reason(resource_optimization.advise(evidence(hour(0, 2520), hour(1, 2520))))
    assert found == "the machines are busy for 70% of their hours or more: llama-70b 70%"
    assert "no machine was billed for two hours in a row" in reason(
        auto_scaling.advise(evidence(hour(0, 2520), hour(1, 0)))
    )


def test_idle_hours_are_switched_off_but_for_the_start() -> None:
    # Busy at 8 on both days; idle: 9 to 12 (4 hours), and on the second day 9 alone. One hour of each run starts the machine.
    hours = [hour(8, 3600), *(hour(at) for at in (9, 10, 11, 12)), hour(32, 3600), hour(33)]
    found = only(auto_scaling.advise(evidence(*hours)))
    # At most all 5 idle hours, $10; expected the first three of the run, $6; at 9, 10 and 11 nothing was called on any day.
    assert found.saving == saving("6", "6", "10")
    assert (found.confidence, found.calls) == (Level.medium, 2)
    assert found.current == "5 of 7 billed hours of llama-70b without a call"
    assert found.impact == "2 idle times, the longest 4 hours"


def test_an_hour_of_the_day_that_was_busy_once_is_not_certain() -> None:
    hours = [hour(9), hour(10), hour(11), hour(33, 3600), hour(34, 3600)]
    found = only(auto_scaling.advise(evidence(*hours)))
    # Expected 9 and 10 o'clock; both saw calls on the second day.
    assert found.saving == saving("0", "4", "6")
    assert found.confidence == Level.low


def test_a_gap_in_what_was_billed_ends_an_idle_time() -> None:
    assert isinstance(auto_scaling.advise(evidence(hour(1, 60), hour(3), hour(5))), NotApplicable)
    assert only(auto_scaling.advise(evidence(hour(1, 60), hour(3), hour(4)))).saving.expected == 2


def test_a_call_without_an_end_in_an_hour_keeps_it_from_being_idle() -> None:
    hours = [hour(1, 60), hour(2), hour(3, calls=1), hour(4)]
    assert isinstance(auto_scaling.advise(evidence(*hours)), NotApplicable)


def test_both_kinds_together_count_the_hours_once() -> None:
    """If this failed, the total would promise more than the machines cost."""
    idle = evidence(hour(0, 3600), *(hour(at) for at in range(1, 10)))
    scaling, smaller = only(auto_scaling.advise(idle)), only(resource_optimization.advise(idle))
    # Busy 1 of 10 hours: smaller 20 x (1 - 1/7) = 17.14, off 16.
    assert (scaling.counted, smaller.counted) == (False, True)
    assert any("not in the total" in each for each in scaling.assumptions)
    half = evidence(
        *(hour(at, 1800) for at in range(5)), *(hour(at) for at in range(5, 8)), hour(8, 3600), hour(9, 3600)
    )
    # Busy 4.5 of 10: smaller 20 x (1 - 0.45/0.7) = 7.14, off 4.
    assert only(resource_optimization.advise(half)).counted
    well = evidence(*(hour(at, 3600) for at in range(7)), *(hour(at) for at in range(7, 11)))
    # Busy 7 of 11: smaller 22 x (1 - 0.6364/0.7) = 2, off 6.
    scaling, smaller = only(auto_scaling.advise(well)), only(resource_optimization.advise(well))
    assert (scaling.counted, smaller.counted) == (True, False)
    assert scaling.saving.expected == 6


def test_what_is_not_known_is_said() -> None:
    nothing = evidence(not_called=["gpu-1"])
    for kind in (resource_optimization, auto_scaling):
        said = reason(kind.advise(nothing))
        assert said.startswith(
            "no compute cost by the hour bears the name of a model that was called (gpu-1 are none): "
        )
        assert 'track_cost("compute", unit="hour", resource=MODEL)' in said
        unpriced = reason(kind.advise(evidence(hour(0, unpriced_costs=1), hour(1))))
        assert unpriced.startswith("llama-70b has 1 hours without a price (vital-tracking prices resource set compute")
        untimed = reason(kind.advise(evidence(hour(0, calls=3, untimed_calls=2), hour(1), hour(2))))
        assert untimed == "2 of 3 calls of llama-70b have no latency, so nobody knows when it was busy"
    assert "(gpu-1" not in reason(auto_scaling.advise(evidence()))


def test_advice_on_a_machine_is_the_same_tomorrow() -> None:
    today = only(auto_scaling.advise(evidence(hour(0, 60), hour(1), hour(2))))
    tomorrow = only(auto_scaling.advise(evidence(hour(24, 60), hour(25), hour(26), hour(27))))
    assert today.id == tomorrow.id
