-- Calls whose cost is not known exactly, and why, so that somebody can mend it.

-- Calls that started from `since` on (NULL: all) whose cost is no exact one: {"since", "complete", "calls", "rows": [{"provider", "model",
-- "framework", "call_type", "reason", "calls", "cost", "newest"}], "price_lists": [{"version", "calls", "newest"}]}.
--   reason       usage_missing; usage_estimated, or ended_early if the call did not succeed; unpriced; or a note of the row about a
--                modality, a unit, a total, a tier, passes, or what an integration hides
--   cost         US dollars of those that have a price, as text
--   price_lists  the releases of genai-prices that priced calls of this time
-- Only the newest 100,000 calls are read, so that the answer takes a moment however many there are; `complete` says whether they reach
-- back to `since`, and `calls` how many of them are of this time. Of the groups the 200 with most calls are listed.
create function public.inexact_calls_v1(since timestamptz) returns json
language sql
stable
security definer
set search_path = ''
as $$
  with newest as materialized (
    select
      id, created_at, provider, model, framework, call_type, calls, usage_estimated, priced, total_cost, price_version, success,
      case when jsonb_typeof(metadata -> 'notes') = 'array' then metadata -> 'notes' end as notes
    from public.token_usage_logs
    where status <> 'blocked' and not cache_hit -- these cost nothing
    order by id desc -- ids sort by time, and have an index
    limit 100000
  ),

  recent as (
    select * from newest where created_at >= coalesce(since, '-infinity')
  ),

  inexact as ( -- the cost is NULL where no price is known
    select
      c.provider, c.model, c.framework, c.call_type, r.reason, sum(c.calls) as calls, sum(c.total_cost) as cost,
      max(c.created_at) as newest
    from recent as c
    cross join lateral (
      select
        case
          when c.notes ? 'usage_missing' then 'usage_missing' when c.success then 'usage_estimated' else 'ended_early'
        end as reason
      where c.usage_estimated or c.notes ? 'usage_missing'
      union all
      select 'unpriced' where not c.priced
      union all
      select note.value
      from jsonb_array_elements_text(c.notes) as note
      where note.value ~ '^(modality|unit|total|tier|passes)_|_hidden$'
    ) as r
    group by 1, 2, 3, 4, 5
    order by 6 desc, 8 desc, 1, 2, 3, 4, 5
    limit 200
  )

  select json_build_object(
    'since', since,
    'complete', (select count(*) < 100000 or coalesce(min(n.created_at) < since, false) from newest as n),
    'calls', (select coalesce(sum(c.calls), 0) from recent as c),
    'rows', (
      select coalesce(json_agg(json_build_object(
        'provider', i.provider, 'model', i.model, 'framework', i.framework, 'call_type', i.call_type, 'reason', i.reason,
        'calls', i.calls, 'cost', i.cost::text, 'newest', i.newest
      ) order by i.calls desc, i.newest desc, i.provider, i.model, i.framework, i.call_type, i.reason), '[]')
      from inexact as i
    ),
    'price_lists', (
      select coalesce(json_agg(json_build_object(
        'version', l.version, 'calls', l.calls, 'newest', l.newest
      ) order by l.newest desc, l.version), '[]')
      from (
        select split_part(c.price_version, ' ', 2) as version, sum(c.calls) as calls, max(c.created_at) as newest
        from recent as c
        where c.price_version like 'genai-prices %'
        group by 1
      ) as l
    )
  )
$$;

comment on function public.inexact_calls_v1(timestamptz) is
'Which models'' calls have a cost that is not known exactly, and why; of the newest 100,000 calls.';

select vital_private.restrict_functions(api => '{inexact_calls_v1}');
