-- Events, other costs and executions as admins read them: the schema `analytics`, whose views show what row level security lets their
-- reader see. Model calls are part of the costs there, so that a tenant's bill is one.

-- A project may have a schema of this name already: then it keeps what is in it. The comment says which one is ours.
do $$
begin
  if to_regnamespace('analytics') is null then
    create schema analytics;
    revoke all on schema analytics from public;
    comment on schema analytics is
    'vital_tracking: views of what is no call to a model, and of the one bill of all of it; each reader sees what is theirs.';
  end if;
end;
$$;

grant usage on schema analytics to authenticated, service_role;

do $$
begin
  if exists (select from pg_catalog.pg_roles where rolname = 'vital_auditor') then
    grant usage on schema analytics to vital_auditor;
  end if;
end;
$$;

-- The reader's own rows that none of the sums by organization holds for them: those outside the organizations that they administer, from
-- an instant on. None for whoever reads all sums. (Functions, so that views of sums need not plan a scan of every month for them.)
do $$
declare
  own record;
begin
  for own in
    select f.name, m.table_name, m.time_column
    from (
      values ('own_events', 'platform_events'), ('own_costs', 'tenant_cost_events'), ('own_executions', 'agent_executions')
    ) as f (name, table_name)
    join vital_private.monthly_tables as m on m.table_name = f.table_name
  loop
    execute format(
      $function$
create function vital_private.%1$I(since timestamptz default '-infinity') returns setof public.%2$I
language plpgsql
stable
set search_path = ''
as $body$
declare
  subject constant text := vital_private.subject();
  administered constant text[] := vital_private.administered_organizations();
begin
  if current_user = 'authenticated' then
    return query
    select r.* from public.%2$I as r
    where r.user_id = subject and r.%3$I >= since and (r.organization_id is null or r.organization_id <> all(administered));
  end if;
end;
$body$
      $function$,
      own.name, own.table_name, own.time_column
    );
  end loop;
end;
$$;

select vital_private.restrict_functions(helpers => '{own_events, own_costs, own_executions}');

create view analytics.platform_events with (security_invoker = true) as
select
  e.id,
  e.occurred_at,
  e.organization_id,
  e.user_id,
  e.session_id,
  e.category,
  e.event_name,
  e.source,
  e.ip_hash,
  e.value,
  e.properties,
  e.recorded_at
from public.platform_events as e;

create view analytics.tenant_cost_events with (security_invoker = true) as
select
  c.id,
  c.occurred_at,
  c.organization_id,
  c.user_id,
  c.cost_type,
  c.service,
  c.resource,
  c.quantity,
  c.unit,
  c.unit_price,
  c.cost_usd,
  c.price_version,
  c.metadata,
  c.recorded_at,
  c.priced
from public.tenant_cost_events as c;

create view analytics.agent_executions with (security_invoker = true) as
select
  x.id,
  x.started_at,
  x.organization_id,
  x.user_id,
  x.agent_id,
  x.agent_name,
  x.workflow_id,
  x.service_run_id,
  x.duration_ms,
  x.success,
  x.error_type,
  x.total_tokens,
  x.cost_usd,
  x.rating,
  x.faithfulness,
  x.answer_relevancy,
  x.context_precision,
  x.context_recall,
  x.citations,
  x.metadata,
  x.recorded_at
from public.agent_executions as x;

-- The one bill by day: model calls by what they are, and everything else. The sums of users hold every row once, and each user may see
-- their own there.
create view analytics.tenant_cost_summary with (security_invoker = true) as
select
  b.day as date,
  b.organization_id,
  b.cost_type,
  sum(b.costs)::bigint as costs,
  sum(b.unpriced_costs)::bigint as unpriced_costs,
  sum(b.cost_usd) as cost_usd
from (
  select
    u.day,
    u.organization_id,
    case when u.call_type = 'embedding' then 'embedding' else 'llm' end as cost_type,
    u.calls as costs,
    u.unpriced_calls as unpriced_costs,
    u.total_cost as cost_usd
  from public.usage_aggregations_daily_users as u
  union all
  select
    c.day,
    c.organization_id,
    c.cost_type,
    c.costs,
    c.unpriced_costs,
    c.cost_usd
  from public.tenant_costs_daily as c
) as b
where b.costs <> 0
group by b.day, b.organization_id, b.cost_type
order by b.day desc, b.organization_id desc;

-- A tenant's day: who was there, what was done, what it cost in all, and what it brought.
-- (The parts have the same types and no conditions of their own, so that they are read in the order of their indexes, and the newest days
-- are added up alone; so it is below.)
create view analytics.tenant_daily_summary with (security_invoker = true) as
select
  d.date,
  d.organization_id,
  d.active_users,
  d.sessions,
  d.events,
  d.calls,
  d.total_tokens,
  d.model_cost_usd,
  d.other_cost_usd,
  d.model_cost_usd + d.other_cost_usd as total_cost_usd,
  d.revenue_usd,
  d.revenue_usd - d.model_cost_usd - d.other_cost_usd as margin_usd,
  d.unpriced_rows
