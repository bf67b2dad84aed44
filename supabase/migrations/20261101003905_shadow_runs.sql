-- Shadow runs: calls to a second model that were made beside one's answer, to compare the two. Such a call has the id of the one that it
-- shadows in its metadata, as `shadow_of`.

-- They are few among many, and nothing else finds them.
create index token_usage_logs_shadow_runs on public.token_usage_logs (created_at) where metadata ? 'shadow_of';

-- The call that a call's metadata says it shadows; NULL where they say no id.
create function vital_private.shadowed_call(metadata jsonb) returns uuid
language sql
immutable
parallel safe
return case
  when metadata ->> 'shadow_of' ~ '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$' then (metadata ->> 'shadow_of')::uuid
end;

-- Pairs of a call and its shadow run, of which the latter began in the time, by both models and agent, the most pairs first. Of more
-- than 50,000 shadow runs the newest count, which is enough for a comparison, and as many as can be looked up in two seconds.
--
-- `measured_pairs` are those of which both succeeded, with tokens that their providers reported: tokens and latencies are theirs, latencies
-- as medians. Costs are those of the measured pairs of which both prices are known, `priced_pairs`.
--   select * from shadow_pairs(now() - interval '30 days', now(), 'acme')
create function public.shadow_pairs(
  since timestamptz default now() - interval '30 days',
  until timestamptz default now(),
  organization text default null
)
returns table (
  model text,
  shadow_model text,
  agent_id text,
  pairs bigint,
  succeeded bigint,
  shadow_succeeded bigint,
  measured_pairs bigint,
  prompt_tokens bigint,
  shadow_prompt_tokens bigint,
  completion_tokens bigint,
  shadow_completion_tokens bigint,
  priced_pairs bigint,
  cost numeric,
  shadow_cost numeric,
  latency_ms double precision,
  shadow_latency_ms double precision
)
language plpgsql
stable
set search_path = ''
set statement_timeout = '8s'
set plan_cache_mode = force_custom_plan
set jit = off
set enable_hashjoin = off -- the planner cannot know how few shadow runs there are, and would read all calls to find theirs
set enable_mergejoin = off
as $$
begin
  since := coalesce(since, now() - interval '30 days');
  until := coalesce(until, now());
  perform vital_private.check_times(since, until);
  return query
  with shadows as materialized (
    select s.*
    from public.token_usage_logs as s
    where s.metadata ? 'shadow_of' and s.created_at >= since and s.created_at < until
      and (organization is null or s.organization_id = organization)
    order by s.created_at desc
    limit 50000
  ),

  paired as (
    select
      c.model as of_model, c.agent_id as of_agent, s.model as of_shadow, c.status = 'ok' as answered, s.status = 'ok' as shadowed,
      c.status = 'ok' and s.status = 'ok' and not (c.cache_hit or s.cache_hit or c.usage_estimated or s.usage_estimated) as measured,
      c.priced and s.priced as priced,
      c.prompt_tokens as prompt, s.prompt_tokens as shadow_prompt, c.completion_tokens as answer, s.completion_tokens as shadow_answer,
      c.total_cost as paid, s.total_cost as shadow_paid, c.latency_ms as ms, s.latency_ms as shadow_ms
    from shadows as s
    inner join public.token_usage_logs as c on c.id = vital_private.shadowed_call(s.metadata)
    where c.created_at >= since - interval '1 day' and c.created_at < until -- whose answer was there before
      and c.organization_id is not distinct from s.organization_id
  )

  select
    p.of_model, p.of_shadow, p.of_agent, count(*), count(*) filter (where p.answered), count(*) filter (where p.shadowed),
    count(*) filter (where p.measured),
    coalesce(sum(p.prompt) filter (where p.measured), 0)::bigint, coalesce(sum(p.shadow_prompt) filter (where p.measured), 0)::bigint,
    coalesce(sum(p.answer) filter (where p.measured), 0)::bigint, coalesce(sum(p.shadow_answer) filter (where p.measured), 0)::bigint,
    count(*) filter (where p.measured and p.priced),
    sum(p.paid) filter (where p.measured and p.priced), sum(p.shadow_paid) filter (where p.measured and p.priced),
    percentile_cont(0.5) within group (order by p.ms) filter (where p.measured),
    percentile_cont(0.5) within group (order by p.shadow_ms) filter (where p.measured)
  from paired as p
  group by p.of_model, p.of_shadow, p.of_agent
  order by count(*) desc, p.of_model, p.of_shadow, p.of_agent;
end;
$$;

comment on function public.shadow_pairs(timestamptz, timestamptz, text) is
'Calls and their shadow runs by models and agent: tokens, cost, latency and success of both, over the pairs that can be compared.';

-- The same as JSON; amounts are text, NULL where no pair has both prices.
create function public.shadow_pairs_v1(since timestamptz default null, until timestamptz default null, organization text default null)
returns json
language sql
stable
set search_path = ''
as $$
  select coalesce(json_agg(to_jsonb(p) || jsonb_build_object('cost', p.cost::text, 'shadow_cost', p.shadow_cost::text)), '[]')
  from public.shadow_pairs(since, until, organization) as p
$$;

select vital_private.restrict_functions(api => '{shadow_pairs, shadow_pairs_v1}', helpers => '{shadowed_call}');
