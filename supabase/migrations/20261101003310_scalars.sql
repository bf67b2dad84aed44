-- Single figures that admins ask for by name. They run with their caller's rights: an organization's admins ask about it, the service role
-- about any, and users about what is their own.

-- US dollars of what is no call to a model, of one tenant between two instants, to the microsecond: whole days (UTC) from the sums, the
-- parts of days at both ends from the rows. Its reader's rights decide; users see their own.
create function vital_private.other_cost(tenant_id text, since timestamptz, until timestamptz) returns numeric
language plpgsql
stable
set search_path = ''
set timezone = 'UTC'
as $$
declare
  from_instant constant timestamptz := coalesce(since, '-infinity');
  until_instant constant timestamptz := coalesce(until, 'infinity');
  first_day constant timestamptz := date_trunc('day', from_instant + interval '1 day' - interval '1 microsecond');
  last_day constant timestamptz := greatest(date_trunc('day', until_instant), first_day);
  kept_since constant timestamptz := vital_private.rows_kept_since('tenant_cost_events');
begin
  if (from_instant < least(first_day, until_instant) and from_instant < kept_since)
    or (until_instant > greatest(last_day, from_instant) and last_day < kept_since) then
    raise exception 'The costs before % are gone, and with them what parts of days cost. Ask for whole days (UTC) there.', kept_since
      using errcode = '55000';
  end if;
  return (
    select coalesce(sum(u.cost_usd), 0)
    from (
      select d.cost_usd
      from public.tenant_costs_daily as d
      where d.organization_id = tenant_id and d.day >= first_day::date and d.day < last_day::date
      union all
      select c.cost_usd
      from public.tenant_cost_events as c
      where c.organization_id = tenant_id and c.occurred_at >= from_instant and c.occurred_at < least(first_day, until_instant)
      union all
      select c.cost_usd
      from public.tenant_cost_events as c
      where c.organization_id = tenant_id and c.occurred_at >= last_day and c.occurred_at < until_instant
    ) as u
  );
end;
$$;

-- What a tenant (an organization) cost between two instants in US dollars, model calls and everything else, what has no price left out:
-- get_tenant_cost('acme', '2026-11-01', '2026-12-01'). NULL: from the first, until the last. Whoever does not administer it is told what
-- their own part of it was.
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
    return vital_private.other_cost(tenant_id, start_time, end_time) + (
      select coalesce(sum(c.total_cost), 0)
      from public.token_usage_logs as c
      where c.user_id = (select vital_private.subject()) and c.organization_id = tenant_id
        and c.created_at >= coalesce(start_time, '-infinity') and c.created_at < coalesce(end_time, 'infinity')
    );
  end if;
  return vital_private.other_cost(tenant_id, start_time, end_time)
    + (select o.total_cost from public.organization_cost(tenant_id, start_time, end_time) as o);
end;
$$;

comment on function public.get_tenant_cost(text, timestamptz, timestamptz) is
'US dollars that an organization cost between two instants, model calls and everything else; for its users, their own.';

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

select vital_private.restrict_functions(api => '{get_tenant_cost, get_agent_success_rate}', helpers => '{other_cost}');
