"""The one thread of a gate that talks to the database: asks for grants, renews and returns them, reads the budgets."""

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

from vital_tracking.budgets.admission import Admission, Request
from vital_tracking.budgets.estimate import Amounts, in_pico
from vital_tracking.budgets.ledger import Asked, Entry, Plan
from vital_tracking.budgets.rules import Rules
from vital_tracking.context import CallContext
from vital_tracking.errors import BudgetExceeded, StoreError, StoreNotReady
from vital_tracking.settings import Settings

if TYPE_CHECKING:
    from vital_tracking.budgets.gate import Gate
    from vital_tracking.delivery import Recorder

logger = logging.getLogger("vital_tracking.budgets")

_AT_ONCE: Final = 64
_TICK_S: Final = 1.0
_REFUSED_S: Final = 0.25
_OVER_S: Final = 1.0
_SAFE_PART: Final = 0.9
_FIRST_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 5.0  # grants in hand must be renewed as soon as that works again
_ALERTS_EVERY_S: Final = 30.0


class Ask:
    """A call that waits for the database's answer. Who asks waits for `done`, or is told by `on_done`."""

    __slots__ = (
        "admission",
        "again",
        "ahead",
        "amounts",
        "answered",
        "clamp",
        "done",
        "error",
        "gone",
        "limited",
        "lock",
        "max_wait",
        "on_done",
        "plan",
        "prepared",
        "request",
        "retried",
        "shortened",
        "wait_s",
    )

    def __init__(self, request: Request, max_wait: float = 0.0, clamp: bool = False) -> None:
        self.request = request
        self.max_wait = max_wait
        self.clamp = clamp
        self.ahead = False
        self.plan: Plan  # both are there once it is prepared
        self.amounts: Amounts
        self.prepared = False
        self.limited: int | None = None
        self.shortened = self.retried = False
        self.lock = threading.Lock()
        self.done = threading.Event()
        self.on_done: Callable[[], object] | None = None
        self.gone = False
        self.answered = False
        self.again = False
        self.wait_s = 0.0
        self.admission: Admission | None = None
        self.error: BudgetExceeded | None = None


