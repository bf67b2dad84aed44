-- What people ask about budgets: which windows are running, which ones a call would meet, and whether all sums are right.

-- The limit in force now, also for those who may not read the exceptions, of windows that they may see.
create function vital_private.limit_for(budget_id bigint, entity text, period text) returns numeric
language sql
stable
security definer
set search_path = ''
as $$
  select vital_private.limit_in_force(b, entity, limit_for.period, now())
  from public.budget_limits as b
  where b.id = limit_for.budget_id
    and (
      current_setting('role', true) is distinct from 'authenticated'
      or (b.entity_type = 'user' and entity = (select auth.jwt()) ->> 'sub')
      or (b.entity_type = 'session' and entity = any((select vital_private.own_sessions())::text[]))
      or b.organization_id = any((select vital_private.administered_organizations())::text[])
      or (b.entity_type = 'organization' and entity = any((select vital_private.administered_organizations())::text[]))
    )
$$;

-- A window with its budget, as people and the command line read it. The policies of both tables hold in it.
create view public.budget_status with (security_invoker = true) as
select
  w.id,
  w.budget_id,
  b.organization_id,
  b.entity_type,
  w.entity_id,
  b.metric,
  b.action,
  b.enforce,
  w.period,
  w.starts_at,
  w.ends_at,
  b.timezone,
  f.limit_amount,
  w.spent,
  w.granted,
  f.limit_amount - w.spent - w.granted as remaining,
  round(100 * w.spent / nullif(f.limit_amount, 0), 1) as spent_percent
from public.budget_windows as w
inner join public.budget_limits as b on w.budget_id = b.id
-- An exception may have ended since the window was last spent from.
cross join lateral (
  select
    case
      when w.limit_until <= now() and coalesce(w.ends_at, 'infinity') > now() and b.by_plan
        then vital_private.limit_for(b.id, w.entity_id, w.period)
      when w.limit_until <= now() and coalesce(w.ends_at, 'infinity') > now()
        then coalesce(vital_private.limit_for(b.id, w.entity_id, w.period), w.limit_amount)
      else w.limit_amount
    end as limit_amount
) as f;

comment on view public.budget_status is 'Windows of budgets: spent, granted to processes and remaining, in the metric of the budget.';

-- The windows that a call would meet now, also those in which nothing was spent yet. `entities` is a JSON object of what is known of the
-- call: {"organization": "acme", "user": "u-1", "service": "workflow", "tier": "tier_1", ...}.
create function vital_private.windows_met(entities json)
returns table (
  budget_id bigint, entity_type text, entity_id text, metric text, period text, action text, enforce boolean,
  limit_amount numeric, spent numeric, granted numeric, remaining numeric, starts_at timestamptz, ends_at timestamptz
)
language sql
stable
set search_path = ''
as $$
  select
    b.id, b.entity_type, e.value, b.metric, p.period, b.action, b.enforce, f.limit_amount,
    coalesce(w.spent, 0), coalesce(w.granted, 0), f.limit_amount - coalesce(w.spent, 0) - coalesce(w.granted, 0),
    t.starts_at, t.ends_at
  from json_each_text(entities) as e
  join public.budget_limits as b
    on b.entity_type = e.key
    and b.entity_id in ('*', e.value)
    and (b.organization_id is null or b.organization_id = entities ->> 'organization')
    and coalesce(b.until, 'infinity') > now()
  cross join lateral vital_private.limits_for(b, e.value, now()) as p
  cross join lateral vital_private.limit_for(b.id, e.value, p.period) as f (limit_amount)
  cross join lateral (
    select
      vital_private.window_start(p.period, now(), p.timezone, b.counting_since, p.reset_day) as starts_at,
      vital_private.window_end(p.period, now(), p.timezone, p.reset_day) as ends_at
  ) as t
  left join public.budget_windows as w
    on w.budget_id = b.id and w.entity_id = e.value and w.period = p.period and w.starts_at = t.starts_at
  where e.value is not null
    -- A window that the caller may not see would look as if nothing were spent.
    and (
      current_user <> 'authenticated'
      or (b.entity_type = 'user' and e.value = (select vital_private.subject()))
      or b.organization_id = any((select vital_private.administered_organizations())::text[])
      or (b.entity_type = 'organization' and e.value = any((select vital_private.administered_organizations())::text[]))
    )
  order by f.limit_amount - coalesce(w.spent, 0) - coalesce(w.granted, 0), b.id
$$;

