"""A stopped call's row says which budget stopped it, and what was in its window at that moment.

If one of these fails, nobody can tell a user why a call was refused, once the window has gone on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding

from tests.integration.budgets.helpers import CALL, USAGE, knows_its_budgets, set_budget
from tests.integration.helpers import Rows
from tests.support.provider_server import ProviderServer
from vital_tracking import BudgetExceeded, VitalTracker
from vital_tracking.stores.postgres import PostgresStore

MakeTracker = Callable[..., VitalTracker]


@pytest.fixture
def database_url(reused_database: str) -> str:
    """One database for all tests of this file."""
    return reused_database


def by_admit(tracker: VitalTracker, provider: ProviderServer) -> None:
    tracker.admit(user_id="u-1", **CALL)


def by_handler(tracker: VitalTracker, provider: ProviderServer) -> None:
    provider.chat_openai().invoke("Hi", {"callbacks": [tracker.handler], "metadata": {"vital_user_id": "u-1"}})


def by_guard(tracker: VitalTracker, provider: ProviderServer) -> None:
    tracker.guard(provider.chat_openai()).invoke("Hi", {"metadata": {"vital_user_id": "u-1"}})


def by_embeddings(tracker: VitalTracker, provider: ProviderServer) -> None:
    with tracker.conversation(user_id="u-1", session_id="s-1"):
        tracker.embeddings(DeterministicFakeEmbedding(size=4)).embed_query("Hi")


@pytest.mark.parametrize("spool", [True, False])
@pytest.mark.parametrize("ask", [by_admit, by_handler, by_guard, by_embeddings])
def test_the_row_keeps_what_the_error_said(
    ask: Callable[[VitalTracker, ProviderServer], None],
    spool: bool,
    store: PostgresStore,
    make_tracker: MakeTracker,
    provider: ProviderServer,
    rows: Rows,
) -> None:
    budget = set_budget(store, daily_limit="1")
    tracker = knows_its_budgets(make_tracker(spool=spool))
    tracker.admit(user_id="u-1", **CALL).record(**USAGE)
    with pytest.raises(BudgetExceeded, match=rf"\(budget {budget['id']}\)") as stopped:
        ask(tracker, provider)
    tracker.flush()
    [row] = rows("select blocked_by from token_usage_logs where status = 'blocked'")
    assert row["blocked_by"] == {
        "budget": budget["id"],
        "action": "block",
        "entity_type": "user",
        "entity_id": "u-1",
        "metric": "calls",
        "period": "day",
        "limit": "1",
        "spent": "1",
        "held": "0",
        "needed": "1",
        "ends_at": stopped.value.ends_at and stopped.value.ends_at.isoformat(),
    }
    assert rows("select blocked_by from token_usage_logs where status <> 'blocked'") == [{"blocked_by": None}]


def test_a_call_that_was_stopped_for_another_reason_says_which(
    store: PostgresStore, make_tracker: MakeTracker, provider: ProviderServer, rows: Rows
) -> None:
    set_budget(store, metric="cost_usd", daily_limit="1", strict=True)
    tracker = knows_its_budgets(make_tracker())
    with pytest.raises(BudgetExceeded):
        by_handler(tracker, provider)
    tracker.flush()
    [row] = rows("select blocked_by from token_usage_logs")
    kept: dict[str, Any] = row["blocked_by"]
    assert (kept["entity_id"], "limit" in kept) == ("u-1", False)
    assert "max_tokens" in kept["reason"]
