"""Plans: found again for calls of the same kind, and for no others."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from tests.unit.budgets.test_policy import a_budget
from vital_tracking.budgets.ledger import Ledger
from vital_tracking.budgets.plans import Plans
from vital_tracking.budgets.policy import Policy
from vital_tracking.core.admission import Request
from vital_tracking.core.context import CallContext
from vital_tracking.core.pricing import PriceBook
from vital_tracking.settings import Settings


def found(plans: Plans, **fields: Any) -> list[str]:
    """The entities whose budgets such a call meets."""
    assert plans.policy is not None
    plan = plans.find(plans.policy, Request(CallContext(**fields), model="gpt-4o"))
    return [account.entity for account in plan.accounts]


@pytest.fixture
def plans() -> Plans:
    made = Plans(Ledger(), PriceBook(), Settings())
    made.adopt(Policy("v", [a_budget(1)]))
    return made


@pytest.mark.parametrize("first", [1, True, 1.0, Decimal(1), Decimal("1.00")])
def test_equal_ids_of_other_types_have_budgets_of_their_own(plans: Plans, first: Any) -> None:
    """If this failed, what one user spends would be held in another one's window, by who was seen first."""
    for user in (first, 1, "1", True, 1.0, Decimal(1), Decimal("1.00")):
        assert found(plans, user_id=user) == [str(user)]


def test_calls_of_one_kind_share_a_plan_and_those_of_two_agents_do_not(plans: Plans) -> None:
    policy = plans.policy
    assert policy is not None
    one, same, other = (
        plans.find(policy, Request(CallContext(user_id="u", agent_id=agent, session_id=session)))
        for agent, session in (("a", "s-1"), ("a", "s-2"), ("b", "s-1"))
    )
    assert one is same
    assert one is not other


def test_a_service_that_cannot_be_compared_meets_no_budget_of_a_service(plans: Plans) -> None:
    """If this failed, somebody's object would be a fault of ours, and its call would be checked by no budget at all."""

    class Incomparable:
        __hash__ = None  # type: ignore[assignment]

        def __eq__(self, other: object) -> bool:
            raise RuntimeError

    plans.adopt(Policy("v", [a_budget(1), a_budget(2, kind="service")]))
    assert found(plans, user_id="u", service_type=Incomparable()) == ["u"]
