"""semantic_caching: an upper bound of what a cache that knows similar requests could save, and said to be one.

No text is stored, so nobody can say which requests are similar. Where at least 5 % of a part's requests are equal to the letter,
people do ask alike there: the bound is the cost of all its short requests (below 500 tokens) that no exact cache would have
answered. It is no part of the total, and at least and expected are 0.
"""

from __future__ import annotations

from collections.abc import Iterator

from vital_tracking.advice.evidence import evidence_where, size_evidence, span
from vital_tracking.advice.kinds.caching import LEAST_CALLS, NO_HASHES, Part, said_of_parts
from vital_tracking.advice.kinds.switching import is_worth
from vital_tracking.advice.recommendation import Kind, Level, NotApplicable, Recommendation, Saving
from vital_tracking.advice.window import Window
from vital_tracking.core.cost import ZERO, exact_sum
from vital_tracking.core.request_size import Size, size_of

LEAST_DUPLICATES = 5
"""The percentage of requests that must repeat one before them to the letter."""


def advise(window: Window) -> list[Recommendation] | NotApplicable:
    """One recommendation for each part in which people ask alike."""
    found = list(said_of_parts(window, _similar))
    if found:
        return found
    if not any(group.hashed_calls for group in window.groups):
        return NotApplicable(Kind.semantic_caching, NO_HASHES)
    return NotApplicable(
        Kind.semantic_caching,
        f"Nowhere are {LEAST_DUPLICATES} % of the requests equal, so nothing says that people ask alike.",
    )


def _similar(window: Window, part: Part) -> Iterator[Recommendation]:
    if part.hashed < LEAST_CALLS or 100 * part.repeated < LEAST_DUPLICATES * part.hashed:
        return
    short = [
        group
        for group in part.groups
        if group.key.priced
        and not group.key.fixed
        and not group.key.shadow
        and group.key.hashed
        and not group.key.repeated
        and size_of(group.key.size) is Size.simple
    ]
    bound = exact_sum(group.cost for group in short)
    if not is_worth(window, bound):
        return
    yield Recommendation(
        kind=Kind.semantic_caching,
        organization=window.organization,
        subject=part.where.named,
        current=f"{100 * part.repeated // part.hashed} % of the requests of {part.title} are equal.",
        recommended="Try a cache that answers similar requests.",
        impact="At most this, an upper bound: all short requests that are not equal to one before them.",
        saving=Saving(ZERO, ZERO, bound),
        calls=sum(group.calls for group in short),
        evidence={**evidence_where(window, part.where), **size_evidence(Size.simple), "new_within": span(window.ttl)},
        confidence=Level.low,
        effort=Level.high,
        risk="A similar question may need another answer: somebody gets a wrong one, and nobody notices.",
        how_to_try="Let it run beside the model without being used, and read a hundred of its hits.",
        assumptions=(
            "No text is stored, so similarity is not known. What embeddings of requests cost is not counted.",
        ),
        counted=False,
    )
