-- Single figures that admins ask for by name. They run with their caller's rights: an organization's admins ask about it, the service role
-- about any, and users about what is their own.

-- What a tenant (an organization) cost between two instants in US dollars, unpriced calls left out: get_tenant_cost('acme', '2026-11-01',
-- '2026-12-01'). NULL: from its first call, until its last. Whoever does not administer it is told what their own calls in it cost. Here
-- are model calls alone; other costs will join them where they are recorded.
create function public.get_tenant_cost(tenant_id text, start_time timestamptz default null, end_time timestamptz default null)
returns numeric
language plpgsql
stable
set search_path = ''
set statement_timeout = '8s'
set jit = off
as $$
begin
  if tenant_id is null then
    raise exception 'Which tenant?' using errcode = '22023', hint = 'Name an organization; top_usage(''organization'') lists them.';
  end if;
  perform vital_private.check_times(start_time, end_time);
  if current_user = 'authenticated' and tenant_id <> all(vital_private.administered_organizations()) then
    return (
      select coalesce(sum(c.total_cost), 0)
      from public.token_usage_logs as c
      where c.user_id = (select vital_private.subject()) and c.organization_id = tenant_id
        and c.created_at >= coalesce(start_time, '-infinity') and c.created_at < coalesce(end_time, 'infinity')
    );
  end if;
  return (select o.total_cost from public.organization_cost(tenant_id, start_time, end_time) as o);
end;
$$;

comment on function public.get_tenant_cost(text, timestamptz, timestamptz) is
'US dollars that an organization''s model calls cost between two instants; for its users, their own.';

-- Percent of an agent's calls of the last hours that succeeded, of all that one may see; blocked ones were never made and do not count. NULL
-- where there were none: get_agent_success_rate('cardio', 24). Whole days (UTC) come from the sums, the hours at both ends from the calls.
create function public.get_agent_success_rate(agent_id text, hours integer default 24) returns numeric
language plpgsql
stable
set search_path = ''
set timezone = 'UTC'
set statement_timeout = '8s'
set jit = off
as $$
declare
  since constant timestamptz := now() - make_interval(hours => least(coalesce(hours, 24), 87840));
  -- The first whole day, or where its calls are gone the one that the time begins in; and the first that is not over.
  first_day constant date := (case
    when since < vital_private.rows_kept_since() then since else since - interval '1 microsecond' + interval '1 day'
  end)::date;
  this_day constant date := greatest(now()::date, first_day);
begin
  if agent_id is null then
    raise exception 'Which agent?' using errcode = '22023', hint = 'Name the agent''s id; top_usage(''agent'') lists them.';
  end if;
  if hours not between 1 and 87840 then
    raise exception 'hours must be a number from 1 to 87840.' using errcode = '22023', hint = 'For the last day: 24.';
  end if;
  return (
    select round(100.0 * sum(u.succeeded) / nullif(sum(u.made), 0), 4)
    from (
      select s.calls - s.failed_calls as succeeded, s.calls - s.blocked_calls as made
      from vital_private.visible_daily_agents as s
      where s.agent_id = get_agent_success_rate.agent_id and s.day >= first_day and s.day < this_day
      union all
      select case when c.status = 'ok' then c.calls else 0 end, c.calls
      from public.token_usage_logs as c
      where c.agent_id = get_agent_success_rate.agent_id and c.status <> 'blocked'
        and c.created_at >= since and c.created_at < first_day::timestamptz
      union all
      select case when c.status = 'ok' then c.calls else 0 end, c.calls
      from public.token_usage_logs as c
      where c.agent_id = get_agent_success_rate.agent_id and c.status <> 'blocked' and c.created_at >= this_day::timestamptz
    ) as u
  );
end;
$$;

comment on function public.get_agent_success_rate(text, integer) is
'Percent of an agent''s calls of the last hours that succeeded; NULL where there were none.';

select vital_private.restrict_functions(api => '{get_tenant_cost, get_agent_success_rate}');
