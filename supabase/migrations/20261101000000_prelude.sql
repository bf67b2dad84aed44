-- What hosted Supabase brings and plain PostgreSQL lacks, created only where it is missing, and the private schema.
--
-- On hosted Supabase nothing here but the private schema is created. On plain PostgreSQL the role that migrates needs
-- CREATEROLE and CREATE on the database and on its schema public (a superuser has all three; the database's owner the last two).

do $$
declare
  role_name text;
begin
  foreach role_name in array array['anon', 'authenticated', 'service_role'] loop
    if not exists (select from pg_catalog.pg_roles where rolname = role_name) then
      begin
        execute format('create role %I nologin noinherit', role_name);
      exception
        -- Roles belong to the whole server: another database may be creating the same one at this moment.
        when duplicate_object or unique_violation then null;
      end;
    end if;
  end loop;
end;
$$;

do $$
begin
  if to_regnamespace('auth') is null then
    create schema auth;
  end if;
  if to_regprocedure('auth.jwt()') is null then
    create function auth.jwt() returns jsonb
    language sql
    stable
    return coalesce(
      nullif(current_setting('request.jwt.claims', true), ''),
      nullif(current_setting('request.jwt.claim', true), '')
    )::jsonb;
    revoke execute on function auth.jwt() from public;
    grant execute on function auth.jwt() to anon, authenticated, service_role;
    grant usage on schema auth to anon, authenticated, service_role;
  end if;
  if to_regprocedure('auth.uid()') is null then
    create function auth.uid() returns uuid
    language sql
    stable
    return nullif(coalesce(
      nullif(current_setting('request.jwt.claim.sub', true), ''),
      auth.jwt() ->> 'sub'
    ), '')::uuid;
    revoke execute on function auth.uid() from public;
    grant execute on function auth.uid() to anon, authenticated, service_role;
    grant usage on schema auth to anon, authenticated, service_role;
  end if;
end;
$$;

-- Partitions and helpers live here, out of reach of the Data API, which serves the schema public.
create schema vital_private;
revoke all on schema vital_private from public;
grant usage on schema vital_private to authenticated, service_role;

comment on schema vital_private is 'Internals of vital_tracking: partitions and helper functions. Not served by the API.';

-- Have pg_cron run a command again and again; asking again changes nothing but the job's time and command. False where pg_cron is not
-- there, or does not let us.
create function vital_private.schedule(job text, timing text, command text) returns boolean
language plpgsql
set search_path = ''
as $$
begin
  if to_regprocedure('cron.schedule(text, text, text)') is null then
    return false;
  end if;
  execute 'select cron.schedule($1, $2, $3)' using job, timing, command;
  return true;
exception
  when others then
    raise warning 'pg_cron does not run %: %', job, sqlerrm;
    return false;
end;
$$;

revoke execute on function vital_private.schedule(text, text, text) from public;
