-- One partition a month (UTC) for calls: made a year ahead, and later for months whose calls arrived before their partition existed.

-- The instant from which the rows of calls are complete. Before it some were deleted by retention, and the aggregations are all that is
-- left: nothing is compared with the rows or counted again there.
create table vital_private.usage_state (
  singleton boolean primary key default true,
  rows_kept_since timestamptz not null default '-infinity',
  constraint usage_state_singleton check (singleton)
);

insert into vital_private.usage_state default values;

create function vital_private.rows_kept_since() returns timestamptz
language sql
stable
security definer
set search_path = ''
as $$
  select s.rows_kept_since from vital_private.usage_state as s
$$;

-- Note that rows before an instant were deleted; days count as a whole.
create function vital_private.rows_gone_before(instant timestamptz) returns void
language sql
set search_path = ''
as $$
  update vital_private.usage_state as s
  set rows_kept_since = greatest(s.rows_kept_since, date_trunc('day', instant - interval '1 microsecond', 'UTC') + interval '1 day')
$$;

-- The name of a month's partition.
create function vital_private.partition_of(month date) returns text
language sql
stable
set search_path = ''
as $$
  select 'token_usage_logs_' || to_char(month, 'YYYY_MM')
$$;

-- The monthly partitions, the oldest first.
create function vital_private.monthly_partitions() returns table (month date, relation oid, bytes bigint)
language sql
stable
set search_path = ''
as $$
  select to_date(right(c.relname, 7), 'YYYY_MM'), c.oid, pg_catalog.pg_total_relation_size(c.oid)
  from pg_catalog.pg_inherits as i
  join pg_catalog.pg_class as c on c.oid = i.inhrelid
  where i.inhparent = 'public.token_usage_logs'::regclass and c.relname ~ '^token_usage_logs_[0-9]{4}_[0-9]{2}$'
  order by 1
$$;

-- Move the default partition's rows of one month into a table with the same columns; that table computes the generated ones anew.
create function vital_private.move_default_rows(target text, from_month date, to_month date) returns void
language plpgsql
set search_path = ''
set timezone = 'UTC'
as $$
declare
  column_names text;
begin
  select string_agg(quote_ident(attname), ', ' order by attnum) into column_names
  from pg_catalog.pg_attribute
  where attrelid = 'public.token_usage_logs'::regclass and attnum > 0 and not attisdropped and attgenerated = '';
  execute format(
    'with moved as (delete from vital_private.token_usage_logs_default where created_at >= %L and created_at < %L returning *)
     insert into vital_private.%I (%s) select %s from moved',
    from_month::timestamptz, to_month::timestamptz, target, column_names, column_names
  );
end;
$$;

-- Make the partitions of `first_month` and the months after it, `months` in all, and move rows that the default partition holds
-- for them. Returns how many partitions it made. Months are those of UTC, so the answer does not depend on the session's time zone.
create function public.ensure_partitions_v1(first_month date, months integer) returns integer
language plpgsql
security definer
set search_path = ''
set timezone = 'UTC'
as $$
declare
  month_start date := date_trunc('month', first_month)::date;
  month_end date;
  partition_name text;
  made integer := 0;
begin
  if first_month is null or months is null or months not between 1 and 120 then
    raise exception 'first_month must be a date, months a number from 1 to 120.' using errcode = '22023';
  end if;
  -- Two processes may do this at once: the second waits and then finds the work done.
  perform pg_catalog.pg_advisory_xact_lock(hashtext('vital_tracking.partitions'));
  for number in 1..months loop
    month_end := month_start + interval '1 month';
    partition_name := vital_private.partition_of(month_start);
    if to_regclass(format('vital_private.%I', partition_name)) is null then
      execute format('create table vital_private.%I (like public.token_usage_logs including all)', partition_name);
      perform vital_private.restrict_relation(format('vital_private.%I', partition_name));
      -- While the new partition is attached, no row of its month may stay in the default partition or be added to it.
      lock table vital_private.token_usage_logs_default in access exclusive mode;
      perform vital_private.move_default_rows(partition_name, month_start, month_end);
      execute format(
        'alter table public.token_usage_logs attach partition vital_private.%I for values from (%L) to (%L)',
        partition_name, month_start::timestamptz, month_end::timestamptz
      );
      made := made + 1;
    end if;
    month_start := month_end;
  end loop;
  return made;
end;
$$;

-- The months whose rows are in the default partition although they may have a partition of their own: months from which rows are
-- kept, of the last ten years or of the coming one. (A call dated by a clock that is far off gets no partition.)
create function vital_private.homeless_months() returns table (month date, calls bigint)
language sql
stable
set search_path = ''
as $$
  select date_trunc('month', d.created_at at time zone 'UTC')::date, count(*)
  from vital_private.token_usage_logs_default as d
  where d.created_at >= greatest(vital_private.rows_kept_since(), now() - interval '10 years')
    and d.created_at < now() + interval '13 months'
  group by 1
$$;

-- Make the partitions of this month and the twelve after it, and those of months that have rows in the default partition. It waits at
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
  wanted date;
  calls bigint;
  made integer := 0;
  moved bigint := 0;
  left_for_later integer := 0;
begin
  -- One at a time: whoever comes second leaves the work to the first.
  if not pg_catalog.pg_try_advisory_xact_lock(hashtext('vital_tracking.partitions')) then
    return json_build_object('made', 0, 'moved', 0, 'waiting', 0, 'busy', true);
  end if;
  perform set_config('lock_timeout', greatest(coalesce(patience_ms, 2000), 1)::text, true);
  for wanted, calls in
    select m.month, coalesce(h.calls, 0)
    from (
      select (this_month + step * interval '1 month')::date as month from generate_series(0, 12) as step
      union
      select homeless.month from vital_private.homeless_months() as homeless
    ) as m
    left join vital_private.homeless_months() as h using (month)
    where to_regclass(format('vital_private.%I', vital_private.partition_of(m.month))) is null
    order by m.month desc
    limit 36
  loop
    begin
      made := made + public.ensure_partitions_v1(wanted, 1);
      moved := moved + calls;
    exception when lock_not_available or deadlock_detected then
      left_for_later := left_for_later + 1;
    end;
  end loop;
  perform set_config('lock_timeout', '0', true);
  return json_build_object('made', made, 'moved', moved, 'waiting', left_for_later, 'busy', false);
end;
$$;

comment on function public.maintain_partitions(integer) is 'Makes partitions a year ahead and moves calls of the default partition.';

-- The same for every process that starts: where there is nothing to do, which is nearly always, it takes no lock at all.
create function public.maintain_partitions_v1() returns json
language plpgsql
security definer
set search_path = ''
set timezone = 'UTC'
set statement_timeout = '15min'
as $$
begin
  if to_regclass(format('vital_private.%I', vital_private.partition_of((now() + interval '6 months')::date))) is not null
    and not exists (select from vital_private.homeless_months()) then
    return json_build_object('made', 0, 'moved', 0, 'waiting', 0, 'busy', false);
  end if;
  return public.maintain_partitions();
end;
$$;

select vital_private.restrict_relation('vital_private.usage_state');
select vital_private.restrict_functions(
  api => '{ensure_partitions_v1, maintain_partitions, maintain_partitions_v1}', helpers => '{rows_kept_since}'
);

select public.ensure_partitions_v1((now() - interval '1 month')::date, 14);
