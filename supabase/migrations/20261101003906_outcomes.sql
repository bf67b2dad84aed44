-- Outcomes by agent and model: what executions of agents say about how well a model did its work.
--
-- The calls of an execution are those with its service run and its agent, in its organization, that were answered by a model for chat or
-- completion: embeddings, calls that failed or were blocked, answers of a cache and shadow runs say nothing about it. An execution whose
-- calls used several models counts for none of them, since nobody knows which one did well.

-- What executions between two instants came to, by organization, agent, provider and model, of what the caller may see:
-- {"executions", "several_models", "no_calls", "rows": [{"organization_id", "agent", "provider", "model", "executions", "succeeded",
-- "success_rate", "ratings", "rating", "faithfulness_scores", "faithfulness", "answer_relevancy_scores", "answer_relevancy"}]}, those with
-- most executions first. `rating` and the two scores are means of what was recorded, NULL where nothing was; amounts are text. Calls are
-- looked for from a day before the first execution to a day after the last one.
create function public.outcomes_v1(since timestamptz, until timestamptz, organization text default null)
returns json
language plpgsql
stable
set search_path = ''
set jit = off
set work_mem = '64MB'
set enable_nestloop = off -- the planner cannot know how many calls an execution has
set enable_mergejoin = off
as $$
declare
  answer json;
begin
  perform vital_private.check_given('since', since::text);
  perform vital_private.check_given('until', until::text);
  perform vital_private.check_times(since, until);
  with done as materialized (
    select
      e.organization_id, e.agent_id, e.service_run_id, e.success, e.rating, e.faithfulness, e.answer_relevancy
    from public.agent_executions as e
    where e.started_at >= outcomes_v1.since and e.started_at < outcomes_v1.until
      and (outcomes_v1.organization is null or e.organization_id = outcomes_v1.organization)
  ),

  made as materialized (
    select
      c.organization_id, c.service_run_id, c.agent_id, min(c.provider collate "C") as provider, min(c.model collate "C") as model,
      min(coalesce(c.provider, '') collate "C") = max(coalesce(c.provider, '') collate "C")
      and min(c.model collate "C") = max(c.model collate "C") as alone
    from public.token_usage_logs as c
    where c.created_at >= outcomes_v1.since - interval '1 day' and c.created_at < outcomes_v1.until + interval '1 day'
      and (outcomes_v1.organization is null or c.organization_id = outcomes_v1.organization)
      and c.service_run_id in (select d.service_run_id from done as d)
      and c.agent_id is not null and c.model is not null and c.status = 'ok' and not c.cache_hit and c.call_type <> 'embedding'
      and not c.metadata ? 'shadow_of' -- nobody saw their answers
    group by c.organization_id, c.service_run_id, c.agent_id
  ),

  known as materialized (
    select d.*, m.provider, m.model, m.alone
    from done as d
    left join made as m
      on m.service_run_id = d.service_run_id and m.agent_id = d.agent_id
      and coalesce(m.organization_id, '') = coalesce(d.organization_id, '')
  ),

  grouped as (
    select
      k.organization_id, k.agent_id as agent, k.provider, k.model, count(*) as executions, count(*) filter (where k.success) as succeeded,
      round(100.0 * count(*) filter (where k.success) / count(*), 4) as success_rate,
      count(k.rating) as ratings, round(avg(k.rating), 4)::text as rating,
      count(k.faithfulness) as faithfulness_scores, round(avg(k.faithfulness), 4)::text as faithfulness,
      count(k.answer_relevancy) as answer_relevancy_scores, round(avg(k.answer_relevancy), 4)::text as answer_relevancy
    from known as k
    where k.alone
    group by k.organization_id, k.agent_id, k.provider, k.model
  )

  select json_build_object(
    'executions', (select count(*) from known),
    'several_models', (select count(*) from known as k where not k.alone),
    'no_calls', (select count(*) from known as k where k.alone is null),
    'rows', (
      select coalesce(json_agg(g.* order by g.executions desc, g.organization_id, g.agent, g.model, g.provider), '[]') from grouped as g
    )
  ) into answer;
  return answer;
end;
$$;

comment on function public.outcomes_v1(timestamptz, timestamptz, text) is
'Success, ratings and scores of executions by agent and model; executions whose calls used several models count for none.';

select vital_private.restrict_functions(api => '{outcomes_v1}');
