-- Who belongs to which organization. Row level security asks this table who administers what.
--
-- A signed-in user is the subject of the token, compared as text: `auth.uid()` would fail on every subject that is not a
-- UUID, as those of Clerk, Firebase and Auth0 are.

create table public.organization_members (
  organization_id text not null,
  user_id text not null,
  role text not null default 'member',
  created_at timestamptz not null default now(),
  primary key (organization_id, user_id),
  constraint organization_members_role check (role in ('member', 'admin', 'auditor'))
);

comment on table public.organization_members is 'Members, admins and auditors of organizations. Written by add_member_v1 and its kin.';
comment on column public.organization_members.role is 'member: sees what is his own; auditor: sees all of it; admin: changes it, too.';

create index organization_members_user on public.organization_members (user_id);

-- The organizations whose rows the signed-in user may read: those that he administers or audits. SECURITY DEFINER, because the
-- policies of the table itself use it: without that they would call themselves without end. Policies call it in a scalar subquery,
-- which PostgreSQL evaluates once a statement instead of once a row.
create function vital_private.administered_organizations() returns text[]
language sql
stable
security definer
set search_path = ''
as $$
  select coalesce(array_agg(organization_id), '{}')
  from public.organization_members
  where user_id = (select auth.jwt()) ->> 'sub' and role in ('admin', 'auditor')
$$;

-- The signed-in user: the subject of the token. For functions and views, which roles call that may not use Supabase's schema auth, such
-- as vital_auditor; policies ask auth.jwt() themselves.
create function vital_private.subject() returns text
language sql
stable
security definer
set search_path = ''
as $$
  select (select auth.jwt()) ->> 'sub'
$$;

-- Refuse a user of the API who does not administer the organization. NULL stands for all organizations: only the service role may
-- ask about those.
create function vital_private.check_administered(organization text) returns void
language plpgsql
stable
set search_path = ''
as $$
begin
  if current_user = 'authenticated' and not coalesce(organization = any(vital_private.administered_organizations()), false) then
    raise exception 'Only an admin or auditor of organization % may ask for its figures.', coalesce(organization, '(all)') using errcode = '42501';
  end if;
end;
$$;

select vital_private.restrict_functions(helpers => '{subject, administered_organizations, check_administered}');
select vital_private.restrict_relation('public.organization_members', readers => '{authenticated, service_role}');
grant insert, update, delete on public.organization_members to service_role;

create policy "Users see their own memberships" on public.organization_members
for select to authenticated
using (user_id = (select auth.jwt()) ->> 'sub');

create policy "Organization admins see their members" on public.organization_members
for select to authenticated
using (organization_id = any((select vital_private.administered_organizations())::text[]));

create policy "The service role manages members" on public.organization_members
for all to service_role
using (true)
with check (true);
