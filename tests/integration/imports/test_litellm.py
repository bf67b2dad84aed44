"""What a LiteLLM proxy saw: its spend log as calls, its counters as what was used; each once."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.integration.imports.conftest import ORGANIZATIONS
from tests.integration.imports.litellm_wire import SECRET, a_request
from tests.sql.helpers import connect
from tests.support.effort import examples
from vital_tracking.errors import VitalError
from vital_tracking.imports.litellm_metrics import import_metrics, read_counters
from vital_tracking.imports.litellm_spend import import_spend
from vital_tracking.imports.prometheus_text import samples
from vital_tracking.stores.postgres import PostgresStore


def calls(url: str, organization: str) -> list[dict[str, Any]]:
    with connect(url) as connection:
        return connection.execute(
            "select * from token_usage_logs where organization_id = %s order by created_at, id", [organization]
        ).fetchall()


def test_a_request_of_the_spend_log_is_a_call_priced_by_us_beside_their_figure(
    shared: PostgresStore, url: str, tmp_path: Path
) -> None:
    path = tmp_path / "spend.jsonl"
    path.write_text(json.dumps(a_request(team_id="team-1")) + "\n", encoding="utf-8")
    done = import_spend(shared, str(path))
    assert (done.requests, done.recorded, done.known, done.bad_rows) == (1, 1, 0, 0)
    (row,) = calls(url, "team-1")
    told = {
        "provider": "openai", "model": "gpt-4o-mini", "user_id": "u-1", "session_id": "s-1", "framework": "litellm",
        "prompt_tokens": 200, "completion_tokens": 100, "cache_read_tokens": 50, "latency_ms": 1250.0, "ttft_ms": 500.0,
        "status": "ok", "tags": ["nightly"], "reported_cost": Decimal("0.0008"), "metadata": {"litellm_request_id": "chatcmpl-1"},
    }  # fmt: skip
    assert {name: row[name] for name in told} == told
    # 150 at 0.15, 50 from the cache at 0.075, 100 at 0.60 US dollars a million
    assert row["total_cost"] == Decimal("0.00008625")
    assert SECRET not in str(row)


def test_a_spend_log_is_the_same_in_every_form_and_counts_once(shared: PostgresStore, url: str, tmp_path: Path) -> None:
    rows = [a_request(number, team_id="team-2", startTime=f"2026-01-15T10:00:0{number}Z") for number in range(4)]
    table = io.StringIO()
    writer = csv.DictWriter(table, list(rows[0]))
    writer.writeheader()
    for row in rows:
        writer.writerow(
            {name: json.dumps(value) if isinstance(value, (dict, list)) else value for name, value in row.items()}
        )
    forms = {
        "spend.jsonl": "\n".join(map(json.dumps, rows)).encode(),
        "spend.json": json.dumps(rows, indent=1).encode(),
        "spend.csv": table.getvalue().encode(),
        "spend.csv.gz": gzip.compress(table.getvalue().encode()),
    }
    totals = []
    for number, (name, content) in enumerate(forms.items()):
        path = tmp_path / name
        path.write_bytes(content)
        tried = import_spend(shared, str(path), dry_run=True)
        done = import_spend(shared, str(path))
        assert (done.recorded, done.known) == ((4, 0) if number == 0 else (0, 4)), name
        totals.append((tried.recorded, done.cost_usd, done.reported_usd))
    assert set(totals) == {(4, Decimal("0.000345"), Decimal("0.0032"))}
    assert len(calls(url, "team-2")) == 4


def test_what_is_not_plain_is_told(shared: PostgresStore, url: str, tmp_path: Path) -> None:
    failed = {"error_information": {"error_class": "RateLimitError", "error_message": SECRET}}
    rows: list[Any] = [
        a_request(11, status="failure", prompt_tokens=0, completion_tokens=0, spend=0.0, metadata=failed),
        a_request(12, cache_hit="True", spend=0.0),
        a_request(13, model="house-llm", custom_llm_provider="hosted_vllm", spend=0.0),
        a_request(14, model="house-llm", custom_llm_provider="hosted_vllm", spend=0.25),
        a_request(15, call_type="aembedding", model="text-embedding-3-small", completion_tokens=0, metadata={}),
        a_request(16, request_tags=["vital_tracking"]),
        a_request(17, request_id=""),
        a_request(18, startTime="yesterday"),
        ["no", "object"],
    ]
    rows = [{**row, "team_id": None} if isinstance(row, dict) else row for row in rows]
    path = tmp_path / "spend.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    done = import_spend(shared, str(path), organization="team-3")
    assert (done.requests, done.recorded, done.own, done.unpriced) == (9, 5, 1, 1)
    assert done.bad == [(7, "no request_id"), (8, "no startTime"), (9, "no json object")]
    found = {row["metadata"]["litellm_request_id"][-1]: row for row in calls(url, "team-3")}
    assert (found["1"]["status"], found["1"]["error_type"], found["1"]["total_cost"]) == ("error", "RateLimitError", 0)
    assert (found["2"]["cache_hit"], found["2"]["total_cost"]) == (True, 0)
    assert (found["3"]["priced"], found["3"]["total_cost"], found["3"]["reported_cost"]) == (False, None, None)
    assert (found["4"]["priced"], found["4"]["total_cost"]) == (True, Decimal("0.25"))
    assert found["5"]["call_type"] == "embedding"
    assert SECRET not in str(found)


def test_what_is_no_spend_log_is_said(shared: PostgresStore, tmp_path: Path) -> None:
    path = tmp_path / "spend.json"
    path.write_text("[{")
    with pytest.raises(VitalError, match="is no JSON"):
        import_spend(shared, str(path))
    with pytest.raises(VitalError, match="cannot be read"):
        import_spend(shared, str(tmp_path / "none.json"))


class Proxy:
    """Answers with a page of metrics, for whoever has the key."""

    def __init__(self) -> None:
        self.page = ""
        self.asked: list[str | None] = []
        self.hold: Event | None = None


@contextmanager
def serving(proxy: Proxy) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            proxy.asked.append(self.headers.get("Authorization"))
            if self.headers.get("Authorization") != "Bearer sk-1":
                self.send_error(401)
                return
            self.send_response(200)
            self.end_headers()
            if proxy.hold is not None:
                proxy.hold.wait()
            self.wfile.write(proxy.page.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://user:pass@127.0.0.1:{server.server_port}/metrics?x=1"
    finally:
        if proxy.hold is not None:
            proxy.hold.set()
        server.shutdown()
        thread.join()
        server.server_close()


def page(spend: str, requests: int, failed: int = 0, *, model: str = "gpt-4o", more: str = "") -> str:
    """What LiteLLM exports today, of two keys."""
    return f"""
