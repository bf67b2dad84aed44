-- How advice chooses calls: conditions, and which calls a cache would have answered. Groups of calls that are repriced and lists of calls that
-- savings rest on are made of the same texts, so that one shows what the other counts.

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

-- The requests that are equal for an exact cache: those of one agent's part of a service with the same request_hash. Each agent has a cache of
-- its own, as a cache that is attached to its model is. 64 bits: of ten million requests two meet once in 400,000 times.
create function vital_private.cache_key(organization text, service text, agent text, request text) returns bigint
language sql
immutable
parallel safe
return hashtextextended(
  request, hashtextextended(coalesce(agent, ''), hashtextextended(coalesce(service, ''), hashtextextended(coalesce(organization, ''), 0)))
);

-- Conditions of calls `call` by which advice chooses them, as the text of SQL: the same for the groups that are repriced as for the lists
-- of calls that savings rest on.
--   billed      somebody had to pay for it, whatever is known of its price
--   fixed       more than tokens decided what it cost (units, passes, the provider's own figure), which nobody can reprice from sums
--   shadow      a shadow run, which does no work
--   unattended  nobody waited for it, as far as can be told: not streamed, and either an embedding outside of conversations, or in a workflow
--               or solution at night (22 to 6 by the clock of the time zone)
--   cacheable   an exact cache would keep its answer: a failed one is not kept, and merged calls are not one request
create function vital_private.call_condition(name text, timezone text default 'UTC') returns text
language sql
immutable
set search_path = ''
as $$
  select case name
    when 'billed' then $condition$(
      not call.cache_hit and call.status <> 'blocked' and call.price_version is distinct from 'not billed'
    )$condition$
    when 'fixed' then $condition$(
      call.billed_units is not null or coalesce(call.price_version like 'reported by %', false)
    )$condition$
    when 'shadow' then $condition$(call.metadata ? 'shadow_of')$condition$
    when 'unattended' then format(
      $condition$(
        call.ttft_ms is null and coalesce(case
          when call.call_type = 'embedding' then call.service_type is distinct from '1:1_conversation'
          when call.service_type in ('workflow', 'solution_builder')
            then extract(hour from call.created_at at time zone %L) not between 6 and 21
        end, false)
      )$condition$, timezone
    )
    when 'cacheable' then $condition$(call.request_hash is not null and call.status = 'ok' and call.calls = 1)$condition$
  end
$$;

-- The ids of the calls that a provider's cache of prompts would have read more for, or written more for, as the text of a query: of all calls
-- for which a condition holds, with `read_tokens` and `write_tokens`, from `$since - $within` up to `$until`. A beginning that is used within a
-- while is kept as long again. Tokens of a beginning are those of the prompt by its bytes; none is read or written twice, nor beyond the prompt.
create function vital_private.alike_calls(since text, until text, kept_for text, condition text) returns text
language sql
immutable
set search_path = ''
as $$
  select format(
    $query$
      select alike.*
      from (
        select
          kept.id, kept.read_tokens,
          least(greatest(kept.kept_tokens - kept.before - kept.read_tokens - kept.cache_write_tokens, 0), kept.plain - kept.read_tokens)
            as write_tokens
        from (
          select
            used.id, used.cache_write_tokens, used.before, used.plain, max(used.tokens) filter (where used.found or used.found_later) as kept_tokens,
            least(greatest(coalesce(max(used.tokens) filter (where used.found), 0) - used.before, 0), used.plain) as read_tokens
          from (
            select
              prefix.*, prefix.created_at - lag(prefix.created_at) over used_again <= %3$s as found,
              lead(prefix.created_at) over used_again - prefix.created_at <= %3$s as found_later
            from (
              select
                call.id, call.created_at, call.cache_write_tokens, call.cache_read_tokens as before,
                call.prompt_tokens - call.cache_read_tokens - call.cache_write_tokens - call.audio_tokens + call.audio_output_tokens as plain,
                call.prompt_tokens * (4096::bigint << (p.place - 1)::integer) / call.prompt_bytes as tokens,
                hashtextextended(
                  p.hash, hashtextextended(
                    coalesce(call.model, ''), hashtextextended(coalesce(call.provider, ''), hashtextextended(coalesce(call.organization_id, ''), 0))
                  )
                ) as beginning
              from public.token_usage_logs as call
              cross join lateral unnest(call.prefix_hashes) with ordinality as p (hash, place)
              where call.created_at >= %1$s - %3$s and call.created_at < %2$s and call.prefix_hashes is not null and call.calls = 1 and %4$s
            ) as prefix
            window used_again as (partition by prefix.beginning order by prefix.created_at, prefix.id)
          ) as used
          group by used.id, used.cache_write_tokens, used.before, used.plain
        ) as kept
        where kept.kept_tokens is not null
      ) as alike
      where alike.read_tokens > 0 or alike.write_tokens > 0
    $query$, since, until, kept_for, condition
  )
$$;

-- The ids of the calls that an exact cache would have answered, as the text of a query: of those for which a condition holds, from `since` up
-- to `until`. What was asked before `since` may answer after it.
create function vital_private.repeated_calls(since text, until text, kept_for text, condition text) returns text
language sql
immutable
set search_path = ''
as $$
  select format(
    $query$
      select seen.id
      from (
        select
          call.id, call.created_at,
          vital_private.cache_written_at(
            call.created_at, call.created_at + greatest(coalesce(call.latency_ms, 0), 0.001) * interval '1 millisecond', %3$s
          ) over (
            partition by vital_private.cache_key(call.organization_id, call.service_type, call.agent_id, call.request_hash)
            order by call.created_at, call.id
          ) <= call.created_at as repeated
        from public.token_usage_logs as call
        where call.created_at >= %1$s - %3$s and call.created_at < %2$s and %4$s and %5$s
      ) as seen
      where seen.repeated
    $query$, since, until, kept_for, vital_private.call_condition('cacheable'), condition
  )
$$;

select vital_private.restrict_functions(helpers => '{cache_written_at, cache_key, call_condition, alike_calls, repeated_calls}');
