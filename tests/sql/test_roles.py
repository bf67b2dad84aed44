"""Who may see and do what, by role, on every table, view, partition and function, on every kind of database."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql
from psycopg.errors import InsufficientPrivilege

from tests.sql.access_world import PURE, QUESTIONS, READERS, Answer, Question, World, cost, make_world
from tests.sql.conftest import KINDS
from tests.sql.helpers import (
    ADMIN,
    ALICE,
    BOB,
    Connection,
    Row,
    a_call,
    a_cost,
    a_run,
    acquire,
    acting_as,
    audit,
    call,
    call_id,
    connect,
    record,
    record_runs,
    renew,
    set_budget,
    wish,
)
from vital_tracking.migrate import find_migrations, objects_of

# Who may read. Nobody may write anywhere, but for what the service role manages (MANAGED).
READABLE = {
    "public.abuse_findings": {"authenticated", "service_role"},
    "vital_private.abuse_marks": {"authenticated", "service_role"},
    "vital_private.abuse_patterns": {"authenticated", "service_role"},
    "vital_private.abuse_rules": {"authenticated", "service_role"},
    "public.admin_audit": {"authenticated", "service_role"},
    "public.advice_runs": {"authenticated", "service_role"},
    "public.agent_performance_metrics": {"authenticated", "service_role"},
    "public.agent_usage_detailed": {"authenticated", "service_role"},
    "public.analytics_freshness": {"service_role"},
    "public.budget_grants": {"service_role"},
    "public.budget_limits": {"authenticated", "service_role"},
    "public.budget_status": {"authenticated", "service_role"},
    "public.budget_windows": {"authenticated", "service_role"},
    "vital_private.budget_overrides": {"authenticated", "service_role"},
    "public.cost_alerts": {"authenticated", "service_role"},
    "public.model_prices": {"authenticated", "service_role"},
    "public.model_tiers": {"authenticated", "service_role"},
    "public.mv_panel_performance": {"service_role"},
    "public.mv_service_costs": {"service_role"},
    "public.mv_user_service_usage": {"service_role"},
    "public.mv_workflow_efficiency": {"service_role"},
    "public.open_recommendations": {"authenticated", "service_role"},
    "public.organization_members": {"authenticated", "service_role"},
    "public.recommendations": {"authenticated", "service_role"},
    "public.saved_reports": {"authenticated", "service_role"},
    "public.report_schedules": {"authenticated", "service_role"},
    "public.retention_policies": {"authenticated", "service_role"},
    "public.service_performance_metrics": {"authenticated", "service_role"},
    "public.service_runs": {"authenticated", "service_role"},
    "public.system_analytics": {"authenticated", "service_role"},
    "public.token_usage_logs": {"authenticated", "service_role"},
    "public.usage_aggregations_daily_agents": {"authenticated", "service_role"},
    "public.agent_executions": {"authenticated", "service_role"},
    "public.agent_executions_hourly": {"authenticated", "service_role"},
    "public.platform_events": {"authenticated", "service_role"},
    "public.platform_events_5min": {"authenticated", "service_role"},
    "public.platform_events_daily_sessions": {"authenticated", "service_role"},
    "public.plans": {"authenticated", "service_role"},
    "public.quota_status": {"authenticated", "service_role"},
    "public.resource_prices": {"authenticated", "service_role"},
    "public.subscriptions": {"authenticated", "service_role"},
    "public.tenant_cost_events": {"authenticated", "service_role"},
    "public.tenant_costs_5min": {"authenticated", "service_role"},
    "public.tenant_costs_daily": {"authenticated", "service_role"},
    "public.usage_aggregations_daily_parts": {"authenticated", "service_role"},
    "public.usage_aggregations_daily_totals": {"authenticated", "service_role"},
    "public.panel_performance": {"authenticated", "service_role"},
    "public.service_costs": {"authenticated", "service_role"},
    "public.user_service_usage": {"authenticated", "service_role"},
    "public.workflow_efficiency": {"authenticated", "service_role"},
    "public.usage_aggregations_daily": {"authenticated", "service_role"},
    "public.usage_aggregations_hourly": {"authenticated", "service_role"},
    "public.usage_logs": {"authenticated", "service_role"},
    "public.usage_aggregations_daily_users": {"authenticated", "service_role"},
    "public.usage_aggregations_hourly_totals": {"authenticated", "service_role"},
    "public.workflow_analytics": {"authenticated", "service_role"},
    # What functions that run with the rights of their caller read: the catalogue of reports, and calls under the policies.
    "vital_private.measured_calls": {"authenticated", "service_role"},
    **{
        f"vital_private.visible_{name}": {"authenticated", "service_role"}
        for name in ("daily_agents", "daily_parts", "daily_totals", "daily_users", "hourly_totals")
    },
    "vital_private.days": {"authenticated", "service_role"},
    # What is gone, by key: a copy elsewhere is filled by the service role.
    "vital_private.export_deletions": {"service_role"},
    "vital_private.usage_aggregations": {"authenticated", "service_role"},
    "vital_private.usage_dimensions": {"authenticated", "service_role"},
    "vital_private.usage_groupings": {"authenticated", "service_role"},
    "vital_private.usage_measures": {"authenticated", "service_role"},
}

# What the service role may write, and how.
MANAGED = {
    "public.budget_limits": {"insert", "update", "delete"},
    "public.organization_members": {"insert", "update", "delete"},
    "public.plans": {"insert", "update", "delete"},
    "public.subscriptions": {"insert", "update", "delete"},
    "public.retention_policies": {"update"},
}

# Who may call what. A function that is not listed is for its owner alone.
EXECUTABLE = {
    **dict.fromkeys(
        (
            "public.acquire_grants_v1",
            "public.add_model_price_v1",
            "public.aggregate_usage_daily",
            "public.aggregate_usage_hourly",
            "public.apply_retention",
            "public.archive_month_v1",
            "public.ask_for_report_v1",
            "public.audit_budgets_v1",
            "public.audit_usage_v1",
            "public.backfill_usage_v1",
            "public.calls_to_price_v1",
            "public.check_budget_v1",
            "public.claim_alerts_v1",
            "public.claim_report_v1",
            "public.database_id_v1",
            "public.database_time_v1",
            "public.demo_history_v1",
            "public.duplicates_v1",
            "public.duplicates_v2",
            "public.ensure_partitions_v1",
            "public.export_begin_v1",
            "public.export_days_v1",
            "public.export_end_v1",
            "public.export_index_v1",
            "public.export_save_v1",
            "public.export_status_v1",
            "public.find_abuse_v1",
            "public.forget_user",
            "public.import_lines_v1",
            "public.import_place_v1",
            "public.imports_v1",
            "public.installation_v1",
            "public.inexact_calls_v1",
            "public.maintain_partitions",
            "public.maintain_partitions_v1",
            "public.model_prices_v1",
            "public.months_v1",
            "public.retention_plan_v1",
            "public.row_totals_v1",
            "public.note_access_v1",
            "public.note_saving_v1",
            "public.post_events_v1",
            "public.post_user_events_v1",
            "public.queue_backfill_v1",
            "public.record_calls_v1",
            "public.record_calls_v2",
            "public.add_resource_price_v1",
            "public.allocate_cost_v1",
            "public.database_sizes_v1",
            "public.unknown_organizations_v1",
            "public.record_counters_v1",
            "public.record_sizes_v1",
            "public.record_costs_v1",
            "public.record_events_v1",
            "public.record_executions_v1",
            "public.record_runs_v1",
            "public.reprice_costs_v1",
            "public.recount_budgets_v1",
            "public.refresh_analytics",
            "public.remove_budget_v1",
            "public.remove_demo_history_v1",
            "public.remove_model_tier_v1",
            "public.set_model_tier_v1",
            "public.renew_grants_v1",
            "public.reprice_calls_v1",
            "public.save_advice_v1",
            "public.schedule_maintenance",
            "public.schedule_refresh",
            "public.schedule_report_v1",
            "public.set_retention_v1",
            "public.settle_alerts_v1",
            "public.settle_report_v1",
            "public.tracking_status_v1",
            "public.unpriced_calls_v1",
            "public.unschedule_report_v1",
            "public.usage_catalogue_v1",
            "public.usage_history_v1",
            "public.usage_report_v1",
        ),
        frozenset({"service_role"}),
    ),
    **dict.fromkeys(
        (
            "public.abuse_findings_v1",
            "public.abuse_settings_v1",
            "public.decide_abuse_v1",
            "public.set_abuse_rule_v1",
            "public.unmark_abuse_v1",
            "vital_private.decide_abuse",
            "vital_private.action_beside",
            "vital_private.finding_json",
            "vital_private.rows_of_finding",
            "vital_private.set_abuse_rule",
            "vital_private.unmark_abuse",
            "public.decide_recommendation_v1",
            "public.last_advice_v1",
            "public.may_renew_advice_v1",
            "public.recommendations_v1",
            "vital_private.decide_recommendation",
            "vital_private.may_renew_advice",
            "vital_private.recommendation_json",
            "vital_private.measured_from",
            "public.add_member_v1",
            "public.remove_report_v1",
            "public.save_report_v1",
            "public.saved_reports_v1",
            "public.agent_success_rate",
            "public.agents_v1",
            "public.blocked_calls_v1",
            "public.budget_overrides_v1",
            "public.budget_preview_v1",
            "public.call_groups_v1",
            "public.budget_windows_v1",
            "public.budgets_v1",
            "public.anomalies_v1",
            "public.audit_v1",
            "public.change_member_v1",
            "public.calls_v1",
            "public.check_budget",
            "public.cost_alerts_v1",
            "public.cost_breakdown",
            "public.cost_forecast",
            "public.dashboard_summary",
            "public.duplicate_requests",
            "public.duplicates_v1",
            "public.duplicates_v2",
            "public.shadow_pairs",
            "public.shadow_pairs_v1",
            "vital_private.shadowed_call",
            "public.forecast_v1",
            "public.forget_user_v1",
            "public.user_traces_v1",
            "public.get_agent_success_rate",
            "public.get_dashboard_stats",
            "public.calculate_tenant_health",
            "public.get_tenant_cost",
            "public.get_tenant_engagement",
            "public.tenant_health",
            "public.tenant_health_v1",
            "public.invoice_v1",
            "public.latency_percentile",
            "public.latency_percentiles",
            "public.my_memberships",
            "public.members_v1",
            "public.name_member_v1",
            "public.name_organization_v1",
            "public.names_v1",
            "public.organization_cost",
            "public.override_budget_v1",
            "public.platform_explore_v1",
            "public.platform_rows_v1",
            "public.budget_use_v1",
            "public.machine_hours_v1",
            "public.model_tiers_v1",
            "public.outcomes_v1",
            "public.resource_prices_v1",
            "public.raise_budget_v1",
            "public.remove_budget_v1",
            "public.retention_v1",
            "public.remove_member_v1",
            "public.metadata_keys_v1",
            "public.run_ids_v1",
            "public.run_tree_v1",
            "public.runs_v1",
            "public.runs_version_v1",
            "public.claim_plan_v1",
            "public.end_subscription_v1",
            "public.plans_v1",
            "public.quota_status_v1",
            "public.quotas_v1",
            "public.rate_limits_v1",
            "public.set_budget_v1",
            "public.set_plan_v1",
            "public.remove_plan_v1",
            "public.set_subscription_v1",
            "public.set_subscriptions_v1",
            "public.subscriptions_v1",
            "public.top_usage",
            "public.usage_anomalies",
            "public.usage_explore_v1",
            "public.usage_version_v1",
            "public.user_engagement",
            "vital_private.administered_organizations",
            # What these functions, which run with the rights of their caller, need: calendars, histograms, texts of queries.
            "vital_private.ask_copy",
            "vital_private.copied_until",
            "vital_private.filter_texts",
            "vital_private.histogram_of",
            "vital_private.reader_of_calls",
            "vital_private.alert_json",
            "vital_private.all_latencies",
            "vital_private.budget_given",
            "vital_private.budget_json",
            "vital_private.budget_model",
            "vital_private.budget_wanted",
            "vital_private.budgets_version",
            "vital_private.change_budgets",
            "vital_private.check_budget_columns",
            "vital_private.counted_as",
            "vital_private.own_sessions",
            "vital_private.replay_budget",
            "vital_private.check_given",
            "vital_private.by_a_user",
            "vital_private.change_member",
            "vital_private.owner_of_reports",
            "vital_private.remove_report",
            "vital_private.save_report",
            "vital_private.call_filter",
            "vital_private.found_among",
            "vital_private.where_of",
            "vital_private.check_administered",
            "vital_private.check_times",
            "vital_private.columns_of",
            "vital_private.costs_by_hour",
            "vital_private.count_at",
            "vital_private.explored_json",
            "vital_private.filter_column",
            "vital_private.runs_inside",
            "vital_private.runs_page",
            "vital_private.first_of_days",
            "vital_private.forget_asked",
            "vital_private.forecast_of",
            "vital_private.grouping_named",
            "vital_private.has_one_of",
            "vital_private.has_whole_hours",
            "vital_private.alike_calls",
            "vital_private.cache_key",
            "vital_private.cache_written_at",
            "vital_private.call_condition",
            "vital_private.repeated_calls",
            "vital_private.is_time_out",
            "vital_private.price_facts",
            "vital_private.kept_for",
            "vital_private.kept_from",
            "vital_private.summed_rows_kept_since",
            "vital_private.retention_is_scheduled",
            "vital_private.latencies_of",
            "vital_private.latency_bucket",
            "vital_private.latency_of",
            "vital_private.change_plan",
            "vital_private.remove_plan",
            "vital_private.change_subscription",
            "vital_private.change_subscriptions",
            "vital_private.claim_plan",
            "vital_private.close_subscription",
            "vital_private.keeps",
            "vital_private.limit_for",
            "vital_private.limits_for",
            "vital_private.month_start",
            "vital_private.percent_of",
            "vital_private.plan_limit",
            "vital_private.subscription_at",
            "vital_private.subscription_json",
            "vital_private.limits_of",
            "vital_private.local_day",
            "vital_private.local_midnight",
            "vital_private.measure",
            "vital_private.measure_columns",
            "vital_private.measured",
            "vital_private.measures_json",
            "vital_private.name_member",
            "vital_private.name_organization",
            "vital_private.names_of",
            "vital_private.newest",
            "vital_private.no_such_filter",
            "vital_private.event_failed",
            "vital_private.other_cost",
            "vital_private.check_platform_kind",
            "vital_private.has_own_alone",
            "vital_private.platform_dimensions",
            "vital_private.platform_filter",
            "vital_private.own_calls",
            "vital_private.own_costs",
            "vital_private.own_events",
            "vital_private.own_executions",
            "vital_private.part_columns",
            "vital_private.parts_json",
            "vital_private.project_columns",
            "vital_private.quoted_list",
            "vital_private.reaches_at",
            "vital_private.rows_kept_since",
            "vital_private.rows_wanted",
            "vital_private.run_sums",
            "vital_private.runs_within",
            "vital_private.same_keys",
            "vital_private.spent_by_day",
            "vital_private.subject",
            "vital_private.sum_columns",
            "vital_private.summed_measures",
            "vital_private.total",
            "vital_private.check_tenant",
            "vital_private.health_by_window",
            "vital_private.health_reasons",
            "vital_private.health_scores",
            "vital_private.tenant_measures",
            "vital_private.usage_by_subject",
            "vital_private.usual_of_others",
            "vital_private.window_end",
            "vital_private.window_start",
            "vital_private.windows_met",
            "vital_private.within_reason",
        ),
        frozenset({"authenticated", "service_role"}),
    ),
}

RELATIONS = """
    select c.oid, n.nspname || '.' || c.relname as name, c.relkind, c.relrowsecurity, c.reloptions
    from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
    where n.nspname in ('public', 'vital_private') and c.relkind in ('r', 'p', 'v', 'm', 'f')
