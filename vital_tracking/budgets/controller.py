"""Admission before a call: go, go after a wait, or stop. In the common case it costs microseconds and asks nobody.

A call that this process's grants cover is admitted at once. Where they fall short, the lease client asks the database, in one
round trip for all calls that wait; the caller waits for it, at most until its deadline. What the database cannot answer is
decided as the budget says (`when_unavailable`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

from vital_tracking.budgets.estimate import ANSWER_TOKENS, Amounts, History, Tariff, in_pico
from vital_tracking.budgets.lease_client import LeaseClient
from vital_tracking.budgets.ledger import Account, Draw, Hold, Ledger, Plan
from vital_tracking.budgets.pending import PendingRequest
from vital_tracking.budgets.policy import Budget, Policy, refusal
from vital_tracking.core.admission import Admission, Request
from vital_tracking.core.entities import METRICS
from vital_tracking.core.pricing import Rates, ceiling_rates
from vital_tracking.core.record import CallRecord
from vital_tracking.core.sanitize import clean_text
from vital_tracking.delivery import Recorder
from vital_tracking.errors import BudgetExceeded, BudgetUnavailable, Stop
from vital_tracking.settings import Settings

_MAX_PLANS: Final = 10_000
_SHORTEST_ANSWER: Final = 16
_FRAME_TOKENS: Final = 8


class AdmissionController:
    """Admits calls by the budgets of a store. One for a tracker; safe for any number of threads and tasks."""

    def __init__(self, recorder: Recorder, settings: Settings) -> None:
        self._recorder = recorder
        self._settings = settings
        self._deadline_s = settings.budget_deadline_s
        self._ceiling: Rates = ceiling_rates(settings.ceiling_price)
        self._histories: dict[tuple[str | None, str | None], History] = {}
        self._plans: dict[object, Plan] = {}
        self._rules: Policy | None = None if settings.budgets else Policy()
        self.unchecked = 0
        self.ledger = Ledger()
        self.lease_client = LeaseClient(self, recorder, settings)
        recorder.holds = self

    # Asking

    @property
    def active(self) -> bool:
        """Whether any budget can stop, slow or change a call; also where that is not yet known."""
        rules = self._rules
        return (rules is None or bool(rules.budgets)) and self._settings.budgets

    def start(self) -> None:
        """Read the budgets in the background, before they are needed."""
        if self._settings.budgets:
            self.lease_client.start()

    def admit(self, request: Request, *, max_wait: float = 0.0, clamp: bool = False) -> Admission:
        """Let a call go, perhaps after a wait of at most `max_wait` seconds; raises BudgetExceeded and its kin, nothing else."""
        try:
            admission = self._at_once(request, clamp)
            if admission is not None:
                return admission
            waited, until = 0.0, time.monotonic() + self._deadline_s
            while True:
                ask = PendingRequest(request, max_wait - waited, clamp)
                self.lease_client.submit(ask)
                try:
                    if not ask.done.wait(max(until - time.monotonic(), 0)):
                        self.lease_client.give_up(ask)
                except BaseException:  # interrupted at the keyboard
                    self.lease_client.cancel(ask)
                    raise
                admission, again = self._answered(ask)
                waited += ask.wait_s
                if ask.wait_s:
                    self._sleep(ask)
                if not again:
                    return _waited(admission, waited)
                until = time.monotonic() + self._deadline_s
        except BudgetExceeded:
            raise
        except Exception as error:  # noqa: BLE001 - no fault of ours stops a call
            self._recorder.fault(error)
            return Admission()

    async def aadmit(self, request: Request, *, max_wait: float = 0.0, clamp: bool = False) -> Admission:
        """The same for an event loop, which is never blocked."""
        try:
            admission = self._at_once(request, clamp)
            if admission is not None:
                return admission
            waited, until = 0.0, time.monotonic() + self._deadline_s
            while True:
                ask = PendingRequest(request, max_wait - waited, clamp)
                loop, answered = asyncio.get_running_loop(), asyncio.Event()
                ask.on_done = lambda loop=loop, answered=answered: loop.call_soon_threadsafe(answered.set)
                self.lease_client.submit(ask)
                try:
                    async with asyncio.timeout(max(until - time.monotonic(), 0)):
                        await answered.wait()
                except TimeoutError:
                    self.lease_client.give_up(ask)
                except BaseException:  # cancelled while it waits
                    self.lease_client.cancel(ask)
                    raise
                admission, again = self._answered(ask)
                waited += ask.wait_s
                if ask.wait_s:
                    try:
                        await asyncio.sleep(ask.wait_s)
                    except BaseException:
                        self.lease_client.cancel(ask)
                        raise
                if not again:
                    return _waited(admission, waited)
                until = time.monotonic() + self._deadline_s
        except BudgetExceeded:
            raise
        except Exception as error:  # noqa: BLE001 - as above
            self._recorder.fault(error)
            return Admission()

    def release(self, admission: Admission) -> None:
        """The call was not made after all: what was set aside for it is free again."""
        if isinstance(admission.hold, Hold):
            self.ledger.release(admission.hold)

    # What the recorder asks, on the thread that makes records

    def settle(self, hold: Hold, record: CallRecord, cost: Decimal | None) -> list[Draw]:
        """Replace a call's hold by what it used: `cost` in US dollars, None where nothing is known."""
        if record.status == "blocked" or record.cache_hit:
            used = Amounts(0, 0, 0)
        else:
            used = Amounts(0 if cost is None else in_pico(cost), record.usage.total_tokens, 1)
        learn = record.usage if record.billed and not record.cache_hit else None
        return self.ledger.settle(hold, used, usage=learn)

    def posted(self, holder: str, draws: list[Draw]) -> None:
        """Rows with these draws are in the database, or never will be."""
        self.ledger.posted(holder, draws)

    def give_back(self, hold: Hold) -> None:
        """There will be no record of the call."""
        self.ledger.release(hold)

    # Plans

    def rules_are(self, rules: Policy) -> None:
        """Take over the budgets as they are now."""
        known, self._rules = self._rules, rules
        if known is not None and known.version != rules.version:
            self._plans = {}
            self.ledger.forget_accounts()

    @property
    def rules(self) -> Policy | None:
        """The budgets as last read; None before the first time."""
        return self._rules

    def remember(self, model: str | None, agent: str | None, longest_answer: int) -> None:
        """Take over from the database how long a model's answers to an agent have been."""
        self._histories.setdefault((model, agent), History(longest_answer))

    def close(self, timeout: float) -> None:
        """Give grants back, for at most `timeout` seconds; those of calls not yet acknowledged lapse by themselves."""
        self.lease_client.close(timeout)

    def reset_after_fork(self) -> None:
        """In a forked child: grants are the parent's."""
        self._plans = {}
        if self._settings.budgets:
            self._rules = None  # nobody reads them here yet: the first call does
        self.ledger.reset_after_fork()
        self.lease_client.reset_after_fork()

    def _at_once(self, request: Request, clamp: bool) -> Admission | None:
        """The answer that needs nobody; None where the lease client must be asked."""
        rules = self._rules
        if rules is None:
            return None
        plan = self._plan(rules, request)
        if not plan.accounts:
            return Admission()
        amounts, limited = self._amounts(plan, request, clamp)
        hold = self.ledger.take(plan, amounts, request.prompt_bytes)
        if hold is None:
            return None
        if plan.low:
            plan.low = False
            self.lease_client.refill(plan, amounts)
        return Admission(hold, plan.note, None, limited)

    def _plan(self, rules: Policy, request: Request) -> Plan:
        key = (
            rules.key_of(request.context),
            request.context.agent_id,
            request.provider,
            request.model,
            request.downgraded,
        )
        try:
            return self._plans[key]
        except KeyError:
            plan = self._make_plan(rules, request)
            if len(self._plans) >= _MAX_PLANS:
                self._plans = {}
                self.ledger.trim(_MAX_PLANS)
            self._plans[key] = plan
            if rules is not self._rules:  # they have changed meanwhile: the plan serves this call, and no other
                self._plans.pop(key, None)
            return plan
        except TypeError:  # an id that cannot be hashed, so no text: it is one in the row
            return self._make_plan(rules, request)

    def _make_plan(self, rules: Policy, request: Request) -> Plan:
        matching = rules.matching(request.context, request.model)
        tariff = self.tariff(request.provider, request.model)
        agent = clean_text(request.context.agent_id)
        history = self._histories.get((request.model, agent))
        if history is None:
            if len(self._histories) >= _MAX_PLANS:
                self._histories.clear()
            history = self._histories[(request.model, agent)] = History()
        passing = frozenset(
            budget.id
            for budget, _ in matching
            if budget.action == "downgrade" and self._passes(budget, request, tariff)
        )
        accounts = [self.ledger.account(budget, entity) for budget, entity in matching]
        plan = Plan(accounts, tariff, history, passing)
        self.ledger.refresh(plan)
        return plan

    def tariff(self, provider: str | None, model: str | None) -> Tariff:
        """Upper prices of a model, now."""
        rates = self._recorder.prices.rates(provider, model, datetime.now(UTC)) if model else None
        return Tariff(rates, self._ceiling)

    def prices_changed(self) -> None:
        """Make plans anew, by the prices as they are now."""
        self._plans = {}

    def _passes(self, budget: Budget, request: Request, tariff: Tariff) -> bool:
        """Whether a model may be used over the limit of a budget that downgrades."""
        if budget.downgrade_to is None:
            return request.downgraded
        if request.model == budget.downgrade_to:
            return True
        limit = self.tariff(request.provider, budget.downgrade_to)
        if not limit.priced:  # another provider's model
            limit = self.tariff(None, budget.downgrade_to)
        return tariff.no_dearer_than(limit)

    def _amounts(self, plan: Plan, request: Request, clamp: bool) -> tuple[Amounts, int | None]:
        """What a call may take, and what its answer must be limited to for that, if to anything."""
        if request.prompt_tokens is not None:
            prompt = request.prompt_tokens
        elif plan.strict:
            prompt = strict_prompt(request)
        else:
            prompt = plan.history.prompt_tokens(request.prompt_bytes)
        answer, limited = request.max_tokens, None
        if answer is not None and not plan.strict:
            # Integrations set limits that no answer comes near (64,000): such a hold would starve every small budget.
            answer = min(answer, max(plan.history.answer, ANSWER_TOKENS))
        if answer is None:
            answer = plan.history.answer
            if plan.strict:
                if not clamp:
                    raise BudgetExceeded(_unlimited(plan))
                limited = answer
        answer *= request.answers
        return Amounts(plan.tariff.cost(prompt, answer), prompt + answer, 1), limited

    # Slow paths

    def prepare(self, ask: PendingRequest) -> bool:
        """Find the plan of an ask and what it takes, once the budgets are known; False where no budget is met."""
        rules = self._rules or Policy()
        ask.plan = self._plan(rules, ask.request)
        if not ask.plan.accounts:
            return False
        limited = ask.limited
        ask.amounts, ask.limited = self._amounts(ask.plan, ask.request, ask.clamp)
        ask.limited = limited if ask.shortened else ask.limited
        ask.prepared = True
        return True

    def refused(self, ask: PendingRequest, windows: Sequence[dict[str, object]], wait_s: float) -> BudgetExceeded:
        """The error for a refused ask."""
        budgets = {account.budget.id: account.budget for account in ask.plan.accounts}
        return refusal(windows, budgets, ask.amounts.as_decimals(), wait_s)

    def shorter(self, ask: PendingRequest, windows: Sequence[dict[str, str]]) -> bool:
        """Cut the answer of a strict, clamped call to what is left; False where that is not enough for any answer."""
        if ask.shortened or not (ask.clamp and ask.plan.strict):
            return False
        prompt = ask.request.prompt_tokens
        return self.lease_client.shorten(
            ask, strict_prompt(ask.request) if prompt is None else prompt, windows, _SHORTEST_ANSWER
        )

    def _answered(self, ask: PendingRequest) -> tuple[Admission, bool]:
        """What the lease client's answer means, and whether to ask again."""
        if ask.error is not None:
            raise ask.error
        if ask.again:
            return Admission(), True
        if ask.admission is None:
            return self._unavailable(ask), False
        return ask.admission, False

    def _unavailable(self, ask: PendingRequest) -> Admission:
        """Nobody could say: each budget that the grants in hand do not cover decides by its `when_unavailable`."""
        if self._rules is None:
            if self._settings.when_unavailable == "deny":
                raise BudgetUnavailable(_unknown("organization", "*", self._deadline_s))
            self.unchecked += 1
            return Admission(action="unchecked")
        if not ask.prepared and not self.prepare(ask):
            return Admission()
        hold, short = self.ledger.take_what_there_is(ask.plan, ask.amounts, ask.request.prompt_bytes)
        denying = [account for account in short if account.budget.enforce and account.budget.deny_when_unavailable]
        if denying:
            if hold is not None:
                self.ledger.release(hold)
            raise BudgetUnavailable(_away(denying[0], self._deadline_s))
        self.unchecked += bool(short)
        return Admission(hold, "unchecked" if short else None, None, ask.limited)

    def _sleep(self, ask: PendingRequest) -> None:
        try:
            time.sleep(ask.wait_s)
        except BaseException:  # interrupted at the keyboard
            self.lease_client.cancel(ask)
            raise


