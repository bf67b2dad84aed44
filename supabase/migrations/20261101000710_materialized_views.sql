-- Materialized views over the last 30 days (today, UTC, and the 29 days before), and what refreshes them. They know no row level
-- security, so only the service role reads them; what everyone else reads is in the next migration, and always fresh.

-- What all reports tell of calls is written once, by helpers which are dropped at the end of the migrations of reports: the sums of
-- the rows of an aggregation (`u`), ...
create function vital_private.sums_of_usage() returns text
language sql
set search_path = ''
as $$
  select string_agg(format('sum(u.%1$I) as %1$I', m), ', ') from unnest(vital_private.measures()) as m
$$;

-- ... and what is told of such sums (`s`). Every share of nothing is NULL, as is every average of nothing.
create function vital_private.told_of_usage() returns text
language sql
set search_path = ''
as $$
  select $columns$
    s.calls::bigint as calls,
    s.cached_calls::bigint as cached_calls,
    s.failed_calls::bigint as failed_calls,
    s.blocked_calls::bigint as blocked_calls,
    s.unpriced_calls::bigint as unpriced_calls,
    s.estimated_calls::bigint as estimated_calls,
    s.prompt_tokens,
    s.completion_tokens,
    s.total_tokens,
    s.cache_read_tokens,
    s.total_cost,
    s.potential_cost,
    s.potential_cost - s.total_cost as cache_savings,
    s.total_cost / nullif(s.calls - s.unpriced_calls, 0) as average_cost,
    round(s.cached_calls / nullif(s.calls, 0), 6) as hit_rate,
    round((s.calls - s.failed_calls) / nullif(s.calls - s.blocked_calls, 0), 6) as success_rate,
    (s.latency_us / 1000 / nullif(s.timed_calls, 0))::double precision as average_latency_ms$columns$
$$;

-- The same with percentiles, of sums joined with latency_percentiles(s.latency_histogram, ...) as p (latencies).
create function vital_private.told_of_usage_and_latency() returns text
language sql
set search_path = ''
as $$
  select vital_private.told_of_usage() || $columns$,
    p.latencies[1] as p50_latency_ms,
    p.latencies[2] as p95_latency_ms,
    p.latencies[3] as p99_latency_ms$columns$
$$;

do $do$
declare
  first_day constant text := '(now() at time zone ''UTC'')::date - 29';
  first_hour constant text := 'date_trunc(''day'', now(), ''UTC'') - interval ''29 days''';
  percentiles constant text := 'cross join lateral public.latency_percentiles(s.latency_histogram, ''{0.5,0.95,0.99}'') as p (latencies)';
