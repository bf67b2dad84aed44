-- A window is one period of one budget for one entity: the day of a user, the month of an organization. Windows are keys, not
-- jobs: nothing ever has to be reset. The database's clock and the budget's time zone say which window a moment is in.
--
--   spent   = the sum of the recorded calls in the window
--   granted = the sum of its grants: what processes hold for calls under way and to come
--
-- Both are kept by the transactions that record calls and hand out grants, and audit_budgets_v1 proves them.

create table public.budget_windows (
  id bigint generated always as identity primary key,
  budget_id bigint not null references public.budget_limits (id) on delete cascade,
  entity_id text not null,
  period text not null,
  starts_at timestamptz not null,
  ends_at timestamptz,
  limit_amount numeric not null,
  spent numeric not null default 0,
  granted numeric not null default 0,
  next_slot_at timestamptz,
  constraint budget_windows_key unique (budget_id, entity_id, period, starts_at),
  constraint budget_windows_period check (period in ('minute', 'day', 'month', 'total')),
  constraint budget_windows_amounts check (granted >= 0 and spent < 'Infinity' and granted < 'Infinity')
) with (fillfactor = 70);

comment on table public.budget_windows is 'One row a window: the period of a budget for one entity, with what is spent and granted in it.';
comment on column public.budget_windows.ends_at is 'The first instant after the window; NULL where it never ends.';
comment on column public.budget_windows.limit_amount is 'The limit in force, in the metric of the budget.';
comment on column public.budget_windows.spent is 'Sum of the recorded calls of the window.';
comment on column public.budget_windows.granted is 'What processes hold for calls under way and to come.';
comment on column public.budget_windows.next_slot_at is 'When the next throttled call may pass.';

create index budget_windows_running on public.budget_windows (ends_at);

create table public.budget_grants (
  window_id bigint not null references public.budget_windows (id) on delete cascade,
  holder text not null,
  amount numeric not null,
  expires_at timestamptz not null,
  primary key (window_id, holder),
  constraint budget_grants_amount check (amount >= 0 and amount < 'Infinity')
);

comment on table public.budget_grants is 'Parts of windows that single processes may spend without asking; they lapse unless renewed.';
comment on column public.budget_grants.holder is 'The process.';

create index budget_grants_holder on public.budget_grants (holder);
create index budget_grants_expiry on public.budget_grants (expires_at);

alter table public.budget_windows enable row level security;
alter table public.budget_grants enable row level security;
revoke all on public.budget_windows, public.budget_grants from anon, authenticated, service_role;
revoke all on sequence public.budget_windows_id_seq from anon, authenticated, service_role;
grant select on public.budget_windows to authenticated, service_role;
grant select on public.budget_grants to service_role;

create policy "Users see their own windows" on public.budget_windows
for select to authenticated
using (
  entity_id = (select auth.jwt()) ->> 'sub'
  and budget_id in (select b.id from public.budget_limits as b where b.entity_type = 'user')
);

create policy "Organization admins see their organization's windows" on public.budget_windows
for select to authenticated
using (
  budget_id in (
    select b.id
    from public.budget_limits as b
    where b.organization_id = any((select vital_private.administered_organizations())::text[])
  )
  or (
    entity_id = any((select vital_private.administered_organizations())::text[])
    and budget_id in (select b.id from public.budget_limits as b where b.entity_type = 'organization')
  )
);

create policy "The service role sees every window" on public.budget_windows
for select to service_role
using (true);

create policy "The service role sees every grant" on public.budget_grants
for select to service_role
using (true);

-- The limits of budgets, one row a period. Windows that had ended by `since` never were the limit's own; a total counts from
-- then on.
create table vital_private.budget_periods (
  budget_id bigint not null references public.budget_limits (id) on delete cascade,
  period text not null,
  limit_amount numeric not null,
  since timestamptz not null,
  primary key (budget_id, period)
);
alter table vital_private.budget_periods enable row level security;

