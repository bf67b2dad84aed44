"""`track_event`, `track_cost`, `track_agent_execution`: each row stored once, with whose it is, without what nobody must know."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.support.supabase_lite import SupabaseLite
from vital_tracking import Agent, VitalTracker
from vital_tracking.stores.supabase import SupabaseStore

Rows = Callable[..., list[dict[str, Any]]]
AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
TABLES = ("platform_events", "tenant_cost_events", "agent_executions")


def test_every_field_reaches_its_column(make_tracker: Callable[..., VitalTracker], rows: Rows) -> None:
    tracker = make_tracker(hash_key="k" * 32, event_properties=frozenset({"tab"}))
    with tracker.workflow("intake", user_id="u-1", session_id="s-1", organization_id="acme") as workflow:
        event = tracker.track_event(
            "report_opened",
            category="business",
            value=Decimal("12.50"),
            source="/reports",
            ip_address="192.0.2.7:4711",
            properties={"page": "/reports", "tab": "costs", "status": 200},
            occurred_at=AT,
        )
        cost = tracker.track_cost(
            "compute",
            quantity=Decimal("0.25"),
            unit="hour",
            unit_price=Decimal("1.60"),
            service="render",
            resource="gpu-1",
            occurred_at=AT,
            metadata={"zone": "a"},
        )
        execution = tracker.track_agent_execution(
            Agent("cardio", name="Cardiologist"),
            duration_ms=1234.5,
            rating=4,
            faithfulness=0.9,
            answer_relevancy=Decimal("0.8"),
            context_precision=1,
            context_recall=0,
            citations=3,
            total_tokens=1200,
            cost_usd="0.031",
            started_at=AT,
            metadata={"round": 2},
        )
    assert tracker.flush().complete
    assert tracker.stats().platform_rows == 3
    (seen,) = rows("select * from platform_events")
    (paid,) = rows("select * from tenant_cost_events")
    (ran,) = rows("select * from agent_executions")
    for row, given in ((seen, event), (paid, cost), (ran, execution)):
        assert (str(row["id"]), row["organization_id"], row["user_id"]) == (given, "acme", "u-1")
        assert row.get("occurred_at", row.get("started_at")) == AT
    assert {name: seen[name] for name in ("session_id", "category", "event_name", "source", "value", "properties")} == {
        "session_id": "s-1",
        "category": "business",
        "event_name": "report_opened",
        "source": "/reports",
        "value": Decimal("12.50"),
        "properties": {"page": "/reports", "tab": "costs", "status": 200},
    }
    assert len(seen["ip_hash"]) == 32
    assert {
        name: paid[name] for name in ("cost_type", "service", "resource", "quantity", "unit", "cost_usd", "metadata")
    } == {
        "cost_type": "compute",
        "service": "render",
        "resource": "gpu-1",
        "quantity": Decimal("0.25"),
        "unit": "hour",
        "cost_usd": Decimal("0.4"),
        "metadata": {"zone": "a"},
    }
    expected = {
        "agent_id": "cardio",
        "agent_name": "Cardiologist",
        "workflow_id": "intake",
        "service_run_id": workflow.run_id,
        "duration_ms": 1234.5,
        "success": True,
        "error_type": None,
        "total_tokens": 1200,
        "cost_usd": Decimal("0.031"),
        "rating": 4,
        "faithfulness": Decimal("0.9"),
        "answer_relevancy": Decimal("0.8"),
        "context_precision": 1,
        "context_recall": 0,
        "citations": 3,
        "metadata": {"round": 2},
    }
    assert {name: ran[name] for name in expected} == expected


def test_what_cannot_be_taken_is_left_out_and_named(tracker: VitalTracker, rows: Rows) -> None:
    nonsense: Any = {1, 2}
    tracker.track_event(nonsense, category=nonsense, value=float("nan"), occurred_at=nonsense, properties=nonsense)
    tracker.track_event("x", value=True, properties={"page": nonsense, "status": "5" * 9000})
    tracker.track_cost(nonsense, quantity="many", unit_price="0.5", cost_usd=float("inf"), metadata=nonsense)  # type: ignore[arg-type]
    tracker.track_agent_execution(
        nonsense, duration_ms=-1, rating=7, faithfulness=1.1, citations=-2, total_tokens=nonsense
    )
    assert tracker.flush().complete
    assert (tracker.stats().platform_rows, tracker.stats().rejected, tracker.stats().faults) == (4, 0, 0)
    first, second = rows("select * from platform_events order by id")
    assert set(first["properties"]["notes"]) == {
        "invalid_category",
        "invalid_value",
        "invalid_occurred_at",
        "invalid_properties",
    }
    assert second["value"] is None
    (paid,) = rows("select * from tenant_cost_events")
    assert (paid["cost_usd"], paid["priced"], paid["unit"]) == (None, False, "unknown")
    assert set(paid["metadata"]["notes"]) == {
        "invalid_cost_type",
        "invalid_quantity",
        "invalid_cost_usd",
        "invalid_metadata",
    }
    (ran,) = rows("select * from agent_executions")
    assert set(ran["metadata"]["notes"]) == {
        "invalid_duration_ms",
        "invalid_rating",
        "invalid_faithfulness",
        "invalid_citations",
        "invalid_total_tokens",
    }


def test_neither_addresses_nor_texts_are_kept(
    make_tracker: Callable[..., VitalTracker], rows: Rows, spool_dir: Path
) -> None:
    tracker = make_tracker(hash_key="k" * 32)
    for address in ("198.51.100.77", "::ffff:198.51.100.77", "[::ffff:198.51.100.77]:443", "no address at all"):
        tracker.track_event("page_view", ip_address=address, properties={"search_text": "my secret disease"})
    tracker.track_agent_execution("cardio", error=ValueError("my secret disease"))
    spooled = b"".join(path.read_bytes() for path in spool_dir.rglob("*") if path.is_file())
    assert b"page_view" in spooled
    tracker.flush()
    stored = repr([rows(f"select * from {table} order by 1") for table in TABLES])
    for text in ("198.51.100", "secret disease", "search_text"):
        assert text not in stored
        assert text.encode() not in spooled
    hashes = [row["ip_hash"] for row in rows("select ip_hash from platform_events order by id")]
    assert len(set(hashes[:3])) == 1
    assert hashes[3] is None
    assert rows("select success, error_type from agent_executions") == [{"success": False, "error_type": "ValueError"}]
    without_key = make_tracker()
    without_key.track_event("page_view", ip_address="198.51.100.77")
    without_key.flush()
    assert rows("select count(ip_hash) as n from platform_events")[0]["n"] == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_what_a_killed_process_has_recorded_is_stored_once(
    make_tracker: Callable[..., VitalTracker], rows: Rows
) -> None:
    parent = make_tracker(background=False)
    child = os.fork()
    if child == 0:
        parent.track_event("page_view")
        parent.track_cost("storage", quantity=2)
        parent.track_agent_execution("cardio")
        os._exit(9)  # as kill -9: nothing is flushed, nothing is closed
    os.waitpid(child, 0)
    assert parent.replay()
    assert parent.replay()
    assert [rows(f"select count(*) as n from {table}")[0]["n"] for table in TABLES] == [1, 1, 1]


def test_over_supabase(lite: SupabaseLite) -> None:
    store = SupabaseStore(lite.url, lite.service_key)
    with VitalTracker(store, organization_id="lite-events") as tracker:
        tracker.track_event("page_view", user_id="u-9")
        tracker.track_cost("search", quantity=3)
        tracker.track_agent_execution("cardio", rating=5)
        assert tracker.flush().complete
        assert tracker.stats().platform_rows == 3
    with psycopg.connect(lite.database_url) as connection:
        bill = connection.execute(
            "select cost_type, cost_usd from analytics.tenant_cost_summary where organization_id = 'lite-events'"
        ).fetchall()
    assert bill == [("search", Decimal("0.0015"))]
