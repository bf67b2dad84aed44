"""How many rows the database reads for an answer: what grows with all calls where a page shows a few is found without a clock.

PostgreSQL counts what a session's statements take from each table and index, inside functions too, and what they throw away.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.sql.helpers import Connection, acting_as, connect

ADMIN, SMALL_ADMIN, BUSY, QUIET = "admin-0", "admin-19", "user-0-0", "user-19-7"

# Sixty days, 20 organizations of 8 users, 500 calls a day: half of them of the first organization, whose first user is busy. A
# quarter of the calls are of workflows, four calls a run, and every second run is nested in the one before.
CALLS = """
insert into token_usage_logs (
  id, created_at, organization_id, user_id, session_id, service_type, service_run_id, agent_id, workflow_id, workflow_step,
  provider, model, framework, message_type, status, prompt_tokens, total_tokens,
  input_cost, output_cost, fees, total_cost, potential_cost, price_version, priced, latency_ms
)
select
  gen_random_uuid(), now() - n * interval '172.8 seconds', 'org-' || org, 'user-' || org || '-' || who, 'session-' || n / 8,
  case when flow then 'workflow' else '1:1_conversation' end, 'run-' || n / 4, 'agent-' || n % 13,
  case when flow then 'flow' end, case when flow then 'step-' || n % 4 end,
  'openai', 'model-' || n % 3, 'langgraph', 'chat', case when n % 7 = 0 then 'error' else 'ok' end, 10, 10,
  0.01, 0, 0, 0.01, 0.01, 'test', true, 100 + n % 700
from generate_series(1, 30000) as n
cross join lateral (select n / 4 % 4 = 0 as flow, case when n / 8 % 2 = 0 then 0 else n / 16 % 20 end as org) as o
cross join lateral (select case when n / 16 % 2 = 0 then 0 else n / 32 % 8 end as who) as w
"""
RUNS = """
insert into service_runs (
  id, parent_run_id, ancestor_run_ids, organization_id, user_id, session_id, service_type, service_id, workflow_id, status,
  started_at, ended_at
)
select distinct on (c.service_run_id)
  c.service_run_id, p.parent, case when p.parent is null then '{}' else array[p.parent] end, c.organization_id, c.user_id,
  c.session_id, c.service_type, 'flow', c.workflow_id, 'ok', c.created_at - interval '1 second', c.created_at
from token_usage_logs as c
cross join lateral (select split_part(c.service_run_id, '-', 2)::integer as number) as r
cross join lateral (select case when r.number / 4 % 2 = 1 then 'run-' || r.number - 4 end as parent) as p
order by c.service_run_id, c.created_at
"""
READ = """
select coalesce(sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)), 0)::bigint as rows
from pg_stat_xact_all_tables where schemaname in ('public', 'vital_private') and relname not like %s
"""


@pytest.fixture(scope="module")
def busy(urls: dict[str, str]) -> Iterator[Connection]:
    """The owner's connection to a database with 30,000 calls and their sums, in a transaction that is rolled back in the end."""
    with connect(urls["hosted"]) as connection, connection.transaction(force_rollback=True):
        connection.execute("select ensure_partitions_v1((now() - interval '61 days')::date, 3)")
        connection.execute(CALLS)
        connection.execute(RUNS)
        connection.execute(
            "insert into organization_members values ('org-0', %s, 'admin'), ('org-19', %s, 'admin')",
            [ADMIN, SMALL_ADMIN],
        )
        # What autovacuum does.
        connection.execute(
            "select brin_summarize_new_values(i.indexrelid) from pg_index as i join pg_class as c on c.oid = i.indexrelid"
            " join pg_am as a on a.oid = c.relam where a.amname = 'brin' and c.relkind = 'i'"
        )
        for table in ("token_usage_logs", "service_runs", "organization_members"):
            connection.execute(f"analyze {table}")
        for table in ("daily_totals", "daily_agents", "daily_users", "daily_parts", "hourly_totals"):
            connection.execute(f"analyze usage_aggregations_{table}")
        yield connection


