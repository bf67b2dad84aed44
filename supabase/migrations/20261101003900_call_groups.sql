-- Calls as what-if needs them: put together in groups in which every call would be priced by the same rates, whatever model they went to.
--
-- What a call costs is its tokens of each kind times a rate. The rate depends on provider, model and facts such as a service tier, on the
-- instant, and at some models on the size of the prompt: from so many tokens on another one holds. Calls alike in all of that cost exactly
-- what their summed tokens cost, so the sums of a few thousand groups answer for millions of calls, to the last digit.

-- When an exact cache that keeps an answer for `ttl` would have had the answer at hand: the state is the instant at which the answer in
-- the cache was written. A call before its end finds nothing there yet; one after `ttl` writes it anew.
create function vital_private.cache_written_at(written timestamptz, started timestamptz, ended timestamptz, ttl interval) returns timestamptz
language sql
immutable
parallel safe
return case when written is null or started >= written + ttl then ended else written end;

create aggregate vital_private.cache_written_at (timestamptz, timestamptz, interval)(
  sfunc = vital_private.cache_written_at, stype = timestamptz
);

-- The calls from `since` up to `until` that were billed, in groups, as JSON: [{keys, sums}, ...], amounts and tokens as text.
--
-- `sizes` are numbers of prompt tokens at which a group ends and the next begins, the smallest first: a group's `size` is the greatest of
-- them that its calls reach, 0 below all. `eras` are the same for instants: `era` is how many have passed. `fixed` calls are those that
-- more than tokens decided about (units, passes, the provider's own figure), which nobody can reprice from sums; `shadow` ones are shadow
-- runs, which do no work.
--
-- Of service, agent, tier, workflow and step groups have those that `dimensions` names, NULL: all of them; the fewer, the faster.
--
-- `unattended` calls are those that nobody waited for, as far as can be told: not streamed, and either embeddings outside of
-- conversations, or in workflows and solutions at night (22 to 6 by the clock of `timezone`). `repeated` ones have the same
-- request_hash as one before, which an exact cache that keeps answers for `repeated_within` would have answered; NULL: nobody looks.
--
-- `prefix_read_tokens` are those that a provider's cache of prompts would have read beyond what it did read, `prefix_write_tokens` those
-- that it would have written for them: the longest beginning of a prompt (prefix_hashes) that another call to the same model had within
-- `prefixes_within`, after the first use or the last. `prefixed_calls` are those of which it is known. NULL: nobody looks.
create function public.call_groups_v1(
  since timestamptz,
  until timestamptz,
  organization text default null,
  sizes bigint[] default '{}',
  eras timestamptz[] default '{}',
  timezone text default 'UTC',
  repeated_within interval default null,
  prefixes_within interval default null,
  dimensions text[] default null
) returns json
language plpgsql
stable
set search_path = ''
set statement_timeout = '8s'
set plan_cache_mode = force_custom_plan
set work_mem = '64MB'
set jit = off
set enable_sort = off -- texts sort slowly, and the planner expects far more groups than there are
as $$
declare
  billed constant text := $condition$
    call.created_at < $2 and not call.cache_hit and call.status <> 'blocked' and call.price_version is distinct from 'not billed'
  $condition$;
  -- A failed answer is not kept, and merged calls are not one request. What was asked before `since` may answer after it.
  cacheable constant text := $condition$
    call.created_at >= $1 - $7 and call.request_hash is not null and call.status = 'ok' and call.calls = 1
  $condition$;
  -- Most requests are asked once: those are left out before what is left is sorted.
  repeated_calls constant text := $query$
    select seen.id
    from (
      select
        call.id, call.created_at,
        vital_private.cache_written_at(
          call.created_at, call.created_at + greatest(coalesce(call.latency_ms, 0), 0.001) * interval '1 millisecond', $7
        ) over (
          partition by call.organization_id collate "C", call.request_hash collate "C" order by call.created_at, call.id
        ) <= call.created_at as repeated
      from public.token_usage_logs as call
      join (
        select coalesce(call.organization_id, '') as organization_id, call.request_hash
        from public.token_usage_logs as call
        where %1$s
        group by 1, 2
        having count(*) > 1
      ) as asked on asked.request_hash = call.request_hash and asked.organization_id = coalesce(call.organization_id, '')
      where %1$s
    ) as seen
    where seen.repeated and seen.created_at >= $1
  $query$;
  -- A beginning that is used within a while is kept as long again. Tokens of a beginning are those of the prompt by its bytes.
  prefixes constant text := $query$
    left join (
      select
        used.id, coalesce(max(used.tokens) filter (where used.found), 0) as read_tokens,
        max(used.tokens) filter (where used.found or used.found_later) as kept_tokens
      from (
        select
          prefix.id, prefix.tokens,
          prefix.created_at - lag(prefix.created_at) over used_again <= $8 as found,
          lead(prefix.created_at) over used_again - prefix.created_at <= $8 as found_later
        from (
          select
            call.id, call.created_at, call.organization_id, call.provider, call.model, p.hash,
            call.prompt_tokens * (4096::bigint << (p.place - 1)::integer) / call.prompt_bytes as tokens
          from public.token_usage_logs as call
          cross join lateral unnest(call.prefix_hashes) with ordinality as p (hash, place)
          where call.created_at >= $1 - $8 and call.prefix_hashes is not null and call.calls = 1 and %s
        ) as prefix
        window used_again as (
          partition by prefix.organization_id collate "C", prefix.provider collate "C", prefix.model collate "C", prefix.hash collate "C"
          order by prefix.created_at, prefix.id
        )
      ) as used
      group by used.id
    ) as prefix on prefix.id = call.id
  $query$;
  prefix_sums constant text := $query$,
    sum(call.calls) filter (where call.prefix_hashes is not null) as prefixed_calls,
    sum(greatest(prefix.read_tokens - call.cache_read_tokens, 0))::text as prefix_read_tokens,
    sum(greatest(prefix.kept_tokens - greatest(prefix.read_tokens, call.cache_read_tokens) - call.cache_write_tokens, 0))::text
      as prefix_write_tokens
  $query$;
  shown text;
  grouped text;
  unknown text;
  of_organization text := case when organization is null then 'true' else 'call.organization_id = $3' end;
  answer json;
begin
  perform vital_private.check_given('since', since::text);
  perform vital_private.check_given('until', until::text);
  perform vital_private.check_times(since, until);
  if least(repeated_within, prefixes_within) <= interval '0' then
    raise exception 'A cache keeps its answers for a while.' using errcode = '22023', hint = 'Give an interval above 0, such as 1 hour.';
  end if;
  dimensions := coalesce(dimensions, '{service, agent, tier, workflow, step}');
  select string_agg(quote_nullable(d.name), ', ') into unknown
  from unnest(dimensions) as d (name)
  where (d.name in ('service', 'agent', 'tier', 'workflow', 'step')) is not true;
  if unknown is not null then
    raise exception 'Calls are not grouped by %.', unknown using errcode = '22023', hint = 'Choose service, agent, tier, workflow, step.';
  end if;
  select
    string_agg(case when d.name = any(dimensions) then 'call.' || d.of_call else 'null::text as ' || d.of_call end, ', '),
    coalesce(string_agg('call.' || d.of_call || ',', ' ') filter (where d.name = any(dimensions)), '')
  into shown, grouped
  from (
    values ('service', 'service_type'), ('agent', 'agent_id'), ('tier', 'agent_tier'), ('workflow', 'workflow_id'), ('step', 'workflow_step')
  ) as d (name, of_call);
  sizes := coalesce(sizes, '{}');
  eras := coalesce(eras, '{}');
  execute format(
    $query$
      select coalesce(json_agg(g), '[]')
      from (
        select
          call.provider, call.model, call.sent_model, call.call_type, %s,
          f.facts, f.size, f.era, f.fixed, f.shadow, f.unattended, call.priced, f.repeated,
          sum(call.calls) as calls,
          sum(call.calls) filter (where call.request_hash is not null) as hashed_calls,
          sum(call.calls) filter (where call.usage_estimated) as estimated_calls,
          sum(call.prompt_tokens)::text as prompt_tokens,
          sum(call.completion_tokens)::text as completion_tokens,
          sum(call.cache_read_tokens)::text as cache_read_tokens,
          sum(call.cache_write_tokens)::text as cache_write_tokens,
          sum(call.cache_write_1h_tokens)::text as cache_write_1h_tokens,
          sum(call.reasoning_tokens)::text as reasoning_tokens,
          sum(call.audio_tokens)::text as audio_tokens,
          sum(call.audio_output_tokens)::text as audio_output_tokens,
          coalesce(sum(call.total_cost), 0)::text as cost%s
        from public.token_usage_logs as call %s
        cross join lateral (
          select
            case when call.metadata ?| '{service_tier, speed, latency, inference_geo, search_context_size, search_tool, processing}'
              then vital_private.price_facts(call.metadata) end as facts,
            coalesce($4[width_bucket((call.prompt_tokens + call.calls - 1) / call.calls, $4)], 0) as size,
            width_bucket(call.created_at, $5) as era,
            call.billed_units is not null or coalesce(call.price_version like 'reported by %%', false) as fixed,
            call.metadata ? 'shadow_of' as shadow,
            call.ttft_ms is null and coalesce(case
              when call.call_type = 'embedding' then call.service_type is distinct from '1:1_conversation'
              when call.service_type in ('workflow', 'solution_builder')
                then extract(hour from call.created_at at time zone $6) not between 6 and 21
            end, false) as unattended,
            %s as repeated
        ) as f
        where call.created_at >= $1 and %s and %s
        group by
          call.provider, call.model, call.sent_model, call.call_type, %s
          f.facts, f.size, f.era, f.fixed, f.shadow, f.unattended, call.priced, f.repeated
      ) as g
    $query$,
    shown,
    case when prefixes_within is null then '' else prefix_sums end,
    case when prefixes_within is null then '' else format(prefixes, concat_ws(' and ', billed, of_organization)) end,
    case when repeated_within is null then 'false' else format('call.id in (%s)', format(repeated_calls, concat_ws(' and ', cacheable, billed, of_organization))) end,
    billed, of_organization,
    grouped
  ) into answer using since, until, organization, sizes, eras, coalesce(timezone, 'UTC'), repeated_within, prefixes_within;
  return answer;
end;
$$;

comment on function public.call_groups_v1(timestamptz, timestamptz, text, bigint[], timestamptz[], text, interval, interval, text[]) is
'Billed calls in groups that are priced alike, with their tokens by kind and their cost: what what-if reprices.';

select vital_private.restrict_functions(api => '{call_groups_v1}', helpers => '{cache_written_at, price_facts}');
