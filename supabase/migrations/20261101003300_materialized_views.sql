-- The last 30 days (today, UTC, and the 29 days before) by service, step, seat and user, with what runs cost. Each is a view, always fresh, of
-- which organization admins see their organizations and users what is their own; and the same as a materialized view, `mv_...`, with
-- what refreshes it. Materialized views know no row level security, so only the service role reads them.

do $do$
declare
  first_day constant text := '(now() at time zone ''UTC'')::date - 29';
  first_hour constant text := 'date_trunc(''day'', now(), ''UTC'') - interval ''29 days''';
  sums constant text := vital_private.sum_columns();
  measures constant text := vital_private.measure_columns(latencies => 'p.latencies');
  -- They take most of the time, so they stand outside of what must see all rows: who asks for few waits for those of few.
  percentiles constant text := format('cross join lateral %s as p (latencies)', vital_private.all_latencies());
  part record;
begin
  execute format(
    $view$
    create view public.service_costs with (security_invoker = true) as
    with runs as (
      select
        r.organization_id, r.service_type, count(*) as runs, count(*) filter (where r.status in ('error', 'cancelled', 'abandoned')) as failed_runs,
        avg(extract(epoch from r.ended_at - r.started_at) * 1000)::double precision as average_run_ms
      from public.service_runs as r
      where r.started_at >= %1$s
      group by r.organization_id, r.service_type
    )

    select
      s.organization_id,
      s.service_type,
      %3$s,
      s.percent_of_cost,
      coalesce(runs.runs, 0) as runs,
      coalesce(runs.failed_runs, 0) as failed_runs,
      runs.average_run_ms,
      s.total_cost / runs.runs as cost_per_run
    from (
      select s.*, round(100 * s.total_cost / nullif(sum(s.total_cost) over (partition by s.organization_id), 0), 4) as percent_of_cost
      from (
        select u.organization_id, u.service_type, %4$s
        from vital_private.visible_daily_totals as u
        where u.day >= %2$s
        group by u.organization_id, u.service_type
        having sum(u.calls) > 0
      ) as s
    ) as s
    %5$s
    left join runs on coalesce(runs.organization_id, '') = coalesce(s.organization_id, '')
      and runs.organization_id is not distinct from s.organization_id and runs.service_type = s.service_type
    $view$,
    first_hour, first_day, measures, sums, percentiles
  );

  -- Steps of workflows and seats of panels, grouped as in the reports of these names.
  for part in
    select
      v.view_name, v.service, v.whole, v.runs, g.name_column, g.condition,
      (select string_agg(format('s.%I', k), ', ') from unnest(g.keys) as k) as columns,
      (select string_agg(format('u.%I', k), ', ') from unnest(g.keys) as k) as keys
    from (
      values
      ('workflow_efficiency', 'workflows', 'workflow', 'workflow_id', 'workflow_runs'),
      ('panel_performance', 'panels', 'virtual_panel', 'panel_id', 'panel_runs')
    ) as v (view_name, report, service, whole, runs)
    inner join vital_private.usage_groupings as g on v.report = g.name
    order by g.position desc
  loop
    execute format(
      $view$
      create view public.%6$I with (security_invoker = true) as
      with runs as (
        select r.organization_id, r.%8$I, count(*) as runs
        from public.service_runs as r
        where r.started_at >= %1$s and r.service_type = %7$L and r.%8$I is not null
        group by r.organization_id, r.%8$I
      )

      select
        %10$s,
        s.%12$I,
        %3$s,
        s.percent_of_cost,
        s.percent_of_time,
        runs.runs as %9$I,
        s.calls / runs.runs as calls_per_run,
        s.total_cost / runs.runs as cost_per_run
      from (
        select
          s.*,
          round(100 * s.total_cost / nullif(sum(s.total_cost) over whole, 0), 4) as percent_of_cost,
          round(100 * s.latency_us / nullif(sum(s.latency_us) over whole, 0), 4) as percent_of_time
        from (
          select %11$s, %13$s as %12$I, %4$s
          from vital_private.visible_daily_parts as u
          where u.day >= %2$s and %14$s
          group by %11$s
          having sum(u.calls) > 0
        ) as s
        window whole as (partition by s.organization_id, s.%8$I)
      ) as s
      %5$s
      left join runs on coalesce(runs.organization_id, '') = coalesce(s.organization_id, '')
        and runs.organization_id is not distinct from s.organization_id and runs.%8$I = s.%8$I
      $view$,
      first_hour, first_day, measures, sums, percentiles, part.view_name, part.service, part.whole, part.runs, part.columns, part.keys,
      part.name_column, vital_private.newest(part.name_column), part.condition
    );
  end loop;

  execute format(
    $view$
    create view public.user_service_usage with (security_invoker = true) as
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
      from vital_private.visible_daily_users as u
      where u.day >= %2$s
      group by u.organization_id, u.user_id, u.service_type
      having sum(u.calls) > 0
    ) as s
    left join runs on coalesce(runs.organization_id, '') = coalesce(s.organization_id, '')
      and runs.organization_id is not distinct from s.organization_id
      and runs.user_id = s.user_id and runs.service_type = s.service_type
    $view$,
    first_hour, first_day,
    vital_private.measure_columns(
      array(select m.name from vital_private.usage_measures as m where m.in_views and m.fraction is null order by m.position)
    ),
    sums
  );
