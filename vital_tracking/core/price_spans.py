"""Prices of usual calls as whole numbers, looked up once for a stretch of time in which none of them changes.

Usual are tokens of text alone at rates without tiers, fees or anything that has to be said of them. `Rates.cost` works out all
others, and is what these amounts are held against: they are the same to the last digit.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from vital_tracking.core.pricing import PriceBook
from vital_tracking.core.rates import Rates
from vital_tracking.core.sanitize import EARLIEST

_MINUTES: Final = 15
_MOST_DIGITS: Final = 30  # of a rate: no cost comes near the digits at which sums are rounded
_MOST_SPANS: Final = 512
_UNITS: Final = ("input_text_tokens", "cache_read_tokens", "output_text_tokens", "output_reasoning_tokens")


Amounts = tuple[str, str, str, str]
"""What a call cost, in US dollars with all digits: input, output, total, and what that would have been without a cache."""


class PriceSpan:
    """What tokens of a model cost from the instant `since` to before `until`, both in microseconds since 1970.

    `version` is the price entry.
    """

    __slots__ = ("_one", "_places", "_rates", "_scale", "since", "until", "version")

    def __init__(self, since: datetime, until: datetime, rates: Rates | None) -> None:
        self.since = microseconds(since)
        self.until = microseconds(until)
        self.version = "" if rates is None else rates.version
        found = _rates(rates)
        self._scale = scale = max([1, *(one[1] for one in found if one is not None)])
        self._one = 10**scale
        self._rates = tuple(0 if one is None else one[0] * 10 ** (scale - one[1]) for one in found)
        # Of each choice of tokens that were used: the decimal places of their amounts, None where a rate is not usual.
        text, read, plain, said, thought = (None if one is None else one[1] for one in found)
        inputs = (0, text, None if plain is None else read, _most(text, read if plain is not None else None))
        outputs = (0, said, thought, _most(said, thought))
        self._places = tuple(
            None if paid is None or earned is None else (paid, earned, max(paid, earned), max(paid, earned, plain or 0))
            for paid in inputs
            for earned in outputs
        )

    def cost(self, prompt: int, cache_read: int, completion: int, reasoning: int) -> Amounts | None:
        """What the tokens of a prompt and an answer cost, of which some were read from a cache and some were reasoning.

        None where one of their rates is not usual.
        """
        text, said = prompt - cache_read, completion - reasoning
        places = self._places[
            (4 if text else 0) + (8 if cache_read else 0) + (1 if said else 0) + (2 if reasoning else 0)
        ]
        if places is None:
            return None
        text_rate, read_rate, plain_rate, said_rate, thought_rate = self._rates
        scale, one = self._scale, self._one
        paid = text * text_rate + cache_read * read_rate
        earned = said * said_rate + reasoning * thought_rate
        both = paid + earned
        paid_places, earned_places, places_of_both, places_of_potential = places
        if both < one and paid_places and earned_places:  # as most: less than a dollar
            input_cost = "0." + str(one + paid)[1 : paid_places + 1]
            output_cost = "0." + str(one + earned)[1 : earned_places + 1]
            total = potential = "0." + str(one + both)[1 : places_of_both + 1]
        else:
            input_cost, output_cost = _fixed(paid, scale, one, paid_places), _fixed(earned, scale, one, earned_places)
            total = potential = _fixed(both, scale, one, places_of_both)
        if cache_read and plain_rate != read_rate:
            potential = _fixed(both + cache_read * (plain_rate - read_rate), scale, one, places_of_potential)
        return input_cost, output_cost, total, potential


class PriceSpans:
    """The price spans of a price book, each as long as nothing changes in it and no longer than a quarter of an hour."""

    def __init__(self, book: PriceBook) -> None:
        self._book = book
        self._edition = book.edition
        self._spans: dict[object, PriceSpan] = {}

    def renew(self) -> bool:
        """Let go of all spans where the book has other prices than before; whether it has."""
        edition = self._book.edition
        if edition[0] is self._edition[0] and edition[1] is self._edition[1]:
            return False
        self._edition = edition
        self._spans.clear()
        return True

    def at(
        self, provider: str | None, models: tuple[str, ...], facts: tuple[tuple[str, str], ...], moment: int
    ) -> PriceSpan:
        """The span at a `moment`, in microseconds since 1970, for a `provider`'s `models` and the `facts` that decide a price.

        Of the models the one that answered comes first.
        """
        key = (provider, models, facts)
        span = self._spans.get(key)
        if span is None or not span.since <= moment < span.until:
            if len(self._spans) >= _MOST_SPANS:
                self._spans.clear()
            span = self._spans[key] = self._made(provider, models, dict(facts), moment)
        return span

    def _made(self, provider: str | None, models: tuple[str, ...], facts: Mapping[str, str], at: int) -> PriceSpan:
        moment = EARLIEST + timedelta(microseconds=at)
        since = moment.replace(minute=moment.minute // _MINUTES * _MINUTES, second=0, microsecond=0)
        until = since + timedelta(minutes=_MINUTES)
        for model in models:
            for change in self._book.changes(provider, model, since, until):
                if change <= moment:
                    since = max(since, change)
                else:
                    until = min(until, change)
        return PriceSpan(since, until, self._book.first_rates(provider, models, moment, facts=facts))


def microseconds(moment: datetime) -> int:
    """An instant in microseconds since 1970."""
    return (moment - EARLIEST) // timedelta(microseconds=1)


def _most(*places: int | None) -> int | None:
    return None if None in places else max(place for place in places if place is not None)


def _rates(rates: Rates | None) -> tuple[tuple[int, int] | None, ...]:
    """The rates of plain text, of what was read from a cache, of that without a cache, of what was said and of what was
    thought: each as a whole number and its decimal places, None where it is not usual."""
    if rates is None or rates.notes or rates.rate("requests") is not None:
        return (None,) * 5
    text, read, said, thought = map(rates.usual, _UNITS)
    plain = None if read is None else read[1]
    return tuple(
        _scaled(rate) for rate in (text and text[0], read and read[0], plain, said and said[0], thought and thought[0])
    )


def _scaled(rate: Decimal | None) -> tuple[int, int] | None:
    if rate is None:
        return None
    sign, digits, exponent = rate.as_tuple()
    if sign or not isinstance(exponent, int) or len(digits) > _MOST_DIGITS or not -_MOST_DIGITS <= exponent <= 0:
        return None
    return int("".join(map(str, digits))), -exponent


def _fixed(number: int, scale: int, one: int, places: int) -> str:
    """A number of so many units of the last of `scale` decimal places, with `places` of them; `one` is 1 in these units."""
    if number < one and places:
        return "0." + str(number + one)[1 : places + 1]
    text = str(number)
    return f"{text[:-scale]}.{text[-scale:][:places]}" if places else str(number // one)
