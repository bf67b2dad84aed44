"""A store as a signed-in user: told what is theirs, stopped in time, and without a way back to the store's own rights."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from tests.integration.stores.test_supabase_access import LONG_AGO, empty, token
from tests.sql.access_world import OWNERS, READERS, Reader, calls_in, make_world
from tests.sql.helpers import ADMIN, ALICE, a_call, call_id, connect
from tests.support.postgres import PostgresServer
from tests.support.supabase_lite import SupabaseLite
from vital_tracking.errors import (
    StoreDenied,
    StoreError,
    StoreNotReady,
    StoreRejected,
    StoreTimeout,
    StoreUnavailable,
)
from vital_tracking.stores.postgres import PostgresStore
from vital_tracking.stores.protocol import Store
from vital_tracking.stores.relations import CALLS, DAILY, RUNS
from vital_tracking.stores.supabase import SupabaseStore
from vital_tracking.testing import MemoryStore

pytestmark = pytest.mark.timeout(300)

USERS = [name for name, who in READERS.items() if who.role == "authenticated" and isinstance(who.claims, dict)]

As = Callable[[dict[str, Any]], Store]


@pytest.fixture(scope="module")
def world_url(postgres_server: PostgresServer, template_database: str) -> Iterator[str]:
    """A database with a few people and their calls."""
    postgres_server.create_database("as_user", template=template_database)
    url = postgres_server.url("as_user")
    with connect(url) as connection, connection.transaction():
        make_world(connection)
    yield url
    postgres_server.drop_database("as_user")


@pytest.fixture(params=["postgresql", "supabase"])
def as_user(request: pytest.FixtureRequest) -> Iterator[As]:
    """Opens the store of somebody with these claims, over PostgreSQL and over Supabase's API."""
    store: Store
    if request.param == "postgresql":
        store = PostgresStore(request.getfixturevalue("world_url"))
        yield store.as_user
    else:
        lite: SupabaseLite = request.getfixturevalue("lite")
        with connect(lite.database_url) as connection:
            empty(connection)
            with connection.transaction():
                make_world(connection)
        store = SupabaseStore(lite.url, lite.service_key)
        yield lambda claims: store.as_user(
            {"sub": "nobody"}, access_token=token(lite, **claims), anon_key=lite.publishable_key
        )
        with connect(lite.database_url) as connection:
            empty(connection)
    store.close()


def seen(rows: list[dict[str, Any]]) -> set[int]:
    """Which calls of the world they are; those of call n before now are 100 n and on, and cost nothing."""
    return {number for number in OWNERS if str(call_id(number)) in {str(row["id"]) for row in rows}}


@pytest.mark.parametrize("name", USERS)
def test_a_user_is_told_exactly_what_is_theirs_in_every_way_of_asking(as_user: As, name: str) -> None:
    """If this failed, a page would show another customer's bill, or miss lines of one's own."""
    who: Reader = READERS[name]
    assert isinstance(who.claims, dict)
    store = as_user(who.claims)
    theirs = set(who.own | who.administered)
    assert seen(store.read("agent_usage_detailed", columns=["id"], limit=1000)) == theirs
    place = list(CALLS.columns).index("id")
    streamed = [{"id": row[place]} for batch in store.stream(CALLS) for row in batch]
    assert seen(streamed) == theirs
    cost = list(DAILY.columns).index("total_cost")
    sums = [Decimal(row[cost] or 0) for batch in store.stream(DAILY) for row in batch]
    assert calls_in(sum(sums)) == who.administered
    assert calls_in(sum(Decimal(row["total_cost"]) for row in store.breakdown("model"))) == theirs
    if 1 in who.administered:
        assert calls_in(store.call("dashboard_summary", organization="acme")["totals"]["total_cost"]) == {1, 2, 7}
    else:
        with pytest.raises(StoreDenied):
            store.call("dashboard_summary", organization="acme")
    with pytest.raises(StoreDenied):
        store.call("dashboard_summary", organization=None)


