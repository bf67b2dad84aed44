"""Which budgets a call meets, and what a refusal says: the process and the database must be of one mind.

If one of these fails, a call is admitted by other budgets than those it is counted in, so one of them is overspent without
anybody asking; or the error names the wrong budget.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from psycopg.rows import dict_row

from tests.support.postgres import PostgresServer
from vital_tracking.budgets.policy import Budget, Policy, refusal
from vital_tracking.core.context import SERVICE_TYPES, CallContext
from vital_tracking.core.entities import ACTIONS, ENTITY_FIELDS, ENTITY_TYPES, METRICS
from vital_tracking.core.record import CallRecord
from vital_tracking.core.sanitize import clean_text
from vital_tracking.delivery.rows import call_row
from vital_tracking.errors import BudgetExceeded, BudgetThrottled

Connection = psycopg.Connection[dict[str, Any]]

# Few names, so that budgets and calls meet; some that are stored otherwise than they were given.
NAMES = ("a", "b", "*", "x" * 300, "tail\0", "", "42")
GIVEN = (*NAMES, None, 42)

entity_types = st.sampled_from(ENTITY_TYPES)
budgets = st.lists(
    st.tuples(
        st.sampled_from([None, "a", "42", "tail"]),
        entity_types,
        st.sampled_from(["a", "b", "*", clean_text("x" * 300), "tail", "42", *SERVICE_TYPES[:2]]),
        st.sampled_from(METRICS),
        st.sampled_from(ACTIONS),
    ),
    max_size=12,
    unique=True,
)
contexts = st.builds(
    lambda fields, service: CallContext(**fields, service_type=service),
    st.fixed_dictionaries(
        {},
        optional={field: st.sampled_from(GIVEN) for field in ENTITY_FIELDS.values() if field != "service_type"},
    ),
    st.sampled_from([None, *SERVICE_TYPES[:2], "unknown"]),
)
calls = st.tuples(contexts, st.sampled_from(GIVEN))


@pytest.fixture(scope="module")
def db(postgres_server: PostgresServer, template_database: str) -> Iterator[Connection]:
    """A connection to a migrated database in which nothing is ever committed."""
    postgres_server.create_database("budget_rules", template=template_database)
    with psycopg.connect(postgres_server.url("budget_rules"), row_factory=dict_row, autocommit=True) as connection:
        yield connection
    postgres_server.drop_database("budget_rules")


def by_the_database(db: Connection, asked: list[tuple[CallContext, Any]]) -> list[set[tuple[int, str]]]:
    """The budgets that stop, slow or change calls, with their entities, that `check_budget` finds for the calls' rows."""
    entities = []
    for context, model in asked:
        row = call_row(CallRecord(id="x", created_at=datetime.now(UTC), context=context, model=model), None)
        named = {kind: row.get(field) for kind, field in ENTITY_FIELDS.items()} | {"model": row.get("model")}
        entities.append(json.dumps(named))
    found = db.execute(
        "select check_budget_v1(e) as found from unnest(%s::text[]) with ordinality as t (e, n) order by n", [entities]
    )
    return [
        {(window["budget_id"], window["entity_id"]) for window in row["found"] if window["action"] != "alert"}
        for row in found
    ]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=budgets, asked=st.lists(calls, min_size=1, max_size=8))
@example(
    rows=[(None, kind, "*", "cost_usd", "block") for kind in ENTITY_TYPES],
    asked=[(CallContext(service_type=service), None) for service in ("unknown", None, *SERVICE_TYPES)],
)
def test_a_call_is_admitted_by_the_budgets_that_count_it(db: Connection, rows: list[Any], asked: list[Any]) -> None:
    """Whatever was given as an id: long, with a NUL, a number, an asterisk, or nothing."""
    with db.transaction(force_rollback=True):
        for organization, kind, entity, metric, action in rows:
            db.execute(
                "insert into budget_limits (organization_id, entity_type, entity_id, metric, action, daily_limit)"
                " values (%s, %s, %s, %s, %s, 1)",
                [organization, kind, entity, metric, action],
            )
        answer = db.execute("select budgets_v1() as answer").fetchone()
        assert answer is not None
        policy = Policy.from_answer(answer["answer"])
        assert len(policy.budgets) == sum(row[4] != "alert" for row in rows)
        for (context, model), expected in zip(asked, by_the_database(db, asked), strict=True):
            matching = [(budget.id, entity) for budget, entity in policy.matching(context, model)]
            assert len(matching) == len(set(matching))
            assert set(matching) == expected


