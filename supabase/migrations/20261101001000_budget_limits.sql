-- What admins allow: a limit in a metric on an entity over up to four periods, and what happens when it is reached.
--
-- `organization_id` NULL counts the calls of all organizations together. `entity_id` '*' gives each entity of that type its own
-- windows. Several rows for one entity with different actions follow one another: throttle at 4 dollars, block at 5. Rows may be
-- changed with plain SQL: triggers check them and keep the windows right.

create table public.budget_limits (
  id bigint generated always as identity primary key,
  organization_id text,
  entity_type text not null,
  entity_id text not null default '*',
  metric text not null default 'cost_usd',
  minute_limit numeric,
  daily_limit numeric,
  monthly_limit numeric,
  total_limit numeric,
  action text not null default 'alert',
  alert_thresholds numeric[] not null default '{0.5,0.8,1.0}',
  throttle_interval interval not null default '10 seconds',
  downgrade_to text,
  timezone text not null default 'UTC',
  enforce boolean not null default true,
  strict boolean not null default false,
  when_unavailable text not null default 'allow',
  by_plan boolean not null default false,
  until timestamptz,
  counting_since timestamptz not null default date_trunc('minute', now(), 'UTC'),
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  constraint budget_limits_one_an_action unique nulls not distinct (organization_id, entity_type, entity_id, metric, action, by_plan, until)
);

comment on table public.budget_limits is 'Budgets: limits on what an organization, service, tier, user, session and the like may spend.';
comment on column public.budget_limits.organization_id is 'Whose calls count; NULL: those of all organizations together.';
comment on column public.budget_limits.entity_id is 'Which one; * gives each of them its own windows.';
comment on column public.budget_limits.metric is 'What is limited: cost_usd (US dollars), tokens or calls.';
comment on column public.budget_limits.total_limit is 'Counts from counting_since on and never starts anew.';
comment on column public.budget_limits.action is 'What happens at the limit: alert, throttle, downgrade or block.';
comment on column public.budget_limits.alert_thresholds is 'Shares of the limit at which an alert is recorded, once a window each.';
comment on column public.budget_limits.throttle_interval is 'Over the limit, calls pass one per interval, across all processes.';
comment on column public.budget_limits.downgrade_to is 'Over the limit, only models no dearer than this pass; NULL: those that the code offers.';
comment on column public.budget_limits.timezone is 'IANA zone in which days and months begin.';
comment on column public.budget_limits.enforce is 'False: nothing is stopped; what would have been is only noted.';
comment on column public.budget_limits.strict is 'Hold one token a byte of the prompt, and ask that the answer be limited.';
comment on column public.budget_limits.when_unavailable is 'What to do with a call when the database cannot be asked: allow or deny.';
comment on column public.budget_limits.by_plan is 'True: it keeps the quotas of subscriptions, whose plans have the limits.';
comment on column public.budget_limits.until is 'When it ends by itself, and beside which others of its kind it stands; NULL: never.';
comment on column public.budget_limits.counting_since is 'When this budget began to count; the windows then running were filled from the calls.';

-- Whoever records or admits calls holds this lock shared until the commit; a change of budgets holds it alone. So no call is recorded
-- by the old budgets while the windows of a new one are being filled.
create function vital_private.lock_budgets(alone boolean) returns void
language plpgsql
set search_path = ''
as $$
begin
  if alone then
    perform pg_catalog.pg_advisory_xact_lock(hashtext('vital_tracking.budgets'));
  else
    perform pg_catalog.pg_advisory_xact_lock_shared(hashtext('vital_tracking.budgets'));
  end if;
end;
$$;

create function vital_private.before_budgets_change() returns trigger
language plpgsql
security definer
set search_path = ''
as $$
begin
  perform vital_private.lock_budgets(alone => true);
  return null;
end;
$$;

-- Whether a change makes a budget count other calls, or count them differently: then its windows start again.
create function vital_private.counts_otherwise(changed public.budget_limits, before public.budget_limits) returns boolean
language sql
immutable
set search_path = ''
as $$
  select (changed.organization_id, changed.entity_type, changed.entity_id, changed.metric, changed.timezone)
    is distinct from (before.organization_id, before.entity_type, before.entity_id, before.metric, before.timezone)
$$;

-- Check a budget, with a message that says what is wrong and a hint that says how to put it right. `zone_known` spares looking for its zone.
create function vital_private.check_budget_columns(wanted public.budget_limits, zone_known boolean default false) returns void
language plpgsql
stable
security definer
set search_path = ''
as $$
declare
  entities constant text[] := vital_private.budget_names('entity');
  metrics constant text[] := vital_private.budget_names('metric');
  actions constant text[] := vital_private.budget_names('action');
  problem text;
  fix text;
