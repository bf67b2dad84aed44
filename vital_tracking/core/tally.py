"""What the calls of a scope have used and cost so far: sums, and the calls that are not in them yet."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final, NamedTuple

from vital_tracking.core.cost import MONEY, ZERO
from vital_tracking.core.record import CallRecord

_MOST_GIVEN_UP: Final = 1000


class Spent(NamedTuple):
    """What the calls of a scope that have ended have used and cost so far, those of scopes inside it included.

    `calls` counts them as the rows do: failed ones are among them, and the `blocked` ones, which a budget has stopped. Their
    tokens are `prompt_tokens` and `completion_tokens`. `cost` is in US dollars, exact, and what is known: `unpriced` calls, whose
    model has no known price, are not in it. Tokens of `estimated` calls are estimates, and so is what they cost.
    """

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: Decimal = ZERO
    unpriced: int = 0
    estimated: int = 0
    blocked: int = 0

    @classmethod
    def by(cls, record: CallRecord, total: Decimal | None) -> Spent:
        """What the call of a `record` has used, and its `total` cost, None where no price is known."""
        usage = record.usage
        return cls(
            record.calls,
            usage.prompt_tokens,
            usage.completion_tokens,
            ZERO if total is None else total,
            record.calls if total is None else 0,
            record.calls if usage.estimated else 0,
            record.calls if record.status == "blocked" else 0,
        )

    @property
    def tokens(self) -> int:
        """Prompt and completion tokens together."""
        return self.prompt_tokens + self.completion_tokens

    def plus(self, other: Spent, sign: int = 1) -> Spent:
        """The sum with an `other`, or with `sign` -1 the difference."""
        calls, prompt, completion, cost, unpriced, estimated, blocked = self
        more_calls, more_prompt, more_completion, more_cost, more_unpriced, more_estimated, more_blocked = other
        added = (
            calls + sign * more_calls,
            prompt + sign * more_prompt,
            completion + sign * more_completion,
            MONEY.add(cost, more_cost) if sign > 0 else MONEY.subtract(cost, more_cost),
            unpriced + sign * more_unpriced,
            estimated + sign * more_estimated,
            blocked + sign * more_blocked,
        )
        return tuple.__new__(Spent, added)


class Waiting:
    """Calls of a scope, and of the scopes inside it, that have ended and are not in their sums yet, by the bytes of their ids."""

    __slots__ = ("__weakref__", "calls", "given_up", "replaced")

    def __init__(self) -> None:
        self.calls: dict[bytes, Any] = {}
        self.given_up: dict[bytes, Spent] = {}  # calls in the sums whose true end may still come, and take their place
        self.replaced: set[bytes] = set()  # of `calls`, those that are such a true end

    def give_up(self, key: bytes, spent: Spent) -> None:
        """Remember what a call in the sums counts for, in case that its true end comes."""
        if len(self.given_up) < _MOST_GIVEN_UP:
            self.given_up[key] = spent


class Tally:
    """The sums of one scope, and the calls that wait to be added to them, which it shares with those around and inside it."""

    __slots__ = ("spent", "waiting")

    def __init__(self, waiting: Waiting) -> None:
        self.spent = Spent()
        self.waiting = waiting
