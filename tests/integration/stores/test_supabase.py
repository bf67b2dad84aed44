"""Supabase: its Data API and Auth over a real PostgreSQL, the real client, and the real command line."""

from __future__ import annotations

import http.server
import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

import httpx
import psycopg
import pytest

from tests.conftest import HOSTED_DEFAULT_PRIVILEGES
from tests.sql.helpers import (
    ALICE,
    a_call,
    a_run,
    an_end,
    an_unpriced_call,
    call_id,
    connect,
    literal_of,
)
from tests.support.postgres import PostgresServer, free_port
from tests.support.supabase_lite import SupabaseLite
from vital_tracking import Agent, VitalTracker
from vital_tracking.errors import StoreNotReady, StoreRejected, StoreUnavailable
from vital_tracking.stores import supabase
from vital_tracking.stores.postgres import PostgresStore
from vital_tracking.stores.relations import CALLS, RELATIONS
from vital_tracking.stores.supabase import SupabaseStore

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def api(lite: SupabaseLite) -> Iterator[SupabaseStore]:
    store = SupabaseStore(lite.url, lite.service_key)
    yield store
    store.close()


@pytest.fixture(autouse=True)
def _empty(lite: SupabaseLite) -> None:
    with connect(lite.database_url) as connection:
        connection.execute("truncate token_usage_logs, service_runs, model_prices, organization_members")


def test_a_conversation_is_recorded_end_to_end(lite: SupabaseLite) -> None:
    """If this failed, a team on Supabase would have no rows."""
    tracker = VitalTracker.from_env(
        environ={"SUPABASE_URL": f"{lite.url}/", "SUPABASE_SERVICE_KEY": lite.service_key}, dotenv="absent.env"
    )
    agent = Agent("cardio", name="Cardiologist", tier="tier_1")
    with tracker, tracker.conversation(user_id=ALICE, session_id="s-1", agent=agent) as conversation:
        call = tracker.record(provider="openai", model="gpt-4o-mini", prompt_tokens=1000, completion_tokens=100)
        delivered = tracker.flush(30)
    assert (delivered.inserted, delivered.rejected, delivered.complete) == (1, 0, True)
    assert tracker.stats().faults == 0
    with connect(lite.database_url) as connection:
        row = connection.execute("select * from token_usage_logs").fetchone()
        run = connection.execute("select * from service_runs").fetchone()
    assert row is not None
    assert run is not None
    assert (str(row["id"]), row["user_id"], row["agent_name"]) == (call, ALICE, "Cardiologist")
    # 1,000 tokens at $0.15 and 100 at $0.60 a million.
    assert row["total_cost"] == Decimal("0.00015") + Decimal("0.00006")
    assert (run["id"], run["status"], run["service_type"]) == (conversation.run_id, "ok", "1:1_conversation")


def test_every_character_arrives_as_it_was_sent(lite: SupabaseLite, api: SupabaseStore) -> None:
    """If this failed, the API would hand the function other characters than a connection does."""
    hard = "a \"b\" \\ {c},(d)\n\t\u2028 NULL ü 🦊 'e'"
    call = a_call(1, user_id=hard, tags=[hard, ""], metadata={hard: hard})
    assert api.call("record_calls_v2", calls=literal_of([call, a_call(2, status="no")]))["inserted"] == 1
    with connect(lite.database_url) as connection:
        row = connection.execute("select user_id, tags, metadata from token_usage_logs").fetchone()
    assert row == {"user_id": hard, "tags": [hard, ""], "metadata": {hard: hard}}


@pytest.mark.parametrize("function", ["record_calls_v1", "record_calls_v2"])
def test_amounts_come_back_to_the_last_decimal(api: SupabaseStore, function: str) -> None:
    """If this failed, a large sum would be rounded as a float is."""
    exact = "123456789.123456789012345678901234567890"
    calls = [a_call(1, total_cost=exact, user_id="u"), an_unpriced_call(2, user_id="u")]
    report = api.call(function, calls=json.dumps(calls) if function == "record_calls_v1" else literal_of(calls))
    assert (report["inserted"], report["duplicate"], report["rejected"], report["alerts"]) == (2, 0, [], None)
    columns = ["id", "created_at", "total_cost", "tags", "success"]
    second, first = api.read("agent_usage_detailed", columns=columns, equals={"user_id": "u"})
    assert (first["id"], first["total_cost"]) == (call_id(1), Decimal(exact))
    assert (second["total_cost"], second["tags"], second["success"]) == (None, [], True)
    assert first["created_at"] == datetime(2026, 1, 15, 10, tzinfo=UTC)
    [row] = api.breakdown("user")
    assert (row["label"], row["total_cost"], row["calls"], row["unpriced_calls"]) == ("u", Decimal(exact), 2, 1)


