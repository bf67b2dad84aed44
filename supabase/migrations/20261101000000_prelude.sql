-- What everything else stands on: the roles and auth functions of Supabase where they are missing, the private schema, and the rules
-- by which access is granted.
--
-- On hosted Supabase the roles and auth functions exist already and are left alone. On plain PostgreSQL the role that migrates
-- needs CREATEROLE, and CREATE on the database and on its schema public. (A superuser has all three, the database's owner the last two.)
--
-- The migrations that follow, by the last four digits of their numbers:
--   0100 to 0600  the database's identity, members, calls and their partitions, service runs, prices
--   0700 to 1550  budgets: their terms, limits, plans and subscriptions, windows, alerts, exceptions, spending, grants, quotas
--   1600 to 1700  how calls and runs are recorded, and repriced
--   1800 to 1860  what is no call: events, other costs, executions; their prices, imports, meters, allocation
--   2000 to 2450  what is measured of calls, the aggregations that keep the sums, and which organizations there are
--   3000 to 3910  what is read: views, reports, dashboard, forecasts, anomalies, health, abuse, duplicates, inexact costs, advice
--   4000 to 4500  administration: audit, retention, archives, forgetting a user, the demo, status, installation

do $$
begin
  if to_regnamespace('vital_private') is not null then
    raise exception 'The schema vital_private is there, but its history does not say that this was applied.'
      using errcode = '42P06', hint = 'Where vital_tracking was installed another way, go on in that way: see docs/upgrading.md';
  end if;
end;
$$;

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

-- Who reads everything and changes nothing, for Metabase and the like: `grant vital_auditor to metabase`. Whoever migrates and may not
-- make roles goes on without it; once somebody has made it, `vital-tracking migrate` grants it what is missing.
do $$
begin
  if not exists (select from pg_catalog.pg_roles where rolname = 'vital_auditor') then
    create role vital_auditor nologin;
  end if;
exception
  when duplicate_object or unique_violation then null;
  when insufficient_privilege then
    raise notice 'The role vital_auditor was not made: that needs CREATEROLE. All else works without it.';
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

create schema vital_private;
revoke all on schema vital_private from public;
grant usage on schema vital_private to authenticated, service_role;

do $$
begin
  if exists (select from pg_catalog.pg_roles where rolname = 'vital_auditor') then
    grant usage on schema vital_private to vital_auditor;
  end if;
end;
$$;

comment on schema vital_private is 'Internals of vital_tracking: partitions, catalogues and helper functions. Not served by the API.';

-- The rules of access. PostgreSQL lets everybody call a new function, and hosted Supabase grants the roles of its API everything
-- that is made in the schema public. The two functions below take that back and grant what is meant instead; every
-- migration calls them for what it makes, and tests/sql/test_catalog.py finds what was forgotten.

-- What the service role reads, the auditor reads: every row.
create function vital_private.show_auditor(relation regclass) returns void
language plpgsql
set search_path = ''
as $$
begin
  if exists (select from pg_catalog.pg_roles where rolname = 'vital_auditor') then
    execute format('grant select on %s to vital_auditor', relation);
    if exists (select from pg_catalog.pg_class as c where c.oid = relation and c.relkind in ('r', 'p')) and not exists (
      select from pg_catalog.pg_policy as p where p.polrelid = relation and p.polname = 'The auditor sees every row'
    ) then
      execute format('create policy "The auditor sees every row" on %s for select to vital_auditor using (true)', relation);
    end if;
  end if;
end;
$$;

-- What the service role calls, the auditor calls where it is STABLE or IMMUTABLE: in such functions PostgreSQL refuses to write.
create function vital_private.lend_auditor(routine regprocedure) returns void
language plpgsql
set search_path = ''
as $$
begin
  if exists (select from pg_catalog.pg_roles where rolname = 'vital_auditor') and exists (
    select from pg_catalog.pg_proc as p where p.oid = routine and p.provolatile <> 'v'
  ) then
    execute format('grant execute on routine %s to vital_auditor', routine);
  end if;
end;
$$;

-- The rule for tables, views and materialized views: clients change nothing, and only `readers` read. A table also gets row level
-- security, under which the service role sees every row if it is one of the readers; what others see is left to policies.
create function vital_private.restrict_relation(relation regclass, readers text[] default '{}') returns void
language plpgsql
set search_path = ''
as $$
declare
  is_table constant boolean := exists (select from pg_catalog.pg_class as c where c.oid = relation and c.relkind in ('r', 'p'));
  owned_sequence regclass;
begin
  execute format('revoke all on %s from public, anon, authenticated, service_role', relation);
  for owned_sequence in
    select d.objid
    from pg_catalog.pg_depend as d
    join pg_catalog.pg_class as s on s.oid = d.objid and s.relkind = 'S'
    where d.refobjid = relation and d.deptype in ('a', 'i')
  loop
    execute format('revoke all on sequence %s from public, anon, authenticated, service_role', owned_sequence);
  end loop;
  if cardinality(readers) > 0 then
    execute format('grant select on %s to %s', relation, array_to_string(readers, ', '));
  end if;
  if 'service_role' = any(readers) then
    perform vital_private.show_auditor(relation);
  end if;
  if is_table then
    execute format('alter table %s enable row level security', relation);
    if 'service_role' = any(readers) then
      execute format('create policy "The service role sees every row" on %s for select to service_role using (true)', relation);
    end if;
  end if;
end;
$$;

-- The rule for functions. `api` names functions of the schema public: one that runs with its owner's rights (SECURITY DEFINER) is for
-- the service role alone; one that runs with its caller's rights is for signed-in users too, since row level security holds
-- inside it. Functions of vital_private are for their owner alone, except `helpers`, which functions of the second kind need.
create function vital_private.restrict_functions(api text[] default '{}', helpers text[] default '{}') returns void
language plpgsql
set search_path = ''
as $$
declare
  routine record;
  missing text;
begin
  select string_agg(named.name, ', ') into missing
  from (
    select 'public' as schema_name, unnest(api) as name
    union all
    select 'vital_private', unnest(helpers)
  ) as named
  where not exists (
    select from pg_catalog.pg_proc as p where p.pronamespace = named.schema_name::regnamespace and p.proname = named.name
  );
  if missing is not null then
    raise exception 'There is no function %.', missing using errcode = '42883';
  end if;
  for routine in
    select
      p.oid::regprocedure as signature, 'service_role' || case when p.prosecdef then '' else ', authenticated' end as callers,
      not p.prosecdef and p.provolatile = 's' and coalesce(array_to_string(p.proconfig, ' '), '') not like '%statement_timeout=%' as unlimited
    from pg_catalog.pg_proc as p
    where p.pronamespace = 'public'::regnamespace and p.proname = any(api)
    union all
    select p.oid::regprocedure, 'service_role, authenticated', false
    from pg_catalog.pg_proc as p
    where p.pronamespace = 'vital_private'::regnamespace and p.proname = any(helpers)
    union all
    select p.oid::regprocedure, null, false
    from pg_catalog.pg_proc as p
    where p.pronamespace = 'vital_private'::regnamespace and p.proname <> all(helpers)
      and (has_function_privilege('public', p.oid, 'execute') or has_function_privilege('anon', p.oid, 'execute'))
  loop
    execute format('revoke all on routine %s from public, anon, authenticated, service_role', routine.signature);
    if routine.callers is not null then
      execute format('grant execute on routine %s to %s', routine.signature, routine.callers);
      perform vital_private.lend_auditor(routine.signature);
    end if;
    -- What signed-in users may ask is ended after a while: the Data API applies this limit to the whole request.
    if routine.unlimited then
      execute format('alter routine %s set statement_timeout = ''8s''', routine.signature);
    end if;
  end loop;
end;
$$;

-- Refuse a request that leaves out what it needs. NULL never stands for something that cannot be undone: where an argument has a default,
-- NULL is that default; where it has none, this is said; and tests/sql/test_arguments.py holds it of every function of the API.
create function vital_private.check_given(argument text, value text) returns void
language plpgsql
immutable
parallel safe
set search_path = ''
as $$
begin
  if value is null then
    raise exception '% must be given: it is NULL.', argument using errcode = '22004';
  end if;
end;
$$;

-- sum() makes room for millions of numbers before it adds the first one, and a histogram is hundreds of digits long. The groups of a batch
-- are small, mostly of one call, and these aggregates take the number of a single call as it is.
create aggregate vital_private.total (numeric)(
  sfunc = numeric_add, stype = numeric, combinefunc = numeric_add, parallel = safe
);
create aggregate vital_private.total (bigint)(
  sfunc = int8pl, stype = bigint, combinefunc = int8pl, parallel = safe
);

-- Let pg_cron run a command regularly; asking again only changes the job's time and command. False where pg_cron is not installed
-- or refuses.
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

-- Our own history, so that the project's (supabase_migrations) stays the project's. `vital-tracking migrate` keeps it, and the files that
-- `vital-tracking migrate --write` makes note themselves here.
create table vital_private.migrations (
  version text not null primary key,
  name text not null,
  hash text,
  applied_at timestamptz not null default now(),
  package_version text
);

comment on table vital_private.migrations is 'Which migrations of vital_tracking this database has seen, and with which content.';
comment on column vital_private.migrations.hash is 'SHA-256 of the file without comments and layout; NULL: not known.';

select vital_private.restrict_relation('vital_private.migrations');
select vital_private.restrict_functions(helpers => '{check_given}');
