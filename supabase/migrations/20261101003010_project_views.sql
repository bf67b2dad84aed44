-- Calls and sums by the names that admins and their dashboards know: a project is an organization, a request a call. Rates are percent,
-- amounts US dollars. Views are security_invoker: organization admins see their organizations, users what is their own.

-- The columns that hourly and daily sums share, over a row of sums `s`. `by_provider` and `by_model` are expressions of JSON. Sums of nothing
-- are 0, so that clients can add them up; a latency of nothing is NULL, since it is not known.
create function vital_private.project_columns(by_provider text, by_model text) returns text
language sql
stable
set search_path = ''
as $$
  select format(
    $columns$
      s.calls::bigint as total_requests,
      s.cached_calls::bigint as cached_requests,
      s.prompt_tokens::bigint as input_tokens,
      s.completion_tokens::bigint as output_tokens,
      s.total_cost as total_cost_usd,
      s.potential_cost as potential_cost_usd,
      %s as total_savings_usd,
      coalesce(%s, 0) as savings_percent,
      coalesce(%s, 0) as cache_hit_rate,
      (%s)::double precision as avg_latency_ms,
      %s as by_provider,
      %s as by_model,
      (s.prompt_tokens + s.completion_tokens)::bigint as total_tokens,
      s.prompt_tokens::bigint as total_input_tokens,
      s.completion_tokens::bigint as total_output_tokens,
      (s.calls - s.failed_calls)::bigint as successful_requests,
      s.failed_calls::bigint as failed_requests,
      s.blocked_calls::bigint as blocked_requests,
      s.timed_out_calls::bigint as timed_out_requests,
      s.unpriced_calls::bigint as unpriced_requests,
      %s as success_rate,
      %s as timeout_rate,
      s.fees as fees_usd
    $columns$,
    vital_private.measure('cache_savings'), vital_private.measure('savings_rate'), vital_private.measure('hit_rate'),
    vital_private.measure('average_latency_ms'), by_provider, by_model, vital_private.measure('success_rate'),
    vital_private.measure('timeout_rate')
  )
$$;

-- Rows of calls or of sums, grouped by provider or model: the columns of a query over them (`u`) that groups by the first, and what its
-- rows (`p`) make as JSON: {"openai": {"requests", "total_tokens", "cost_usd", "unpriced_requests"}}. Amounts are exact numbers.
create function vital_private.part_columns(column_name text) returns text
language sql
immutable
set search_path = ''
as $$
  select format(
    $columns$coalesce(u.%1$I, '(no %1$s)') as name, sum(u.calls) as calls, sum(u.total_tokens) as total_tokens,
      sum(u.total_cost) as total_cost, sum(u.unpriced_calls) as unpriced_calls$columns$, column_name
  )
$$;

create function vital_private.parts_json() returns text
language sql
immutable
set search_path = ''
as $$
  select $json$jsonb_object_agg(p.name, jsonb_build_object(
    'requests', p.calls, 'total_tokens', p.total_tokens, 'cost_usd', trim_scale(p.total_cost), 'unpriced_requests', p.unpriced_calls
  ))$json$
$$;

-- The same as one expression.
create function vital_private.by_json(column_name text, source text) returns text
language sql
immutable
set search_path = ''
as $$
  select format(
    $query$coalesce((
      select %s from (select %s from (%s) as u group by 1 having sum(u.calls) > 0) as p
    ), '{}')$query$, vital_private.parts_json(), vital_private.part_columns(column_name), source
  )
$$;

create view public.usage_logs
with (security_invoker = true)
as
select
  organization_id as project_id,
  created_at,
  provider,
  model,
  prompt_tokens as input_tokens,
  completion_tokens as output_tokens,
  total_tokens,
  total_cost as cost_usd,
  potential_cost as potential_cost_usd,
  cache_hit as cached,
  latency_ms,
  id,
  user_id,
  session_id,
  service_type,
  service_id,
  service_name,
  service_run_id,
  agent_id,
  agent_name,
  agent_tier,
  workflow_id,
  workflow_step,
  workflow_step_name,
  panel_id,
  panel_position,
  solution_id,
  framework,
  call_type,
  message_type,
  calls,
  cache_read_tokens,
  cache_write_tokens,
  reasoning_tokens,
  usage_estimated,
  fees as fees_usd,
  priced,
  status,
  success,
  error_type,
  ttft_ms,
  request_hash,
  tags,
  metadata
