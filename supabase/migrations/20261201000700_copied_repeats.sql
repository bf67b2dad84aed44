-- Groups of calls come from a copy where repeated requests and beginnings of prompts are looked for, too: each part of the time is answered by
-- itself, with the calls that go before it by as long as a cache keeps what it has, so a copy that holds all of these can tell the same.

-- The comment of the former one holds, but for `copied`: {"copy": id}: where that copy of the calls (docs/clickhouse.md) holds all of the time,
-- and of the time before it that is looked at, the answer is {"ask_copy": what to ask it}.
create or replace function public.call_groups_v1(
  since timestamptz,
  until timestamptz,
  organization text default null,
  sizes bigint[] default '{}',
  eras timestamptz[] default '{}',
  timezone text default 'UTC',
  repeated_within interval default null,
  prefixes_within interval default null,
  dimensions text[] default null,
  copied jsonb default null
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
  known constant text[] := '{service, agent, tier, workflow, step, rates}';
  looks_for_repeated constant boolean := repeated_within is not null;
  looks_for_alike constant boolean := prefixes_within is not null;
  unknown text;
  keys text[];
  shown text[];
  summed text[] := '{calls, total_cost}';
  wanted text;
  answer json;
begin
  perform vital_private.check_given('since', since::text);
  perform vital_private.check_given('until', until::text);
  perform vital_private.check_times(since, until);
  if least(repeated_within, prefixes_within) <= interval '0' then
    raise exception 'A cache keeps its answers for a while.' using errcode = '22023', hint = 'Give an interval above 0, such as 1 hour.';
  end if;
  dimensions := coalesce(dimensions, known);
  select string_agg(quote_nullable(d.name), ', ') into unknown from unnest(dimensions) as d (name) where (d.name = any(known)) is not true;
  if unknown is not null then
    raise exception 'Calls are not grouped by %.', unknown
    using errcode = '22023', hint = format('Choose %s.', array_to_string(known, ', '));
  end if;
  -- Days and months are not as long everywhere.
  if copied is not null and (date_trunc('day', repeated_within) <> '0' or date_trunc('day', prefixes_within) <> '0') is not true then
    answer := vital_private.ask_copy(
      (case jsonb_typeof(copied) when 'string' then (copied #>> '{}')::jsonb else copied end ->> 'copy')::uuid,
      since - coalesce(greatest(repeated_within, prefixes_within), '0'), until, 0, 'hour', timezone
    );
    if (answer ->> 'until')::timestamptz = until then
      return json_build_object('ask_copy', answer::jsonb || jsonb_build_object(
        'since', since,
        'repeated_from', since - repeated_within, 'repeated_within', extract(epoch from repeated_within * 1000000)::bigint,
        'alike_from', since - prefixes_within, 'prefixes_within', extract(epoch from prefixes_within * 1000000)::bigint,
        'nights', (
          select coalesce(jsonb_agg(s.value::bigint), '[]')
          from jsonb_array_elements_text(answer::jsonb -> 'starts') as s (value)
          where extract(hour from to_timestamp(s.value::bigint) at time zone coalesce(timezone, 'UTC')) not between 6 and 21
        )
      ));
    end if;
  end if;
  wanted := concat_ws(
    ' and ', vital_private.call_condition('billed'), case when organization is not null then 'call.organization_id = $3' end
  );
  select array_agg(k.name order by k.place), array_agg(format('%s as %I', k.of_call, k.name) order by k.place)
  into keys, shown
  from (
    values
    (1, 'service', 'service_type', 'call.service_type'), (2, 'agent', 'agent_id', 'call.agent_id'),
    (3, 'tier', 'agent_tier', 'call.agent_tier'), (4, 'workflow', 'workflow_id', 'call.workflow_id'),
    (5, 'step', 'workflow_step', 'call.workflow_step'), (6, 'rates', 'provider', 'call.provider'), (7, 'rates', 'model', 'call.model'),
    (8, 'rates', 'sent_model', 'call.sent_model'), (9, 'rates', 'call_type', 'call.call_type'),
    (
      10, 'rates', 'facts',
      $facts$case when call.metadata ?| '{service_tier, speed, latency, inference_geo, search_context_size, search_tool, processing}'
        then vital_private.price_facts(call.metadata) end$facts$
    ),
    (11, 'rates', 'size', 'coalesce($4[width_bucket((call.prompt_tokens + call.calls - 1) / call.calls, $4)], 0)'),
    (12, 'rates', 'era', 'width_bucket(call.created_at, $5)'),
    (13, 'rates', 'unattended', vital_private.call_condition('unattended', coalesce(timezone, 'UTC'))),
    (14, 'rates', 'audio', 'call.audio_tokens > 0'),
    (15, null, 'fixed', vital_private.call_condition('fixed')), (16, null, 'shadow', vital_private.call_condition('shadow')),
    (17, null, 'priced', 'call.priced'), (18, null, 'hashed', 'call.request_hash is not null'),
    (19, null, 'alike', case when looks_for_alike then 'alike.id is not null' else 'false' end)
  ) as k (place, dimension, name, of_call)
  where k.dimension is null or k.dimension = any(dimensions);
  if 'rates' = any(dimensions) then
    summed := summed || '{
      prompt_tokens, completion_tokens, cache_read_tokens, cache_write_tokens, cache_write_1h_tokens, reasoning_tokens, audio_tokens,
      audio_output_tokens
    }'::text[];
  end if;
  execute format(
    $query$
      -- Each call is read once, whatever is looked for.
      with call as %1$s materialized (
        select
          call.id, call.created_at, call.latency_ms, call.usage_estimated, %2$s, %3$s,
          %4$s,
          case when %5$s then vital_private.cache_key(call.organization_id, call.service_type, call.agent_id, call.request_hash) end as asked
        from public.token_usage_logs as call %6$s
        where call.created_at >= $1 and call.created_at < $2 and %7$s
      ),

      before as materialized (
        select
          call.id, call.created_at, call.latency_ms,
          vital_private.cache_key(call.organization_id, call.service_type, call.agent_id, call.request_hash) as asked
        from public.token_usage_logs as call
        where call.created_at >= $1 - $6 and call.created_at < $1 and %5$s and %7$s
      ),

      asked as not materialized (
        select call.id, call.created_at, call.latency_ms, call.asked from call where call.asked is not null
        union all
        select before.id, before.created_at, before.latency_ms, before.asked from before
      ),

      -- Most requests are asked once: those are left out before what is left is sorted.
      repeated as (
        select seen.id
        from (
          select
            asked.id, asked.created_at,
            vital_private.cache_written_at(
              asked.created_at, asked.created_at + greatest(coalesce(asked.latency_ms, 0), 0.001) * interval '1 millisecond', $6
            ) over (partition by asked.asked order by asked.created_at, asked.id) <= asked.created_at as repeated
          from asked
          join (select asked.asked from asked group by asked.asked having count(*) > 1) as again on again.asked = asked.asked
        ) as seen
        where seen.repeated and seen.created_at >= $1
      )

      select coalesce(json_agg(g), '[]')
      from (
        select
          %8$s, f.repeated, %9$s,
          sum(call.calls) filter (where call.usage_estimated) as estimated_calls,
          sum(call.calls) filter (where call.prefixed) as prefixed_calls,
          sum(call.read_tokens)::text as prefix_read_tokens, sum(call.write_tokens)::text as prefix_write_tokens
        from call
        cross join lateral (select %10$s as repeated) as f
        group by %8$s, f.repeated
      ) as g
    $query$,
    case when not looks_for_repeated then 'not' end,
    array_to_string(shown, ', '),
    (select string_agg(format('call.%I', s.name), ', ') from unnest(summed) as s (name)),
    case
      when looks_for_alike then 'call.prefix_hashes is not null as prefixed, alike.read_tokens, alike.write_tokens'
      else 'false as prefixed, null::bigint as read_tokens, null::bigint as write_tokens'
    end,
    case when looks_for_repeated then vital_private.call_condition('cacheable') else 'false' end,
    case
      when looks_for_alike then format('left join (%s) as alike on alike.id = call.id', vital_private.alike_calls('$1', '$2', '$7', wanted))
    end,
    wanted,
    (select string_agg(format('call.%I', k.name), ', ' order by k.place) from unnest(keys) with ordinality as k (name, place)),
    (select string_agg(format('coalesce(sum(call.%1$I), 0)::text as %1$I', s.name), ', ') from unnest(summed) as s (name)),
    case when looks_for_repeated then 'call.id in (select repeated.id from repeated)' else 'false' end
  ) into answer using since, until, organization, sizes, eras, repeated_within, prefixes_within;
  return answer;
end;
$$;

select vital_private.restrict_functions(api => '{call_groups_v1}');
