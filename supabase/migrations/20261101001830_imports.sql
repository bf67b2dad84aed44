-- What others saw: lines of access logs, read from files and recorded as events and costs, each line once.
--
-- How far a file has been read is kept here, and moves in the transaction that records what was read: so a run that was killed goes on where
-- it stood, and a run over the same file finds nothing left. A file is known by how it begins, so it keeps its place when it is renamed,
-- compressed or copied. No text of a line is kept, good or bad: it may hold addresses, names and tokens. Of a bad line there is where it
-- stands and what is wrong with it, for 30 days; the text is in the file (docs/decisions/0039).

create table vital_private.import_files (
  file_key text primary key,
  head_hash text not null,
  name text,
  server text,
  place bigint not null default 0,
  lines bigint not null default 0,
  events bigint not null default 0,
  costs bigint not null default 0,
  bad_lines bigint not null default 0,
  first_read_at timestamptz not null default now(),
  last_read_at timestamptz not null default now(),
  constraint import_files_key check (file_key ~ '^[0-9a-f]{16}$'),
  constraint import_files_place check (place >= 0)
);

comment on table vital_private.import_files is 'Files of which lines were imported, and how far each has been read.';
comment on column vital_private.import_files.file_key is 'What the ids of its lines are made from: the hash of how it began when it was first read.';
comment on column vital_private.import_files.head_hash is 'The hash of its first lines, without addresses: by this it is known again.';
comment on column vital_private.import_files.place is 'Bytes of its text, uncompressed, that are recorded.';
comment on column vital_private.import_files.lines is 'Lines up to there.';

-- A part of a file that was read at once, kept for 30 days: which lines came in when.
create table vital_private.import_batches (
  file_key text not null references vital_private.import_files on delete cascade,
  starts_at bigint not null,
  ends_at bigint not null,
  lines integer not null,
  events integer not null,
  costs integer not null,
  bad_lines integer not null,
  imported_at timestamptz not null default now(),
  primary key (file_key, starts_at)
);

-- A line that could not be read, kept for 30 days: where it stands, and what is wrong with it.
create table vital_private.import_bad_lines (
  file_key text not null references vital_private.import_files on delete cascade,
  place bigint not null,
  line_number bigint not null,
  line_length bigint not null,
  reason text not null,
  imported_at timestamptz not null default now(),
  primary key (file_key, place),
  constraint import_bad_lines_reason check (reason ~ '^[a-z0-9_: ]{1,64}$')
);

create index import_files_head on vital_private.import_files (head_hash);
create index import_batches_time on vital_private.import_batches (imported_at);
create index import_bad_lines_time on vital_private.import_bad_lines (imported_at);

select vital_private.restrict_relation('vital_private.import_files');
select vital_private.restrict_relation('vital_private.import_batches');
select vital_private.restrict_relation('vital_private.import_bad_lines');

-- The file that begins in one of these ways; NULL where none is known.
create function vital_private.import_file_of(heads json) returns vital_private.import_files
language sql
stable
set search_path = ''
as $$
  select f.*
  from json_array_elements_text(heads) with ordinality as h (hash, number)
  inner join vital_private.import_files as f on f.head_hash = h.hash
  order by h.number desc, f.place desc
  limit 1
$$;

-- How far the file that begins in one of these ways has been read: {"file_key", "place", "lines"}, with NULL and 0 where
-- it is new. `heads` is a JSON array of hashes: of its first line, of its first two, and so on. The longest that is known counts.
create function public.import_place_v1(heads text) returns json
language plpgsql
security definer
set search_path = ''
as $$
declare
  known vital_private.import_files;
begin
  perform vital_private.check_given('heads', heads);
  delete from vital_private.import_batches as b where b.imported_at < now() - interval '30 days';
  delete from vital_private.import_bad_lines as b where b.imported_at < now() - interval '30 days';
  known := vital_private.import_file_of(heads::json);
  return json_build_object('file_key', known.file_key, 'place', coalesce(known.place, 0), 'lines', coalesce(known.lines, 0));
end;
$$;

-- Record what was read of a file from one place to another: {"taken", "place", "events", "costs", "bad_lines"}, how many of these were new. The
-- batch is taken if the file's place is where it starts; if another run was faster it is not, and the answer says where the file stands.
-- A batch with `again` is taken wherever it starts: its lines have the ids that they had, so those that are there stay as they are, and
-- those of times whose rows are gone are left out: their sums are there.
--   file: {"key", "head", "name", "server"}, and "heads" where it was new; line: how many lines there are up to the place
--   events: an array for each column; costs: rows; bad: [[place, number, length, reason], ...]
create function public.import_lines_v1(batch text) returns json
language plpgsql
security definer
set search_path = ''
as $$
declare
  given record;
  file record;
  stands bigint;
  new_events bigint := 0;
  new_costs bigint := 0;
  new_bad bigint := 0;
