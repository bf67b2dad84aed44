"""What the catalog must not hold, on every kind of database: doors left open by a grant, an option or a policy forgotten.

Each rule is a query for what breaks it. Each query is proved by breaking the rule, in every way that we know of.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from psycopg import sql
from psycopg.errors import UndefinedFunction

from tests.sql.helpers import Connection, a_call, record

SCHEMAS = "('public', 'vital_private')"
FUNCTIONS = f"""
    from pg_proc as p join pg_namespace as n on n.oid = p.pronamespace
    where n.nspname in {SCHEMAS}
"""
RELATIONS = f"""
    from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
    where n.nspname in {SCHEMAS}
"""
SIGNATURE = "n.nspname || '.' || p.proname"
NAME = "n.nspname || '.' || c.relname"

# Policies as PostgreSQL writes them out, without what they ask once a statement: ( SELECT auth.jwt() AS jwt).
UNWRAPPED = r"""
    regexp_replace(
        coalesce(pg_get_expr(polqual, polrelid), '') || ' ' || coalesce(pg_get_expr(polwithcheck, polrelid), ''),
        '\(\s*SELECT (\w+\.)?\w+\([^()]*\) AS \w+\)', '', 'gi'
    )
"""
POLICIES = f"""
    from pg_policy join pg_class as c on c.oid = polrelid join pg_namespace as n on n.oid = c.relnamespace
    where n.nspname in {SCHEMAS}