-- The same for SQL: name what is known of the call.
create function public.check_budget(
  organization_id text default null,
  user_id text default null,
  session_id text default null,
  service_type text default null,
  agent_tier text default null,
  agent_id text default null,
  workflow_id text default null,
  panel_id text default null,
  solution_id text default null,
  model text default null
)
returns table (
  budget_id bigint, entity_type text, entity_id text, metric text, period text, action text, enforce boolean,
  limit_amount numeric, spent numeric, granted numeric, remaining numeric, starts_at timestamptz, ends_at timestamptz
)
language sql
stable
set search_path = ''
set statement_timeout = '8s'
as $$
  select *
  from vital_private.windows_met(json_build_object(
    'organization', organization_id, 'user', user_id, 'session', session_id, 'service', service_type, 'tier', agent_tier,
    'agent', agent_id, 'workflow', workflow_id, 'panel', panel_id, 'solution', solution_id, 'model', model
  ))
$$;

-- The same as JSON for the command line; amounts are text. Of "organization" and "organization_id", which mean the same, the first counts.
create function public.check_budget_v1(entities text) returns json
language sql
stable
security definer
set search_path = ''
as $$
  select vital_private.check_given('entities', entities);
  select coalesce(json_agg(json_build_object(
    'id', null, 'budget_id', c.budget_id, 'organization_id', b.organization_id, 'entity_type', c.entity_type,
    'entity_id', c.entity_id, 'metric', c.metric, 'action', c.action, 'enforce', c.enforce, 'period', c.period,
    'starts_at', c.starts_at, 'ends_at', c.ends_at, 'timezone', b.timezone, 'limit_amount', c.limit_amount::text,
    'spent', c.spent::text, 'granted', c.granted::text, 'left', c.remaining::text
  )), '[]')
  from vital_private.windows_met((
    entities::jsonb || jsonb_build_object(
      'organization', coalesce(entities::jsonb ->> 'organization', entities::jsonb ->> 'organization_id')
    )
  )::json) as c
  join public.budget_limits as b on b.id = c.budget_id
$$;

-- The windows that the caller may see as JSON, the fullest first, of an entity, of an organization's own budgets, or all; without
-- `quotas` those of lasting budgets alone: neither plans nor what ends by itself. Amounts are text.
create function public.budget_windows_v1(
  entity text default null,
  running_only boolean default true,
  max_rows integer default 200,
  organization text default null,
  quotas boolean default true
) returns json
language sql
stable
set search_path = ''
as $$
  select coalesce(json_agg(json_build_object(
    'id', s.id, 'budget_id', s.budget_id, 'organization_id', s.organization_id, 'entity_type', s.entity_type,
    'entity_id', s.entity_id, 'metric', s.metric, 'action', s.action, 'enforce', s.enforce, 'period', s.period,
    'starts_at', s.starts_at, 'ends_at', s.ends_at, 'timezone', s.timezone, 'limit_amount', s.limit_amount::text,
    'spent', s.spent::text, 'granted', s.granted::text
  ) order by s.place), '[]')
  from (
    select
      b.*,
      row_number() over (
        order by (b.spent + b.granted) / nullif(b.limit_amount, 0) desc nulls first, b.starts_at desc, b.id
      ) as place
    from public.budget_status as b
    where (entity is null or b.entity_id = entity)
      and b.limit_amount is not null -- what only counts is no budget
      and (quotas is not false or b.budget_id not in (
        select l.id from public.budget_limits as l where l.by_plan or l.until is not null
      ))
      and (running_only is false or b.ends_at is null or b.ends_at > now())
      and (
        organization is null or b.organization_id = organization
        or (b.entity_type = 'organization' and b.entity_id = organization)
      )
    order by place
    limit least(greatest(coalesce(max_rows, 200), 1), 10000)
  ) as s
$$;

-- How far the lasting budgets that the caller may see were used between two instants, by period: windows that touch that time, how many of
-- them reached their limit, and how full the fullest was. A budget that nothing was counted for has 0 windows. Amounts are text.
create function public.budget_use_v1(since timestamptz, until timestamptz, organization text default null) returns json
language plpgsql
stable
set search_path = ''
as $$
begin
  perform vital_private.check_given('since', since::text);
  perform vital_private.check_given('until', until::text);
  perform vital_private.check_times(since, until);
  return (
    select coalesce(json_agg(json_build_object(
      'budget_id', b.id, 'organization_id', b.organization_id, 'entity_type', b.entity_type, 'entity_id', b.entity_id, 'metric', b.metric,
      'action', b.action, 'enforce', b.enforce, 'created_at', b.created_at, 'period', p.period, 'limit_amount', p.limit_amount::text,
      'windows', u.windows, 'met', u.met, 'most_spent', u.most_spent::text, 'fullest_percent', u.fullest_percent::text
    ) order by b.id, p.position), '[]')
    from public.budget_limits as b
    cross join lateral (
      values (1, 'minute', b.minute_limit), (2, 'day', b.daily_limit), (3, 'month', b.monthly_limit), (4, 'total', b.total_limit)
    ) as p (position, period, limit_amount)
    cross join lateral (
      select
        count(*) as windows, count(*) filter (where w.spent >= w.limit_amount) as met, coalesce(max(w.spent), 0) as most_spent,
        max(round(100 * w.spent / nullif(w.limit_amount, 0), 2)) as fullest_percent
      from public.budget_windows as w
      where w.budget_id = b.id and w.period = p.period
        and w.starts_at < budget_use_v1.until and coalesce(w.ends_at, 'infinity') > budget_use_v1.since
    ) as u
    where not b.by_plan and b.until is null and p.limit_amount is not null
      and (
        budget_use_v1.organization is null or b.organization_id = budget_use_v1.organization
        or (b.entity_type = 'organization' and b.entity_id = budget_use_v1.organization)
      )
  );
