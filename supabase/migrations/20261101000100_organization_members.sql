-- Who belongs to which organization; row level security asks it who is an admin of what.
--
-- A signed-in user is the subject of the token as text, since ids are text: `auth.uid()` would fail on every subject that is no
-- UUID, as Clerk's, Firebase's or Auth0's are.

create table public.organization_members (
  organization_id text not null,
  user_id text not null,
  role text not null default 'member',
  created_at timestamptz not null default now(),
  primary key (organization_id, user_id),
  constraint organization_members_role check (role in ('member', 'admin'))
);

comment on table public.organization_members is 'Members and admins of organizations. Rows are written by the service role only.';

create index organization_members_user on public.organization_members (user_id);

-- SECURITY DEFINER, so that the policies of the table itself may ask it without asking themselves in a circle. Policies call
-- it inside a scalar subquery, which PostgreSQL evaluates once a statement instead of once a row.
create function vital_private.administered_organizations() returns text[]
language sql
stable
security definer
set search_path = ''
as $$
  select coalesce(array_agg(organization_id), '{}')
  from public.organization_members
  where user_id = (select auth.jwt()) ->> 'sub' and role = 'admin'
$$;

revoke execute on function vital_private.administered_organizations() from public;
grant execute on function vital_private.administered_organizations() to authenticated, service_role;

-- Whoever comes as a user of the API must be an admin of the organization; NULL, which is all of them, is for the service role.
create function vital_private.check_administered(organization text) returns void
language plpgsql
stable
set search_path = ''
as $$
begin
  if current_user = 'authenticated' and not coalesce(organization = any(vital_private.administered_organizations()), false) then
    raise exception 'Only an admin of organization % may ask for its figures.', coalesce(organization, '(all)') using errcode = '42501';
  end if;
end;
$$;

revoke execute on function vital_private.check_administered(text) from public;
grant execute on function vital_private.check_administered(text) to authenticated, service_role;

alter table public.organization_members enable row level security;
revoke all on public.organization_members from anon, authenticated, service_role;
grant select on public.organization_members to authenticated;
grant select, insert, update, delete on public.organization_members to service_role;

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