def test_whole_tables_are_streamed_as_from_postgresql(lite: SupabaseLite, api: SupabaseStore) -> None:
    """If this failed, an archive of a hosted project would miss rows, hold some twice, or write values otherwise."""
    made = [
        a_call(n, user_id=f"u-{n % 7}", created_at=f"2026-01-{n % 3 + 1:02}T00:{n % 60:02}:00.5Z", tags=["a"] * (n % 2))
        for n in range(1, 2302)
    ]
    made.append(an_unpriced_call(9000, user_id="=u", latency_ms=0.1, metadata={"k": [1, "ä"]}, cache_hit=False))
    made.append(a_call(9001, total_cost="12.123456789012345678901234567", workflow_id="w"))
    assert api.call("record_calls_v1", calls=json.dumps(made))["inserted"] == 2303
    api.call("record_runs_v1", runs=json.dumps([a_run("r-1"), an_end("r-2", ancestor_run_ids=["r-1"])]))
    direct = PostgresStore(lite.database_url)
    since, until = datetime(2026, 1, 2, tzinfo=UTC), datetime(2026, 1, 3, tzinfo=UTC)
    options: list[dict[str, Any]] = [
        {},
        {"since": since, "until": until},
        {"equals": {"user_id": "u-3"}, "since": since},
    ]
    for relation in RELATIONS.values():
        for wanted in options if relation is CALLS else options[:2]:
            over_api = [row for batch in api.stream(relation, **wanted) for row in batch]
            assert sorted(map(repr, over_api)) == sorted(
                repr(row) for batch in direct.stream(relation, **wanted) for row in batch
            ), (relation.name, wanted)
            if relation is CALLS:
                assert len(over_api) == {0: 2303, 1: 767, 2: 219}[options.index(wanted)]
    direct.close()


def test_reading_filters_orders_and_limits(api: SupabaseStore) -> None:
    """If this failed, the same command would show other rows on Supabase than on PostgreSQL."""
    calls = [a_call(n, created_at=f"2026-01-{n:02}T00:00:00Z", organization_id=f"o-{n % 2}") for n in range(1, 7)]
    api.call("record_calls_v1", calls=json.dumps(calls))
    since = datetime(2026, 1, 3, tzinfo=UTC)
    rows = api.read("agent_usage_detailed", columns=["id"], equals={"organization_id": "o-0"}, since=since, limit=10)
    assert [row["id"] for row in rows] == [call_id(6), call_id(4)]
    assert [row["id"] for row in api.read("agent_usage_detailed", columns=["id"], limit=1)] == [call_id(6)]
    assert [row["calls"] for row in api.breakdown("organization", since=since, organization="o-1")] == [2]


def test_both_stores_give_the_same_rows(lite: SupabaseLite, api: SupabaseStore) -> None:
    """If this failed, code written for one store would break on the other."""
    direct = PostgresStore(lite.database_url)
    direct.call("record_calls_v1", calls=json.dumps([a_call(1, user_id="u", latency_ms=2.5, metadata={"k": [1]})]))
    columns = ["created_at", "total_cost", "priced", "prompt_tokens", "response_time_ms", "metadata", "tags"]
    assert api.read("agent_usage_detailed", columns=columns) == direct.read("agent_usage_detailed", columns=columns)
    assert api.breakdown("user") == direct.breakdown("user")
    for function in ("model_prices_v1", "unpriced_calls_v1"):
        cursor = {"after_created_at": None, "after_id": None, "batch_size": 5} if function != "model_prices_v1" else {}
        assert api.call(function, **cursor) == direct.call(function, **cursor)
    direct.close()