from (
  select
    p.day as date,
    p.organization_id,
    count(distinct p.user_id) as active_users,
    count(distinct p.session_id) as sessions,
    sum(p.events)::bigint as events,
    sum(p.calls)::bigint as calls,
    sum(p.total_tokens) as total_tokens,
    sum(p.model_cost_usd) as model_cost_usd,
    sum(p.other_cost_usd) as other_cost_usd,
    sum(p.revenue) as revenue_usd,
    sum(p.unpriced_rows)::bigint as unpriced_rows
  from (
    select
      s.day,
      s.organization_id,
      s.user_id,
      s.session_id,
      s.events,
      0::bigint as calls,
      0::numeric as total_tokens,
      0::numeric as model_cost_usd,
      0::numeric as other_cost_usd,
      s.revenue,
      0::bigint as unpriced_rows,
      s.events as rows
    from public.platform_events_daily_sessions as s
    union all
    select
      u.day,
      u.organization_id,
      u.user_id,
      null::text as session_id,
      0::bigint as events,
      u.calls,
      u.prompt_tokens + u.completion_tokens as total_tokens,
      u.total_cost,
      0::numeric as other_cost_usd,
      0::numeric as revenue,
      u.unpriced_calls,
      u.calls as rows
    from public.usage_aggregations_daily_users as u
    union all
    select
      c.day,
      c.organization_id,
      null::text as user_id,
      null::text as session_id,
      0::bigint as events,
      0::bigint as calls,
      0::numeric as total_tokens,
      0::numeric as model_cost_usd,
      c.cost_usd,
      0::numeric as revenue,
      c.unpriced_costs,
      c.costs
    from public.tenant_costs_daily as c
  ) as p
  where p.rows <> 0
  group by p.day, p.organization_id
  order by p.day desc, p.organization_id desc
) as d;

-- How agents fare by hour, as their users see them. Rates are percent; scores keep their own scales; NULL where nothing was measured.
create view analytics.agent_performance_summary with (security_invoker = true) as
select
  h.hour_start,
  h.organization_id,
  h.agent_id,
  h.executions,
  h.succeeded,
  round(100.0 * h.succeeded / nullif(h.executions, 0), 4) as success_rate,
  round(h.duration_us / nullif(h.timed, 0) / 1000, 3) as avg_duration_ms,
  public.latency_percentile(h.duration_histogram, 0.95) as p95_duration_ms,
  h.total_tokens,
  case when h.costed > 0 then h.cost_usd end as cost_usd,
  h.costed,
  round(h.rating / nullif(h.rated, 0), 4) as avg_rating,
  h.rated,
  round(h.faithfulness / nullif(h.faithfulness_scores, 0), 6) as avg_faithfulness,
  round(h.answer_relevancy / nullif(h.answer_relevancy_scores, 0), 6) as avg_answer_relevancy,
  round(h.context_precision / nullif(h.context_precision_scores, 0), 6) as avg_context_precision,
  round(h.context_recall / nullif(h.context_recall_scores, 0), 6) as avg_context_recall,
  h.citations
from (
  select u.*
  from (
    select
      s.hour_start,
      s.organization_id,
      s.agent_id,
      s.executions,
      s.succeeded,
      s.timed,
      s.duration_us,
      s.duration_histogram,
      s.total_tokens,
      s.costed,
      s.cost_usd,
      s.rated,
      s.rating,
      s.faithfulness_scores,
      s.faithfulness,
      s.answer_relevancy_scores,
      s.answer_relevancy,
      s.context_precision_scores,
      s.context_precision,
      s.context_recall_scores,
      s.context_recall,
      s.citations
    from public.agent_executions_hourly as s
    union all
    select
      date_bin('1 hour', x.started_at, '2000-01-01 00:00:00+00') as hour_start,
      x.organization_id,
      x.agent_id,
      count(*) as executions,
      count(*) filter (where x.success) as succeeded,
      count(x.duration_ms) as timed,
      coalesce(sum((x.duration_ms * 1000)::bigint::numeric), 0) as duration_us,
      coalesce(sum(('1e' || 12 * vital_private.latency_bucket(x.duration_ms))::numeric), 0) as duration_histogram,
      coalesce(sum(x.total_tokens), 0) as total_tokens,
      count(x.cost_usd) as costed,
      coalesce(sum(x.cost_usd), 0) as cost_usd,
      count(x.rating) as rated,
      coalesce(sum(x.rating), 0) as rating,
      count(x.faithfulness) as faithfulness_scores,
      coalesce(sum(x.faithfulness), 0) as faithfulness,
      count(x.answer_relevancy) as answer_relevancy_scores,
      coalesce(sum(x.answer_relevancy), 0) as answer_relevancy,
      count(x.context_precision) as context_precision_scores,
      coalesce(sum(x.context_precision), 0) as context_precision,
      count(x.context_recall) as context_recall_scores,
      coalesce(sum(x.context_recall), 0) as context_recall,
      coalesce(sum(x.citations), 0)::numeric as citations
    from vital_private.own_executions() as x
    where (select current_user) = 'authenticated'
    group by date_bin('1 hour', x.started_at, '2000-01-01 00:00:00+00'), x.organization_id, x.agent_id
  ) as u
  where u.executions <> 0
  order by u.hour_start desc, u.organization_id desc
) as h;

