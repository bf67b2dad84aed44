-- What people ask about budgets: which windows run, what a call would meet, and whether all sums are right.

-- A window with its budget, as people and the command line read it. Row level security of the tables holds in it.
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
  w.limit_amount,
  w.spent,
  w.granted,
  w.limit_amount - w.spent - w.granted as remaining,
  round(100 * w.spent / nullif(w.limit_amount, 0), 1) as spent_percent
from public.budget_windows as w
inner join public.budget_limits as b on w.budget_id = b.id;

comment on view public.budget_status is 'Windows of budgets: spent, granted to processes and remaining, in the metric of the budget.';

revoke all on public.budget_status from public, anon, authenticated, service_role;
grant select on public.budget_status to authenticated, service_role;

-- The windows that a call would meet now, also those in which nothing was spent yet. Name what is known of the call.
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
as $$
  select
    b.id, b.entity_type, e.entity_id, b.metric, p.period, b.action, b.enforce, p.limit_amount,
    coalesce(w.spent, 0), coalesce(w.granted, 0), p.limit_amount - coalesce(w.spent, 0) - coalesce(w.granted, 0),
    t.starts_at, t.ends_at
  from (
    values
      ('organization', organization_id), ('user', user_id), ('session', session_id), ('service', service_type),
      ('tier', agent_tier), ('agent', agent_id), ('workflow', workflow_id), ('panel', panel_id), ('solution', solution_id),
      ('model', model)
  ) as e (entity_type, entity_id)
  join public.budget_limits as b
    on b.entity_type = e.entity_type
    and b.entity_id in ('*', e.entity_id)
    and (b.organization_id is null or b.organization_id = check_budget.organization_id)
  cross join lateral (
    values
      ('minute', b.minute_limit), ('day', b.daily_limit), ('month', b.monthly_limit), ('total', b.total_limit)
  ) as p (period, limit_amount)
  cross join lateral (
    select
      vital_private.window_start(p.period, now(), b.timezone, b.counting_since) as starts_at,
      vital_private.window_end(p.period, now(), b.timezone) as ends_at
  ) as t
  left join public.budget_windows as w
    on w.budget_id = b.id and w.entity_id = e.entity_id and w.period = p.period and w.starts_at = t.starts_at
  where e.entity_id is not null and p.limit_amount is not null
    -- A window that the caller may not see would show as unspent.
    and (
      current_user <> 'authenticated'
      or (b.entity_type = 'user' and e.entity_id = (select auth.jwt()) ->> 'sub')
      or b.organization_id = any((select vital_private.administered_organizations())::text[])
      or (b.entity_type = 'organization' and e.entity_id = any((select vital_private.administered_organizations())::text[]))
    )
  order by p.limit_amount - coalesce(w.spent, 0) - coalesce(w.granted, 0)
$$;

-- The same as JSON for the command line: {"organization": ..., "user": ..., "service": ..., "tier": ...}; amounts as text.
create function public.check_budget_v1(entities text) returns json
language sql
stable
security definer
set search_path = ''
as $$
  select coalesce(json_agg(json_build_object(
    'id', null, 'budget_id', c.budget_id, 'organization_id', b.organization_id, 'entity_type', c.entity_type,
    'entity_id', c.entity_id, 'metric', c.metric, 'action', c.action, 'enforce', c.enforce, 'period', c.period,
    'starts_at', c.starts_at, 'ends_at', c.ends_at, 'timezone', b.timezone, 'limit_amount', c.limit_amount::text,
    'spent', c.spent::text, 'granted', c.granted::text, 'left', c.remaining::text
  )), '[]')
  from public.check_budget(
    organization_id => coalesce(entities::json ->> 'organization', entities::json ->> 'organization_id'),
    user_id => entities::json ->> 'user',
    session_id => entities::json ->> 'session',
    service_type => entities::json ->> 'service',
    agent_tier => entities::json ->> 'tier',
    agent_id => entities::json ->> 'agent',
    workflow_id => entities::json ->> 'workflow',
    panel_id => entities::json ->> 'panel',
    solution_id => entities::json ->> 'solution',
    model => entities::json ->> 'model'
  ) as c
  join public.budget_limits as b on b.id = c.budget_id
$$;