def test_prices_and_repricing_go_through_the_api(api: SupabaseStore) -> None:
    """If this failed, `vital-tracking prices` and `reprice` would not work on Supabase."""
    price = {"provider": "own", "model": "own-1", "valid_from": "2026-01-01T00:00:00Z", "input_usd_per_mtok": "0.10"}
    first = api.call("add_model_price_v1", price=json.dumps(price))
    assert api.call("add_model_price_v1", price=json.dumps(price)) == first
    [listed] = api.call("model_prices_v1")
    assert (listed["id"], listed["input_usd_per_mtok"]) == (first, "0.10")
    api.call("record_calls_v1", calls=json.dumps([an_unpriced_call(1)]))
    [call] = api.call("unpriced_calls_v1", after_created_at=None, after_id=None, batch_size=10)
    since = "2026-01-01T00:00:00+00:00"
    [listed] = api.call("calls_to_price_v1", since=since, after_id=None, batch_size=10)
    assert (listed["id"], listed["priced"]) == (call["id"], False)
    [inexact] = api.call("inexact_calls_v1", since=since)["rows"]
    assert (inexact["reason"], inexact["calls"], inexact["cost"]) == ("unpriced", 1, None)
    amounts = {"input_cost": "0.1", "output_cost": "0", "fees": "0", "total_cost": "0.1", "potential_cost": "0.1"}
    priced = {"id": call["id"], "created_at": call["created_at"], "price_version": "v", **amounts}
    assert [api.call("reprice_calls_v1", prices=json.dumps([priced])) for _ in range(2)] == [1, 0]
    page = {"after_created_at": call["created_at"], "after_id": call["id"], "batch_size": 10}
    assert api.call("unpriced_calls_v1", **page) == []
    assert api.call("ensure_partitions_v1", first_month=datetime(2042, 5, 1, tzinfo=UTC).date(), months=2) in (0, 2)
    assert api.call("tracking_status_v1")["unpriced_calls"] == 0


def test_the_team_s_prices_and_the_database_s_time_reach_the_tracker(lite: SupabaseLite, api: SupabaseStore) -> None:
    """If this failed, what the team has negotiated would count for nothing on Supabase."""
    assert datetime.fromisoformat(api.call("database_time_v1")).tzinfo is not None
    api.call(
        "add_model_price_v1",
        price=json.dumps({"model": "own-2", "input_usd_per_mtok": "7", "valid_from": "2026-01-01Z"}),
    )
    with VitalTracker(SupabaseStore(lite.url, lite.service_key)) as tracker:
        tracker.record(model="own-2", prompt_tokens=1_000_000)
        assert tracker.flush(30).complete
        assert tracker.stats().faults == 0
    assert [row["total_cost"] for row in api.read("agent_usage_detailed", columns=["total_cost"])] == [Decimal(7)]


def test_bad_rows_are_reported_and_bad_requests_refused(api: SupabaseStore) -> None:
    """If this failed, a row that the database refuses would be sent for ever."""
    answer = api.call("record_calls_v1", calls=json.dumps([a_call(1), {"id": "x"}, a_call(2, potential_cost="NaN")]))
    assert (answer["inserted"], len(answer["rejected"])) == (1, 2)
    for attempt in (
        lambda: api.call("record_calls_v1", calls="secret-word"),
        lambda: api.breakdown("secret-word"),
    ):
        with pytest.raises(StoreRejected) as refused:
            attempt()
        assert "secret-word" not in str(refused.value)
        assert (refused.value.__cause__, refused.value.__context__) == (None, None)


def test_an_api_that_is_down_is_unavailable_and_comes_back(lite: SupabaseLite, api: SupabaseStore) -> None:
    """If this failed, calls made during an outage of Supabase would be given up, or never sent again."""
    lite.stop()
    try:
        with pytest.raises(StoreUnavailable) as refused:
            api.call("model_prices_v1")
        assert lite.service_key not in str(refused.value)
        assert (refused.value.__cause__, refused.value.__context__) == (None, None)
    finally:
        lite.start()
    assert api.call("model_prices_v1") == []


def test_a_database_that_is_down_behind_the_api_is_unavailable(
    postgres_server: PostgresServer, api: SupabaseStore
) -> None:
    """If this failed, calls would be given up while Supabase restarts its database."""
    assert api.call("model_prices_v1") == []
    postgres_server.stop()
    try:
        with pytest.raises(StoreUnavailable):
            api.call("model_prices_v1")
    finally:
        postgres_server.start()
    assert api.call("model_prices_v1") == []