-- The first instant of a local day. Where clocks go forward over midnight it is the instant they jump; where midnight comes
-- twice, the first.
create function vital_private.local_midnight(day timestamp, zone text) returns timestamptz
language plpgsql
stable
set search_path = ''
as $$
declare
  last_one constant timestamptz := day at time zone zone;
  day_before constant timestamptz := last_one - interval '24 hours';
  -- Midnight by the clock of the day before.
  first_one constant timestamptz := (day - ((day_before at time zone zone) - (day_before at time zone 'UTC'))) at time zone 'UTC';
begin
  if first_one < last_one and first_one at time zone zone = day then
    return first_one;
  end if;
  return last_one;
end;
$$;

-- The local day of a moment. Where clocks go back over midnight, the day that had begun goes on.
create function vital_private.local_day(moment timestamptz, zone text) returns timestamp
language plpgsql
stable
set search_path = ''
as $$
declare
  today constant timestamp := date_trunc('day', moment at time zone zone);
begin
  if vital_private.local_midnight(today + interval '1 day', zone) <= moment then
    return today + interval '1 day';
  end if;
  return today;
end;
$$;

-- When the window of a moment starts and ends; NULL: never.
create function vital_private.window_start(period text, moment timestamptz, zone text, since timestamptz)
returns timestamptz
language plpgsql
stable
set search_path = ''
as $$
begin
  return case period
    when 'minute' then date_trunc('minute', moment, 'UTC')
    when 'day' then vital_private.local_midnight(vital_private.local_day(moment, zone), zone)
    when 'month' then vital_private.local_midnight(date_trunc('month', vital_private.local_day(moment, zone)), zone)
    when 'total' then since
  end;
end;
$$;

create function vital_private.window_end(period text, moment timestamptz, zone text) returns timestamptz
language plpgsql
stable
set search_path = ''
as $$
begin
  return case period
    when 'minute' then date_trunc('minute', moment, 'UTC') + interval '1 minute'
    when 'day' then vital_private.local_midnight(vital_private.local_day(moment, zone) + interval '1 day', zone)
    when 'month' then
      vital_private.local_midnight(date_trunc('month', vital_private.local_day(moment, zone)) + interval '1 month', zone)
  end;
end;
$$;

-- The periods for which a budget has a limit.
create function vital_private.limits_of(budget public.budget_limits)
returns table (period text, limit_amount numeric)
language sql
immutable
set search_path = ''
as $$
  select p.period, p.limit_amount
  from (
    values
      ('minute', budget.minute_limit), ('day', budget.daily_limit), ('month', budget.monthly_limit),
      ('total', budget.total_limit)
  ) as p (period, limit_amount)
  where p.limit_amount is not null
$$;

-- The model that a budget counts a call for: the one asked for, whatever dated name answered; after a downgrade the one that
-- answered, without its date.
create function vital_private.budget_model(model text, requested_model text, budget_action text) returns text
language sql
immutable
return case
  when budget_action = 'downgrade' then regexp_replace(model, '-([0-9]{8}|[0-9]{4}-[0-9]{2}-[0-9]{2})$', '')
  else coalesce(requested_model, model)
end;

