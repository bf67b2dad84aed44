"""What a call may cost before it is made: an upper estimate, learned from the team's own calls of the same model and agent.

Amounts are whole numbers: picodollars (10^-12 US dollars), tokens, calls. Whole numbers are exact, fast, and no caller's
Decimal context can round them.
"""

from __future__ import annotations

from collections import deque
from decimal import Context, Decimal
from typing import Final, NamedTuple

from vital_tracking.core.cost import MONEY
from vital_tracking.core.draws import PICO
from vital_tracking.core.rates import Rate, Rates, Tiers
from vital_tracking.core.usage import TokenUsage

_EXACT: Final = Context(prec=200)

# Used until calls of the model are known. Most text has more than two bytes a token; 4,096 tokens is the longest answer of most
# providers where no limit is set.
_BYTES_PER_TOKEN: Final = 2
ANSWER_TOKENS: Final = 4096
_OVERHEAD_TOKENS: Final = 16

_REMEMBERED: Final = 64
_ENOUGH: Final = 8
# Of so many calls that their estimates were enough for, one has all looked through anew, which lowers estimates in time.
_SELDOM: Final = 32
_PROMPT: Final = ("input_tokens", "cache_write_5m_tokens")
_ANSWER: Final = ("output_tokens", "output_reasoning_tokens")
_FADES: Final = 8  # what calls have taken beyond their estimates counts for an eighth less with each that has not
_LARGEST_SLOPE: Final = 1.0
_SMALLEST_SLOPE: Final = 0.2


class Amounts(NamedTuple):
    """How much a call takes, by metric: picodollars, tokens, calls.

    Of these `extra_cost` and `extra_tokens` are there because calls of its kind have lately cost more than was thought.
    """

    cost: int
    tokens: int
    calls: int
    extra_cost: int = 0
    extra_tokens: int = 0

    def without_extra(self) -> Amounts:
        """What a call takes that costs what is thought."""
        return Amounts(self.cost - self.extra_cost, self.tokens - self.extra_tokens, self.calls)

    def as_decimals(self) -> tuple[Decimal, Decimal, Decimal]:
        """US dollars, tokens, calls."""
        return in_dollars(self.cost), Decimal(self.tokens), Decimal(self.calls)


def in_dollars(pico: int) -> Decimal:
    """Picodollars as US dollars, exactly."""
    return MONEY.scaleb(Decimal(pico), -12)


def in_pico(dollars: Decimal) -> int:
    """US dollars as picodollars, rounded up."""
    pico = _EXACT.scaleb(dollars, 12)
    whole = int(pico)
    return whole + 1 if pico > whole else whole


def as_whole(text: str, metric: int) -> int:
    """An amount of the database's in whole units, rounded down, so that never more is spent than was granted."""
    numerator, denominator = Decimal(text).as_integer_ratio()
    return numerator * (PICO if metric == 0 else 1) // denominator


