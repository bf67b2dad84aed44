-- Plans: how many calls and tokens a month one may use, and what that costs. Subscriptions: who is on which plan, and on which day of the
-- month it begins anew.
--
-- A quota is a budget: the budgets that keep quotas (budget_limits.by_plan) are one a kind of subscriber, metric and action, however many
-- subscribers there are. Whom they are for, their months and their limits are looked up here, by the subscriber's id. Rows may be changed with plain
-- SQL: triggers check them and keep the windows right.

create table public.plans (
  id bigint generated always as identity primary key,
  name text not null,
  valid_from timestamptz not null default clock_timestamp(),
  calls bigint,
  tokens bigint,
  calls_per_minute bigint,
  tokens_per_minute bigint,
  price_usd numeric,
  created_at timestamptz not null default clock_timestamp(),
  constraint plans_version unique (name, valid_from),
  constraint plans_name check (btrim(name) = name and name <> '' and length(name) <= 64),
  constraint plans_amounts check (least(calls, tokens, calls_per_minute, tokens_per_minute, price_usd) >= 0 and price_usd < 'Infinity')
);

comment on table public.plans is 'What a subscriber may use in a month, and its price. Dated: of its rows the last that has begun counts.';
comment on column public.plans.calls is 'Calls a month; NULL: unlimited.';
comment on column public.plans.tokens is 'Tokens a month; NULL: unlimited.';
comment on column public.plans.calls_per_minute is 'Calls a minute; NULL: unlimited.';
comment on column public.plans.price_usd is 'US dollars a month; NULL: not said.';

-- A beginning, to be changed by set_plan_v1: they hold from the first day that there is. Prices are the team's.
insert into public.plans (name, valid_from, calls, tokens, price_usd) values
('trial', '1970-01-01 00:00:00+00', 700, 100000, null),
('starter', '1970-01-01 00:00:00+00', 30000, 5000000, null),
('professional', '1970-01-01 00:00:00+00', 300000, 50000000, 49.00),
('enterprise', '1970-01-01 00:00:00+00', null, null, null);

create table public.subscriptions (
  id bigint generated always as identity primary key,
  organization_id text,
  entity_type text not null,
  entity_id text not null,
  plan text not null,
  since timestamptz not null default clock_timestamp(),
  until timestamptz,
  reset_day smallint not null default 1,
  timezone text not null default 'UTC',
  enforced boolean not null default false,
  source text not null default 'sql',
  claimed_at timestamptz,
  counting_since timestamptz not null default clock_timestamp(),
  created_at timestamptz not null default clock_timestamp(),
  constraint subscriptions_entity_type check (entity_type in ('user', 'organization')),
  constraint subscriptions_entity_id check (entity_id not in ('', '*') and length(entity_id) <= 256),
  constraint subscriptions_organization check (organization_id <> '' and (entity_type = 'user' or organization_id is null)),
  constraint subscriptions_times check (until > since),
  constraint subscriptions_reset_day check (reset_day between 1 and 31),
  constraint subscriptions_source check (source in ('command', 'import', 'claim', 'sql'))
);

comment on table public.subscriptions is 'Who is on which plan, since when. A change is a new row: the row before it ends where it begins.';
comment on column public.subscriptions.organization_id is 'Where a user''s calls count; NULL: in all organizations. Of an organization it is NULL.';
comment on column public.subscriptions.entity_type is 'The subscriber: user or organization.';
comment on column public.subscriptions.reset_day is 'The day on which its month begins, 1 to 31; the last one of a shorter month.';
comment on column public.subscriptions.timezone is 'IANA zone in which that day begins.';
comment on column public.subscriptions.enforced is 'True: what does not fit into the quota is blocked. False: it is only watched, with alerts.';
comment on column public.subscriptions.source is 'Who set it: command (also API and pages), import, claim (of a token), sql.';
comment on column public.subscriptions.claimed_at is 'Of a claim: when the token was issued that set it or, without one, ended it.';
comment on column public.subscriptions.counting_since is 'When it began to count; the month then running was filled from the calls.';