class Desk:
    """Serves asks in their order; never raises at those who ask."""

    def __init__(self, gate: Gate, recorder: Recorder, settings: Settings) -> None:
        self._gate = gate
        self._recorder = recorder
        self._settings = settings
        self._lifetime_s = settings.grant_lifetime_s
        self._pause_s = _FIRST_PAUSE_S
        self._troubled = False
        self.deliver_alerts: Callable[[], object] | None = None
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """In a forked child: the thread and what waits for it are the parent's."""
        self._queue: SimpleQueue[Ask | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._running = False
        self._closing = False
        self._busy_since: float | None = None
        self._down_until = 0.0
        self._renew_due = 0.0
        self._rules_due = 0.0
        self._alerts_due = 0.0
        self._delivering: threading.Thread | None = None

    # For those who ask

    def submit(self, ask: Ask) -> None:
        """Have an ask served; at once unanswered where the database is known to be away or stuck."""
        busy = self._busy_since
        now = time.monotonic()
        stuck = busy is not None and now - busy > self._settings.budget_deadline_s
        if self._closing or stuck or now < self._down_until:
            self._unanswered(ask)
            return
        self._queue.put(ask)
        if not self._running:
            self.start()

    def refill(self, plan: Plan, amounts: Amounts) -> None:
        """Fetch more for calls of this kind before they run out; nobody waits."""
        ask = Ask(Request(CallContext()))
        ask.plan, ask.amounts, ask.prepared, ask.ahead = plan, amounts, True, True
        self.submit(ask)

    def give_up(self, ask: Ask) -> None:
        """The asker's time is over; an answer that has just come still counts."""
        with ask.lock:
            if not ask.answered:
                ask.gone = True

    def cancel(self, ask: Ask) -> None:
        """The asker wants the answer no more."""
        with ask.lock:
            ask.gone = True
            admission = ask.admission
        if admission is not None:
            self._gate.release(admission)

    def start(self) -> None:
        """Have the thread run."""
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
        """Give back what is not needed, for at most `timeout` seconds, and stop."""
        self._closing = True
        self._queue.put(None)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)

    # On the thread

    def _run(self) -> None:
        try:
            while not self._closing:
                self._once()
            if self._gate.ledger.has_grants:
                self._renew(all_back=True)
        except Exception as error:  # noqa: BLE001 - the next ask starts another thread
            self._recorder.fault(error)
        finally:
            self._running = False
            while not self._queue.empty():
                left = self._queue.get_nowait()
                if left is not None:
                    self._unanswered(left)

    def _once(self) -> None:
        pause = _TICK_S if self._gate.ledger.has_grants else max(self._rules_due - time.monotonic(), 0.001)
        asks: list[Ask] = []
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
                self._unanswered(ask)

    def _drain(self) -> list[Ask]:
        asks: list[Ask] = []
        while not self._queue.empty():
            ask = self._queue.get_nowait()
            if ask is not None:
                asks.append(ask)
        return asks

    def _serve(self, asks: list[Ask]) -> None:
        if self._gate.rules is None:
            self._read_rules()
        self._check_grants()
        waiting = list(asks)
        while waiting:
            now, later = self._sort(waiting)
            if now:
                later += self._ask_database(now)
            waiting = later

    def _sort(self, waiting: Sequence[Ask]) -> tuple[list[Ask], list[Ask]]:
        """Answer what can be answered here; of the rest, one ask of a kind now, the others after it."""
        now: list[Ask] = []
        later: list[Ask] = []
        kinds: set[int] = set()
        for ask in waiting:
            if ask.gone or self._answer_here(ask):
                continue
            throttled = any(account.budget.action == "throttle" for account in ask.plan.accounts)
            # A throttled call needs a slot of its own; others wait for what the first of their kind is given.
            if len(now) >= _AT_ONCE or (id(ask.plan) in kinds and not throttled):
                later.append(ask)
            else:
                kinds.add(id(ask.plan))
                now.append(ask)
        return now, later

    def _answer_here(self, ask: Ask) -> bool:
        gate = self._gate
        if ask.ahead:
            return False
        try:
            if not gate.prepare(ask):
                self._resolve(ask, Admission())
                return True
        except BudgetExceeded as error:
            self._resolve(ask, error=error)
            return True
        if gate.ledger.refresh(ask.plan):
            hold = gate.ledger.take(ask.plan, ask.amounts, ask.request.prompt_bytes)
            if hold is not None:
                self._resolve(ask, Admission(hold, ask.plan.note, None, ask.limited))
                return True
        now = time.monotonic()
        for account in ask.plan.accounts:
            known = account.refused
            if known is None or now >= account.refused_until or (ask.clamp and ask.plan.strict):
                continue
            same = known(ask, now)
            if same is not None:
                self._resolve(ask, error=same)
                return True
        return False

    def _ask_database(self, asks: Sequence[Ask]) -> list[Ask]:
        """Ask for all of them in one round trip; those that must ask once more."""
        ledger = self._gate.ledger
        wishes: list[dict[str, Any]] = []
        asides: list[list[Entry]] = []
        for ask in asks:
            windows, aside = ledger.wish(ask.plan, ask.amounts, len(asks), ahead=ask.ahead)
            asides.append(aside)
            wishes.append({"max_wait": ask.max_wait, "ahead": ask.ahead, "windows": windows})
        asked_at = time.monotonic()
        try:
            answer = self._call(
                "acquire_grants_v1", holder=ledger.holder, asks=json.dumps(wishes), lifetime_s=self._lifetime_s
            )
            clock = self._clock(asked_at, answer["now"])
        except BaseException:
            for aside in asides:
                ledger.put_back(aside)
            raise
        if self._recorder.on_alerts is not None and (alerts := answer.get("alerts")):
            self._recorder.on_alerts(alerts)
        again: list[Ask] = []
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
            elif self._gate.shorter(ask, one["windows"]):
                again.append(ask)
            else:
                self._refuse(ask, one)
        return again

    def _refuse(self, ask: Ask, answer: Mapping[str, Any]) -> None:
        windows, wait_s = answer["windows"], answer["wait"]
        error = self._gate.refused(ask, windows, wait_s)
        asked_at = time.monotonic()

        def known(other: Ask, now: float) -> BudgetExceeded | None:
            """The same answer for a call of the same kind that takes no less, for a moment."""
            if other.plan is not ask.plan:
                return None
            wait = max(wait_s - (now - asked_at), 0.0)
            less = any(mine < its for mine, its in zip(other.amounts, ask.amounts, strict=True))
            if less or (wait_s and other.max_wait >= wait):
                return None
            return self._gate.refused(other, windows, wait)

        for account in ask.plan.accounts:
            if account.budget.id == error.stop.budget_id:
                account.refused, account.refused_until = known, asked_at + _REFUSED_S
        self._resolve(ask, error=error)

    def shorten(self, ask: Ask, prompt: int, windows: Sequence[Mapping[str, Any]], shortest: int) -> bool:
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
    def _note(ask: Ask, answer: Mapping[str, Any]) -> str | None:
        """What the row will say: the strictest action that was applied, or would have been."""
        over = {window["budget"] for window in answer["windows"] if window["over"]}
        budgets = [account.budget for account in ask.plan.accounts if account.budget.id in over]
        if any(budget.enforce and budget.action == "throttle" for budget in budgets):
            return "throttle"
        return next((budget.note for budget in budgets if not budget.enforce), None)

    def _resolve(
        self,
        ask: Ask,
        admission: Admission | None = None,
        *,
        error: BudgetExceeded | None = None,
        wait_s: float = 0.0,
        again: bool = False,
    ) -> None:
        with ask.lock:
            gone = ask.gone
            if not gone:
                ask.admission, ask.error, ask.wait_s, ask.again = admission, error, wait_s, again
                ask.answered = True
        if gone:
            if admission is not None:
                self._gate.release(admission)
            return
        self._tell(ask)

    def _unanswered(self, ask: Ask) -> None:
        """Let whoever asked decide alone; nothing where there is an answer already."""
        if not ask.answered and not ask.done.is_set():
            self._tell(ask)

    @staticmethod
    def _tell(ask: Ask) -> None:
        ask.done.set()
        if ask.on_done is not None:
            with suppress(RuntimeError):  # its event loop is closed
                ask.on_done()

    # Housekeeping

    def _housekeep(self) -> None:
        now = time.monotonic()
        if now < self._down_until:
            return
        self._check_grants()
        if self._gate.ledger.has_grants or now >= self._rules_due:
            self._renew()
        if self.deliver_alerts is not None and now >= self._alerts_due:
            self._alerts_due = now + _ALERTS_EVERY_S
            if self._delivering is None or not self._delivering.is_alive():
                self._delivering = threading.Thread(
                    target=self.deliver_alerts, name="vital-tracking-alerts", daemon=True
                )
                self._delivering.start()

    def _check_grants(self) -> None:
        """Forget grants that we could not renew in time: the database may have given them to others."""
        if time.monotonic() >= self._gate.ledger.valid_until:
            self._gate.ledger.start_anew()

    def _renew(self, *, all_back: bool = False) -> None:
        """Renew what is needed and return what is not, when either is due; notice changed budgets."""
        now = time.monotonic()
        ledger = self._gate.ledger
        kept, returned = ledger.keeps(all_back=all_back)
        if not (all_back or returned or now >= self._renew_due or now >= self._rules_due):
            return
        answer = self._call("renew_grants_v1", holder=ledger.holder, kept=json.dumps(kept), lifetime_s=self._lifetime_s)
        ledger.renewed(kept, now + self._lifetime_s * _SAFE_PART)
        self._renew_due = now + self._lifetime_s / 3
        self._rules_due = now + self._settings.budget_refresh_s
        rules = self._gate.rules
        if not all_back and (rules is None or answer["version"] != rules.version):
            self._read_rules()
            kept, _ = ledger.keeps()
            self._call("renew_grants_v1", holder=ledger.holder, kept=json.dumps(kept), lifetime_s=self._lifetime_s)

    def _read_rules(self) -> None:
        self._rules_due = time.monotonic() + self._settings.budget_refresh_s
        rules = Rules.from_answer(self._call("budgets_v1"))
        if self._gate.rules is None and rules.budgets:
            self._recorder.refresh_prices()
            for row in self._call("usage_history_v1"):
                self._gate.remember(row["model"], row["agent_id"], int(row["completion_tokens"]))
        self._gate.rules_are(rules)

    def _call(self, function: str, **arguments: object) -> Any:
        self._busy_since = time.monotonic()
        try:
            answer = self._recorder.store.call(function, **arguments)
        finally:
            self._busy_since = None
        if self._troubled:
            self._troubled = False
            logger.warning("The database answers again; budgets are checked.")
        self._pause_s = _FIRST_PAUSE_S
        return answer

    def _clock(self, asked_at: float, now: str) -> Asked:
        return Asked(
            asked_at, datetime.fromisoformat(now), asked_at + self._lifetime_s * _SAFE_PART, asked_at + _OVER_S
        )

    def _away(self, error: StoreError) -> None:
        """The database cannot be asked: do not try again for a moment, and let budgets decide by `when_unavailable`."""
        self._rest()
        if not self._troubled:
            self._troubled = True
            ready = not isinstance(error, StoreNotReady)
            logger.warning(
                "%s Calls go on by the grants in hand, then as each budget's when_unavailable says.%s",
                error,
                "" if ready else " Budgets are not checked.",
            )

    def _rest(self) -> None:
        """Leave the database alone for a moment, longer every time."""
        self._down_until = time.monotonic() + self._pause_s
        self._rules_due = max(self._rules_due, self._down_until)
        self._pause_s = min(self._pause_s * 2, _LONGEST_PAUSE_S)
