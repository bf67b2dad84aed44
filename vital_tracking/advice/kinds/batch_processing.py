"""batch_processing: calls that nobody waits for, at the price of a batch.

Applies to calls that were not streamed and are embeddings outside of conversations, or of workflows and solutions at night, where
the price list has a price of batches for their model. Workflows of several steps are left out: their steps wait for each other,
and each batch may take a day. Effort: medium, since a batch is asked for and fetched apart.
"""

from __future__ import annotations

from vital_tracking.advice.changes import Processing, Where
from vital_tracking.advice.evidence import evidence_of
from vital_tracking.advice.kinds.switching import is_worth
from vital_tracking.advice.recommendation import Kind, Level, NotApplicable, Recommendation
from vital_tracking.advice.window import Window
from vital_tracking.queries.call_groups import CallGroup


def advise(window: Window) -> list[Recommendation] | NotApplicable:
    """One recommendation for each service and model with calls that nobody waits for."""
    waiting = [group for group in window.groups if group.key.unattended and group.key.priced and group.key.model]
    if not waiting:
        return NotApplicable(
            Kind.batch_processing,
            "Somebody seems to wait for every call: none is an embedding outside of conversations, or of a workflow at night.",
        )
    steps: dict[str, set[str | None]] = {}
    for group in window.groups:
        if group.key.workflow is not None:
            steps.setdefault(group.key.workflow, set()).add(group.key.step)
    parts: dict[tuple[str | None, ...], list[CallGroup]] = {}
    for group in waiting:
        key = group.key
        if key.workflow is None or len(steps[key.workflow]) == 1:
            parts.setdefault((key.service, key.workflow, key.provider, key.model), []).append(group)
    if not parts:
        return NotApplicable(
            Kind.batch_processing,
            "What nobody waits for are steps of workflows that wait for each other: as batches they would take days.",
        )
    found = []
    for (service, workflow, provider, model), groups in parts.items():
        where = Where(service=service, workflow=workflow, provider=provider, model=model, unattended=True)
        change = Processing(where=where)
        (effect,) = window.what_if(change, groups=groups).effects
        if not is_worth(window, effect.saving.expected):
            continue
        found.append(
            Recommendation(
                kind=Kind.batch_processing,
                organization=window.organization,
                subject={**where.named, "processing": "batch"},
                current=f"{effect.calls:,} calls to {model} that nobody seems to wait for are paid for at the full price.",
                recommended="Send them as batches.",
                impact="The same answers within 24 hours, mostly much sooner.",
                saving=effect.saving,
                calls=effect.calls,
                evidence=evidence_of(window, change),
                confidence=Level.medium,
                effort=Level.medium,
                risk="Somebody may wait for them after all: a batch takes up to a day.",
                how_to_try="Take one nightly job, and send its requests through the provider's batch API.",
                assumptions=(
                    *change.assumptions,
                    "Nobody waits for embeddings outside of conversations, or for workflows from 22 to 6 o'clock "
                    f"({window.period.timezone}); workflows of several steps, which wait for each other, are left out.",
                ),
                changes=(change,),
            )
        )
    return found or NotApplicable(
        Kind.batch_processing,
        "The price list has no lower price of batches for the models of the calls that nobody waits for.",
    )