create index subscriptions_entity on public.subscriptions (entity_id, entity_type);
create unique index subscriptions_open on public.subscriptions (organization_id, entity_type, entity_id) nulls not distinct
where until is null;

select vital_private.restrict_relation('public.plans', readers => '{authenticated, service_role}');
select vital_private.restrict_relation('public.subscriptions', readers => '{authenticated, service_role}');
grant insert, update, delete on public.plans, public.subscriptions to service_role;

create policy "Signed-in users see the plans" on public.plans
for select to authenticated
using (true);

create policy "The service role manages plans" on public.plans
for all to service_role
using (true)
with check (true);

create policy "Organization admins see their organization's subscriptions" on public.subscriptions
for select to authenticated
using (
  organization_id = any((select vital_private.administered_organizations())::text[])
  or (entity_type = 'organization' and entity_id = any((select vital_private.administered_organizations())::text[]))
);

create policy "Users see their own subscriptions" on public.subscriptions
for select to authenticated
using (entity_type = 'user' and entity_id = (select auth.jwt()) ->> 'sub');

create policy "The service role manages subscriptions" on public.subscriptions
for all to service_role
using (true)
with check (true);

-- The budgets that keep a user's quota are his to see, also where he is no member.
create policy "Users see the budgets that keep their quotas" on public.budget_limits
for select to authenticated
using (
  by_plan and entity_type = 'user' and organization_id in (
    select s.organization_id from public.subscriptions as s where s.entity_type = 'user' and s.entity_id = (select auth.jwt()) ->> 'sub'
  )
);

-- What a plan allows of a metric in a period at a moment; NULL: it does not limit it.
create function vital_private.plan_limit(plan text, metric text, period text, moment timestamptz) returns numeric
language plpgsql
stable
set search_path = ''
as $$
begin
  return (
    select
      case
        when metric = 'calls' and period = 'month' then p.calls
        when metric = 'tokens' and period = 'month' then p.tokens
        when metric = 'calls' and period = 'minute' then p.calls_per_minute
        when metric = 'tokens' and period = 'minute' then p.tokens_per_minute
      end
    from public.plans as p
    where p.name = plan_limit.plan and p.valid_from <= moment
    order by p.valid_from desc
    limit 1
  );
end;
$$;

-- Whether a budget keeps the quota of a subscription.
create function vital_private.keeps(budget public.budget_limits, subscription public.subscriptions) returns boolean
language sql
immutable
return (budget.by_plan, budget.entity_type, coalesce(budget.organization_id, ''), budget.action = 'block')
= (true, subscription.entity_type, coalesce(subscription.organization_id, ''), subscription.enforced);

-- The subscription of an entity, at a moment, of which a budget keeps the quota; NULL where there is none.
create function vital_private.subscription_at(budget public.budget_limits, entity text, moment timestamptz) returns public.subscriptions
language plpgsql
stable
set search_path = ''
as $$
declare
  found_one public.subscriptions;
begin
  select s.* into found_one
  from public.subscriptions as s
  where s.entity_id = entity and s.entity_type = budget.entity_type and vital_private.keeps(budget, s)
    and s.since <= moment and coalesce(s.until, 'infinity') > moment
  limit 1;
  return found_one;
end;
$$;

-- The limits of a budget for an entity at a moment, with the zone and the day by which its months begin. Of a plan those alone that it
-- has; those of a minute are the ones in force when the minute began, so that none is limited in its middle.
create function vital_private.limits_for(budget public.budget_limits, entity text, moment timestamptz)
returns table (period text, limit_amount numeric, timezone text, reset_day integer)
language plpgsql
stable
set search_path = ''
as $$
declare
  subscription public.subscriptions;
  wanted text;
  instant timestamptz;
