"""What a call used: tokens by kind, other units that its provider bills, and the passes that made its answer.

Token buckets are disjoint inside their total: `prompt_tokens` holds uncached text, cache reads, cache writes and audio;
`completion_tokens` holds text, reasoning and audio.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeAlias

from vital_tracking.core.sanitize import MAX_TOKENS, clean_text, token_count
from vital_tracking.core.units import BUCKETS, IN_COLUMNS, UNITS

Count: TypeAlias = int | Decimal
"""How many of a unit: whole, but for durations."""

NO_UNITS: Final[Mapping[str, Count]] = MappingProxyType({})

# Bounds by which `billed_units` has room in its column.
_MOST_UNITS: Final = 16
_MOST_PASSES: Final = 8
_LONGEST_MODEL: Final = 64
_LONGEST_NAME: Final = 48


TOKEN_COLUMNS: Final = (
    "prompt_tokens",
    "completion_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "reasoning_tokens",
    "audio_tokens",
    "audio_output_tokens",
)
"""The columns of a stored call that `TokenUsage.of_columns` reads."""


class TokenUsage(NamedTuple):
    """What one call used. Token buckets are disjoint parts of their total.

    Of `prompt_tokens`: `cache_read_tokens`, `cache_write_tokens` and `audio_input_tokens`; the rest is plain text.
    `cache_write_1h_tokens` is the part of the cache writes that is kept an hour. Of `completion_tokens`: `reasoning_tokens` and
    `audio_output_tokens`.

    `units` are those that have no field, by their names in UNITS: tokens of other modalities, which are parts of the totals, and
    searches, citations and the like, which are not. `passes` are the single requests where the answer took several, each with a
    size and a price of its own: the totals are then the sums of those of the call's own model.

    `estimated`: the counts were not reported. `notes`: what had to be mended, as short fixed words.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    reasoning_tokens: int = 0
    audio_input_tokens: int = 0
    audio_output_tokens: int = 0
    units: Mapping[str, Count] = NO_UNITS
    passes: tuple[Pass, ...] = ()
    estimated: bool = False
    notes: tuple[str, ...] = ()

    @property
    def total_tokens(self) -> int:
        """Prompt and completion tokens together."""
        return self.prompt_tokens + self.completion_tokens

    def parts(self) -> list[tuple[str, Count]]:
        """All that was used and is not 0, as disjoint units."""
        cached = self.cache_read_tokens + self.cache_write_tokens
        counts: tuple[Count, ...] = (
            self.prompt_tokens - cached - self.audio_input_tokens,
            self.cache_read_tokens,
            self.cache_write_tokens - self.cache_write_1h_tokens,
            self.cache_write_1h_tokens,
            self.audio_input_tokens,
            self.completion_tokens - self.reasoning_tokens - self.audio_output_tokens,
            self.reasoning_tokens,
            self.audio_output_tokens,
        )
        if not self.units:
            return [part for part in zip(BUCKETS, counts, strict=True) if part[1]]
        found: dict[str, Count] = dict(zip(BUCKETS, counts, strict=True))
        for name, count in self.units.items():
            unit = UNITS.get(name)
            if unit is not None and unit.part_of is not None:
                found[unit.part_of] -= count
            found[name] = count
        return [part for part in found.items() if part[1]]

    def billed_units(self) -> dict[str, Any]:
        """The column `billed_units`: counts by unit, and `passes` as objects of their tokens by kind."""
        found: dict[str, Any] = {name: _plain(count) for name, count in self.units.items()}
        if self.passes:
            found["passes"] = [
                {
                    **({"model": clean_text(each.model, _LONGEST_MODEL)} if each.model is not None else {}),
                    **{name: count for name in TOKEN_FIELDS if (count := getattr(each.usage, name))},
                }
                for each in self.passes
            ]
        return found

    def with_billed_units(self, stored: Mapping[str, Any]) -> TokenUsage:
        """The same with what is `stored` in the column `billed_units`."""
        passes = tuple(
            Pass(TokenUsage(**{name: each[name] for name in TOKEN_FIELDS if name in each}), each.get("model"))
            for each in stored.get("passes") or ()
        )
        units = {name: _stored(count) for name, count in stored.items() if name != "passes"}
        return self._replace(units=MappingProxyType(units), passes=passes)

    def with_units(self, units: Mapping[str, object]) -> TokenUsage:
        """The same with further `units`; what is no count, or cannot be a part of its tokens, is left out and noted."""
        kept: dict[str, Count] = dict(self.units)
        notes: list[str] = []
        left = dict(self._replace(units=kept).parts())
        for key, value in units.items():
            name, count = clean_text(key, _LONGEST_NAME) or "", _unit_count(value)
            if count is None or name in IN_COLUMNS or len(kept) >= _MOST_UNITS:
                notes.append("invalid_unit")
                continue
            if not count:
                continue
            unit = UNITS.get(name)
            if unit is None:
                notes.append(f"unit_unknown:{name}")
            elif unit.part_of is not None:
                if count > left.get(unit.part_of, 0):
                    count = left.get(unit.part_of, 0)
                    notes.append("units_exceed_tokens")
                    if not count:
                        continue
                left[unit.part_of] -= count
            kept[name] = kept.get(name, 0) + count
        if kept == self.units and not notes:
            return self
        return self._replace(units=MappingProxyType(kept), notes=_merged(self.notes, notes))

    def with_notes(self, *notes: str) -> TokenUsage:
        """The same with further notes."""
        return self._replace(notes=_merged(self.notes, notes)) if notes else self

    @classmethod
    def of_columns(cls, row: Mapping[str, Any], *, estimated: bool = False) -> TokenUsage:
        """The usage of a stored call by the columns of its `row`, or of the sums of several; `estimated`: nobody reported it."""
        return cls(
            prompt_tokens=row["prompt_tokens"],
            completion_tokens=row["completion_tokens"],
            cache_read_tokens=row["cache_read_tokens"],
            cache_write_tokens=row["cache_write_tokens"],
            cache_write_1h_tokens=row["cache_write_1h_tokens"],
            reasoning_tokens=row["reasoning_tokens"],
            audio_input_tokens=row["audio_tokens"] - row["audio_output_tokens"],
            audio_output_tokens=row["audio_output_tokens"],
            estimated=estimated,
        )

    @classmethod
    def reported(
        cls,
        *,
        input_tokens: object,
        output_tokens: object,
        total: object = None,
        cache_read: object = 0,
        cache_write: object = 0,
        cache_write_1h: object = 0,
        reasoning: object = 0,
        audio_input: object = 0,
        audio_output: object = 0,
        reasoning_beside: bool = False,
        rest: str | None = None,
    ) -> TokenUsage | None:
        """Build disjoint buckets from counts as a provider reports them; None where both totals are unusable.

        `input_tokens` and `output_tokens` are the totals; `cache_read`, `cache_write`, `cache_write_1h` and `audio_input` the
        details of the one, `reasoning` and `audio_output` of the other. What is no count is taken as none, and noted.

        The details are parts of their total, unless that cannot be: where they exceed it, as Amazon Bedrock has reported them
        (input 3 beside 13,216 read from the cache), or where `total`, the provider's own sum, holds just that much more. Then
        they stand beside it and are added. `reasoning_beside` says that the provider never counts reasoning in its output.
        `rest` names the unit of tokens that the provider counts in its total and nowhere else.
        """
        notes: list[str] = []

        def part(value: object) -> int:
            if value is None:
                return 0
            number = token_count(value)
            if number is None:
                notes.append("invalid_token_detail")
                return 0
            return number

        prompt, completion = token_count(input_tokens), token_count(output_tokens)
        if prompt is None and completion is None:
            return None
        if prompt is None or completion is None:
            notes.append("token_total_missing")
        prompt, completion = prompt or 0, completion or 0
        read, write, write_1h = part(cache_read), part(cache_write), part(cache_write_1h)
        write = max(write, write_1h)
        thought, heard, said = part(reasoning), part(audio_input), part(audio_output)
        more = (token_count(total) or prompt + completion) - prompt - completion
        cached = read + write
        if cached > prompt or (cached and more in (cached, cached + thought)):
            prompt += cached
            more -= cached if more >= cached else 0
            notes.append("cache_beside_input")
        if thought > completion or reasoning_beside or (thought and more >= thought):
            if thought:
                completion += thought
                notes.append("reasoning_beside_output")
            more -= thought if more >= thought else 0
        if more < 0 and -more == thought <= completion - thought:
            completion -= thought
            more = 0
            notes.append("reasoning_counted_twice")
        if -more == cached:  # a total that leaves out what came from a cache or went to it
            more = 0
        units: dict[str, int] = {}
        if more > 0 and rest is not None:
            prompt += more
            units[rest] = more
        elif more and "token_total_missing" not in notes:
            notes.append("total_unexplained" if more > 0 else "total_below_parts")
        if heard > prompt - cached:
            heard = prompt - cached  # cached audio is counted as cached
            notes.append("audio_overlaps_cache")
        if said > completion - thought:
            said = completion - thought
            notes.append("audio_overlaps_reasoning")
        usage = cls(prompt, completion, read, write, write_1h, thought, heard, said, notes=tuple(dict.fromkeys(notes)))
        return usage.with_units(units) if units else usage