@pytest.mark.parametrize(
    "key",
    [
        lambda lite: "sb_secret_" + "0" * 32,
        lambda lite: lite.publishable_key,
        lambda lite: lite.jwt(ALICE),
        lambda lite: lite.jwt(ALICE, role="service_role", secret="another secret of more than thirty-two bytes"),
    ],
    ids=["wrong", "publishable", "a user's", "forged"],
)
def test_a_wrong_key_names_the_variable_and_shows_no_key(
    lite: SupabaseLite, key: Callable[[SupabaseLite], str]
) -> None:
    """If this failed, a mistyped key would look like an outage, and calls would wait for ever."""
    store = SupabaseStore(lite.url, key(lite))
    with pytest.raises(StoreNotReady, match="SUPABASE_SERVICE_KEY") as refused:
        store.call("model_prices_v1")
    assert key(lite) not in str(refused.value)
    store.close()


def test_a_project_without_the_migrations_says_what_to_run(postgres_server: PostgresServer) -> None:
    """If this failed, a team would not know why nothing is recorded."""
    postgres_server.create_database("empty_project")
    with psycopg.connect(postgres_server.url("empty_project"), autocommit=True) as connection:
        connection.execute(HOSTED_DEFAULT_PRIVILEGES)
    with (
        tempfile.TemporaryDirectory(prefix="vital-lite-") as workdir,
        SupabaseLite(postgres_server.url("empty_project"), Path(workdir)) as server,
    ):
        store = SupabaseStore(server.url, server.service_key)
        for attempt in (
            lambda: store.call("record_calls_v1", calls="[]"),
            lambda: store.read("agent_usage_detailed", columns=["id"]),
            lambda: store.breakdown("user"),
        ):
            with pytest.raises(StoreNotReady, match="supabase db push"):
                attempt()
        store.close()
    postgres_server.drop_database("empty_project")


class Portal(http.server.BaseHTTPRequestHandler):
    """What stands in the way of an API: a captive portal, a proxy, a gateway out of order."""

    answer: ClassVar[tuple[int, str, str]] = (200, "text/html", "<html>secret-word</html>")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        status, kind, body = self.answer
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None: ...


@pytest.mark.parametrize(
    "answer",
    [
        (200, "text/html", "<html>secret-word</html>"),
        (502, "text/html", "<html>secret-word</html>"),
        (503, "application/json", '{"message": "secret-word"}'),
        (500, "application/json", "secret-word"),
        (429, "application/json", '{"message": "secret-word", "code": "over_request_rate_limit"}'),
        (544, "application/json", "[]"),
    ],
)
def test_an_answer_that_is_not_the_api_s_is_unavailable(
    monkeypatch: pytest.MonkeyPatch, answer: tuple[int, str, str]
) -> None:
    """If this failed, a gateway's error page would make rows be given up, or end delivery."""
    monkeypatch.setattr(Portal, "answer", answer)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Portal) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        store = SupabaseStore(f"http://127.0.0.1:{server.server_port}", "sb_secret_test")
        with pytest.raises(StoreUnavailable) as refused:
            store.call("record_calls_v1", calls="[]")
        store.close()
        server.shutdown()
    assert "secret-word" not in str(refused.value)
    assert (refused.value.__cause__, refused.value.__context__) == (None, None)


class Slow(Portal):
    """An API that takes a second over everything."""

    answer = (200, "application/json", '{"busy": false}')

    def do_POST(self) -> None:
        time.sleep(1)
        super().do_POST()


def test_functions_that_may_take_minutes_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """If this failed, retention would be cut off after 30 s; or recording would hang on a dead API for 15 minutes."""
    assert supabase._LONG_TIMEOUT.as_dict() == {"connect": 5.0, "read": 900.0, "write": 30.0, "pool": 30.0}
    monkeypatch.setattr(supabase, "_TIMEOUT", httpx.Timeout(0.3))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        store = SupabaseStore(f"http://127.0.0.1:{server.server_port}", "sb_secret_test")
        assert store.call("refresh_analytics") == {"busy": False}
        with pytest.raises(StoreUnavailable, match="ReadTimeout"):
            store.call("record_calls_v1", calls="[]")
        store.close()
        server.shutdown()


def test_nobody_listening_is_unavailable() -> None:
    """If this failed, an outage of the network would look like wrong settings."""
    store = SupabaseStore(f"http://127.0.0.1:{free_port()}", "sb_secret_test")
    with pytest.raises(StoreUnavailable):
        store.call("model_prices_v1")
    store.close()