end;
$do$;

comment on view public.service_costs is 'The last 30 days by organization and service, with cost per run.';
comment on view public.workflow_efficiency is
'The last 30 days by workflow and step: percent of the workflow''s cost and time, cost per run of the workflow.';
comment on view public.panel_performance is
'The last 30 days by panel, seat and agent: percent of the panel''s cost and time, cost per session of the panel.';
comment on view public.user_service_usage is 'The last 30 days by organization, user and service.';

create materialized view public.mv_service_costs as select * from public.service_costs;
create materialized view public.mv_workflow_efficiency as select * from public.workflow_efficiency;
create materialized view public.mv_panel_performance as select * from public.panel_performance;
create materialized view public.mv_user_service_usage as select * from public.user_service_usage;

comment on materialized view public.mv_service_costs is 'service_costs as of its last refresh, of all organizations.';
comment on materialized view public.mv_workflow_efficiency is 'workflow_efficiency as of its last refresh, of all organizations.';
comment on materialized view public.mv_panel_performance is 'panel_performance as of its last refresh, of all organizations.';
comment on materialized view public.mv_user_service_usage is 'user_service_usage as of its last refresh, of all organizations.';

-- Refreshing concurrently needs a unique index; NULL is a key like any other.
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

select vital_private.restrict_relation('public.analytics_freshness', readers => '{service_role}');
select vital_private.restrict_relation('public.service_costs', readers => '{authenticated, service_role}');
select vital_private.restrict_relation('public.workflow_efficiency', readers => '{authenticated, service_role}');
select vital_private.restrict_relation('public.panel_performance', readers => '{authenticated, service_role}');
select vital_private.restrict_relation('public.user_service_usage', readers => '{authenticated, service_role}');
select vital_private.restrict_relation('public.mv_service_costs', readers => '{service_role}');
select vital_private.restrict_relation('public.mv_workflow_efficiency', readers => '{service_role}');
select vital_private.restrict_relation('public.mv_panel_performance', readers => '{service_role}');
select vital_private.restrict_relation('public.mv_user_service_usage', readers => '{service_role}');

-- Refresh all materialized views: {"views": [{"name", "seconds", "refreshed_at"}], "busy": false}. Readers do not have to wait. While
-- another session refreshes, it returns at once with no views and "busy": true. Only the owner of a view may refresh it, hence
-- SECURITY DEFINER. The Data API applies a function's time limit to the whole request.
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

-- Let pg_cron refresh the views every five minutes. False where pg_cron is not installed or refuses; then call refresh_analytics()
-- whenever you like. Call this again once pg_cron was installed.
create function public.schedule_refresh() returns boolean
language sql
security definer
set search_path = ''
as $$
  select vital_private.schedule('vital_tracking.refresh_analytics', '*/5 * * * *', 'select public.refresh_analytics()')
$$;

select vital_private.restrict_functions(api => '{refresh_analytics, schedule_refresh}');

select public.schedule_refresh();
