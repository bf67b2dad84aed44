-- What people ask about quotas: how far each subscriber has used his, and all of a plan together; and about limits of a minute: how far
-- they were used, and where calls were stopped.

-- How much of a limit is used, in percent; NULL where nothing limits it.
create function vital_private.percent_of(used numeric, limit_amount numeric) returns numeric
language sql
immutable
return case when limit_amount = 0 then 100 else round(100 * used / limit_amount, 2) end;

-- The subscriptions that stand, each with what is used of its quota in the month that runs. The policies of all tables hold in it.
create view public.quota_status with (security_invoker = true) as
with calendars as materialized (
  select
    c.timezone,
    c.reset_day,
    vital_private.window_start('month', statement_timestamp(), c.timezone, null, c.reset_day) as starts_at,
    vital_private.window_end('month', statement_timestamp(), c.timezone, c.reset_day) as ends_at
  from (
    select distinct
      s.timezone,
      s.reset_day
    from public.subscriptions as s
    where s.since <= statement_timestamp() and coalesce(s.until, 'infinity') > statement_timestamp()
  ) as c
),

versions as materialized (
  select distinct on (p.name)
    p.name,
    p.calls,
    p.tokens
  from public.plans as p
  where p.valid_from <= statement_timestamp()
  order by p.name asc, p.valid_from desc
),

standing as (
  select
    s.*,
    c.starts_at,
    c.ends_at,
    p.calls as plan_calls,
    p.tokens as plan_tokens
  from public.subscriptions as s
  inner join calendars as c on s.timezone = c.timezone and s.reset_day = c.reset_day
  left join versions as p on s.plan = p.name
  where s.since <= statement_timestamp() and coalesce(s.until, 'infinity') > statement_timestamp()
),

used as (
  select
    s.*,
    coalesce(u.calls_used, 0) as calls_used,
    case when u.calls_known then u.calls_limit else s.plan_calls end as calls_limit,
    coalesce(u.tokens_used, 0) as tokens_used,
    case when u.tokens_known then u.tokens_limit else s.plan_tokens end as tokens_limit
  from standing as s
  cross join lateral (
    select
      sum(w.spent) filter (where b.metric = 'calls') as calls_used,
      max(w.limit_amount) filter (where b.metric = 'calls') as calls_limit,
      -- A limit that has ended by the clock is looked up when the window is next spent from.
      bool_or(b.metric = 'calls' and coalesce(w.limit_until, 'infinity') > statement_timestamp()) as calls_known,
      sum(w.spent) filter (where b.metric = 'tokens') as tokens_used,
      max(w.limit_amount) filter (where b.metric = 'tokens') as tokens_limit,
      bool_or(b.metric = 'tokens' and coalesce(w.limit_until, 'infinity') > statement_timestamp()) as tokens_known
    from public.budget_windows as w
    inner join public.budget_limits as b on w.budget_id = b.id
    where
      w.entity_id = s.entity_id and w.period = 'month' and w.starts_at = s.starts_at
      and b.by_plan and b.entity_type = s.entity_type and coalesce(b.organization_id, '') = coalesce(s.organization_id, '')
      and b.action = case when s.enforced then 'block' else 'alert' end
  ) as u
)

select
  u.id,
  u.organization_id,
  u.entity_type,
  u.entity_id,
  u.plan,
  u.since,
  u.until,
  u.reset_day,
  u.timezone,
  u.enforced,
  u.source,
  u.starts_at,
  u.ends_at,
  u.calls_used,
  u.calls_limit,
  u.tokens_used,
  u.tokens_limit,
  vital_private.percent_of(u.calls_used, u.calls_limit) as calls_percent,
  vital_private.percent_of(u.tokens_used, u.tokens_limit) as tokens_percent,
  greatest(
    vital_private.percent_of(u.calls_used, u.calls_limit), vital_private.percent_of(u.tokens_used, u.tokens_limit)
  ) as used_percent
from used as u;

comment on view public.quota_status is 'Who is on which plan, and how much of its calls and tokens is used in the month that runs.';
comment on column public.quota_status.calls_limit is 'Calls in that month; NULL: unlimited.';
comment on column public.quota_status.used_percent is 'Of calls or of tokens, of which more is used; NULL: both are unlimited.';

select vital_private.restrict_relation('public.quota_status', readers => '{authenticated, service_role}');

-- The versions of all plans, or of those of a name, the latest first; `in_force` is the one that counts now. Amounts are text.
create function public.plans_v1(plan text default null) returns json
language sql
stable
set search_path = ''
as $$
  select coalesce(json_agg(json_build_object(
    'id', p.id, 'name', p.name, 'valid_from', p.valid_from, 'calls', p.calls, 'tokens', p.tokens,
    'calls_per_minute', p.calls_per_minute, 'tokens_per_minute', p.tokens_per_minute, 'price_usd', p.price_usd::text,
    'in_force', p.in_force
  ) order by p.calls is null, p.calls, p.name, p.valid_from desc), '[]')
  from (
    select
      v.*,
      v.valid_from <= clock_timestamp() and not exists (
        select from public.plans as later where later.name = v.name and later.valid_from > v.valid_from and later.valid_from <= clock_timestamp()
      ) as in_force
    from public.plans as v
    where plans_v1.plan is null or v.name = plans_v1.plan
  ) as p
$$;

