-- Aggregations counted again from the rows, compared with them, and filled for calls that are older than the aggregations.

-- Days with calls that still have to be counted.
create table vital_private.usage_backfill (day date primary key);

select vital_private.restrict_relation('vital_private.usage_backfill');

insert into vital_private.usage_backfill
select distinct (created_at at time zone 'UTC')::date from public.token_usage_logs;

-- The text of a condition on an aggregation's bucket `b`: from the instant $1 on, and before $2. Buckets of days are dates (UTC).
create function vital_private.bucket_between(aggregation vital_private.usage_aggregations) returns text
language sql
immutable
set search_path = ''
as $$
  select format(
    case aggregation.keys[2]
      when 'day' then 'b.%1$I >= ($1 at time zone ''UTC'')::date and b.%1$I < ($2 at time zone ''UTC'')::date'
      else 'b.%1$I >= $1 and b.%1$I < $2'
    end, aggregation.keys[2]
  )
$$;

-- Count the buckets of an aggregation again from the calls, of one organization or, with NULL, of all.
create function vital_private.recount_usage(
  aggregation vital_private.usage_aggregations, organization text, since timestamptz, until timestamptz
) returns void
language plpgsql
set search_path = ''
as $$
begin
  execute format(
    'delete from public.%I as b where %s and ($3 is null or b.organization_id = $3)',
    aggregation.target, vital_private.bucket_between(aggregation)
  ) using since, until, organization;
  execute vital_private.adding_to(
    aggregation,
    vital_private.measured(
      '(select * from public.token_usage_logs where created_at >= $1 and created_at < $2 and ($3 is null or organization_id = $3))'
    ),
    'sum'
  ) using since, until, organization;
end;
$$;

-- Where an aggregation differs from the calls: at most 100 groups, the newest first, each with what the aggregation has too much (or,
-- negative, too little). Days that still have to be counted are left out.
create function vital_private.usage_differences(
  aggregation vital_private.usage_aggregations, since timestamptz, until timestamptz
) returns table (bucket text, difference jsonb)
language plpgsql
stable
set search_path = ''
as $$
declare
  measures constant text[] := vital_private.kept_measures();
  keys constant text := array_to_string(aggregation.keys, ', ');
