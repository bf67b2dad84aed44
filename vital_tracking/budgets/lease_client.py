"""The one thread of a controller that talks to the database: asks for grants, renews and returns them, reads the budgets."""

from __future__ import annotations

import dataclasses
import json
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from decimal import Decimal
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final

from vital_tracking.budgets.estimate import Amounts, in_pico
from vital_tracking.budgets.ledger import Asked, Part, Plan
from vital_tracking.budgets.pending import PendingRequest
from vital_tracking.budgets.policy import Policy
from vital_tracking.core.admission import Admission, Request
from vital_tracking.core.context import CallContext
from vital_tracking.errors import BudgetExceeded, StoreError, StoreNotReady, StoreRejected
from vital_tracking.settings import Settings

if TYPE_CHECKING:
    from vital_tracking.budgets.controller import AdmissionController
    from vital_tracking.delivery import Recorder

logger = logging.getLogger("vital_tracking.budgets")

_AT_ONCE: Final = 64
_TICK_S: Final = 1.0
_GLANCE_S: Final = 0.1
_REFUSED_S: Final = 0.25
_OVER_S: Final = 1.0
_SAFE_PART: Final = 0.9
_SLOW_PART: Final = 0.8
_FIRST_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 5.0  # grants in hand must be renewed as soon as that works again
_ALERTS_EVERY_S: Final = 30.0


