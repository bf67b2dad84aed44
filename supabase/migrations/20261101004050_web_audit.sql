-- What the API and the pages ask besides the reports: who somebody is in which organization; and the audit's lines about reading.

-- Whoever migrates may act for signed-in users afterwards, as the pages do over PostgreSQL directly. On hosted Supabase that is so already; a
-- role that may not grant it is told by the store what to ask for.
do $$
begin
  if not pg_has_role(current_user, 'authenticated', case when current_setting('server_version_num')::integer >= 160000 then 'SET' else 'MEMBER' end) then
    if current_setting('server_version_num')::integer >= 160000 then
      execute format('grant authenticated to %I with inherit false, set true', current_user);
    else
      execute format('grant authenticated to %I', current_user);
    end if;
  end if;
exception
  when insufficient_privilege then null;
end;
$$;

-- The organizations of whoever asks, with the role in each; for the service role, who is nobody, none.
create function public.my_memberships() returns jsonb
language sql
stable
set search_path = ''
as $$
  select coalesce(
    jsonb_agg(jsonb_build_object('organization_id', m.organization_id, 'role', m.role) order by m.organization_id), '[]'
  )
  from public.organization_members as m
  where m.user_id = (select vital_private.subject())
$$;

-- Write down that somebody has read what is other people's, or was refused something. The server that has verified who it was says
-- so as JSON, by its own rights: no signed-in user can call this, and so nobody can write a line about others, or fill the audit.
create function public.note_access_v1(access text) returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  told constant jsonb := access::jsonb;
begin
  if (told ->> 'operation') is null or told ->> 'operation' <> all('{read,refused}'::text[]) or nullif(told ->> 'what', '') is null then
    raise exception 'An access is read or refused, and of something.' using errcode = '22023';
  end if;
  insert into public.admin_audit (actor, database_role, application, organization_id, table_name, operation, key)
  values (
    left(told ->> 'actor', 255),
    coalesce(nullif(current_setting('role', true), 'none'), session_user),
    nullif(current_setting('application_name', true), ''),
    left(told ->> 'organization_id', 255),
    left(told ->> 'what', 255),
    told ->> 'operation',
    jsonb_strip_nulls(jsonb_build_object('user_id', left(told ->> 'user_id', 255)))
  );
  return jsonb_build_object('noted', 1);
end;
$$;

select vital_private.restrict_functions(api => '{my_memberships, note_access_v1}');
