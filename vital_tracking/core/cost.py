"""What a call cost, exactly. The arithmetic has a context of its own, so that no caller's precision can round money."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Context, Decimal
from functools import reduce
from typing import Final, NamedTuple

MONEY: Final = Context(prec=60)
ZERO: Final = Decimal(0)


def exact_sum(amounts: Iterable[Decimal]) -> Decimal:
    """The sum of amounts with all its digits, whatever the caller's precision; 0 of none."""
    return reduce(MONEY.add, amounts, ZERO)


AMOUNTS: Final = ("input", "output", "fees", "total", "potential")
"""The amounts of a Cost."""


class Cost(NamedTuple):
    """What a call cost, in US dollars: `total` is the sum of `input`, `output` and `fees`.

    `fees` are for units that are no tokens of the call's own model. `potential` is what the call would have cost without any
    cache, `version` the price entry; `notes` say what of it is not known for sure, as short fixed words.
    """

    input: Decimal
    output: Decimal
    fees: Decimal
    total: Decimal
    potential: Decimal
    version: str
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, amounts: Mapping[str, Decimal], version: str) -> Cost:
        """The cost of such amounts, by the names of AMOUNTS; one that is not there is 0, as fees in an earlier version's."""
        return cls(
            input=amounts.get("input", ZERO),
            output=amounts.get("output", ZERO),
            fees=amounts.get("fees", ZERO),
            total=amounts.get("total", ZERO),
            potential=amounts.get("potential", ZERO),
            version=version,
        )

    def plus(self, other: Cost) -> Cost:
        """The sum, by this one's price entry."""
        return Cost(
            input=MONEY.add(self.input, other.input),
            output=MONEY.add(self.output, other.output),
            fees=MONEY.add(self.fees, other.fees),
            total=MONEY.add(self.total, other.total),
            potential=MONEY.add(self.potential, other.potential),
            version=self.version,
            notes=tuple(dict.fromkeys((*self.notes, *other.notes))),
        )

    def as_fees(self) -> Cost:
        """The same amount, all of it a fee."""
        return Cost(
            input=ZERO,
            output=ZERO,
            fees=self.total,
            total=self.total,
            potential=self.potential,
            version=self.version,
            notes=self.notes,
        )
