-- What a client asks of the database itself: which one it is, and what time it is there.

-- An identity of its own, by which clients recognise this database whatever host name, port or pooler they reach it through.
--
-- The id is part of the data: a dump restored elsewhere, a replica that was promoted and a cloned project all carry the id of the
-- database they were made from, and clients treat them as the same database. Give a copy that lives on beside the original an id of
-- its own: update vital_private.database_identity set id = gen_random_uuid();
create table vital_private.database_identity (
  id uuid not null default gen_random_uuid(),
  created_at timestamptz not null default now(),
  -- The table holds one row: `one_row` can have no other value than true, and is the key.
  one_row boolean primary key default true,
  constraint database_identity_one_row check (one_row)
);

comment on table vital_private.database_identity is 'One row: the random id by which clients recognise this database.';

select vital_private.restrict_relation('vital_private.database_identity');

insert into vital_private.database_identity default values;

create function public.database_id_v1() returns text
language sql
stable
security definer
set search_path = ''
as $$
  select id::text from vital_private.database_identity
$$;

comment on function public.database_id_v1() is 'The id of this database, a UUID; a restored dump keeps it.';

-- The database's clock. Calls and budget windows are dated by it, whatever the clock of the machine that sends them says.
create function public.database_time_v1() returns json
language sql
stable
security definer
set search_path = ''
as $$
  select to_json(clock_timestamp())
$$;

select vital_private.restrict_functions(api => '{database_id_v1, database_time_v1}');
