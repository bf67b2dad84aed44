"""What providers bill: the units of genai-prices, where each is counted, and which rate holds where it has none of its own.

A unit is named by its key in genai-prices' registry (`input_audio_tokens`, `web_searches`), which says its dimensions. Tokens of
a prompt or an answer are parts of `prompt_tokens` and `completion_tokens`; everything else is a fee, and so are tokens that a
provider counts beside the answer (citations).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Final, Literal, NamedTuple, TypeAlias

Side: TypeAlias = Literal["input", "output", "fees"]
"""Which of a row's costs a unit is a part of: `input_cost`, `output_cost` or `fees`."""

# What a price is for, where it is not for a million: the scale of amounts that people read and write.
_PER_ONE: Final = 1
_PER_MILLION: Final = 1_000_000


class Unit(NamedTuple):
    """One thing that is billed.

    `price_key` is the name of its price in genai-prices, which is in US dollars for so many as `per` says. `part_of` is the
    bucket of tokens that it is counted in as well, None where it stands beside the tokens. `around` are the units, nearest
    first, whose rate holds where it has none; `modality` is set where it is no text. `uncached` is what the same tokens are
    without a cache.
    """

    name: str
    price_key: str
    per: int
    side: Side
    part_of: str | None
    around: tuple[str, ...]
    modality: str | None
    uncached: str

    @property
    def scale(self) -> int:
        """For how many units people state its price: a million tokens, or one of anything else."""
        return _PER_MILLION if self.per == _PER_MILLION else _PER_ONE


# Where dimensions differ, the kind of token decides the price before its modality does: cached audio is cached first.
_WEIGHTS: Final[Mapping[str, int]] = {"family": 16, "direction": 16, "token_type": 8, "cache_ttl": 4, "modality": 2}

# Providers count citations beside the answer: Perplexity's `completion_tokens` leave them out.
# https://docs.perplexity.ai/getting-started/pricing
_BESIDE: Final = "citation"

_BUCKETS: Final[Mapping[tuple[str | None, ...], str]] = {
    ("input", None, None): "input_text_tokens",
    ("input", "tool", None): "input_text_tokens",
    ("input", "cache_read", None): "cache_read_tokens",
    ("input", "cache_write", None): "cache_write_5m_tokens",
    ("input", "cache_write", "5m"): "cache_write_5m_tokens",
    ("input", "cache_write", "1h"): "cache_write_1h_tokens",
    ("output", None, None): "output_text_tokens",
    ("output", "reasoning", None): "output_reasoning_tokens",
}

BUCKETS: Final = (
    "input_text_tokens",
    "cache_read_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "input_audio_tokens",
    "output_text_tokens",
    "output_reasoning_tokens",
    "output_audio_tokens",
)
"""The units that have a column: disjoint parts of a call's tokens. All others are kept by their name."""


# What providers count and genai-prices has no unit for, each billed by the one: images of OpenAI's tool, sources of xAI's Live
# Search, pages that Groq's tools visit.
_MORE: Final = {
    name: {"per": 1, "price_key": name, "dimensions": {"family": "tool_calls", "tool_type": name}}
    for name in ("image_generations", "search_sources", "web_visits")
}


@cache
def _units() -> dict[str, Unit]:
    from genai_prices.data_units import unit_data  # a tenth of a second, and more memory than all of this package

    known_units = {**_MORE, **unit_data}
    dimensions = {name: data["dimensions"] for name, data in known_units.items()}

    def is_part_of(inner: Mapping[str, str], outer: Mapping[str, str]) -> bool:
        return inner is not outer and outer.items() <= inner.items()

    def closeness(name: str) -> int:
        return sum(_WEIGHTS.get(dimension, 1) for dimension in dimensions[name])

    named = {frozenset(known.items()): name for name, known in dimensions.items()}
    found = {}
    for name, known in dimensions.items():
        kind, direction = known.get("token_type"), known.get("direction")
        in_tokens = known["family"] == "tokens" and kind != _BESIDE
        around = [other for other, outer in dimensions.items() if is_part_of(known, outer) and kind != _BESIDE]
        plain = {key: value for key, value in known.items() if key not in ("token_type", "cache_ttl")}
        found[name] = Unit(
            name=name,
            price_key=known_units[name]["price_key"],
            per=known_units[name]["per"],
            side=direction if in_tokens else "fees",
            part_of=_BUCKETS[direction, kind, known.get("cache_ttl")] if in_tokens and name not in BUCKETS else None,
            around=tuple(sorted(around, key=closeness, reverse=True)),
            modality=known.get("modality") if known.get("modality") != "text" else None,
            uncached=named.get(frozenset(plain.items()), name) if kind in ("cache_read", "cache_write") else name,
        )
    return found


class _Units(Mapping[str, Unit]):
    """The units by name; worked out when the first is asked for."""

    def __getitem__(self, name: str) -> Unit:
        return _units()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_units())

    def __len__(self) -> int:
        return len(_units())


UNITS: Final[Mapping[str, Unit]] = _Units()
"""All units that are known, by name."""


IN_COLUMNS: Final = frozenset({*BUCKETS, "input_tokens", "output_tokens", "cache_write_tokens", "requests"})
"""Units that are never counted by their name: a column says how many there are."""
