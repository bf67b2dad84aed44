"""Finds the plan of a call: which budgets and prices apply to it, looked up once for each kind of call."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from vital_tracking.budgets.estimate import History, UpperPrice
from vital_tracking.budgets.ledger import Ledger
from vital_tracking.budgets.policy import Budget, Policy
from vital_tracking.budgets.quotes import Terms
from vital_tracking.budgets.windows import Plan
from vital_tracking.core.admission import Request
from vital_tracking.core.pricing import PriceBook
from vital_tracking.core.rates import ceiling_rates
from vital_tracking.core.sanitize import clean_text
from vital_tracking.settings import Settings

_MAX_PLANS: Final = 10_000
# Types of which equal ids are the same. Others are not looked up: as a key 1 is True and 1.0 as well.
_PLAIN: Final = frozenset({str, int, type(None)})


class Plans:
    """Finds the plan of a call, and forgets all plans when what they rest on changes.

    `policy` holds the budgets as last read; None before the first time.
    """

    def __init__(self, ledger: Ledger, prices: PriceBook, settings: Settings) -> None:
        self._ledger = ledger
        self._prices = prices
        self._budgets_on = settings.budgets
        self._ceiling = ceiling_rates(settings.ceiling_price)
        self._histories: dict[tuple[str | None, str | None], History] = {}
        self.reset()

    def reset(self) -> None:
        """Forget plans and policy; what was learned of the sizes of calls stays."""
        self.known: dict[object, Plan] = {}
        self.policy: Policy | None = None if self._budgets_on else Policy()

    def adopt(self, policy: Policy) -> None:
        """Take over the budgets as they are now."""
        before, self.policy = self.policy, policy
        if before is not None and before.version != policy.version:
            self.known = {}
            self._ledger.forget_accounts()

    def prices_changed(self) -> None:
        """Make plans anew, by the prices as they are now."""
        self.known = {}

    def remember(self, model: str | None, agent: str | None, longest_answer: int) -> None:
        """Take over from the database how many tokens a model's answers to an agent have had at most."""
        self._histories.setdefault((model, agent), History(longest_answer))

    def find(self, policy: Policy, request: Request) -> Plan:
        """The plan of a call under these budgets."""
        context = request.context
        whom = policy.key_of(context)
        key = (whom, request.provider, request.model, request.downgraded)
        try:
            plan = self.known.get(key)
        except TypeError:  # an id that cannot be hashed is no text; the row will hold it as text
            return self._make(policy, request)
        if plan is not None and plan.context is context:
            return plan
        if not _PLAIN.issuperset(map(type, whom)):  # its row will have such an id as text
            return self._make(policy, request)
        if plan is None:
            plan = self._make(policy, request)
            if len(self.known) >= _MAX_PLANS:
                self.known = {}
                self._ledger.trim_accounts(_MAX_PLANS)
            self.known[key] = plan
            if policy is not self.policy:  # it has changed meanwhile: the plan serves this call, and no other
                self.known.pop(key, None)
        plan.context = context
        return plan

    def _make(self, policy: Policy, request: Request) -> Plan:
        budgets = policy.matching(request.context, request.model)
        price = self._price(request.provider, request.model)
        may_pass = frozenset(
            budget.id for budget, _ in budgets if budget.action == "downgrade" and self._passes(budget, request, price)
        )
        terms = Terms(budgets, price, self._history(request), may_pass)
        plan = Plan([self._ledger.account(budget, entity) for budget, entity in budgets], terms)
        plan.refresh()
        return plan

    def _history(self, request: Request) -> History:
        key = (request.model, clean_text(request.context.agent_id))
        history = self._histories.get(key)
        if history is None:
            if len(self._histories) >= _MAX_PLANS:
                self._histories.clear()
            history = self._histories[key] = History()
        return history

    def _price(self, provider: str | None, model: str | None) -> UpperPrice:
        """The most that a call of a model can cost now."""
        rates = self._prices.rates(provider, model, datetime.now(UTC)) if model else None
        return UpperPrice(rates, self._ceiling)

    def _passes(self, budget: Budget, request: Request, price: UpperPrice) -> bool:
        """Whether a model may be used over the limit of a budget that downgrades."""
        if budget.downgrade_to is None:
            return request.downgraded
        if request.model == budget.downgrade_to:
            return True
        limit = self._price(request.provider, budget.downgrade_to)
        if not limit.priced:  # another provider's model
            limit = self._price(None, budget.downgrade_to)
        return price.no_dearer_than(limit)
