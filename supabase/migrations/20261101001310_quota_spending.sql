-- How calls are counted in the windows of quotas, and how these are filled when a subscription is made or changed.
--
--   A window of a month counts all calls of its subscriber in it, if the subscription stood in any part of it: what was used stays used when
--   the plan changes. A window of a minute is kept where subscription and limit stood when it began.
--
-- One budget keeps the quotas of all subscribers of a kind. Subscriptions are looked up by the ids that are asked for, so it does not matter
-- how many others there are.

-- What the windows of a budget that keeps quotas come to by the calls themselves: of these subscribers, NULL: all, and of windows that end
-- after `since`, NULL: all.
create function vital_private.quota_sums(budget public.budget_limits, entities text[] default null, since timestamptz default null)
returns table (entity_id text, period text, starts_at timestamptz, ends_at timestamptz, limit_amount numeric, amount numeric)
language plpgsql
stable
set search_path = ''
as $$
begin
  return query execute format(
    $query$
      with kept as materialized (
        select s.entity_id, s.plan, s.timezone, s.reset_day::integer as reset_day, s.counting_since, s.until
        from public.subscriptions as s
        where s.entity_type = $1.entity_type and ($2 is null or s.entity_id = any($2)) and vital_private.keeps($1, s)
          and coalesce(s.until, 'infinity') > s.counting_since and ($3 is null or coalesce(s.until, 'infinity') > $3 - interval '32 days')
      ),

      calendars as (
        select
          k.timezone, k.reset_day,
          vital_private.window_start('month', greatest(min(k.counting_since), $3), k.timezone, null, k.reset_day) as first_start
        from kept as k
        group by 1, 2
      ),

      parts as materialized (
        select
          %1$s as entity_id, date_bin(%3$L, call.created_at, '2000-01-01 00:00:00+00') as part, sum(%2$s) as amount
        from public.token_usage_logs as call
        where call.created_at >= (select min(c.first_start) from calendars as c)
          and %1$s is not null and ($2 is null or %1$s = any($2))
          and ($1.organization_id is null or call.organization_id = $1.organization_id)
        group by 1, 2
      ),

      months as materialized (
        select
          c.timezone, c.reset_day,
          vital_private.local_midnight(vital_private.month_start(m.last_day, c.reset_day), c.timezone) as starts_at,
          vital_private.local_midnight(vital_private.month_start(m.last_day, c.reset_day, 1), c.timezone) as ends_at
        from calendars as c
        cross join lateral generate_series(
          date_trunc('month', c.first_start at time zone 'UTC') - interval '1 month',
          (select greatest(max(p.part), now()) at time zone 'UTC' from parts as p) + interval '1 month', interval '1 month'
        ) as g (first_day)
        cross join lateral (select g.first_day + interval '1 month -1 day') as m (last_day)
      ),

      windows as (
        select distinct k.entity_id, 'month' as period, m.starts_at, m.ends_at
        from kept as k
        join months as m
          on m.timezone = k.timezone and m.reset_day = k.reset_day
          and m.ends_at > k.counting_since and m.starts_at < coalesce(k.until, 'infinity')
        where $3 is null or m.ends_at > $3
      )

      select w.entity_id, w.period, w.starts_at, w.ends_at, null::numeric, sum(p.amount)
      from windows as w
      join parts as p on p.entity_id = w.entity_id and p.part >= w.starts_at and p.part < w.ends_at
      group by 1, 2, 3, 4
      union all
      select p.entity_id, 'minute', p.part, p.part + interval '1 minute', null::numeric, p.amount
      from parts as p
      join kept as k on k.entity_id = p.entity_id and p.part >= k.counting_since and p.part < coalesce(k.until, 'infinity')
      where vital_private.has_minute_limits() and vital_private.plan_limit(k.plan, $1.metric, 'minute', p.part) is not null
        and ($3 is null or p.part + interval '1 minute' > $3)
    $query$,
    (select t.of_call from vital_private.budget_terms as t where t.kind = 'entity' and t.name = budget.entity_type),
    (select t.of_call from vital_private.budget_terms as t where t.kind = 'metric' and t.name = budget.metric),
    -- In every time zone days begin at a quarter of an hour.
    case when vital_private.has_minute_limits() then '1 minute' else '15 minutes' end
  ) using budget, entities, since;
end;
$$;

-- Whether any plan has, or had, a limit of a minute.
create function vital_private.has_minute_limits() returns boolean
language sql
stable
set search_path = ''
as $$
  select exists (select from public.plans as p where num_nonnulls(p.calls_per_minute, p.tokens_per_minute) > 0)
$$;

