"""What functions of ours refuse reaches whoever asked, in their words; what PostgreSQL says, which may quote data, does not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, closing

import psycopg
import pytest

from tests.support.supabase_lite import SupabaseLite
from vital_tracking.errors import StoreError, StoreRejected
from vital_tracking.stores import Store
from vital_tracking.stores.postgres import PostgresStore
from vital_tracking.stores.raised import refusal
from vital_tracking.stores.supabase import SupabaseStore

SECRET = "secret-word"


@pytest.fixture
def ways(lite: SupabaseLite) -> Iterator[list[Store]]:
    """PostgreSQL directly, and Supabase's API."""
    with ExitStack() as opened:
        yield [
            opened.enter_context(closing(one))
            for one in (PostgresStore(lite.database_url), SupabaseStore(lite.url, lite.service_key))
        ]


def rejected(store: Store, function: str, **arguments: object) -> StoreRejected:
    with pytest.raises(StoreRejected) as refused:
        store.call(function, **arguments)
    return refused.value


def test_our_functions_say_why_they_refuse(ways: list[Store]) -> None:
    """If this failed, whoever mistyped a day would be told InvalidParameterValue, and of the way on nothing."""
    # The API's stand-in tells this code otherwise than PostgREST does.
    budget = rejected(ways[0], "set_budget_v1", budget=json.dumps({"entity_type": "user", "daily_limit": "-1"}))
    assert budget.hint == "Write 5 or 0.50; to lift a limit, set it to NULL."
    allocation = json.dumps({"month": "2024-01", "amount": "5"})
    for store in (*ways, *(one.within(30) for one in ways)):
        error = rejected(store, "allocate_cost_v1", allocation=allocation)
        assert error.problem == "No organization had calls, events or costs in 2024-01."
        assert error.hint == "Name those that share: --organization acme --organization other"
        assert str(error) == f"{error.problem} {error.hint}"
        no_table = rejected(store, "months_v1", table_name="admin_audit")
        assert "There are no months of admin_audit." in str(no_table)
        lacking = rejected(store, "add_resource_price_v1", price="{}")
        assert lacking.hint == 'Such as {"cost_type": "compute", "unit": "hour", "unit_price": "0.50"}.'


@pytest.fixture
def check_of_a_team(lite: SupabaseLite) -> Iterator[None]:
    """A trigger of the team's own, whose message holds data."""
    with psycopg.connect(lite.database_url, autocommit=True) as connection:
        connection.execute(
            "create function public.team_check() returns trigger language plpgsql as"
            f" $$begin raise exception 'No {SECRET}.' using errcode = '22023', hint = '{SECRET}'; end$$"
        )
        connection.execute(
            "create trigger team_check before insert on public.resource_prices execute function public.team_check()"
        )
        yield
        connection.execute("drop function public.team_check() cascade")


@pytest.mark.usefixtures("check_of_a_team")
def test_what_postgresql_says_stays_inside(ways: list[Store]) -> None:
    """If this failed, what is in a row, or what a team's own trigger says of it, would stand in a log."""
    price = json.dumps({"cost_type": "compute", "unit_price": "1"})
    for store in ways:
        for function, arguments in (
            ("allocate_cost_v1", {"allocation": SECRET}),
            ("add_resource_price_v1", {"price": json.dumps({"cost_type": "compute", "unit_price": SECRET})}),
            ("add_resource_price_v1", {"price": price}),
            ("record_costs_v1", {"costs": f'["{SECRET}"'}),
        ):
            with pytest.raises(StoreError) as refused:
                store.call(function, **arguments)
            error = refused.value
            assert SECRET not in f"{error!r}{error}{vars(error)}"
            assert (error.__cause__, error.__context__) == (None, None)


@pytest.mark.parametrize(
    ("sqlstate", "message", "known"),
    [
        ("22023", "There is no time zone 'Europe/Berlln'.", True),
        ("22023", "At most 1,000 subscriptions are set at once: these are 1200.", True),
        ("23505", "Plan team has a version of 2026-01-01 00:00:00+00 already.", True),
        ("23514", "timezone 'Europe/Berlln' is no IANA time zone that this database knows.", True),
        ("23514", "A budget needs a limit.", True),
        ("22023", 'time zone "Europe/Berlln" not recognized', False),
        ("22007", "There is no time zone 'Europe/Berlln'.", False),  # the words are ours, but none of this code
        ("23505", 'duplicate key value violates unique constraint "plans_pkey"', False),
        ("42501", "Only an admin or auditor of organization secret may ask for its figures.", False),
        ("22023", f"There is no time zone '{'x' * 2000}'.", False),
        ("22023", "", False),
        (None, "There is no time zone 'Europe/Berlln'.", False),
    ],
)
def test_messages_are_known_by_their_words_and_their_code(sqlstate: str | None, message: str, known: bool) -> None:
    assert (refusal(sqlstate, message, None) is not None) == known