-- The last day by five minutes: what happens.
create view analytics.tenant_metrics_realtime with (security_invoker = true) as
select
  m.bucket,
  m.organization_id,
  sum(m.events)::bigint as events,
  sum(m.failed_events)::bigint as failed_events,
  round(100.0 * sum(m.failed_events) / nullif(sum(m.events), 0), 4) as error_rate,
  sum(m.events) filter (where m.category = 'user_behavior')::bigint as user_behavior_events,
  sum(m.events) filter (where m.category = 'system_health')::bigint as system_health_events,
  sum(m.events) filter (where m.category = 'business')::bigint as business_events,
  jsonb_object_agg(m.event_name, m.events) as by_event
from (
  select
    s.bucket,
    s.organization_id,
    s.category,
    s.event_name,
    s.events,
    s.failed_events
  from public.platform_events_5min as s
  union all
  select
    date_bin('5 minutes', r.occurred_at, '2000-01-01 00:00:00+00') as bucket,
    r.organization_id,
    r.category,
    r.event_name,
    count(*) as events,
    count(*) filter (where vital_private.event_failed(r.properties)) as failed_events
  from vital_private.own_events(now() - interval '1 day') as r
  where (select current_user) = 'authenticated'
  group by date_bin('5 minutes', r.occurred_at, '2000-01-01 00:00:00+00'), r.organization_id, r.category, r.event_name
) as m
where m.bucket >= now() - interval '1 day' and m.events <> 0
group by m.bucket, m.organization_id
order by m.bucket desc, m.organization_id desc;

-- The last day by five minutes: what it costs, model calls included.
create view analytics.cost_metrics_realtime with (security_invoker = true) as
select
  m.bucket,
  m.organization_id,
  m.cost_type,
  sum(m.costs)::bigint as costs,
  sum(m.unpriced_costs)::bigint as unpriced_costs,
  sum(m.cost_usd) as cost_usd
from (
  select
    date_bin('5 minutes', c.created_at, '2000-01-01 00:00:00+00') as bucket,
    c.organization_id,
    case when c.call_type = 'embedding' then 'embedding' else 'llm' end as cost_type,
    c.calls as costs,
    case when c.priced then 0 else c.calls end as unpriced_costs,
    coalesce(c.total_cost, 0) as cost_usd
  from public.token_usage_logs as c
  where c.created_at >= now() - interval '1 day'
  union all
  select
    s.bucket,
    s.organization_id,
    s.cost_type,
    s.costs,
    s.unpriced_costs,
    s.cost_usd
  from public.tenant_costs_5min as s
  where s.bucket >= now() - interval '1 day' and s.costs <> 0
  union all
  select
    date_bin('5 minutes', r.occurred_at, '2000-01-01 00:00:00+00') as bucket,
    r.organization_id,
    r.cost_type,
    1 as costs,
    case when r.priced then 0 else 1 end as unpriced_costs,
    coalesce(r.cost_usd, 0) as cost_usd
  from vital_private.own_costs(now() - interval '1 day') as r
  where (select current_user) = 'authenticated'
) as m
group by m.bucket, m.organization_id, m.cost_type;

comment on view analytics.tenant_cost_summary is 'The one bill: US dollars by day (UTC), tenant and kind of cost, model calls included.';
comment on view analytics.tenant_daily_summary is 'A tenant''s day (UTC): users, sessions, events, calls, all costs, revenue, margin; in US dollars.';
comment on view analytics.agent_performance_summary is 'Executions of agents by hour: success in percent, duration, ratings and scores.';
comment on view analytics.tenant_metrics_realtime is 'Events of the last day by five minutes and tenant.';
comment on view analytics.cost_metrics_realtime is 'US dollars of the last day by five minutes, tenant and kind of cost, model calls included.';

do $$
declare
  shown regclass;
begin
  for shown in
    select c.oid from pg_catalog.pg_class as c where c.oid = any(
      '{
        analytics.platform_events, analytics.tenant_cost_events, analytics.agent_executions, analytics.tenant_cost_summary,
        analytics.tenant_daily_summary, analytics.agent_performance_summary, analytics.tenant_metrics_realtime,
        analytics.cost_metrics_realtime
      }'::regclass[]
    )
  loop
    perform vital_private.restrict_relation(shown, readers => '{authenticated, service_role}');
  end loop;
end;
$$;