class Pass(NamedTuple):
    """One of several requests that made an answer: what it used, and its `model` where that is not the call's own."""

    usage: TokenUsage
    model: str | None = None


TOKEN_FIELDS: Final = tuple(name for name, default in TokenUsage._field_defaults.items() if type(default) is int)
"""The fields of TokenUsage that count tokens."""


def sum_of_passes(passes: tuple[Pass, ...]) -> TokenUsage:
    """The usage of a call by its passes: the sums of those of its own model. Of very many, those of one model are merged."""
    if len(passes) > _MOST_PASSES:
        models = list(dict.fromkeys(each.model for each in passes))[:_MOST_PASSES]
        merged = [Pass(_added(each.usage for each in passes if each.model == model), model) for model in models]
        return sum_of_passes(tuple(merged)).with_notes("passes_merged")
    own = _added(each.usage for each in passes if each.model is None)
    notes = dict.fromkeys(note for each in passes for note in each.usage.notes)
    return own._replace(passes=passes, notes=tuple(notes))


def _added(usages: Iterable[TokenUsage]) -> TokenUsage:
    """The sums of the tokens."""
    known = list(usages)
    sums: dict[str, Any] = {name: sum(getattr(usage, name) for usage in known) for name in TOKEN_FIELDS}
    return TokenUsage(**sums, notes=tuple(dict.fromkeys(note for usage in known for note in usage.notes)))


def _plain(count: Count) -> int | str:
    """A count as JSON holds it exactly."""
    return count if isinstance(count, int) else format(count, "f")


def _stored(count: object) -> Count:
    return count if isinstance(count, int) else Decimal(str(count))


def _unit_count(value: object) -> Count | None:
    """`value` as a count of a unit, or None where it is none."""
    whole = token_count(value)
    if whole is not None:
        return whole
    if isinstance(value, float):
        value = Decimal(str(value))
    if isinstance(value, Decimal) and value.is_finite() and 0 <= value <= MAX_TOKENS:
        return value
    return None


def _merged(*notes: tuple[str, ...] | list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(note for some in notes for note in some))


def estimate_tokens(size: int) -> int:
    """A rough token count of a text for which none was reported: a token for every four bytes of UTF-8, rounded up.

    Four characters a token is the rule of thumb that OpenAI and Anthropic publish for English; bytes instead of characters
    keep it near one token a character for Chinese or Japanese.
    """
    return min(-(-size // 4), MAX_TOKENS)