begin
  return query execute format(
    $query$
      select
        d.%1$I::text,
        (
          select jsonb_object_agg(e.key, e.value #>> '{}')
          from jsonb_each(to_jsonb(d)) as e
          where jsonb_typeof(e.value) = 'string' or (e.key <> 'latency_histogram' and (e.value #>> '{}')::numeric <> 0)
        )
      from (
        select %2$s, %3$s
        from (
          select %2$s, %4$s from public.%5$I as b where %6$s
          union all
          select %2$s, %7$s from %8$s as u
        ) as both_sides
        where not exists (
          select from vital_private.usage_backfill as f where f.day = (both_sides.%1$I at time zone 'UTC')::date
        )
        group by %2$s
      ) as d
      where (%9$s) <> (%10$s)
      order by d.%1$I desc
      limit 100
    $query$,
    aggregation.keys[2],
    keys,
    array_to_string(array(select format('sum(%1$I) as %1$I', m) from unnest(measures) as m), ', '),
    array_to_string(measures, ', '),
    aggregation.target,
    vital_private.bucket_between(aggregation),
    array_to_string(array(select format('-u.%I', m) from unnest(measures) as m), ', '),
    vital_private.measured('(select * from public.token_usage_logs where created_at >= $1 and created_at < $2)'),
    array_to_string(array(select format('d.%I', m) from unnest(measures) as m), ', '),
    array_to_string(array_fill('0'::text, array[cardinality(measures)]), ', ')
  ) using since, until;
end;
$$;

-- Whoever truncates the calls takes their sums away, too. A truncation hands no rows to the triggers that keep the sums.
create function vital_private.aggregate_usage_on_truncate() returns trigger
language plpgsql
security definer
set search_path = ''
set timezone = 'UTC'
as $$
declare
  aggregation vital_private.usage_aggregations;
begin
  if current_setting('vital_tracking.keep_sums', true) = 'on' then
    return null;
  end if;
  for aggregation in select * from vital_private.usage_aggregations order by target desc loop
    execute format('delete from public.%I as b where %s', aggregation.target, vital_private.bucket_between(aggregation))
    using vital_private.rows_kept_since(), 'infinity'::timestamptz;
  end loop;
  return null;
end;
$$;

create trigger aggregate_usage_on_truncate
after truncate on public.token_usage_logs
for each statement execute function vital_private.aggregate_usage_on_truncate();

-- Where the aggregations differ from the rows in the days (UTC) of a time: {"since", "until", "differences": [{aggregation, bucket,
-- difference}], "days_to_backfill": n}. NULL: from the first call, until the last. Days whose rows were deleted, and days that still have
-- to be counted, are not compared.
create function public.audit_usage_v1(since timestamptz, until timestamptz) returns json
language plpgsql
stable
security definer
set search_path = ''
set timezone = 'UTC'
set statement_timeout = '15min'
as $$
declare
  first_instant timestamptz := greatest(date_trunc('day', since, 'UTC'), vital_private.rows_kept_since());
  last_instant timestamptz := date_trunc('day', coalesce(until, 'infinity') - interval '1 microsecond', 'UTC') + interval '1 day';
begin
  perform vital_private.check_times(since, until);
  return json_build_object(
    'since', first_instant,
    'until', last_instant,
    'differences', (
      select coalesce(json_agg(
        json_build_object('aggregation', a.target, 'bucket', d.bucket, 'difference', d.difference) order by a.position
      ), '[]')
      from vital_private.usage_aggregations as a
      cross join lateral vital_private.usage_differences(a, first_instant, last_instant) as d
    ),
    'days_to_backfill', (select count(*) from vital_private.usage_backfill)
  );
end;
$$;

-- Refuse a day that nobody named, and one whose calls were deleted. (It is not STABLE, so that what is kept is read after the lock was granted.)
create function vital_private.check_rows_kept(day date) returns void
language plpgsql
set search_path = ''
as $$
begin
  if day is null or not isfinite(day) then
    raise exception 'Which day?' using errcode = '22023', hint = 'Name the day or hour to count again.';
  end if;
  -- From here on, whoever drops months has finished, or waits for this transaction.
  lock table public.token_usage_logs in access share mode;
  if day::timestamp at time zone 'UTC' < vital_private.rows_kept_since() then
    raise exception 'The calls of % are gone, so they cannot be counted anew. The aggregations of that day stay as they are.', day
      using errcode = '55000';
  end if;
end;
$$;

-- Count the buckets of this kind (hour_start or day) again, in all aggregations that have them.
create function vital_private.recount_buckets(
  bucket text, organization text, since timestamptz, until timestamptz
) returns void
language plpgsql
set search_path = ''
set timezone = 'UTC'
as $$
begin
  perform vital_private.check_rows_kept(since::date);
  perform vital_private.lock_usage(since::date, alone => true);
  perform vital_private.recount_usage(a, organization, since, until)
  from (select k as a from vital_private.usage_aggregations as k where k.keys[2] = bucket order by k.position) as ordered;
end;
$$;

-- Count one hour of an organization again from its calls; `project_id` NULL counts those of all. Repeating it changes nothing.
create function public.aggregate_usage_hourly(project_id text, hour_start timestamptz) returns void
language plpgsql
security definer
set search_path = ''
set timezone = 'UTC'
set statement_timeout = '15min'
as $$
declare
  starts_at constant timestamptz := date_trunc('hour', hour_start, 'UTC');
begin
  perform vital_private.recount_buckets('hour_start', project_id, starts_at, starts_at + interval '1 hour');
end;
$$;

-- Count one day (UTC) of an organization again from its calls, by agent and model, by user, and by seat and step; `project_id` NULL
-- counts those of all. Repeating it changes nothing.
create function public.aggregate_usage_daily(project_id text, date date) returns void
language plpgsql
security definer
set search_path = ''
set timezone = 'UTC'
set statement_timeout = '15min'
as $$
begin
  perform vital_private.recount_buckets('day', project_id, date::timestamptz, date::timestamptz + interval '1 day');
end;
$$;

-- Ask for the days (UTC) of a time to be counted again, in all aggregations and for all organizations. Returns how many days wait. Only
-- days with calls or with sums are queued, so the time may be as long as one likes.
create function public.queue_backfill_v1(since timestamptz, until timestamptz) returns json
language plpgsql
security definer
set search_path = ''
set timezone = 'UTC'
set statement_timeout = '15min'
as $$
declare
  first_instant constant timestamptz := greatest(date_trunc('day', since), vital_private.rows_kept_since());
  last_instant constant timestamptz := date_trunc('day', until - interval '1 microsecond') + interval '1 day';
begin
  if since is null or until is null then
    raise exception 'Which days?' using errcode = '22023', hint = 'Name since and until; -infinity and infinity are all days.';
  end if;
  perform vital_private.check_times(since, until);
  execute (
    select format(
      'insert into vital_private.usage_backfill (day)
      select call.created_at::date from public.token_usage_logs as call where call.created_at >= $1 and call.created_at < $2
      union %s
      on conflict do nothing',
      string_agg(
        format('select b.%I::date from public.%I as b where %s', a.keys[2], a.target, vital_private.bucket_between(a)), ' union '
      )
    )
    from vital_private.usage_aggregations as a
  ) using first_instant, last_instant;
  return json_build_object('left', (select count(*) from vital_private.usage_backfill));
end;
$$;

-- Count the newest day that waits: {"day": its date or null, "calls": n, "left": days that wait}. A day is done when this commits, so
-- after an interruption it goes on where it was; several sessions at once take different days.
create function public.backfill_usage_v1() returns json
language plpgsql
security definer
set search_path = ''
set timezone = 'UTC'
set statement_timeout = '15min'
as $$
declare
  next_day date;
  starts_at timestamptz;
  counted numeric;
begin
  delete from vital_private.usage_backfill as b
  where b.day = (
    select w.day from vital_private.usage_backfill as w order by w.day desc limit 1 for update skip locked
  )
  returning b.day into next_day;
  lock table public.token_usage_logs in access share mode; -- as in check_rows_kept
  if next_day is not null and next_day::timestamptz >= vital_private.rows_kept_since() then
    starts_at := next_day::timestamptz;
    perform vital_private.recount_buckets('hour_start', null, starts_at, starts_at + interval '1 day');
    perform vital_private.recount_buckets('day', null, starts_at, starts_at + interval '1 day');
    select sum(h.calls) into counted
    from public.usage_aggregations_hourly_totals as h
    where h.hour_start >= starts_at and h.hour_start < starts_at + interval '1 day';
  end if;
  return json_build_object(
    'day', next_day, 'calls', coalesce(counted, 0), 'left', (select count(*) from vital_private.usage_backfill)
  );
end;
$$;

select vital_private.restrict_functions(
  api => '{audit_usage_v1, aggregate_usage_hourly, aggregate_usage_daily, queue_backfill_v1, backfill_usage_v1}'
);