end;
$$;

-- The last calls that budgets stopped and that the caller may see, the newest first, of the last `days`: of a user, a session or whatever
-- a budget is for, or the one with that id. Each with what stopped it, as it was at that moment (`blocked_by`), with that budget and
-- its window as they are now.
create function public.blocked_calls_v1(whom text default null, days integer default 30, max_rows integer default 10) returns json
language sql
stable
set search_path = ''
as $$
  select vital_private.first_of_days(coalesce(days, 30));
  select json_build_object('now', now(), 'calls', coalesce(json_agg(json_build_object(
    'id', s.id, 'created_at', s.created_at, 'organization_id', s.organization_id, 'user_id', s.user_id, 'session_id', s.session_id,
    'provider', s.provider, 'model', s.model, 'budget_action', s.budget_action, 'blocked_by', s.blocked_by,
    'budget', case when b.id is not null then vital_private.budget_json(b) end,
    'limit_amount', w.limit_amount::text, 'spent', w.spent::text, 'granted', w.granted::text, 'ends_at', w.ends_at
  ) order by s.created_at desc, s.id desc), '[]'))
  from (
    select c.*
    from public.token_usage_logs as c
    where c.status = 'blocked'
      and c.created_at > now() - coalesce(days, 30) * interval '1 day'
      and (whom is null or whom in (c.user_id, c.session_id, c.id::text, c.blocked_by ->> 'entity_id'))
    order by c.created_at desc, c.id desc
    limit least(greatest(coalesce(max_rows, 10), 1), 1000)
  ) as s
  left join public.budget_limits as b on b.id = (s.blocked_by ->> 'budget')::bigint
  left join public.budget_status as w
    on w.budget_id = b.id and w.entity_id = s.blocked_by ->> 'entity_id' and w.period = s.blocked_by ->> 'period'
    and w.starts_at <= now() and coalesce(w.ends_at, 'infinity') > now()
$$;

