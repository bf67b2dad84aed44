-- Agents of one organization are told from a part of its newest calls. PostgreSQL knows nothing of how many instants lie behind a date:
-- compared with one, it took all of a month's calls for a handful, and read and sorted them all. New are the instants that calls are
-- compared with, and that each question is planned for itself: one plan for all organizations and for one suits neither.

create or replace function public.agents_v1(
  since timestamptz, until timestamptz, organization text default null, agent text default null, max_rows integer default 200
) returns json
language plpgsql
stable
set search_path = ''
set timezone = 'UTC'
set work_mem = '64MB'
set jit = off
set plan_cache_mode = force_custom_plan
as $$
declare
  from_day constant date := since::date;
  end_day constant date := (until - interval '1 microsecond')::date + 1;
  from_instant constant timestamptz := from_day;
  end_instant constant timestamptz := end_day;
  of_users constant boolean := current_user = 'authenticated';
  answer json;
begin
  if since is null or until is null then
    raise exception 'Agents are told of a time.' using errcode = '22023', hint = 'Give since and until.';
  end if;
  perform vital_private.check_times(since, until);
  with seen as materialized (
    select
      u.organization_id, u.agent_id,
      array_agg(distinct u.agent_name order by u.agent_name) filter (where u.agent_name is not null) as names,
      array_agg(distinct u.agent_tier order by u.agent_tier) filter (where u.agent_tier is not null) as tiers,
      sum(u.calls) as calls, sum(u.unpriced_calls) as unpriced_calls, sum(u.failed_calls) as failed_calls,
      sum(u.blocked_calls) as blocked_calls, sum(u.total_cost) as total_cost, min(u.day) as first_day, max(u.day) as last_day
    from vital_private.visible_daily_agents as u
    where u.day >= from_day and u.day < end_day and u.agent_id is not null and u.calls > 0
      and (agents_v1.organization is null or u.organization_id = agents_v1.organization)
      and (agents_v1.agent is null or u.agent_id = agents_v1.agent)
    group by u.organization_id, u.agent_id
    order by sum(u.total_cost) desc, sum(u.calls) desc, u.organization_id, u.agent_id
    limit vital_private.rows_wanted(max_rows, 200)
  ),

  own as materialized (
    select c.organization_id, c.agent_id, min(c.created_at)::date as first_day, max(c.created_at)::date as last_day
    from vital_private.own_calls() as c
    where of_users and c.agent_id is not null
    group by c.organization_id, c.agent_id
  ),

  playing as materialized (
    select c.organization_id, c.agent_id, array_agg(distinct c.agent_role order by c.agent_role) as roles
    from (
      select call.organization_id, call.agent_id, call.agent_role
      from public.token_usage_logs as call
      where call.created_at >= from_instant and call.created_at < end_instant
        and (agents_v1.organization is null or call.organization_id = agents_v1.organization)
      order by call.created_at desc
      limit 10000
    ) as c
    where c.agent_id is not null and c.agent_role is not null
    group by c.organization_id, c.agent_id
  )

  select coalesce(json_agg(json_build_object(
    'organization_id', s.organization_id, 'agent_id', s.agent_id, 'names', coalesce(s.names, '{}'), 'tiers', coalesce(s.tiers, '{}'),
    'roles', coalesce(p.roles, '{}'), 'first_day', least(s.first_day, o.first_day, f.day), 'last_day', greatest(s.last_day, o.last_day, l.day),
    'calls', s.calls, 'unpriced_calls', s.unpriced_calls, 'total_cost', trim_scale(s.total_cost)::text,
    'success_rate', round(100.0 * (s.calls - s.failed_calls) / nullif(s.calls - s.blocked_calls, 0), 4)
  ) order by s.total_cost desc, s.calls desc, s.organization_id, s.agent_id), '[]') into answer
  from seen as s
  left join own as o on o.agent_id = s.agent_id and coalesce(o.organization_id, '') = coalesce(s.organization_id, '')
  left join playing as p on p.agent_id = s.agent_id and coalesce(p.organization_id, '') = coalesce(s.organization_id, '')
  -- From the first day on, and from the last one back, until the agent is met: a few entries of the index.
  left join lateral (
    select u.day from public.usage_aggregations_daily_agents as u
    where u.organization_id = s.organization_id and u.agent_id = s.agent_id and u.calls > 0 and u.day < from_day
    order by u.day
    limit 1
  ) as f on true
  left join lateral (
    select u.day from public.usage_aggregations_daily_agents as u
    where u.organization_id = s.organization_id and u.agent_id = s.agent_id and u.calls > 0 and u.day >= end_day
    order by u.day desc
    limit 1
  ) as l on true;
  return answer;
end;
$$;

-- Its limit of time, which replacing it has taken away.
select vital_private.restrict_functions(api => '{agents_v1}');
