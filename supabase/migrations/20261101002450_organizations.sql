-- Which organizations there are. None is made: one is there once a call, an event, a cost, a member, a budget or a subscription names it, so a
-- typing error would make another one. Who names one is asked first.

-- Of these organizations those of which nothing is known, and, where there are any, the organizations whose names are about as long, so that
-- the closest can be named: {"unknown": [...], "known": [...]}, at most 5,000.
create function public.unknown_organizations_v1(names text[]) returns json
language sql
stable
security definer
set search_path = ''
as $$
  select vital_private.check_given('names', array_to_string(names, ''));
  with known as materialized (
    select m.organization_id from public.organization_members as m
    union select n.organization_id from vital_private.organization_names as n
    union select t.organization_id from public.usage_aggregations_daily_totals as t
    union select c.organization_id from public.tenant_costs_daily as c
    union select e.organization_id from public.platform_events_daily_sessions as e
    union select b.organization_id from public.budget_limits as b
    union select b.entity_id from public.budget_limits as b where b.entity_type = 'organization' and b.entity_id <> '*'
    union select s.organization_id from public.subscriptions as s
    union select s.entity_id from public.subscriptions as s where s.entity_type = 'organization'
  ),

  unknown as (
    select distinct u.name from unnest(names) as u (name)
    where u.name is not null and u.name not in (select k.organization_id from known as k where k.organization_id is not null)
  )

  select json_build_object(
    'unknown', (select coalesce(json_agg(u.name order by u.name), '[]') from unknown as u),
    'known', (
      select coalesce(json_agg(near.organization_id order by near.organization_id), '[]')
      from (
        select k.organization_id
        from known as k
        where exists (select from unknown as u where abs(length(u.name) - length(k.organization_id)) <= 3)
        order by k.organization_id
        limit 5000
      ) as near
    )
  )
$$;

select vital_private.restrict_functions(api => '{unknown_organizations_v1}');
