-- Who changed what admins decide (budgets, prices, members, retention), and who deleted what for good.
--
-- Rows are written by triggers, in whichever way the change is made: over the API, on the command line, in the SQL editor. They are added
-- and never changed. Only the retention of this table itself and the forgetting of a user may touch them.

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
comment on column public.admin_audit.operation is 'insert, update, delete, truncate; retention, archive, drop, forget_user, allocate; refused.';
comment on column public.admin_audit.key is 'Which row it was.';
comment on column public.admin_audit.changes is 'Column -> [before, after], as text; of operations on many rows, their counts.';

create index admin_audit_organization on public.admin_audit (organization_id, at);
create index admin_audit_time on public.admin_audit (at);

select vital_private.restrict_relation('public.admin_audit', readers => '{authenticated, service_role}');

create policy "Organization admins see their organization's audit" on public.admin_audit
for select to authenticated
using (organization_id = any((select vital_private.administered_organizations())::text[]));

-- Nobody changes rows, not even the owner. Retention and forgetting, which must, tell this trigger so by a setting.
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

-- Write one row of the audit. It is called from functions that run with their owner's rights; the role that is noted is that of the request.
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

-- The trigger of the audited tables. Its arguments: the columns of the key, and the columns whose text must not be copied into the audit,
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
    -- A row that moves from one organization to another is noted for both.
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

-- Audit a table: every change of its rows, and its being emptied.
create function vital_private.audit_table(relation regclass, key_columns text, hidden text default '') returns void
language plpgsql
set search_path = ''
as $$
declare
  name constant text := (select c.relname from pg_catalog.pg_class as c where c.oid = relation);
begin
  execute format(
    'create trigger %I after insert or update or delete on %s for each row execute function vital_private.audit_change(%L, %L)',
    name || '_audit', relation, key_columns, hidden
  );
  execute format(
    'create trigger %I after truncate on %s for each statement execute function vital_private.audit_truncate()',
    name || '_audit_truncate', relation
  );
end;
$$;

select vital_private.audit_table('public.budget_limits', 'id organization_id entity_type entity_id metric action');
select vital_private.audit_table('vital_private.budget_overrides', 'id organization_id entity_type entity_id metric action');
select vital_private.audit_table('public.model_prices', 'id provider model valid_from', hidden => 'note');
select vital_private.audit_table('public.model_tiers', 'id provider model', hidden => 'note');
select vital_private.audit_table('public.resource_prices', 'id cost_type resource unit valid_from', hidden => 'note');
select vital_private.audit_table('public.organization_members', 'organization_id user_id');
select vital_private.audit_table('vital_private.member_names', 'organization_id user_id', hidden => 'name email');
select vital_private.audit_table('vital_private.organization_names', 'organization_id');

-- The newest lines of the audit that the caller may see, at most 1,000, of those with an id below `before_id`; NULL filters nothing. Amounts
-- and other values stand in `changes` as text.
create function public.audit_v1(
  organization text default null,
  actor text default null,
  operation text default null,
  what text default null,
  since timestamptz default null,
  before_id bigint default null,
  max_rows integer default 100
) returns json
language sql
stable
set search_path = ''
as $$
  select coalesce(json_agg(l.*), '[]')
  from (
    select
      a.id, a.at, a.actor, a.database_role, a.application, a.organization_id, a.table_name as what, a.operation, a.key, a.changes
    from public.admin_audit as a
    where (audit_v1.organization is null or a.organization_id = audit_v1.organization)
      and (audit_v1.actor is null or a.actor = audit_v1.actor)
      and (audit_v1.operation is null or a.operation = audit_v1.operation)
      and (audit_v1.what is null or a.table_name = audit_v1.what)
      and (audit_v1.since is null or a.at >= audit_v1.since)
      and (audit_v1.before_id is null or a.id < audit_v1.before_id)
    order by a.id desc
    limit least(greatest(coalesce(max_rows, 100), 1), 1000)
  ) as l
$$;

select vital_private.restrict_functions(api => '{audit_v1}');
