"""`vital-tracking doctor`: it finds what is wrong, says how to mend it, and shows no secret."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from importlib.metadata import version

import psycopg

from tests.acceptance.cli.helpers import SECRET, UNREACHABLE, Cli, Several, findings, fine
from tests.sql.helpers import a_call, an_unpriced_call
from vital_tracking import VitalTracker
from vital_tracking.migrate import find_migrations
from vital_tracking.stores.postgres import PostgresStore


def test_doctor_finds_a_healthy_database_healthy(several: Several, tracker: VitalTracker) -> None:
    tracker.record(provider="openai", model="gpt-4o", prompt_tokens=10, completion_tokens=1)
    tracker.flush()
    shown, listed = several(["doctor"], ["doctor", "--json"])
    said = fine(shown)
    assert "every call has a price" in said
    assert "1 call in the last day" in said
    found = findings(listed)
    assert found["warn"] == found["fail"] == []
    assert any(f"{len(find_migrations())} migrations" in text for text in found["ok"])


def test_doctor_says_what_to_run_where_migrations_are_missing(cli: Cli, empty_database: str, database_url: str) -> None:
    done = cli("doctor", VITAL_DATABASE_URL=empty_database)
    assert done.returncode == 1
    assert "vital-tracking migrate" in done.stdout

    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("delete from vital_private.migrations where version = %s", [find_migrations()[-1].version])
    done = cli("doctor", "--json")
    assert done.returncode == 1
    assert "1 migration missing" in only_text(findings(done)["fail"])


def test_doctor_names_what_was_dropped_by_hand(cli: Cli, database_url: str) -> None:
    """If this failed, doctor would be green over a database that lacks a table, and reports fail one by one."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("drop view agent_usage_detailed")
        connection.execute("drop function cost_forecast")
        connection.execute('drop policy "Users see their own calls" on token_usage_logs')
        connection.execute("alter table service_runs disable row level security")
        connection.execute("alter table budget_limits disable trigger budget_limits_check")
    found = findings(cli("doctor", "--json"))["fail"]
    for name in (
        "relation public.agent_usage_detailed",
        "function public.cost_forecast",
        "policy Users see their own calls on public.token_usage_logs",
        "on public.service_runs",
        "trigger budget_limits_check on public.budget_limits",
    ):
        assert any(name in text and ".sql" in text for text in found), (name, found)

    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("drop table cost_alerts cascade")
    done = cli("doctor", "--json")
    assert done.returncode == 1
    assert any("relation public.cost_alerts is missing" in text for text in findings(done)["fail"])


def only_text(found: list[str]) -> str:
    """The one finding there is."""
    assert len(found) == 1, found
    return found[0]


def test_doctor_names_what_is_wrong_and_never_a_secret(several: Several) -> None:
    url, key = "SUPABASE_URL=http://127.0.0.1:1", "SUPABASE_SERVICE_KEY=sb_secret_" + SECRET
    wrong = {
        (f"VITAL_DATABASE_URL={UNREACHABLE}",): "does not answer",
        (f"VITAL_DATABASE_URL=mysql://someone:{SECRET}@host/x",): "VITAL_DATABASE_URL is not a PostgreSQL URL",
        (url,): "SUPABASE_SERVICE_KEY is not set",
        (key,): "SUPABASE_URL is not set",
        (url, key): "does not answer",
        (url, f"SUPABASE_SERVICE_KEY=sb_publishable_{SECRET}"): "publishable key",
    }
    for what, done in zip(wrong.values(), several(*([*settings, "doctor"] for settings in wrong)), strict=True):
        assert done.returncode == 1
        assert what in done.stdout
        assert "→" in done.stdout
        assert SECRET not in done.stdout + done.stderr
        assert done.stderr == ""


def test_doctor_warns_of_what_admins_should_mend(cli: Cli, tracker: VitalTracker, database_url: str) -> None:
    long_ago = datetime.now(UTC) - timedelta(days=4000)  # too old for a partition to be made by itself
    tracker.record(provider="in_house", model="house-llm-7b", prompt_tokens=1, completion_tokens=1)
    tracker.record(provider="openai", model="gpt-4o", prompt_tokens=1, completion_tokens=1, started_at=long_ago)
    tracker.flush()
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "insert into service_runs (id, service_type, started_at) values ('r', 'workflow', now() - interval '2 days')"
        )
    done = cli("doctor", "--json")
    found = findings(done)
    assert (done.returncode, found["fail"]) == (0, [])
    unpriced, outside, still_open = (
        next(text for text in found["warn"] if word in text) for word in ("unpriced", "partition", "service run")
    )
    assert unpriced.startswith("1 unpriced call: house-llm-7b")
    assert "vital-tracking prices set" in unpriced
    assert outside.startswith("1 call dated outside every monthly partition")
    assert still_open.startswith("1 service run open for more than a day")

    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("select ensure_partitions_v1(%s, 1)", [long_ago.date().replace(day=1)])
    assert not any("partition" in text for text in findings(cli("doctor", "--json"))["warn"]), "its own advice helps"


def test_doctor_says_which_costs_are_not_exact_and_what_to_do(several: Several, store: PostgresStore) -> None:
    """If this failed, estimates and missing prices would pass for the bill."""
    at = datetime.now(UTC).isoformat()
    model = {"created_at": at, "provider": "openai", "model": "qwen", "framework": "langchain"}
    noted = (
        ("modality_hidden", "unit_unpriced:web_searches", "passes_hidden"),
        ("unit_unknown:web_dreams", "total_below_parts"),
        ("total_unexplained",),
    )
    calls = [
        a_call(1, **model, usage_estimated=True),
        a_call(2, **model, usage_estimated=True, call_type="embedding"),
        a_call(3, **model, usage_estimated=True, status="cancelled"),
        an_unpriced_call(4, **model, usage_estimated=True, metadata={"notes": ["usage_missing"]}),
        *(a_call(5 + place, **model, metadata={"notes": notes}) for place, notes in enumerate(noted)),
        a_call(20, **model, price_version="genai-prices 0.0.1 openai/qwen"),
        a_call(21, **model, price_version=f"genai-prices {version('genai-prices')} openai/qwen"),
    ]
    assert store.call("record_calls_v1", calls=json.dumps(calls))["inserted"] == len(calls)
    listed, shown = several(["doctor", "--json"], ["doctor"])
    warned = findings(listed)["warn"]
    expected = [
        r"1 call of openai qwen, \$0\.4200: nobody reported their tokens.*stream_usage=True",
        r"nobody reported their tokens.*client of these embeddings reports no tokens",
        r"ended before their tokens were reported",
        r"nobody knows how many tokens they used.*tracker\.record",
        r"audio, images or video.*provider's bill",
        r"no price is known for web_searches.*prices set qwen --unit web_searches=USD",
        r"web_dreams is no unit that has prices.*Update",
        r"total of tokens is more than its parts",
        r"total of tokens is less than its parts",
        r"all passes of an answer.*Invoke",
        r"1 call of the last week priced by genai-prices 0\.0\.1; here is .*vital-tracking prices check",
    ]
    for pattern in expected:
        assert len([text for text in warned if re.search(pattern, text)]) == 1, (pattern, warned)
    assert "stream_usage=True" in shown.stdout
    assert shown.returncode == 0
