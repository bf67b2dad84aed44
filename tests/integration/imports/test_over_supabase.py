"""All of it over Supabase's Data API, with its own client."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from tests.integration.imports.litellm_wire import a_request
from tests.integration.imports.logs import import_log, recorded, text_of
from tests.sql.helpers import connect
from tests.support.supabase_lite import SupabaseLite
from vital_tracking.imports.allocation import allocate
from vital_tracking.imports.files import imported_files
from vital_tracking.imports.litellm_spend import import_spend
from vital_tracking.imports.meters import Size, database_sizes, record_sizes
from vital_tracking.imports.request_costs import CostRule
from vital_tracking.queries.resource_prices import resource_prices
from vital_tracking.stores.supabase import SupabaseStore

NOVEMBER = datetime(2025, 11, 1, tzinfo=UTC)


@pytest.mark.timeout(300)
def test_imports_meters_and_invoices_over_the_api(lite: SupabaseLite, tmp_path: Path) -> None:
    store = SupabaseStore(lite.url, lite.service_key)
    try:
        log = tmp_path / "access.log"
        log.write_bytes(text_of(range(5)) + b"bad\n")
        rules = (CostRule.parse("search=/api/search*"),)
        for events in (5, 0):
            done = import_log(store, log, organization="over-api", rules=rules)
            assert (done.events, done.costs) == (events, 2 if events else 0)
        assert recorded(lite.database_url, "over-api") == list(range(5))
        assert imported_files(store)[0]["bad"][0]["line_number"] == 6
        spend = tmp_path / "spend.jsonl"
        spend.write_text(json.dumps(a_request(99, team_id="over-api")), encoding="utf-8")
        assert [import_spend(store, str(spend)).recorded for _ in range(2)] == [1, 0]
        made = allocate(store, "2026-01", Decimal("10.01"), by="cost", organizations=["over-api"], dry_run=True)
        assert [share["cost_usd"] for share in made["shares"]] == [Decimal("10.01")]
        for day in (0, 15):
            read = record_sizes(
                store, [Size("disk", 2 * 10**9)], organization="over-api", read_at=NOVEMBER + timedelta(days=day)
            )
        assert (read[0]["gb_months"], read[0]["cost_usd"]) == (1, Decimal("0.023"))
        assert database_sizes(store)
        assert {price["cost_type"] for price in resource_prices(store)} >= {"storage", "bandwidth"}
        counted = {"source": "over-api", "series": {"m": {"requests": "1"}}}
        assert store.call("record_counters_v1", reading=json.dumps(counted))["first"] is True
    finally:
        store.close()
        with connect(lite.database_url) as connection:  # which other tests share
            connection.execute(
                "truncate platform_events, platform_events_5min, platform_events_daily_sessions, tenant_cost_events,"
                " tenant_costs_5min, tenant_costs_daily, token_usage_logs, vital_private.import_files,"
                " vital_private.counter_readings, vital_private.meter_readings cascade"
            )
