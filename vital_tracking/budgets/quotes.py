"""What is set aside for a call before it is made, and how long its answer may be for what is left. Pure.

Amounts are whole numbers: picodollars, tokens or calls, by the budget's metric.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from vital_tracking.budgets.estimate import ANSWER_TOKENS, Amounts, History, UpperPrice, in_pico
from vital_tracking.budgets.policy import Budget, answer_unlimited, refusal
from vital_tracking.core.admission import Request
from vital_tracking.errors import BudgetExceeded

_SHORTEST_ANSWER: Final = 16  # tokens: below that an answer is of no use, and the call is refused
_TOKENS_AROUND_A_MESSAGE: Final = 8  # its role and its delimiters, which providers bill with the prompt


class Terms:
    """What quotes for calls of one kind rest on: the budgets that they meet, the model's price, and the sizes of earlier calls.

    `budgets` come with the id of the entity that each is for. `may_pass` has the ids of the budgets that, over their limit,
    only let cheaper models pass, and let this one pass.
    """

    __slots__ = ("budgets", "history", "may_pass", "price", "strict")

    def __init__(
        self, budgets: Sequence[tuple[Budget, str]], price: UpperPrice, history: History, may_pass: frozenset[int]
    ) -> None:
        self.budgets = tuple(budgets)
        self.price = price
        self.history = history
        self.may_pass = may_pass
        self.strict = any(budget.strict and budget.enforce for budget, _ in budgets)

    def passes(self, budget: Budget) -> bool:
        """Whether calls of this kind go on although the budget's window is used up."""
        return not budget.enforce or budget.id in self.may_pass

    def quote(self, request: Request, clamp: bool) -> tuple[Amounts, int | None]:
        """What a call may take, and the tokens that its answer must be limited to for that; None where nothing new limits it.

        Raises BudgetExceeded where a strict budget wants a limit, none is set, and `clamp` does not allow us to set one.
        """
        history = self.history
        if request.prompt_tokens is not None:
            prompt = request.prompt_tokens + history.schema_tokens(request.schema_bytes) + _media(request)
        elif self.strict:
            prompt = strict_prompt_tokens(request)
        else:
            prompt = history.prompt_tokens(request.size, _media(request))
        answer, limited = request.max_tokens, None
        if answer is None:
            answer = history.answer
            if self.strict:
                if not clamp:
                    raise answer_unlimited(*next(one for one in self.budgets if one[0].strict and one[0].enforce))
                limited = answer
        elif answer > ANSWER_TOKENS and not self.strict:
            # Integrations set limits that no answer comes near (64,000): such a hold would use up every small budget.
            answer = min(answer, max(history.answer, ANSWER_TOKENS))
        answer *= request.answers
        cost = self.price.cost(prompt, answer)
        if request.audio_tokens:
            cost += self.price.extra_of_audio(request.audio_tokens, prompt)
        if self.strict:  # its estimates are upper bounds
            return Amounts(cost, prompt + answer, 1), limited
        extra_cost, extra_tokens = history.extra
        return Amounts(cost + extra_cost, prompt + answer + extra_tokens, 1, extra_cost, extra_tokens), limited

    def longest_answer(
        self, request: Request, amounts: Amounts, windows: Sequence[Mapping[str, Any]], free: Mapping[int, int]
    ) -> int | None:
        """The tokens of an answer that what is left can pay for; None where that is too little for any answer.

        `windows` are those of a refusal by `acquire_grants_v1`, `free` is what this process has of them, by window id.
        """
        if request.prompt_tokens is None:
            prompt = strict_prompt_tokens(request)
        else:
            prompt = request.prompt_tokens + self.history.schema_tokens(request.schema_bytes) + _media(request)
        longest = amounts.tokens - prompt
        metrics = {budget.id: budget.metric for budget, _ in self.budgets}
        for window in windows:
            if not window["over"]:
                continue
            left = Decimal(window["limit"]) - Decimal(window["spent"]) - Decimal(window["granted"])
            own = free.get(window["id"], 0)
            metric = metrics[window["budget"]]
            if metric == 0:
                own -= self.price.extra_of_audio(request.audio_tokens, prompt)
                longest = min(longest, self.price.affordable_answer(in_pico(left) + own, prompt))
            elif metric == 1:
                longest = min(longest, int(left) + own - prompt)
            else:
                return None
        answer = longest // request.answers
        return answer if answer >= _SHORTEST_ANSWER else None

    def refused(self, windows: Sequence[Mapping[str, Any]], amounts: Amounts, wait_s: float) -> BudgetExceeded:
        """The error for a call of these amounts that the database refused, with the windows that it answered."""
        return refusal(windows, {budget.id: budget for budget, _ in self.budgets}, amounts.as_decimals(), wait_s)

    def action_noted(self, windows: Sequence[Mapping[str, Any]]) -> str | None:
        """What an admitted call's row says of the windows that are over: the strictest action that was, or would be, taken."""
        over = {window["budget"] for window in windows if window["over"]}
        budgets = [budget for budget, _ in self.budgets if budget.id in over]
        if any(budget.enforce and budget.action == "throttle" for budget in budgets):
            return "throttle"
        return next((budget.note for budget in budgets if not budget.enforce), None)


def strict_prompt_tokens(request: Request) -> int:
    """A prompt's tokens as strict budgets count them: one a byte, with tools, pictures and what stands around each message.

    No tokenizer makes more than one token of a byte. What sounds, films and files come to is an estimate here as well.
    """
    return request.size + _media(request) + _TOKENS_AROUND_A_MESSAGE * request.messages


def _media(request: Request) -> int:
    """The tokens of a prompt beside those of its text."""
    return request.media_tokens + request.audio_tokens
