"""Each report of the benchmark, asked of the calls, of their sums, and as admins would ask it."""

from __future__ import annotations

from dataclasses import dataclass

# What all ways tell of a group of calls, as they spell it.
FAILED = "coalesce(sum(calls) filter (where status <> 'ok'), 0)"
OF_ROWS = f"sum(calls), sum(total_tokens), sum(total_cost), {FAILED}, sum(potential_cost)"
OF_SUMS = "sum(calls), sum(total_tokens), sum(total_cost), sum(failed_calls), sum(potential_cost)"
P95_OF_ROWS = "percentile_cont(0.95) within group (order by latency_ms)"
P95_OF_SUMS = "latency_percentile(sum(latency_histogram), 0.95)"

DAYS = "day >= %(since)s::date"
TIME = "created_at >= %(since)s"
MINE = " and organization_id = %(organization)s"


@dataclass(frozen=True)
class Report:
    """A question: the answers of the first two must be the same, but for the last column where it is a percentile."""

    name: str
    rows: str
    sums: str
    view: str | None = None
    organization: str | None = None
    percentile: bool = False
    claims: str | None = None
    """A token's claims where an admin asks as himself, by row level security."""
    totals: bool = False
    """One of the reports whose gain has been promised."""


BIG, SMALL = "org-0", "org-211"


def _select(what: str, table: str, where: str, group: str, more: str = "") -> str:
    keys = f"{group}, " if group else ""
    return f"select {keys}{what} from {table} where {where}{f' group by {group}' if group else ''} {more}"


def _of(
    name: str,
    group: str,
    table: str,
    view: str | None = None,
    *,
    organization: str | None = None,
    only: str = "",
    more: str = "",
    percentile: bool = False,
    totals: bool = False,
) -> Report:
    """A report of groups, which the calls and the table of sums call by the same names."""
    where = (MINE if organization else "") + (f" and {only}" if only else "")
    return Report(
        name,
        _select(OF_ROWS + (f", {P95_OF_ROWS}" if percentile else ""), "token_usage_logs", TIME + where, group, more),
        _select(
            OF_SUMS + (f", {P95_OF_SUMS}" if percentile else ""),
            table,
            DAYS + where,
            group,
            more,
        ),
        view,
        organization,
        percentile,
        totals=totals,
    )


TOTALS, DAILY = "usage_aggregations_daily_totals", "usage_aggregations_daily_agents"
USERS, PARTS = "usage_aggregations_daily_users", "usage_aggregations_daily_parts"
DEAREST = "order by sum(total_cost) desc limit 20"
REPORT = "select usage_report_v1('{}', %(since)s, %(until)s, %(organization)s)"

MODELS_OF_ROWS = (
    f"select (created_at at time zone 'UTC')::date, provider, model, {OF_ROWS}, {P95_OF_ROWS}"
    f" from token_usage_logs where {TIME}{{mine}} group by 1, 2, 3"
)
MODELS_OF_SUMS = (
    f"select day, provider, model, {OF_SUMS}, {P95_OF_SUMS} from {DAILY} where {DAYS}{{mine}} group by 1, 2, 3"
)

CLAIMS = '{"sub": "the-admin-of-org-0", "role": "authenticated"}'

REPORTS = (
    _of("totals by service, all", "service_type", TOTALS, "select * from mv_service_costs", totals=True),
    _of(
        "totals by service, a big organization",
        "service_type",
        TOTALS,
        "select * from get_dashboard_stats(%(organization)s, 30)",
        organization=BIG,
        totals=True,
    ),
    _of(
        "totals by service, a small organization",
        "service_type",
        TOTALS,
        "select * from get_dashboard_stats(%(organization)s, 30)",
        organization=SMALL,
        totals=True,
    ),
    Report(
        "totals of the big one, asked by its admin",
        _select(OF_ROWS, "token_usage_logs", TIME, "service_type"),
        _select(OF_SUMS, TOTALS, DAYS, "service_type"),
        "select * from service_performance_metrics where day >= %(since)s::date",
        BIG,
        claims=CLAIMS,
    ),
    _of("totals by organization, all", "organization_id", TOTALS, "select * from mv_service_costs"),
    Report(
        "cost by day, all",
        f"select (created_at at time zone 'UTC')::date, {OF_ROWS} from token_usage_logs where {TIME} group by 1",
        f"select day, {OF_SUMS} from {TOTALS} where {DAYS} group by 1",
        "select * from system_analytics where date >= %(since)s::date",
    ),
    _of("top users, all", "organization_id, user_id", USERS, REPORT.format("users"), more=DEAREST),
    _of(
        "top users, the big one",
        "user_id",
        USERS,
        "select * from mv_user_service_usage where organization_id = %(organization)s order by total_cost desc limit 20",
        organization=BIG,
        more=DEAREST,
    ),
    Report(
        "models by day with p95, all",
        MODELS_OF_ROWS.format(mine=""),
        MODELS_OF_SUMS.format(mine=""),
        REPORT.format("models"),
        percentile=True,
    ),
    Report(
        "models by day with p95, the big one",
        MODELS_OF_ROWS.format(mine=MINE),
        MODELS_OF_SUMS.format(mine=MINE),
        REPORT.format("models"),
        BIG,
        percentile=True,
    ),
    _of("agents with p95, all", "agent_id", DAILY, REPORT.format("agents"), percentile=True),
    _of(
        "agents with p95, the big one",
        "agent_id",
        DAILY,
        "select * from agent_success_rate(days => 30, organization => %(organization)s)",
        organization=BIG,
        percentile=True,
    ),
    _of(
        "steps with p95, all",
        "workflow_id, workflow_step",
        PARTS,
        "select * from mv_workflow_efficiency",
        only="workflow_id is not null",
        percentile=True,
    ),
    _of(
        "steps with p95, the big one",
        "workflow_id, workflow_step",
        PARTS,
        "select * from mv_workflow_efficiency where organization_id = %(organization)s",
        organization=BIG,
        only="workflow_id is not null",
        percentile=True,
    ),
    _of(
        "seats, all",
        "panel_id, panel_position",
        PARTS,
        "select * from mv_panel_performance",
        only="panel_id is not null",
    ),
    _of(
        "seats, the big one",
        "panel_id, panel_position",
        PARTS,
        "select * from mv_panel_performance where organization_id = %(organization)s",
        organization=BIG,
        only="panel_id is not null",
    ),
    _of("cache savings by model, all", "provider, model", DAILY, REPORT.format("cache")),
    Report(
        "cost between two instants, the big one",
        "select coalesce(sum(calls), 0), sum(total_tokens), sum(total_cost) from token_usage_logs"
        " where organization_id = %(organization)s and created_at >= %(odd_since)s and created_at < %(odd_until)s",
        "select calls, total_tokens, total_cost from organization_cost(%(organization)s, %(odd_since)s, %(odd_until)s)",
        None,
        BIG,
    ),
)

# What has no counterpart in one query of the calls.
FUNCTIONS = {
    "get_dashboard_stats, all": "select * from get_dashboard_stats(null, 30)",
    "forecast_v1, all": "select forecast_v1()",
    "forecast_v1, the big one": f"select forecast_v1('{BIG}')",
    "anomalies_v1, 7 days, all": "select anomalies_v1(now() - interval '7 days', now())",
    "anomalies_v1, 7 days, the big one": f"select anomalies_v1(now() - interval '7 days', now(), '{BIG}')",
    "duplicates_v1, 7 days, all": "select duplicates_v1(now() - interval '7 days', now())",
    "duplicates_v1, 7 days, the big one": f"select duplicates_v1(now() - interval '7 days', now(), '{BIG}')",
}
