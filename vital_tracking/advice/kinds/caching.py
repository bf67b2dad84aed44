"""caching: answers that were paid for twice, and beginnings of prompts that the provider could keep.

An exact cache is advised for an agent's part of a service where at least 20 % of its requests equal one of its own before them
within the time to live (by request_hash). Caching of prompts is advised where reads from the provider's cache would have saved
more than its writes would have cost (by prefix_hashes). Agents of a service that are not worth it alone are looked at together.
Both need VITAL_HASH_KEY; without it nothing is known, and that is said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from vital_tracking.advice.changes import ExactCache, PromptCaching, Where
from vital_tracking.advice.evidence import evidence_of
from vital_tracking.advice.kinds.switching import is_worth
from vital_tracking.advice.recommendation import Kind, Level, NotApplicable, Recommendation
from vital_tracking.advice.window import Window, Work
from vital_tracking.queries.call_groups import CallGroup
from vital_tracking.queries.explore import ANY

LEAST_DUPLICATES = 20
"""The percentage of requests that must repeat one before them."""

_MOST_ALONE = 40
"""So many agents of a service are advised by themselves; what is advised of the others together names these as left out."""

LEAST_CALLS = 20
"""So many calls must be known by their hashes before anything is said about them."""

NO_HASHES = "No call has a hash by which equal requests are found: set VITAL_HASH_KEY, and ask again in some days."


@dataclass(frozen=True, slots=True)
class Part:
    """An agent's part of a service, or all agents of one (`agent` ANY) `but` some, and its calls."""

    service: str | None
    agent: str | None
    groups: list[CallGroup]
    but: tuple[str | None, ...] = ()

    @property
    def title(self) -> str:
        """What people call it."""
        if self.but:
            return f"the other agents of {Work(self.service, None, None, None).title}"
        return Work(self.service, None if self.agent == ANY else self.agent, None, None).title

    @property
    def where(self) -> Where:
        """Its calls."""
        return Where(service=self.service, agent=self.agent, but=tuple({"agent": agent} for agent in self.but))

    @property
    def hashed(self) -> int:
        """How many of its calls have a hash."""
        return sum(group.hashed_calls for group in self.groups)

    @property
    def repeated(self) -> int:
        """How many of its calls repeat one before them."""
        return sum(group.calls for group in self.groups if group.key.repeated)


def parts(window: Window) -> Iterator[Part]:
    """The parts of the window, by service and agent."""
    found: dict[tuple[str | None, str | None], Part] = {}
    for group in window.groups:
        key = group.key
        found.setdefault((key.service, key.agent), Part(key.service, key.agent, [])).groups.append(group)
    yield from sorted(found.values(), key=lambda part: (part.service or "", part.agent or ""))


def advise(window: Window) -> list[Recommendation] | NotApplicable:
    """An exact cache for each part that repeats itself, and caching of prompts for each part and model that begins alike."""
    found = [*said_of_parts(window, _exact), *said_of_parts(window, _prompts)]
    if found:
        return found
    if not any(group.hashed_calls for group in window.groups):
        return NotApplicable(Kind.caching, NO_HASHES)
    return NotApplicable(
        Kind.caching,
        f"Nowhere do {LEAST_DUPLICATES} % of the requests repeat one before them, and no prompts begin alike for long enough.",
    )


def said_of_parts(window: Window, say: Callable[[Window, Part], Iterable[Recommendation]]) -> Iterator[Recommendation]:
    """What there is to say of each part; and of those of a service together of which there is nothing to say alone."""
    services: dict[str | None, list[Part]] = {}
    for part in parts(window):
        services.setdefault(part.service, []).append(part)
    for service, its_parts in services.items():
        alone: list[str | None] = []
        left: list[Part] = []
        for part in its_parts:
            found = list(say(window, part))
            if found and len(alone) < _MOST_ALONE:
                alone.append(part.agent)
                yield from found
            else:
                left.append(part)
        if len(left) > 1:  # hundreds of agents, of which none is worth advice alone
            yield from say(window, Part(service, ANY, [group for part in left for group in part.groups], tuple(alone)))


def _exact(window: Window, part: Part) -> Iterator[Recommendation]:
    hours = window.ttl.total_seconds() / 3600
    if part.hashed < LEAST_CALLS or 100 * part.repeated < LEAST_DUPLICATES * part.hashed:
        return
    change = ExactCache(where=part.where)
    (effect,) = window.what_if(change, groups=part.groups).effects
    if not is_worth(window, effect.saving.expected):
        return
    yield Recommendation(
        kind=Kind.caching,
        organization=window.organization,
        subject={**part.where.named, "cache": "exact"},
        current=f"{part.repeated:,} of {part.hashed:,} requests of {part.title} repeat one before, and are paid for.",
        recommended=f"Keep answers for {hours:g} hours in a cache of LangChain, and answer equal requests from it.",
        impact=f"{100 * part.repeated // part.hashed} % of its requests would be answered at once.",
        saving=effect.saving,
        calls=effect.calls,
        evidence=evidence_of(window, change),
        confidence=Level.high,
        effort=Level.low,
        risk="Who asks again gets the same answer, though time, tools or data behind it may have changed; and it must be of "
        "no user's own.",
        how_to_try="Attach the cache to one model: ChatOpenAI(cache=InMemoryCache()), or a shared one for several processes.",
        command="vital-tracking report duplicates",
        assumptions=(*change.assumptions, "What the cache itself costs to run is not counted."),
        changes=(change,),
    )


def _prompts(window: Window, part: Part) -> Iterator[Recommendation]:
    models = dict.fromkeys(
        (group.key.provider, group.key.model) for group in part.groups if group.prefix_read_tokens and group.key.model
    )
    for provider, model in models:
        change = PromptCaching(where=replace(part.where, provider=provider, model=model))
        its = [group for group in part.groups if (group.key.provider, group.key.model) == (provider, model)]
        (effect,) = window.what_if(change, groups=its).effects
        if not is_worth(window, effect.saving.expected):
            continue
        tokens = sum(group.prefix_read_tokens for group in its)
        yield Recommendation(
            kind=Kind.caching,
            organization=window.organization,
            subject={**change.where.named, "cache": "prompt"},
            current=f"Prompts of {part.title} to {model} begin alike, and {tokens:,} tokens of them are paid for in full.",
            recommended="Let the provider keep the beginning: what stays the same first, what changes last.",
            impact="Answers stay the same and come sooner.",
            saving=effect.saving,
            calls=effect.calls,
            evidence=evidence_of(window, change),
            confidence=Level.medium,
            effort=Level.low,
            risk="Where requests come further apart than the cache lives, writes to it cost more than they save.",
            how_to_try="Anthropic: cache_control at the end of the beginning; OpenAI and Gemini: by themselves where prompts "
            "begin alike, better with prompt_cache_key. Then look at cache_read_tokens of the calls.",
            command=None,
            assumptions=change.assumptions,
            changes=(change,),
        )