"""
FUNCTIONS = """
    select p.oid, n.nspname || '.' || p.proname as name, p.proargtypes::regtype[]::text[] as kinds
    from pg_proc as p join pg_namespace as n on n.oid = p.pronamespace
    where n.nspname in ('public', 'vital_private')
"""
CLIENTS = ("anon", "authenticated", "service_role")


@pytest.fixture(scope="module", params=KINDS)
def peopled(request: pytest.FixtureRequest, urls: dict[str, str]) -> Iterator[tuple[Connection, World]]:
    """The owner's connection to each kind of database in turn, with a world in it; rolled back when all tests have had it."""
    with connect(urls[request.param]) as connection, connection.transaction(force_rollback=True):
        yield connection, make_world(connection)


@pytest.fixture
def anywhere(peopled: tuple[Connection, World]) -> Iterator[Connection]:
    """The same, and what the test does is rolled back at its end."""
    connection, _ = peopled
    with connection.transaction(force_rollback=True):
        yield connection


@pytest.fixture
def world(peopled: tuple[Connection, World]) -> World:
    """What is in it."""
    return peopled[1]


def answer(connection: Connection, asked: Question, world: World) -> Answer:
    """The rows of a relation, or what a function answers."""
    arguments = asked.with_arguments(world)
    named = sql.SQL(", ").join(
        sql.SQL("{} => {}").format(sql.Identifier(name), sql.Placeholder(name)) for name in arguments
    )
    form = "select * from public.{}({})" if asked.is_function else "select * from public.{}"
    rows = connection.execute(sql.SQL(form).format(sql.Identifier(asked.name), named), arguments).fetchall()
    return rows[0][asked.name] if rows and set(rows[0]) == {asked.name} else rows


