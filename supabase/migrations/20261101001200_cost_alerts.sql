-- Alerts: one for each budget, entity, window and threshold, whoever crosses it, and those of what looks like abuse. They hold copies of
-- what the budget said, so that they outlive it.

create table public.cost_alerts (
  id bigint generated always as identity primary key,
  created_at timestamptz not null default now(),
  budget_id bigint,
  organization_id text,
  entity_type text not null,
  entity_id text not null,
  metric text not null,
  action text not null,
  enforce boolean not null,
  period text not null,
  window_starts_at timestamptz not null,
  window_ends_at timestamptz,
  threshold numeric not null,
  limit_amount numeric not null,
  spent numeric not null,
  held numeric,
  superseded boolean not null default false,
  pattern text,
  severity text,
  delivered_at timestamptz,
  claimed_by text,
  claimed_until timestamptz,
  constraint cost_alerts_of_one check ((budget_id is null) = (pattern is not null)),
  constraint cost_alerts_once unique (budget_id, entity_id, period, window_starts_at, threshold)
);

comment on table public.cost_alerts is 'Thresholds of budgets that were crossed, once a window each, and what looked like abuse.';
comment on column public.cost_alerts.budget_id is 'The budget; NULL where the alert is about abuse.';
comment on column public.cost_alerts.pattern is 'Of abuse: its pattern. Then spent is what was counted, limit_amount what it had to come to.';
comment on column public.cost_alerts.severity is 'Of abuse: low, medium or high.';
comment on column public.cost_alerts.threshold is 'Share of the limit: 0.8 is four fifths. 0: a call did not fit under the limit any more.';
comment on column public.cost_alerts.spent is 'What was spent at that moment; where a call did not fit, rows to come of its process included.';
comment on column public.cost_alerts.held is 'Where a call did not fit: what was set aside for others, under way or to come. NULL for other alerts.';
comment on column public.cost_alerts.superseded is 'True where a higher threshold was crossed at the same moment, which says it all.';
comment on column public.cost_alerts.delivered_at is 'When a callback or an alert URL took it.';

create index cost_alerts_time on public.cost_alerts (created_at);
create index cost_alerts_undelivered on public.cost_alerts (id) where delivered_at is null and not superseded;

select vital_private.restrict_relation('public.cost_alerts', readers => '{authenticated, service_role}');

create policy "Users see alerts about themselves" on public.cost_alerts
for select to authenticated
using (entity_type = 'user' and entity_id = (select auth.jwt()) ->> 'sub' and pattern is null);

create policy "Organization admins see their organization's alerts" on public.cost_alerts
for select to authenticated
using (
  organization_id = any((select vital_private.administered_organizations())::text[])
  or (entity_type = 'organization' and entity_id = any((select vital_private.administered_organizations())::text[]))
);

-- An alert as JSON, with amounts as text.
create function vital_private.alert_json(alert public.cost_alerts) returns json
language sql
immutable
set search_path = ''
as $$
  select json_build_object(
    'id', alert.id, 'created_at', alert.created_at, 'budget_id', alert.budget_id, 'organization_id', alert.organization_id,
    'entity_type', alert.entity_type, 'entity_id', alert.entity_id, 'metric', alert.metric, 'action', alert.action,
    'enforce', alert.enforce, 'period', alert.period, 'window_starts_at', alert.window_starts_at,
    'window_ends_at', alert.window_ends_at, 'threshold', alert.threshold::text,
    'limit_amount', alert.limit_amount::text, 'spent', alert.spent::text, 'held', alert.held::text, 'superseded', alert.superseded,
    'delivered_at', alert.delivered_at, 'pattern', alert.pattern, 'severity', alert.severity
  )
$$;

-- The alerts that this transaction wrote and that are worth sending; NULL where there are none.
create function vital_private.alerts_of_this_transaction() returns json
language sql
stable
set search_path = ''
as $$
  select json_agg(vital_private.alert_json(a) order by a.id)
  from public.cost_alerts as a
  where a.created_at = now() and not a.superseded
$$;

-- The newest alerts that the caller may see: since an instant, until another, and older than the one of an id, to go through them page
-- by page.
create function public.cost_alerts_v1(
  since timestamptz default null, max_rows integer default 100, until timestamptz default null, before_id bigint default null
) returns json
language sql
stable
set search_path = ''
as $$
  select vital_private.check_times(since, until);
  select coalesce(json_agg(vital_private.alert_json(newest.alert) order by (newest.alert).id desc), '[]')
  from (
    select a as alert
    from public.cost_alerts as a
    where a.created_at >= coalesce(since, '-infinity') and a.created_at < coalesce(until, 'infinity')
      and a.id < coalesce(before_id, 9223372036854775807)
    order by a.id desc
    limit least(greatest(coalesce(max_rows, 100), 1), 1000)
  ) as newest
$$;

-- Claim alerts in order to deliver them, for a minute: those that nobody has delivered or is delivering. Alerts more than a day old
-- are not sent any more.
create function public.claim_alerts_v1(holder text, max_rows integer default 100) returns json
language sql
security definer
set search_path = ''
as $$
  select vital_private.check_given('holder', holder);
  with due as (
    select a.id
    from public.cost_alerts as a
    where a.delivered_at is null and not a.superseded
      and a.created_at > now() - interval '1 day'
      and coalesce(a.claimed_until, '-infinity') < now()
    order by a.id
    limit least(greatest(coalesce(max_rows, 100), 1), 1000)
    for update skip locked
  ),

  claimed as (
    update public.cost_alerts as a
    set claimed_by = holder, claimed_until = now() + interval '1 minute'
    from due
    where a.id = due.id
    returning a as alert
  )

  select coalesce(json_agg(vital_private.alert_json(claimed.alert) order by (claimed.alert).id), '[]') from claimed
$$;

-- Report whether alerts that `holder` had claimed were delivered. Those that were not may be claimed again at once, unless another
-- process has claimed them by now. `ids` is a JSON array.
create function public.settle_alerts_v1(ids text, delivered boolean, holder text default null) returns json
language plpgsql
security definer
set search_path = ''
as $$
declare
  settled bigint;
begin
  perform vital_private.check_given('ids', ids);
  perform vital_private.check_given('delivered', delivered::text);
  update public.cost_alerts as a
  set delivered_at = case when delivered then now() end, claimed_by = null, claimed_until = null
  where a.id in (select i.value::bigint from json_array_elements_text(ids::json) as i (value)) and a.delivered_at is null
    and (delivered or holder is null or a.claimed_by = holder);
  get diagnostics settled = row_count;
  return json_build_object('settled', settled);
end;
$$;

select vital_private.restrict_functions(api => '{cost_alerts_v1, claim_alerts_v1, settle_alerts_v1}', helpers => '{alert_json}');
