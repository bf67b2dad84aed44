-- Requests that were answered more than once, as public.duplicate_requests of PostgreSQL finds them: among the calls that the copy holds and
-- those that it lacks, which PostgreSQL sends along. Hashes of requests are counted first, since most requests are asked once.
with
(
  select groupArray((organization_id, request_hash, at, name, priced, model, agent_id, total_cost))
  from format(JSONCompactEachRow, '
    organization_id LowCardinality(Nullable(String)), request_hash String, at Int64, name String, priced Bool,
    model LowCardinality(Nullable(String)), agent_id LowCardinality(Nullable(String)), total_cost Nullable(Decimal(38, 12))
  ', ${lacking})
) as lacking,
calls as (
  select
    t.organization_id as organization_id,
    assumeNotNull(t.request_hash) as request_hash,
    toUnixTimestamp64Micro(t.created_at) as at,
    toString(t.id) as name, -- ids are in the order of their text, as in PostgreSQL
    t.priced as priced,
    t.model as model,
    t.agent_id as agent_id,
    t.total_cost as total_cost,
    mapContains(t.odd_amounts, 'total_cost') as odd
  from token_usage_logs as t final
  where t.created_at >= {since:DateTime64(6, 'UTC')} and t.created_at < {until:DateTime64(6, 'UTC')}
    and t.request_hash is not null and t.status = 'ok' and not t.cache_hit and t.calls = 1 and ${organization} and ${reader}
  union all
  select one.1, one.2, one.3, one.4, one.5, one.6, one.7, one.8, false
  from (select arrayJoin(lacking) as one)
)
select
  request_hash,
  organization_id,
  calls,
  unpriced_calls,
  first.1 as model,
  first.2 as agent_id,
  first_at,
  last_at,
  toString(cost) as cost,
  toString(saved) as saved_by_caching,
  count() over () as all_requests,
  sum(calls - 1) over () as all_repeated_calls,
  toString(sum(saved) over ()) as all_saved_by_caching,
  max(odd) over () as is_odd
from (
  select
    organization_id,
    request_hash,
    count() as calls,
    countIf(not c.priced) as unpriced_calls,
    min(c.at) as first_at,
    max(c.at) as last_at,
    sum(ifNull(c.total_cost, 0)) as cost,
    argMin((c.model, c.agent_id, c.total_cost), (c.at, c.name)) as first,
    cost - ifNull(first.3, 0) as saved,
    max(c.odd) as odd
  from calls as c
  where sipHash64(ifNull(c.organization_id, ''), c.request_hash) global in (
    select sipHash64(ifNull(organization_id, ''), request_hash) as request from calls group by request having count() > 1
  )
  group by organization_id, request_hash
  having calls > 1
)
order by saved desc, calls desc, organization_id, request_hash
limit {rows:UInt32}
