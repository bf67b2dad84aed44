-- Calls as a company makes them: sessions of eight calls by one user; organizations, users, agents, workflows and models by Zipf's law
-- (300 organizations of up to 400 users, the largest with an eighth of all calls, the smallest with a two-thousandth), busy
-- days and quiet nights and weekends, 12 workflows of 8 steps, panels of 8 seats. Steps and seats have one agent each, and an agent has
-- one model, or in one call of five another. Some calls fail, are cancelled, have no price, are answered from a cache, or are a node's
-- second attempt. Every call follows from its number alone.
create schema bench;

-- A number from 0 to 1, made of a call's number and what it is for.
create function bench.chance(number bigint, what integer) returns double precision
language sql
immutable
parallel safe
return (hashint8extended(number * 100 + what, 42) & 9223372036854775807)::float8 / 9223372036854775808;

-- Which part of all calls has been made when each hour begins, and at the end.
create function bench.hours(since timestamptz, days integer) returns double precision[]
language sql
as $$
  with weighed as (
    select
      n,
      (case when extract(isodow from since + n * interval '1 hour') > 5 then 0.25 else 1 end)
      * (
        0.08 + exp(-power((extract(hour from since + n * interval '1 hour') - 10) / 3.0, 2))
        + 0.8 * exp(-power((extract(hour from since + n * interval '1 hour') - 15) / 3.0, 2))
      )::float8 as weight
    from generate_series(0, days * 24 - 1) as n
  )

  select 0::float8 || array_agg(share order by n) from (select n, sum(weight) over (order by n) / sum(weight) over () as share from weighed) as s
$$;

