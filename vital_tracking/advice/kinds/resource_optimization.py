"""resource_optimization: fewer or smaller machines for models that the team runs itself and pays for by the hour.

Applies where calls kept machines busy for less than 70 % of the hours that were billed. The saving: expected what brings them
to 70 %, at most all the time that nothing was in flight, at least 0 where one machine was billed, else the machines that even
the most calls at once left free. It does not apply to models of a provider, which are not billed by the hour. Priced by
`tenant_cost_events` alone.
"""

from __future__ import annotations

from vital_tracking.advice.machine_evidence import WELL_USED, Machine, MachineEvidence
from vital_tracking.advice.recommendation import Kind, Level, NotApplicable, Recommendation, Saving

KIND = Kind.resource_optimization


def advise(evidence: MachineEvidence) -> list[Recommendation] | NotApplicable:
    """One recommendation for each model whose machines are busy too little, the greatest saving first."""
    found = [
        _recommendation(machine, machine.smaller, evidence)
        for machine in evidence.known()
        if machine.smaller is not None
    ]
    if found:
        return sorted(found, key=lambda each: -each.saving.expected)
    if evidence.missing:
        return NotApplicable(KIND, evidence.missing)
    busy = ", ".join(f"{machine.model} {machine.utilisation:.0%}" for machine in evidence.machines)
    return NotApplicable(KIND, f"the machines are busy for {WELL_USED:.0%} of their hours or more: {busy}")


def _recommendation(machine: Machine, saving: Saving, evidence: MachineEvidence) -> Recommendation:
    single = "it is one machine: less is a smaller one, or one that others share" if machine.single else None
    beside = (
        "not in the total: switching the machines off while idle saves more of the same hours"
        if machine.better_switched_off
        else None
    )
    return Recommendation(
        kind=KIND,
        organization=evidence.organization,
        subject={"resource": machine.model},
        current=f"{machine.billed_hours.normalize():,f} hours of machines for {machine.model}, "
        f"busy {machine.utilisation:.1%} of them",
        recommended="a smaller machine" if machine.single else "fewer or smaller machines",
        impact=f"machines that are busy {WELL_USED:.0%} of the time do the same work",
        saving=saving,
        calls=machine.calls,
        evidence={"model": machine.model, "reached": "yes"},
        confidence=Level.low if machine.single else Level.medium,
        effort=Level.medium,
        risk="answers take longer, or wait, where more calls come at once than the machines can serve",
        how_to_try="take one machine away for a week, or serve the model on a smaller one, and watch the latency of its calls",
        assumptions=tuple(
            filter(
                None,
                (
                    "a call keeps one machine busy for its whole latency; servers that answer several at once are busy less",
                    single,
                    beside,
                ),
            )
        ),
        counted=not machine.better_switched_off,
    )
