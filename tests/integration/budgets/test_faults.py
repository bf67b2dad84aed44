"""A check that fails by a fault of ours counts as a database that is away: each budget decides by its `when_unavailable`.

If one of these fails, a bug of ours silently switches off a budget that would rather stop a call than not check it; or it stops
calls of budgets that would rather let them go.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding

from tests.integration.budgets.helpers import CALL, USAGE, knows_its_budgets, set_budget
from tests.integration.helpers import Rows
from tests.support.provider_server import ProviderServer
from vital_tracking import BudgetUnavailable, VitalTracker
from vital_tracking.budgets.controller import AdmissionController
from vital_tracking.budgets.lease_client import LeaseClient
from vital_tracking.budgets.ledger import Ledger
from vital_tracking.budgets.plans import Plans
from vital_tracking.budgets.policy import Policy
from vital_tracking.budgets.quotes import Terms
from vital_tracking.calls.live import LiveCall
from vital_tracking.langchain.handler import VitalHandler
from vital_tracking.stores.postgres import PostgresStore

MakeTracker = Callable[..., VitalTracker]

CHECKS: list[tuple[type, str]] = [
    (Plans, "find"),
    (Policy, "matching"),
    (Terms, "quote"),
    (Ledger, "reserve"),
    (LeaseClient, "_acquire"),
    (AdmissionController, "_answer_to"),
]
OF_A_MODELS_CALL: list[tuple[type, str]] = [(LiveCall, "request"), (VitalHandler, "_opened")]


@pytest.fixture
def database_url(reused_database: str) -> str:
    """One database for all tests of this file."""
    return reused_database


@pytest.fixture
def tracker(store: PostgresStore, make_tracker: MakeTracker) -> VitalTracker:
    """A tracker of which each check needs all that there is; two users, one of whom is stopped where nobody can say."""
    for user in ("allow", "deny"):
        set_budget(store, entity_id=user, total_limit="1000", when_unavailable=user)
    set_budget(store, entity_id="allow", daily_limit="1", when_unavailable="deny", enforce=False)
    return knows_its_budgets(make_tracker(budget_deadline_s=5))


def break_it(monkeypatch: pytest.MonkeyPatch, where: tuple[type, str]) -> None:
    def broken(*_args: Any, **_kwargs: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(*where, broken)


def ask_by_admit(tracker: VitalTracker, provider: ProviderServer, user: str) -> None:
    tracker.admit(user_id=user, **CALL).record(**USAGE)


def ask_by_handler(tracker: VitalTracker, provider: ProviderServer, user: str) -> None:
    provider.chat_openai().invoke("Hi", {"callbacks": [tracker.handler], "metadata": {"vital_user_id": user}})


def ask_by_guard(tracker: VitalTracker, provider: ProviderServer, user: str) -> None:
    tracker.guard(provider.chat_openai()).invoke("Hi", {"metadata": {"vital_user_id": user}})


def ask_by_embeddings(tracker: VitalTracker, provider: ProviderServer, user: str) -> None:
    with tracker.conversation(user_id=user, session_id="s-1"):
        tracker.embeddings(DeterministicFakeEmbedding(size=4)).embed_query("Hi")


WAYS = [ask_by_admit, ask_by_handler, ask_by_guard, ask_by_embeddings]


@pytest.mark.parametrize("ask", WAYS)
@pytest.mark.parametrize("where", CHECKS, ids=lambda where: f"{where[0].__name__}.{where[1]}")
def test_a_fault_of_ours_is_decided_as_the_budget_says(
    ask: Callable[[VitalTracker, ProviderServer, str], None],
    where: tuple[type, str],
    tracker: VitalTracker,
    provider: ProviderServer,
    rows: Rows,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    break_it(monkeypatch, where)
    with caplog.at_level(logging.WARNING):
        with pytest.raises(BudgetUnavailable) as stopped:
            ask(tracker, provider, "deny")
        if where != (Policy, "matching"):  # where it cannot be told whom budgets are for, those that deny count for all
            ask(tracker, provider, "allow")
            assert tracker.stats().unchecked == 1
    assert "denies what it cannot check" in str(stopped.value)
    assert tracker.stats().faults > 0
    told = [record.getMessage() for record in caplog.records if "ZeroDivisionError" in record.getMessage()]
    assert sum("A check of the budgets failed by a fault" in text for text in told) == (where[0] is not LeaseClient)
    assert told
    monkeypatch.undo()
    tracker.flush()
    found = rows("select user_id, status, budget_action from token_usage_logs order by user_id")
    assert [row["status"] for row in found if row["user_id"] == "deny"] == ["blocked"]
    assert [row["budget_action"] for row in found if row["user_id"] == "allow"] == ["unchecked"][: len(found) - 1]


@pytest.mark.parametrize("where", OF_A_MODELS_CALL, ids=lambda where: where[1])
def test_a_call_that_cannot_be_described_is_denied(
    where: tuple[type, str], tracker: VitalTracker, provider: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can tell whose call it is: any budget that denies what it cannot check stops it."""
    break_it(monkeypatch, where)
    with pytest.raises(BudgetUnavailable):
        ask_by_handler(tracker, provider, "deny")
    assert not provider.requests
    assert tracker.stats().faults == 1
