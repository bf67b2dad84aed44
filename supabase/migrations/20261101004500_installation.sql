-- What is installed: the migrations that the database has seen, and whether what they made is still there.

-- The hash of a migration's text: comments, layout and the semicolons that clients which split a file leave out do not count.
create function vital_private.migration_hash(migration text) returns text
language sql
immutable
set search_path = ''
as $$
  select encode(sha256(convert_to(
    regexp_replace(regexp_replace(migration, '^[ \t]*--.*$', '', 'gn'), '[ \t\r\n;]+', '', 'g'), 'UTF8'
  )), 'hex')
$$;

-- The migrations that the database has seen, by our own history, and by the project's for what was pushed from the repository of
-- vital_tracking: the Supabase command line notes it there, and `vital-tracking migrate` copies it when it is run. `own`: by our own.
create function vital_private.applied_migrations() returns table (version text, name text, hash text, own boolean)
language plpgsql
stable
set search_path = ''
as $$
begin
  return query select m.version, m.name, m.hash, true from vital_private.migrations as m;
  if to_regclass('supabase_migrations.schema_migrations') is not null then
    return query execute $query$
      select p.version, p.name, vital_private.migration_hash(array_to_string(p.statements, E'\n')), false
      from supabase_migrations.schema_migrations as p
      where not exists (select from vital_private.migrations as m where m.version = p.version)
    $query$;
  end if;
end;
$$;

-- The history, and which of the expected objects are missing. `expected` is a JSON array of {"kind": "relation", "function", "trigger" or
-- "policy", "name", "part": the name of a trigger or policy}. A table without row level security counts as missing its policies.
-- Answers {"server_version", "migrations": [{"version", "name", "hash", "own"}], "missing": [place in `expected`, from 0]}.
create function public.installation_v1(expected text default '[]') returns json
language plpgsql
stable
security definer
set search_path = ''
as $$
begin
  return json_build_object(
    'server_version', current_setting('server_version'),
    'migrations', (
      select coalesce(json_agg(json_build_object('version', m.version, 'name', m.name, 'hash', m.hash, 'own', m.own) order by m.version), '[]')
      from vital_private.applied_migrations() as m
    ),
    'missing', (
      select coalesce(json_agg(e.ordinality - 1 order by e.ordinality), '[]')
      from json_array_elements(coalesce(expected, '[]')::json) with ordinality as e
      cross join lateral (select e.value ->> 'kind' as kind, e.value ->> 'name' as name, e.value ->> 'part' as part) as o
      where not case o.kind
        when 'relation' then to_regclass(o.name) is not null
        when 'function' then exists (
          select from pg_catalog.pg_proc as p where format('%s.%s', p.pronamespace::regnamespace, p.proname) = o.name
        )
        when 'trigger' then exists (
          select from pg_catalog.pg_trigger as t
          where t.tgrelid = to_regclass(o.name) and t.tgname = o.part and t.tgenabled <> 'D'
        )
        else exists (
          select from pg_catalog.pg_policy as p
          join pg_catalog.pg_class as c on c.oid = p.polrelid and c.relrowsecurity
          where p.polrelid = to_regclass(o.name) and p.polname = o.part
        )
      end
    )
  );
end;
$$;

-- Grant the auditor what was made while there was no such role: of the schema public, which is not ours alone, these relations and functions.
create function vital_private.admit_auditor(relations text[], functions text[]) returns void
language plpgsql
set search_path = ''
as $$
begin
  if not exists (select from pg_catalog.pg_roles where rolname = 'vital_auditor') then
    return;
  end if;
  grant usage on schema vital_private to vital_auditor;
  perform vital_private.show_auditor(c.oid)
  from pg_catalog.pg_class as c
  where (c.relnamespace = 'vital_private'::regnamespace or format('%s.%s', c.relnamespace::regnamespace, c.relname) = any(relations))
    and c.relkind in ('r', 'p', 'v', 'm')
    and has_table_privilege('service_role', c.oid, 'select') and not has_table_privilege('vital_auditor', c.oid, 'select');
  perform vital_private.lend_auditor(p.oid)
  from pg_catalog.pg_proc as p
  where (p.pronamespace = 'vital_private'::regnamespace or format('%s.%s', p.pronamespace::regnamespace, p.proname) = any(functions))
    and has_function_privilege('service_role', p.oid, 'execute') and not has_function_privilege('vital_auditor', p.oid, 'execute');
end;
$$;

select vital_private.restrict_functions(api => '{installation_v1}');
