-- What users and organizations are called. Ids stay the keys of everything; names are shown beside them.
--
-- Supabase Auth knows its users, where it can be read; else there is what an admin has written down of a member. Names and addresses are
-- of persons, so nobody reads the tables themselves: names_v1 tells everybody what he may know.

create table vital_private.member_names (
  organization_id text not null,
  user_id text not null,
  name text,
  email text,
  primary key (organization_id, user_id),
  constraint member_names_are_short check (length(name) <= 120 and length(email) <= 254)
);
select vital_private.restrict_relation('vital_private.member_names');

comment on table vital_private.member_names is 'By which name and e-mail address an organization knows a member. Written by name_member_v1.';

create index member_names_user on vital_private.member_names (user_id);

-- Names go with the membership, in whichever way that ends. (A foreign key would forbid to empty the table of members.)
create function vital_private.forget_names() returns trigger
language plpgsql
security definer
set search_path = ''
as $$
begin
  delete from vital_private.member_names as n
  where not exists (
    select from public.organization_members as m where m.organization_id = n.organization_id and m.user_id = n.user_id
  );
  return null;
end;
$$;

create trigger organization_members_names
after delete or update or truncate on public.organization_members
for each statement execute function vital_private.forget_names();

create table vital_private.organization_names (
  organization_id text not null primary key,
  name text not null,
  constraint organization_names_are_short check (length(name) <= 120)
);
select vital_private.restrict_relation('vital_private.organization_names');

comment on table vital_private.organization_names is 'What organizations are called. Written by name_organization_v1.';

-- A name as it is kept: in one line, without spaces around it; NULL where nothing is left of it.
create function vital_private.display_name(given text) returns text
language sql
immutable
set search_path = ''
as $$
  select nullif(trim(regexp_replace(given, '[[:cntrl:][:space:]]+', ' ', 'g')), '')
$$;

-- Keep what a member is called: NULL leaves it as it is, an empty text takes it away.
create function vital_private.keep_member_name(organization text, member text, name text, email text) returns void
language plpgsql
set search_path = ''
as $$
declare
  new_name constant text := vital_private.display_name(name);
  new_email constant text := vital_private.display_name(email);
begin
  if length(new_name) > 120 or length(new_email) > 254 or new_email !~ '^[^@ ]+@[^@ ]+$' then
    raise exception 'A name has at most 120 characters, an e-mail address at most 254 and one @.' using errcode = '22023';
  end if;
  if name is null and email is null then
    return;
  end if;
  insert into vital_private.member_names as n (organization_id, user_id, name, email)
  values (organization, member, new_name, new_email)
  on conflict (organization_id, user_id) do update set
    name = case when keep_member_name.name is null then n.name else excluded.name end,
    email = case when keep_member_name.email is null then n.email else excluded.email end;
  -- Pages that show it look at the membership, whether anything has changed (usage_version_v1).
  update public.organization_members as m set role = m.role where m.organization_id = organization and m.user_id = member;
end;
$$;

create function vital_private.name_member(organization text, member text, name text, email text) returns json
language plpgsql
security definer
set search_path = ''
as $$
declare
  held text;
begin
  perform vital_private.check_member_named(organization, member);
  if not vital_private.may_change(organization) then
    return vital_private.refuse_member_change(organization, member, null, 'not_an_admin');
  end if;
  select m.role into held
  from public.organization_members as m
  where m.organization_id = organization and m.user_id = member;
  if held is null then
    return vital_private.refuse_member_change(organization, member, null, 'is_no_member');
  end if;
  perform vital_private.keep_member_name(organization, member, name, email);
  return json_build_object('organization_id', organization, 'user_id', member, 'before', held, 'after', held, 'refused', null);
end;
$$;

create function vital_private.name_organization(organization text, name text) returns json
language plpgsql
security definer
set search_path = ''
as $$
declare
  new_name constant text := vital_private.display_name(name);
