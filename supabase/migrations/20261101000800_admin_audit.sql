-- Who changed what admins decide: budgets, prices, members, retention; and what was deleted for good, by whom.
--
-- Rows are written by triggers, whichever way the change is made: over the API, on the command line, in the SQL editor. They are added
-- and never changed; only the retention of this table itself and the forgetting of a user may touch them.

create table public.admin_audit (
  id bigint generated always as identity primary key,
  at timestamptz not null default clock_timestamp(),
  actor text,
  database_role text not null,
  application text,
  organization_id text,
  table_name text not null,
  operation text not null,
  key jsonb not null default '{}',
  changes jsonb not null default '{}',
  constraint admin_audit_key check (jsonb_typeof(key) = 'object'),
  constraint admin_audit_changes check (jsonb_typeof(changes) = 'object')
);

comment on table public.admin_audit is 'Who changed budgets, prices, members and retention, and what was deleted. Rows are only ever added.';
comment on column public.admin_audit.actor is 'Subject of the token, where a signed-in person did it.';
comment on column public.admin_audit.database_role is 'The role of the request (service_role, ...), else the login role.';
comment on column public.admin_audit.application is 'What the connection calls itself, such as vital_tracking.';
comment on column public.admin_audit.organization_id is 'Whose admins may read the row; NULL: only the service role.';
comment on column public.admin_audit.operation is 'insert, update, delete, truncate; retention, archive, drop, forget_user.';
comment on column public.admin_audit.key is 'Which row it was.';
comment on column public.admin_audit.changes is 'Column -> [before, after], as text; of operations on many rows, their counts.';

create index admin_audit_organization on public.admin_audit (organization_id, at);
create index admin_audit_time on public.admin_audit (at);

alter table public.admin_audit enable row level security;
revoke all on public.admin_audit from anon, authenticated, service_role;
revoke all on sequence public.admin_audit_id_seq from anon, authenticated, service_role;
grant select on public.admin_audit to authenticated, service_role;

create policy "Organization admins see their organization's audit" on public.admin_audit
for select to authenticated
using (organization_id = any((select vital_private.administered_organizations())::text[]));

create policy "The service role sees the whole audit" on public.admin_audit
for select to service_role
using (true);

-- Nobody changes what is written, the owner included: what must (retention, forgetting) says so to this trigger.
create function vital_private.keep_audit() returns trigger
language plpgsql
set search_path = ''
as $$
begin
  if current_setting('vital_tracking.audit_may_change', true) is distinct from 'on' then
    raise exception 'admin_audit is only ever added to.'
      using errcode = '42501', hint = 'Old rows go by its retention: vital-tracking retention set admin_audit 7y';
  end if;
  return null;
end;
$$;

create trigger admin_audit_keep
before update or delete or truncate on public.admin_audit
for each statement execute function vital_private.keep_audit();

-- Write one row of the audit. Called from functions that run with their owner's rights, so the role is that of the request.
create function vital_private.note(
  table_name text, operation text, organization text, key jsonb default '{}', changes jsonb default '{}'
) returns void
language sql
security definer
set search_path = ''
as $$
  insert into public.admin_audit (actor, database_role, application, organization_id, table_name, operation, key, changes)
  values (
    (select auth.jwt()) ->> 'sub',
    coalesce(nullif(current_setting('role', true), 'none'), session_user),
    nullif(current_setting('application_name', true), ''),
    organization, table_name, operation, coalesce(key, '{}'), coalesce(changes, '{}')
  )
$$;

-- The trigger of the audited tables. Its arguments: the columns of the key, and those whose text is none of the audit's business,
-- each list separated by spaces.
create function vital_private.audit_change() returns trigger
language plpgsql
security definer
set search_path = ''
as $$
declare
  before constant jsonb := case when tg_op in ('UPDATE', 'DELETE') then to_jsonb(old) else '{}' end;
  after constant jsonb := case when tg_op in ('UPDATE', 'INSERT') then to_jsonb(new) else '{}' end;
  named constant jsonb := case when tg_op = 'DELETE' then before else after end;
  key_columns constant text[] := string_to_array(tg_argv[0], ' ');
  hidden constant text[] := string_to_array(tg_argv[1], ' ');
  changes jsonb;
begin
  select jsonb_object_agg(
    c.name,
    case when c.name = any(hidden) then '["...", "..."]'::jsonb else jsonb_build_array(before ->> c.name, after ->> c.name) end
  )
  into changes
  from jsonb_object_keys(named) as c (name)
  where before ->> c.name is distinct from after ->> c.name
    and c.name <> all('{created_at,updated_at}'::text[])
    and (tg_op = 'UPDATE' or c.name <> all(key_columns));
  if changes is not null or tg_op <> 'UPDATE' then
    -- What moves from one organization to another is noted for both.
    perform vital_private.note(
      tg_table_name, lower(tg_op), o.organization,
      (select jsonb_object_agg(k.name, named ->> k.name) from unnest(key_columns) as k (name)),
      changes
    )
    from (
      select distinct coalesce(s.state ->> 'organization_id', case when s.state ->> 'entity_type' = 'organization' then s.state ->> 'entity_id' end)
      from (values (before), (after)) as s (state)
      where s.state <> '{}'
    ) as o (organization);
  end if;
  return null;
end;
$$;

create function vital_private.audit_truncate() returns trigger
language plpgsql
security definer
set search_path = ''
as $$
begin
  perform vital_private.note(tg_table_name, 'truncate', null);
  return null;
end;
$$;

create trigger budget_limits_audit
after insert or update or delete on public.budget_limits
for each row execute function vital_private.audit_change('id organization_id entity_type entity_id metric action', '');
create trigger model_prices_audit
after insert or update or delete on public.model_prices
for each row execute function vital_private.audit_change('id provider model valid_from', 'note');
create trigger organization_members_audit
after insert or update or delete on public.organization_members
for each row execute function vital_private.audit_change('organization_id user_id', '');

create trigger budget_limits_audit_truncate
after truncate on public.budget_limits for each statement execute function vital_private.audit_truncate();
create trigger model_prices_audit_truncate
after truncate on public.model_prices for each statement execute function vital_private.audit_truncate();
create trigger organization_members_audit_truncate
after truncate on public.organization_members for each statement execute function vital_private.audit_truncate();

revoke execute on function vital_private.keep_audit() from public;
revoke execute on function vital_private.note(text, text, text, jsonb, jsonb) from public;
revoke execute on function vital_private.audit_change() from public;
revoke execute on function vital_private.audit_truncate() from public;
