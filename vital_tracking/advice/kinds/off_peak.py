"""What job_scheduling and peak_shifting have in common: calls at the cheapest hour, where a provider's price has hours at all."""

from __future__ import annotations

from vital_tracking.advice.changes import OffPeak, Where
from vital_tracking.advice.evidence import evidence_of
from vital_tracking.advice.kinds.switching import is_worth
from vital_tracking.advice.recommendation import Kind, Level, NotApplicable, Recommendation
from vital_tracking.advice.window import Window

NO_HOURS = "The providers of these models bill by token, at the same price at every hour of the day."


def advise_off_peak(window: Window, kind: Kind, *, unattended: bool) -> list[Recommendation] | NotApplicable:
    """One recommendation for each model whose calls, of those that nobody waits for or of the others, have cheaper hours."""
    models = dict.fromkeys((group.key.provider, group.key.model) for group in window.groups if group.key.model)
    prices = window.prospect.prices
    hourly = [(provider, model) for provider, model in models if prices.changes_within_the_day(provider, model or "")]
    if not hourly:
        return NotApplicable(kind, NO_HOURS)
    found = []
    for provider, model in hourly:
        change = OffPeak(where=Where(provider=provider, model=model, unattended=unattended))
        (effect,) = window.what_if(change).effects
        if not is_worth(window, effect.saving.expected):
            continue
        found.append(
            Recommendation(
                kind=kind,
                organization=window.organization,
                subject=change.where.named,
                current=f"{effect.calls:,} calls to {model} are made at hours at which it costs more.",
                recommended="Run the jobs at its cheap hours."
                if unattended
                else "Move what can wait to its cheap hours.",
                impact="The same answers, some hours later.",
                saving=effect.saving,
                calls=effect.calls,
                evidence=evidence_of(window, change),
                confidence=Level.medium if unattended else Level.low,
                effort=Level.low if unattended else Level.high,
                risk="Whoever waits for them waits longer.",
                how_to_try="Start one job at another hour.",
                assumptions=change.assumptions,
                counted=unattended,
                changes=(change,),
            )
        )
    return found or NotApplicable(kind, "These calls are made at the cheap hours already.")
