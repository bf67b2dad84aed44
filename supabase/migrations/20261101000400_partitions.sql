-- One partition a month (UTC) for calls, and for what is not a call: made a year ahead, and later for months whose rows arrived before
-- their partition existed.

-- The tables that are partitioned by month, each with the column of time that decides and the amount that its months are compared by when
-- they are archived. A migration that makes such a table calls vital_private.partition_by_month() for it.
create table vital_private.monthly_tables (
  table_name text not null primary key,
  time_column text not null,
  amount_column text not null,
  -- How long after its end a month is archived unless told otherwise; NULL: when retention would delete it.
  archived_after interval,
  -- The instant from which the rows are complete. Before it some were deleted, and the sums are all that is left: nothing is compared with
  -- the rows or counted again there.
  rows_kept_since timestamptz not null default '-infinity'
);

create function vital_private.rows_kept_since(table_name text default 'token_usage_logs') returns timestamptz
language sql
stable
security definer
set search_path = ''
as $$
  select m.rows_kept_since from vital_private.monthly_tables as m where m.table_name = rows_kept_since.table_name
$$;

-- Note that rows before an instant were deleted; days count as a whole.
create function vital_private.rows_gone_before(instant timestamptz, table_name text default 'token_usage_logs') returns void
language sql
set search_path = ''
as $$
  update vital_private.monthly_tables as m
  set rows_kept_since = greatest(m.rows_kept_since, date_trunc('day', instant - interval '1 microsecond', 'UTC') + interval '1 day')
  where m.table_name = rows_gone_before.table_name
$$;

-- The name of a month's partition of a table.
create function vital_private.partition_of(table_name text, month date) returns text
language sql
stable
set search_path = ''
as $$
  select table_name || '_' || to_char(month, 'YYYY_MM')
$$;

-- The monthly partitions of a table, the oldest first.
create function vital_private.monthly_partitions(table_name text) returns table (month date, relation oid, bytes bigint)
language sql
stable
set search_path = ''
as $$
  select to_date(right(c.relname, 7), 'YYYY_MM'), c.oid, pg_catalog.pg_total_relation_size(c.oid)
  from pg_catalog.pg_inherits as i
  join pg_catalog.pg_class as c on c.oid = i.inhrelid
  where i.inhparent = format('public.%I', table_name)::regclass
    and c.relname ~ format('^%s_[0-9]{4}_[0-9]{2}$', monthly_partitions.table_name)
  order by 1
$$;

-- Move the default partition's rows of one month into a table with the same columns; that table computes the generated ones anew.
-- Returns how many there were.
create function vital_private.move_default_rows(monthly vital_private.monthly_tables, target text, from_month date, to_month date)
returns bigint
language plpgsql
set search_path = ''
set timezone = 'UTC'
as $$
declare
  column_names text;
  moved bigint;
begin
  select string_agg(quote_ident(attname), ', ' order by attnum) into column_names
  from pg_catalog.pg_attribute
  where attrelid = format('public.%I', monthly.table_name)::regclass and attnum > 0 and not attisdropped and attgenerated = '';
  execute format(
    'with moved as (delete from vital_private.%I where %I >= %L and %I < %L returning *)
     insert into vital_private.%I (%s) select %s from moved',
    monthly.table_name || '_default', monthly.time_column, from_month::timestamptz, monthly.time_column, to_month::timestamptz,
    target, column_names, column_names
  );
  get diagnostics moved = row_count;
  return moved;
end;
$$;

-- Make the partition of a month of a table where it is missing, and move rows that the default partition holds for it. Returns how many
-- those were; NULL where the partition was there.
create function vital_private.make_partition(monthly vital_private.monthly_tables, month date) returns bigint
language plpgsql
set search_path = ''
set timezone = 'UTC'
as $$
declare
  next_month constant date := make_partition.month + interval '1 month';
  partition_name constant text := vital_private.partition_of(monthly.table_name, make_partition.month);
  moved bigint;
begin
  if to_regclass(format('vital_private.%I', partition_name)) is not null then
    return null;
  end if;
  execute format('create table vital_private.%I (like public.%I including all)', partition_name, monthly.table_name);
  perform vital_private.restrict_relation(format('vital_private.%I', partition_name));
  -- While the new partition is attached, no row of its month may stay in the default partition or be added to it.
  execute format('lock table vital_private.%I in access exclusive mode', monthly.table_name || '_default');
  moved := vital_private.move_default_rows(monthly, partition_name, make_partition.month, next_month);
  execute format(
    'alter table public.%I attach partition vital_private.%I for values from (%L) to (%L)',
    monthly.table_name, partition_name, make_partition.month::timestamptz, next_month::timestamptz
  );
  return moved;
end;
$$;

-- Make the partitions of `first_month` and the months after it, `months` in all, of all tables, and move rows that the default
-- partitions hold for them. Returns for how many months it made any. Months are those of UTC, so the answer does not depend on the
-- session's time zone.
create function public.ensure_partitions_v1(first_month date, months integer) returns integer
language plpgsql
security definer
set search_path = ''
set timezone = 'UTC'
as $$
declare
  wanted date := date_trunc('month', first_month)::date;
  made integer := 0;
