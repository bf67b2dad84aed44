-- Copies elsewhere, such as in a ClickHouse: which rows are new or changed, which are gone, and how far each copy has come.
--
-- Each row carries the transaction that wrote it last (`xact`). A transaction that began earlier may commit later, so what is read is
-- below the oldest transaction that still runs, pg_snapshot_xmin(pg_current_snapshot()): below it nothing can appear any more, and nothing
-- is missed. That works through poolers and takes no replication slot.
--
-- Recording pays for the column alone. The triggers and indexes below are made where a copy is set up, and dropped with the last one.

-- The tables that are copied, each with the column of its time.
create table vital_private.exported_tables (
  table_name text not null primary key,
  time_column text not null
);

insert into vital_private.exported_tables (table_name, time_column) values
('token_usage_logs', 'created_at'),
('service_runs', 'started_at'),
('platform_events', 'occurred_at'),
('tenant_cost_events', 'occurred_at'),
('agent_executions', 'started_at');

-- Copies. A copy made anew has an id of its own, and so is filled from the start. `session` is the process that fills it: whoever starts
-- last. Transaction ids begin anew where the database is restored on another server; `epoch` tells the rows read after that from those
-- before, and `server` and the places by which that is noticed.
create table vital_private.exports (
  copy uuid not null primary key,
  target text not null,
  session uuid not null,
  epoch integer not null default 1,
  server bigint,
  since timestamptz,
  begun_at timestamptz not null default now(),
  seen_at timestamptz not null default now()
);

comment on table vital_private.exports is 'Copies of the rows elsewhere: where, since when, and which process fills each.';
comment on column vital_private.exports.target is 'Where the copy is, without user and password.';
comment on column vital_private.exports.since is 'Rows from before this are not copied; NULL: all are.';

-- How far a copy of a table has come. Until `loaded` the rows that were there at its beginning are read by their time, up to `loading`
-- so far; from then on by `place`: all that transactions before it have written is in the copy. `to_clean` are the months that hold
-- what was deleted, until their bytes are gone there, too.
create table vital_private.export_places (
  copy uuid not null references vital_private.exports on delete cascade,
  table_name text not null references vital_private.exported_tables,
  place xid8 not null,
  loading timestamptz not null default '-infinity',
  loaded boolean not null default false,
  sent_rows bigint not null default 0,
  to_clean date[] not null default '{}',
  saved_at timestamptz not null default now(),
  primary key (copy, table_name)
);

-- What was deleted, or is known by another key now, until every copy knows; nothing of the row but its key. What retention drops is not
-- here: a copy may keep it.
create table vital_private.export_deletions (
  xact xid8 not null default pg_current_xact_id(),
  table_name text not null,
  id text not null,
  organization_id text,
  at timestamptz not null
);
create index export_deletions_xact on vital_private.export_deletions (table_name, xact);

select vital_private.restrict_relation('vital_private.exported_tables');
select vital_private.restrict_relation('vital_private.exports');
select vital_private.restrict_relation('vital_private.export_places');
select vital_private.restrict_relation('vital_private.export_deletions', readers => '{service_role}');

-- A row that is changed is one of the transaction that changes it.
create function vital_private.stamp_change() returns trigger
language plpgsql
set search_path = ''
as $$
begin
  new.xact := pg_current_xact_id();
  return new;
end;
$$;

-- Note the keys of rows that are gone. Retention deletes from partitions themselves, where this is not called, or says that sums stay.
create function vital_private.note_deletions() returns trigger
language plpgsql
set search_path = ''
as $$
begin
  if tg_op = 'DELETE' and current_setting('vital_tracking.keep_sums', true) = 'on' then
    return null;
  end if;
  execute format(
    'insert into vital_private.export_deletions (table_name, id, organization_id, at)
    select %L, o.id, o.organization_id, o.%I from old_rows as o %s',
    tg_table_name, tg_argv[0],
    case when tg_op = 'UPDATE' then format(
      'where not exists (
        select from new_rows as n where n.id = o.id and n.%1$I = o.%1$I and n.organization_id is not distinct from o.organization_id
      )', tg_argv[0]
    ) end
  );
  return null;
end;
$$;

-- Have the changes of the tables noted. The triggers wait for whoever is writing, so what is read afterwards misses nothing.
create function vital_private.note_changes() returns void
language plpgsql
security definer
set search_path = ''
as $$
declare
  one vital_private.exported_tables;
