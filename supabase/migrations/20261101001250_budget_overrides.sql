-- Exceptions: other limits for one entity in place of those that each of its kind has (`user *`), and raises, which end by themselves.
--
-- The limit in force stands in the windows, with the moment at which it ends. It is brought up to date when an exception is made or ended,
-- and, since exceptions end by the clock, whenever windows are locked to be spent from; who only reads looks at that moment. In the same way
-- stand the limits of plans, for which there are raises, too.

create table vital_private.budget_overrides (
  id bigint generated always as identity primary key,
  organization_id text,
  entity_type text not null,
  entity_id text not null,
  metric text not null,
  action text,
  minute_limit numeric,
  daily_limit numeric,
  monthly_limit numeric,
  total_limit numeric,
  raise_by numeric,
  since timestamptz not null default now(),
  until timestamptz,
  constraint budget_overrides_one_entity check (entity_id not in ('', '*')),
  constraint budget_overrides_limits_or_raise check (
    (raise_by is null) = (num_nonnulls(minute_limit, daily_limit, monthly_limit, total_limit) > 0)
  ),
  constraint budget_overrides_amounts check (
    least(minute_limit, daily_limit, monthly_limit, total_limit, raise_by) >= 0
    and greatest(minute_limit, daily_limit, monthly_limit, total_limit, raise_by) < 'Infinity'
  ),
  constraint budget_overrides_times check (until > since)
);

comment on table vital_private.budget_overrides is 'Other limits for one entity in place of those of each, and raises that end.';
comment on column vital_private.budget_overrides.action is 'Of budgets with this action alone; NULL: of all.';
comment on column vital_private.budget_overrides.raise_by is 'What is added to every limit; NULL: the limits stand in place of those of each.';

create index budget_overrides_entity on vital_private.budget_overrides (entity_id, entity_type);

select vital_private.restrict_relation('vital_private.budget_overrides');

-- Whether an exception is for a window of a budget.
create function vital_private.overrides(override vital_private.budget_overrides, budget public.budget_limits, entity text)
returns boolean
language sql
immutable
set search_path = ''
as $$
  select override.entity_type = budget.entity_type and override.entity_id = entity and override.metric = budget.metric
    and override.organization_id is not distinct from budget.organization_id
    and (override.action is null or override.action = budget.action)
    -- What ends by itself, such as a block after abuse, is not raised.
    and (override.raise_by is null or budget.until is null)
    -- Another limit than the plan's is another plan.
    and (
      (budget.entity_id = '*' and not (budget.by_plan and override.raise_by is null))
      or (override.raise_by is not null and budget.entity_id = entity)
    )
$$;

-- The limit of a budget for an entity and a period at a moment. Of two limits in place of one the later counts; raises add up. NULL: its
-- plan does not limit it, or it is on none any more.
create function vital_private.limit_in_force(
  budget public.budget_limits, entity text, period text, moment timestamptz
) returns numeric
language sql
stable
set search_path = ''
as $$
  with exceptions as (
    select
      o.id, o.raise_by,
      case limit_in_force.period
        when 'minute' then o.minute_limit when 'day' then o.daily_limit when 'month' then o.monthly_limit else o.total_limit
      end as instead
    from vital_private.budget_overrides as o
    where vital_private.overrides(o, budget, entity) and o.since <= moment and coalesce(o.until, 'infinity') > moment
  )

  select
    coalesce((select e.instead from exceptions as e where e.instead is not null order by e.id desc limit 1), l.limit_amount)
    + coalesce((select sum(e.raise_by) from exceptions as e), 0)
  from vital_private.limits_for(budget, entity, moment) as l
  where l.period = limit_in_force.period
$$;

-- Bring the limits of windows that run up to date: those of `windows`, or of one entity. The caller holds their locks, or that of the
-- budgets alone.
create function vital_private.refresh_limits(windows bigint[], entity text default null) returns void
language sql
set search_path = ''
as $$
  update public.budget_windows as w
  set limit_amount = f.limit_amount, limit_until = f.limit_until
  from (
    select
      k.id, vital_private.limit_in_force(b, k.entity_id, k.period, clock_timestamp()) as limit_amount,
      least(
        (
          select min(o.until)
          from vital_private.budget_overrides as o
          where vital_private.overrides(o, b, k.entity_id) and o.until > clock_timestamp()
        ),
        case when b.by_plan then vital_private.plan_changes_at(b, k.entity_id, clock_timestamp()) end
      ) as limit_until
    from public.budget_windows as k
    join public.budget_limits as b on b.id = k.budget_id
    where k.id = any(coalesce(windows, array(select e.id from public.budget_windows as e where e.entity_id = entity)))
      and coalesce(k.ends_at, 'infinity') > now()
  ) as f
  where w.id = f.id and (w.limit_amount, w.limit_until) is distinct from (f.limit_amount, f.limit_until)