begin
  if coalesce(trim(organization), '') = '' or length(organization) > 256 or length(new_name) > 120 then
    raise exception 'organization: name one of at most 256 characters, and call it by at most 120.' using errcode = '22023';
  end if;
  if not vital_private.may_change(organization) then
    perform vital_private.note(
      'organization_names', 'refused', organization, jsonb_build_object('organization_id', organization),
      jsonb_build_object('name', jsonb_build_array(null, left(new_name, 120)))
    );
    return json_build_object('organization_id', organization, 'name', null, 'refused', 'not_an_admin');
  end if;
  if new_name is null then
    delete from vital_private.organization_names as n where n.organization_id = organization;
  else
    insert into vital_private.organization_names as n (organization_id, name)
    values (organization, new_name)
    on conflict (organization_id) do update set name = excluded.name where n.name <> excluded.name;
  end if;
  update public.organization_members as m set role = m.role where m.organization_id = organization;
  return json_build_object('organization_id', organization, 'name', new_name, 'refused', null);
end;
$$;

-- What Supabase Auth knows of users, by their ids. Nothing where it is not there, is not Supabase's, or may not be read.
create function vital_private.auth_users(ids text[]) returns table (user_id text, name text, email text)
language plpgsql
stable
security definer
set search_path = ''
as $$
begin
  if (
    select count(*)
    from pg_catalog.pg_attribute as a
    join pg_catalog.pg_class as c on c.oid = a.attrelid
    join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
    where n.nspname = 'auth' and c.relname = 'users' and (a.attname, a.atttypid::regtype::text) in (
      ('id', 'uuid'), ('email', 'character varying'), ('email', 'text'), ('raw_user_meta_data', 'jsonb')
    )
  ) < 3 then
    return;
  end if;
  return query execute
    $query$
      select
        u.id::text,
        vital_private.display_name(left(coalesce(
          nullif(u.raw_user_meta_data ->> 'full_name', ''), nullif(u.raw_user_meta_data ->> 'name', ''),
          nullif(u.raw_user_meta_data ->> 'display_name', '')
        ), 120)),
        vital_private.display_name(u.email::text)
      from auth.users as u
      where u.id = any($1)
    $query$
  using array(select i.id::uuid from unnest(ids) as i (id) where i.id ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$');
exception
  when insufficient_privilege then null;
end;
$$;

-- What these users and organizations are called: {"users": {id: {"name", "email"}}, "organizations": {id: name}}, without those of whom
-- nothing is known. A signed-in user is told of himself, and as an admin or auditor of those who are members of the organization or have called
-- something for it; addresses as an admin alone. What Supabase Auth knows he is told of those who have called something for it, and of no
-- others: whoever administers an organization can make anybody's id a member of it. Of organizations he is told of those that he belongs to.
create function vital_private.names_of(users text[], organizations text[]) returns jsonb
language plpgsql
stable
security definer
set search_path = ''
as $$
declare
  of_all constant boolean := not vital_private.by_a_user();
  me constant text := vital_private.subject();
  belongs_to text[] := '{}';
  reads text[] := '{}';
  administers text[] := '{}';
  answer jsonb;
begin
  if not of_all then
    select
      coalesce(array_agg(m.organization_id), '{}'),
      coalesce(array_agg(m.organization_id) filter (where m.role in ('admin', 'auditor')), '{}'),
      coalesce(array_agg(m.organization_id) filter (where m.role = 'admin'), '{}')
    into belongs_to, reads, administers
    from public.organization_members as m
    where m.user_id = me;
  end if;

  with asked as materialized (
    select distinct w.id
    from unnest(users[1:10000]) as w (id)
    where w.id is not null
  ),

  -- Where each of them is, of the organizations whose people the asker is told of.
  placed as materialized (
    select
      a.id,
      array(
        select m.organization_id from public.organization_members as m where m.user_id = a.id and m.organization_id = any(reads)
      ) as joined,
      array(
        select distinct u.organization_id
        from public.usage_aggregations_daily_users as u
        where u.user_id = a.id and u.organization_id = any(reads)
      ) as used
    from asked as a
    where not of_all and reads <> '{}'
  ),

  told as materialized (
    select
      a.id,
      of_all or a.id = me or coalesce(p.used <> '{}', false) as by_auth,
      of_all or a.id = me or coalesce(p.used && administers, false) as with_email_of_auth,
      of_all or a.id = me or coalesce((p.joined || p.used) && administers, false) as with_email
    from asked as a
    left join placed as p on p.id = a.id
    where of_all or a.id = me or p.joined || p.used <> '{}'
  ),

  known as (
    select
      t.id, coalesce(s.name, w.name) as name,
      coalesce(case when t.with_email_of_auth then s.email end, case when t.with_email then w.email end) as email
    from told as t
    left join vital_private.auth_users(array(select t.id from told as t where t.by_auth)) as s on s.user_id = t.id
    left join lateral (
      select
        (array_agg(n.name order by n.organization_id) filter (where n.name is not null))[1] as name,
        (array_agg(n.email order by n.organization_id) filter (
          where n.email is not null and (of_all or t.id = me or n.organization_id = any(administers))
        ))[1] as email
      from vital_private.member_names as n
      where n.user_id = t.id and (of_all or t.id = me or n.organization_id = any(reads))
    ) as w on true
  )

  select jsonb_build_object(
    'users', coalesce(
      (
        select jsonb_object_agg(k.id, jsonb_build_object('name', k.name, 'email', k.email))
        from known as k
        where k.name is not null or k.email is not null
      ), '{}'
    ),
    'organizations', coalesce(
      (
        select jsonb_object_agg(n.organization_id, n.name)
        from vital_private.organization_names as n
        where n.organization_id = any(organizations[1:10000]) and (of_all or n.organization_id = any(belongs_to))
      ), '{}'
    )
  ) into answer;
  return answer;
end;
$$;

-- Write down what a member is called: NULL leaves a name or address as it is, an empty text takes it away. The answer is that of the functions
-- that change members, with the role as it stays.
create function public.name_member_v1(organization text, user_id text, name text default null, email text default null) returns json
language sql
set search_path = ''
as $$
  select vital_private.name_member(organization, user_id, name, email)
$$;

-- Write down what an organization is called; without a name it goes by its id again: {"organization_id", "name", "refused"}.
create function public.name_organization_v1(organization text, name text default null) returns json
language sql
set search_path = ''
as $$
  select vital_private.name_organization(organization, name)
$$;

-- What these users and organizations are called, as far as the caller may know it.
create function public.names_v1(users text[] default '{}', organizations text[] default '{}') returns jsonb
language sql
stable
set search_path = ''
as $$
  select vital_private.names_of(users, organizations)
$$;

-- The members that the caller may see, of one organization or of all, admins first:
-- [{"organization_id", "user_id", "name", "email", "role", "created_at"}].
create function public.members_v1(organization text default null, max_rows integer default 1000) returns json
language sql
stable
set search_path = ''
as $$
  with listed as materialized (
    select m.organization_id, m.user_id, m.role, m.created_at
    from public.organization_members as m
    where members_v1.organization is null or m.organization_id = members_v1.organization
    order by m.organization_id, m.role, m.user_id
    limit least(greatest(coalesce(max_rows, 1000), 1), 10000)
  ),

  known as materialized (
    select vital_private.names_of(array(select l.user_id from listed as l), '{}') -> 'users' as users
  )

  select coalesce(
    json_agg(
      json_build_object(
        'organization_id', l.organization_id, 'user_id', l.user_id, 'name', k.users -> l.user_id ->> 'name',
        'email', k.users -> l.user_id ->> 'email', 'role', l.role, 'created_at', l.created_at
      )
      order by l.organization_id, l.role, l.user_id
    ),
    '[]'
  )
  from listed as l
  cross join known as k
$$;

select vital_private.restrict_functions(
  api => '{name_member_v1, name_organization_v1, names_v1, members_v1}', helpers => '{name_member, name_organization, names_of}'
);
