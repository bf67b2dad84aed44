-- What admins read. Views are security_invoker: each reader sees through them exactly the rows that the tables' policies show.

create view public.agent_usage_detailed
with (security_invoker = true)
as
select
  id,
  created_at,
  organization_id,
  user_id,
  session_id,
  service_type,
  service_id,
  service_name,
  service_run_id,
  agent_id,
  agent_name,
  agent_tier,
  agent_role,
  workflow_id,
  workflow_step,
  workflow_step_name,
  panel_id,
  panel_position,
  panel_size,
  solution_id,
  framework,
  provider,
  model,
  requested_model,
  call_type,
  message_type,
  calls,
  prompt_tokens,
  completion_tokens,
  total_tokens,
  cache_read_tokens,
  cache_write_tokens,
  reasoning_tokens,
  audio_tokens,
  usage_estimated,
  input_cost,
  output_cost,
  total_cost,
  potential_cost,
  priced,
  price_version,
  ceiling_cost,
  budget_action,
  throttled_ms,
  latency_ms as response_time_ms,
  ttft_ms,
  cache_hit,
  status,
  success,
  error_type,
  trace_id,
  run_id,
  tags,
  metadata
from public.token_usage_logs;

comment on view public.agent_usage_detailed is 'Every call: who, what for, tokens, cost, response time, success, error class, metadata.';

-- A workflow or solution run with everything inside it: calls of the run itself and of the runs nested in it.
create view public.workflow_analytics
with (security_invoker = true)
as
select
  run.id as service_run_id,
  run.parent_run_id,
  run.organization_id,
  run.user_id,
  run.session_id,
  run.service_type,
  run.service_id,
  run.service_name,
  run.workflow_id,
  run.solution_id,
  run.status,
  run.started_at,
  run.ended_at,
  extract(epoch from run.ended_at - run.started_at) * 1000 as duration_ms,
  run.error_type,
  totals.steps,
  totals.calls,
  totals.failed_calls,
  totals.prompt_tokens,
  totals.completion_tokens,
  totals.total_tokens,
  totals.total_cost,
  totals.potential_cost,
  totals.unpriced_calls
from public.service_runs as run
cross join
  lateral (
    select
      count(distinct row(call.workflow_id, call.workflow_step)) filter (where call.workflow_step is not null) as steps,
      coalesce(sum(call.calls), 0) as calls,
      coalesce(sum(call.calls) filter (where not call.success), 0) as failed_calls,
      coalesce(sum(call.prompt_tokens), 0) as prompt_tokens,
      coalesce(sum(call.completion_tokens), 0) as completion_tokens,
      coalesce(sum(call.total_tokens), 0) as total_tokens,
      coalesce(sum(call.total_cost), 0) as total_cost,
      coalesce(sum(call.potential_cost), 0) as potential_cost,
      coalesce(sum(call.calls) filter (where not call.priced), 0) as unpriced_calls
    from public.token_usage_logs as call
    where
      call.service_run_id in (
        select run.id
        union all
        select nested.id from public.service_runs as nested
        where nested.ancestor_run_ids @> array[run.id]
      )
  ) as totals
where run.service_type in ('workflow', 'solution_builder');

comment on view public.workflow_analytics is 'Workflow and solution runs, nested runs included: steps, calls, tokens, cost of priced calls, time.';

revoke all on public.agent_usage_detailed from anon, authenticated, service_role;
revoke all on public.workflow_analytics from anon, authenticated, service_role;
grant select on public.agent_usage_detailed to authenticated, service_role;
grant select on public.workflow_analytics to authenticated, service_role;

