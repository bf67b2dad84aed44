-- How busy the machines are on which a team runs models itself, and pays for by the hour.
--
-- An hour of a machine is a row of tenant_cost_events of the type compute with the unit hour, whose resource is the name of a model that was
-- called. It counts for the hour of UTC that it arose in: two such hours within one hour are two machines. A call keeps one machine busy for
-- as long as it takes; more calls at once than there are machines share them. Servers answer several calls on one machine at once, so this
-- is the most that the machines were busy, never less. Answers of a cache and blocked calls reach no machine.

-- The hours between two instants for which machines were billed, by model, of what the caller may see; of an organization, the machines that
-- are booked to it, with the calls of all that used the model: {"rows": [{"model", "hour", "machine_hours", "cost_usd", "unpriced_costs",
-- "calls", "untimed_calls", "busy_s", "most_in_flight"}], "not_called": ["gpu-1"]}. `calls` began in that hour; those without a latency are
-- `untimed_calls` and keep nothing busy; `busy_s` are seconds of machines. `not_called` are resources that are billed by the hour and no name
-- of a model that was called. Amounts are text. Calls that began more than an hour before the first instant are not looked at.
create function public.machine_hours_v1(since timestamptz, until timestamptz, organization text default null) returns json
language plpgsql
stable
set search_path = ''
set timezone = 'UTC'
set jit = off
set work_mem = '64MB'
as $$
declare
  answer json;
begin
  perform vital_private.check_given('since', since::text);
  perform vital_private.check_given('until', until::text);
  perform vital_private.check_times(since, until);
  with billed as materialized (
    select
      lower(c.resource) as name, date_trunc('hour', c.occurred_at) as hour, min(c.resource) as resource, sum(c.quantity) as hours,
      coalesce(sum(c.cost_usd), 0) as cost, count(*) filter (where not c.priced) as unpriced
    from public.tenant_cost_events as c
    where c.cost_type = 'compute' and c.unit = 'hour' and c.resource is not null
      and c.occurred_at >= machine_hours_v1.since and c.occurred_at < machine_hours_v1.until
      and (machine_hours_v1.organization is null or c.organization_id = machine_hours_v1.organization)
    group by lower(c.resource), date_trunc('hour', c.occurred_at)
    having sum(c.quantity) > 0
  ),

  called as materialized (
    select
      lower(l.model) as name, l.created_at as starts_at, l.created_at + l.latency_ms * interval '1 millisecond' as ends_at, l.calls
    from public.token_usage_logs as l
    where l.created_at >= machine_hours_v1.since - interval '1 hour' and l.created_at < machine_hours_v1.until
      and lower(l.model) in (select b.name from billed as b) and not l.cache_hit and l.status <> 'blocked'
  ),

  known as (
    select c.name from called as c where c.starts_at >= machine_hours_v1.since group by c.name
  ),

  begun as (
    select
      c.name, date_trunc('hour', c.starts_at) as hour, sum(c.calls) as calls, coalesce(sum(c.calls) filter (where c.ends_at is null), 0) as untimed
    from called as c
    group by c.name, date_trunc('hour', c.starts_at)
  ),

  -- What changes how many calls are in flight, cut at the hours that are billed.
  changes as (
    select c.name, c.starts_at as at, 1 as change from called as c where c.ends_at is not null
    union all
    select c.name, c.ends_at, -1 from called as c where c.ends_at is not null
    union all
    select b.name, b.hour + n.whole * interval '1 hour', 0 from billed as b cross join (values (0), (1)) as n (whole)
  ),

  pieces as (
    select
      g.name, g.at, sum(g.change) over (partition by g.name order by g.at) as in_flight, lead(g.at) over (partition by g.name order by g.at) as ends_at
    from (select c.name, c.at, sum(c.change) as change from changes as c group by c.name, c.at) as g
  ),

  busy as (
    select
      b.name, b.hour,
      sum(extract(epoch from p.ends_at - p.at) * least(p.in_flight, greatest(ceil(b.hours), 1))) as seconds, max(p.in_flight) as most
    from pieces as p
    join billed as b on b.name = p.name and b.hour = date_trunc('hour', p.at)
    where p.in_flight > 0
    group by b.name, b.hour
  )

  select json_build_object(
    'rows', coalesce((
      select json_agg(json_build_object(
        'model', b.resource, 'hour', b.hour, 'machine_hours', b.hours::text, 'cost_usd', b.cost::text, 'unpriced_costs', b.unpriced,
        'calls', coalesce(g.calls, 0), 'untimed_calls', coalesce(g.untimed, 0), 'busy_s', coalesce(y.seconds, 0)::text,
        'most_in_flight', coalesce(y.most, 0)
      ) order by b.name, b.hour)
      from billed as b
      join known as k on k.name = b.name
      left join begun as g on g.name = b.name and g.hour = b.hour
      left join busy as y on y.name = b.name and y.hour = b.hour
    ), '[]'),
    'not_called', coalesce((
      select json_agg(n.resource order by n.resource)
      from (select min(b.resource) as resource from billed as b where b.name not in (select k.name from known as k) group by b.name) as n
    ), '[]')
  ) into answer;
  return answer;
end;
$$;

comment on function public.machine_hours_v1(timestamptz, timestamptz, text) is
'Hours of machines that serve models of the team''s own: what was billed for each, and how long calls kept them busy.';

select vital_private.restrict_functions(api => '{machine_hours_v1}');
