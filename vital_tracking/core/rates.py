"""What a model's units cost, and the arithmetic: counts times rates, exact in Decimal."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from functools import cache
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from vital_tracking.core.cost import MONEY, ZERO, Cost
from vital_tracking.core.units import UNITS, Side, Unit
from vital_tracking.core.usage import TokenUsage

if TYPE_CHECKING:
    from genai_prices.types import ModelPrice

# A second at a price by the hour has endless digits: so many are kept of its cost.
_HOUR: Final = 3600
_PLACES: Final = Decimal(1).scaleb(-24)

_LARGEST: Final = Decimal("1e15")
_MOST_PLACES: Final = 30


class Tiers(NamedTuple):
    """A rate that depends on the size of the prompt: `base`, and from more than `start` tokens on another, for all tokens."""

    base: Decimal
    tiers: tuple[tuple[int, Decimal], ...]

    def at(self, prompt_tokens: int) -> Decimal:
        """The rate for a prompt of so many tokens."""
        return next((rate for start, rate in reversed(self.tiers) if prompt_tokens > start), self.base)


Rate: TypeAlias = Decimal | Tiers
"""US dollars for one unit."""


class _Priced(NamedTuple):
    """How a unit is priced: its rate, a note where that is not known for sure, and the rate of the same without a cache."""

    rate: Rate | None
    note: str | None
    side: Side
    plain: Rate | None
    by_hour: bool


class Rates:
    """What one model costs by one price entry: US dollars for one unit, by the names of UNITS, and the entry's `version`.

    A unit without a rate of its own has that of the nearest unit around it: reasoning that of the answer, an hour's cache write
    that of a cache write, else of the prompt. `notes` say what is not known for sure of all of them.
    """

    __slots__ = ("_found", "notes", "rates", "version")

    def __init__(self, version: str, rates: Mapping[str, Rate], notes: tuple[str, ...] = ()) -> None:
        self.version = version
        self.rates = rates
        self.notes = notes
        self._found: dict[str, _Priced] = {}

    def rate(self, unit: str) -> Rate | None:
        """The rate that holds for a unit, or None."""
        return self._lookup(unit).rate

    def usual(self, unit: str) -> tuple[Decimal, Decimal | None] | None:
        """The rate of tokens of a unit, and that of the same without a cache if it is one; None where more has to be known."""
        rate, note, side, plain, by_hour = self._lookup(unit)
        if note is not None or side == "fees" or by_hour or not isinstance(rate, Decimal) or isinstance(plain, Tiers):
            return None
        return rate, plain

    @property
    def sizes(self) -> set[int]:
        """The prompt tokens from which on another rate holds."""
        return {start + 1 for rate in self.rates.values() if isinstance(rate, Tiers) for start, _ in rate.tiers}

    def times(self, factor: Decimal, version: str) -> Rates:
        """The rates of tokens multiplied by `factor`; fees stay."""
        return Rates(
            version,
            {
                name: rate if is_fee(name) else _scaled(rate, factor)  # every rate of tokens, cached ones too
                for name, rate in self.rates.items()
            },
            self.notes,
        )

    def with_cache_reads_at(self, share: Decimal) -> Rates:
        """The rates with that share of the input's for tokens read from a cache, where these have none."""
        read = self.rates.get("input_tokens")
        if read is None or "cache_read_tokens" in self.rates:
            return self
        rates = {**self.rates, "cache_read_tokens": _scaled(read, share)}
        return Rates(f"{self.version} cache_read {share}", rates, self.notes)

    def noted(self, *notes: str) -> Rates:
        """The rates with more notes."""
        return Rates(self.version, self.rates, (*self.notes, *notes)) if notes else self

    def cost(self, usage: TokenUsage, calls: int = 1) -> Cost | None:
        """The cost of `usage`, exactly; None where a kind of tokens that was used has no rate.

        A rate with tiers is chosen by the whole prompt, cache included: providers bill all tokens at the tier reached. Of
        several merged `calls` it is the average prompt that chooses, since nobody knows the single ones any more. A unit beside
        the tokens that has no rate is named in the cost's notes, and so are tokens of a modality that are priced as text.
        """
        prompt_tokens = -(-usage.prompt_tokens // calls)
        sums = {"input": ZERO, "output": ZERO, "fees": ZERO}
        saved = ZERO
        notes = self.notes
        for name, count in usage.parts():
            rate, note, side, plain, by_hour = self._found.get(name) or self._lookup(name)
            if note is not None:
                notes = (*notes, note)
            if rate is None:
                if side == "fees":
                    continue
                return None
            amount = _amount(rate, count, prompt_tokens)
            if by_hour:
                amount = amount.quantize(_PLACES, context=MONEY)
            sums[side] = MONEY.add(sums[side], amount)
            if plain is not None:
                saved = MONEY.add(saved, MONEY.subtract(_amount(plain, count, prompt_tokens), amount))
        if (request := self.rates.get("requests")) is not None:
            sums["fees"] = MONEY.add(sums["fees"], _amount(request, calls, prompt_tokens))
        total = MONEY.add(sums["input"], sums["output"])
        if fees := sums["fees"]:
            total = MONEY.add(total, fees)
        return Cost(
            input=sums["input"],
            output=sums["output"],
            fees=fees,
            total=total,
            potential=MONEY.add(total, saved) if saved else total,
            version=self.version,
            notes=tuple(dict.fromkeys(notes)) if notes else (),
        )

    def _lookup(self, name: str) -> _Priced:
        """How a unit is priced; worked out once."""
        found = self._found.get(name)
        if found is None:
            unit = UNITS.get(name)
            plain = None if unit is None or unit.uncached == name else self._search(unit.uncached)[0]
            side = "fees" if unit is None else unit.side
            by_hour = unit is not None and unit.per == _HOUR
            found = self._found[name] = _Priced(*self._search(name), side, plain, by_hour)
        return found

    def _search(self, name: str) -> tuple[Rate | None, str | None]:
        """A unit's rate, and a note where it is not known for sure."""
        if (rate := self.rates.get(name)) is not None:
            return rate, None
        unit = UNITS.get(name)
        for outer in unit.around if unit is not None else ():
            if (rate := self.rates.get(outer)) is not None:
                as_text = unit is not None and unit.modality is not None and UNITS[outer].modality is None
                return rate, "modality_unpriced" if as_text and unit is not None and unit.side != "fees" else None
        return None, f"unit_unpriced:{name}" if unit is None or unit.side == "fees" else None


def is_fee(name: str) -> bool:
    """Whether a unit's cost is a fee: it is no part of the tokens of a prompt or an answer."""
    unit = UNITS.get(name)
    return unit is None or unit.side == "fees"


def _scaled(rate: Rate, factor: Decimal) -> Rate:
    if isinstance(rate, Tiers):
        return Tiers(
            MONEY.multiply(rate.base, factor), tuple((start, MONEY.multiply(it, factor)) for start, it in rate.tiers)
        )
    return MONEY.multiply(rate, factor)


def _amount(rate: Rate, count: int | Decimal, prompt_tokens: int) -> Decimal:
    return MONEY.multiply(rate.at(prompt_tokens) if isinstance(rate, Tiers) else rate, count)


def amount(value: object, what: str) -> Decimal:
    """`value` as a Decimal from 0 to 10^15 of at most 30 places; ValueError names `what` and says how to write it.

    The bounds keep what a call costs within MONEY's digits: a sum that were rounded would not be the sum of its parts.
    """
    if isinstance(value, (Decimal, int, str)) and not isinstance(value, bool):
        try:
            number = Decimal(value)
        except InvalidOperation:
            number = Decimal("NaN")
        exponent = number.as_tuple().exponent
        if isinstance(exponent, int) and exponent >= -_MOST_PLACES and 0 <= number <= _LARGEST:
            return number
    raise ValueError(
        f'{what} must be a Decimal, an int or text such as "0.15": from 0 to {_LARGEST:f}, of at most {_MOST_PLACES} places'
    )


def per_million(dollars: Decimal) -> Decimal:
    """The rate of one token from US dollars for a million."""
    return MONEY.scaleb(dollars, -6)


def ceiling_rates(text: str) -> Rates:
    """The price that budgets assume where none is known, from `input/output` in dollars per million tokens, such as "15/75"."""
    prompt, slash, answer = text.partition("/")
    if not slash:
        raise ValueError('a ceiling price is two amounts, dollars per million tokens in and out, such as "15/75"')
    return Rates(
        "ceiling",
        {
            "input_tokens": per_million(amount(prompt.strip(), "ceiling price")),
            "output_tokens": per_million(amount(answer.strip(), "ceiling price")),
        },
    )


@cache
def _by_price_key() -> dict[str, Unit]:
    return {unit.price_key: unit for unit in UNITS.values()}


def rates_of_entry(entry: ModelPrice) -> dict[str, Rate]:
    """The rates of an entry of genai-prices, by unit; a price for something that is no unit is left out."""
    from genai_prices.types import TieredPrices

    found: dict[str, Rate] = {}
    units = _by_price_key()
    for key, value in vars(entry).items():
        unit = units.get(key)
        if unit is None or value is None:
            continue
        if isinstance(value, TieredPrices):
            tiers = tuple((tier.start, _of_one(tier.price, unit.per)) for tier in value.tiers)
            found[unit.name] = Tiers(_of_one(value.base, unit.per), tiers)
        else:
            found[unit.name] = _of_one(value, unit.per)
    return found


def _of_one(price: Decimal, per: int) -> Decimal:
    return MONEY.divide(price, Decimal(per))