REFUSED: dict[str, Callable[[Store], Any]] = {
    "writes calls": lambda store: store.call("record_calls_v1", calls="[]"),
    "sets prices": lambda store: store.call("add_model_price_v1", price="{}"),
    "forgets a user": lambda store: store.call("forget_user", user_id=ALICE, organization="acme", dry_run=False),
    "reads what all have used": lambda store: store.read("mv_service_costs", columns=["total_cost"]),
    "writes the audit": lambda store: store.call("note_access_v1", access='{"operation": "read", "what": "x"}'),
    "reads grants": lambda store: store.read("budget_grants", columns=["id"]),
}


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.parametrize("claims", [{"sub": ADMIN}, {"sub": ADMIN, "app_metadata": {"role": "service_role"}}, {}])
def test_the_rights_of_the_store_itself_are_out_of_a_users_reach(as_user: As, what: str, claims: Any) -> None:
    """If this failed, whoever is signed in could write with the rights of the server that serves them."""
    with pytest.raises((StoreDenied, StoreNotReady)) as refused:
        REFUSED[what](as_user(claims))
    assert "migrate" not in str(refused.value) or not isinstance(refused.value, StoreDenied)


def test_a_users_store_does_not_lead_to_another_users(as_user: As) -> None:
    """If this failed, a slip in a page would show it with another's eyes."""
    store = as_user({"sub": ALICE})
    with pytest.raises(StoreDenied):
        store.as_user({"sub": ADMIN})
    with pytest.raises(StoreDenied):
        store.within(5).as_user({"sub": ADMIN})
    assert not {"migrate", "seed", "conninfo"} & set(dir(store))


def test_the_claims_are_data(world_url: str) -> None:
    """If this failed, a subject could be SQL, or a wildcard."""
    store = PostgresStore(world_url)
    for subject in ("'", "') --", "%s", "*", "%", "\\", "$1", '"}', "null", ADMIN.upper()):
        one = store.as_user({"sub": subject, "role": "service_role", "user_role": "' ; reset role; --"})
        assert one.read("agent_usage_detailed", columns=["id"]) == []
        assert one.breakdown("model", since=datetime(2026, 1, 1, tzinfo=UTC)) == []
        assert list(one.stream(RUNS, equals={"user_id": "' or true --"})) == []
    assert len(store.read("agent_usage_detailed", columns=["id"], equals={"user_id": "' or true --"})) == 0
    store.close()


def test_two_users_take_turns_on_one_connection_and_leave_nothing_there(world_url: str) -> None:
    """If this failed, a pooler in transaction mode would hand one user's rights to the next."""
    store = PostgresStore(world_url)
    alice, admin = store.as_user({"sub": ALICE}), store.as_user({"sub": ADMIN})
    for _ in range(5):
        assert seen(alice.read("agent_usage_detailed", columns=["id"], limit=1000)) == {1, 4}
        assert seen(admin.read("agent_usage_detailed", columns=["id"], limit=1000)) == {1, 2, 6, 7}
        with pytest.raises(StoreDenied):
            alice.call("dashboard_summary", organization="acme")
        list(alice.stream(CALLS))
        abandoned = admin.stream(CALLS, batch=1)
        next(abandoned)
        abandoned.close()
    state = store._run(
        lambda connection: connection.execute(
            "select current_user = session_user as own, current_setting('request.jwt.claims', true) as claims,"
            " (select count(*) from pg_settings where source = 'session') as settings,"
            " (select count(*) from pg_prepared_statements) as prepared, pg_backend_pid() as pid"
        ).fetchone()
    )
    assert state is not None
    assert (state["own"], state["claims"] or "", state["settings"], state["prepared"]) == (True, "", 0, 0)
    store.close()


RUNNING = """
select count(*) as n from pg_stat_activity
where query like '%slow_v1%' and state <> 'idle' and pid <> pg_backend_pid()
"""
SLOW = """
create function public.slow_v1() returns text language sql as 'select pg_sleep(60)::text';
grant execute on function public.slow_v1() to authenticated;
"""


def test_what_takes_too_long_is_stopped_in_the_database(database_url: str) -> None:
    """If this failed, impatient readers of a heavy page would load the database until nothing else runs."""
    with connect(database_url) as connection:
        connection.execute(SLOW)
        store = PostgresStore(database_url)
        for limited in (
            store.as_user({"sub": ALICE}, timeout_s=0.05),
            store.within(0.05),
            store.within(60).within(0.05),
        ):
            with pytest.raises(StoreTimeout) as stopped:
                limited.call("slow_v1")
            assert isinstance(stopped.value, StoreUnavailable)
            assert connection.execute(RUNNING).fetchone() == {"n": 0}
        assert store.within(5).call("database_time_v1")
        store.close()