$$;

-- The same for windows that are locked to be spent from, where a limit may have ended by the clock, or is that of a plan and not looked up
-- yet.
create function vital_private.refresh_limits_due(windows bigint[]) returns void
language plpgsql
set search_path = ''
as $$
begin
  if exists (select from vital_private.budget_overrides) or exists (
    select from public.budget_windows as w where w.id = any(windows) and w.limit_until <= clock_timestamp()
  ) then
    perform vital_private.refresh_limits(windows);
  end if;
end;
$$;

-- Give one entity other limits than each of its kind has, or take them back: a JSON object {"organization_id", "entity_type",
-- "entity_id", "metric", "action", "daily_limit", ...}. Limits that are named replace those of a former exception; null takes one back.
create function vital_private.override_budget(override text) returns json
language plpgsql
security definer
set search_path = ''
as $$
declare
  given constant jsonb := override::jsonb;
  wanted vital_private.budget_overrides;
  stored vital_private.budget_overrides;
begin
  perform vital_private.check_given('override', override);
  wanted := jsonb_populate_record(null::vital_private.budget_overrides, given);
  perform vital_private.check_given('entity_type', wanted.entity_type);
  perform vital_private.check_given('entity_id', wanted.entity_id);
  perform vital_private.lock_budgets(alone => true);
  delete from vital_private.budget_overrides as o
  where o.raise_by is null and o.entity_type = wanted.entity_type and o.entity_id = wanted.entity_id
    and o.metric = coalesce(wanted.metric, 'cost_usd') and o.organization_id is not distinct from wanted.organization_id
    and o.action is not distinct from wanted.action
  returning o.* into stored;
  insert into vital_private.budget_overrides (
    organization_id, entity_type, entity_id, metric, action, minute_limit, daily_limit, monthly_limit, total_limit
  )
  select
    wanted.organization_id, wanted.entity_type, wanted.entity_id, coalesce(wanted.metric, 'cost_usd'), wanted.action,
    case when given ? 'minute_limit' then wanted.minute_limit else stored.minute_limit end,
    case when given ? 'daily_limit' then wanted.daily_limit else stored.daily_limit end,
    case when given ? 'monthly_limit' then wanted.monthly_limit else stored.monthly_limit end,
    case when given ? 'total_limit' then wanted.total_limit else stored.total_limit end
  where num_nonnulls(
    case when given ? 'minute_limit' then wanted.minute_limit else stored.minute_limit end,
    case when given ? 'daily_limit' then wanted.daily_limit else stored.daily_limit end,
    case when given ? 'monthly_limit' then wanted.monthly_limit else stored.monthly_limit end,
    case when given ? 'total_limit' then wanted.total_limit else stored.total_limit end
  ) > 0;
  perform vital_private.refresh_limits(null, wanted.entity_id);
  return vital_private.limits_told(wanted.organization_id, wanted.entity_type, wanted.entity_id, coalesce(wanted.metric, 'cost_usd'));
end;
$$;

-- Add to every limit of one entity until a moment: a JSON object {"organization_id", "entity_type", "entity_id", "metric", "action",
-- "raise_by", "until"}. `until` is an instant, or a day ("tomorrow", "2026-12-24"), at the beginning of which, in the zone of its
-- budget or subscription, it ends. Without `raise_by` all raises of the entity end now.
create function vital_private.raise_budget(raise_ text) returns json
language plpgsql
security definer
set search_path = ''
as $$
declare
  given constant jsonb := raise_::jsonb;
  until_text constant text := given ->> 'until';
  wanted vital_private.budget_overrides;
  zone text;