@pytest.mark.parametrize("reader", READERS)
def test_everyone_sees_exactly_what_is_theirs(anywhere: Connection, world: World, reader: str) -> None:
    """If this failed, a customer would read another customer's bill, or miss lines of their own."""
    who = READERS[reader]
    for asked in QUESTIONS:
        with acting_as(anywhere, who.role, who.claims):
            try:
                told = asked.told(answer(anywhere, asked, world), world)
            except InsufficientPrivilege:
                told = None
        assert told == asked.expected(who), str(asked)


@pytest.mark.parametrize("claims", [{"role": "anon"}, {"sub": ADMIN}, ""], ids=["anon", "admin", "none"])
def test_anonymous_visitors_see_nothing(anywhere: Connection, world: World, claims: Row | str) -> None:
    """If this failed, the publishable key in every browser would open the books."""
    for asked in QUESTIONS:
        with acting_as(anywhere, "anon", claims), pytest.raises(InsufficientPrivilege):
            answer(anywhere, asked, world)


def test_a_mixed_sum_would_be_noticed(anywhere: Connection, world: World) -> None:
    """If this failed, the tests above would not see another organization's call inside a sum."""
    everything = cost()(
        anywhere.execute("select sum(total_cost) as total_cost from token_usage_logs").fetchall(), world
    )
    assert everything == set(READERS["service role"].own)
    twice = "select 2 * total_cost as total_cost from token_usage_logs"
    with pytest.raises(AssertionError, match="twice"):
        cost()(anywhere.execute(twice).fetchall(), world)