-- What calls come to in each window of a quota, without windows in which they come to nothing.
create function vital_private.quota_postings(calls vital_private.counted_call[]) returns vital_private.posting[]
language plpgsql
stable
set search_path = ''
set jit = off
as $$
declare
  user_place constant integer := array_position(vital_private.budget_names('entity'), 'user');
  organization_place constant integer := array_position(vital_private.budget_names('entity'), 'organization');
  calls_place constant integer := array_position(vital_private.budget_names('metric'), 'calls');
  tokens_place constant integer := array_position(vital_private.budget_names('metric'), 'tokens');
  by_minute boolean;
  step interval;
begin
  if not exists (select from public.budget_limits as b where b.by_plan) then
    return null;
  end if;
  by_minute := vital_private.has_minute_limits();
  step := case when by_minute then interval '1 minute' else interval '15 minutes' end;
  return (
    with counted as materialized (
      select c.*, date_bin(step, c.created_at, '2000-01-01 00:00:00+00') as part from unnest(calls) as c
    ),

    summed as materialized (
      select
        e.entity_type, e.entity_id, c.organization_id, c.part, sum(c.amounts[calls_place]) as calls, sum(c.amounts[tokens_place]) as tokens
      from counted as c
      cross join lateral (
        values ('user', c.entities[user_place]), ('organization', c.entities[organization_place])
      ) as e (entity_type, entity_id)
      where e.entity_id is not null
      group by 1, 2, 3, 4
    ),

    -- By the index alone: an array of ids is looked up one by one.
    kept as materialized (
      select s.*
      from public.subscriptions as s
      where s.entity_id = any(array(select distinct m.entity_id from summed as m))
    ),

    amounts as materialized (
      select
        b.id, b.metric, k.plan, k.timezone, k.reset_day::integer as reset_day, k.counting_since, k.until, s.entity_id, s.part,
        sum(a.amount) as amount
      from summed as s
      join kept as k
        on k.entity_type = s.entity_type and k.entity_id = s.entity_id
        and (k.organization_id is null or k.organization_id = s.organization_id)
      cross join lateral (values ('calls', s.calls), ('tokens', s.tokens)) as a (metric, amount)
      join public.budget_limits as b
        on b.by_plan and b.metric = a.metric and b.entity_type = k.entity_type
        and coalesce(b.organization_id, '') = coalesce(k.organization_id, '') and b.action = case when k.enforced then 'block' else 'alert' end
      where coalesce(k.until, 'infinity') > k.counting_since
      group by b.id, b.metric, k.id, k.plan, k.timezone, k.reset_day, k.counting_since, k.until, s.entity_id, s.part
    ),

    frames as materialized (
      select
        c.timezone, c.reset_day, c.part, vital_private.window_start('month', c.part, c.timezone, null, c.reset_day) as starts_at,
        vital_private.window_end('month', c.part, c.timezone, c.reset_day) as ends_at
      from (select distinct a.timezone, a.reset_day, a.part from amounts as a) as c
    ),

    framed as (
      -- A subscription that was changed within a month has several rows of the same window, which is counted once.
      select distinct a.id, a.entity_id, 'month' as period, f.starts_at, f.ends_at, a.part, a.amount
      from amounts as a
      join frames as f on f.timezone = a.timezone and f.reset_day = a.reset_day and f.part = a.part
      where f.ends_at > a.counting_since and f.starts_at < coalesce(a.until, 'infinity')
      union all
      select a.id, a.entity_id, 'minute', a.part, a.part + interval '1 minute', a.part, a.amount
      from amounts as a
      where by_minute and a.part >= a.counting_since and a.part < coalesce(a.until, 'infinity')
        and vital_private.plan_limit(a.plan, a.metric, 'minute', a.part) is not null
    ),

    posted as (
      select f.id, f.entity_id, f.period, f.starts_at, f.ends_at, sum(f.amount) as amount from framed as f group by 1, 2, 3, 4, 5
    )

    select array_agg(
      row(p.id, p.entity_id, p.period, p.starts_at, p.ends_at, null, p.amount)::vital_private.posting
      order by p.id, p.entity_id, p.period, p.starts_at
    )
    from posted as p
    where p.amount <> 0
  );
end;
$$;

-- Bring the windows of subscribers' quotas into line: the budgets that keep them are made, windows that belong to no subscription any more
-- are deleted, those that are missing are filled from the calls, and all get the limit now in force.
create function vital_private.open_quotas_of(organization text, kind text, ids text[]) returns void
language plpgsql
set search_path = ''
as $$
declare
  budget public.budget_limits;
