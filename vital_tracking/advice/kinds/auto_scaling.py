"""auto_scaling: switch machines off in hours in which nothing is called, for models that the team runs itself.

Applies where machines were billed for whole hours (UTC) in which no call began and none was in flight. The saving: at most
exactly the cost of these hours; expected those of runs of consecutive idle hours, but for the last one of each run, in which
the machine starts, so that single idle hours give nothing; at least the hours of the day that were idle on every day, as a
fixed timetable would have it. It does not apply to models of a provider, which are not billed by the hour. Priced by
`tenant_cost_events` alone.
"""

from __future__ import annotations

from vital_tracking.advice.machine_evidence import Machine, MachineEvidence, is_idle
from vital_tracking.advice.recommendation import Kind, Level, NotApplicable, Recommendation, Saving

KIND = Kind.auto_scaling


def advise(evidence: MachineEvidence) -> list[Recommendation] | NotApplicable:
    """One recommendation for each model with idle machines, the greatest saving first."""
    found = [
        _recommendation(machine, machine.switched_off, evidence)
        for machine in evidence.known()
        if machine.switched_off is not None
    ]
    if found:
        return sorted(found, key=lambda each: -each.saving.expected)
    return NotApplicable(
        KIND, evidence.missing or "no machine was billed for two hours in a row or more in which nothing was called"
    )


def _recommendation(machine: Machine, saving: Saving, evidence: MachineEvidence) -> Recommendation:
    idle = [hour for hour in machine.hours if is_idle(hour)]
    beside = None
    if not machine.better_switched_off:
        beside = "not in the total: fewer or smaller machines save more of the same hours"
    return Recommendation(
        kind=KIND,
        organization=evidence.organization,
        subject={"resource": machine.model},
        current=f"{len(idle):,} of {len(machine.hours):,} billed hours of {machine.model} without a call",
        recommended="switch the machines off while nothing is called",
        impact=f"{len(machine.idle_runs):,} idle times, the longest {max(map(len, machine.idle_runs)):,} hours",
        saving=saving,
        calls=machine.calls,
        evidence={"model": machine.model, "reached": "yes"},
        confidence=Level.medium if saving.low else Level.low,
        effort=Level.medium,
        risk="the first call after an idle time waits until the machine has started, or fails",
        how_to_try="first a timetable for the hours of the day that are always idle, then scaling to zero by calls",
        assumptions=tuple(
            filter(None, ("the last hour of each idle time is billed, since the machine starts in it", beside))
        ),
        counted=machine.better_switched_off,
    )
