-- Takes vital_tracking out of a database: its tables with all that is in them, its views, functions and jobs, and its schema. Whoever
-- runs it owns them. It fails, and changes nothing, where something of others depends on them: a view, a foreign key, a function.
do $vital_tracking_uninstall$
declare
  -- What the migrations make in the schemas public and analytics. An earlier version may have made functions that are not named here: those
  -- that call functions of vital_private are taken for its own.
  relations constant text[] := '{relations}';
  functions constant text[] := '{functions}';
  thing record;
  lost text;
begin
  perform pg_catalog.set_config('lock_timeout', '10s', true);
  create temporary table vital_tracking_things on commit drop as
  select 'pg_class'::regclass as class, c.oid, c.relkind::text as kind, c.oid::regclass::text as name
  from pg_catalog.pg_class as c
  where c.relkind in ('r', 'p', 'v', 'm') and c.relnamespace = any(array[to_regnamespace('public'), to_regnamespace('analytics')])
    and format('%s.%s', c.relnamespace::regnamespace, c.relname) = any(relations)
  union all
  select 'pg_proc'::regclass, p.oid, 'f', p.oid::regprocedure::text
  from pg_catalog.pg_proc as p
  where p.pronamespace = 'public'::regnamespace and p.prokind <> 'a'
    and (p.proconfig @> array['search_path=""'] or p.prosqlbody is not null)
    and ('public.' || p.proname = any(functions) or p.prosrc like '%vital_private.%');
  -- Everything else that could go along with them.
  create temporary table vital_tracking_others on commit drop as
  select o.class, o.oid, pg_catalog.pg_describe_object(o.class, o.oid, 0) as name
  from (
    select 'pg_class'::regclass as class, c.oid, c.oid as relation, c.relnamespace as namespace
    from pg_catalog.pg_class as c
    where c.relkind in ('r', 'p', 'v', 'm', 'f')
    union all
    select 'pg_proc'::regclass, p.oid, null, p.pronamespace from pg_catalog.pg_proc as p
    union all
    select 'pg_constraint'::regclass, k.oid, k.conrelid, k.connamespace from pg_catalog.pg_constraint as k
    union all
    select 'pg_trigger'::regclass, t.oid, t.tgrelid, c.relnamespace
    from pg_catalog.pg_trigger as t join pg_catalog.pg_class as c on c.oid = t.tgrelid
    where not t.tgisinternal
    union all
    select 'pg_policy'::regclass, p.oid, p.polrelid, c.relnamespace
    from pg_catalog.pg_policy as p join pg_catalog.pg_class as c on c.oid = p.polrelid
  ) as o
  where o.namespace <> all(array['pg_catalog', 'information_schema', 'pg_toast']::regnamespace[])
    and o.namespace is distinct from to_regnamespace('vital_private')
    and not pg_catalog.pg_is_other_temp_schema(o.namespace) and o.namespace <> pg_catalog.pg_my_temp_schema()
    and not exists (
      select from vital_tracking_things as t
      where (t.class = o.class and t.oid = o.oid) or (t.class = 'pg_class'::regclass and t.oid = o.relation)
    );
  if to_regclass('cron.job') is not null then
    execute $$select cron.unschedule(jobid) from cron.job where jobname like 'vital\_tracking.%' and database = current_database()$$;
  end if;
  for thing in select * from vital_tracking_things loop
    -- What fell with another one is gone already.
    if thing.kind = 'f' then
      execute format('drop routine if exists %s cascade', thing.name);
    elsif to_regclass(thing.name) is not null then
      execute format(
        'drop %s %s cascade', case thing.kind when 'v' then 'view' when 'm' then 'materialized view' else 'table' end, thing.name
      );
    end if;
  end loop;
  drop schema if exists vital_private cascade;
  -- A project may have had a schema of this name before, or use ours for more.
  if obj_description(to_regnamespace('analytics')::oid, 'pg_namespace') like 'vital_tracking: %'
    and not exists (select from pg_catalog.pg_class as c where c.relnamespace = to_regnamespace('analytics'))
    and not exists (select from pg_catalog.pg_proc as p where p.pronamespace = to_regnamespace('analytics')) then
    drop schema analytics;
  end if;
  select string_agg(o.name, ', ' order by o.name) into lost
  from vital_tracking_others as o
  where not case o.class
    when 'pg_class'::regclass then exists (select from pg_catalog.pg_class as c where c.oid = o.oid)
    when 'pg_proc'::regclass then exists (select from pg_catalog.pg_proc as p where p.oid = o.oid)
    when 'pg_constraint'::regclass then exists (select from pg_catalog.pg_constraint as k where k.oid = o.oid)
    when 'pg_trigger'::regclass then exists (select from pg_catalog.pg_trigger as t where t.oid = o.oid)
    else exists (select from pg_catalog.pg_policy as p where p.oid = o.oid)
  end;
  if lost is not null then
    raise exception 'These depend on vital_tracking: %.', lost using errcode = '2BP01', hint = 'Drop them first, or change them.';
  end if;
end;
$vital_tracking_uninstall$;
