-- Calls and runs as admins read them. Views are security_invoker: each reader sees exactly the rows that the policies of the tables show.

create view public.agent_usage_detailed
with (security_invoker = true)
as
select
  id,
  user_id,
  agent_id,
  agent_name,
  framework,
  provider,
  message_type,
  prompt_tokens as input_tokens,
  completion_tokens as output_tokens,
  total_tokens,
  total_cost as cost_usd,
  latency_ms as response_time_ms,
  success,
  error_type as error_message,
  metadata as request_metadata,
  created_at as timestamp,
  -- What the columns above leave out, and the call's own names for some of them.
  created_at,
  organization_id,
  session_id,
  service_type,
  service_id,
  service_name,
  service_run_id,
  agent_tier,
  agent_role,
  workflow_id,
  workflow_step,
  workflow_step_name,
  panel_id,
  panel_position,
  panel_size,
  solution_id,
  model,
  requested_model,
  sent_model,
  call_type,
  calls,
  prompt_tokens,
  completion_tokens,
  cache_read_tokens,
  cache_write_tokens,
  reasoning_tokens,
  audio_tokens,
  billed_units,
  usage_estimated,
  input_cost,
  output_cost,
  fees,
  total_cost,
  potential_cost,
  priced,
  price_version,
  ceiling_cost,
  reported_cost,
  budget_action,
  throttled_ms,
  ttft_ms,
  first_word_ms,
  cache_hit,
  status,
  error_type,
  trace_id,
  run_id,
  tags,
  metadata
from public.token_usage_logs;

comment on view public.agent_usage_detailed is
'Every call: who, what for, tokens, cost, response time, success, error class, metadata; cost_usd is NULL where no price is known.';

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
      call.service_run_id in (select unnest(vital_private.runs_within(run.id)))
  ) as totals
where run.service_type in ('workflow', 'solution_builder');

comment on view public.workflow_analytics is 'Workflow and solution runs, nested runs included: steps, calls, tokens, cost of priced calls, time.';

select vital_private.restrict_relation('public.agent_usage_detailed', readers => '{authenticated, service_role}');
select vital_private.restrict_relation('public.workflow_analytics', readers => '{authenticated, service_role}');