begin
  execute format(
    $view$
create materialized view public.mv_service_costs as
with runs as (
  select
    r.organization_id, r.service_type, count(*) as runs, count(*) filter (where r.status in ('error', 'cancelled')) as failed_runs,
    avg(extract(epoch from r.ended_at - r.started_at) * 1000)::double precision as average_run_ms
  from public.service_runs as r
  where r.started_at >= %1$s
  group by r.organization_id, r.service_type
)

select
  s.organization_id,
  s.service_type,
  %2$s,
  s.total_cost / nullif(sum(s.total_cost) over (partition by s.organization_id), 0) as share_of_cost,
  coalesce(runs.runs, 0) as runs,
  coalesce(runs.failed_runs, 0) as failed_runs,
  runs.average_run_ms,
  s.total_cost / runs.runs as cost_per_run
from (
  select u.organization_id, u.service_type, %3$s
  from public.usage_aggregations_daily_totals as u
  where u.day >= %5$s
  group by u.organization_id, u.service_type
  having sum(u.calls) > 0
) as s
%4$s
left join runs on runs.organization_id is not distinct from s.organization_id and runs.service_type = s.service_type
    $view$,
    first_hour, vital_private.told_of_usage_and_latency(), vital_private.sums_of_usage(), percentiles, first_day
  );

  execute format(
    $view$
create materialized view public.mv_workflow_efficiency as
with runs as (
  select r.organization_id, r.workflow_id, count(*) as runs
  from public.service_runs as r
  where r.started_at >= %1$s and r.service_type = 'workflow' and r.workflow_id is not null
  group by r.organization_id, r.workflow_id
)

select
  s.organization_id,
  s.workflow_id,
  s.workflow_step,
  s.workflow_step_name,
  %3$s,
  s.total_cost / nullif(sum(s.total_cost) over (partition by s.organization_id, s.workflow_id), 0) as share_of_cost,
  s.latency_us / nullif(sum(s.latency_us) over (partition by s.organization_id, s.workflow_id), 0) as share_of_time,
  runs.runs as workflow_runs,
  s.calls / runs.runs as calls_per_run,
  s.total_cost / runs.runs as cost_per_run
from (
  select
    u.organization_id, u.workflow_id, u.workflow_step,
    (array_agg(u.workflow_step_name order by u.day desc, u.workflow_step_name desc) filter (where u.workflow_step_name is not null))[1]
      as workflow_step_name,
    %4$s
  from public.usage_aggregations_daily_parts as u
  where u.day >= %2$s and coalesce(u.workflow_id, u.workflow_step) is not null
  group by u.organization_id, u.workflow_id, u.workflow_step
  having sum(u.calls) > 0
) as s
%5$s
left join runs on coalesce(runs.organization_id, '') = coalesce(s.organization_id, '')
  and runs.organization_id is not distinct from s.organization_id and runs.workflow_id = s.workflow_id
    $view$,
    first_hour, first_day, vital_private.told_of_usage_and_latency(), vital_private.sums_of_usage(), percentiles
  );

  execute format(
    $view$
create materialized view public.mv_panel_performance as
with runs as (
  select r.organization_id, r.panel_id, count(*) as runs
  from public.service_runs as r
  where r.started_at >= %1$s and r.service_type = 'virtual_panel' and r.panel_id is not null
  group by r.organization_id, r.panel_id
)

select
  s.organization_id,
  s.panel_id,
  s.panel_position,
  s.agent_id,
  s.agent_name,
  %3$s,
  s.total_cost / nullif(sum(s.total_cost) over (partition by s.organization_id, s.panel_id), 0) as share_of_cost,
  s.latency_us / nullif(sum(s.latency_us) over (partition by s.organization_id, s.panel_id), 0) as share_of_time,
  runs.runs as panel_runs,
  s.calls / runs.runs as calls_per_run,
  s.total_cost / runs.runs as cost_per_run
from (
  select
    u.organization_id, u.panel_id, u.panel_position, u.agent_id,
    (array_agg(u.agent_name order by u.day desc, u.agent_name desc) filter (where u.agent_name is not null))[1] as agent_name,
    %4$s
  from public.usage_aggregations_daily_parts as u
  where u.day >= %2$s and u.panel_id is not null
  group by u.organization_id, u.panel_id, u.panel_position, u.agent_id
  having sum(u.calls) > 0
) as s
%5$s
left join runs on coalesce(runs.organization_id, '') = coalesce(s.organization_id, '')
  and runs.organization_id is not distinct from s.organization_id and runs.panel_id = s.panel_id
    $view$,
    first_hour, first_day, vital_private.told_of_usage_and_latency(), vital_private.sums_of_usage(), percentiles
  );

  execute format(
    $view$
create materialized view public.mv_user_service_usage as
with runs as (
  select r.organization_id, r.user_id, r.service_type, count(*) as runs
  from public.service_runs as r
  where r.started_at >= %1$s and r.user_id is not null
  group by r.organization_id, r.user_id, r.service_type
)

select
  s.organization_id,
  s.user_id,
  s.service_type,
  s.active_days,
  s.last_day,
  %3$s,
  coalesce(runs.runs, 0) as runs,
  s.total_cost / runs.runs as cost_per_run
from (
  select
    u.organization_id, u.user_id, u.service_type,
    count(*) filter (where u.calls > 0) as active_days, max(u.day) filter (where u.calls > 0) as last_day, %4$s
  from public.usage_aggregations_daily_users as u
  where u.day >= %2$s
  group by u.organization_id, u.user_id, u.service_type
  having sum(u.calls) > 0
) as s
left join runs on coalesce(runs.organization_id, '') = coalesce(s.organization_id, '')
  and runs.organization_id is not distinct from s.organization_id
  and runs.user_id = s.user_id and runs.service_type = s.service_type
    $view$,
    first_hour, first_day, vital_private.told_of_usage(), vital_private.sums_of_usage()
  );
end;
$do$;

comment on materialized view public.mv_service_costs is 'The last 30 days by organization and service, with cost per run.';
comment on materialized view public.mv_workflow_efficiency is
'The last 30 days by workflow and step: share of the workflow''s cost and time, cost per run of the workflow.';
comment on materialized view public.mv_panel_performance is
'The last 30 days by panel, seat and agent: share of the panel''s cost and time, cost per session of the panel.';
comment on materialized view public.mv_user_service_usage is 'The last 30 days by organization, user and service.';