begin
  perform vital_private.check_given('raise_', raise_);
  if given ? 'raise_by' then -- without it all raises end
    perform vital_private.check_given('raise_by', given ->> 'raise_by');
  end if;
  wanted := jsonb_populate_record(null::vital_private.budget_overrides, given - array['until', 'id', 'since']);
  perform vital_private.check_given('entity_type', wanted.entity_type);
  perform vital_private.check_given('entity_id', wanted.entity_id);
  perform vital_private.lock_budgets(alone => true);
  wanted.metric := coalesce(wanted.metric, 'cost_usd');
  wanted.since := now();
  if wanted.raise_by is null then
    delete from vital_private.budget_overrides as o
    where o.raise_by is not null and o.entity_type = wanted.entity_type and o.entity_id = wanted.entity_id
      and o.metric = wanted.metric and o.organization_id is not distinct from wanted.organization_id;
  else
    select l.timezone into zone
    from public.budget_limits as b
    cross join lateral vital_private.limits_for(b, wanted.entity_id, now()) as l
    where vital_private.overrides(wanted, b, wanted.entity_id)
    order by b.id
    limit 1;
    wanted.until := case
      when until_text = 'tomorrow' then
        vital_private.local_midnight(vital_private.local_day(now(), coalesce(zone, 'UTC')) + interval '1 day', coalesce(zone, 'UTC'))
      when until_text ~ '^\d{4}-\d{2}-\d{2}$' then vital_private.local_midnight(until_text::timestamp, coalesce(zone, 'UTC'))
      else until_text::timestamptz
    end;
    insert into vital_private.budget_overrides (
      organization_id, entity_type, entity_id, metric, action, raise_by, since, until
    )
    values (
      wanted.organization_id, wanted.entity_type, wanted.entity_id, wanted.metric, wanted.action, wanted.raise_by,
      wanted.since, wanted.until
    );
  end if;
  perform vital_private.refresh_limits(null, wanted.entity_id);
  return vital_private.limits_told(wanted.organization_id, wanted.entity_type, wanted.entity_id, wanted.metric);
end;
$$;

-- What one entity may spend now, by every budget that it meets on its own account, with the exceptions: amounts are text.
create function vital_private.limits_told(organization text, entity_kind text, entity text, of_metric text) returns json
language sql
stable
set search_path = ''
as $$
  select coalesce(json_agg(json_build_object(
    'budget_id', b.id, 'entity_id', b.entity_id, 'action', b.action, 'timezone', l.timezone, 'period', l.period,
    'limit_amount', l.limit_amount::text,
    'in_force', vital_private.limit_in_force(b, entity, l.period, now())::text,
    'until', (
      select min(o.until) from vital_private.budget_overrides as o
      where vital_private.overrides(o, b, entity) and o.until > now()
    )
  ) order by b.id, l.period), '[]')
  from public.budget_limits as b
  cross join lateral vital_private.limits_for(b, entity, now()) as l
  where b.entity_type = entity_kind and b.metric = of_metric and b.entity_id in ('*', entity)
    and b.organization_id is not distinct from organization
$$;

grant select on vital_private.budget_overrides to authenticated, service_role;

create policy "Organization admins see their organization's exceptions" on vital_private.budget_overrides
for select to authenticated
using (
  organization_id = any((select vital_private.administered_organizations())::text[])
  or (entity_type = 'organization' and entity_id = any((select vital_private.administered_organizations())::text[]))
);

create policy "Users see exceptions for themselves" on vital_private.budget_overrides
for select to authenticated
using (entity_type = 'user' and entity_id = (select auth.jwt()) ->> 'sub');

create policy "The service role sees exceptions" on vital_private.budget_overrides
for select to service_role
using (true);

-- The exceptions that count now or later and that the caller may see, as JSON; amounts are text.
create function public.budget_overrides_v1() returns json
language sql
stable
set search_path = ''
as $$
  select coalesce(json_agg(json_build_object(
    'id', o.id, 'organization_id', o.organization_id, 'entity_type', o.entity_type, 'entity_id', o.entity_id, 'metric', o.metric,
    'action', o.action, 'minute_limit', o.minute_limit::text, 'daily_limit', o.daily_limit::text,
    'monthly_limit', o.monthly_limit::text, 'total_limit', o.total_limit::text, 'raise_by', o.raise_by::text, 'until', o.until
  ) order by o.entity_type, o.entity_id, o.id), '[]')
  from vital_private.budget_overrides as o
  where coalesce(o.until, 'infinity') > now()
$$;

select vital_private.restrict_functions(api => '{budget_overrides_v1}');