-- What was spent, grouped by one thing: select * from cost_breakdown('panel_seat');
-- by: organization, user, session, service, agent, tier, model, provider, panel_seat, workflow_step, solution, framework,
-- message_type, status. Amounts are US dollars; costs are sums over priced calls, unpriced ones are counted beside them.
create function public.cost_breakdown(
  by text,
  since timestamptz default '-infinity',
  until timestamptz default 'infinity',
  organization text default null
) returns table (
  label text,
  calls bigint,
  failed_calls bigint,
  cached_calls bigint,
  unpriced_calls bigint,
  prompt_tokens numeric,
  completion_tokens numeric,
  total_cost numeric,
  potential_cost numeric,
  average_latency_ms double precision
)
language plpgsql
stable
set search_path = ''
as $$
declare
  label_of text := case by
    when 'organization' then 'organization_id'
    when 'user' then 'user_id'
    when 'session' then 'session_id'
    when 'service' then 'service_type'
    when 'agent' then 'coalesce(agent_name, agent_id)'
    when 'tier' then 'agent_tier'
    when 'model' then 'model'
    when 'provider' then 'provider'
    when 'panel_seat' then
      'panel_id || '' / seat '' || panel_position || coalesce('' of '' || panel_size, '''')'
      || ' || coalesce('' / '' || coalesce(agent_name, agent_id), '''')'
    when 'workflow_step' then 'coalesce(workflow_id || '' / '', '''') || coalesce(workflow_step_name, workflow_step)'
    when 'solution' then 'solution_id'
    when 'framework' then 'framework'
    when 'message_type' then 'message_type'
    when 'status' then 'status'
  end;
begin
  if label_of is null then
    raise exception 'cost_breakdown cannot group by %.', quote_literal(by) using errcode = '22023',
      hint = 'Choose organization, user, session, service, agent, tier, model, provider, panel_seat, workflow_step, solution, framework, message_type or status.';
  end if;
  return query execute format(
    $query$
      select
        %1$s as label,
        sum(calls),
        coalesce(sum(calls) filter (where not success), 0),
        coalesce(sum(calls) filter (where cache_hit), 0),
        coalesce(sum(calls) filter (where not priced), 0),
        sum(prompt_tokens),
        sum(completion_tokens),
        coalesce(sum(total_cost), 0),
        coalesce(sum(potential_cost), 0),
        avg(latency_ms)
      from public.token_usage_logs
      where created_at >= $1 and created_at < $2 and ($3 is null or organization_id = $3) and (%1$s) is not null
      group by 1
      order by 8 desc, 2 desc, 1
    $query$, label_of
  ) using since, until, organization;
end;
$$;

revoke execute on function public.cost_breakdown(text, timestamptz, timestamptz, text) from public, anon;
grant execute on function public.cost_breakdown(text, timestamptz, timestamptz, text) to authenticated, service_role;

-- What `vital-tracking doctor` looks at, as one JSON object.
create function public.tracking_status_v1() returns json
language plpgsql
stable
security definer
set search_path = ''
as $$
declare
  applied json := '[]';
begin
  if to_regclass('supabase_migrations.schema_migrations') is not null then
    execute 'select coalesce(json_agg(version order by version), ''[]'') from supabase_migrations.schema_migrations' into applied;
  end if;
  return json_build_object(
    'server_version', current_setting('server_version'),
    'database_time', now(),
    'migrations', applied,
    'calls_last_day', (
      select coalesce(sum(calls), 0) from public.token_usage_logs where created_at >= now() - interval '1 day'
    ),
    'last_call_at', (select max(created_at) from public.token_usage_logs where created_at >= now() - interval '31 days'),
    'unpriced_calls', (select coalesce(sum(calls), 0) from public.token_usage_logs where not priced),
    'unpriced_models', (
      select coalesce(json_agg(model order by model), '[]')
      from (select distinct coalesce(model, '(no model)') as model from public.token_usage_logs where not priced limit 20) as names
    ),
    'calls_in_default_partition', (select coalesce(sum(calls), 0) from vital_private.token_usage_logs_default),
    'partitions_until', (select max(p.month) + interval '1 month' from vital_private.monthly_partitions() as p),
    'runs_still_open', (
      select count(*) from public.service_runs where ended_at is null and started_at < now() - interval '1 day'
    )
  );
end;
$$;

revoke execute on function public.tracking_status_v1() from public, anon, authenticated;
grant execute on function public.tracking_status_v1() to service_role;
