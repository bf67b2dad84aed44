-- A window is one period of one budget for one entity: the day of a user, the month of an organization. A new period is a new row,
-- so nothing ever has to be reset.
--
--   spent   = the sum of the recorded calls in the window
--   granted = the sum of its grants: what processes hold for calls in flight and for calls to come
--
-- Both are kept by the transactions that record calls and hand out grants, and audit_budgets_v1 checks them.

create table public.budget_windows (
  id bigint generated always as identity primary key,
  budget_id bigint not null references public.budget_limits (id) on delete cascade,
  entity_id text not null,
  period text not null,
  starts_at timestamptz not null,
  ends_at timestamptz,
  limit_amount numeric,
  limit_until timestamptz,
  spent numeric not null default 0,
  granted numeric not null default 0,
  beyond_hold numeric not null default 0,
  unasked numeric not null default 0,
  late numeric not null default 0,
  next_slot_at timestamptz,
  free_slots timestamptz[] not null default '{}',
  constraint budget_windows_key unique (budget_id, entity_id, period, starts_at),
  constraint budget_windows_period check (period in ('minute', 'day', 'month', 'total')),
  constraint budget_windows_amounts check (granted >= 0 and spent < 'Infinity' and granted < 'Infinity')
) with (fillfactor = 70);

comment on table public.budget_windows is 'One row a window: the period of a budget for one entity, with what is spent and granted in it.';
comment on column public.budget_windows.ends_at is 'The first instant after the window; NULL where it never ends.';
comment on column public.budget_windows.limit_amount is 'The limit in force until limit_until, in the budget''s metric; NULL: no plan limits it.';
comment on column public.budget_windows.limit_until is 'When the next exception that counts in it ends, and its limit with that; NULL: none does.';
comment on column public.budget_windows.spent is 'Sum of the recorded calls of the window.';
comment on column public.budget_windows.granted is 'What processes hold for calls under way and to come.';
comment on column public.budget_windows.beyond_hold is 'The part of spent that calls cost beyond all that their processes had been granted.';
comment on column public.budget_windows.unasked is 'The part of spent by calls for which nothing had been set aside here.';
comment on column public.budget_windows.late is 'The part of spent by calls that were recorded after the grants of their processes had lapsed.';
comment on column public.budget_windows.next_slot_at is 'When the next throttled call may pass.';
comment on column public.budget_windows.free_slots is 'Turns before that which were given and came back, as their callers waited no more.';

create index budget_windows_running on public.budget_windows (ends_at);

-- The instant from which windows of a minute are kept, and compared with their calls: rate_limits_v1 looks no further back than 31 days.
create function vital_private.minutes_kept_since() returns timestamptz
language sql
stable
set search_path = ''
as $$
  select now() - interval '32 days'
$$;

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

-- The limits of budgets, one row a period. Windows that had ended by `since` were never limited by it; a total counts from then on.
create table vital_private.budget_periods (
  budget_id bigint not null references public.budget_limits (id) on delete cascade,
  period text not null,
  limit_amount numeric not null,
  since timestamptz not null,
  primary key (budget_id, period)
);

select vital_private.restrict_relation('public.budget_windows', readers => '{authenticated, service_role}');
select vital_private.restrict_relation('public.budget_grants', readers => '{service_role}');
select vital_private.restrict_relation('vital_private.budget_periods');

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