begin
  if wanted.entity_type is null or wanted.entity_type <> all(entities) then
    problem := format('entity_type %L is unknown.', wanted.entity_type);
    fix := format('One of: %s.', array_to_string(entities, ', '));
  elsif wanted.organization_id = '' then
    problem := 'organization_id is empty.';
    fix := 'Name the organization, or set it to NULL for all of them together.';
  elsif coalesce(wanted.entity_id, '') = '' then
    problem := 'entity_id is empty.';
    fix := 'Name the entity, or write * to give each of them its own window.';
  elsif wanted.metric is null or wanted.metric <> all(metrics) then
    problem := format('metric %L is unknown.', wanted.metric);
    fix := format('One of: %s.', array_to_string(metrics, ', '));
  elsif wanted.action is null or wanted.action <> all(actions) then
    problem := format('action %L is unknown.', wanted.action);
    fix := format('One of: %s.', array_to_string(actions, ', '));
  elsif wanted.by_plan and (
    wanted.entity_type not in ('user', 'organization') or wanted.entity_id <> '*' or wanted.metric not in ('calls', 'tokens')
    or wanted.action not in ('alert', 'block')
    or num_nonnulls(wanted.minute_limit, wanted.daily_limit, wanted.monthly_limit, wanted.total_limit) > 0
  ) then
    problem := 'A budget that keeps quotas has no limits of its own.';
    fix := 'Subscriptions make it; change the plan, or the subscription.';
  elsif wanted.by_plan is not true
    and num_nonnulls(wanted.minute_limit, wanted.daily_limit, wanted.monthly_limit, wanted.total_limit) = 0
  then
    problem := 'A budget needs a limit.';
    fix := 'Set minute_limit, daily_limit, monthly_limit or total_limit.';
  elsif exists (
    select from unnest(array[wanted.minute_limit, wanted.daily_limit, wanted.monthly_limit, wanted.total_limit]) as amount
    -- NaN sorts above every number: the upper bound keeps it out.
    where amount is not null and not (amount >= 0 and amount < 'Infinity')
  ) then
    problem := 'A limit must be a finite number, 0 or more.';
    fix := 'Write 5 or 0.50; to lift a limit, set it to NULL.';
  elsif wanted.alert_thresholds is null or cardinality(wanted.alert_thresholds) > 10 or exists (
    select from unnest(wanted.alert_thresholds) as share where share is null or not (share > 0 and share <= 10)
  ) then
    problem := 'alert_thresholds must be at most ten shares of the limit, above 0 and up to 10.';
    fix := 'For alerts at half, four fifths and the whole: {0.5,0.8,1.0}.';
  elsif not coalesce(wanted.throttle_interval > '0' and wanted.throttle_interval <= '1 day', false) then
    problem := 'throttle_interval must be longer than nothing and at most a day.';
    fix := 'For one call every ten seconds: 10 seconds.';
  elsif wanted.downgrade_to = '' then
    problem := 'downgrade_to is empty.';
    fix := 'Name a model, or set it to NULL.';
  elsif wanted.when_unavailable is null or wanted.when_unavailable not in ('allow', 'deny') then
    problem := format('when_unavailable %L is unknown.', wanted.when_unavailable);
    fix := 'One of: allow, deny.';
  -- PostgreSQL reads these names as abbreviations, of fixed offsets without summer time, although they are zones that have one.
  elsif upper(wanted.timezone) in ('CET', 'EET', 'MET', 'WET') then
    problem := format('timezone %L would be read as a fixed offset, without summer time.', wanted.timezone);
    fix := 'Name a city: Europe/Berlin, Europe/Athens, Europe/Lisbon.';
  -- Reading the names of zones takes 20 ms, so it is not done for one that is stored already.
  elsif wanted.timezone is distinct from 'UTC'
    and not zone_known
    and not exists (select from pg_catalog.pg_timezone_names where name = wanted.timezone) then
    problem := format('timezone %L is no IANA time zone that this database knows.', wanted.timezone);
    fix := 'For example UTC, Europe/Berlin, Asia/Kolkata.';
  end if;
  if problem is not null then
    raise exception '%', problem using errcode = '23514', hint = fix, table = 'budget_limits';
  end if;
end;
$$;