def _ceil(value: Decimal, factor: int) -> int:
    # By way of the exact ratio: arithmetic on Decimals would round in the caller's context.
    numerator, denominator = value.as_integer_ratio()
    return -(-numerator * factor // denominator)


class History:
    """The last calls of one model and agent: how long prompts and answers were, beside the bytes of their text.

    A prompt is estimated as its bytes, those of its tools among them, times `slope`, plus `overhead`: the most tokens that any
    remembered call took beyond that (pictures have tokens but no text). So it would have been enough for every remembered call.
    All are looked through anew when a call has taken more than its estimate, and else now and then.

    `extra` is what calls have taken beyond all estimates, in picodollars and in tokens: a limit of the caller's that the model
    does not keep, or fees. It fades where calls take less.
    """

    __slots__ = ("_answers", "_enough_for", "_few", "_prompts", "answer", "extra", "overhead", "slope")

    def __init__(self, answer_seen: int | None = None) -> None:
        self._prompts: deque[tuple[int, int]] = deque(maxlen=_REMEMBERED)
        self._answers: deque[int] = deque(maxlen=_REMEMBERED)
        self._enough_for = 0  # calls since they were last looked through
        self._few = True  # so few are remembered that each is worth a look
        self.slope = 1 / _BYTES_PER_TOKEN
        self.overhead = _OVERHEAD_TOKENS
        self.answer = ANSWER_TOKENS if answer_seen is None else _with_margin(answer_seen)
        self.extra = (0, 0)

    def compare(self, held: Amounts, used: Amounts) -> None:
        """Learn from what a call has taken beyond its estimate: that much more is set aside for the next ones."""
        cost, tokens = self.extra
        more_cost = used.cost - held.cost + held.extra_cost
        more_tokens = used.tokens - held.tokens + held.extra_tokens
        if cost or tokens or more_cost > 0 or more_tokens > 0:
            self.extra = max(more_cost, cost - cost // _FADES, 0), max(more_tokens, tokens - tokens // _FADES, 0)

    def observe(self, prompt_bytes: int, usage: TokenUsage) -> None:
        """Learn from a call whose usage its provider reported; of its answer only, where its prompt's size is not known."""
        if usage.estimated or not usage.prompt_tokens:
            return
        prompt, answer = usage.prompt_tokens, usage.completion_tokens
        self._answers.append(answer)
        more = answer > self.answer
        if prompt_bytes >= 0:
            self._prompts.append((prompt_bytes, prompt))
            more = more or prompt > int(prompt_bytes * self.slope) + self.overhead
        self._enough_for += 1
        if more or self._few or self._enough_for >= _SELDOM:
            self._enough_for = 0
            self._learn()

    def _learn(self) -> None:
        """Look through the remembered calls."""
        answers, prompts = list(self._answers), list(self._prompts)  # copies: another thread may be adding to them
        self._few = min(len(answers), len(prompts)) <= _ENOUGH
        longest_answer = _with_margin(max(answers))
        self.answer = longest_answer if len(answers) >= _ENOUGH else max(self.answer, longest_answer)
        if not prompts:
            return
        if len(prompts) >= _ENOUGH:
            longest = sorted(prompts)[-len(prompts) // 2 :]
            steepest = max([tokens / size for size, tokens in longest if size], default=_LARGEST_SLOPE)
            self.slope = min(max(steepest * 1.1, _SMALLEST_SLOPE), _LARGEST_SLOPE)
        slope = self.slope
        beyond = max([tokens - int(size * slope) for size, tokens in prompts])
        self.overhead = max(_with_margin(beyond), _OVERHEAD_TOKENS)

    def prompt_tokens(self, prompt_bytes: int, media_tokens: int = 0) -> int:
        """An upper estimate of a prompt's tokens by the bytes of its text and what its pictures and the like come to."""
        return int(prompt_bytes * self.slope) + max(self.overhead, _OVERHEAD_TOKENS + media_tokens)

    def schema_tokens(self, schema_bytes: int) -> int:
        """An upper estimate of the tokens of tools and schemas by their bytes."""
        return int(schema_bytes * self.slope)


def _with_margin(tokens: int) -> int:
    return tokens + tokens // 4 + 1


class UpperPrice:
    """The most that a call of one model can cost, as whole picodollars a token.

    The dearest way that tokens can be billed: a prompt that is written to the provider's cache, an answer of reasoning.
    """

    __slots__ = ("_rates", "answer", "priced", "prompt", "request")

    def __init__(self, rates: Rates | None, ceiling: Rates) -> None:
        self.priced = rates is not None
        self._rates = rates or ceiling
        self.prompt, self.answer, self.request = self._at(0)

    def cost(self, prompt_tokens: int, answer_tokens: int) -> int:
        """Picodollars for so many tokens."""
        if self.prompt < 0:  # a price in tiers: the prompt decides which
            prompt, answer, request = self._at(prompt_tokens or 1)
            return prompt * prompt_tokens + answer * answer_tokens + request
        return self.prompt * prompt_tokens + self.answer * answer_tokens + self.request

    def extra_of_audio(self, audio_tokens: int, prompt_tokens: int) -> int:
        """Picodollars that so many of a prompt's tokens cost beyond text, as they are sound."""
        audio = _pico(self._rates.rate("input_audio_tokens"), prompt_tokens)
        return audio_tokens * max(audio - self._at(prompt_tokens or 1)[0], 0)

    def affordable_answer(self, pico: int, prompt_tokens: int) -> int:
        """The longest answer, in tokens, that so many picodollars pay for beside the prompt; 0 where there is none."""
        prompt, answer, request = self._at(prompt_tokens or 1)
        left = pico - prompt * prompt_tokens - request
        return 0 if left <= 0 else left // answer if answer else 10**9

    def no_dearer_than(self, other: UpperPrice) -> bool:
        """Whether this model's prompts and answers both cost no more than the other's."""
        mine, its = self._at(1), other._at(1)
        return self.priced and other.priced and mine[0] <= its[0] and mine[1] <= its[1]

    def _at(self, prompt_tokens: int) -> tuple[int, int, int]:
        rates = self._rates
        prompts, answers = [rates.rate(unit) for unit in _PROMPT], [rates.rate(unit) for unit in _ANSWER]
        if prompt_tokens == 0 and any(isinstance(rate, Tiers) for rate in (*prompts, *answers)):
            return -1, -1, 0
        prompt = max(_pico(rate, prompt_tokens) for rate in prompts)
        answer = max(_pico(rate, prompt_tokens) for rate in answers)
        return prompt, answer, _pico(rates.rate("requests"), prompt_tokens)


def _pico(rate: Rate | None, prompt_tokens: int) -> int:
    """Picodollars for one unit."""
    if rate is None:
        return 0
    return _ceil(rate.at(prompt_tokens) if isinstance(rate, Tiers) else rate, PICO)