begin
  for one in select e.* from vital_private.exported_tables as e order by e.table_name loop
    if not exists (
      select from pg_catalog.pg_trigger as t
      where t.tgrelid = format('public.%I', one.table_name)::regclass and t.tgname = 'export_1_stamp'
    ) then
      execute format(
        'create trigger export_1_stamp before update on public.%1$I for each row execute function vital_private.stamp_change();
        create trigger export_2_deletions after delete on public.%1$I
        referencing old table as old_rows for each statement execute function vital_private.note_deletions(%2$L);
        create trigger export_3_moves after update on public.%1$I
        referencing old table as old_rows new table as new_rows
        for each statement execute function vital_private.note_deletions(%2$L)',
        one.table_name, one.time_column
      );
    end if;
  end loop;
end;
$$;

-- This server, by which a database that was restored on another one is known; NULL where that may not be asked.
create function vital_private.server_id() returns bigint
language plpgsql
stable
set search_path = ''
as $$
begin
  return (select s.system_identifier from pg_catalog.pg_control_system() as s);
exception when insufficient_privilege then
  return null;
end;
$$;

-- Begin or go on filling a copy, as the process `session`: {"epoch", "since", "tables": {name: {"place", "loading" (NULL: not begun),
-- "loaded", "to_clean", "sent_rows"}}}. A process that fills it already stops at its next step. `since` counts where the copy is new.
create function public.export_begin_v1(copy uuid, target text, session uuid, since timestamptz default null) returns json
language plpgsql
security definer
set search_path = ''
set timezone = 'UTC'
as $$
declare
  known vital_private.exports;
  horizon xid8;
begin
  perform vital_private.check_given('copy', export_begin_v1.copy::text);
  perform vital_private.check_given('target', export_begin_v1.target);
  perform vital_private.check_given('session', export_begin_v1.session::text);
  perform vital_private.note_changes();
  insert into vital_private.exports as e (copy, target, session, server, since)
  values (export_begin_v1.copy, left(export_begin_v1.target, 500), export_begin_v1.session, vital_private.server_id(), export_begin_v1.since)
  on conflict on constraint exports_pkey do update
    set session = excluded.session, target = excluded.target, seen_at = now()
  returning e.* into known;
  horizon := pg_snapshot_xmin(pg_current_snapshot());
  if known.server <> vital_private.server_id() or exists (
    select from vital_private.export_places as p where p.copy = known.copy and p.place > pg_snapshot_xmax(pg_current_snapshot())
  ) then
    update vital_private.exports as e set epoch = e.epoch + 1, server = vital_private.server_id() where e.copy = known.copy
    returning e.* into known;
    delete from vital_private.export_places as p where p.copy = known.copy;
  end if;
  insert into vital_private.export_places (copy, table_name, place)
  select known.copy, t.table_name, horizon from vital_private.exported_tables as t
  on conflict do nothing;
  return (
    select json_build_object(
      'epoch', known.epoch,
      'since', known.since,
      'tables', json_object_agg(p.table_name, json_build_object(
        'place', p.place::text, 'loading', nullif(p.loading, '-infinity'), 'loaded', p.loaded, 'to_clean', p.to_clean, 'sent_rows', p.sent_rows
      ))
    )
    from vital_private.export_places as p
    where p.copy = known.copy
  );
end;
$$;

-- Note how far the copy of a table has come; what is NULL stays as it is. `place` never goes back. False: another process fills the copy
-- by now, and nothing is noted. `clean` adds months to those that are to be cleaned, `cleaned` takes them out.
create function public.export_save_v1(
  copy uuid, session uuid, table_name text, place text default null, loading timestamptz default null, loaded boolean default null,
  sent bigint default 0, clean date[] default null, cleaned date[] default null
) returns boolean
language plpgsql
security definer
set search_path = ''
set timezone = 'UTC'
as $$
declare
  horizon xid8;
begin
  perform vital_private.check_given('copy', export_save_v1.copy::text);
  perform vital_private.check_given('session', export_save_v1.session::text);
  perform vital_private.check_given('table_name', export_save_v1.table_name);
  update vital_private.exports as e set seen_at = now()
  where e.copy = export_save_v1.copy and e.session = export_save_v1.session;
  if not found then
    return false;
  end if;
  update vital_private.export_places as p
  set
    place = greatest(p.place, export_save_v1.place::xid8),
    loading = greatest(p.loading, export_save_v1.loading),
    loaded = coalesce(export_save_v1.loaded, p.loaded),
    sent_rows = p.sent_rows + coalesce(export_save_v1.sent, 0),
    to_clean = array(
      select m.month
      from (select unnest(p.to_clean) as month union select unnest(export_save_v1.clean)) as m
      where m.month <> all(coalesce(export_save_v1.cleaned, '{}'))
      order by m.month
    ),
    saved_at = now()
  where p.copy = export_save_v1.copy and p.table_name = export_save_v1.table_name;
  -- Deletions that every copy knows.
  select min(p.place) into horizon from vital_private.export_places as p where p.table_name = export_save_v1.table_name;
  delete from vital_private.export_deletions as d where d.table_name = export_save_v1.table_name and d.xact < horizon;
  return true;