def test_nothing_is_in_reach_without_an_expectation_here(anywhere: Connection) -> None:
    """If this failed, a table, view or function was added and nobody has said who must be told what."""
    relations = {row["name"] for row in anywhere.execute(RELATIONS).fetchall() if row["name"].startswith("public.")}
    readable = {name for name in READABLE if name.startswith("public.")}
    assert {f"public.{asked.name}" for asked in QUESTIONS if not asked.is_function} == relations == readable
    functions = {name for name, roles in EXECUTABLE.items() if "authenticated" in roles and name.startswith("public.")}
    asked_of_users = {f"public.{asked.name}" for asked in QUESTIONS if asked.is_function}
    assert functions - {f"public.{name}" for name in PURE} <= asked_of_users


def test_a_workflow_s_totals_count_only_calls_that_the_reader_may_see(anywhere: Connection) -> None:
    """If this failed, a user would read other users' spending out of the totals of a run they share."""
    record(anywhere, a_call(9, service_run_id="r-1", user_id=BOB))
    query = "select calls, total_cost from workflow_analytics where service_run_id = 'r-1'"
    seen = {}
    for role, sub in (("service_role", ""), ("authenticated", ALICE)):
        with acting_as(anywhere, role, {"sub": sub}):
            [row] = anywhere.execute(query).fetchall()
            seen[role] = (row["calls"], str(row["total_cost"]))
    assert seen == {"service_role": (2, "1.42"), "authenticated": (1, "1")}