# HELP litellm_spend_metric_total Total spend on LLM requests
# TYPE litellm_spend_metric_total counter
litellm_spend_metric_total{{api_key_alias="a",model="{model}",user="u\\"1"}} {spend}
litellm_spend_metric_total{{api_key_alias="b",model="{model}",user=""}} 1.5e-05
litellm_spend_metric_created{{api_key_alias="a",model="{model}"}} 1.79e+09
litellm_proxy_total_requests_metric_total{{requested_model="{model}",status_code="200"}} {requests}.0
litellm_proxy_failed_requests_metric_total{{requested_model="{model}",exception_class="X"}} {failed}.0
litellm_input_tokens_metric_total{{model="{model}"}} {100 * requests}.0
litellm_output_tokens_metric_total{{model="{model}"}} {10 * requests}.0
litellm_llm_api_latency_metric_sum{{model="{model}"}} {requests / 2}
litellm_remaining_team_budget_metric{{team="t"}} +Inf
{more}"""


def test_counters_are_what_was_used_since_the_last_reading(shared: PostgresStore, url: str) -> None:
    """If this failed, usage would be counted twice after each reading, or lost when the proxy is restarted."""
    proxy = Proxy()
    with serving(proxy) as address:

        def read(text: str, **options: Any) -> dict[str, Any]:
            proxy.page = text
            return dict(import_metrics(shared, address, token="sk-1", organization="team-4", **options))

        assert read(page("0.5", 10)) == {"first": True, "resets": 0, "used": []}
        assert read(page("0.5", 10))["used"] == []
        (used,) = read(page("0.75", 14, 2), costs=True)["used"]
        assert used == {
            "model": "gpt-4o", "cost_usd": Decimal("0.25"), "requests": 4, "errors": 2, "input_tokens": 400, "output_tokens": 40,
            "latency_s": 2,
        }  # fmt: skip
        assert read(page("0.75", 14, 2), costs=True)["used"] == []
        restarted = read(page("0.125", 1), costs=True)
        assert (restarted["resets"], restarted["used"][0]["cost_usd"], restarted["used"][0]["requests"]) == (
            1,
            Decimal("0.125015"),
            1,
        )
        # It begins anew: what has grown meanwhile counts from nothing as well.
        dearer = read(page("0.5", 0))["used"]
        assert dearer[0]["cost_usd"] == Decimal("0.500015"), dearer
        read(page("0.125", 1))
        another = read(page("0.125", 1, more='litellm_spend_metric_total{model="new"} 2'), costs=True)
        assert another["used"] == [{"model": "new", "cost_usd": 2}]
    with connect(url) as connection:
        events = connection.execute(
            "select source, value, properties from platform_events where organization_id = 'team-4' order by recorded_at, source"
        ).fetchall()
        costs = connection.execute(
            "select cost_type, service, resource, quantity, cost_usd from tenant_cost_events"
            " where organization_id = 'team-4' order by cost_usd"
        ).fetchall()
        kept = connection.execute("select distinct source from vital_private.counter_readings").fetchall()
    assert [(row["source"], row["value"]) for row in events] == [
        ("gpt-4o", Decimal("0.25")), ("gpt-4o", Decimal("0.125015")), ("gpt-4o", Decimal("0.500015")),
        ("gpt-4o", Decimal("0.125015")), ("new", 2),
    ]  # fmt: skip
    assert events[0]["properties"]["errors"] == 2
    assert [tuple(row.values()) for row in costs] == [
        ("llm", "litellm", "gpt-4o", 1, Decimal("0.125015")),
        ("llm", "litellm", "gpt-4o", 4, Decimal("0.25")),
        ("llm", "litellm", "new", 0, 2),
    ]
    assert "user" not in str(kept)
    assert "pass" not in str(kept)
    assert "x=1" not in str(kept)


def test_a_proxy_that_does_not_answer_is_said_in_time_and_without_secrets(shared: PostgresStore) -> None:
    proxy = Proxy()
    proxy.page, proxy.hold = page("1", 1), Event()
    with serving(proxy) as address:
        with pytest.raises(VitalError, match=r"answers with HTTP 401 .*give the proxy's key") as refused:
            import_metrics(shared, address, token="wrong")
        with pytest.raises(VitalError, match=r"did not answer as a whole within 0\.05 s") as late:
            import_metrics(shared, address, token="sk-1", timeout_s=0.05)
        proxy.hold.set()
        proxy.page = "litellm_in_flight 1\n"
        with pytest.raises(VitalError, match="none of LiteLLM's counters"):
            import_metrics(shared, address, token="sk-1")
    with pytest.raises(VitalError, match="cannot be reached"):
        import_metrics(shared, address, token="sk-1")
    for said in (refused, late):
        assert "pass" not in str(said.value)
    for url in (
        "file:///etc/passwd",
        "http://[abc/metrics",
        "http://host:99999/metrics",
        "http://proxy..example/metrics",
    ):
        with pytest.raises(VitalError, match="no address of metrics"):
            import_metrics(shared, url)


def test_older_names_are_read_and_never_added_to_todays() -> None:
    old = """litellm_total_cost{model="m"} 1
litellm_requests_total{model="m"} 2
litellm_input_tokens_total{model="m"} 3
litellm_output_tokens_total{model="m"} 4
litellm_latency_seconds_sum{model="m"} 5.5
litellm_errors_total{model="m"} 0
"""
    counted = read_counters(old)["m"]
    assert [
        counted[name] for name in ("cost_usd", "requests", "input_tokens", "output_tokens", "latency_s", "errors")
    ] == [1, 2, 3, 4, Decimal("5.5"), 0]
    both = read_counters(old + 'litellm_spend_metric_total{model="m"} 1.25\n')["m"]
    assert both["cost_usd"] == Decimal("1.25")


@given(st.text(max_size=20), st.decimals("-1e6", "1e6", places=4), st.booleans())
def test_samples_are_read_as_they_are_written(label: str, value: Decimal, stamped: bool) -> None:
    text = label.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    if len(label.splitlines()) > 1 or label != label.strip():
        return
    line = f'a_total{{x="1",y="{text}",}} {value}{" 1700000000000" if stamped else ""}'
    assert [tuple(sample) for sample in samples(line)] == [("a_total", {"x": "1", "y": label}, value)]


@settings(max_examples=examples(20), deadline=None)
@given(steps=st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.integers(1, 3)), min_size=1, max_size=12))
def test_differences_add_up_to_what_was_counted(shared: PostgresStore, steps: list[tuple[int, bool, int]]) -> None:
    """A counter grows, is read several times, and starts anew; that can be seen where it stands below its last reading."""
    source = f"http://proxy/{next(ORGANIZATIONS)}"
    counter, last, meant, found = 0, 0, 0, 0

    def read() -> None:
        nonlocal found
        reading = {"source": source, "series": {"m": {"requests": str(counter)}}}
        found += sum(
            int(used["requests"]) for used in shared.call("record_counters_v1", reading=json.dumps(reading))["used"]
        )

    read()
    for more, restarts, times in steps:
        if restarts and more < last:  # else nobody could tell that it did
            counter = 0
        counter += more
        meant += more
        for _ in range(times):
            read()
        last = counter
    assert found == meant