-- What a budget's windows of these periods hold by the calls themselves.
create function vital_private.sums_of(budget public.budget_limits, periods text[])
returns table (entity_id text, period text, starts_at timestamptz, ends_at timestamptz, limit_amount numeric, amount numeric)
language sql
stable
set search_path = ''
as $$
  with counted as (
    select
      p.period, p.limit_amount,
      case when p.period = 'minute' then interval '1 minute' else interval '15 minutes' end as step,
      vital_private.window_start(p.period, p.since, budget.timezone, p.since) as first_start
    from vital_private.budget_periods as p
    where p.budget_id = budget.id and p.period = any(periods)
  ),

  -- In every zone days begin at a quarter of an hour, so not every minute has to be looked up.
  parts as materialized (
    select
      e.entity_id,
      date_bin((select min(counted.step) from counted), c.created_at, '2000-01-01 00:00:00+00') as part,
      c.created_at >= (select counted.first_start from counted where counted.period = 'total') as in_total,
      sum(case budget.metric
        when 'cost_usd' then coalesce(c.total_cost, c.ceiling_cost, 0)
        when 'tokens' then case when c.cache_hit then 0 else c.total_tokens end
        when 'calls' then case when c.cache_hit or c.status = 'blocked' then 0 else c.calls end
      end) as amount
    from public.token_usage_logs as c
    cross join lateral (
      select case budget.entity_type
        when 'organization' then c.organization_id
        when 'service' then c.service_type
        when 'tier' then c.agent_tier
        when 'user' then c.user_id
        when 'session' then c.session_id
        when 'agent' then c.agent_id
        when 'workflow' then c.workflow_id
        when 'panel' then c.panel_id
        when 'solution' then c.solution_id
        when 'model' then vital_private.budget_model(c.model, c.requested_model, c.budget_action)
      end
    ) as e (entity_id)
    where c.created_at >= (select min(counted.first_start) from counted)
      and e.entity_id is not null
      and budget.entity_id in ('*', e.entity_id)
      and (budget.organization_id is null or c.organization_id = budget.organization_id)
    group by 1, 2, 3
  ),

  times as materialized (
    select distinct parts.part from parts
  ),

  frames as materialized (
    select
      counted.period, counted.limit_amount, times.part,
      vital_private.window_start(counted.period, times.part, budget.timezone, counted.first_start) as starts_at,
      vital_private.window_end(counted.period, times.part, budget.timezone) as ends_at
    from times
    join counted on counted.period = 'total' or times.part >= counted.first_start
  )

  select parts.entity_id, frames.period, frames.starts_at, frames.ends_at, frames.limit_amount, sum(parts.amount)
  from parts
  join frames on frames.part = parts.part and (frames.period <> 'total' or parts.in_total)
  group by 1, 2, 3, 4, 5
$$;

-- Bring a budget's windows in line with it after it was made or changed: limits in force now, windows of lifted limits gone,
-- the windows that run under a new limit filled from the calls recorded so far.
create function vital_private.open_windows() returns trigger
language plpgsql
security definer
set search_path = ''
as $$
declare
  anew constant boolean := tg_op = 'UPDATE' and vital_private.counts_otherwise(new, old);
  opened text[];
begin
  with lifted as (
    delete from vital_private.budget_periods as p
    where p.budget_id = new.id and (anew or p.period not in (select l.period from vital_private.limits_of(new) as l))
    returning p.period
  )

  delete from public.budget_windows as w using lifted where w.budget_id = new.id and w.period = lifted.period;

  with changed as (
    update vital_private.budget_periods as p
    set limit_amount = l.limit_amount
    from vital_private.limits_of(new) as l
    where p.budget_id = new.id and p.period = l.period and p.limit_amount <> l.limit_amount
    returning p.period, p.limit_amount
  )

  update public.budget_windows as w
  set limit_amount = changed.limit_amount
  from changed
  where w.budget_id = new.id and w.period = changed.period and coalesce(w.ends_at, 'infinity') > now();

  with added as (
    insert into vital_private.budget_periods as p (budget_id, period, limit_amount, since)
    select
      new.id, l.period, l.limit_amount,
      case l.period when 'total' then new.counting_since else date_trunc('minute', now(), 'UTC') end
    from vital_private.limits_of(new) as l
    on conflict on constraint budget_periods_pkey do nothing
    returning p.period
  )

  select array_agg(added.period) into opened from added;
  if opened is not null then
    insert into public.budget_windows (budget_id, entity_id, period, starts_at, ends_at, limit_amount, spent)
    select new.id, s.entity_id, s.period, s.starts_at, s.ends_at, s.limit_amount, s.amount
    from vital_private.sums_of(new, opened) as s
    where s.amount <> 0;
  end if;
  return null;