def test_reading_is_granted_as_written_here_and_nowhere_else(anywhere: Connection) -> None:
    """If this failed, a table or partition was added without deciding who may read it."""
    found: dict[str, set[str]] = {}
    for relation in anywhere.execute(RELATIONS).fetchall():
        for role in CLIENTS:
            rights = anywhere.execute(
                "select has_table_privilege(%(role)s, %(oid)s, 'select')"
                " or has_any_column_privilege(%(role)s, %(oid)s, 'select') as granted",
                {"role": role, "oid": relation["oid"]},
            ).fetchone()
            assert rights is not None
            if rights["granted"]:
                found.setdefault(relation["name"], set()).add(role)
    assert found == READABLE


def test_no_client_can_write_to_anything(anywhere: Connection) -> None:
    """If this failed, a user could change what a call cost, and the bill would no longer be the truth."""
    writable = anywhere.execute(
        f"""
        select relation.name, role, privilege
        from ({RELATIONS}) as relation,
          unnest(array['anon', 'authenticated', 'service_role', 'vital_auditor']) as role,
          unnest(array['insert', 'update', 'delete', 'truncate', 'references', 'trigger']) as privilege
        where has_table_privilege(role, relation.oid, privilege)
          or (privilege in ('insert', 'update', 'references') and has_any_column_privilege(role, relation.oid, privilege))
        """
    ).fetchall()
    assert {(row["name"], row["role"], row["privilege"]) for row in writable} == {
        (relation, "service_role", privilege) for relation, rights in MANAGED.items() for privilege in rights
    }
    sequences = anywhere.execute(
        """
        select c.relname, role from pg_class as c, unnest(array['anon', 'authenticated', 'service_role', 'vital_auditor']) as role
        where c.relkind = 'S' and c.relnamespace = 'public'::regnamespace
          and has_sequence_privilege(role, c.oid, 'usage, select, update')
        """
    ).fetchall()
    assert sequences == []


