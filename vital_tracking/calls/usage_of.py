"""Works out what a call used from everything that its answer says: one normaliser for all providers.

LangChain's `usage_metadata`, the provider's own counts and fields of the response are merged, and checked against the provider's
total. What providers do differently is data in `quirks`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final

from vital_tracking.calls.quirks import (
    BESIDE_INPUT,
    BLOCKS,
    COUNTS,
    DETAIL_UNITS,
    HIDDEN,
    HIDDEN_PASSES,
    IMAGE_BLOCKS,
    IMAGE_SIZE,
    IMAGE_TOKENS,
    IN_TOTAL_ALONE,
    MODALITY_LISTS,
    PLAIN_DETAILS,
    REASONING_BESIDE,
    REST_OF_TOTAL,
    SEARCHES_BY_PROMPT,
    SEARCHES_IN_REQUEST,
    TICKS_PER_DOLLAR,
    UNBILLED,
    UNIT_COUNTS,
)
from vital_tracking.core.providers import provider_id
from vital_tracking.core.sanitize import dollars, fields_of, token_count
from vital_tracking.core.usage import Count, Pass, TokenUsage, estimate_tokens, sum_of_passes

_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_DATED: Final = re.compile(r"[-@](20\d{6}|latest|default)|-v\d+(:\d+)?$")
_TIERS: Final = ("flex_", "priority_")
_DETAILS: Final[Mapping[tuple[str, str], str]] = {
    ("input", "cache_read"): "cache_read",
    ("input", "cache_creation"): "cache_write",
    ("input", "ephemeral_5m_input_tokens"): "cache_write_5m",
    ("input", "ephemeral_1h_input_tokens"): "cache_write_1h",
    ("input", "audio"): "audio_input",
    ("output", "reasoning"): "reasoning",
    ("output", "audio"): "audio_output",
}
_TOTALS: Final = ("input_tokens", "output_tokens", "total")
_NOTHING: Final[Mapping[str, Any]] = {}
_PLAIN: Final = "plain"
_PLAIN_TYPES: Final = frozenset({int, float, str, bool, type(None), dict, list})


def usage_of(
    provider: str | None,
    usage: Mapping[str, Any] | None,
    token_usage: Mapping[str, Any] | None = None,
    response: Mapping[str, Any] = _NOTHING,
    model: str | None = None,
) -> TokenUsage | None:
    """What a call used; None where nothing that was reported holds usable totals.

    `usage` is LangChain's `usage_metadata`, `token_usage` the provider's own counts, `response` the fields that `read_answer`
    keeps; `model` is the one that answered.
    """
    owner = provider_id(provider)
    told, units, notes = _of_metadata(usage)
    raw, raw_units = _of_counts(token_usage)
    counts = {**raw, **{name: value for name, value in told.items() if value or name not in raw}}
    if raw:
        _choose_totals(counts, told, raw)
    if counts.get("cache_write_5m") and not counts.get("cache_write"):
        counts["cache_write"] = _sum(counts["cache_write_5m"], counts.get("cache_write_1h"))
    elif counts.get("cache_write") and not counts.get("cache_write_1h") and (kept := response.get("asked_cache")):
        notes.append("cache_ttl_from_request" if kept == "long" else "cache_ttl_hidden")
        if kept == "long":
            counts["cache_write_1h"] = counts["cache_write"]
    counts.pop("cache_write_5m", None)
    if raw_units.get(IN_TOTAL_ALONE.get(owner or "", "")):
        counts.pop("total", None)
    passes = _passes(token_usage, model)
    found = (
        sum_of_passes(passes)
        if passes
        else TokenUsage.reported(
            input_tokens=counts.pop("input_tokens", None),
            output_tokens=counts.pop("output_tokens", None),
            **counts,
            reasoning_beside=owner in REASONING_BESIDE,
            rest=REST_OF_TOTAL.get(owner or ""),
        )
    )
    if found is None:
        return None
    units = {**raw_units, **units, **_of_response(owner, response, {**raw_units, **units}, model)}
    if (model or "").lower() in SEARCHES_IN_REQUEST:
        units.pop("web_searches", None)
    found = found.with_units(units) if units else found
    hidden = HIDDEN.get(owner or "")
    if hidden is not None and told and not any(name in (token_usage or ()) for name in hidden.unless):
        notes.append(hidden.note)
        found = found._replace(estimated=found.estimated or hidden.estimated)
    if blocks := response.get("blocks"):
        found = _with_images(found, response, blocks, model)
        if not passes and not HIDDEN_PASSES.isdisjoint(blocks):
            notes.append("passes_hidden")
            found = found._replace(estimated=True)
    if "cache_ttl_hidden" in notes:
        found = found._replace(estimated=True)
    return found.with_notes(*notes)


def reported_cost_of(token_usage: Mapping[str, Any] | None, response: Mapping[str, Any] = _NOTHING) -> Decimal | None:
    """What the provider itself says that the call cost, in US dollars; None where it says nothing.

    OpenRouter's `cost` is its own fee alone where the call went by one's own key to a provider, who bills
    `upstream_inference_cost`. Without such a key that is the same amount a second time, by which the two are told apart where
    the integration drops `is_byok`.
    """
    counts = token_usage or _NOTHING
    cost = response.get("cost", counts.get("cost"))
    if isinstance(cost, Mapping):  # Perplexity
        cost = cost.get("total_cost")
    if (ticks := token_count(counts.get("cost_in_usd_ticks"))) is not None and cost is None:
        return Decimal(ticks) / TICKS_PER_DOLLAR
    own = dollars(cost)
    details = response.get("cost_details", counts.get("cost_details"))
    upstream = dollars(details.get("upstream_inference_cost")) if isinstance(details, Mapping) else None
    if own is None or upstream is None:
        return own
    by_own_key = counts["is_byok"] is True if "is_byok" in counts else upstream != own
    return own + upstream if by_own_key else own


# LangChain's `usage_metadata`


def _of_metadata(usage: Mapping[str, Any] | None) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """Counts, units and notes from LangChain's `usage_metadata`."""
    if not isinstance(usage, Mapping):
        return {}, {}, []
    counts = {
        "input_tokens": usage.get("input_tokens"),
        "output_tokens": usage.get("output_tokens"),
        "total": usage.get("total_tokens"),
    }
    units: dict[str, Any] = {}
    notes: list[str] = []
    for side, details in (("input", usage.get("input_token_details")), ("output", usage.get("output_token_details"))):
        if not details or not (details := fields_of(details)):
            continue
        for key, (name, field, unit) in zip(details, _names_of_details(side, tuple(details)), strict=True):
            value = details[key]
            if field is not None:
                if field is not _PLAIN and (key == name or field not in counts):  # the plain name before that of a tier
                    counts[field] = value
            elif unit is not None:
                units[unit] = value
            elif value and token_count(value):
                notes.append(f"unit_unknown:{side}_{name}"[:64])
    return counts, units, notes