end;
$$;

create trigger budget_limits_open_windows
after insert or update on public.budget_limits
for each row execute function vital_private.open_windows();

-- A call as budgets count it: who it is for, and how much in each metric.
create type vital_private.counted_call as (
  created_at timestamptz,
  organization_id text,
  service_type text,
  agent_tier text,
  user_id text,
  session_id text,
  agent_id text,
  workflow_id text,
  panel_id text,
  solution_id text,
  model text,
  cost numeric,
  tokens numeric,
  calls numeric
);

-- A recorded call as budgets count it; `sign` -1 takes it back. (Written without SET, as is the one above, so that PostgreSQL may
-- inline it: it is asked for every call that is recorded.)
create function vital_private.counted(call public.token_usage_logs, sign integer) returns vital_private.counted_call
language sql
immutable
return row(
  call.created_at, call.organization_id, call.service_type, call.agent_tier, call.user_id, call.session_id, call.agent_id,
  call.workflow_id, call.panel_id, call.solution_id,
  vital_private.budget_model(call.model, call.requested_model, call.budget_action),
  sign * coalesce(call.total_cost, call.ceiling_cost, 0),
  case when call.cache_hit then 0 else sign * call.total_tokens end,
  case when call.cache_hit or call.status = 'blocked' then 0 else sign * call.calls end
)::vital_private.counted_call;

-- An amount of one window.
create type vital_private.posting as (
  budget_id bigint,
  entity_id text,
  period text,
  starts_at timestamptz,
  ends_at timestamptz,
  limit_amount numeric,
  amount numeric
);

-- The windows that calls count in, in the order of their keys, with the sum of the calls in each where it is not nothing. Calls are
-- added up by entity before they meet the budgets, which meet them by equality: thousands of budgets cost no more than a few. (The
-- planner takes what has never been analyzed, and arrays, for next to nothing or for a lot, and would loop, or compile.)
create function vital_private.postings_of(calls vital_private.counted_call[]) returns vital_private.posting[]
language plpgsql
stable
set search_path = ''
set enable_nestloop = off
set jit = off
as $$
declare
  types constant text[] := array(select distinct b.entity_type from public.budget_limits as b);
  -- In every zone days begin at a quarter of an hour, so not every minute has to be looked up.
  step constant interval := case
    when exists (select from vital_private.budget_periods as p where p.period in ('minute', 'total')) then interval '1 minute'
    else interval '15 minutes'
  end;
