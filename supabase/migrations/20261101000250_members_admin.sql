-- Who is made a member or an admin, and by whom. Nobody writes the table itself but the service role; these functions do, for the
-- service role in every organization and for a signed-in admin in that one.
--
-- Changes are audited by the table's trigger. Tries that are refused are audited as well: so a refusal is an answer, not an error, which
-- would take its line of the audit along.

-- Whether the request is that of a signed-in user, whose rights count, and not of the service role or of whoever logged in. Read from
-- the request's role, since current_user is the owner inside of the functions that write.
create function vital_private.by_a_user() returns boolean
language sql
stable
set search_path = ''
as $$
  select coalesce(nullif(current_setting('role', true), 'none'), session_user) in ('authenticated', 'anon')
$$;

-- Whether the caller may change what is an organization's: the service role and whoever logged in may, a signed-in user as its admin. NULL
-- stands for all organizations, over which no user decides.
create function vital_private.may_change(organization text) returns boolean
language sql
stable
security definer
set search_path = ''
as $$
  select not vital_private.by_a_user() or exists (
    select from public.organization_members as m
    where m.organization_id = organization and m.user_id = (select auth.jwt()) ->> 'sub' and m.role = 'admin'
  )
$$;

-- Note a try that is refused, and answer why.
create function vital_private.refuse_member_change(organization text, member text, wanted text, reason text) returns json
language plpgsql
set search_path = ''
as $$
begin
  perform vital_private.note(
    'organization_members', 'refused', organization, jsonb_build_object('organization_id', organization, 'user_id', member),
    jsonb_build_object('role', jsonb_build_array(null, wanted))
  );
  return json_build_object('organization_id', organization, 'user_id', member, 'before', null, 'after', null, 'refused', reason);
end;
$$;

-- Refuse what names no member: an error that says what to do.
create function vital_private.check_member_named(organization text, member text) returns void
language plpgsql
immutable
set search_path = ''
as $$
begin
  if coalesce(trim(organization), '') = '' or coalesce(trim(member), '') = '' or greatest(length(organization), length(member)) > 256 then
    raise exception 'Name an organization and a user, each of at most 256 characters.' using errcode = '22023';
  end if;
end;
$$;

-- Whether somebody is the only admin of an organization.
create function vital_private.is_last_admin(organization text, member text) returns boolean
language sql
stable
set search_path = ''
as $$
  select coalesce(bool_and(m.user_id = member), false)
  from public.organization_members as m
  where m.organization_id = organization and m.role = 'admin'
$$;

-- Give a user a role in an organization, or take it away (`wanted` NULL). `adding`: only who is no member yet, and by which name and
-- e-mail address he is known there; else only who is one. An organization's last admin stays one unless `force`.
create function vital_private.change_member(
  organization text, member text, wanted text, adding boolean, force boolean, name text default null, email text default null
) returns json
language plpgsql
security definer
set search_path = ''
as $$
declare
  held text;
begin
  perform vital_private.check_member_named(organization, member);
  if wanted not in ('member', 'admin', 'auditor') or (adding and wanted is null) then
    raise exception 'A role is one of member, admin and auditor.' using errcode = '22023';
  end if;
  -- One change of an organization's members at a time: else two admins could each take the role from the other.
  perform pg_advisory_xact_lock(hashtextextended('vital_tracking.members ' || organization, 0));
  if not vital_private.may_change(organization) then
    return vital_private.refuse_member_change(organization, member, wanted, 'not_an_admin');
  end if;
  select m.role into held
  from public.organization_members as m
  where m.organization_id = change_member.organization and m.user_id = member;
  if adding and held is not null then
    return vital_private.refuse_member_change(organization, member, wanted, 'is_a_member');
  elsif not adding and held is null then
    return vital_private.refuse_member_change(organization, member, wanted, 'is_no_member');
  elsif wanted is distinct from 'admin' and not coalesce(force, false) and vital_private.is_last_admin(organization, member) then
    return vital_private.refuse_member_change(organization, member, wanted, 'is_the_last_admin');
  end if;
  if wanted is null then
    delete from public.organization_members as m where m.organization_id = organization and m.user_id = member;
  elsif adding then
    insert into public.organization_members (organization_id, user_id, role) values (organization, member, wanted);
    perform vital_private.keep_member_name(organization, member, name, email);
  else
    update public.organization_members as m
    set role = wanted
    where m.organization_id = organization and m.user_id = member and m.role <> wanted;
  end if;
  return json_build_object('organization_id', organization, 'user_id', member, 'before', held, 'after', wanted, 'refused', null);
end;
$$;

-- Make a user a member of an organization. The answer: {"organization_id", "user_id", "before", "after", "refused"}; the last is NULL, or
-- 'not_an_admin', 'is_a_member', 'is_no_member' or 'is_the_last_admin', and then nothing was changed.
create function public.add_member_v1(
  organization text, user_id text, role text default 'member', name text default null, email text default null
) returns json
language sql
set search_path = ''
as $$
  select vital_private.change_member(organization, user_id, coalesce(role, ''), true, false, name, email)
$$;

-- Give a member another role.
create function public.change_member_v1(organization text, user_id text, role text, force boolean default false) returns json
language sql
set search_path = ''
as $$
  select vital_private.change_member(organization, user_id, coalesce(role, ''), false, force)
$$;

-- Remove a member. The user's calls stay.
create function public.remove_member_v1(organization text, user_id text, force boolean default false) returns json
language sql
set search_path = ''
as $$
  select vital_private.change_member(organization, user_id, null, false, force)
$$;

select vital_private.restrict_functions(
  api => '{add_member_v1, change_member_v1, remove_member_v1}', helpers => '{change_member, by_a_user}'
);