def rows_read(connection: Connection, query: str, reader: str, but: str = "") -> tuple[int, int]:
    """How many rows a query takes from tables and indexes where somebody asks it, and how many it answers with.

    `but` names tables that do not count, as a pattern of LIKE.
    """

    def so_far() -> int:
        [found] = connection.execute(READ, [but]).fetchall()
        return int(found["rows"])

    before = so_far()
    role = "service_role" if reader == "service_role" else "authenticated"
    with acting_as(connection, role, {"sub": reader}):
        answer = connection.execute(query).fetchall()
    return so_far() - before, len(answer)


NEWEST = "select * from {} {} order by created_at desc, id desc limit 20"
CALL_VIEWS = ("agent_usage_detailed", "usage_logs")


@pytest.mark.parametrize("view", CALL_VIEWS)
@pytest.mark.parametrize("reader", ["service_role", ADMIN, BUSY])
def test_the_newest_calls_are_read_and_not_all_of_them(busy: Connection, view: str, reader: str) -> None:
    """If this failed, the first page of calls would take seconds where there are millions."""
    read, shown = rows_read(busy, NEWEST.format(view, ""), reader)
    assert shown == 20
    assert read < 300


@pytest.mark.parametrize("view", CALL_VIEWS)
@pytest.mark.parametrize(
    ("reader", "mine"),
    [(QUIET, f"user_id = '{QUIET}'"), (SMALL_ADMIN, "{organization} = 'org-19'"), (BUSY, f"user_id = '{BUSY}'")],
)
def test_whoever_names_himself_or_his_organization_reads_his_own_calls_alone(
    busy: Connection, view: str, reader: str, mine: str
) -> None:
    """If this failed, those who use it least would wait longest: until everybody's calls were read."""
    organization = "project_id" if view == "usage_logs" else "organization_id"
    where = f"where {mine.format(organization=organization)} and status = 'error'"
    read, shown = rows_read(busy, NEWEST.format(view, where), reader)
    theirs = "organization_id = 'org-19'" if reader == SMALL_ADMIN else f"user_id = '{reader}'"
    [own] = busy.execute(f"select count(*) as n from token_usage_logs where {theirs}").fetchall()
    assert 0 < shown <= own["n"]
    assert read < min(own["n"], 5000) + 300


@pytest.mark.parametrize("filters", ['{"agent": "agent-3"}', '{"status": "error"}', '{"search": "model-1"}', "{}"])
def test_who_has_few_calls_finds_them_without_naming_himself(busy: Connection, filters: str) -> None:
    """If this failed, a user's own list would take the longer the more all others call."""
    question = f"select json_array_elements(calls_v1('{filters}', max_rows => 20))"
    [own] = busy.execute(f"select count(*) as n from token_usage_logs where user_id = '{QUIET}'").fetchall()
    read, shown = rows_read(busy, question, QUIET)
    assert 0 < shown <= own["n"]
    assert read < own["n"] + 300


@pytest.mark.parametrize("reader", ["service_role", ADMIN])
@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("user_id", BUSY),
        ("agent_id", "agent-3"),
        ("session_id", "session-3000"),
        ("service_run_id", "run-5000"),
        ("status", "error"),
    ],
)
def test_a_page_of_calls_by_a_filter_reads_a_part_of_them(
    busy: Connection, reader: str, column: str, value: str
) -> None:
    """If this failed, a filter would make the page slower instead of shorter."""
    read, shown = rows_read(busy, NEWEST.format("agent_usage_detailed", f"where {column} = '{value}'"), reader)
    assert shown > 0
    assert read < 6000  # of 30,000


@pytest.mark.parametrize("reader", ["service_role", ADMIN, BUSY])
def test_the_hundredth_page_costs_what_the_first_one_does(busy: Connection, reader: str) -> None:
    """If this failed, whoever pages through the calls would wait longer with each page."""
    after = "where (created_at, id) < (now() - interval '20 days', 'ffffffff-ffff-7fff-bfff-ffffffffffff')"
    read, shown = rows_read(busy, NEWEST.format("agent_usage_detailed", after), reader)
    assert shown == 20
    assert read < 300