-- Windows as JSON, the fullest first; amounts as text.
create function public.budget_windows_v1(
  entity text default null, running_only boolean default true, max_rows integer default 200
) returns json
language sql
stable
security definer
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
      and (not running_only or b.ends_at is null or b.ends_at > now())
    order by place
    limit least(greatest(max_rows, 1), 10000)
  ) as s
$$;

-- Prove the sums: for every window, spent must be the sum of its calls and granted the sum of its grants. Lists the windows
-- that differ, and those of enforcing, blocking budgets that are over their limit, by how much. All in one statement, which
-- sees one state of the database: so nobody has to wait.
create function public.audit_budgets_v1() returns json
language sql
stable
security definer
set search_path = ''
as $$
  with sums as (
    select b.id as budget_id, s.entity_id, s.period, s.starts_at, s.amount
    from public.budget_limits as b
    cross join lateral vital_private.sums_of(b, '{minute,day,month,total}') as s
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
    join public.budget_limits as b on b.id = c.budget_id
    cross join lateral (values ('spent', c.spent, c.summed), ('granted', c.granted, c.held)) as k (kind, found, expected)
    where k.found <> k.expected
      -- Of windows from before that, some calls are gone: what they spent is known by the windows alone.
      and (k.kind = 'granted' or c.starts_at >= vital_private.rows_kept_since())
  ),

  overshoot as (
    select json_agg(json_build_object(
      'window_id', s.id, 'entity_type', s.entity_type, 'entity_id', s.entity_id, 'period', s.period, 'starts_at', s.starts_at,
      'metric', s.metric, 'limit_amount', s.limit_amount::text, 'spent', s.spent::text, 'granted', s.granted::text,
      'overshoot', (-s.remaining)::text
    ) order by -s.remaining desc) as list
    from public.budget_status as s
    where s.enforce and s.action = 'block' and s.remaining < 0
  )

  select json_build_object(
    'windows', (select count(*) from public.budget_windows),
    'differences', coalesce((select list from differences), '[]'), 'overshoot', coalesce((select list from overshoot), '[]')
  )
$$;

-- Set windows right that differ from their calls or grants, or are missing, as after somebody has changed rows by hand: {"mended": n}.
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
  cross join lateral vital_private.sums_of(b, '{minute,day,month,total}') as s
  where s.amount <> 0 and s.starts_at >= vital_private.rows_kept_since()
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

revoke execute on function public.recount_budgets_v1() from public, anon, authenticated;
grant execute on function public.recount_budgets_v1() to service_role;
revoke execute on function public.check_budget(text, text, text, text, text, text, text, text, text, text) from public, anon;
revoke execute on function public.check_budget_v1(text) from public, anon, authenticated;
revoke execute on function public.budget_windows_v1(text, boolean, integer) from public, anon, authenticated;
revoke execute on function public.audit_budgets_v1() from public, anon, authenticated;
grant execute on function vital_private.window_start(text, timestamptz, text, timestamptz) to authenticated, service_role;
grant execute on function vital_private.window_end(text, timestamptz, text) to authenticated, service_role;
grant execute on function vital_private.local_midnight(timestamp, text) to authenticated, service_role;
grant execute on function vital_private.local_day(timestamptz, text) to authenticated, service_role;
grant execute on function public.check_budget(text, text, text, text, text, text, text, text, text, text)
to authenticated, service_role;
grant execute on function public.check_budget_v1(text) to service_role;
grant execute on function public.budget_windows_v1(text, boolean, integer) to service_role;
grant execute on function public.audit_budgets_v1() to service_role;

-- How long the answers of each model to each agent have been lately: a start for estimating the next ones.
create function public.usage_history_v1() returns json
language sql
stable
security definer
set search_path = ''
as $$
  select coalesce(json_agg(h), '[]')
  from (
    select
      coalesce(c.requested_model, c.model) as model, c.agent_id,
      percentile_disc(0.99) within group (order by c.completion_tokens) as completion_tokens
    from (
      select model, requested_model, agent_id, completion_tokens
      from public.token_usage_logs
      where created_at > now() - interval '30 days' and status = 'ok' and not usage_estimated and call_type = 'chat'
        and calls = 1 -- the tokens of several calls say nothing of one answer
      order by id desc
      limit 5000
    ) as c
    where coalesce(c.requested_model, c.model) is not null
    group by 1, 2
    having count(*) >= 8
  ) as h
$$;

revoke execute on function public.usage_history_v1() from public, anon, authenticated;
grant execute on function public.usage_history_v1() to service_role;