-- Check the sums: for every window, `spent` must be the sum of its calls and `granted` the sum of its grants. Lists the windows that differ,
-- and by how much windows of enforcing, blocking budgets are over their limit, with what went past the grants, by cause; `before` is the
-- rest, which was spent or granted before the limit was what it is. It is a single statement, which sees a single state of
-- the database, so that nothing has to be locked.
create function public.audit_budgets_v1() returns json
language sql
stable
security definer
set search_path = ''
as $$
  with sums as (
    select b.id as budget_id, s.entity_id, s.period, s.starts_at, s.amount
    from public.budget_limits as b
    cross join lateral vital_private.sums_of(b) as s
    where coalesce(b.until, 'infinity') > now()
  ),

  held as (
    select g.window_id, sum(g.amount) as amount
    from public.budget_grants as g
    group by g.window_id
  ),

  windows as (
    select w.*, coalesce(held.amount, 0) as held
    from public.budget_windows as w
    left join held on held.window_id = w.id
  ),

  compared as (
    select
      w.id, coalesce(w.budget_id, s.budget_id) as budget_id, coalesce(w.entity_id, s.entity_id) as entity_id,
      coalesce(w.period, s.period) as period, coalesce(w.starts_at, s.starts_at) as starts_at,
      coalesce(w.spent, 0) as spent, coalesce(s.amount, 0) as summed, coalesce(w.granted, 0) as granted,
      coalesce(w.held, 0) as held
    from windows as w
    full join sums as s
      on s.budget_id = w.budget_id and s.entity_id = w.entity_id and s.period = w.period and s.starts_at = w.starts_at
  ),

  differences as (
    select json_agg(json_build_object(
      'window_id', c.id, 'entity_type', b.entity_type, 'entity_id', c.entity_id, 'period', c.period, 'starts_at', c.starts_at,
      'kind', k.kind, 'found', k.found::text, 'expected', k.expected::text
    ) order by c.budget_id, c.entity_id, c.period, c.starts_at) as list
    from compared as c
    join public.budget_limits as b on b.id = c.budget_id and coalesce(b.until, 'infinity') > now() -- those that are over count no more
    cross join lateral (values ('spent', c.spent, c.summed), ('granted', c.granted, c.held)) as k (kind, found, expected)
    where k.found <> k.expected
      -- Of earlier windows some calls were deleted: only the window still knows what was spent in it.
      and (k.kind = 'granted' or c.starts_at >= vital_private.rows_kept_since())
      and (k.kind = 'granted' or c.period <> 'minute' or c.starts_at >= vital_private.minutes_kept_since())
  ),

  overshoot as (
    select json_agg(json_build_object(
      'window_id', s.id, 'entity_type', s.entity_type, 'entity_id', s.entity_id, 'period', s.period, 'starts_at', s.starts_at,
      'metric', s.metric, 'limit_amount', s.limit_amount::text, 'spent', s.spent::text, 'granted', s.granted::text,
      'overshoot', (-s.remaining)::text, 'beyond_hold', w.beyond_hold::text, 'unasked', w.unasked::text, 'late', w.late::text,
      'before', greatest(-s.remaining - w.beyond_hold - w.unasked - w.late, 0)::text
    ) order by -s.remaining desc) as list
    from public.budget_status as s
    join public.budget_windows as w on w.id = s.id
    where s.enforce and s.action = 'block' and s.remaining < 0
  )

  select json_build_object(
    'windows', (select count(*) from public.budget_windows),
    'differences', coalesce((select list from differences), '[]'), 'overshoot', coalesce((select list from overshoot), '[]')
  )
$$;

-- Correct windows that differ from their calls or grants, or are missing, as after rows were changed by hand: {"mended": n}.
create function public.recount_budgets_v1() returns json
language plpgsql
security definer
set search_path = ''
as $$
declare
  wrong json;
  missing bigint;
begin
  perform vital_private.lock_budgets(alone => true);
  insert into public.budget_windows (budget_id, entity_id, period, starts_at, ends_at, limit_amount, spent)
  select b.id, s.entity_id, s.period, s.starts_at, s.ends_at, s.limit_amount, s.amount
  from public.budget_limits as b
  cross join lateral vital_private.sums_of(b) as s
  where s.amount <> 0 and s.starts_at >= vital_private.rows_kept_since() and coalesce(b.until, 'infinity') > now()
    and (s.period <> 'minute' or s.starts_at >= vital_private.minutes_kept_since())
  on conflict do nothing;
  get diagnostics missing = row_count;
  wrong := public.audit_budgets_v1() -> 'differences';
  update public.budget_windows as w
  set
    spent = coalesce(mended.spent, w.spent), granted = coalesce(mended.granted, w.granted)
  from (
    select
      (d.value ->> 'window_id')::bigint as id,
      max((d.value ->> 'expected')::numeric) filter (where d.value ->> 'kind' = 'spent') as spent,
      max((d.value ->> 'expected')::numeric) filter (where d.value ->> 'kind' = 'granted') as granted
    from json_array_elements(wrong) as d (value)
    group by 1
  ) as mended
  where w.id = mended.id;
  return json_build_object('mended', missing + json_array_length(wrong));
end;
$$;

-- How long the answers of each model to each agent have been lately, from which the next ones are estimated.
create function public.usage_history_v1() returns json
language sql
stable
security definer
set search_path = ''
as $$
  select coalesce(json_agg(h), '[]')
  from (
    select
      c.model, c.agent_id,
      percentile_disc(0.99) within group (order by c.completion_tokens) as completion_tokens
    from (
      select
        vital_private.budget_model(model, requested_model, sent_model, budget_action) as model, agent_id, completion_tokens
      from public.token_usage_logs
      where created_at > now() - interval '30 days' and status = 'ok' and not usage_estimated and call_type = 'chat'
        and calls = 1 -- merged calls do not say how long one answer was
      order by id desc
      limit 5000
    ) as c
    where c.model is not null
    group by 1, 2
    having count(*) >= 8
  ) as h
$$;

select vital_private.restrict_relation('public.budget_status', readers => '{authenticated, service_role}');
select vital_private.restrict_functions(
  api => '{
    check_budget, check_budget_v1, budget_windows_v1, budget_use_v1, blocked_calls_v1, audit_budgets_v1, recount_budgets_v1, usage_history_v1
  }',
  helpers => '{windows_met, limit_for}'
);
