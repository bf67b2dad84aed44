"""Admission before a call: go, go after a wait, or stop. In the common case it takes microseconds and no round trip.

A call that this process's grants cover is admitted at once. Where they fall short, the lease client asks the database, in one
round trip for all calls that wait; the caller waits for it, at most until its deadline. What the database cannot answer is
decided as the budget says (`when_unavailable`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable
from decimal import Decimal

from vital_tracking.budgets.availability import Availability
from vital_tracking.budgets.estimate import Amounts, in_pico
from vital_tracking.budgets.lease_client import LeaseClient
from vital_tracking.budgets.lease_thread import LeaseThread
from vital_tracking.budgets.ledger import Ledger
from vital_tracking.budgets.pending import Answer, PendingRequest, Sleep, Waits, run, run_async
from vital_tracking.budgets.plans import Plans
from vital_tracking.budgets.policy import OUR_FAULT, Budget, Policy, no_answer, not_checked, policy_unknown
from vital_tracking.budgets.windows import Hold
from vital_tracking.calls.billed_tokens import billed_tokens
from vital_tracking.core.admission import Admission, Request
from vital_tracking.core.context import CallContext
from vital_tracking.core.draws import Draw
from vital_tracking.core.record import Used
from vital_tracking.delivery import Recorder
from vital_tracking.delivery.encoding import EndedCall
from vital_tracking.errors import BudgetExceeded
from vital_tracking.settings import Settings

logger = logging.getLogger("vital_tracking.budgets")


class AdmissionController:
    """Admits calls by the budgets of a store. One for a tracker; safe for any number of threads and tasks.

    `deliver_alerts` is called in the background, now and then and when `look_for_alerts` was called; None: alerts are
    delivered to nobody.
    """

    def __init__(
        self, recorder: Recorder, settings: Settings, *, deliver_alerts: Callable[[], object] | None = None
    ) -> None:
        self._recorder = recorder
        self._settings = settings
        self._deliver_alerts = deliver_alerts
        self._deadline_s = settings.budget_deadline_s
        self._told_of_fault = False
        self.unchecked = 0  # calls that were admitted although a budget could not be checked
        self.ledger = Ledger()
        self.plans = Plans(self.ledger, recorder.prices, settings)
        self.lease_thread = self._new_lease_thread()
        recorder.holds = self

    def _new_lease_thread(self) -> LeaseThread:
        availability = Availability(self._deadline_s)
        client = LeaseClient(self.ledger, self.plans, self._recorder, availability, self._settings)
        return LeaseThread(
            client,
            self.ledger,
            availability,
            self._settings,
            fault=self._recorder.fault,
            deliver_alerts=self._deliver_alerts,
        )

    @property
    def policy(self) -> Policy | None:
        """The budgets as last read; None before the first time."""
        return self.plans.policy

    @property
    def active(self) -> bool:
        """Whether any budget can stop, slow or change a call; also where that is not yet known."""
        policy = self.plans.policy
        return (policy is None or bool(policy.budgets)) and self._settings.budgets

    # Admission

    def admit(self, request: Request, *, max_wait: float = 0.0, clamp: bool = False) -> Admission:
        """Let a call go, perhaps after a wait of at most `max_wait` seconds; raises BudgetExceeded and its kin, nothing else.

        With `clamp` the model's answer may be limited to what strict budgets can pay for.
        """
        admission = self._in_hand(request, clamp)
        return run(self._asked(request, max_wait, clamp)) if admission is None else admission

    async def aadmit(self, request: Request, *, max_wait: float = 0.0, clamp: bool = False) -> Admission:
        """`admit` for an event loop, which is never blocked."""
        admission = self._in_hand(request, clamp)
        return await run_async(self._asked(request, max_wait, clamp)) if admission is None else admission

    def admitting(self, request: Request, *, max_wait: float = 0.0, clamp: bool = False) -> Waits[Admission]:
        """`admit` as a generator: for code that is itself written once and run by `pending.run` or `pending.run_async`."""
        admission = self._in_hand(request, clamp)
        return (yield from self._asked(request, max_wait, clamp)) if admission is None else admission

    def release(self, admission: Admission) -> None:
        """The call was not made after all: what was set aside for it is free again."""
        hold = admission.hold
        if isinstance(hold, Hold):
            throttled = bool(hold.turns)
            self.ledger.release(hold)
            if throttled:
                self.lease_thread.turns_came_back()

    def must_ask(self, request: Request) -> bool:
        """Whether a call would have to wait for the database's answer: the grants in hand do not cover it."""
        policy = self.plans.policy
        if policy is None:
            return True
        try:
            plan = self.plans.find(policy, request)
            return bool(plan.accounts) and not self.ledger.covers(plan, plan.terms.quote(request, clamp=False)[0])
        except BudgetExceeded:
            return False  # it is refused at once

    def _in_hand(self, request: Request, clamp: bool) -> Admission | None:
        """The answer from the grants in hand; None where the database must be asked."""
        try:
            policy = self.plans.policy
            if policy is None:
                return None
            plan = self.plans.find(policy, request)
            if not plan.accounts:
                return Admission()
            if self.ledger.ended:
                self._settle_ended()
            amounts, max_tokens = plan.terms.quote(request, clamp)
            hold = self.ledger.reserve(plan, amounts, request.size)
            if hold is None:
                return None
            if plan.low:
                plan.low = False
                self.lease_thread.submit(PendingRequest.to_refill(plan, amounts))
            return Admission(hold, plan.note, None, max_tokens)
        except BudgetExceeded:
            raise
        except Exception as error:  # noqa: BLE001 - then the budgets decide as they do without a database
            return self.undecided(error, request.context, request.model)

    def _settle_ended(self) -> None:
        """Settle calls that have ended and may have cost more than was held for them."""
        for hold, settle in list(self.ledger.ended.items()):
            if hold.settled is None:
                settle()
            self.ledger.ended.pop(hold, None)  # only now: who finds nothing there goes on at once

    def _asked(self, request: Request, max_wait: float, clamp: bool) -> Waits[Admission]:
        """The answer of the database, for which the call waits; where that says so, it asks once more after a while."""
        try:
            waited_s = 0.0
            while True:
                pending = PendingRequest(request, max_wait - waited_s, clamp)
                self.lease_thread.submit(pending)
                try:
                    yield pending.answer_within(self._deadline_s)
                    answer = self._answer_to(pending)
                    if answer.wait_s:
                        yield Sleep(answer.wait_s)
                except BaseException:  # interrupted or cancelled while it waits
                    if (unwanted := pending.cancel()) is not None:
                        self.release(unwanted)
                    raise
                waited_s += answer.wait_s
                if answer.admission is not None:
                    return _after_waiting(answer.admission, waited_s)
        except BudgetExceeded:
            raise
        except Exception as error:  # noqa: BLE001 - as above
            return self.undecided(error, request.context, request.model)

    def _answer_to(self, pending: PendingRequest) -> Answer:
        """The answer to a request, when the wait for it is over; raises BudgetExceeded where it is to stop."""
        if not pending.done.is_set() and pending.give_up():
            self.lease_thread.availability.waited_in_vain()
        answer = pending.answer if pending.answer is not None else Answer(self._unchecked(pending))
        if answer.error is not None:
            raise answer.error
        return answer

    def _unchecked(self, pending: PendingRequest) -> Admission:
        """Decide without the database: each budget that the grants in hand do not cover goes by its `when_unavailable`."""
        policy = self.plans.policy
        if policy is None:
            if self._settings.when_unavailable == "deny":
                raise policy_unknown(no_answer(self._deadline_s))
            self.unchecked += 1
            return Admission(action="unchecked")
        if not pending.quoted:
            plan = self.plans.find(policy, pending.request)
            if not plan.accounts:
                return Admission()
            pending.quote(plan)
        size = pending.request.size
        hold, short = self.ledger.reserve_where_possible(pending.plan, pending.amounts, size)
        for account in short:
            if account.budget.enforce and account.budget.deny_when_unavailable:
                if hold is not None:
                    self.ledger.release(hold)
                raise not_checked(account.budget, account.entity, no_answer(self._deadline_s))
        self.unchecked += bool(short)
        return Admission(hold, "unchecked" if short else None, None, pending.max_tokens)

    def undecided(
        self, fault: BaseException, context: CallContext | None = None, model: str | None = None
    ) -> Admission:
        """Decide about a call whose check has failed by a fault of ours, as if the database were away; counted and told.

        Each budget that the call meets goes by its `when_unavailable`; where it is not known which it meets, all count. Raises
        BudgetUnavailable where one denies.
        """
        self._recorder.fault(fault)
        if not self.active:
            return Admission()
        if not self._told_of_fault:
            self._told_of_fault = True
            logger.warning(
                "A check of the budgets failed by a fault of vital_tracking's own (%s): each budget decides by its "
                "when_unavailable. tracker.stats().unchecked counts the calls that went on.",
                type(fault).__name__,
            )
        policy = self.plans.policy
        if policy is None and self._settings.when_unavailable == "deny":
            raise policy_unknown(OUR_FAULT)
        for budget, entity in _met(policy, context, model):
            if budget.enforce and budget.deny_when_unavailable:
                raise not_checked(budget, entity, OUR_FAULT)
        self.unchecked += 1
        return Admission(action="unchecked")

    # For the recorder: the protocol `Holds` of `delivery.settlement`

    def settle(self, hold: Hold, used: Used, cost: Decimal | None) -> Collection[Draw]:
        """Replace a call's hold by what it used: `cost` in US dollars, None where nothing is known."""
        usage, counts, teaches = used
        amounts = Amounts(0 if cost is None else in_pico(cost), usage.total_tokens, 1) if counts else Amounts(0, 0, 0)
        return self.ledger.settle(hold, amounts, usage=usage if teaches else None)

    def ended(self, hold: Hold, call: EndedCall, settle: Callable[[], object]) -> None:
        """A call has ended; where it may have cost more than was held for it, `settle` comes before another one is admitted."""
        tokens = billed_tokens(call)
        if tokens is None or not hold.covers(*tokens):
            self.ledger.ended[hold] = settle

    def posted(self, holder: str, draws: Iterable[Collection[Draw]]) -> None:
        """Rows with these draws are in the database, or never will be."""
        self.ledger.post(holder, draws)

    def give_back(self, hold: Hold) -> None:
        """There will be no record of the call."""
        self.ledger.release(hold)

    def prices_changed(self) -> None:
        """The team's prices were read anew."""
        self.plans.prices_changed()

    # Start, close, fork

    def start(self) -> None:
        """Read the budgets in the background before they are needed, and deliver alerts that are due."""
        if self._settings.budgets or self._deliver_alerts is not None:
            self.lease_thread.start()

    def look_for_alerts(self) -> None:
        """Alerts have become due: have them delivered now, where there is anybody to deliver them to."""
        if self._deliver_alerts is not None:
            self.lease_thread.look_for_alerts()

    def close(self, timeout: float) -> None:
        """Give grants back, for at most `timeout` seconds; those of calls not yet acknowledged lapse by themselves."""
        self.lease_thread.close(timeout)

    def reset_after_fork(self) -> None:
        """In a forked child: grants, the thread and what waits for it are the parent's."""
        self.plans.reset()  # the first call in this process has the budgets read
        self.ledger.reset_after_fork()
        self.lease_thread = self._new_lease_thread()


def _met(policy: Policy | None, context: CallContext | None, model: str | None) -> list[tuple[Budget, str]]:
    """The budgets that a call meets, each with its entity; all of them where that cannot be told."""
    budgets = [] if policy is None else [(budget, budget.entity_id) for budget in policy.budgets]
    if policy is None or context is None:
        return budgets
    try:
        return policy.matching(context, model)
    except Exception:  # noqa: BLE001 - perhaps the fault of which we are to decide
        return budgets


def _after_waiting(admission: Admission, seconds: float) -> Admission:
    if seconds:
        admission.throttled_ms = seconds * 1000
        admission.action = admission.action or "throttle"
    return admission