create function vital_private.check_budget_limit() returns trigger
language plpgsql
security definer
set search_path = ''
as $$
begin
  perform vital_private.check_budget_columns(new, tg_op = 'UPDATE' and new.timezone is not distinct from old.timezone);
  new.updated_at := clock_timestamp();
  if tg_op = 'INSERT' then
    new.created_at := now();
    if new.until <= now() then
      raise exception 'until is over already.'
        using errcode = '23514', hint = 'Name an instant to come, or leave it out for a budget that never ends.', table = 'budget_limits';
    end if;
  end if;
  -- Every window begins at a whole minute, that of a total too.
  if tg_op = 'INSERT' or vital_private.counts_otherwise(new, old) then
    new.counting_since := date_trunc('minute', now(), 'UTC');
  else
    new.counting_since := old.counting_since;
  end if;
  return new;
end;
$$;

create trigger budget_limits_lock
before insert or update or delete on public.budget_limits
for each statement execute function vital_private.before_budgets_change();

create trigger budget_limits_check
before insert or update on public.budget_limits
for each row execute function vital_private.check_budget_limit();

select vital_private.restrict_relation('public.budget_limits', readers => '{authenticated, service_role}');
grant insert, update, delete on public.budget_limits to service_role;

create policy "Organization admins see their organization's budgets" on public.budget_limits
for select to authenticated
using (
  organization_id = any((select vital_private.administered_organizations())::text[])
  or (entity_type = 'organization' and entity_id = any((select vital_private.administered_organizations())::text[]))
  -- A budget of each organization is one of theirs too.
  or (
    entity_type = 'organization' and entity_id = '*' and organization_id is null
    and cardinality((select vital_private.administered_organizations())) > 0
  )
);

create policy "Users see the budgets of users that are theirs" on public.budget_limits
for select to authenticated
using (
  entity_type = 'user' and entity_id in ('*', (select auth.jwt()) ->> 'sub')
  and (
    organization_id is null
    or organization_id in (
      select m.organization_id from public.organization_members as m where m.user_id = (select auth.jwt()) ->> 'sub'
    )
  )
);

create policy "The service role manages budgets" on public.budget_limits
for all to service_role
using (true)
with check (true);

-- A budget as JSON, with amounts as text, so that no client turns them into a float, and the interval in seconds.
create function vital_private.budget_json(budget public.budget_limits) returns json
language sql
stable
set search_path = ''
as $$
  select json_build_object(
    'id', budget.id, 'organization_id', budget.organization_id, 'entity_type', budget.entity_type,
    'entity_id', budget.entity_id, 'metric', budget.metric, 'minute_limit', budget.minute_limit::text,
    'daily_limit', budget.daily_limit::text, 'monthly_limit', budget.monthly_limit::text,
    'total_limit', budget.total_limit::text, 'action', budget.action, 'alert_thresholds', budget.alert_thresholds::text[],
    'throttle_interval_s', (extract(epoch from budget.throttle_interval))::text, 'downgrade_to', budget.downgrade_to,
    'timezone', budget.timezone, 'enforce', budget.enforce, 'strict', budget.strict,
    'when_unavailable', budget.when_unavailable, 'by_plan', budget.by_plan, 'until', budget.until,
    'counting_since', budget.counting_since,
    'created_at', budget.created_at, 'updated_at', budget.updated_at
  )
$$;

-- Changes whenever a budget does, or ends.
create function vital_private.budgets_version() returns text
language sql
stable
set search_path = ''
as $$
  select md5(coalesce(string_agg(id || ' ' || extract(epoch from updated_at), ',' order by id), ''))
  from public.budget_limits
  where coalesce(until, 'infinity') > now()
$$;

-- The budgets in force that the caller may see, the database's clock, and a version that changes whenever a budget does.
create function public.budgets_v1() returns json
language sql
stable
set search_path = ''
as $$
  select json_build_object(
    'now', clock_timestamp(),
    'version', vital_private.budgets_version(),
    'budgets', (
      select coalesce(json_agg(vital_private.budget_json(b) order by b.entity_type, b.entity_id, b.id), '[]')
      from public.budget_limits as b
      where coalesce(b.until, 'infinity') > now()
    )
  )
$$;

-- The columns of a budget that a JSON object names, by the names that they have in the table; a column that nobody sets is not taken.
create function vital_private.budget_given(budget text) returns jsonb
language plpgsql
immutable
set search_path = ''
as $$
declare
  given jsonb := budget::jsonb;