begin
  return (
    with counted as materialized (
      select c.*, date_bin(step, c.created_at, '2000-01-01 00:00:00+00') as part from unnest(calls) as c
    ),

    told as (
      select 'organization' as entity_type, c.organization_id as entity_id, c.* from counted as c where 'organization' = any(types)
      union all
      select 'service', c.service_type, c.* from counted as c where 'service' = any(types)
      union all
      select 'tier', c.agent_tier, c.* from counted as c where 'tier' = any(types)
      union all
      select 'user', c.user_id, c.* from counted as c where 'user' = any(types)
      union all
      select 'session', c.session_id, c.* from counted as c where 'session' = any(types)
      union all
      select 'agent', c.agent_id, c.* from counted as c where 'agent' = any(types)
      union all
      select 'workflow', c.workflow_id, c.* from counted as c where 'workflow' = any(types)
      union all
      select 'panel', c.panel_id, c.* from counted as c where 'panel' = any(types)
      union all
      select 'solution', c.solution_id, c.* from counted as c where 'solution' = any(types)
      union all
      select 'model', c.model, c.* from counted as c where 'model' = any(types)
    ),

    summed as materialized (
      select
        t.entity_type, t.entity_id, t.organization_id, t.part, sum(t.cost) as cost, sum(t.tokens) as tokens, sum(t.calls) as calls
      from told as t
      where t.entity_id is not null
      group by 1, 2, 3, 4
    ),

    frames as materialized (
      select
        k.timezone, k.period, c.part, vital_private.window_start(k.period, c.part, k.timezone, null) as starts_at,
        vital_private.window_end(k.period, c.part, k.timezone) as ends_at
      from (
        select distinct b.timezone, p.period
        from public.budget_limits as b
        join vital_private.budget_periods as p on p.budget_id = b.id
      ) as k
      cross join (select distinct counted.part from counted) as c
    ),

    limits as materialized (
      select
        b.id, b.organization_id, b.entity_type, b.entity_id, b.metric, p.period, p.limit_amount, f.part,
        coalesce(f.starts_at, p.since) as starts_at, f.ends_at
      from public.budget_limits as b
      join vital_private.budget_periods as p on p.budget_id = b.id
      join frames as f on f.timezone = b.timezone and f.period = p.period
      where case p.period when 'total' then f.part >= p.since else f.ends_at > p.since end
    ),

    matched as (
      select s.entity_id as name, s.cost, s.tokens, s.calls, l.*
      from summed as s
      join limits as l on l.entity_type = s.entity_type and l.part = s.part and l.entity_id = s.entity_id
      where l.organization_id is null or l.organization_id = s.organization_id
      union all
      select s.entity_id, s.cost, s.tokens, s.calls, l.*
      from summed as s
      join limits as l on l.entity_type = s.entity_type and l.part = s.part
      where l.entity_id = '*' and s.entity_id <> '*' and (l.organization_id is null or l.organization_id = s.organization_id)
    ),

    posted as (
      select
        m.id, m.name, m.period, m.starts_at, m.ends_at, m.limit_amount,
        sum(case m.metric when 'cost_usd' then m.cost when 'tokens' then m.tokens else m.calls end) as amount
      from matched as m
      group by 1, 2, 3, 4, 5, 6
    )

    select array_agg(
      row(p.id, p.name, p.period, p.starts_at, p.ends_at, p.limit_amount, p.amount)::vital_private.posting
      order by p.id, p.name, p.period, p.starts_at
    )
    from posted as p
    where p.amount <> 0
  );
end;
$$;

-- Make the windows that are missing, in the order of their keys: so two who make the same ones wait for each other in one
-- order. Nobody makes a window while holding the lock of another.
create function vital_private.make_windows(wanted vital_private.posting[]) returns void
language plpgsql
set search_path = ''
as $$
begin
  insert into public.budget_windows (budget_id, entity_id, period, starts_at, ends_at, limit_amount)
  select p.budget_id, p.entity_id, p.period, p.starts_at, p.ends_at, p.limit_amount
  from unnest(wanted) as p
  where not exists (
    select from public.budget_windows as w
    where w.budget_id = p.budget_id and w.entity_id = p.entity_id and w.period = p.period and w.starts_at = p.starts_at
  )
  order by p.budget_id, p.entity_id, p.period, p.starts_at
  on conflict do nothing;
end;
$$;

-- Post what calls have spent to their windows, and take what they had been granted out of the grants of `holder`: `draws` is a
-- JSON array of [window id, amount]. Windows are locked in the order of their ids, by everybody, and by each only once in a
-- transaction.
create function vital_private.post_spend(calls vital_private.counted_call[], holder text, draws json) returns void
language plpgsql
set search_path = ''
as $$
declare
  postings constant vital_private.posting[] := vital_private.postings_of(calls);
  ids bigint[];
  amounts numeric[];
  complete boolean;