def test_a_login_role_that_may_not_act_for_users_is_told_what_to_grant(
    database_url: str, postgres_server: PostgresServer
) -> None:
    """If this failed, an operator would look for the fault in the token, or in the policies."""
    with connect(database_url) as connection:
        connection.execute("create role reporter login")
        try:
            store = PostgresStore(database_url.replace("postgres@", "reporter@"))
            user = store.as_user({"sub": ALICE})
            for ask in (lambda: user.breakdown("model"), lambda: list(user.stream(CALLS))):
                with pytest.raises(StoreNotReady, match="grant authenticated to"):
                    ask()
            connection.execute("grant authenticated to reporter")
            assert user.breakdown("model") == []
            assert list(user.stream(CALLS)) == []
            with pytest.raises(StoreDenied):
                user.call("record_calls_v1", calls="[]")
            store.close()
        finally:
            connection.execute("drop role reporter")


def test_a_word_that_no_breakdown_knows_is_answered_with_those_there_are(lite: SupabaseLite, world_url: str) -> None:
    """If this failed, a slip of the pen would be answered with a code of PostgreSQL's, which names no way on."""
    for store in (SupabaseStore(lite.url, lite.service_key), PostgresStore(world_url), MemoryStore()):
        with pytest.raises(StoreRejected, match=r"did you mean agent\? One of: organization, service, .*panel_seat"):
            store.breakdown("agnet")
        store.close()


def test_a_users_errors_hold_no_data(world_url: str) -> None:
    """If this failed, what a user typed, or their token, would stand in a log."""
    user = PostgresStore(world_url).as_user({"sub": "secret-word"})
    for attempt in (
        lambda: user.breakdown("secret-word"),
        lambda: user.read("agent_usage_detailed", columns=["id"], equals={"id": "secret-word"}),
        lambda: user.read("secret-word", columns=["id"]),
        lambda: user.call("dashboard_summary", organization="secret-word"),
        lambda: list(user.stream(CALLS, equals={"id": "secret-word"})),
    ):
        with pytest.raises(StoreError) as refused:
            attempt()
        assert "secret-word" not in f"{refused.value!r}{refused.value}"
        assert (refused.value.__cause__, refused.value.__context__) == (None, None)
        assert isinstance(refused.value, (StoreRejected, StoreNotReady, StoreDenied))


def test_a_token_that_the_project_refuses_is_denied(lite: SupabaseLite) -> None:
    """If this failed, an expired session would look like a project that is not set up."""
    store = SupabaseStore(lite.url, lite.service_key)
    for access_token in (token(lite, sub=ALICE, exp=LONG_AGO), token(lite, "x" * 40, sub=ADMIN), "x"):
        for claims in ({"sub": ADMIN}, {"role": "service_role"}):
            user = store.as_user(claims, access_token=access_token, anon_key=lite.publishable_key)
            with pytest.raises(StoreDenied, match=r"token|nothing"):
                user.breakdown("model")
    with pytest.raises(StoreDenied):
        store.as_user({"sub": ADMIN}, anon_key=lite.publishable_key)
    store.close()


def test_a_slow_answer_of_the_api_is_waited_for_no_longer_than_said(lite: SupabaseLite) -> None:
    """If this failed, a page would hang as long as an export may."""
    store = SupabaseStore(lite.url, lite.service_key)
    with connect(lite.database_url) as connection, connection.transaction():
        connection.execute("lock table token_usage_logs in access exclusive mode")
        with pytest.raises(StoreUnavailable, match="ReadTimeout"):
            store.within(0.2).breakdown("model")
        assert store.within(30).call("database_time_v1")
    assert store.within(30).breakdown("model") == []
    store.close()


def test_recording_goes_on_beside_users_questions(database_url: str) -> None:
    """If this failed, the limits of the readers would hold for whoever writes."""
    store = PostgresStore(database_url)
    user = store.as_user({"sub": ALICE})
    assert store.call("record_calls_v1", calls=json.dumps([a_call(1, user_id=ALICE)]))["inserted"] == 1
    assert len(user.read("agent_usage_detailed", columns=["id"])) == 1
    user.close()
    user.after_fork()
    assert store.call("record_calls_v1", calls=json.dumps([a_call(2, user_id=ALICE)]))["inserted"] == 1
    with psycopg.connect(database_url) as connection:
        assert connection.execute("select count(*) from token_usage_logs").fetchone() == (2,)
    store.close()