@pytest.mark.parametrize("reader", ["service_role", ADMIN, BUSY])
def test_each_run_of_a_workflow_is_looked_up_and_not_searched_for(busy: Connection, reader: str) -> None:
    """If this failed, an organization's admin would be cut off where the service role waits for 3 ms."""
    read, shown = rows_read(busy, "select * from workflow_analytics order by started_at desc limit 20", reader)
    assert shown == 20
    assert read < 2000


def test_nested_runs_are_told_to_those_alone_who_may_see_them(busy: Connection) -> None:
    """If this failed, whoever knows the id of a run would learn which others are nested in it."""
    [run] = busy.execute(
        "select parent_run_id as id, user_id from service_runs where parent_run_id <> '' and organization_id = 'org-0' limit 1"
    ).fetchall()
    told = {}
    for reader in ("service_role", ADMIN, run["user_id"], SMALL_ADMIN, "nobody"):
        role = "service_role" if reader == "service_role" else "authenticated"
        with acting_as(busy, role, {"sub": reader}):
            told[reader] = len(busy.execute("select unnest(vital_private.runs_within(%s))", [run["id"]]).fetchall())
    assert told == {"service_role": 2, ADMIN: 2, run["user_id"]: 2, SMALL_ADMIN: 1, "nobody": 1}  # itself is known


@pytest.mark.parametrize("reader", ["service_role", ADMIN])
@pytest.mark.parametrize(
    ("view", "limit"),
    [
        ("system_analytics", 2),
        ("agent_performance_metrics", 20),
        ("service_performance_metrics", 20),
        ("usage_aggregations_hourly", 20),
        ("usage_aggregations_daily", 10),
    ],
)
def test_the_newest_days_are_added_up_and_not_all_of_them(busy: Connection, view: str, limit: int, reader: str) -> None:
    """If this failed, a page of the last days would add up seven years."""
    day = {"service_performance_metrics": "day", "usage_aggregations_hourly": "hour_start"}.get(view, "date")
    query = "select * from {} order by {} desc limit {}"
    # Without the calls of this month: on its first days they are so few that reading all is best, and would outweigh the sums.
    [month] = busy.execute("select to_char(now() at time zone 'UTC', 'YYYY_MM') as name").fetchall()
    but = f"token_usage_logs_{month['name']}"
    few, shown = rows_read(busy, query.format(view, day, limit), reader, but)
    assert shown == limit
    every, all_shown = rows_read(busy, query.format(view, day, 100_000), reader, but)
    assert all_shown > 5 * limit
    assert few < every / 3


@pytest.mark.parametrize(
    "function", ["usage_anomalies()", "cost_forecast(period => 'month')", "dashboard_summary('org-19')"]
)
def test_a_small_organization_s_reports_do_not_read_the_large_one_s_sums(busy: Connection, function: str) -> None:
    """If this failed, everybody would wait for the largest."""
    small, _ = rows_read(busy, f"select * from {function}", SMALL_ADMIN)
    large, _ = rows_read(busy, f"select * from {function.replace('19', '0')}", ADMIN)
    assert small < large


def test_every_report_answers_for_one_organization_as_for_all(busy: Connection) -> None:
    """If this failed, a report that groups by organizations would be an error where one is named."""
    [catalogue] = busy.execute("select usage_catalogue_v1() as told").fetchall()
    reports = [one["name"] for one in catalogue["told"]["groupings"] if "usage_report_v1" in one["offered_by"]]
    assert "organizations" in reports
    for report in reports:
        for organization in (None, "org-0"):
            [row] = busy.execute(
                "select usage_report_v1(%s, now() - interval '30 days', now(), %s) as told", [report, organization]
            ).fetchall()
            assert row["told"]["rows"] or report == "panels", (report, organization)
