-- Whether anything has changed of what somebody sees: a page that refreshes itself every minute asks this first.

-- A text that is another one as soon as usage or other costs have changed that the caller may see, or the members, budgets, plans and
-- advice beside them. Whoever changes a call changes the sums of its day, and PostgreSQL writes a changed row anew: in another place, by another
-- transaction (ctid, xmin). So what these rows are is not read, but which they are, from the first of the days that count.
create function public.usage_version_v1(since timestamptz default null) returns text
language plpgsql
stable
set search_path = ''
set plan_cache_mode = force_custom_plan
set jit = off
as $$
declare
  administered text[]; -- known when it is planned, so that an index finds the days; NULL: whoever sees everything
  me text;
  first_day constant date := coalesce((usage_version_v1.since at time zone 'UTC')::date, '-infinity');
begin
  if current_user = 'authenticated' then
    administered := vital_private.administered_organizations();
    me := vital_private.subject();
  end if;
  return (
    select md5(concat_ws(' ', me, administered, count(*), bit_xor(hashtextextended(concat(r.source, r.place, r.written_by), 0))))
    from (
      select 'totals' as source, t.ctid as place, t.xmin as written_by
      from public.usage_aggregations_daily_totals as t
      where (administered is null or t.organization_id = any(administered)) and t.day >= first_day
      union all
      select 'own', u.ctid, u.xmin
      from public.usage_aggregations_daily_users as u
      where u.user_id = me and u.day >= first_day
      union all
      select 'costs', c.ctid, c.xmin
      from public.tenant_costs_daily as c
      where (administered is null or c.organization_id = any(administered)) and c.day >= first_day
      union all
      select 'own costs', c.ctid, c.xmin
      from public.tenant_costs_daily as c
      where c.user_id = me and c.day >= first_day
      union all
      select 'members', m.ctid, m.xmin
      from public.organization_members as m
      union all
      select 'budgets', b.ctid, b.xmin
      from public.budget_limits as b
      union all
      select 'plans', p.ctid, p.xmin
      from public.plans as p
      union all
      select 'subscriptions', s.ctid, s.xmin
      from public.subscriptions as s
      union all
      select 'advice', a.ctid, a.xmin
      from public.recommendations as a
    ) as r
  );
end;
$$;

comment on function public.usage_version_v1(timestamptz) is
'A text that is another one as soon as usage and other costs since then, members, budgets, plans or advice that the caller may see have changed.';

select vital_private.restrict_functions(api => '{usage_version_v1}');