from public.token_usage_logs;

comment on view public.usage_logs is 'Every call by the names that dashboards know; cost_usd is NULL where no price is known.';

do $do$
declare
  -- The calls of a row, by the index of organization and time. A condition that took NULL for a key would find no index.
  of_hour constant text := $query$
    select c.provider, c.model, c.calls, c.total_tokens, coalesce(c.total_cost, 0) as total_cost,
      case when c.priced then 0 else c.calls end as unpriced_calls
    from public.token_usage_logs as c
    where c.created_at >= s.hour_start and c.created_at < s.hour_start + interval '1 hour' and c.organization_id = s.organization_id
    union all
    select c.provider, c.model, c.calls, c.total_tokens, coalesce(c.total_cost, 0), case when c.priced then 0 else c.calls end
    from public.token_usage_logs as c
    where s.organization_id is null
      and c.created_at >= s.hour_start and c.created_at < s.hour_start + interval '1 hour' and c.organization_id is null
  $query$;
  of_day constant text := $query$
    select a.provider, a.model, a.calls, a.total_tokens, a.total_cost, a.unpriced_calls
    from public.usage_aggregations_daily_agents as a
    where a.day = s.day and a.organization_id = s.organization_id
    union all
    select a.provider, a.model, a.calls, a.total_tokens, a.total_cost, a.unpriced_calls
    from public.usage_aggregations_daily_agents as a
    where s.organization_id is null and a.day = s.day and a.organization_id is null
    union all
    select c.provider, c.model, c.calls, c.total_tokens, coalesce(c.total_cost, 0), case when c.priced then 0 else c.calls end
    from vital_private.own_calls(s.day::timestamp at time zone 'UTC', (s.day + 1)::timestamp at time zone 'UTC') as c
    where (select current_user) = 'authenticated' and coalesce(c.organization_id, '') = coalesce(s.organization_id, '')
  $query$;
  -- Models and providers of an hour are in no sums, so they are told as long as the calls are there.
  hour_kept constant text := 'case when s.hour_start >= (select vital_private.rows_kept_since()) then %s end';
  view record;
begin
  for view in
    select v.*
    from (
      values
      ('usage_aggregations_hourly', 'hourly_totals', 'hour_start', 'hour_start', of_hour, hour_kept),
      ('usage_aggregations_daily', 'daily_totals', 'day', 'date', of_day, '%s')
    ) as v (name, source, bucket, shown, parts, condition)
  loop
    execute format(
      $view$
      create view public.%1$I with (security_invoker = true) as
      select s.organization_id as project_id, s.%2$I as %3$I, %4$s
      from (
        select u.organization_id, u.%2$I, %5$s
        from vital_private.visible_%6$s as u
        group by u.organization_id, u.%2$I
        having sum(u.calls) > 0
        -- The order of an index: whoever asks for the newest waits for these alone.
        order by u.%2$I desc, u.organization_id desc
      ) as s
      $view$,
      view.name, view.bucket, view.shown,
      vital_private.project_columns(
        format(view.condition, vital_private.by_json('provider', view.parts)), format(view.condition, vital_private.by_json('model', view.parts))
      ),
      vital_private.sum_columns(), view.source
    );
  end loop;
end;
$do$;

comment on view public.usage_aggregations_hourly is
'A row a project and hour (UTC): requests, tokens, US dollars of the priced ones, cache savings and rates in percent.';
comment on column public.usage_aggregations_hourly.by_provider is
'{"openai": {"requests", "total_tokens", "cost_usd", "unpriced_requests"}}; NULL where the calls of the hour are gone.';
comment on view public.usage_aggregations_daily is
'A row a project and day (UTC): requests, tokens, US dollars of the priced ones, cache savings and rates in percent.';
comment on column public.usage_aggregations_daily.by_provider is '{"openai": {"requests", "total_tokens", "cost_usd", "unpriced_requests"}}.';

select vital_private.restrict_relation('public.usage_logs', readers => '{authenticated, service_role}');
select vital_private.restrict_relation('public.usage_aggregations_hourly', readers => '{authenticated, service_role}');
select vital_private.restrict_relation('public.usage_aggregations_daily', readers => '{authenticated, service_role}');
select vital_private.restrict_functions(helpers => '{project_columns, part_columns, parts_json}');