def test_the_auditor_reads_what_the_service_role_reads_and_calls_what_changes_nothing(anywhere: Connection) -> None:
    """If this failed, a dashboard on the auditor's login would show less than there is, or could change something."""
    reads = f"""
        select relation.name from ({RELATIONS}) as relation
        where has_table_privilege('service_role', relation.oid, 'select')
          <> has_table_privilege('vital_auditor', relation.oid, 'select')
    """
    assert anywhere.execute(reads).fetchall() == []
    calls = f"""
        select function.name, has_function_privilege('vital_auditor', p.oid, 'execute') as may,
          has_function_privilege('service_role', p.oid, 'execute') and p.provolatile <> 'v' as expected
        from ({FUNCTIONS}) as function join pg_proc as p on p.oid = function.oid
    """
    rows = anywhere.execute(calls).fetchall()
    assert [row["name"] for row in rows if row["expected"] != row["may"]] == []
    may = {row["name"] for row in rows if row["may"]}
    assert {"public.usage_report_v1", "public.cost_breakdown", "public.budgets_v1", "public.tracking_status_v1"} <= may
    assert not may & {"public.record_calls_v1", "public.forget_user", "public.apply_retention", "public.set_budget_v1"}


def test_a_role_that_is_granted_the_auditor_s_reads_and_writes_nothing(anywhere: Connection) -> None:
    """If this failed, a login for Metabase could not be made in one line."""
    anywhere.execute(
        "create role metabase_login login; grant vital_auditor to metabase_login; grant metabase_login to current_user"
    )
    with acting_as(anywhere, "metabase_login"):
        [row] = anywhere.execute("select count(*) as calls from token_usage_logs").fetchall()
        assert row["calls"] > 0
        assert anywhere.execute("select * from system_analytics").fetchall()
    for write in (*WRITES, "select record_calls_v1('[]')", "select apply_retention(true)"):
        with acting_as(anywhere, "metabase_login"), pytest.raises(InsufficientPrivilege):
            anywhere.execute(write.encode())


def test_an_auditor_who_was_made_later_is_admitted_by_migrate(anywhere: Connection) -> None:
    """If this failed, a server whose migrating role may not make roles could never have an auditor."""
    anywhere.execute("drop owned by vital_auditor")
    ask = "select has_table_privilege('vital_auditor', 'public.budget_limits', 'select') as reads"
    assert anywhere.execute(ask).fetchall() == [{"reads": False}]
    made = objects_of(find_migrations())
    names = [[one.name for one in made if one.kind == kind] for kind in ("relation", "function")]
    anywhere.execute("create table shops (id integer); grant select on shops to service_role")
    anywhere.execute("select vital_private.admit_auditor(%s::text[], %s::text[])", names)
    assert anywhere.execute(ask).fetchall() == [{"reads": True}]
    [shops] = anywhere.execute("select has_table_privilege('vital_auditor', 'shops', 'select') as reads").fetchall()
    assert not shops["reads"], "the team's own tables are not ours to show"
    with acting_as(anywhere, "vital_auditor"):
        assert anywhere.execute("select * from budget_limits").fetchall()