class LeaseClient:
    """Serves asks in their order; never raises at those who ask."""

    def __init__(self, controller: AdmissionController, recorder: Recorder, settings: Settings) -> None:
        self._controller = controller
        self._recorder = recorder
        self._settings = settings
        self._lifetime_s = settings.grant_lifetime_s
        self._deadline_s = settings.budget_deadline_s
        self.deliver_alerts: Callable[[], object] | None = None
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """In a forked child: the thread and what waits for it are the parent's."""
        self._queue: SimpleQueue[PendingRequest | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._running = False
        self._closing = False
        self._busy_since: float | None = None
        self._troubled = False  # away, or too slow: until it answers in time again only this thread asks it
        self._pause_s = _FIRST_PAUSE_S
        self._down_until = 0.0
        self._look_due = 0.0
        self._renew_due = 0.0
        self._rules_due = 0.0 if self._settings.budgets else float("inf")
        self._alerts_due = 0.0
        self._delivering: threading.Thread | None = None

    # For those who ask

    def submit(self, ask: PendingRequest) -> None:
        """Have an ask served; at once unanswered where the database is known to be away or too slow to be waited for."""
        if self._closing or self._troubled or self._busy_for() > self._deadline_s:
            ask.leave()
            return
        self._queue.put(ask)
        if not self._running:
            self.start()

    def refill(self, plan: Plan, amounts: Amounts) -> None:
        """Fetch more for calls of this kind before they run out; nobody waits."""
        ask = PendingRequest(Request(CallContext()))
        ask.plan, ask.amounts, ask.prepared, ask.ahead = plan, amounts, True, True
        self.submit(ask)

    def give_up(self, ask: PendingRequest) -> None:
        """The asker's time is over; an answer that has just come still counts."""
        # Where an answer of the database is what took the time, nobody else need wait for it.
        if ask.give_up() and self._busy_for() > self._deadline_s / 2:
            self._say_troubled(f"The database did not answer within {self._deadline_s:g} s.")

    def cancel(self, ask: PendingRequest) -> None:
        """The asker wants the answer no more."""
        if (admission := ask.cancel()) is not None:
            self._controller.release(admission)

    def start(self) -> None:
        """Have the thread run."""
        if self._running:
            return
        with self._lock:
            if self._running or self._closing:
                return
            self._running = True
            thread = threading.Thread(target=self._run, name="vital-tracking-budgets", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the interpreter is shutting down
                self._running = False
                return
            self._thread = thread

    def wake(self, *, alerts: bool = False, rules: bool = False) -> None:
        """Have the thread look at alerts or budgets now."""
        if alerts:
            self._alerts_due = 0.0
        if rules:
            self._rules_due = 0.0
        if self._running:
            self._queue.put(None)
        else:
            self.start()

    def close(self, timeout: float) -> None:
        """Give back what is not needed, let alerts be delivered, for at most `timeout` seconds, and stop."""
        deadline = time.monotonic() + timeout
        self._closing = True
        self._queue.put(None)
        for thread in (self._thread, self._delivering):
            if thread is not None and thread is not threading.current_thread():
                thread.join(max(deadline - time.monotonic(), 0))

    # On the thread

    def _run(self) -> None:
        try:
            while not self._closing:
                self._once()
            if self._controller.ledger.has_grants:
                with suppress(StoreError):  # then they lapse
                    self._renew(all_back=True)
        except Exception as error:  # noqa: BLE001 - the next ask starts another thread
            self._recorder.fault(error)
        finally:
            self._running = False
            while not self._queue.empty():
                left = self._queue.get_nowait()
                if left is not None:
                    left.leave()

    def _once(self) -> None:
        now = time.monotonic()
        due = self._down_until if self._troubled else self._rules_due
        pause = _TICK_S if self._controller.ledger.has_grants and not self._troubled else max(due - now, 0.001)
        if self.deliver_alerts is not None and not self._troubled:
            pause = min(pause, max(self._alerts_due - now, _GLANCE_S))
        asks: list[PendingRequest] = []
        try:
            first = self._queue.get(timeout=min(pause, self._settings.budget_refresh_s))
            asks = [first] if first is not None else []
        except Empty:
            pass
        asks += self._drain()
        try:
            if asks:
                self._serve(asks)
            self._housekeep()
        except StoreError as error:
            self._away(error)
        except Exception as error:  # noqa: BLE001 - a fault of ours lets calls go
            self._recorder.fault(error)
            self._rest()
        finally:
            for ask in asks:
                ask.leave()

    def _drain(self) -> list[PendingRequest]:
        asks: list[PendingRequest] = []
        while not self._queue.empty():
            ask = self._queue.get_nowait()
            if ask is not None:
                asks.append(ask)
        return asks

    def _serve(self, asks: list[PendingRequest]) -> None:
        if self._controller.rules is None:
            self._read_rules()
        self._check_grants()
        waiting = list(asks)
        together = False
        while waiting:
            now, later = self._sort(waiting, together=together)
            if now:
                later += self._ask_database(now)
            waiting, together = later, True

    def _sort(
        self, waiting: Sequence[PendingRequest], *, together: bool
    ) -> tuple[list[PendingRequest], list[PendingRequest]]:
        """Answer what can be answered here; of the rest, who asks now, and who after it.

        First one ask of a kind asks for all: far from the limit it is given enough. Where it was not, all ask `together`.
        """
        now: list[PendingRequest] = []
        later: list[PendingRequest] = []
        kinds: dict[int, PendingRequest] = {}
        for ask in waiting:
            if ask.gone or self._answer_here(ask):
                continue
            first = kinds.setdefault(id(ask.plan), ask)
            ask.waiting = int(first is ask)
            # A throttled call needs a slot of its own.
            alone = together or any(account.budget.action == "throttle" for account in ask.plan.accounts)
            if first is not ask and not alone:
                first.waiting += 1
            (now if len(now) < _AT_ONCE and (alone or first is ask) else later).append(ask)
        return now, later

    def _answer_here(self, ask: PendingRequest) -> bool:
        controller = self._controller
        if ask.ahead:
            return False
        try:
            if not controller.prepare(ask):
                self._resolve(ask, Admission())
                return True
        except BudgetExceeded as error:
            self._resolve(ask, error=error)
            return True
        if self._take(ask):
            return True
        now = time.monotonic()
        for account in ask.plan.accounts:
            known = account.refused
            if known is None or now >= account.refused_until or (ask.clamp and ask.plan.strict):
                continue
            same = known(ask, now)
            if same is not None:
                if self._recorder.settle_held():  # calls that have ended since may have left enough
                    return self._take(ask)
                self._resolve(ask, error=same)
                return True
        return False

    def _take(self, ask: PendingRequest) -> bool:
        """Answer an ask from the grants in hand; False where they do not cover it."""
        ledger = self._controller.ledger
        hold = ledger.take(ask.plan, ask.amounts, ask.request.prompt_bytes) if ledger.refresh(ask.plan) else None
        if hold is not None:
            self._resolve(ask, Admission(hold, ask.plan.note, None, ask.limited))
        return hold is not None

    def _ask_database(self, asks: Sequence[PendingRequest]) -> list[PendingRequest]:
        """Ask for all of them in one round trip; those that must ask once more."""
        ledger = self._controller.ledger
        wishes: list[dict[str, Any]] = []
        asides: list[list[Part]] = []
        for ask in asks:
            windows, aside = ledger.wish(ask.plan, ask.amounts, ask.waiting, ahead=ask.ahead)
            asides.append(aside)
            wishes.append({"max_wait": ask.max_wait, "ahead": ask.ahead, "windows": windows})
        asked_at = time.monotonic()
        try:
            answer = self._call(
                "acquire_grants_v1", holder=ledger.holder, asks=json.dumps(wishes), lifetime_s=self._lifetime_s
            )
            clock = self._clock(asked_at, answer["now"])
        except BaseException as error:
            for aside in asides:
                ledger.put_back(aside)
            if isinstance(error, StoreRejected):
                return self._ask_one_by_one(asks, error)
            raise
        if self._recorder.on_alerts is not None and (alerts := answer.get("alerts")):
            self._recorder.on_alerts(alerts)
        again: list[PendingRequest] = []
        settled = False
        for ask, aside, one in zip(asks, asides, answer["answers"], strict=True):
            if one["admitted"] and not ask.ahead:
                hold = ledger.apply(ask.plan, one, aside, ask.amounts, ask.request.prompt_bytes, clock)
                self._resolve(ask, Admission(hold, self._note(ask, one), None, ask.limited), wait_s=one["wait"])
                continue
            ledger.apply(ask.plan, one, aside, None, 0, clock)
            if ask.ahead:
                continue
            if one["again"]:
                self._resolve(ask, again=True, wait_s=one["wait"])
                continue
            # Calls that have ended may have left something of their holds, which is known when their records are made.
            settled = self._recorder.settle_held() or settled
            if settled and not ask.retried:
                ask.retried = True
                again.append(ask)
            elif self._controller.shorter(ask, one["windows"]):
                again.append(ask)
            else:
                self._refuse(ask, one)
        return again

    def _ask_one_by_one(self, asks: Sequence[PendingRequest], error: StoreRejected) -> list[PendingRequest]:
        """One of them holds what the database cannot take: the others must not suffer for it."""
        if len(asks) > 1:
            return [again for ask in asks for again in self._ask_database([ask])]
        self._recorder.fault(error)
        asks[0].leave()
        return []

    def _refuse(self, ask: PendingRequest, answer: Mapping[str, Any]) -> None:
        windows, wait_s, plan, amounts = answer["windows"], answer["wait"], ask.plan, ask.amounts
        error = self._controller.refused(ask, windows, wait_s)
        asked_at = time.monotonic()

        def known(other: PendingRequest, now: float) -> BudgetExceeded | None:
            """The same answer for a call of the same kind that takes no less, for a moment."""
            if other.plan is not plan:
                return None
            wait = max(wait_s - (now - asked_at), 0.0)
            less = any(mine < its for mine, its in zip(other.amounts, amounts, strict=True))
            if less or (wait_s and other.max_wait >= wait):
                return None
            return self._controller.refused(other, windows, wait)

        for account in ask.plan.accounts:
            if account.budget.id == error.stop.budget_id:
                account.refused = known
                account.refused_until = min([asked_at + _REFUSED_S, *(window.ends for window in account.windows)])
        self._resolve(ask, error=error)

    def shorten(self, ask: PendingRequest, prompt: int, windows: Sequence[Mapping[str, Any]], shortest: int) -> bool:
        """Cut the answer of a call to what the windows can pay; False where that is nothing worth asking for."""
        request, plan = ask.request, ask.plan
        longest = ask.amounts.tokens - prompt
        own = {window.id: window.free for account in plan.accounts for window in account.windows}
        metrics = {account.budget.id: account.budget.metric for account in plan.accounts}
        for window in windows:
            if not window["over"]:
                continue
            left = Decimal(window["limit"]) - Decimal(window["spent"]) - Decimal(window["granted"])
            metric = metrics[window["budget"]]
            if metric == 0:
                longest = min(longest, plan.tariff.affordable_answer(in_pico(left) + own.get(window["id"], 0), prompt))
            elif metric == 1:
                longest = min(longest, int(left) + own.get(window["id"], 0) - prompt)
            else:
                return False
        answer = longest // request.answers
        if answer < shortest:
            return False
        ask.request = dataclasses.replace(request, max_tokens=answer)
        ask.limited, ask.shortened = answer, True
        return True

    @staticmethod
    def _note(ask: PendingRequest, answer: Mapping[str, Any]) -> str | None:
        """What the row will say: the strictest action that was applied, or would have been."""
        over = {window["budget"] for window in answer["windows"] if window["over"]}
        budgets = [account.budget for account in ask.plan.accounts if account.budget.id in over]
        if any(budget.enforce and budget.action == "throttle" for budget in budgets):
            return "throttle"
        return next((budget.note for budget in budgets if not budget.enforce), None)

    def _resolve(
        self,
        ask: PendingRequest,
        admission: Admission | None = None,
        *,
        error: BudgetExceeded | None = None,
        wait_s: float = 0.0,
        again: bool = False,
    ) -> None:
        if not ask.answer(admission, error, wait_s, again=again) and admission is not None:
            self._controller.release(admission)

    # Housekeeping

    def _housekeep(self) -> None:
        now = time.monotonic()
        if now < self._down_until:
            return
        self._check_grants()
        if self._troubled or now >= min(self._rules_due, self._look_due):
            self._look_due = now + _TICK_S
            self._renew()
        # While one delivery is on its way, what has come since waits for the next.
        delivering = self._delivering is not None and self._delivering.is_alive()
        if self.deliver_alerts is not None and now >= self._alerts_due and not delivering:
            self._alerts_due = now + _ALERTS_EVERY_S
            self._delivering = threading.Thread(target=self.deliver_alerts, name="vital-tracking-alerts", daemon=True)
            self._delivering.start()

    def _check_grants(self) -> None:
        """Forget grants that we could not renew in time: the database may have given them to others."""
        if time.monotonic() >= self._controller.ledger.valid_until:
            self._controller.ledger.start_anew()

    def _renew(self, *, all_back: bool = False) -> None:
        """Renew what is needed and return what is not, when either is due; notice changed budgets."""
        now = time.monotonic()
        ledger = self._controller.ledger
        kept, returned = ledger.keeps(all_back=all_back)
        due = kept and now >= self._renew_due
        if not (all_back or returned or due or self._troubled or now >= self._rules_due):
            return
        answer = self._call("renew_grants_v1", holder=ledger.holder, kept=json.dumps(kept), lifetime_s=self._lifetime_s)
        if time.monotonic() >= ledger.valid_until:  # the answer came too late: others may have what we kept
            ledger.start_anew()
            return
        ledger.renewed(kept, answer["grants"], now + self._lifetime_s * _SAFE_PART)
        self._renew_due = now + self._lifetime_s / 3
        self._rules_due = now + self._settings.budget_refresh_s
        rules = self._controller.rules
        if not all_back and (rules is None or answer["version"] != rules.version):
            self._read_rules()
            if kept:  # free money of budgets as they were goes back
                kept, _ = ledger.keeps()
                self._call("renew_grants_v1", holder=ledger.holder, kept=json.dumps(kept), lifetime_s=self._lifetime_s)

    def _read_rules(self) -> None:
        self._rules_due = time.monotonic() + self._settings.budget_refresh_s
        rules = Policy.from_answer(self._call("budgets_v1"))
        if self._controller.rules is None and rules.budgets:
            self._timed(self._recorder.refresh_prices)
            for row in self._call("usage_history_v1"):
                self._controller.remember(row["model"], row["agent_id"], int(row["completion_tokens"]))
        self._controller.rules_are(rules)

    def _call(self, function: str, **arguments: object) -> Any:
        return self._timed(lambda: self._recorder.store.call(function, **arguments))

    def _timed(self, work: Callable[[], Any]) -> Any:
        """Work for which the database is waited for; what it takes decides whether anybody else waits."""
        self._busy_since = time.monotonic()
        try:
            answer = work()
            slow = self._busy_for() > self._deadline_s * _SLOW_PART
        finally:
            self._busy_since = None
        if slow and self._troubled:
            self._rest()
        elif not slow:
            self._pause_s = _FIRST_PAUSE_S
            if self._troubled:
                self._troubled = False
                logger.warning("The database answers in time again; budgets are checked.")
        return answer

    def _busy_for(self) -> float:
        """For how many seconds the database has been owing an answer."""
        busy = self._busy_since
        return 0.0 if busy is None else time.monotonic() - busy

    def _clock(self, asked_at: float, now: str) -> Asked:
        return Asked(
            asked_at, datetime.fromisoformat(now), asked_at + self._lifetime_s * _SAFE_PART, asked_at + _OVER_S
        )

    def _away(self, error: StoreError) -> None:
        """The database cannot be asked: do not try again for a moment, and let budgets decide by `when_unavailable`."""
        self._rest()
        self._say_troubled(f"{error}{' Budgets are not checked.' if isinstance(error, StoreNotReady) else ''}")

    def _say_troubled(self, problem: str) -> None:
        if not self._troubled:
            self._troubled = True
            logger.warning(
                "%s Calls go on by the grants in hand, then as each budget's when_unavailable says.", problem
            )

    def _rest(self) -> None:
        """Leave the database alone for a moment, longer every time."""
        self._down_until = time.monotonic() + self._pause_s
        self._rules_due = max(self._rules_due, self._down_until)
        self._pause_s = min(self._pause_s * 2, _LONGEST_PAUSE_S)