begin
  if postings is null and draws is null then
    return;
  end if;
  for attempt in 1..2 loop
    with known as (
      select w.id, p.amount
      from unnest(postings) as p
      left join public.budget_windows as w
        on w.budget_id = p.budget_id and w.entity_id = p.entity_id and w.period = p.period and w.starts_at = p.starts_at
      union all
      select d.window_id, 0
      from (select (d.value ->> 0)::bigint as window_id from json_array_elements(draws) as d (value)) as d
      where d.window_id is not null
    )

    select array_agg(k.id order by k.id), array_agg(k.amount order by k.id), bool_and(k.id is not null)
    into ids, amounts, complete
    from (select known.id, sum(known.amount) as amount from known group by known.id) as k;
    exit when complete or attempt = 2;
    perform vital_private.make_windows(postings);
  end loop;
  perform from public.budget_windows as w where w.id = any(ids) order by w.id for update;
  with drawn as (
    select g.window_id, least(g.amount, greatest(sum((d.value ->> 1)::numeric), 0)) as amount
    from json_array_elements(draws) as d (value)
    join public.budget_grants as g on g.window_id = (d.value ->> 0)::bigint and g.holder = post_spend.holder
    group by g.window_id, g.amount
  ),

  lowered as (
    update public.budget_grants as g
    set amount = g.amount - drawn.amount
    from drawn
    where g.window_id = drawn.window_id and g.holder = post_spend.holder
  ),

  posted as (
    update public.budget_windows as w
    -- A sum that somebody has tampered with must not keep calls from being recorded.
    set spent = w.spent + k.amount, granted = greatest(w.granted - coalesce(drawn.amount, 0), 0)
    from unnest(ids, amounts) as k (id, amount)
    left join drawn on drawn.window_id = k.id
    where w.id = k.id
    returning
      w.id, w.budget_id, w.entity_id, w.period, w.starts_at, w.ends_at, w.limit_amount, w.spent, w.spent - k.amount as spent_before
  )

  insert into public.cost_alerts (
    budget_id, organization_id, entity_type, entity_id, metric, action, enforce, period, window_starts_at, window_ends_at,
    threshold, limit_amount, spent, superseded
  )
  select
    b.id, b.organization_id, b.entity_type, w.entity_id, b.metric, b.action, b.enforce, w.period, w.starts_at, w.ends_at,
    t.threshold, w.limit_amount, w.spent,
    -- Where one batch crosses several thresholds, the highest says it all.
    t.threshold < max(t.threshold) over (partition by w.id)
  from posted as w
  join public.budget_limits as b on b.id = w.budget_id
  cross join unnest(b.alert_thresholds) as t (threshold)
  -- Not what was crossed just now, but what nobody has told: a limit may have been lowered, or a budget made in mid-window.
  where w.spent > w.spent_before
    and w.spent >= t.threshold * w.limit_amount
    and not exists (
      select from public.cost_alerts as a
      where a.budget_id = w.budget_id and a.entity_id = w.entity_id and a.period = w.period
        and a.window_starts_at = w.starts_at and a.threshold = t.threshold
    )
  order by w.id, t.threshold
  on conflict do nothing;
end;
$$;

revoke execute on function vital_private.local_midnight(timestamp, text) from public;
revoke execute on function vital_private.local_day(timestamptz, text) from public;
revoke execute on function vital_private.window_start(text, timestamptz, text, timestamptz) from public;
revoke execute on function vital_private.window_end(text, timestamptz, text) from public;
revoke execute on function vital_private.limits_of(public.budget_limits) from public;
revoke execute on function vital_private.budget_model(text, text, text) from public;
revoke execute on function vital_private.sums_of(public.budget_limits, text[]) from public;
revoke execute on function vital_private.open_windows() from public;
revoke execute on function vital_private.counted(public.token_usage_logs, integer) from public;
revoke execute on function vital_private.postings_of(vital_private.counted_call[]) from public;
revoke execute on function vital_private.make_windows(vital_private.posting[]) from public;
revoke execute on function vital_private.post_spend(vital_private.counted_call[], text, json) from public;