begin
  insert into public.budget_limits (organization_id, entity_type, entity_id, metric, action, by_plan)
  select w.organization_id, kind, '*', w.metric, w.action, true
  from (
    select distinct s.organization_id, m.metric, case when s.enforced then 'block' else 'alert' end as action
    from public.subscriptions as s
    cross join unnest('{calls,tokens}'::text[]) as m (metric)
    where s.entity_type = kind and s.entity_id = any(ids) and coalesce(s.organization_id, '') = coalesce(organization, '')
  ) as w
  where not exists (
    select from public.budget_limits as b
    where b.by_plan and b.entity_type = kind and coalesce(b.organization_id, '') = coalesce(organization, '')
      and b.metric = w.metric and b.action = w.action
  )
  order by w.metric, w.action;
  for budget in
    select b.*
    from public.budget_limits as b
    where b.by_plan and b.entity_type = kind and coalesce(b.organization_id, '') = coalesce(organization, '')
    order by b.id
  loop
    delete from public.budget_windows as w
    where w.budget_id = budget.id and w.entity_id = any(ids) and w.ends_at > now()
      and not exists (
        select from public.subscriptions as s
        where s.entity_id = w.entity_id and s.entity_type = kind and vital_private.keeps(budget, s)
          and w.ends_at > s.counting_since and w.starts_at < coalesce(s.until, 'infinity')
          and coalesce(s.until, 'infinity') > s.counting_since
          and vital_private.window_start(w.period, w.starts_at, s.timezone, null, s.reset_day) = w.starts_at
          and vital_private.window_end(w.period, w.starts_at, s.timezone, s.reset_day) = w.ends_at
      );
    insert into public.budget_windows (budget_id, entity_id, period, starts_at, ends_at, limit_amount, spent)
    select budget.id, q.entity_id, q.period, q.starts_at, q.ends_at, q.limit_amount, q.amount
    from vital_private.quota_sums(budget, ids, now()) as q
    where q.amount <> 0
    order by q.entity_id, q.period, q.starts_at
    on conflict do nothing;
    perform vital_private.refresh_limits(array(
      select w.id from public.budget_windows as w where w.budget_id = budget.id and w.entity_id = any(ids) and w.ends_at > now()
    ));
  end loop;
end;
$$;

-- The same after subscriptions were made, changed or deleted. Whoever changes many does it once for all, and says so by a setting.
create function vital_private.open_quotas() returns trigger
language plpgsql
security definer
set search_path = ''
as $$
begin
  if current_setting('vital_tracking.quotas_later', true) is distinct from 'on' then
    perform vital_private.open_quotas_of(c.organization_id, c.entity_type, c.ids)
    from (
      select g.organization_id, g.entity_type, array_agg(distinct g.entity_id) as ids
      from changed as g
      group by 1, 2
      order by 1, 2
    ) as c;
  end if;
  return null;
end;
$$;

create trigger subscriptions_open_quotas_of_new
after insert on public.subscriptions
referencing new table as changed
for each statement execute function vital_private.open_quotas();

create trigger subscriptions_open_quotas_of_changed
after update on public.subscriptions
referencing new table as changed
for each statement execute function vital_private.open_quotas();

create trigger subscriptions_open_quotas_of_former
after update on public.subscriptions
referencing old table as changed
for each statement execute function vital_private.open_quotas();

create trigger subscriptions_open_quotas_of_deleted
after delete on public.subscriptions
referencing old table as changed
for each statement execute function vital_private.open_quotas();

-- Another limit of a plan holds at once for all who are on it; another price changes none.
create function vital_private.plans_changed() returns trigger
language plpgsql
security definer
set search_path = ''
as $$
begin
  if tg_op <> 'INSERT' or exists (
    select from changed as c
    left join lateral (
      select p.* from public.plans as p where p.name = c.name and p.valid_from < c.valid_from order by p.valid_from desc limit 1
    ) as before on true
    where (c.calls, c.tokens, c.calls_per_minute, c.tokens_per_minute)
      is distinct from (before.calls, before.tokens, before.calls_per_minute, before.tokens_per_minute)
  ) then
    perform vital_private.refresh_limits(array(
      select w.id
      from public.budget_windows as w
      join public.budget_limits as b on b.id = w.budget_id and b.by_plan
      where w.ends_at > now() and exists (
        select from public.subscriptions as s
        where s.entity_id = w.entity_id and s.entity_type = b.entity_type and s.plan in (select c.name from changed as c)
      )
    ));
  end if;
  return null;
end;
$$;

create trigger plans_new_limits
after insert on public.plans
referencing new table as changed
for each statement execute function vital_private.plans_changed();

create trigger plans_changed_limits
after update on public.plans
referencing new table as changed
for each statement execute function vital_private.plans_changed();

create trigger plans_lifted_limits
after delete on public.plans
referencing old table as changed
for each statement execute function vital_private.plans_changed();

-- A budget that keeps quotas stays as long as anybody has one, also where all budgets are deleted.
create function vital_private.keep_quota_budgets() returns trigger
language plpgsql
security definer
set search_path = ''
as $$
begin
  if old.by_plan and exists (
    select from public.subscriptions as s where vital_private.keeps(old, s) and coalesce(s.until, 'infinity') > now()
  ) then
    raise notice 'Budget % keeps the quotas of subscriptions: end those first.', old.id;
    return null;
  end if;
  return old;
end;
$$;

create trigger budget_limits_keep_quotas
before delete on public.budget_limits
for each row execute function vital_private.keep_quota_budgets();

select vital_private.restrict_functions();