begin
  perform vital_private.check_given('batch', batch);
  select * into given
  from json_to_record(batch::json) as b (
    file json, starts_at bigint, place bigint, line bigint, lines integer, again boolean, events json, costs json, bad json
  );
  select * into file from json_to_record(given.file) as f (key text, head text, heads json, name text, server text);
  if file.key is null or file.head is null or given.starts_at is null or given.place is null or given.place < given.starts_at then
    raise exception 'A batch of lines names its file, and from where to where in it they stand.' using errcode = '22023';
  end if;

  if file.heads is not null then
    -- It was not known a moment ago. Two runs may see it for the first time at once, at different lengths: the first one names it.
    perform pg_catalog.pg_advisory_xact_lock(hashtext('vital_tracking.imports'));
    if (vital_private.import_file_of(file.heads)).file_key is null then
      insert into vital_private.import_files (file_key, head_hash, name, server)
      values (file.key, file.head, file.name, file.server)
      on conflict do nothing;
    end if;
  end if;
  select f.place into stands from vital_private.import_files as f where f.file_key = file.key for update;
  if stands is null or (stands <> given.starts_at and given.again is not true) then
    return json_build_object('taken', false, 'place', coalesce(stands, 0), 'events', 0, 'costs', 0, 'bad_lines', 0);
  end if;

  if given.events is not null then
    insert into public.platform_events (
      id, occurred_at, organization_id, user_id, session_id, category, event_name, source, ip_hash, value, properties
    )
    select
      l.id, l.occurred_at, l.organization_id, l.user_id, l.session_id, 'system_health', e.event_name, l.source, l.ip_hash, l.value,
      l.properties
    from json_to_record(given.events) as e (
      event_name text, id uuid[], occurred_at timestamptz[], organization_id text[], user_id text[], session_id text[], source text[],
      ip_hash text[], value numeric[], properties jsonb[]
    )
    cross join lateral unnest(
      e.id, e.occurred_at, e.organization_id, e.user_id, e.session_id, e.source, e.ip_hash, e.value, e.properties
    ) as l (id, occurred_at, organization_id, user_id, session_id, source, ip_hash, value, properties)
    where given.again is not true or l.occurred_at >= vital_private.rows_kept_since('platform_events')
    order by l.id, l.occurred_at
    on conflict (id, occurred_at) do nothing;
    get diagnostics new_events = row_count;
  end if;
  if given.again then
    given.costs := (
      select json_agg(c.value) from json_array_elements(given.costs) as c (value)
      where (c.value ->> 'occurred_at')::timestamptz >= vital_private.rows_kept_since('tenant_cost_events')
    );
  end if;
  if json_array_length(given.costs) > 0 then
    new_costs := (vital_private.insert_costs(given.costs, null))[1];
  end if;
  if json_array_length(given.bad) > 0 then
    select count(*) into new_bad from json_array_elements(given.bad) as b where (b.value ->> 0)::bigint >= stands;
    -- Of a file that is no log at all the first ten thousand are enough; all are counted.
    insert into vital_private.import_bad_lines (file_key, place, line_number, line_length, reason)
    select file.key, (b.value ->> 0)::bigint, (b.value ->> 1)::bigint, (b.value ->> 2)::bigint, b.value ->> 3
    from json_array_elements(given.bad) as b
    cross join vital_private.import_files as f
    where f.file_key = file.key and f.bad_lines < 10000 and (b.value ->> 0)::bigint >= stands
    on conflict do nothing;
  end if;
  insert into vital_private.import_batches (file_key, starts_at, ends_at, lines, events, costs, bad_lines)
  select file.key, given.starts_at, given.place, coalesce(given.lines, 0), new_events, new_costs, new_bad
  where given.place > stands
  on conflict do nothing;
  update vital_private.import_files as f
  set
    place = greatest(f.place, given.place), lines = greatest(f.lines, given.line), head_hash = file.head,
    name = coalesce(file.name, f.name), events = f.events + new_events, costs = f.costs + new_costs,
    bad_lines = f.bad_lines + new_bad, last_read_at = now()
  where f.file_key = file.key
  returning f.place into stands;
  return json_build_object('taken', true, 'place', stands, 'events', new_events, 'costs', new_costs, 'bad_lines', new_bad);
end;
$$;

-- The files of which lines were imported, the last read first, with the bad lines of the last 30 days of each.
create function public.imports_v1(max_rows integer default 50) returns json
language sql
stable
security definer
set search_path = ''
as $$
  select coalesce(json_agg(found.* order by found.last_read_at desc, found.file_key), '[]')
  from (
    select
      f.file_key, f.name, f.server, f.place, f.lines, f.events, f.costs, f.bad_lines, f.first_read_at, f.last_read_at,
      (
        select coalesce(json_agg(b.* order by b.place), '[]')
        from (
          select l.place, l.line_number, l.line_length, l.reason
          from vital_private.import_bad_lines as l
          where l.file_key = f.file_key and l.imported_at >= now() - interval '30 days'
          order by l.place
          limit 20
        ) as b
      ) as bad
    from vital_private.import_files as f
    order by f.last_read_at desc, f.file_key
    limit least(greatest(coalesce(max_rows, 50), 1), 1000)
  ) as found
$$;

select vital_private.restrict_functions(api => '{import_place_v1, import_lines_v1, imports_v1}');