begin
  if not budget.by_plan then
    return query select l.period, l.limit_amount, budget.timezone, 1 from vital_private.limits_of(budget) as l;
    return;
  end if;
  foreach wanted in array '{minute,month}'::text[] loop
    instant := case wanted when 'minute' then date_trunc('minute', moment, 'UTC') else moment end;
    subscription := vital_private.subscription_at(budget, entity, instant);
    limit_amount := vital_private.plan_limit(subscription.plan, budget.metric, wanted, instant);
    if limit_amount is not null then
      period := wanted;
      timezone := subscription.timezone;
      reset_day := subscription.reset_day;
      return next;
    end if;
  end loop;
end;
$$;

-- When what a plan allows an entity changes next, by the clock alone: its subscription ends or begins, or its plan has a new version.
create function vital_private.plan_changes_at(budget public.budget_limits, entity text, moment timestamptz) returns timestamptz
language plpgsql
stable
set search_path = ''
as $$
begin
  return (
    select min(c.instant)
    from public.subscriptions as s
    cross join lateral (
      select s.since union all select s.until
      union all select p.valid_from from public.plans as p where p.name = s.plan
    ) as c (instant)
    where s.entity_id = entity and s.entity_type = budget.entity_type and vital_private.keeps(budget, s)
      and coalesce(s.until, 'infinity') > moment and c.instant > moment
  );
end;
$$;

-- Check a subscription, and say from when on it counts.
create function vital_private.check_subscription() returns trigger
language plpgsql
security definer
set search_path = ''
as $$
begin
  if not exists (select from public.plans as p where p.name = new.plan) then
    raise exception 'There is no plan %.', coalesce(quote_literal(new.plan), 'without a name')
      using errcode = '23514', hint = format(
        'One of: %s.', (select string_agg(distinct p.name, ', ' order by p.name) from public.plans as p)
      ), table = 'subscriptions';
  elsif upper(new.timezone) in ('CET', 'EET', 'MET', 'WET')
    -- Reading the names of zones takes 20 ms, so it is not done for one that is in use already.
    or (
      new.timezone is distinct from 'UTC'
      and not exists (select from public.subscriptions as s where s.timezone = new.timezone)
      and not exists (select from pg_catalog.pg_timezone_names as z where z.name = new.timezone)
    )
  then
    raise exception 'timezone % is no IANA time zone with its rules for summer.', coalesce(quote_literal(new.timezone), 'NULL')
      using errcode = '23514', hint = 'For example UTC, Europe/Berlin, Asia/Kolkata.', table = 'subscriptions';
  elsif exists (
    select from public.subscriptions as s
    where s.entity_id = new.entity_id and s.entity_type = new.entity_type and s.id <> new.id
      and coalesce(s.organization_id, '') = coalesce(new.organization_id, '')
      and s.since < coalesce(new.until, 'infinity') and new.since < coalesce(s.until, 'infinity')
  ) then
    raise exception '% % is on a plan at that time already.', new.entity_type, quote_literal(new.entity_id)
      using errcode = '23514', hint = 'End that subscription first, or let set_subscription_v1 do it.', table = 'subscriptions';
  end if;
  if tg_op = 'INSERT' then
    new.created_at := clock_timestamp();
    new.counting_since := greatest(new.since, clock_timestamp());
  elsif (new.organization_id, new.entity_type, new.entity_id, new.timezone, new.reset_day, new.enforced)
    is distinct from (old.organization_id, old.entity_type, old.entity_id, old.timezone, old.reset_day, old.enforced)
  then
    new.counting_since := greatest(new.since, clock_timestamp());
  else
    new.counting_since := old.counting_since;
  end if;
  return new;
end;
$$;

create trigger subscriptions_lock
before insert or update or delete on public.subscriptions
for each statement execute function vital_private.before_budgets_change();

create trigger plans_lock
before insert or update or delete on public.plans
for each statement execute function vital_private.before_budgets_change();

create trigger subscriptions_check
before insert or update on public.subscriptions
for each row execute function vital_private.check_subscription();

select vital_private.restrict_functions(helpers => '{limits_for, subscription_at, plan_limit, keeps}');
