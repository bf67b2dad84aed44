"""Asks the database for grants, on behalf of the calls that wait for them, renews and returns them, and reads the budgets."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from vital_tracking.budgets.availability import Availability
from vital_tracking.budgets.estimate import Amounts
from vital_tracking.budgets.ledger import Ledger, Offer
from vital_tracking.budgets.pending import Answer, PendingRequest
from vital_tracking.budgets.plans import Plans
from vital_tracking.budgets.policy import Policy
from vital_tracking.budgets.windows import Hold, Plan, Refusal, RoundTrip
from vital_tracking.core.admission import Admission
from vital_tracking.delivery import Recorder
from vital_tracking.errors import BudgetExceeded, StoreRejected
from vital_tracking.settings import Settings

_AT_ONCE: Final = 64  # requests in one round trip
_MOST_TRIES: Final = 4  # of a request that is refused while what this process has is changing
_OVER_S: Final = 1.0  # how long the answer that a window is used up is believed
_SAFE_PART: Final = 0.9  # share of a grant's lifetime after which we no longer spend it


class LeaseClient:
    """What the database is asked about budgets. Runs on one thread; StoreError where the database cannot be asked."""

    def __init__(
        self, ledger: Ledger, plans: Plans, recorder: Recorder, availability: Availability, settings: Settings
    ) -> None:
        self._ledger = ledger
        self._plans = plans
        self._recorder = recorder
        self._availability = availability
        self._lifetime_s = settings.grant_lifetime_s
        self._refresh_s = settings.budget_refresh_s
        self._renew_due = 0.0
        self.policy_due = 0.0 if settings.budgets else float("inf")

    # Calls that wait

    def serve(self, pending: Sequence[PendingRequest]) -> None:
        """Answer requests, from the grants in hand or by asking for more."""
        if self._plans.policy is None:
            self._read_policy()
        self.forget_lapsed_grants()
        waiting = list(pending)
        together = False
        while waiting:
            now, later = self._sort(waiting, together=together)
            if now:
                later += self._acquire(now)
            waiting, together = later, True

    def _sort(
        self, waiting: Sequence[PendingRequest], *, together: bool
    ) -> tuple[list[PendingRequest], list[PendingRequest]]:
        """Answer what can be answered here. Returns the requests to ask the database for now, and those to look at after that.

        At first one request of each plan asks on behalf of all of them: far from the limit it is granted enough for all. Where
        it was not, they all ask, in one round trip (`together`).
        """
        now: list[PendingRequest] = []
        later: list[PendingRequest] = []
        first_of: dict[int, PendingRequest] = {}
        for pending in waiting:
            if pending.gone or self._answer_here(pending):
                continue
            first = first_of.setdefault(id(pending.plan), pending)
            pending.calls = int(first is pending)
            # A throttled call needs a slot of its own.
            alone = together or any(account.budget.action == "throttle" for account in pending.plan.accounts)
            if first is not pending and not alone:
                first.calls += 1
            (now if len(now) < _AT_ONCE and (alone or first is pending) else later).append(pending)
        return now, later

    def _answer_here(self, pending: PendingRequest) -> bool:
        """Answer a request without the database, where that can be done."""
        if pending.ahead:
            return False
        try:
            plan = self._plans.find(self._plans.policy or Policy(), pending.request)
            if not plan.accounts:
                pending.resolve(Answer(Admission()))
                return True
            pending.quote(plan)
        except BudgetExceeded as error:
            pending.resolve(Answer(error=error))
            return True
        if self._reserve(pending):
            return True
        now = time.monotonic()
        for account in pending.plan.accounts:
            refusal = account.refusal
            if refusal is None or now >= account.refused_until or (pending.clamp and pending.plan.terms.strict):
                continue
            if not refusal.applies(pending.plan, pending.amounts, pending.max_wait):
                continue
            self._recorder.settle_held()  # calls that have ended since may have left enough
            if self._reserve(pending):
                return True
            if refusal.state == self._ledger.state(pending.plan):
                known = self._ledger.as_known_here(refusal.windows)
                pending.resolve(Answer(error=refusal.error(pending.amounts, known)))
                return True
        return False

    def _reserve(self, pending: PendingRequest) -> bool:
        """Answer a request from the grants in hand; False where they do not cover it."""
        plan = pending.plan
        hold = self._ledger.reserve(plan, pending.amounts, pending.request.size) if plan.refresh() else None
        if hold is not None:
            self._admit(pending, hold, plan.note)
        return hold is not None

    def _acquire(self, requests: Sequence[PendingRequest]) -> list[PendingRequest]:
        """Ask the database for all of these in one round trip; returns those that must be asked for once more."""
        ledger = self._ledger
        asks: list[dict[str, Any]] = []
        offers: list[Offer] = []
        for pending in requests:
            pending.standing = ledger.standing(pending.plan, pending.amounts)
            windows, offer = ledger.grant_requests(pending.plan, pending.amounts, pending.calls, ahead=pending.ahead)
            offers.append(offer)
            asks.append({"max_wait": pending.max_wait, "ahead": pending.ahead, "windows": windows})
        asked_at = time.monotonic()
        try:
            answer = self._call(
                "acquire_grants_v1", holder=ledger.holder, asks=json.dumps(asks), lifetime_s=self._lifetime_s
            )
            trip = RoundTrip(
                asked_at,
                datetime.fromisoformat(answer["now"]),
                grants_lapse_at=asked_at + self._lifetime_s * _SAFE_PART,
                over_until=asked_at + _OVER_S,
                exempt_until=asked_at + self._refresh_s,
            )
        except BaseException as error:
            for offer in offers:
                ledger.withdraw(offer)
            if isinstance(error, StoreRejected):
                return self._acquire_one_by_one(requests, error)
            raise
        if self._recorder.on_alerts is not None and (alerts := answer.get("alerts")):
            self._recorder.on_alerts(alerts)
        once_more: list[PendingRequest] = []
        for pending, offer, one in zip(requests, offers, answer["answers"], strict=True):
            plan = pending.plan
            if one["admitted"] and not pending.ahead:
                size = pending.request.size
                hold = ledger.accept_grants(plan, one, offer, pending.amounts, size, trip)
                self._admit(pending, hold, plan.terms.action_noted(one["windows"]), wait_s=one["wait"])
                continue
            ledger.accept_grants(plan, one, offer, None, 0, trip)
            if pending.ahead:
                continue
            if one["again"]:
                pending.resolve(Answer(wait_s=one["wait"]))
                continue
            # Calls that have ended meanwhile may have left something of their holds, or their rows may be stored by now.
            self._recorder.settle_held()
            better = self._better(pending.standing, plan, pending.amounts) or ledger.awaits_word(one["windows"])
            if better and pending.tries < _MOST_TRIES:
                pending.tries += 1
                once_more.append(pending)
            elif self._let_alone(pending) or self._shorten(pending, one["windows"]):
                once_more.append(pending)
            else:
                self._refuse(pending, one)
        return once_more

    def return_turns(self) -> None:
        """Tell the database of turns that came back; where it is away they are lost."""
        if turns := self._ledger.take_turns():
            self._call(
                "acquire_grants_v1",
                holder=self._ledger.holder,
                asks="[]",
                lifetime_s=self._lifetime_s,
                turns=json.dumps([{"window": turn.window, "slot": turn.slot} for turn in turns]),
            )

    def _better(self, before: Mapping[int, int], plan: Plan, amounts: Amounts) -> bool:
        """Whether this process has more of what a call needs, or owes less, than it did before."""
        now = self._ledger.standing(plan, amounts)
        return any(amount > before.get(window_id, 0) for window_id, amount in now.items())

    def _acquire_one_by_one(self, requests: Sequence[PendingRequest], error: StoreRejected) -> list[PendingRequest]:
        """The database has rejected them together: ask for each alone, so that only the faulty one goes without an answer."""
        if len(requests) > 1:
            return [once_more for pending in requests for once_more in self._acquire([pending])]
        self._recorder.fault(error)
        requests[0].leave()
        return []

    def _let_alone(self, pending: PendingRequest) -> bool:
        """Ask once more, at what is thought of the call alone, where none else is under way: at most that one crosses a limit."""
        if pending.alone or not any(pending.amounts[3:]) or not self._ledger.nothing_held(pending.plan):
            return False
        pending.alone = True
        return True

    def _shorten(self, pending: PendingRequest, windows: Sequence[Mapping[str, Any]]) -> bool:
        """Cut the answer of a strict, clamped call to what is left, once; False where that is too little for any answer."""
        plan = pending.plan
        if pending.shortened or not (pending.clamp and plan.terms.strict):
            return False
        free = {window.id: window.free for account in plan.accounts for window in account.windows}
        longest = plan.terms.longest_answer(pending.request, pending.amounts, windows, free)
        if longest is None:
            return False
        pending.request = pending.request._replace(max_tokens=longest)
        pending.max_tokens, pending.shortened = longest, True
        return True

    def _refuse(self, pending: PendingRequest, answer: Mapping[str, Any]) -> None:
        plan = pending.plan
        refusal = Refusal(plan, pending.amounts, answer, self._ledger.state(plan))
        error = refusal.error(pending.amounts, self._ledger.as_known_here(refusal.windows))
        for account in plan.accounts:
            if account.budget.id == error.stop.budget_id:
                account.remember(refusal)
        pending.resolve(Answer(error=error))

    def _admit(self, pending: PendingRequest, hold: Hold | None, action: str | None, *, wait_s: float = 0.0) -> None:
        admission = Admission(hold, action, None, pending.max_tokens)
        if not pending.resolve(Answer(admission, wait_s=wait_s)) and hold is not None:
            self._ledger.release(hold)

    # Grants in hand, and the budgets

    def forget_lapsed_grants(self) -> None:
        """Forget grants that we could not renew in time: the database may have given them to others."""
        if time.monotonic() >= self._ledger.valid_until:
            self._ledger.forget_grants()

    def renew(self, *, everything_back: bool = False) -> None:
        """Renew what is needed and return what is not, when either is due; notice changed budgets."""
        now = time.monotonic()
        ledger, policy = self._ledger, self._plans.policy
        kept, returned = ledger.return_unused(everything=everything_back)
        due = kept and now >= self._renew_due
        if not (everything_back or returned or due or self._availability.troubled or now >= self.policy_due):
            return
        answer = self._renewed(kept)
        if time.monotonic() >= ledger.valid_until:  # the answer came too late: others may have what we kept
            ledger.forget_grants()
            return
        ledger.confirm_kept(kept, answer["grants"], now + self._lifetime_s * _SAFE_PART)
        self._renew_due = now + self._lifetime_s / 3
        self.policy_due = now + self._refresh_s
        if not everything_back and (policy is None or answer["version"] != policy.version):
            self._read_policy()
            if kept:  # what is free of grants under the former budgets goes back
                kept, _ = ledger.return_unused()
                self._renewed(kept)

    def _renewed(self, kept: Mapping[str, str]) -> Any:
        return self._call(
            "renew_grants_v1", holder=self._ledger.holder, kept=json.dumps(kept), lifetime_s=self._lifetime_s
        )

    def _read_policy(self) -> None:
        self.policy_due = time.monotonic() + self._refresh_s
        policy = Policy.from_answer(self._call("budgets_v1"))
        if self._plans.policy is None and policy.budgets:
            self._availability.timed(self._recorder.refresh_prices)
            for row in self._call("usage_history_v1"):
                self._plans.remember(row["model"], row["agent_id"], int(row["completion_tokens"]))
        self._plans.adopt(policy)

    def _call(self, function: str, **arguments: object) -> Any:
        """Ask the database. Its answers bring its time: by that clock calls are dated that its grants pay for."""
        before = self._recorder.clock.read()
        answer = self._availability.timed(lambda: self._recorder.store.call(function, **arguments))
        self._recorder.clock.heard(answer, before)
        return answer