@lru_cache(maxsize=256)
def _names_of_details(side: str, keys: tuple[object, ...]) -> tuple[tuple[str, str | None, str | None], ...]:
    """What the details of a side are: the plain name, the count, the unit; worked out once for all that have the same keys.

    OpenAI's integration writes a tier before the name: `flex_cache_read` is `cache_read`, and `flex` alone the rest.
    """
    found = []
    for key in keys:
        name = str(key)
        name = next((name[len(tier) :] for tier in _TIERS if name.startswith(tier)), name)
        field = _PLAIN if name in PLAIN_DETAILS else _DETAILS.get((side, name))
        found.append((name, field, DETAIL_UNITS.get((side, name))))
    return tuple(found)


# The provider's own counts


def _of_counts(usage: Mapping[str, Any] | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Counts and units from a usage object as it came over the wire."""
    if not isinstance(usage, Mapping) or not usage:
        return {}, {}
    if not _PLAIN_TYPES.issuperset(map(type, usage.values())):  # details as objects of an SDK
        usage = {key: value if type(value) in _PLAIN_TYPES else dict(fields_of(value)) for key, value in usage.items()}
    shape = tuple([(key, *value) if type(value) is dict else key for key, value in usage.items()])
    places = places_of(shape)
    counts: dict[str, Any] = {}
    beside: list[Any] = []
    units: dict[str, Any] = {}
    for field, kind, paths in places:
        for key, inner in paths:
            value = usage[key] if inner is None else usage[key][inner]
            if value is None:
                continue
            if kind == "counts":
                counts[field] = value
            elif kind == "units":
                units[field] = value
            elif token_count(value):
                beside.append(value)
                counts[field] = counts.get(field) or value
            break
    if beside:
        counts["input_tokens"] = _sum(counts.get("input_tokens"), *beside)
    for name, modalities in MODALITY_LISTS.items():
        parts = usage.get(name)
        for part in parts if isinstance(parts, Sequence) and not isinstance(parts, str) else ():
            fields = {snake(key): value for key, value in fields_of(part).items()}
            target = modalities.get(str(fields.get("modality")).upper())
            if target is None:
                continue
            place = counts if target in COUNTS else units
            place[target] = _sum(place.get(target), fields.get("token_count"))
    return counts, units


@lru_cache(maxsize=256)
def places_of(shape: tuple[Any, ...]) -> tuple[tuple[str, str, tuple[tuple[Any, Any], ...]], ...]:
    """Where in a usage object of such keys (and keys within them) the known counts stand; worked out once a shape.

    Each is (its name, `counts`, `units` or `beside`, its places, the best first).
    """
    known: dict[str, tuple[Any, Any]] = {}
    for entry in shape:
        key, *inner = entry if isinstance(entry, tuple) else (entry,)
        known[snake(key)] = (key, None)
        for name in inner:
            known[f"{snake(key)}.{snake(name)}"] = (key, name)
    found = [(field, "counts", [known[path] for path in paths if path in known]) for field, paths in COUNTS.items()]
    found += [(field, "beside", [known[name]]) for name, field in BESIDE_INPUT.items() if name in known]
    found += [(unit, "units", [known[path]]) for path, unit in UNIT_COUNTS.items() if path in known]
    return tuple((field, kind, tuple(places)) for field, kind, places in found if places)


@lru_cache(maxsize=512)
def snake(key: object) -> str:
    return _CAMEL.sub("_", str(key)).lower()


def _choose_totals(counts: dict[str, Any], told: Mapping[str, Any], raw: Mapping[str, Any]) -> None:
    """Of two sources that differ, the totals are taken from the one that adds up to the provider's total."""
    total = raw.get("total")
    if total:
        counts["total"] = total

    def adds_up(source: Mapping[str, Any]) -> bool:
        return bool(total) and _sum(source.get("input_tokens"), source.get("output_tokens")) == total

    whole = token_count(told.get("input_tokens")) and token_count(told.get("output_tokens")) is not None
    if not whole or (not adds_up(told) and adds_up(raw)):
        counts.update({name: raw[name] for name in _TOTALS if raw.get(name) is not None})


def _passes(usage: Mapping[str, Any] | None, answering: str | None) -> tuple[Pass, ...]:
    """The passes of Anthropic's `iterations`, where there were several or one was another model's."""
    iterations = usage.get("iterations") if isinstance(usage, Mapping) else None
    if not isinstance(iterations, Sequence) or isinstance(iterations, str):
        return ()
    passes = []
    for entry in map(fields_of, iterations):
        counts, _ = _of_counts(entry)
        used = TokenUsage.reported(
            input_tokens=counts.pop("input_tokens", None), output_tokens=counts.pop("output_tokens", None), **counts
        )
        if used is None:
            continue
        model = _another(entry, answering)
        if model is not None and not used.completion_tokens:
            continue  # it declined before it said anything, which is not billed
        passes.append(Pass(used, model))
    plain = len(passes) <= 1 and not any(each.model for each in passes)
    return () if plain else tuple(passes)


def _another(entry: Mapping[str, Any], answering: str | None) -> str | None:
    """The model of a pass, None where it is the one that answers, whose name may have a date or a region."""
    model = entry.get("model")
    if not isinstance(model, str) or not model:
        return None
    if answering is None:
        return model if str(entry.get("type")).startswith("advisor") else None
    return None if _bare(model) == _bare(answering) else model


@lru_cache(maxsize=256)
def _bare(model: str) -> str:
    return _DATED.sub("", model.lower().rpartition("/")[2].rpartition("anthropic.")[2])


# The response


def _of_response(
    provider: str | None, response: Mapping[str, Any], counted: Mapping[str, Any], model: str | None
) -> dict[str, Count]:
    """Units that fields and blocks of the answer tell of, where its usage counts none of them."""
    found: dict[str, Count] = {}
    searches = response.get("num_search_queries")
    queries = response.get("search_queries")
    if queries:
        by_prompt = (model or "").lower().startswith(SEARCHES_BY_PROMPT.get(provider or "", ()) or ("\0",))
        searches = 1 if by_prompt else queries
    if searches and token_count(searches):
        found["web_searches"] = searches
    unbilled = UNBILLED.get(provider or "", ())
    for kind, count in (response.get("blocks") or _NOTHING).items():
        if (block := BLOCKS.get(kind)) is not None and block.unit not in unbilled:
            found[block.unit] = found.get(block.unit, 0) + count
    return {unit: count for unit, count in found.items() if not counted.get(unit)}


def _with_images(
    usage: TokenUsage, response: Mapping[str, Any], blocks: Mapping[str, int], model: str | None
) -> TokenUsage:
    """Images of an answer are tokens of it that integrations do not count apart: worked out, or estimated and said so."""
    images = sum(count for kind, count in blocks.items() if kind in IMAGE_BLOCKS)
    left = dict(usage.parts()).get("output_text_tokens", 0)
    if not images or "output_image_tokens" in usage.units or not left:
        return usage
    text = estimate_tokens(token_count(response.get("text_bytes")) or 0)
    sizes = IMAGE_TOKENS.get((model or "").lower().rpartition("/")[2].removesuffix("-preview"), {})
    each = sizes.get(str(response.get("asked_image_size") or IMAGE_SIZE).upper())
    if not text:
        return usage.with_units({"output_image_tokens": left})
    if each is not None and images * each <= left:
        return usage.with_units({"output_image_tokens": images * each})
    hidden = usage.with_units({"output_image_tokens": max(left - text, 0)})
    return hidden._replace(estimated=True).with_notes("modality_hidden")


def _sum(*values: object) -> Any:
    """The sum of those that are counts."""
    return sum([count for value in values if (count := token_count(value))])


# What nobody reported


def estimated_usage(
    prompt_bytes: int,
    completion_bytes: int,
    known: TokenUsage | None = None,
    *,
    thought_bytes: int = 0,
    ended: bool = False,
) -> TokenUsage:
    """Usage that was not reported in full, estimated from the sizes of the texts and flagged.

    `known` is what was reported: its prompt count is exact; its completion count is exact where the answer `ended`, and a lower
    bound where it was broken off. `thought_bytes` is the part of the answer that was reasoning.
    """
    known = known or TokenUsage()
    prompt = known.prompt_tokens or estimate_tokens(prompt_bytes)
    completion, reasoning = known.completion_tokens, known.reasoning_tokens
    if not (ended and completion):
        reasoning = max(estimate_tokens(thought_bytes), reasoning)
        completion = max(estimate_tokens(completion_bytes), completion, reasoning)
    kept = known.audio_output_tokens if known.audio_output_tokens <= completion - reasoning else 0
    return known._replace(
        prompt_tokens=prompt,
        completion_tokens=completion,
        reasoning_tokens=reasoning,
        audio_output_tokens=kept,
        estimated=True,
    )