begin
  if first_month is null or months is null or months not between 1 and 120 then
    raise exception 'first_month must be a date, months a number from 1 to 120.' using errcode = '22023';
  end if;
  -- Two processes may do this at once: the second waits and then finds the work done.
  perform pg_catalog.pg_advisory_xact_lock(hashtext('vital_tracking.partitions'));
  for number in 1..months loop
    made := made + (
      select count(distinct 1) from (
        select vital_private.make_partition(m, wanted) as moved from vital_private.monthly_tables as m order by m.table_name
      ) as partitions
      where partitions.moved is not null
    );
    wanted := wanted + interval '1 month';
  end loop;
  return made;
end;
$$;

-- The months whose rows are in a default partition although they may have a partition of their own: months from which rows are kept,
-- of the last ten years or of the coming one. (What is dated by a clock that is far off gets no partition.)
create function vital_private.homeless_months() returns table (table_name text, month date)
language plpgsql
stable
set search_path = ''
set timezone = 'UTC'
as $$
declare
  monthly vital_private.monthly_tables;
begin
  for monthly in select m.* from vital_private.monthly_tables as m order by m.table_name loop
    return query execute format(
      'select distinct %L, date_trunc(''month'', d.%I at time zone ''UTC'')::date
      from vital_private.%I as d
      where d.%I >= greatest(%L, now() - interval ''10 years'') and d.%I < now() + interval ''13 months''',
      monthly.table_name, monthly.time_column, monthly.table_name || '_default', monthly.time_column,
      monthly.rows_kept_since, monthly.time_column
    );
  end loop;
end;
$$;

-- Make the partitions of this month and the twelve after it, and those of months that have rows in a default partition. It waits at
-- most `patience_ms` for whoever holds a lock, because others queue behind it meanwhile; what it could not do, the next run does.
create function public.maintain_partitions(patience_ms integer default 2000) returns json
language plpgsql
security definer
set search_path = ''
set timezone = 'UTC'
set statement_timeout = '15min'
as $$
declare
  this_month constant date := date_trunc('month', now())::date;
  monthly vital_private.monthly_tables;
  wanted date;
  made integer := 0;
  moved bigint := 0;
  left_for_later integer := 0;
begin
  -- One at a time: whoever comes second leaves the work to the first.
  if not pg_catalog.pg_try_advisory_xact_lock(hashtext('vital_tracking.partitions')) then
    return json_build_object('made', 0, 'moved', 0, 'waiting', 0, 'busy', true);
  end if;
  perform set_config('lock_timeout', greatest(coalesce(patience_ms, 2000), 1)::text, true);
  for monthly in select m.* from vital_private.monthly_tables as m order by m.table_name loop
    for wanted in
      select w.month
      from (
        select (this_month + step * interval '1 month')::date as month from generate_series(0, 12) as step
        union
        select h.month from vital_private.homeless_months() as h where h.table_name = monthly.table_name
      ) as w
      where to_regclass(format('vital_private.%I', vital_private.partition_of(monthly.table_name, w.month))) is null
      order by w.month desc
      limit 36
    loop
      begin
        moved := moved + coalesce(vital_private.make_partition(monthly, wanted), 0);
        made := made + 1;
      exception when lock_not_available or deadlock_detected then
        left_for_later := left_for_later + 1;
      end;
    end loop;
  end loop;
  perform set_config('lock_timeout', '0', true);
  return json_build_object('made', made, 'moved', moved, 'waiting', left_for_later, 'busy', false);
end;
$$;

comment on function public.maintain_partitions(integer) is 'Makes partitions a year ahead and moves rows of the default partitions.';

-- The same for every process that starts: where there is nothing to do, which is nearly always, it takes no lock at all.
create function public.maintain_partitions_v1() returns json
language plpgsql
security definer
set search_path = ''
set timezone = 'UTC'
set statement_timeout = '15min'
as $$
begin
  if not exists (select from vital_private.homeless_months()) and not exists (
    select from vital_private.monthly_tables as m
    where to_regclass(
      format('vital_private.%I', vital_private.partition_of(m.table_name, (now() + interval '6 months')::date))
    ) is null
  ) then
    return json_build_object('made', 0, 'moved', 0, 'waiting', 0, 'busy', false);
  end if;
  return public.maintain_partitions();
end;
$$;

-- Have a table that is partitioned by month kept: make its default partition, and its partitions from last month on.
create function vital_private.partition_by_month(
  table_name text, time_column text, amount_column text, archived_after interval default null
) returns void
language plpgsql
set search_path = ''
set timezone = 'UTC'
as $$
declare
  monthly vital_private.monthly_tables;
begin
  insert into vital_private.monthly_tables as m (table_name, time_column, amount_column, archived_after)
  values (
    partition_by_month.table_name, partition_by_month.time_column, partition_by_month.amount_column, partition_by_month.archived_after
  )
  returning m.* into monthly;
  execute format('create table vital_private.%I partition of public.%I default', table_name || '_default', table_name);
  perform vital_private.restrict_relation(format('vital_private.%I', table_name || '_default'));
  perform vital_private.make_partition(monthly, (date_trunc('month', now()) + step * interval '1 month')::date)
  from generate_series(-1, 12) as step;
end;
$$;

select vital_private.restrict_relation('vital_private.monthly_tables');
select vital_private.restrict_functions(
  api => '{ensure_partitions_v1, maintain_partitions, maintain_partitions_v1}', helpers => '{rows_kept_since}'
);

select vital_private.partition_by_month('token_usage_logs', 'created_at', 'total_cost');