@given(one=calls, other=calls, rows=budgets)
def test_calls_of_one_key_meet_the_same_budgets(one: Any, other: Any, rows: list[Any]) -> None:
    """What admission knows is kept by this key: two calls must not share it where a budget tells them apart."""
    policy = Policy("v", [a_budget(number, *row) for number, row in enumerate(rows)])
    (first, model), (second, _) = one, other
    alike = policy.matching(first, model) == policy.matching(second, model)
    assert alike or repr(policy.key_of(first)) != repr(policy.key_of(second))
    renamed = first.replace({"agent_name": "Another", "service_name": "Another"})
    assert renamed != first
    assert policy.key_of(renamed) == policy.key_of(first)
    assert policy.matching(renamed, model) == policy.matching(first, model)


def a_budget(
    budget_id: int,
    organization: str | None = None,
    kind: str = "user",
    entity: str = "*",
    metric: str = "cost_usd",
    action: str = "block",
    **changes: Any,
) -> Budget:
    row = {
        "id": budget_id,
        "organization_id": organization,
        "entity_type": kind,
        "entity_id": entity,
        "metric": metric,
        "action": action,
        "enforce": True,
        "strict": False,
        "when_unavailable": "allow",
        "downgrade_to": None,
    }
    return Budget.from_row(row | changes)


def a_window(budget: int, **changes: Any) -> dict[str, Any]:
    return {
        "budget": budget,
        "entity": "u-1",
        "period": "day",
        "ends_at": "2026-03-01T00:00:00+00:00",
        "limit": "5",
        "spent": "4.5",
        "granted": "0.25",
        "over": True,
        "stops": True,
    } | changes


NEEDED = (Decimal("0.75"), Decimal(120), Decimal(1))


def refused(windows: list[dict[str, Any]], *known: Budget, retry_after: float = 0.0) -> BudgetExceeded:
    return refusal(windows, {budget.id: budget for budget in known}, NEEDED, retry_after)


def test_budgets_that_only_alert_do_not_ask_anybody() -> None:
    """They are the database's own affair; a process that has no others must not spend a round trip on them."""
    policy = Policy("v", [a_budget(1, action="alert")])
    assert policy.budgets == ()
    assert policy.matching(CallContext(user_id="u-1"), "m") == []


def test_the_strictest_budget_that_stops_is_named() -> None:
    """Block before downgrade before throttle, whatever their order."""
    ladder = [a_budget(1, action="throttle"), a_budget(2, action="downgrade"), a_budget(3)]
    windows = [a_window(1, stops=False), a_window(3), a_window(2)]
    for count, action in ((3, "block"), (1, "throttle")):
        error = refused(windows[:count], *ladder, retry_after=2.5)
        assert error.action == action
        assert isinstance(error, BudgetThrottled) == (action == "throttle")
        assert error.retry_after == (2.5 if action == "throttle" else None)
    assert refused([windows[0], windows[2]], *ladder).action == "downgrade"


def test_a_refusal_tells_all_that_is_known() -> None:
    """The developer reads it in a log, the program decides by it."""
    stop = refused([a_window(7)], a_budget(7, "acme", metric="tokens", downgrade_to="small")).stop
    assert (stop.action, stop.entity_type, stop.entity_id, stop.metric) == ("block", "user", "u-1", "tokens")
    assert (stop.period, stop.budget_id, stop.organization_id, stop.downgrade_to) == ("day", 7, "acme", "small")
    assert (stop.limit, stop.spent, stop.granted, stop.needed) == (5, Decimal("4.5"), Decimal("0.25"), 120)
    assert stop.ends_at == datetime(2026, 3, 1, tzinfo=UTC)
    assert refused([a_window(7, ends_at=None)], a_budget(7)).ends_at is None


def test_a_budget_that_does_not_stop_the_call_is_not_named() -> None:
    """A budget that is only watched, or lets the model pass, is not why the call stops."""
    shadow, passing, block = a_budget(1, enforce=False), a_budget(2, action="downgrade"), a_budget(3, kind="tier")
    windows = [a_window(1, stops=False), a_window(2, stops=False), a_window(3)]
    assert refused(windows, shadow, passing, block).entity_type == "tier"


def test_a_budget_that_was_changed_a_moment_ago_still_stops() -> None:
    """The database goes by the budget as it is, the process by the one it read: the call must stop all the same."""
    assert refused([a_window(1)], a_budget(1, enforce=False)).action == "block"
    assert refused([a_window(1, stops=False)], a_budget(1, enforce=False, action="throttle")).action == "throttle"


def test_a_row_that_is_no_budget_is_refused() -> None:
    """A newer database may send what this version does not know: said by an error, not by a budget that never matches."""
    with pytest.raises(ValueError):
        a_budget(1, metric="seconds")
