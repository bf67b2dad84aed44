-- Aggregations counted anew from the rows, compared with them, and filled for calls that are older than they are.

-- From when on the rows are whole. Before it some are gone, by retention, and the aggregations are all there is: nothing is
-- compared or counted anew there.
create table vital_private.usage_state (
  singleton boolean primary key default true,
  rows_kept_since timestamptz not null default '-infinity',
  constraint usage_state_singleton check (singleton)
);
alter table vital_private.usage_state enable row level security;
insert into vital_private.usage_state default values;

create function vital_private.rows_kept_since() returns timestamptz
language sql
stable
security definer
set search_path = ''
as $$
  select s.rows_kept_since from vital_private.usage_state as s
$$;

create function vital_private.rows_gone_before(instant timestamptz) returns void
language sql
set search_path = ''
as $$
  update vital_private.usage_state as s
  set rows_kept_since = greatest(s.rows_kept_since, date_trunc('day', instant - interval '1 microsecond', 'UTC') + interval '1 day')
$$;

-- Whoever truncates the calls takes their sums away, too; a truncation hands no rows to the triggers that keep the sums.
create function vital_private.aggregate_usage_on_truncate() returns trigger
language plpgsql
security definer
set search_path = ''
set timezone = 'UTC'
as $$
declare
  kept_since constant timestamptz := vital_private.rows_kept_since();
begin
  if current_setting('vital_tracking.keep_sums', true) = 'on' then
    return null;
  end if;
  delete from public.usage_aggregations_hourly where hour_start >= kept_since;
  delete from public.usage_aggregations_daily_users where day >= kept_since;
  delete from public.usage_aggregations_daily_totals where day >= kept_since;
  delete from public.usage_aggregations_daily_parts where day >= kept_since;
  delete from public.usage_aggregations_daily where day >= kept_since;
  return null;
end;
$$;

create trigger aggregate_usage_on_truncate
after truncate on public.token_usage_logs
for each statement execute function vital_private.aggregate_usage_on_truncate();

-- Days with calls that are older than the aggregations, and are still to be counted.
create table vital_private.usage_backfill (day date primary key);
alter table vital_private.usage_backfill enable row level security;

insert into vital_private.usage_backfill
select distinct (created_at at time zone 'UTC')::date from public.token_usage_logs;

-- Two functions each that count one table's buckets anew, and that tell where it differs from the rows.
do $do$
declare
  kept constant text := 'select * from public.token_usage_logs where created_at >= since and created_at < until';
  all_calls constant text := vital_private.measured(format('(%s)', kept), signed => false);
  calls constant text := vital_private.measured(
    format('(%s and (organization is null or organization_id = organization))', kept), signed => false
  );
  aggregation record;
  bucket text;
  bucket_since text;
  bucket_until text;
