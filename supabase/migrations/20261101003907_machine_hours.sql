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
set enable_nestloop = off -- the planner cannot know how many pieces the hours are cut into
set enable_mergejoin = off
as $$
declare
  answer json;
begin
  perform vital_private.check_given('since', since::text);
  perform vital_private.check_given('until', until::text);
  perform vital_private.check_times(since, until);
  with billed as materialized (
    select
      dense_rank() over (order by g.name)::integer as machine, g.*
    from (
      select
        lower(c.resource) as name, date_trunc('hour', c.occurred_at) as hour, min(c.resource) as resource, sum(c.quantity) as hours,
        coalesce(sum(c.cost_usd), 0) as cost, count(*) filter (where not c.priced) as unpriced
      from public.tenant_cost_events as c
      where c.cost_type = 'compute' and c.unit = 'hour' and c.resource is not null
        and c.occurred_at >= machine_hours_v1.since and c.occurred_at < machine_hours_v1.until
        and (machine_hours_v1.organization is null or c.organization_id = machine_hours_v1.organization)
      group by lower(c.resource), date_trunc('hour', c.occurred_at)
      having sum(c.quantity) > 0
    ) as g
  ),

  machines as materialized (
    select b.name, b.machine from billed as b group by b.name, b.machine
  ),

  called as materialized (
    select
      m.machine, l.created_at as starts_at, l.created_at + l.latency_ms * interval '1 millisecond' as ends_at, l.calls
    from public.token_usage_logs as l
    join machines as m on m.name = lower(l.model)
    where l.created_at >= machine_hours_v1.since - interval '1 hour' and l.created_at < machine_hours_v1.until
      and not l.cache_hit and l.status <> 'blocked'
  ),

  begun as materialized (
    select
      c.machine, date_trunc('hour', c.starts_at) as hour, sum(c.calls) as calls, coalesce(sum(c.calls) filter (where c.ends_at is null), 0) as untimed
    from called as c
    where c.starts_at >= machine_hours_v1.since
    group by c.machine, date_trunc('hour', c.starts_at)
  ),

  known as (
    select g.machine from begun as g group by g.machine
  ),

  -- What changes how many calls are in flight, cut at the hours that are billed. A call that ends comes before one that begins then.
  changes as (
    select c.machine, c.starts_at as at, 1 as change from called as c where c.ends_at is not null
    union all
    select c.machine, c.ends_at, -1 from called as c where c.ends_at is not null
    union all
    select b.machine, b.hour, 0 from billed as b
    union all
    select b.machine, b.hour + interval '1 hour', 0 from billed as b
  ),

  pieces as (
    select
      c.machine, c.at, sum(c.change) over moments as in_flight, lead(c.at) over moments as ends_at
    from changes as c
    window moments as (partition by c.machine order by c.at, c.change rows between unbounded preceding and current row)
  ),

  busy as (
    select
      b.machine, b.hour,
      extract(epoch from sum((p.ends_at - p.at) * least(p.in_flight, greatest(ceil(b.hours), 1)::bigint))) as seconds, max(p.in_flight) as most
    from pieces as p
    join billed as b on b.machine = p.machine and b.hour = date_trunc('hour', p.at)
    where p.in_flight > 0 and p.ends_at > p.at
    group by b.machine, b.hour
  )

  select json_build_object(
    'rows', coalesce((
      select json_agg(json_build_object(
        'model', b.resource, 'hour', b.hour, 'machine_hours', b.hours::text, 'cost_usd', b.cost::text, 'unpriced_costs', b.unpriced,
        'calls', coalesce(g.calls, 0), 'untimed_calls', coalesce(g.untimed, 0), 'busy_s', coalesce(y.seconds, 0)::text,
        'most_in_flight', coalesce(y.most, 0)
      ) order by b.name, b.hour)
      from billed as b
      join known as k on k.machine = b.machine
      left join begun as g on g.machine = b.machine and g.hour = b.hour
      left join busy as y on y.machine = b.machine and y.hour = b.hour
    ), '[]'),
    'not_called', coalesce((
      select json_agg(n.resource order by n.resource)
      from (
        select min(b.resource) as resource from billed as b where b.machine not in (select k.machine from known as k) group by b.machine
      ) as n
    ), '[]')
  ) into answer;
  return answer;
end;
$$;

comment on function public.machine_hours_v1(timestamptz, timestamptz, text) is
'Hours of machines that serve models of the team''s own: what was billed for each, and how long calls kept them busy.';

select vital_private.restrict_functions(api => '{machine_hours_v1}');