end;
$$;

-- Make the next index by which changes are found, of one partition at a time: nobody can write to that one until it is made. The answer is
-- how many are still to make.
create function public.export_index_v1() returns integer
language plpgsql
security definer
set search_path = ''
set statement_timeout = '60min'
as $$
declare
  missing record;
begin
  select
    i.relation, i.parent, count(*) over ()::integer as left_over
  into missing
  from (
    select coalesce(p.relid::regclass, t.oid::regclass) as relation, t.oid::regclass as parent, coalesce(p.level, 0) as level
    from vital_private.exported_tables as e
    join pg_catalog.pg_class as t on t.oid = format('public.%I', e.table_name)::regclass
    left join lateral pg_catalog.pg_partition_tree(t.oid) as p on t.relkind = 'p'
  ) as i
  where not exists (
    select from pg_catalog.pg_class as x
    join pg_catalog.pg_index as d on d.indexrelid = x.oid
    where d.indrelid = i.relation and x.relname like '%\_xact%' and d.indisvalid
  )
  -- The partitions first: an index of the whole table takes theirs.
  order by i.level desc, i.relation::text
  limit 1;
  if missing.relation is null then
    return 0;
  end if;
  execute format('create index %I on %s (xact)', split_part(missing.relation::text || '_xact', '.', 2), missing.relation);
  return missing.left_over - 1;
end;
$$;

-- Remove a copy from what is known; with the last one what noted the changes goes, too. False: there was none.
create function public.export_end_v1(copy uuid) returns boolean
language plpgsql
security definer
set search_path = ''
as $$
declare
  gone boolean;
  one vital_private.exported_tables;
begin
  perform vital_private.check_given('copy', export_end_v1.copy::text);
  delete from vital_private.exports as e where e.copy = export_end_v1.copy;
  gone := found;
  if not exists (select from vital_private.exports) then
    for one in select e.* from vital_private.exported_tables as e order by e.table_name loop
      execute format(
        'drop trigger if exists export_1_stamp on public.%1$I;
        drop trigger if exists export_2_deletions on public.%1$I;
        drop trigger if exists export_3_moves on public.%1$I;
        drop index if exists public.%2$I',
        one.table_name, one.table_name || '_xact'
      );
    end loop;
    delete from vital_private.export_deletions;
  end if;
  return gone;
end;
$$;

-- Whoever keeps the copies from going on: the oldest transaction that has written and still runs, in any database of the server.
create function vital_private.oldest_writer() returns json
language sql
stable
security definer
set search_path = ''
as $$
  select json_build_object('pid', w.pid, 'application', w.application, 'role', w.role, 'database', w.database, 'since', w.since)
  from (
    select a.pid, a.application_name as application, a.usename as role, a.datname as database, a.xact_start as since, a.backend_xid as xid
    from pg_catalog.pg_stat_activity as a
    where a.backend_xid is not null and a.pid <> pg_backend_pid()
    union all
    select null, 'prepared transaction ' || p.gid, p.owner, p.database, p.prepared, p.transaction
    from pg_catalog.pg_prepared_xacts as p
  ) as w
  order by age(w.xid) desc
  limit 1
$$;

-- How far each copy is: [{"copy", "target", "epoch", "since", "seen_at", "tables": [{"table_name", "loaded", "loading", "sent_rows",
-- "lag_seconds": the age of the oldest change that is not in it, "waiting_rows": at most 100,001, "to_clean"}], "held_by": the transaction
-- that holds all back, for more than five seconds: {"pid", "application", "role", "database", "since"}}].
create function public.export_status_v1() returns json
language plpgsql
stable
security definer
set search_path = ''
set timezone = 'UTC'
as $$
declare
  one record;
  waiting record;
  tables jsonb := '{}';
  holder json := vital_private.oldest_writer();
begin
  for one in
    select p.* from vital_private.export_places as p order by p.copy, p.table_name
  loop
    execute format(
      'select
        (select extract(epoch from now() - min(w.recorded_at)) from (
          select t.recorded_at from public.%1$I as t where t.xact >= $1 and t.xact < $2 order by t.xact limit 100
        ) as w) as lag,
        (select count(*) from (select from public.%1$I as t where t.xact >= $1 and t.xact < $2 limit 100001) as w) as rows',
      one.table_name
    ) into waiting using one.place, pg_snapshot_xmax(pg_current_snapshot());
    tables := jsonb_set(
      tables, array[one.copy::text],
      coalesce(tables -> one.copy::text, '[]') || jsonb_build_object(
        'table_name', one.table_name, 'loaded', one.loaded, 'loading', nullif(one.loading, '-infinity'), 'sent_rows', one.sent_rows,
        'lag_seconds', round(coalesce(greatest(waiting.lag, 0), 0), 3), 'waiting_rows', waiting.rows, 'to_clean', one.to_clean
      )
    );
  end loop;
  return (
    select coalesce(json_agg(json_build_object(
      'copy', e.copy, 'target', e.target, 'epoch', e.epoch, 'since', e.since, 'seen_at', e.seen_at, 'tables', tables -> e.copy::text,
      'held_by', case when (holder ->> 'since')::timestamptz < now() - interval '5 seconds' then holder end
    ) order by e.begun_at), '[]')
    from vital_private.exports as e
  );
