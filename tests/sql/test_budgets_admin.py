"""Who changes budgets, and what a budget would have done."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.sql.helpers import ADMIN, ALICE, CAROL, Connection, a_call, call, connect, record, set_budget

ERIK = "eeeeeeee-eeee-4eee-8eee-eeeeeeeeeeee"


@pytest.fixture
def peopled(database_url: str) -> Any:
    """A database with an admin, an auditor, a member and an admin of another organization."""
    with connect(database_url) as connection:
        for member in (
            ("acme", ADMIN, "admin"),
            ("acme", ERIK, "auditor"),
            ("acme", ALICE, "member"),
            ("other", CAROL, "admin"),
        ):
            connection.execute("insert into organization_members values (%s, %s, %s)", member)
        yield connection


def ask(connection: Connection, who: str, function: str, **arguments: object) -> Any:
    """Call a function as a signed-in user."""
    with connection.transaction():
        connection.execute("select set_config('request.jwt.claims', %s, true)", [json.dumps({"sub": who})])
        connection.execute("set local role authenticated")
        return call(connection, function, **arguments)


def test_an_admin_changes_the_budgets_of_that_organization_and_of_no_other(peopled: Connection) -> None:
    """If this failed, anybody with an account would lift the limits of others, or an admin could not set their own."""
    over_all = set_budget(peopled, daily_limit="9")["id"]
    wanted = {
        "entity_type": "user",
        "entity_id": ALICE,
        "organization_id": "acme",
        "daily_limit": "5",
        "action": "block",
    }
    mass = {"id": over_all, "created_at": "2020-01-01", "created_by": CAROL, "x": 1}
    stored = ask(peopled, ADMIN, "set_budget_v1", budget=json.dumps({**wanted, **mass}))
    assert stored["id"] != over_all
    assert (stored["organization_id"], stored["daily_limit"]) == ("acme", "5")
    raised = {**wanted, "raise_by": "2", "until": "tomorrow"}
    asks = [
        ("set_budget_v1", {"budget": json.dumps({**wanted, "daily_limit": "500"})}),
        ("override_budget_v1", {"override": json.dumps({**wanted, "daily_limit": "500"})}),
        ("raise_budget_v1", {"raise_": json.dumps(raised)}),
        ("remove_budget_v1", {"budget_id": stored["id"]}),
    ]
    refused = {"refused": "not_an_admin"}
    for who in (CAROL, ERIK, ALICE, "nobody"):
        for function, arguments in asks:
            assert ask(peopled, who, function, **arguments) == refused, (who, function)
    for_all = {"entity_type": "user", "daily_limit": "500"}
    assert ask(peopled, ADMIN, "set_budget_v1", budget=json.dumps(for_all)) == refused
    assert ask(peopled, ADMIN, "set_budget_v1", budget=json.dumps({**for_all, "organization_id": "other"})) == refused
    assert ask(peopled, ADMIN, "remove_budget_v1", budget_id=over_all) == refused
    limits = peopled.execute("select daily_limit from budget_limits order by id").fetchall()
    assert [row["daily_limit"] for row in limits] == [9, 5]
    noted = peopled.execute("select * from admin_audit where operation = 'refused' order by id").fetchall()
    assert len(noted) == 4 * 4 + 3
    assert {row["actor"] for row in noted} == {CAROL, ERIK, ALICE, "nobody", ADMIN}
    assert [row["organization_id"] for row in noted[-3:]] == [None, "other", None]
    [told] = ask(peopled, ADMIN, "raise_budget_v1", raise_=json.dumps(raised))
    assert (told["limit_amount"], told["in_force"]) == ("5", "7")
    assert ask(peopled, ADMIN, "remove_budget_v1", budget_id=stored["id"]) == {"removed": 1}
    assert ask(peopled, ADMIN, "remove_budget_v1", budget_id=stored["id"]) == {"removed": 0}
    made = peopled.execute("select operation from admin_audit where actor = %s and operation <> 'refused'", [ADMIN])
    assert {row["operation"] for row in made} == {"insert", "delete"}


def test_users_see_what_stands_on_sessions_that_are_theirs_alone(peopled: Connection) -> None:
    """If this failed, a user would not learn why a session stands still, or read what others spend in it."""
    set_budget(peopled, entity_type="session", total_limit="0.5", alert_thresholds=["1"])
    now = datetime.now(UTC).isoformat()
    record(
        peopled,
        a_call(1, user_id=ALICE, session_id="alone", total_cost="1", created_at=now),
        a_call(2, user_id=ALICE, session_id="shared", total_cost="1", created_at=now),
        a_call(3, user_id=CAROL, session_id="shared", total_cost="1", created_at=now),
    )
    for who, seen in ((ALICE, {"alone"}), (CAROL, set()), ("nobody", set())):
        for function in ("budget_windows_v1", "cost_alerts_v1"):
            assert {row["entity_id"] for row in ask(peopled, who, function)} == seen, (who, function)


NOW = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=1)
CALLS = st.lists(
    st.tuples(
        st.integers(0, 3 * 86_400), st.sampled_from(["a", "b"]), st.integers(0, 400), st.sampled_from(["small", "big"])
    ),
    max_size=25,
)
LIMITS = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("minute_limit", "daily_limit", "monthly_limit", "total_limit"), st.integers(0, 900))
).filter(bool)


def test_a_preview_is_what_a_replay_of_the_rows_comes_to(peopled: Connection) -> None:
    """If this failed, an admin would set a limit by figures that never were."""
    first = peopled.execute("select (now() at time zone 'UTC')::date - 2 as day").fetchone()
    assert first is not None

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(CALLS, LIMITS, st.sampled_from(["alert", "throttle", "downgrade", "block"]), st.sampled_from(["*", "a"]))
    def holds(calls: list[Any], limits: dict[str, int], action: str, entity: str) -> None:
        with peopled.transaction(force_rollback=True):
            rows = [
                a_call(
                    number,
                    user_id=user,
                    created_at=(NOW - timedelta(seconds=ago)).isoformat(),
                    model=model,
                    total_cost=f"{Decimal(cents) / 100:f}",
                    input_cost=f"{Decimal(cents) / 100:f}",
                    output_cost="0",
                )
                for number, (ago, user, cents, model) in enumerate(calls, 1)
            ]
            if rows:
                record(peopled, *rows)
            told = {name: f"{Decimal(limit) / 100:f}" for name, limit in limits.items()}
            budget = {"entity_type": "user", "entity_id": entity, "action": action, "downgrade_to": "small", **told}
            found = call(peopled, "budget_preview_v1", budget=json.dumps(budget), days=3)
        counts: dict[str, list[Any]] = {}
        spent: dict[tuple[object, ...], Decimal] = {}
        for row in sorted(rows, key=lambda row: (row["created_at"], row["id"])):
            at, user, cost = datetime.fromisoformat(row["created_at"]), row["user_id"], Decimal(row["total_cost"])
            if entity not in ("*", user):
                continue
            places = {
                "minute_limit": (user, at.replace(second=0)),
                "daily_limit": (user, at.date()),
                "monthly_limit": (user, at.year, at.month, "month"),
                "total_limit": (user, "total"),
            }
            inside = at.date() >= first["day"]
            if not inside:
                met = {"monthly_limit"} & set(told)
                if "monthly_limit" not in told or at.replace(day=1).date() < first["day"].replace(day=1):
                    continue
            else:
                met = set(told)
            fits = not cost or all(spent.get(places[name], 0) + cost <= Decimal(told[name]) for name in met)
            acts = not fits and action != "alert" and not (action == "downgrade" and row["model"] == "small")
            crossed = 0
            if not (acts and action == "block"):
                for name, place in places.items():
                    before = spent.get(place, Decimal(0))
                    if name == "total_limit" and not inside:
                        continue
                    spent[place] = before + cost
                    if name in told and Decimal(told[name]) and cost:
                        levels = [Decimal(share) * Decimal(told[name]) for share in ("0.5", "0.8", "1.0")]
                        crossed += sum(before < level <= before + cost for level in levels)
            if inside:
                day = counts.setdefault(str(at.date()), [0, 0, Decimal(0), 0])
                saved = cost if acts and action == "block" else Decimal(0)
                day[:] = [day[0] + 1, day[1] + acts, day[2] + saved, day[3] + crossed]
        for day in found["days"]:
            acted = day["stopped"] + day["slowed"] + day["downgraded"]
            told_of = [day["calls"], acted, Decimal(day["stopped_cost"]), sum(day["alerts"].values())]
            assert told_of == counts.get(day["day"], [0, 0, 0, 0]), (day, budget)
        assert [day["day"] for day in found["days"]] == [str(first["day"] + timedelta(days=n)) for n in range(3)]

    holds()


@pytest.mark.parametrize(
    "wrong",
    [
        {"daily_limit": None},
        {"entity_type": "team"},
        {"metric": "euro"},
        {"timezone": "Mars/Olympus"},
        {"daily_limit": "-1"},
    ],
)
def test_what_is_no_budget_has_no_preview(peopled: Connection, wrong: dict[str, Any]) -> None:
    """If this failed, a preview would promise what cannot be set."""
    with pytest.raises(Exception, match=r"A budget needs|unknown|no IANA|finite number"):
        call(peopled, "budget_preview_v1", budget=json.dumps({"entity_type": "user", "daily_limit": "1", **wrong}))