begin
  perform vital_private.check_given('budget', budget);
  if jsonb_typeof(given) <> 'object' then
    raise exception 'A budget is a JSON object of columns of budget_limits.' using errcode = '22023';
  end if;
  if given ? 'throttle_interval_s' then
    given := (given - 'throttle_interval_s')
      || jsonb_build_object('throttle_interval', (given ->> 'throttle_interval_s') || ' seconds');
  end if;
  return given - array['id', 'by_plan', 'counting_since', 'created_at', 'updated_at'];
end;
$$;

-- A budget as it would be once these columns were set: what they do not name is as it is stored, else the usual. Its id is NULL where
-- the caller sees none of this organization, entity, metric and action.
create function vital_private.budget_wanted(given jsonb) returns public.budget_limits
language plpgsql
stable
set search_path = ''
as $$
declare
  wanted public.budget_limits;
begin
  select b.* into wanted
  from public.budget_limits as b
  where b.organization_id is not distinct from given ->> 'organization_id'
    and b.entity_type = given ->> 'entity_type'
    and b.entity_id = coalesce(given ->> 'entity_id', '*')
    and b.metric = coalesce(given ->> 'metric', 'cost_usd')
    and b.action = coalesce(given ->> 'action', 'alert')
    and not b.by_plan
    and b.until is not distinct from (given ->> 'until')::timestamptz;
  if found then
    return jsonb_populate_record(wanted, given);
  end if;
  wanted.entity_id := '*';
  wanted.metric := 'cost_usd';
  wanted.action := 'alert';
  wanted.alert_thresholds := '{0.5,0.8,1.0}';
  wanted.throttle_interval := '10 seconds';
  wanted.timezone := 'UTC';
  wanted.enforce := true;
  wanted.strict := false;
  wanted.when_unavailable := 'allow';
  wanted.by_plan := false;
  return jsonb_populate_record(wanted, jsonb_strip_nulls(given));
end;
$$;

-- Make a budget, or change the one of the same organization, entity, metric, action and end: a JSON object of columns. Columns that are not
-- named keep their value. `throttle_interval_s` gives the interval in seconds. Who may is checked by set_budget_v1.
create function vital_private.set_budget(budget text) returns json
language plpgsql
security definer
set search_path = ''
as $$
declare
  asked public.budget_limits;
  stored public.budget_limits;
begin
  perform vital_private.lock_budgets(alone => true);
  asked := vital_private.budget_wanted(vital_private.budget_given(budget));
  if asked.id is not null then
    update public.budget_limits as b
    set
      minute_limit = wanted.minute_limit, daily_limit = wanted.daily_limit, monthly_limit = wanted.monthly_limit,
      total_limit = wanted.total_limit, alert_thresholds = wanted.alert_thresholds,
      throttle_interval = wanted.throttle_interval, downgrade_to = wanted.downgrade_to, timezone = wanted.timezone,
      enforce = wanted.enforce, strict = wanted.strict, when_unavailable = wanted.when_unavailable
    from (select asked.*) as wanted
    where b.id = wanted.id
    returning b.* into stored;
  else
    insert into public.budget_limits as b (
      organization_id, entity_type, entity_id, metric, minute_limit, daily_limit, monthly_limit, total_limit, action,
      alert_thresholds, throttle_interval, downgrade_to, timezone, enforce, strict, when_unavailable, until
    )
    select
      wanted.organization_id, wanted.entity_type, wanted.entity_id, wanted.metric, wanted.minute_limit, wanted.daily_limit,
      wanted.monthly_limit, wanted.total_limit, wanted.action, wanted.alert_thresholds, wanted.throttle_interval,
      wanted.downgrade_to, wanted.timezone, wanted.enforce, wanted.strict, wanted.when_unavailable, wanted.until
    from (select asked.*) as wanted -- a row: PL/pgSQL finds no field of a variable that is called as its keyword strict
    returning b.* into stored;
  end if;
  return vital_private.budget_json(stored);
end;
$$;

-- Remove a budget with its windows; its alerts stay. Who may is checked by remove_budget_v1.
create function vital_private.remove_budget(budget_id bigint) returns json
language plpgsql
security definer
set search_path = ''
as $$
declare
  removed bigint;
begin
  delete from public.budget_limits where id = budget_id;
  get diagnostics removed = row_count;
  return json_build_object('removed', removed);
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

select vital_private.restrict_functions(
  api => '{budgets_v1}', helpers => '{limits_of, budgets_version, budget_json, budget_given, budget_wanted, check_budget_columns}'
);
