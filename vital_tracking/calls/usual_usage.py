"""The tokens of calls whose answer says nothing unusual; what `usage_of` and `resolve` work out for them, in a tenth of the time.

It knows what is harmless, not what is billed: whatever it does not know means that the bill must be worked out.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

from vital_tracking.calls.quirks import HIDDEN, NOT_IN_FORCE, REASONING_BESIDE
from vital_tracking.calls.resolve import MOST_OF_A_FACT
from vital_tracking.calls.usage_of import places_of, snake
from vital_tracking.core.providers import provider_id
from vital_tracking.core.record import PRICE_FACTS
from vital_tracking.core.sanitize import MAX_TOKENS, clean_text

_TIER: Final = "service_tier"
_RESPONSE: Final = frozenset({"model_name", "model", "model_id", "finish_reason", "stop_reason", "status", _TIER})
_USAGE: Final = frozenset(
    {"input_tokens", "output_tokens", "total_tokens", "input_token_details", "output_token_details"}
)
# Fields of a provider's counts that decide a bill in ways of their own.
_SPECIAL: Final = {"cost", "cost_details", "cost_in_usd_ticks", "is_byok", "model", "iterations", *PRICE_FACTS} - {
    _TIER
}

# What a count of the provider's has to be.
_CHECKS: Final[Mapping[str, int]] = {"input_tokens": 1, "output_tokens": 2, "total": 3, "cache_read": 4, "reasoning": 5}
_ZERO: Final = 0

Facts = tuple[tuple[str, str], ...]


class UsualUsage(NamedTuple):
    """What a call used: tokens of the prompt, those of them that came from a cache; of the answer, those that were reasoning."""

    prompt: int
    cache_read: int
    completion: int
    reasoning: int


@lru_cache(maxsize=256)
def is_usual(provider: str | None) -> bool:
    """Whether a provider's integration hands on all of its counts, as others do."""
    owner = provider_id(provider)
    return owner not in HIDDEN and owner not in REASONING_BESIDE


def usual_usage(usage: object, token_usage: object) -> UsualUsage | None:
    """What a call used by LangChain's `usage`, where the provider's own counts `token_usage` say the same; None where that is not
    certain, or not all."""
    if type(usage) is not dict or not _USAGE.issuperset(usage):
        return None
    prompt, completion = usage.get("input_tokens"), usage.get("output_tokens")
    if type(prompt) is not int or type(completion) is not int:
        return None
    if not (0 < prompt <= MAX_TOKENS and 0 < completion <= MAX_TOKENS):
        return None
    total = prompt + completion
    if usage.get("total_tokens") != total:
        return None
    read, thought = 0, 0
    if details := usage.get("input_token_details"):
        read = _detail(details, "cache_read")
    if details := usage.get("output_token_details"):
        thought = _detail(details, "reasoning")
    if not (0 <= read <= prompt and 0 <= thought <= completion):
        return None
    if token_usage and not _agrees(token_usage, prompt, completion, total, read, thought):
        return None
    return tuple.__new__(UsualUsage, (prompt, read, completion, thought))


def usual_facts(response: object, token_usage: Any) -> Facts | None:
    """What else decides the price of an answer, if anything; None where more than that has to be looked at."""
    if type(response) is not dict or not _RESPONSE.issuperset(response):
        return None
    tier = response.get(_TIER) or (token_usage.get(_TIER) if token_usage else None)
    if tier is None or type(tier) is not str or tier in NOT_IN_FORCE or len(tier) > MOST_OF_A_FACT:
        return ()
    text = clean_text(tier)
    return ((_TIER, text),) if text else ()


def _detail(details: Any, field: str) -> int:
    """The one count among the details of a side that is a part of its total; -1 where another one says something."""
    if type(details) is not dict:
        return -1
    found = 0
    for name, value in details.items():
        if type(value) is not int or (value and name != field):
            return -1
        found = value or found
    return found


def _agrees(counts: Any, prompt: int, completion: int, total: int, read: int, thought: int) -> bool:
    """Whether a provider's own counts say the same."""
    if type(counts) is not dict:
        return False
    shape: list[Any] = []
    for key, value in counts.items():
        kind = type(value)
        if kind is dict:
            shape.append((key, *value))
        elif kind is list:
            return False
        else:
            shape.append(key)
    checks = _checks(tuple(shape))
    if checks is None:
        return False
    beside, found = checks
    expected = (0, prompt - read if beside else prompt, completion, total, read, thought)
    for wanted, paths in found:
        for key, inner in paths:
            value = counts[key] if inner is None else counts[key][inner]
            if value is not None:
                if type(value) is not int or value != expected[wanted]:
                    return False
                break
    return True


@lru_cache(maxsize=256)
def _checks(shape: tuple[Any, ...]) -> tuple[bool, tuple[tuple[int, tuple[tuple[Any, Any], ...]], ...]] | None:
    """Whether what was read from a cache stands beside the input in counts of such keys, and what each count has to be."""
    names = {snake(entry[0] if isinstance(entry, tuple) else entry) for entry in shape}
    if not _SPECIAL.isdisjoint(names):
        return None
    known = places_of(shape)
    found = []
    for field, kind, paths in known:
        read_beside = kind == "beside" and field == "cache_read"
        found.append((_CHECKS.get(field, _ZERO) if kind == "counts" or read_beside else _ZERO, paths))
    return any(kind == "beside" and field == "cache_read" for field, kind, _ in known), tuple(found)
