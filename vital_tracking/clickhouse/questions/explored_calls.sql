-- Calls as exploring groups and sums them: for each dimension of vital_private.usage_dimensions a column d_NAME, for each measure of
-- vital_private.usage_measures that sums keep a column m_NAME, what one call adds to it.
--
-- Amounts that a Decimal(38, 12) does not hold make a call `odd`: PostgreSQL answers for them. Latencies are put into the buckets of
-- vital_private.latency_bucket; those so near to the edge of one that a logarithm could err are told as they are.
select
  created_at,
  user_id as of_user,
  notEmpty(odd_amounts) as odd,
  metadata,

  organization_id as d_organization,
  user_id as d_user,
  session_id as d_session,
  service_type as d_service,
  if(call_type = 'embedding', 'embeddings', 'llm') as d_kind,
  agent_id as d_agent,
  agent_tier as d_tier,
  agent_role as d_role,
  workflow_id as d_workflow,
  workflow_step as d_step,
  panel_id as d_panel,
  toString(panel_position) as d_seat,
  solution_id as d_solution,
  provider as d_provider,
  model as d_model,
  framework as d_framework,
  message_type as d_message_type,
  status as d_status,
  error_type as d_error,
  multiIf(
    workflow_step is not null, concat(ifNull(workflow_id, 'workflow'), '/', assumeNotNull(workflow_step)),
    service_type is not null and agent_id is not null, concat(assumeNotNull(service_type), '/', assumeNotNull(agent_id)),
    coalesce(service_type, agent_id, '')
  ) as d_endpoint,
  service_run_id as d_run,

  agent_name,
  workflow_step_name,
  service_name,

  toInt64(t.calls) as m_calls,
  if(cache_hit, toInt64(t.calls), 0) as m_cached_calls,
  if(status = 'ok', 0, toInt64(t.calls)) as m_failed_calls,
  if(status = 'blocked', toInt64(t.calls), 0) as m_blocked_calls,
  if(priced, 0, toInt64(t.calls)) as m_unpriced_calls,
  if(usage_estimated, toInt64(t.calls), 0) as m_estimated_calls,
  if(latency_ms is null, 0, 1) as m_timed_calls,
  t.prompt_tokens as m_prompt_tokens,
  t.completion_tokens as m_completion_tokens,
  t.total_tokens as m_total_tokens,
  t.cache_read_tokens as m_cache_read_tokens,
  t.cache_write_tokens as m_cache_write_tokens,
  t.reasoning_tokens as m_reasoning_tokens,
  t.audio_tokens as m_audio_tokens,
  ifNull(t.input_cost, 0) as m_input_cost,
  ifNull(t.output_cost, 0) as m_output_cost,
  ifNull(t.fees, 0) as m_fees,
  ifNull(t.total_cost, 0) as m_total_cost,
  ifNull(t.potential_cost, 0) as m_potential_cost,
  if(t.reported_cost is null or not priced, 0, toInt64(t.calls)) as m_reported_calls,
  if(priced, ifNull(t.reported_cost, 0), 0) as m_reported_cost,
  if(t.reported_cost is null, 0, ifNull(t.total_cost, 0)) as m_reported_total_cost,
  if(latency_ms is null, 0, toInt64(roundBankers(least(assumeNotNull(latency_ms), 1e15) * 1000))) as m_latency_us,
  latency_ms is not null as timed,
  assumeNotNull(latency_ms) as timed_ms,
  if(timed_ms <= 7.25e-5, 0, least(log(timed_ms) / log(1.1) + 100, 400)) as at_bucket,
  timed and abs(at_bucket - round(at_bucket)) < 1e-6 as on_edge,
  if(
    error_type in (
      'TimeoutError', 'APITimeoutError', 'Timeout', 'TimeoutException', 'ReadTimeout', 'ConnectTimeout', 'WriteTimeout', 'PoolTimeout',
      'ReadTimeoutError', 'ConnectTimeoutError', 'ServerTimeoutError', 'SocketTimeoutError', 'ConnectionTimeoutError', 'DeadlineExceeded',
      'GatewayTimeout', 'GatewayTimeoutError', 'RequestTimeoutError', 'RequestTimeout', 'StreamChunkTimeoutError', 'NodeTimeoutError'
    ), toInt64(t.calls), 0
  ) as m_timed_out_calls
from token_usage_logs as t final
where t.created_at >= {since:DateTime64(6, 'UTC')} and t.created_at < {until:DateTime64(6, 'UTC')} and ${reader}