-- Put the calls from one number to another, of so many in all, into a table like token_usage_logs.
create procedure bench.load_calls(
  target regclass, first_number bigint, last_number bigint, total bigint, since timestamptz, hours float8[],
  organizations integer default 300, users integer default 400
)
language plpgsql
as $procedure$
begin
  execute format($query$
    insert into %s (
      id, created_at, recorded_at, organization_id, user_id, session_id, service_type, service_id, service_run_id,
      agent_id, agent_name, agent_tier, workflow_id, workflow_step, workflow_step_name, panel_id, panel_position, panel_size, solution_id,
      framework, provider, model, call_type, message_type, run_id, trace_id,
      prompt_tokens, completion_tokens, total_tokens, cache_read_tokens, reasoning_tokens,
      input_cost, output_cost, fees, total_cost, potential_cost, price_version, priced, ceiling_cost,
      latency_ms, ttft_ms, cache_hit, status, error_type, request_hash, metadata
    )
    with drawn as (
      select
        n, (n / 8 * 8)::float8 / $3 as passed, bench.chance(n / 8, 1) as c1, bench.chance(n / 8, 2) as c2,
        bench.chance(n / 8, 3) as c3, bench.chance(n / 8, 4) as c4, bench.chance(n / 8, 5) as c5, bench.chance(n, 6) as c6,
        bench.chance(n, 7) as c7, bench.chance(n, 8) as c8, bench.chance(n, 9) as c9, bench.chance(n, 10) as c10,
        bench.chance(n, 11) as c11, bench.chance(n, 12) as c12
      from generate_series($1, $2) as n
    ),

    placed as (
      select
        *, width_bucket(passed, $5[1:cardinality($5) - 1]) as hour, floor(power($6 + 1, c1))::int - 1 as org,
        floor(power($7 + 1, c2))::int - 1 as usr, floor(power(13, c5))::int - 1 as wf, (1 + n %% 8)::int as part,
        case when c3 < 0.55 then '1:1_conversation' when c3 < 0.7 then 'virtual_panel' when c3 < 0.93 then 'workflow'
          else 'solution_builder' end as service
      from drawn
    ),

    staffed as (
      select
        *, $4 + ((hour - 1) + (passed - $5[hour]) / ($5[hour + 1] - $5[hour])) * interval '1 hour' + n %% 8 * interval '45 seconds' as at,
        case service when '1:1_conversation' then floor(power(41, c4))::int - 1 else (org * 7 + wf * 8 + part) %% 40 end as ag
      from placed
    ),

    modelled as (
      select
        *, least(floor(9 * power(bench.chance(ag, 99), 2))::int + case when c10 < 0.8 then 0 else 1 end, 8) as md,
        (200 + 3000 * c11 * c11)::int as pt, (20 + 700 * c12 * c12)::int as ct,
        c10 < 0.04 as hit, c9 >= 0.98 as failed, c9 < 0.005 and c10 >= 0.04 as unpriced
      from staffed
    ),

    priced as (
      select
        *, 0.15e-6 * (1 + md) as price, case when c6 < 0.3 then pt / 2 else 0 end as cr,
        exp(6.6 + 0.12 * md + 0.7 * sqrt(-2 * ln(1 - c7)) * cos(6.2831853 * c8)) as latency
      from modelled
    )

    select
      (lpad(to_hex((extract(epoch from at) * 1000)::bigint), 12, '0') || '7' || substr(md5(n::text), 1, 3)
        || '8' || substr(md5(n::text), 4, 15))::uuid,
      at, at + interval '3 seconds', 'org-' || org, 'user-' || org || '-' || usr, 'session-' || n / 8, service,
      case service when '1:1_conversation' then 'agent-' || ag when 'virtual_panel' then 'panel-' || wf
        when 'workflow' then 'workflow-' || wf else 'solution-' || wf end,
      'run-' || n / 4,
      'agent-' || ag, 'Agent ' || ag, 'tier_' || 1 + ag %% 3,
      case when service in ('workflow', 'solution_builder') then 'workflow-' || wf end,
      case when service in ('workflow', 'solution_builder') then 'step-' || part end,
      case when service in ('workflow', 'solution_builder') then 'Step ' || part end,
      case when service = 'virtual_panel' then 'panel-' || wf end, case when service = 'virtual_panel' then part end,
      case when service = 'virtual_panel' then 8 end,
      case when service = 'solution_builder' then 'solution-' || wf end,
      case when ag %% 4 = 0 then 'langchain' else 'langgraph' end, case when md %% 3 = 0 then 'anthropic' else 'openai' end,
      'model-' || md, 'chat', case when part > 6 then 'tool_execution' else 'chat' end,
      'run-of-langchain-' || n, 'trace-' || n / 4,
      pt, ct, pt + ct, cr, ct / 5,
      case when unpriced then null when hit then 0 else (pt - cr) * price + cr * price * 0.1 end,
      case when unpriced then null when hit then 0 else ct * 4 * price end,
      case when not unpriced then 0 end,
      case when unpriced then null when hit then 0 else (pt - cr) * price + cr * price * 0.1 + ct * 4 * price end,
      case when unpriced then null else pt * price + ct * 4 * price end,
      case when not unpriced then 'genai-prices 0.2 / 2026-01-01' end, not unpriced, null,
      latency, latency / 4, hit, case when c9 >= 0.997 then 'cancelled' when failed then 'error' else 'ok' end,
      case when c9 >= 0.997 then 'CancelledError' when c9 >= 0.99 then 'APITimeoutError' when failed then 'RateLimitError' end,
      md5((case when c9 < 0.1 then n / 50 else n end)::text),
      case when c9 between 0.1 and 0.13 then '{"attempt": 2}' else '{}' end::jsonb
    from priced
  $query$, target)
  using first_number, last_number, total, since, hours, organizations, users;
end;
$procedure$;

-- A run for every four of these calls. The second run of a solution's session is a workflow that is nested in the first.
create procedure bench.load_runs()
language sql
as $$
  insert into public.service_runs (
    id, parent_run_id, ancestor_run_ids, organization_id, user_id, session_id, service_type, service_id, service_name, agent_id, workflow_id,
    panel_id, panel_size, solution_id, status, started_at, ended_at, error_type
  )
  select
    c.service_run_id, n.parent, case when n.parent is null then '{}' else array[n.parent] end,
    c.organization_id, c.user_id, c.session_id, case when n.parent is null then c.service_type else 'workflow' end,
    case when n.parent is null then c.service_id else c.workflow_id end, initcap(c.service_id), c.agent_id, c.workflow_id,
    c.panel_id, c.panel_size, c.solution_id, c.status, c.created_at, c.created_at + interval '3 minutes', c.error_type
  from public.token_usage_logs as c
  cross join lateral (select substr(c.run_id, 18)::bigint as number offset 0) as r -- the digits of run-of-langchain-...
  cross join lateral (
    select case when c.service_type = 'solution_builder' and r.number / 4 % 2 = 1 then 'run-' || r.number / 4 - 1 end as parent
  ) as n
  where r.number % 4 = 0
  on conflict do nothing
$$;
