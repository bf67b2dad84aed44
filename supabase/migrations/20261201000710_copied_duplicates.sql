-- Duplicates from a copy of the calls (docs/clickhouse.md). A request may have been asked before the instant up to which the copy holds the calls,
-- and again after it. So the calls after it are sent along with the question, and the copy looks at all of them.

-- The same as before, but for the order of requests that would have saved the same: it is that of the bytes, which does not depend on who sorts.
create or replace function public.duplicate_requests(
  since timestamptz default now() - interval '7 days',
  until timestamptz default now(),
  organization text default null,
  max_rows integer default 50
)
returns table (
  request_hash text,
  organization_id text,
  calls bigint,
  unpriced_calls bigint,
  model text,
  agent_id text,
  first_at timestamptz,
  last_at timestamptz,
  cost numeric,
  saved_by_caching numeric,
  all_requests bigint,
  all_repeated_calls bigint,
  all_saved_by_caching numeric
)
language plpgsql
stable
set search_path = ''
set statement_timeout = '8s'
set plan_cache_mode = force_custom_plan
set jit = off
set work_mem = '64MB'
set enable_nestloop = off -- the planner cannot know how often requests repeat: few do
set enable_mergejoin = off
as $$
begin
  since := coalesce(since, now() - interval '7 days');
  until := coalesce(until, now());
  perform vital_private.check_times(since, until);
  max_rows := coalesce(max_rows, 50);
  return query
  with repeated as materialized (
    select
      c.organization_id, c.request_hash, count(*) as calls, count(*) filter (where not c.priced) as unpriced,
      min(c.created_at) as first_at, max(c.created_at) as last_at, coalesce(sum(c.total_cost), 0) as cost
    from public.token_usage_logs as c
    where c.created_at >= since and c.created_at < until and (organization is null or c.organization_id = organization)
      and c.request_hash is not null and c.status = 'ok' and not c.cache_hit
      and c.calls = 1 -- merged calls are not one request
    group by c.organization_id, c.request_hash
    having count(*) > 1
  ),

  firsts as (
    select distinct on (r.organization_id, r.request_hash) r.*, c.model, c.agent_id, r.cost - coalesce(c.total_cost, 0) as saved
    from repeated as r
    join public.token_usage_logs as c
      on c.request_hash = r.request_hash and c.created_at = r.first_at and c.organization_id is not distinct from r.organization_id
    where c.created_at >= since and c.created_at < until and (organization is null or c.organization_id = organization)
      and c.status = 'ok' and not c.cache_hit and c.calls = 1
    order by r.organization_id, r.request_hash, c.id
  )

  select
    f.request_hash, f.organization_id, f.calls, f.unpriced, f.model, f.agent_id, f.first_at, f.last_at, f.cost, f.saved,
    count(*) over (), (sum(f.calls - 1) over ())::bigint, sum(f.saved) over ()
  from firsts as f
  order by f.saved desc, f.calls desc, f.organization_id collate "C", f.request_hash collate "C"
  limit least(greatest(max_rows, 0), 10000);
end;
$$;

-- Requests that were answered and paid for more than once, as JSON; amounts are text. {"since", "until", "organization", "requests",
-- "repeated_calls", "saved_by_caching", "rows": [{"request_hash", ...}, ...]}: see duplicate_requests.
--
-- `copied`, {"copy": id, "least": n}: where there are at least so many calls, that copy has some of them, and what it lacks are at most 50,000
-- of those that may be duplicates, the answer is {"ask_copy": what to ask it}, with "lacking": these, a line of JSON each, and "answer": what
-- is told beside.
create function public.duplicates_v2(
  since timestamptz default now() - interval '7 days',
  until timestamptz default now(),
  organization text default null,
  rows integer default 50,
  copied jsonb default null
) returns json
language plpgsql
stable
set search_path = ''
set timezone = 'UTC'
set statement_timeout = '8s'
set plan_cache_mode = force_custom_plan
set jit = off
as $$
declare
  most_lacking constant integer := 50000;
  asked json;
  lacking text;
  how_many bigint;
  is_odd boolean;
begin
  since := coalesce(since, now() - interval '7 days');
  until := coalesce(until, now());
  rows := least(greatest(coalesce(rows, 50), 0), 10000);
  perform vital_private.check_times(since, until);
  if copied is not null then
    -- Some clients hand JSON over as a text.
    copied := case jsonb_typeof(copied) when 'string' then (copied #>> '{}')::jsonb else copied end;
    asked := vital_private.ask_copy((copied ->> 'copy')::uuid, since, until, coalesce((copied ->> 'least')::bigint, 0), null, 'UTC');
  end if;
  if asked is not null then
    select
      count(*), coalesce(bool_or(scale(trim_scale(c.total_cost)) > 12 or c.total_cost >= 1e20), false),
      string_agg(json_build_array(
        c.organization_id, c.request_hash, (extract(epoch from c.created_at) * 1000000)::bigint, c.id, c.priced, c.model, c.agent_id,
        c.total_cost::text
      )::text, E'\n')
    into how_many, is_odd, lacking
    from (
      select t.*
      from public.token_usage_logs as t
      where t.created_at >= (asked ->> 'until')::timestamptz and t.created_at < duplicates_v2.until
        and (duplicates_v2.organization is null or t.organization_id = duplicates_v2.organization)
        and t.request_hash is not null and t.status = 'ok' and not t.cache_hit and t.calls = 1
      limit most_lacking + 1
    ) as c;
    if how_many <= most_lacking and not is_odd then
      return json_build_object('ask_copy', asked::jsonb || jsonb_build_object(
        'lacking', coalesce(lacking, ''), 'rows', rows,
        'answer', jsonb_build_object('since', since, 'until', until, 'organization', organization)
      ));
    end if;
  end if;
  return (
    select json_build_object(
      'since', since, 'until', until, 'organization', organization,
      'requests', coalesce(max(d.all_requests), 0), 'repeated_calls', coalesce(max(d.all_repeated_calls), 0),
      'saved_by_caching', trim_scale(coalesce(max(d.all_saved_by_caching), 0))::text,
      'rows', coalesce(json_agg(json_build_object(
        'request_hash', d.request_hash, 'organization_id', d.organization_id, 'calls', d.calls, 'unpriced_calls', d.unpriced_calls,
        'model', d.model, 'agent_id', d.agent_id, 'first_at', d.first_at, 'last_at', d.last_at, 'cost', trim_scale(d.cost)::text,
        'saved_by_caching', trim_scale(d.saved_by_caching)::text
      ) order by d.place) filter (where d.place <= duplicates_v2.rows), '[]')
    )
    from (
      -- At least one row, because it carries the sums.
      select f.*, row_number() over () as place
      from public.duplicate_requests(duplicates_v2.since, duplicates_v2.until, duplicates_v2.organization, greatest(duplicates_v2.rows, 1)) as f
    ) as d
  );
end;
$$;

comment on function public.duplicates_v2(timestamptz, timestamptz, text, integer, jsonb) is
'Requests that were answered and paid for more than once, and what caching them would have saved, as JSON.';

select vital_private.restrict_functions(api => '{duplicate_requests, duplicates_v2}');