begin
  for aggregation in select * from vital_private.aggregations() loop
    bucket := aggregation.keys[2];
    bucket_since := case bucket when 'day' then '(since at time zone ''UTC'')::date' else 'since' end;
    bucket_until := case bucket when 'day' then '(until at time zone ''UTC'')::date' else 'until' end;
    execute format(
      $function$
create function vital_private.recompute_%1$s(organization text, since timestamptz, until timestamptz) returns void
language plpgsql
set search_path = ''
as $body$
begin
  delete from public.%1$s
  where %2$s >= %3$s and %2$s < %4$s and (organization is null or organization_id = organization);
  %5$s;
end;
$body$;

create function vital_private.differences_of_%1$s(since timestamptz, until timestamptz)
returns table (aggregation text, bucket text, difference jsonb)
language sql
stable
set search_path = ''
as $body$
  select
    '%1$s', d.%2$s::text,
    (
      select jsonb_object_agg(e.key, e.value #>> '{}')
      from jsonb_each(to_jsonb(d)) as e
      where jsonb_typeof(e.value) = 'string' or (e.key <> 'latency_histogram' and (e.value #>> '{}')::numeric <> 0)
    )
  from (
    select %6$s, %7$s
    from (
      select %6$s, %8$s from public.%1$s as a where a.%2$s >= %3$s and a.%2$s < %4$s
      union all
      select %9$s, %10$s from %11$s as u where %12$s
    ) as both_sides
    where not exists (select from vital_private.usage_backfill as b where b.day = (both_sides.%2$s at time zone 'UTC')::date)
    group by %6$s
  ) as d
  where (%13$s) <> (%14$s)
  order by d.%2$s desc
  limit 100
$body$
      $function$,
      aggregation.target, bucket, bucket_since, bucket_until,
      vital_private.posting(aggregation.target, aggregation.keys, aggregation.names, calls, aggregation.condition),
      array_to_string(aggregation.keys, ', '),
      array_to_string(array(select format('sum(%1$I) as %1$I', m) from unnest(vital_private.measures()) as m), ', '),
      array_to_string(vital_private.measures(), ', '),
      array_to_string(array(select 'u.' || k from unnest(aggregation.keys) as k), ', '),
      array_to_string(array(select format('-u.%I', m) from unnest(vital_private.measures()) as m), ', '),
      all_calls, aggregation.condition,
      array_to_string(array(select 'd.' || m from unnest(vital_private.measures()) as m), ', '),
      array_to_string(array(select '0' from unnest(vital_private.measures())), ', ')
    );
  end loop;
end;
$do$;

drop function vital_private.measured(text, boolean);

-- Where the aggregations differ from the rows in the days (UTC) of a time: {"since", "until", "differences": [{aggregation, bucket,
-- difference}], "days_to_backfill": n}, at most 100 differences a table, each what the aggregation has too much (or, negative,
-- too little). Days whose rows are gone, and days that are still to be filled, are not compared.
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
  last_instant timestamptz := date_trunc('day', until - interval '1 microsecond', 'UTC') + interval '1 day';
begin
  return json_build_object(
    'since', first_instant,
    'until', last_instant,
    'differences', (
      select coalesce(json_agg(json_build_object('aggregation', d.aggregation, 'bucket', d.bucket, 'difference', d.difference)), '[]')
      from (
        select * from vital_private.differences_of_usage_aggregations_hourly(first_instant, last_instant)
        union all
        select * from vital_private.differences_of_usage_aggregations_daily_totals(first_instant, last_instant)
        union all
        select * from vital_private.differences_of_usage_aggregations_daily(first_instant, last_instant)
        union all
        select * from vital_private.differences_of_usage_aggregations_daily_users(first_instant, last_instant)
        union all
        select * from vital_private.differences_of_usage_aggregations_daily_parts(first_instant, last_instant)
      ) as d
    ),
    'days_to_backfill', (select count(*) from vital_private.usage_backfill)
  );
end;
$$;

-- Refuse a day whose calls are gone. (Not STABLE: what is kept is read anew, after the lock has come.)
create function vital_private.check_rows_kept(day date) returns void
language plpgsql
set search_path = ''
as $$
begin
  -- Who drops months has finished, or waits for us.
  lock table public.token_usage_logs in access share mode;
  if day::timestamp at time zone 'UTC' < vital_private.rows_kept_since() then
    raise exception 'The calls of % are gone, so they cannot be counted anew. The aggregations of that day stay as they are.', day
      using errcode = '55000';
  end if;
end;
$$;

-- Count one hour of an organization anew from its calls; `project_id` NULL counts those of all. Running it again changes nothing.
create function public.aggregate_usage_hourly(project_id text, hour_start timestamptz) returns void
language plpgsql
security definer
set search_path = ''
set timezone = 'UTC'
set statement_timeout = '15min'
as $$
declare
  starts_at timestamptz := date_trunc('hour', hour_start, 'UTC');
begin
  perform vital_private.check_rows_kept(starts_at::date);
  perform vital_private.lock_usage(starts_at::date, alone => true);
  perform vital_private.recompute_usage_aggregations_hourly(project_id, starts_at, starts_at + interval '1 hour');
end;
$$;

-- Count one day (UTC) of an organization anew from its calls, by agent and model, by user, and by seat and step; `project_id` NULL
-- counts those of all. Running it again changes nothing.
create function public.aggregate_usage_daily(project_id text, date date) returns void
language plpgsql
security definer
set search_path = ''
set timezone = 'UTC'
set statement_timeout = '15min'
as $$
declare
  starts_at timestamptz := date::timestamptz;
begin
  perform vital_private.check_rows_kept(date);
  perform vital_private.lock_usage(date, alone => true);
  perform vital_private.recompute_usage_aggregations_daily_totals(project_id, starts_at, starts_at + interval '1 day');
  perform vital_private.recompute_usage_aggregations_daily(project_id, starts_at, starts_at + interval '1 day');
  perform vital_private.recompute_usage_aggregations_daily_users(project_id, starts_at, starts_at + interval '1 day');
  perform vital_private.recompute_usage_aggregations_daily_parts(project_id, starts_at, starts_at + interval '1 day');
end;
$$;

-- Ask that the days (UTC) of a time be counted anew, all aggregations of all organizations. Returns how many days wait. Only days
-- with calls, or with sums, are queued: a time may be as long as it likes.
create function public.queue_backfill_v1(since timestamptz, until timestamptz) returns json
language plpgsql
security definer
set search_path = ''
set timezone = 'UTC'
set statement_timeout = '15min'
as $$
declare
  first_instant timestamptz := greatest(date_trunc('day', since), vital_private.rows_kept_since());
  last_instant timestamptz := date_trunc('day', until - interval '1 microsecond') + interval '1 day';
begin
  insert into vital_private.usage_backfill (day)
  select c.created_at::date from public.token_usage_logs as c where c.created_at >= first_instant and c.created_at < last_instant
  union
  select h.hour_start::date from public.usage_aggregations_hourly as h where h.hour_start >= first_instant and h.hour_start < last_instant
  union
  select d.day from public.usage_aggregations_daily_totals as d where d.day >= first_instant and d.day < last_instant
  union
  select d.day from public.usage_aggregations_daily as d where d.day >= first_instant and d.day < last_instant
  union
  select d.day from public.usage_aggregations_daily_users as d where d.day >= first_instant and d.day < last_instant
  union
  select d.day from public.usage_aggregations_daily_parts as d where d.day >= first_instant and d.day < last_instant
  on conflict do nothing;
  return json_build_object('left', (select count(*) from vital_private.usage_backfill));
end;
$$;

-- Fill the newest day that waits: {"day": its date or null, "calls": n, "left": days that wait}. A day is done when this commits, so
-- whoever is interrupted goes on where he was; several at once take different days.
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
    perform vital_private.lock_usage(next_day, alone => true);
    perform vital_private.recompute_usage_aggregations_hourly(null, starts_at, starts_at + interval '1 day');
    perform public.aggregate_usage_daily(null, next_day);
    select sum(h.calls) into counted
    from public.usage_aggregations_hourly as h
    where h.hour_start >= starts_at and h.hour_start < starts_at + interval '1 day';
  end if;
  return json_build_object(
    'day', next_day, 'calls', coalesce(counted, 0), 'left', (select count(*) from vital_private.usage_backfill)
  );
end;
$$;

-- What an organization used between two instants, to the microsecond: whole hours from the aggregation, what is left at both ends
-- from the calls. So it is exact in every time zone: select * from organization_cost('acme', '2026-03-01 Asia/Kolkata', '2026-04-01 Asia/Kolkata')
create function public.organization_cost(organization text, since timestamptz, until timestamptz)
returns table (
  calls bigint,
  failed_calls bigint,
  cached_calls bigint,
  unpriced_calls bigint,
  total_tokens numeric,
  total_cost numeric,
  potential_cost numeric,
  cache_savings numeric
)
language plpgsql
stable
set search_path = ''
as $$
declare
  first_hour timestamptz := date_trunc('hour', since + interval '1 hour' - interval '1 microsecond', 'UTC');
  last_hour timestamptz := date_trunc('hour', until, 'UTC');
  kept_since constant timestamptz := vital_private.rows_kept_since();
begin
  perform vital_private.check_administered(organization) where organization is not null;
  if (since < least(first_hour, until) and since < kept_since) or (until > greatest(last_hour, since) and last_hour < kept_since) then
    raise exception 'The calls before % are gone, and with them what parts of hours cost. Ask for whole hours (UTC) there.', kept_since
      using errcode = '55000';
  end if;
  return query
  select
    coalesce(sum(u.calls), 0)::bigint,
    coalesce(sum(u.failed_calls), 0)::bigint,
    coalesce(sum(u.cached_calls), 0)::bigint,
    coalesce(sum(u.unpriced_calls), 0)::bigint,
    coalesce(sum(u.total_tokens), 0),
    coalesce(sum(u.total_cost), 0),
    coalesce(sum(u.potential_cost), 0),
    coalesce(sum(u.potential_cost) - sum(u.total_cost), 0)
  from (
    select h.calls, h.failed_calls, h.cached_calls, h.unpriced_calls, h.total_tokens, h.total_cost, h.potential_cost
    from public.usage_aggregations_hourly as h
    where h.organization_id = organization and h.hour_start >= first_hour and h.hour_start < last_hour
    union all
    select
      c.calls, case when c.success then 0 else c.calls end, case when c.cache_hit then c.calls else 0 end,
      case when c.priced then 0 else c.calls end, c.total_tokens, c.total_cost, c.potential_cost
    from public.token_usage_logs as c
    where c.organization_id = organization and c.created_at >= since and c.created_at < least(first_hour, until)
    union all
    select
      c.calls, case when c.success then 0 else c.calls end, case when c.cache_hit then c.calls else 0 end,
      case when c.priced then 0 else c.calls end, c.total_tokens, c.total_cost, c.potential_cost
    from public.token_usage_logs as c
    -- Where both instants lie in one hour, the part above has told it all.
    where c.organization_id = organization and c.created_at >= greatest(last_hour, first_hour) and c.created_at < until
  ) as u;
end;
$$;

comment on function public.organization_cost(text, timestamptz, timestamptz) is
'What an organization used from one instant to another: calls, tokens, US dollars of priced calls, and what caches saved.';

revoke execute on function vital_private.rows_kept_since() from public;
grant execute on function vital_private.rows_kept_since() to authenticated, service_role;
revoke execute on function vital_private.rows_gone_before(timestamptz) from public;
revoke execute on function vital_private.check_rows_kept(date) from public;
revoke execute on function vital_private.aggregate_usage_on_truncate() from public;
do $$
declare
  target text;
begin
  for target in select a.target from vital_private.aggregations() as a loop
    execute format('revoke execute on function vital_private.recompute_%s(text, timestamptz, timestamptz) from public', target);
    execute format('revoke execute on function vital_private.differences_of_%s(timestamptz, timestamptz) from public', target);
  end loop;
end;
$$;
drop function vital_private.aggregations();

revoke execute on function public.audit_usage_v1(timestamptz, timestamptz) from public, anon, authenticated;
revoke execute on function public.aggregate_usage_hourly(text, timestamptz) from public, anon, authenticated;
revoke execute on function public.aggregate_usage_daily(text, date) from public, anon, authenticated;
revoke execute on function public.queue_backfill_v1(timestamptz, timestamptz) from public, anon, authenticated;
revoke execute on function public.backfill_usage_v1() from public, anon, authenticated;
revoke execute on function public.organization_cost(text, timestamptz, timestamptz) from public, anon;
grant execute on function public.audit_usage_v1(timestamptz, timestamptz) to service_role;
grant execute on function public.aggregate_usage_hourly(text, timestamptz) to service_role;
grant execute on function public.aggregate_usage_daily(text, date) to service_role;
grant execute on function public.queue_backfill_v1(timestamptz, timestamptz) to service_role;
grant execute on function public.backfill_usage_v1() to service_role;
grant execute on function public.organization_cost(text, timestamptz, timestamptz) to authenticated, service_role;