WRITES = (
    "insert into token_usage_logs (id, created_at, priced) values (gen_random_uuid(), '2026-01-01Z', false)",
    "update token_usage_logs set total_cost = 0",
    "update agent_usage_detailed set total_cost = 0",
    "delete from token_usage_logs",
    "delete from service_runs",
    "delete from vital_private.token_usage_logs_default",
    "update model_prices set input_usd_per_mtok = 0",
    "truncate token_usage_logs",
    "update budget_windows set spent = 0",
    "delete from budget_windows",
    "update budget_grants set amount = 0",
    "insert into budget_grants select id, 'me', 1, now() from budget_windows",
    "update cost_alerts set delivered_at = now()",
    "delete from cost_alerts",
    "update vital_private.budget_periods set limit_amount = 0",
    "insert into vital_private.budget_terms values ('metric', 9, 'x', '1')",
    "truncate budget_limits cascade",
    "update admin_audit set actor = 'me'",
    "delete from admin_audit",
    "truncate admin_audit",
    "insert into retention_policies values ('token_usage_logs', null)",
    "delete from retention_policies",
    "update usage_aggregations_hourly_totals set total_cost = 0",
    "delete from usage_aggregations_daily_users",
    "insert into usage_aggregations_daily_agents (day) values ('2026-01-01')",
    "update vital_private.monthly_tables set rows_kept_since = 'infinity'",
)
# What only users may not.
WRITES_OF_THE_SERVICE_ROLE = (
    "insert into budget_limits (entity_type, daily_limit) values ('user', 5)",
    "update budget_limits set daily_limit = 1000",
    "delete from budget_limits",
    "insert into organization_members values ('other', 'me', 'admin')",
    "update organization_members set role = 'admin'",
    "delete from organization_members",
    "update retention_policies set keep = '31 days'",
)


@pytest.mark.parametrize("role", CLIENTS)
def test_writing_fails_for_every_client(anywhere: Connection, role: str) -> None:
    """If this failed, rights that the catalog does not show would let a client write."""
    for statement in WRITES if role == "service_role" else WRITES + WRITES_OF_THE_SERVICE_ROLE:
        with acting_as(anywhere, role, {"sub": ADMIN}):
            try:
                anywhere.execute(statement)
            except InsufficientPrivilege:
                continue
        raise AssertionError(statement)


def test_the_service_role_manages_members(anywhere: Connection) -> None:
    """If this failed, nobody could be made an admin from the server side."""
    with acting_as(anywhere, "service_role"):
        anywhere.execute("insert into organization_members values ('acme', 'dave', 'member')")
        anywhere.execute("update organization_members set role = 'admin' where user_id = 'dave'")
        assert anywhere.execute(
            "delete from organization_members where user_id = 'dave' returning role"
        ).fetchall() == [{"role": "admin"}]


def test_the_service_role_manages_budgets(anywhere: Connection) -> None:
    """If this failed, budgets could be set with our command line only, and not from Supabase's own table editor."""
    with acting_as(anywhere, "service_role"):
        anywhere.execute("delete from subscriptions")
        anywhere.execute("delete from budget_limits")
        anywhere.execute("insert into budget_limits (entity_type, daily_limit) values ('user', 5)")
        assert record(anywhere, a_cost(9))["inserted"] == 1
        anywhere.execute("update budget_limits set daily_limit = 6")
        assert {row["limit_amount"] for row in anywhere.execute("select limit_amount from budget_windows")} == {6}
        assert len(anywhere.execute("delete from budget_limits returning id").fetchall()) == 1
        assert anywhere.execute("select from budget_windows").fetchall() == []


def test_functions_may_be_called_as_written_here_and_by_nobody_else(anywhere: Connection) -> None:
    """If this failed, a function was added without deciding who may call it."""
    found: dict[str, set[str]] = {}
    for function in anywhere.execute(FUNCTIONS).fetchall():
        for role in (*CLIENTS, "public"):
            allowed = anywhere.execute(
                "select has_function_privilege(%s, %s::oid, 'execute') as yes", [role, function["oid"]]
            ).fetchone()
            assert allowed is not None
            if allowed["yes"]:
                found.setdefault(function["name"], set()).add(role)
    assert found == EXECUTABLE


@pytest.mark.parametrize("role", CLIENTS)
def test_nobody_calls_what_is_not_for_them(anywhere: Connection, role: str) -> None:
    """If this failed, a browser could forge calls or read every organization's, by rights that the catalog does not show."""
    functions = anywhere.execute(f"{FUNCTIONS} and p.prorettype <> 'trigger'::regtype").fetchall()
    refused = [function for function in functions if role not in EXECUTABLE.get(function["name"], ())]
    assert len(refused) > 40
    for function in refused:
        nulls = ", ".join(f"null::{kind}" for kind in function["kinds"])
        with acting_as(anywhere, role, {"sub": ADMIN}):
            try:
                anywhere.execute(sql.SQL(f"select {function['name']}({nulls})"))
            except InsufficientPrivilege:
                continue
        raise AssertionError(function["name"])