end;
$$;

-- What a copied table comes to by day (UTC), to be compared with a copy of it: {"since": from when on (NULL: from the first row on; what
-- retention has deleted is left out), "days": [{"day", "rows", "amounts": the sum of its amounts, each with
-- 12 digits, "ids": that of what the last twelve hexadecimal digits of the ids say, of runs those of their MD5, "xacts": that of the
-- transactions that wrote the rows, "waiting": rows and deletions that are on their way to the copy}]}.
create function public.export_days_v1(
  copy uuid, table_name text, since timestamptz default null, until timestamptz default null
) returns json
language plpgsql
stable
security definer
set search_path = ''
set timezone = 'UTC'
set statement_timeout = '15min'
as $$
declare
  exported vital_private.exported_tables;
  reached xid8;
  earliest timestamptz;
  answer json;
begin
  perform vital_private.check_given('copy', export_days_v1.copy::text);
  perform vital_private.check_given('table_name', export_days_v1.table_name);
  perform vital_private.check_times(since, until);
  select t.* into exported from vital_private.exported_tables as t where t.table_name = export_days_v1.table_name;
  select p.place, coalesce(e.since, '-infinity') into reached, earliest
  from vital_private.export_places as p
  join vital_private.exports as e on e.copy = p.copy
  where p.copy = export_days_v1.copy and p.table_name = export_days_v1.table_name;
  if exported.table_name is null or reached is null then
    raise exception 'There is no copy % of a table_name %.', export_days_v1.copy, left(export_days_v1.table_name, 63) using errcode = '22023';
  end if;
  earliest := greatest(
    earliest, since,
    -- Runs are deleted one by one: what is left begins with the first.
    case when exported.table_name = 'service_runs' then (select coalesce(date_trunc('day', min(r.started_at)), 'infinity') from public.service_runs as r)
      else vital_private.rows_kept_since(exported.table_name) end
  );
  execute format(
    $query$
    with found as (
      select
        (t.%1$I at time zone 'UTC')::date as day, count(*) as rows, sum(%2$s) as amounts, sum(%3$s) as ids,
        sum(t.xact::text::numeric) as xacts, count(*) filter (where t.xact >= $1) as waiting
      from public.%4$I as t
      where t.%1$I >= $2 and t.%1$I < $3
      group by 1
    ),

    gone as (
      select (d.at at time zone 'UTC')::date as day, count(*) as waiting
      from vital_private.export_deletions as d
      where d.table_name = %4$L and d.xact >= $1 and d.at >= $2 and d.at < $3
      group by 1
    )

    select json_build_object('since', nullif($2, '-infinity'), 'days', coalesce(json_agg(json_build_object(
      'day', day, 'rows', coalesce(f.rows, 0), 'amounts', trim_scale(coalesce(f.amounts, 0))::text, 'ids', coalesce(f.ids, 0)::text,
      'xacts', coalesce(f.xacts, 0)::text, 'waiting', coalesce(f.waiting, 0) + coalesce(g.waiting, 0)
    ) order by day), '[]'))
    from found as f
    full join gone as g using (day)
    $query$,
    exported.time_column,
    coalesce((
      select string_agg(format('case when abs(t.%1$I) < 1e26 then round(t.%1$I, 12) else 0 end', m.amount_column), '')
      from vital_private.monthly_tables as m
      where m.table_name = exported.table_name
    ), '0'),
    case
      when exported.table_name = 'service_runs' then '(''x'' || right(md5(t.id), 12))::bit(48)::bigint'
      else 'vital_private.id_digits(t.id)'
    end,
    exported.table_name
  ) into answer using reached, earliest, coalesce(until, 'infinity');
  return answer;
end;
$$;

-- A list of texts as ClickHouse reads it.
create function vital_private.quoted_list(list text[]) returns text
language sql
immutable
parallel safe
set search_path = ''
as $$
  select '[' || coalesce(string_agg('''' || replace(coalesce(e.value, ''), '''', '''''') || '''', ',' order by e.ordinality), '') || ']'
  from unnest(list) with ordinality as e (value, ordinality)
$$;

select vital_private.restrict_functions(
  api => '{export_begin_v1, export_save_v1, export_index_v1, export_end_v1, export_status_v1, export_days_v1}', helpers => '{quoted_list}'
);