-- How much of its quotas each plan's subscribers use, as far as the caller may see them, of an organization or all: the sums of what they
-- used, and of their limits, NULL: unlimited. `over` counts the subscribers who used more than their calls or tokens. Plans without any
-- are there as well. Amounts are text.
create function public.quotas_v1(organization text default null) returns json
language sql
stable
set search_path = ''
as $$
  select coalesce(json_agg(json_build_object(
    'plan', q.name, 'price_usd', q.price_usd::text, 'subscribers', q.subscribers, 'enforced', q.enforced,
    'calls_used', q.calls_used::text, 'calls_limit', q.calls_limit::text, 'tokens_used', q.tokens_used::text,
    'tokens_limit', q.tokens_limit::text, 'over', q.over, 'near', q.near
  ) order by q.plan_calls is null, q.plan_calls, q.name), '[]')
  from (
    select
      p.name, p.calls as plan_calls, p.price_usd, count(s.id) as subscribers, count(s.id) filter (where s.enforced) as enforced,
      coalesce(sum(s.calls_used), 0) as calls_used,
      case when not coalesce(bool_or(s.calls_limit is null) filter (where s.id is not null), p.calls is null) then coalesce(sum(s.calls_limit), 0)
      end as calls_limit,
      coalesce(sum(s.tokens_used), 0) as tokens_used,
      case
        when not coalesce(bool_or(s.tokens_limit is null) filter (where s.id is not null), p.tokens is null)
          then coalesce(sum(s.tokens_limit), 0)
      end as tokens_limit,
      count(s.id) filter (where s.calls_used > s.calls_limit or s.tokens_used > s.tokens_limit) as over,
      count(s.id) filter (where s.used_percent >= 80) as near
    from (
      select distinct on (v.name) v.* from public.plans as v where v.valid_from <= statement_timestamp() order by v.name, v.valid_from desc
    ) as p
    left join public.quota_status as s
      on s.plan = p.name
      and (
        quotas_v1.organization is null or s.organization_id = quotas_v1.organization
        or (s.entity_type = 'organization' and s.entity_id = quotas_v1.organization)
      )
    group by p.name, p.calls, p.tokens, p.price_usd
  ) as q
$$;

-- The subscribers whose subscriptions the caller may see, whose quota is used most first: of an organization, a plan, a kind, or of these
-- ids, a JSON array. Amounts are text.
create function public.quota_status_v1(
  organization text default null, plan text default null, entity_type text default null, ids text default null,
  max_rows integer default 100
) returns json
language sql
stable
set search_path = ''
as $$
  select coalesce(json_agg(json_build_object(
    'id', q.id, 'organization_id', q.organization_id, 'entity_type', q.entity_type, 'entity_id', q.entity_id, 'plan', q.plan,
    'since', q.since, 'until', q.until, 'reset_day', q.reset_day, 'timezone', q.timezone, 'enforced', q.enforced, 'source', q.source,
    'starts_at', q.starts_at, 'ends_at', q.ends_at, 'calls_used', q.calls_used::text, 'calls_limit', q.calls_limit::text,
    'tokens_used', q.tokens_used::text, 'tokens_limit', q.tokens_limit::text, 'calls_percent', q.calls_percent::text,
    'tokens_percent', q.tokens_percent::text, 'used_percent', q.used_percent::text
  ) order by q.place), '[]')
  from (
    select s.*, row_number() over (order by s.used_percent desc nulls last, s.calls_used desc, s.entity_type, s.entity_id, s.id) as place
    from public.quota_status as s
    where (
      quota_status_v1.organization is null or s.organization_id = quota_status_v1.organization
      or (s.entity_type = 'organization' and s.entity_id = quota_status_v1.organization)
    )
    and (quota_status_v1.plan is null or s.plan = quota_status_v1.plan)
    and (quota_status_v1.entity_type is null or s.entity_type = quota_status_v1.entity_type)
    and (
      quota_status_v1.ids is null
      or s.entity_id = any(array(select e.id from json_array_elements_text(quota_status_v1.ids::json) as e (id)))
    )
    order by place
    limit least(greatest(coalesce(max_rows, 100), 1), 10000)
  ) as q
$$;

-- A subscription as JSON.
create function vital_private.subscription_json(subscription public.subscriptions) returns json
language sql
stable
set search_path = ''
as $$
  select json_build_object(
    'id', subscription.id, 'organization_id', subscription.organization_id, 'entity_type', subscription.entity_type,
    'entity_id', subscription.entity_id, 'plan', subscription.plan, 'since', subscription.since, 'until', subscription.until,
    'reset_day', subscription.reset_day, 'timezone', subscription.timezone, 'enforced', subscription.enforced,
    'source', subscription.source
  )
$$;

-- The subscriptions of one subscriber that the caller may see, with those that have ended and those to come, the latest first.
create function public.subscriptions_v1(entity_type text, entity_id text, max_rows integer default 100) returns json
language sql
stable
set search_path = ''
as $$
  select vital_private.check_given('entity_type', entity_type);
  select vital_private.check_given('entity_id', entity_id);
  select coalesce(json_agg(vital_private.subscription_json(q.subscription) order by (q.subscription).since desc), '[]')
  from (
    select s as subscription
    from public.subscriptions as s
    where s.entity_type = subscriptions_v1.entity_type and s.entity_id = subscriptions_v1.entity_id
    order by s.since desc
    limit least(greatest(coalesce(max_rows, 100), 1), 1000)
  ) as q
$$;

select vital_private.restrict_functions(
  api => '{plans_v1, quotas_v1, quota_status_v1, subscriptions_v1}', helpers => '{percent_of, subscription_json}'
);