def test_the_service_role_can_do_its_work_through_functions(anywhere: Connection) -> None:
    """If this failed, the secret key of a project could not record anything."""
    with acting_as(anywhere, "service_role", {"role": "service_role"}):
        anywhere.execute("delete from subscriptions")
        anywhere.execute("delete from budget_limits")
        assert record(anywhere, a_call(9))["inserted"] == 1
        assert record_runs(anywhere, a_run("r-9"))["inserted"] == 1
        for asked in (
            "model_prices_v1()",
            "unpriced_calls_v1(null, null, 10)",
            "calls_to_price_v1('2026-01-01', null, 10)",
            "inexact_calls_v1('2026-01-01')",
            "reprice_calls_v1('[]')",
        ):
            anywhere.execute(f"select {asked}")
        budget = set_budget(anywhere, total_limit=5)["id"]
        [answer] = acquire(anywhere, "h", [wish(budget)])
        assert answer["admitted"]
        assert record(anywhere, a_cost(10, 5))["inserted"] == 1
        assert budget in {alert["budget_id"] for alert in call(anywhere, "claim_alerts_v1", holder="h")}
        assert call(anywhere, "settle_alerts_v1", ids="[]", delivered=True) == {"settled": 0}
        assert {window["budget_id"] for window in call(anywhere, "budget_windows_v1")} == {budget}
        assert audit(anywhere) == []
        renew(anywhere, "h")
        for asked in (
            "budgets_v1()",
            "usage_history_v1()",
            "database_time_v1()",
            "cost_alerts_v1()",
            "check_budget_v1('{}')",
        ):
            anywhere.execute(f"select {asked}")
        assert call(anywhere, "remove_budget_v1", budget_id=budget) == {"removed": 1}
        status = anywhere.execute("select tracking_status_v1() as status").fetchone()
        assert status is not None
        assert status["status"]["server_version"]
        assert call(anywhere, "installation_v1")["migrations"]
        anywhere.execute("select ensure_partitions_v1('2031-05-01', 1)")
        seen = anywhere.execute("select total_cost from token_usage_logs where id = %s", [call_id(9)]).fetchall()
        assert [str(row["total_cost"]) for row in seen] == ["0.42"]


def test_the_private_schema_is_closed_to_anonymous_visitors(anywhere: Connection) -> None:
    """If this failed, helpers that trust their caller would be in everybody's reach."""
    rights = anywhere.execute(
        "select role, has_schema_privilege(role, 'vital_private', 'usage') as usage,"
        " has_schema_privilege(role, 'vital_private', 'create') as creates"
        " from unnest(array['anon', 'authenticated', 'service_role']) as role order by role"
    ).fetchall()
    assert [(row["role"], row["usage"], row["creates"]) for row in rights] == [
        ("anon", False, False),
        ("authenticated", True, False),
        ("service_role", True, False),
    ]


def test_no_policy_is_for_everybody_or_for_writing(anywhere: Connection) -> None:
    """If this failed, a policy would let roles in that nobody thought of."""
    policies = anywhere.execute(
        "select tablename, roles::text[] as roles, cmd from pg_policies where schemaname in ('public', 'vital_private')"
    ).fetchall()
    assert {role for policy in policies for role in policy["roles"]} == {
        "authenticated",
        "service_role",
        "vital_auditor",
    }
    assert {(f"public.{p['tablename']}", *p["roles"]) for p in policies if p["cmd"] != "SELECT"} == {
        (relation, "service_role") for relation in MANAGED
    }


def test_no_role_inherits_another_s_rights(anywhere: Connection) -> None:
    """If this failed, signed-in users could act as the service role."""
    members = anywhere.execute(
        "select m.member::regrole::text as member, m.roleid::regrole::text as role from pg_auth_members as m"
        " where m.member in ("
        "select oid from pg_roles where rolname in ('anon', 'authenticated', 'service_role', 'vital_auditor'))"
    ).fetchall()
    assert members == []


def test_migrating_needs_no_superuser(urls: dict[str, str]) -> None:
    """If this failed, teams on managed PostgreSQL could not install it."""
    with psycopg.connect(urls["no superuser"]) as connection:
        found = connection.execute(
            "select r.rolname, r.rolsuper from pg_class as c join pg_roles as r on r.oid = c.relowner"
            " where c.oid = 'public.token_usage_logs'::regclass"
        ).fetchone()
    assert found == ("migrator", False)