def _waited(admission: Admission, seconds: float) -> Admission:
    if seconds:
        admission.throttled_ms = seconds * 1000
        admission.action = admission.action or "throttle"
    return admission


def strict_prompt(request: Request) -> int:
    """A prompt's tokens as strict budgets count them: one a byte, tools and what frames a message included. No tokenizer makes
    more of a text; pictures and sounds are not counted."""
    tools = len(repr(request.tools).encode("utf-8", "replace")) if request.tools else 0
    return request.prompt_bytes + tools + _FRAME_TOKENS * request.messages


def _unlimited(plan: Plan) -> Stop:
    budget, entity = next(
        (account.budget, account.entity)
        for account in plan.accounts
        if account.budget.strict and account.budget.enforce
    )
    return Stop(
        action=budget.action,
        entity_type=budget.entity_type,
        entity_id=entity,
        metric=METRICS[budget.metric],
        budget_id=budget.id,
        reason="it is strict, and nothing limits the answer. Set max_tokens on the model, or use tracker.guard(model).",
    )


def _away(account: Account, deadline_s: float) -> Stop:
    budget = account.budget
    return Stop(
        action=budget.action,
        entity_type=budget.entity_type,
        entity_id=account.entity,
        metric=METRICS[budget.metric],
        budget_id=budget.id,
        reason=f"the database is away or did not answer within {deadline_s:g} s, and the budget denies what it cannot check.",
    )


def _unknown(entity_type: str, entity_id: str, deadline_s: float) -> Stop:
    return Stop(
        action="block",
        entity_type=entity_type,
        entity_id=entity_id,
        reason=f"the database did not tell the budgets within {deadline_s:g} s, and VITAL_WHEN_UNAVAILABLE is deny.",
    )