"""

# In databases that Supabase did not make, the schema auth is made by the first migration.
OWN_AUTH_TOO = FUNCTIONS.replace("in (", "in ('auth', ")

# Functions that run with their owner's rights and are in reach of signed-in users: policies do not hold inside them.
TRUSTED = (
    "vital_private.administered_organizations",
    "vital_private.copied_until",
    "vital_private.change_budgets",
    "vital_private.change_plan",
    "vital_private.remove_plan",
    "vital_private.change_subscription",
    "vital_private.change_subscriptions",
    "vital_private.claim_plan",
    "vital_private.close_subscription",
    "vital_private.decide_abuse",
    "vital_private.decide_recommendation",
    "vital_private.may_renew_advice",
    "vital_private.set_abuse_rule",
    "vital_private.unmark_abuse",
    "vital_private.change_member",
    "vital_private.forget_asked",
    "vital_private.name_member",
    "vital_private.name_organization",
    "vital_private.names_of",
    "vital_private.check_budget_columns",
    "vital_private.counted_as",
    "vital_private.own_sessions",
    "vital_private.remove_report",
    "vital_private.retention_is_scheduled",
    "vital_private.save_report",
    "vital_private.limit_for",
    "vital_private.rows_kept_since",
    "vital_private.summed_rows_kept_since",
    "vital_private.subject",
)


@dataclass(frozen=True)
class Rule:
    """What must not be: a query of names, and statements that break it, each with the name that must then be found."""

    found_by: str
    breaches: tuple[tuple[str, str], ...]


A_FUNCTION = "create function public.opened() returns integer language sql set search_path = '' as 'select 1'"
A_PARTITION = (
    "create table vital_private.later partition of public.token_usage_logs"
    " for values from ('2091-01-01Z') to ('2091-02-01Z')"
)
COMPARING = """create function public.opened() returns bigint language plpgsql set search_path = '' as $$
declare the_day constant date := '2026-01-01';
begin return (select count(*) from public.token_usage_logs as c where c.created_at >= the_day); end $$"""
A_COPY = "as select organization_id, total_cost from public.token_usage_logs"

RULES = {
    "a function that everybody or an anonymous visitor may call": Rule(
        f"select {SIGNATURE} as name {FUNCTIONS} and has_function_privilege('anon', p.oid, 'execute')",
        (
            (A_FUNCTION, "public.opened"),
            ("create procedure vital_private.opened() language sql as ''", "vital_private.opened"),
            ("create aggregate public.opened(integer) (sfunc = int4pl, stype = integer)", "public.opened"),
            ("grant execute on function public.budgets_v1() to public", "public.budgets_v1"),
            ("grant execute on function public.budgets_v1() to anon", "public.budgets_v1"),
            ("grant service_role to anon with inherit true", "public.budgets_v1"),
            (
                "grant execute on function vital_private.administered_organizations() to public",
                "vital_private.administered_organizations",
            ),
        ),
    ),
    "a function whose names its caller may redirect": Rule(
        # What is written in SQL's own way, without quotes, is bound to its names when it is made.
        f"select {SIGNATURE} as name {OWN_AUTH_TOO} and p.prokind <> 'a' and p.prosqlbody is null"
        " and not coalesce(p.proconfig, '{}') @> array['search_path=\"\"']",
        (
            ("alter function public.budgets_v1() reset search_path", "public.budgets_v1"),
            ("alter function public.budgets_v1() reset all", "public.budgets_v1"),
            ("alter function public.budgets_v1() set search_path = public", "public.budgets_v1"),
            ("alter function public.budgets_v1() set search_path = '', public", "public.budgets_v1"),
            ("alter function public.budgets_v1() set search_path to default", "public.budgets_v1"),
            ("alter function vital_private.check_budget_limit() reset all", "vital_private.check_budget_limit"),
            (A_FUNCTION.replace("set search_path = ''", ""), "public.opened"),
            ("create procedure public.opened() language plpgsql as 'begin end'", "public.opened"),
            ("create function auth.opened() returns integer language sql as 'select 1'", "auth.opened"),
        ),
    ),
    "a function past the policies, in reach of signed-in users": Rule(
        f"select {SIGNATURE} as name {FUNCTIONS} and p.prosecdef and has_function_privilege('authenticated', p.oid, 'execute')"
        f" and {SIGNATURE} not in ({', '.join(repr(name) for name in TRUSTED)})",
        (
            (
                "alter function public.organization_cost(text, timestamptz, timestamptz) security definer",
                "public.organization_cost",
            ),
            ("grant execute on function public.tracking_status_v1() to authenticated", "public.tracking_status_v1"),
            (f"{A_FUNCTION.replace('language', 'security definer language')}", "public.opened"),
        ),
    ),
    "a view that reads with its owner's rights": Rule(
        f"select {NAME} as name {RELATIONS} and c.relkind = 'v' and not coalesce(("
        " select o.option_value::boolean from pg_options_to_table(c.reloptions) as o where o.option_name = 'security_invoker'"
        "), false)",
        (
            (f"create view public.opened {A_COPY}", "public.opened"),
            (f"create view public.opened with (security_invoker = false) {A_COPY}", "public.opened"),
            (f"create view vital_private.opened with (security_barrier) {A_COPY}", "vital_private.opened"),
            ("alter view public.budget_status reset (security_invoker)", "public.budget_status"),
            ("alter view public.budget_status set (security_invoker = off)", "public.budget_status"),
            # Replacing a view takes its options away with it.
            (
                "create or replace view public.agent_usage_detailed as table public.agent_usage_detailed",
                "public.agent_usage_detailed",
            ),
        ),
    ),
    "a materialized view that clients may read": Rule(
        f"select {NAME} as name {RELATIONS} and c.relkind = 'm' and exists ("
        " select from unnest(array['anon', 'authenticated']) as role"
        " where has_table_privilege(role, c.oid, 'select') or has_any_column_privilege(role, c.oid, 'select'))",
        tuple(
            (f"create materialized view public.opened {A_COPY}; grant {grant}", "public.opened")
            for grant in (
                "select on public.opened to authenticated",
                "all on public.opened to anon",
                "select on public.opened to public",
                "select (total_cost) on public.opened to authenticated",
                "select on public.opened to service_role; grant service_role to authenticated with inherit true",
            )
        ),
    ),
    "a policy that asks who is asking for each row": Rule(
        f"select polname as name {POLICIES} and {UNWRAPPED} ~* '(\\w+\\.\\w+|current_setting|current_user)\\s*\\('",
        tuple(
            (f"create policy opened on public.service_runs {policy}", "opened")
            for policy in (
                "for select to authenticated using (user_id = auth.jwt() ->> 'sub')",
                "for select to authenticated using (user_id = auth.uid()::text)",
                "for select to authenticated using (user_id = (select auth.jwt()) ->> 'sub' or auth.uid() is null)",
                "for insert to authenticated with check (user_id = auth.uid()::text)",
                "for select to authenticated using (organization_id = any(vital_private.administered_organizations()))",
                "for select to authenticated using (user_id = current_setting('request.jwt.claim.sub', true))",
                # Asked in a subquery, but with a column of the row in it: for each row all the same.
                "for select to authenticated using ((select auth.uid()::text = user_id))",
            )
        ),
    ),
    "a policy for everybody or for anonymous visitors": Rule(
        f"select polname as name {POLICIES} and (polroles @> '{{0}}' or polroles @> array['anon'::regrole::oid])",
        (
            ("create policy opened on public.service_runs using (false)", "opened"),
            ("create policy opened on public.service_runs for select to public using (false)", "opened"),
            ("create policy opened on public.model_prices for select to authenticated, anon using (true)", "opened"),
        ),
    ),
    "a policy by which users write": Rule(
        f"select polname as name {POLICIES} and polcmd <> 'r' and polroles && array['authenticated', 'anon']::regrole[]::oid[]",
        (
            ("create policy opened on public.service_runs to authenticated using (false)", "opened"),
            ("create policy opened on public.budget_limits for insert to authenticated with check (false)", "opened"),
        ),
    ),
    "a table without row level security": Rule(
        # A foreign table cannot have any.
        f"select {NAME} as name {RELATIONS} and c.relkind in ('r', 'p', 'f') and not c.relrowsecurity",
        (
            ("create table public.opened (id integer)", "public.opened"),
            ("create table vital_private.opened (id integer)", "vital_private.opened"),
            ("create table vital_private.opened (id integer) partition by list (id)", "vital_private.opened"),
            ("alter table public.token_usage_logs disable row level security", "public.token_usage_logs"),
            (
                "alter table vital_private.token_usage_logs_default disable row level security",
                "vital_private.token_usage_logs_default",
            ),
            (A_PARTITION, "vital_private.later"),
        ),
    ),
    "something that users may write": Rule(
        f"""
        select {NAME} as name {RELATIONS} and c.relkind in ('r', 'p', 'v', 'm', 'f') and exists (
            select from unnest(array['anon', 'authenticated']) as role,
                unnest(array['insert', 'update', 'delete', 'truncate', 'references', 'trigger']) as privilege
            where has_table_privilege(role, c.oid, privilege)
                or (privilege in ('insert', 'update', 'references') and has_any_column_privilege(role, c.oid, privilege))
        )
        """,
        (
            ("grant insert on public.token_usage_logs to authenticated", "public.token_usage_logs"),
            ("grant update (total_cost) on public.token_usage_logs to authenticated", "public.token_usage_logs"),
            (
                "grant delete on vital_private.token_usage_logs_default to anon",
                "vital_private.token_usage_logs_default",
            ),
            ("grant update on public.budget_status to public", "public.budget_status"),
            ("grant truncate on public.cost_alerts to authenticated", "public.cost_alerts"),
            ("grant trigger on public.cost_alerts to authenticated", "public.cost_alerts"),
        ),
    ),
    "something that anonymous visitors may read": Rule(
        f"select {NAME} as name {RELATIONS} and c.relkind in ('r', 'p', 'v', 'm', 'f')"
        " and (has_table_privilege('anon', c.oid, 'select') or has_any_column_privilege('anon', c.oid, 'select'))",
        (
            ("grant select on public.budget_status to anon", "public.budget_status"),
            ("grant select (model) on public.model_prices to public", "public.model_prices"),
            ("grant all on vital_private.budget_terms to anon", "vital_private.budget_terms"),
        ),
    ),
    # PostgreSQL cannot estimate how many instants lie behind a date, and reads a whole month where a part of it would do.
    "a function that compares instants with a day": Rule(
        f"select distinct {SIGNATURE} as name from pg_proc as p join pg_namespace as n on n.oid = p.pronamespace"
        r" cross join lateral regexp_matches(p.prosrc, '\m(\w+) (?:constant )?date\M', 'g') as declared(day)"
        f" where n.nspname in {SCHEMAS}"
        r" and p.prosrc ~ ('\m(created|occurred|started|ended|recorded)_at\s*[<>]=?\s*' || declared.day[1] || '\M(?!::)')",
        ((COMPARING, "public.opened"), (COMPARING.replace(">=", "<"), "public.opened")),
    ),
    "a sequence that clients may use": Rule(
        f"select {NAME} as name {RELATIONS} and c.relkind = 'S' and exists ("
        " select from unnest(array['anon', 'authenticated', 'service_role']) as role"
        " where has_sequence_privilege(role, c.oid, 'usage, select, update'))",
        (
            ("grant usage on sequence public.cost_alerts_id_seq to authenticated", "public.cost_alerts_id_seq"),
            ("grant select on sequence public.budget_limits_id_seq to service_role", "public.budget_limits_id_seq"),
            ("grant update on sequence public.model_prices_id_seq to public", "public.model_prices_id_seq"),
            ("create sequence public.opened; grant all on sequence public.opened to anon", "public.opened"),
        ),
    ),
    "a schema that clients may add to": Rule(
        f"select n.nspname as name from pg_namespace as n where n.nspname in {SCHEMAS} and exists ("
        " select from unnest(array['anon', 'authenticated', 'service_role']) as role"
        " where has_schema_privilege(role, n.oid, 'create'))",
        (
            ("grant create on schema public to authenticated", "public"),
            ("grant all on schema vital_private to service_role", "vital_private"),
            ("grant create on schema vital_private to public", "vital_private"),
        ),
    ),
}


def offenders(connection: Connection, rule: str) -> set[str]:
    """The names of what breaks a rule."""
    return {row["name"] for row in connection.execute(sql.SQL(RULES[rule].found_by))}


@pytest.mark.parametrize("rule", RULES)
def test_no_forgotten_grant_option_or_policy_opens_the_data(anywhere: Connection, rule: str) -> None:
    """If this failed, one forgotten line of a migration would open the books of everybody."""
    assert offenders(anywhere, rule) == set()


@pytest.mark.parametrize("rule", RULES)
def test_every_forgotten_grant_option_or_policy_would_be_found(anywhere: Connection, rule: str) -> None:
    """If this failed, the test above could not fail, and would tell nothing."""
    for statement, name in RULES[rule].breaches:
        with anywhere.transaction(force_rollback=True):
            before = offenders(anywhere, rule)
            anywhere.execute(statement)
            assert name in offenders(anywhere, rule) - before, statement
    assert offenders(anywhere, rule) == set()


def test_what_is_written_in_sql_s_own_way_counts_as_pinned(anywhere: Connection) -> None:
    """If this failed, functions would have to be slower than they need be: what has a SET clause is not inlined."""
    with anywhere.transaction(force_rollback=True):
        anywhere.execute(A_FUNCTION.replace("set search_path = '' as 'select 1'", "return 1"))
        assert offenders(anywhere, "a function whose names its caller may redirect") == set()


@pytest.mark.parametrize(
    "statement",
    ["select ensure_partitions_v1('2091-01-01', 1)", "select maintain_partitions()"],
    ids=["asked", "needed"],
)
def test_partitions_made_later_are_closed_to_clients(anywhere: Connection, statement: str) -> None:
    """If this failed, every new month would be open until somebody looked."""
    tables = sql.SQL(f"select {NAME} as name {RELATIONS} and c.relkind = 'r'")
    with anywhere.transaction(force_rollback=True):
        # A call of two years ago is in the default partition, until its month gets one.
        assert (
            record(anywhere, a_call(created_at=(datetime.now(UTC) - timedelta(days=730)).isoformat()))["inserted"] == 1
        )
        before = {row["name"] for row in anywhere.execute(tables)}
        anywhere.execute(statement)
        made = {row["name"] for row in anywhere.execute(tables)} - before
        assert any(name.startswith("vital_private.token_usage_logs_20") for name in made)
        for rule in RULES:
            assert offenders(anywhere, rule) == set(), rule
        for name in made:
            anywhere.execute(sql.SQL("alter table {} disable row level security").format(sql.SQL(name)))
        assert offenders(anywhere, "a table without row level security") == made


def test_a_migration_that_names_a_function_wrongly_fails(anywhere: Connection) -> None:
    """If this failed, a slip in a name would leave a new function open to everybody, and nothing would say so."""
    for arguments in ("api => '{budgets_v2}'", "helpers => '{budgets_v1}'"):
        with pytest.raises(UndefinedFunction, match="There is no function budgets"), anywhere.transaction():
            anywhere.execute(f"select vital_private.restrict_functions({arguments})")


def test_a_function_is_granted_by_whose_rights_it_runs_with(anywhere: Connection) -> None:
    """If this failed, a function that sees every organization's calls could be given to all users by one word."""
    trusted = A_FUNCTION.replace("opened", "trusted").replace("language", "security definer language")
    with anywhere.transaction(force_rollback=True):
        anywhere.execute(A_FUNCTION)
        anywhere.execute(trusted)
        anywhere.execute("grant execute on function public.opened(), public.trusted() to anon, authenticated")
        anywhere.execute("select vital_private.restrict_functions(api => '{opened, trusted}')")
        callers = {
            (name, role)
            for name in ("opened", "trusted")
            for role in ("public", "anon", "authenticated", "service_role")
            if anywhere.execute(
                "select has_function_privilege(%s, %s, 'execute') as yes", [role, f"public.{name}()"]
            ).fetchall()
            == [{"yes": True}]
        }
        assert callers == {("opened", "authenticated"), ("opened", "service_role"), ("trusted", "service_role")}
        for rule in RULES:
            assert offenders(anywhere, rule) == set(), rule
