-- Duplicates: requests that were answered, and paid for, more than once.

-- Requests with the same organization, messages and parameters (model included) that were answered more than once, the dearest first.
-- What a cache would have saved is the cost of all answers but the first. Only calls that were recorded with a request_hash are
-- found, priced or not, and not those that a cache answered. An agent that asks several times on purpose is found too.
--   select * from duplicate_requests(now() - interval '7 days', now(), 'acme')
create function public.duplicate_requests(
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
  order by f.saved desc, f.calls desc, f.organization_id, f.request_hash
  limit least(greatest(max_rows, 0), 10000);
end;
$$;

comment on function public.duplicate_requests(timestamptz, timestamptz, text, integer) is
'Requests that were answered and paid for more than once, and what caching them would have saved; all_... is the sum of all such requests.';

-- The same as JSON; amounts are text.
create function public.duplicates_v1(
  since timestamptz default now() - interval '7 days',
  until timestamptz default now(),
  organization text default null,
  rows integer default 50
) returns json
language sql
stable
set search_path = ''
as $$
  select json_build_object(
    'since', coalesce(since, now() - interval '7 days'), 'until', coalesce(until, now()), 'organization', organization,
    'requests', coalesce(max(d.all_requests), 0), 'repeated_calls', coalesce(max(d.all_repeated_calls), 0),
    'saved_by_caching', coalesce(max(d.all_saved_by_caching), 0)::text,
    'rows', coalesce(json_agg(json_build_object(
      'request_hash', d.request_hash, 'organization_id', d.organization_id, 'calls', d.calls, 'unpriced_calls', d.unpriced_calls,
      'model', d.model, 'agent_id', d.agent_id, 'first_at', d.first_at, 'last_at', d.last_at, 'cost', d.cost::text,
      'saved_by_caching', d.saved_by_caching::text
    ) order by d.place) filter (where d.place <= rows), '[]')
  )
  from (
    -- At least one row, because it carries the sums.
    select f.*, row_number() over () as place from public.duplicate_requests(since, until, organization, greatest(coalesce(rows, 50), 1)) as f
  ) as d
$$;

select vital_private.restrict_functions(api => '{duplicate_requests, duplicates_v1}');