-- A view is refreshed concurrently by its unique index; NULL is a key like any other.
create unique index mv_service_costs_key on public.mv_service_costs (organization_id, service_type) nulls not distinct;
create unique index mv_workflow_efficiency_key on public.mv_workflow_efficiency
(organization_id, workflow_id, workflow_step) nulls not distinct;
create unique index mv_panel_performance_key on public.mv_panel_performance
(organization_id, panel_id, panel_position, agent_id) nulls not distinct;
create unique index mv_user_service_usage_key on public.mv_user_service_usage
(organization_id, user_id, service_type) nulls not distinct;

create table public.analytics_freshness (
  name text not null primary key,
  refreshed_at timestamptz not null,
  seconds double precision not null
);

comment on table public.analytics_freshness is 'When each materialized view was last refreshed; its figures are those of that moment.';
comment on column public.analytics_freshness.seconds is 'How long that took.';

insert into public.analytics_freshness (name, refreshed_at, seconds)
values
('mv_service_costs', now(), 0),
('mv_workflow_efficiency', now(), 0),
('mv_panel_performance', now(), 0),
('mv_user_service_usage', now(), 0);

alter table public.analytics_freshness enable row level security;

create policy "The service role sees when views were refreshed" on public.analytics_freshness
for select to service_role
using (true);

revoke all on public.analytics_freshness from anon, authenticated, service_role;
revoke all on public.mv_service_costs from anon, authenticated, service_role;
revoke all on public.mv_workflow_efficiency from anon, authenticated, service_role;
revoke all on public.mv_panel_performance from anon, authenticated, service_role;
revoke all on public.mv_user_service_usage from anon, authenticated, service_role;
grant select on public.analytics_freshness to service_role;
grant select on public.mv_service_costs to service_role;
grant select on public.mv_workflow_efficiency to service_role;
grant select on public.mv_panel_performance to service_role;
grant select on public.mv_user_service_usage to service_role;

-- Refresh all materialized views: {"views": [{"name", "seconds", "refreshed_at"}], "busy": false}. Readers are not held up; who is
-- second while another refreshes goes away with no views and "busy": true. Only the owner of a view may refresh it, hence
-- SECURITY DEFINER. The Data API takes the time limit of a function for the whole request.
create function public.refresh_analytics() returns json
language plpgsql
security definer
set search_path = ''
set statement_timeout = '10min'
as $$
declare
  view record;
  started_at timestamptz;
  done json[] := '{}';
begin
  if not pg_catalog.pg_try_advisory_xact_lock(hashtext('vital_tracking.refresh_analytics')) then
    return json_build_object('views', array_to_json(done), 'busy', true);
  end if;
  for view in
    select c.relname as name, c.relispopulated as populated
    from public.analytics_freshness as f
    inner join pg_catalog.pg_class as c
      on f.name = c.relname and c.relnamespace = 'public'::regnamespace and c.relkind = 'm'
    order by c.oid
  loop
    started_at := clock_timestamp();
    execute format('refresh materialized view %s public.%I', case when view.populated then 'concurrently' else '' end, view.name);
    update public.analytics_freshness as f
    set refreshed_at = started_at, seconds = extract(epoch from clock_timestamp() - started_at)
    where f.name = view.name;
    done := done || json_build_object(
      'name', view.name, 'seconds', round(extract(epoch from clock_timestamp() - started_at), 3), 'refreshed_at', started_at
    );
  end loop;
  return json_build_object('views', array_to_json(done), 'busy', false);
end;
$$;

-- Have pg_cron refresh the views every five minutes. False where pg_cron is not there, or does not let us; then whoever likes
-- calls refresh_analytics(). Asking again changes nothing, so ask once more where pg_cron came later.
create function public.schedule_refresh() returns boolean
language sql
security definer
set search_path = ''
as $$
  select vital_private.schedule('vital_tracking.refresh_analytics', '*/5 * * * *', 'select public.refresh_analytics()')
$$;

revoke execute on function public.refresh_analytics() from public, anon, authenticated;
revoke execute on function public.schedule_refresh() from public, anon, authenticated;
grant execute on function public.refresh_analytics() to service_role;
grant execute on function public.schedule_refresh() to service_role;

select public.schedule_refresh();
