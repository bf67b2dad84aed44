-- What abuse looks like, what is usual, and what happens now: everything that find_abuse_v1 judges by.
--
-- What is usual is learned from the past, once an hour: of each user, organization, address (its keyed hash) and request (its keyed hash) the
-- busiest five minutes and the busiest hour of each day. A scan then looks at the last hour alone, and at the days of those who are loud.

-- The patterns, with their thresholds and why they are what they are. A subject is found where what it did in five minutes, or in an
-- hour, is at least all of:
--   the floor          below it nothing is abuse, whatever is usual
--   usual * times      the median of its own days' busiest five minutes (or hour)
--   most * 2           the busiest that it has had on any of them
--   and, of the erratic, six robust standard deviations (of logarithms, 1.4826 times the median distance from the median), at most
--   three times the busiest
-- Of whom fewer than three days are known, `times` is of what 19 of 20 days of others of its kind in its organization come to, or of all; and
-- where no twenty such days are known, the floor counts `alone` times.
create table vital_private.abuse_patterns (
  pattern text not null primary key,
  position smallint not null unique,
  kind text not null,
  measure text not null,
  short_floor numeric,
  long_floor numeric not null,
  times numeric not null default 4,
  alone numeric not null default 5,
  about text not null,
  reason text not null,
  constraint abuse_patterns_kind check (kind in ('user', 'organization', 'address', 'request')),
  constraint abuse_patterns_key unique (kind, measure)
);

comment on table vital_private.abuse_patterns is 'What abuse looks like: patterns, their thresholds, and why these are what they are.';
comment on column vital_private.abuse_patterns.measure is 'calls, cost (US dollars), requests (events of users), errors, addresses, day_cost.';
comment on column vital_private.abuse_patterns.short_floor is 'The least in five minutes; NULL: only the hour (of day_cost the day) is looked at.';
comment on column vital_private.abuse_patterns.long_floor is 'The least in an hour.';

insert into vital_private.abuse_patterns (
  position, pattern, kind, measure, short_floor, long_floor, times, alone, about, reason
) values
(
  1, 'user_calls', 'user', 'calls', 60, 300, 4, 2, 'A user makes far more calls to models than ever',
  'Nobody types a call every five seconds for minutes; programs do, and those that always did have it in their past.'
),
(
  2, 'user_cost', 'user', 'cost', 5, 20, 4, 2, 'A user''s calls cost far more than ever',
  'A dollar a minute is worth a look whoever spends it, and four times the usual is no busy day.'
),
(
  3, 'user_requests', 'user', 'requests', 300, 1200, 4, 2, 'A user sends far more requests than ever',
  'A request a second for five minutes is more than a page that refreshes itself asks for.'
),
(
  4, 'organization_calls', 'organization', 'calls', 300, 1500, 4, 2, 'An organization makes far more calls than ever',
  'Five users'' worth of the floor: a team that begins on a Monday is not four times its busiest five minutes.'
),
(
  5, 'organization_cost', 'organization', 'cost', 25, 100, 4, 2, 'An organization''s calls cost far more than ever',
  'Five users'' worth of the floor.'
),
(
  6, 'organization_requests', 'organization', 'requests', 1500, 6000, 4, 2, 'An organization sends far more requests than ever',
  'Five users'' worth of the floor.'
),
(
  7, 'address_requests', 'address', 'requests', 300, 1200, 4, 4, 'An address sends far more requests than others',
  'An office behind one address has it in its past; a new one must stand far above 19 of 20 days of the others.'
),
(
  8, 'repeated_request', 'request', 'calls', 20, 60, 4, 1, 'The same request is made over and over',
  'Retries come to a handful; a check that runs each minute has its 60 an hour in its past after three days.'
),
(
  9, 'credential_sharing', 'user', 'addresses', 6, 8, 4, 1, 'One user comes from many addresses',
  'Home, office, phone and a VPN are four. Four times the usual spares whoever has a pool of addresses, as phones do.'
),
(
  10, 'first_day_bill', 'user', 'day_cost', null, 10, 4, 1, 'A new user runs up a large bill on the first day',
  'Nothing is known of the user, so the days of others count: four times what 19 of 20 of them cost, and ten dollars at least.'
),
(
  11, 'user_error_probe', 'user', 'errors', 20, 60, 4, 1, 'A user''s requests are refused again and again',
  'Half of all that the user does, while no more than a quarter of what others do fails: else it is an outage, not a probe.'
),
(
  12, 'address_error_probe', 'address', 'errors', 20, 60, 4, 1, 'Requests of an address are refused again and again',
  'As of users: whoever tries doors has no user''s name yet.'
);

-- The busiest five minutes (`short`) and the busiest hour (`long`) of a day of a subject; of `day_cost` the whole day. Of requests only those
-- that were made ten times in an hour.
create table vital_private.abuse_days (
  kind text not null,
  organization_id text,
  subject text not null,
  measure text not null,
  day date not null,
  short numeric not null,
  long numeric not null
);

create unique index abuse_days_key on vital_private.abuse_days (subject, kind, measure, day, organization_id) nulls not distinct;
create index abuse_days_day on vital_private.abuse_days (day);

comment on table vital_private.abuse_days is 'What was usual: the busiest five minutes and the busiest hour of a day of each.';

-- What 19 of 20 such days come to, of an organization and of all (NULL).
create table vital_private.abuse_usual (
  kind text not null,
  measure text not null,
  organization_id text,
  days bigint not null,
  short numeric not null,
  long numeric not null
);

create unique index abuse_usual_key on vital_private.abuse_usual (kind, measure, organization_id) nulls not distinct;

-- How far the past is counted, and when a scan was last made. One row.
create table vital_private.abuse_state (
  one boolean not null primary key default true,
  counted_until timestamptz,
  usual_of date,
  scanned_at timestamptz,
  constraint abuse_state_one check (one)
);

insert into vital_private.abuse_state (one) values (true);

select vital_private.restrict_relation('vital_private.abuse_patterns', readers => '{authenticated, service_role}');
select vital_private.restrict_relation('vital_private.abuse_days');
select vital_private.restrict_relation('vital_private.abuse_usual');
select vital_private.restrict_relation('vital_private.abuse_state');

create policy "Signed-in users see what abuse looks like" on vital_private.abuse_patterns
for select to authenticated
using (true);

-- Whether an event tells of a request that was refused for what it asked: 4xx, but for time-outs and too many of them; or of a failure without
-- a status, such as a sign-in. What failed by a fault of the platform (5xx) is no probe. (No SET clause, so that PostgreSQL may inline it.)
create function vital_private.event_refused(properties jsonb) returns boolean
language sql
immutable
parallel safe
return coalesce(
  case jsonb_typeof(properties -> 'status')
    when 'number' then (properties ->> 'status')::numeric between 400 and 499 and (properties ->> 'status')::numeric not in (408, 429)
    else properties ? 'error_type' or properties -> 'success' = 'false'
  end, false
);

-- What everybody did in a time, by spans of it: by user, organization, address and request, in each measure.
create function vital_private.abuse_sums(since timestamptz, until timestamptz, span interval)
returns table (
  kind text, organization_id text, subject text, bin timestamptz, calls numeric, cost numeric, requests numeric, errors numeric,
  addresses numeric
)
language plpgsql
stable
set search_path = ''
set jit = off
set work_mem = '64MB'
as $$
begin
  return query
  with acts as materialized (
    select
      c.organization_id, c.user_id, null::text as address, case when not c.cache_hit and c.calls = 1 then c.request_hash end as request,
      date_bin(span, c.created_at, since) as bin, sum(c.calls)::numeric as calls, sum(coalesce(c.total_cost, c.ceiling_cost, 0)) as cost,
      0::numeric as requests,
      coalesce(sum(c.calls) filter (where c.status = 'error' and not vital_private.is_time_out(c.error_type)), 0)::numeric as errors
    from public.token_usage_logs as c
    where c.created_at >= since and c.created_at < until and c.status <> 'blocked'
    group by 1, 2, 4, 5
    union all
    select
      e.organization_id, e.user_id, e.ip_hash, null, date_bin(span, e.occurred_at, since), 0, 0, count(*)::numeric,
      (count(*) filter (where vital_private.event_refused(e.properties)))::numeric
    from public.platform_events as e
    where e.occurred_at >= since and e.occurred_at < until and e.category = 'user_behavior'
    group by 1, 2, 3, 5
  ),

  of_subjects as (
    select
      k.kind, a.organization_id, k.subject, a.bin, sum(a.calls) as calls, sum(a.cost) as cost, sum(a.requests) as requests,
      sum(a.errors) as errors
    from acts as a
    cross join lateral (
      values ('user', a.user_id), ('organization', a.organization_id), ('address', a.address), ('request', a.request)
    ) as k (kind, subject)
    where k.subject is not null
    group by k.kind, a.organization_id, k.subject, a.bin
  ),

  of_addresses as (
    select d.organization_id, d.user_id, d.bin, count(*)::numeric as addresses
    from (
      select distinct a.organization_id, a.user_id, a.address, a.bin from acts as a where a.user_id is not null and a.address is not null
    ) as d
    group by d.organization_id, d.user_id, d.bin
  )

  select s.kind, s.organization_id, s.subject, s.bin, s.calls, s.cost, s.requests, s.errors, coalesce(d.addresses, 0)
  from of_subjects as s
  left join of_addresses as d
    on s.kind = 'user' and d.user_id = s.subject and d.bin = s.bin and coalesce(d.organization_id, '') = coalesce(s.organization_id, '')
    and (d.organization_id is null) = (s.organization_id is null)
  union all
  select 'all', null, '*', a.bin, sum(a.calls), sum(a.cost), sum(a.requests), sum(a.errors), 0
  from acts as a
  group by a.bin;
end;
$$;

-- Add whole hours to what is usual. They lie in one day (UTC).
create function vital_private.count_abuse_hours(since timestamptz, until timestamptz) returns void
language sql
set search_path = ''
set timezone = 'UTC'
set jit = off
as $$
  insert into vital_private.abuse_days as known (kind, organization_id, subject, measure, day, short, long)
  select b.kind, b.organization_id, b.subject, m.measure, count_abuse_hours.since::date, max(m.short), max(m.long)
  from (
    select
      s.kind, s.organization_id, s.subject, date_bin('1 hour', s.bin, count_abuse_hours.since) as hour,
      max(s.calls) as most_calls, sum(s.calls) as calls, max(s.cost) as most_cost, sum(s.cost) as cost, max(s.requests) as most_requests,
      sum(s.requests) as requests, max(s.errors) as most_errors, sum(s.errors) as errors, max(s.addresses) as most_addresses
    from vital_private.abuse_sums(count_abuse_hours.since, count_abuse_hours.until, '5 minutes') as s
    group by s.kind, s.organization_id, s.subject, 4
  ) as b
  left join vital_private.abuse_sums(count_abuse_hours.since, count_abuse_hours.until, '1 hour') as h
    on h.kind = 'user' and b.kind = 'user' and h.subject = b.subject and h.bin = b.hour
    and coalesce(h.organization_id, '') = coalesce(b.organization_id, '') and (h.organization_id is null) = (b.organization_id is null)
  cross join lateral (
    values
      ('calls', b.most_calls, b.calls), ('cost', b.most_cost, b.cost), ('requests', b.most_requests, b.requests),
      ('errors', b.most_errors, b.errors), ('addresses', b.most_addresses, coalesce(h.addresses, 0))
  ) as m (measure, short, long)
  join vital_private.abuse_patterns as p on p.kind = b.kind and p.measure = m.measure
  where m.long > 0
  group by b.kind, b.organization_id, b.subject, m.measure
  having b.kind <> 'request' or max(m.long) >= 10
  order by b.subject collate "C", b.kind, m.measure
  on conflict (subject, kind, measure, day, organization_id) do update
  set short = greatest(known.short, excluded.short), long = greatest(known.long, excluded.long)
$$;

-- Count the past up to the last whole hour before a moment, as far as some seconds allow; whether it is counted now. It begins four weeks
-- back. What days cost users comes from the sums. Days older than five weeks go.
create function vital_private.learn_what_is_usual(moment timestamptz) returns boolean
language plpgsql
set search_path = ''
set timezone = 'UTC'
as $$
declare
  begun constant timestamptz := clock_timestamp();
  last_hour constant timestamptz := date_trunc('hour', moment);
  reached timestamptz;
  next timestamptz;
begin
  select greatest(s.counted_until, date_trunc('day', moment) - interval '28 days') into reached from vital_private.abuse_state as s;
  if reached is null then
    select date_trunc('hour', min(f.first)) into reached
    from (
      select min(c.created_at) as first from public.token_usage_logs as c where c.created_at >= date_trunc('day', moment) - interval '28 days'
      union all
      select min(e.occurred_at) from public.platform_events as e where e.occurred_at >= date_trunc('day', moment) - interval '28 days'
    ) as f;
    reached := least(coalesce(reached, last_hour), last_hour);
  end if;
  while reached < last_hour and clock_timestamp() < begun + interval '5 seconds' loop
    next := least(date_trunc('day', reached) + interval '1 day', last_hour);
    perform vital_private.count_abuse_hours(reached, next);
    if next = date_trunc('day', next) then
      delete from vital_private.abuse_days as d where d.measure = 'day_cost' and d.day = reached::date;
      insert into vital_private.abuse_days (kind, organization_id, subject, measure, day, short, long)
      select 'user', u.organization_id, u.user_id, 'day_cost', u.day, 0, sum(u.total_cost)
      from public.usage_aggregations_daily_users as u
      where u.day = reached::date and u.user_id is not null
      group by u.organization_id, u.user_id, u.day
      having sum(u.total_cost) > 0;
    end if;
    reached := next;
  end loop;
  update vital_private.abuse_state as s set counted_until = reached;
  if reached < last_hour then
    return false;
  end if;
  if exists (select from vital_private.abuse_state as s where s.usual_of is distinct from last_hour::date) then
    delete from vital_private.abuse_days as d where d.day < last_hour::date - 35;
    delete from vital_private.abuse_usual;
    insert into vital_private.abuse_usual (kind, measure, organization_id, days, short, long)
    select
      d.kind, d.measure, d.organization_id, count(*), percentile_cont(0.95) within group (order by d.short::double precision),
      percentile_cont(0.95) within group (order by d.long::double precision)
    from vital_private.abuse_days as d
    where d.day < last_hour::date
    group by grouping sets ((d.kind, d.measure, d.organization_id), (d.kind, d.measure))
    having grouping(d.organization_id) = 1 or d.organization_id is not null;
    update vital_private.abuse_state as s set usual_of = last_hour::date;
  end if;
  return true;
end;
$$;

-- New users with what they cost in the day up to a moment: those of whom there is no call on any day before yesterday.
create function vital_private.first_day_costs(moment timestamptz, least_cost numeric)
returns table (organization_id text, subject text, cost numeric)
language plpgsql
stable
set search_path = ''
set timezone = 'UTC'
set jit = off
as $$
begin
  return query
  select u.organization_id, u.user_id, c.cost
  from (
    select s.organization_id, s.user_id
    from public.usage_aggregations_daily_users as s
    where s.day >= (moment - interval '1 day')::date and s.day <= moment::date and s.user_id is not null
    group by s.organization_id, s.user_id
    having sum(s.total_cost) >= least_cost
  ) as u
  cross join lateral (
    select sum(coalesce(t.total_cost, 0)) as cost
    from public.token_usage_logs as t
    where t.user_id = u.user_id and t.created_at > moment - interval '1 day' and t.created_at <= moment
      and t.organization_id is not distinct from u.organization_id
  ) as c
  where c.cost >= least_cost and not exists (
    select from public.usage_aggregations_daily_users as b where b.user_id = u.user_id and b.day < (moment - interval '1 day')::date and b.calls > 0
  );
end;
$$;

-- Who is loud at a moment: what came to a floor in the last five minutes or hour, the loudest first.
create function vital_private.loud_at(moment timestamptz)
returns table (pattern text, organization_id text, subject text, short numeric, long numeric)
language plpgsql
stable
set search_path = ''
set jit = off
as $$
begin
  return query
  with bins as materialized (
    -- Twelve bins of five minutes, the last of which ends with the moment.
    select s.* from vital_private.abuse_sums(moment - interval '1 hour', moment, '5 minutes') as s
  ),

  hours as (
    select
      b.kind, b.organization_id, b.subject, sum(b.calls) as calls, sum(b.cost) as cost, sum(b.requests) as requests, sum(b.errors) as errors,
      sum(b.addresses) as addresses,
      sum(b.calls) filter (where b.bin = moment - interval '5 minutes') as last_calls,
      sum(b.cost) filter (where b.bin = moment - interval '5 minutes') as last_cost,
      sum(b.requests) filter (where b.bin = moment - interval '5 minutes') as last_requests,
      sum(b.errors) filter (where b.bin = moment - interval '5 minutes') as last_errors,
      sum(b.addresses) filter (where b.bin = moment - interval '5 minutes') as last_addresses
    from bins as b
    group by b.kind, b.organization_id, b.subject
  ),

  everybody as (
    select h.* from hours as h where h.kind = 'all'
  ),

  busiest as (
    select
      u.organization_id, max(u.calls) as calls, max(u.cost) as cost, max(u.requests) as requests, max(u.last_calls) as last_calls,
      max(u.last_cost) as last_cost, max(u.last_requests) as last_requests
    from hours as u
    where u.kind = 'user' and u.organization_id is not null
    group by u.organization_id
  ),

  loud as (
    select p.pattern, h.organization_id, h.subject, coalesce(c.short, 0) as short, c.long, p.short_floor, p.long_floor
    from hours as h
    cross join everybody as a
    left join busiest as b on h.kind = 'organization' and b.organization_id = h.subject
    cross join lateral (
      values
        ('calls', h.last_calls, h.calls, b.last_calls, b.calls), ('cost', h.last_cost, h.cost, b.last_cost, b.cost),
        ('requests', h.last_requests, h.requests, b.last_requests, b.requests),
        -- The addresses of an hour are counted only where there may be many.
        (
          'addresses', h.last_addresses,
          case when h.addresses >= 8 then vital_private.addresses_of(h.organization_id, h.subject, moment) else h.addresses end,
          null, null
        ),
        (
          'errors',
          case
            when h.last_errors * 2 >= h.last_calls + h.last_requests
              and (a.last_errors - h.last_errors) * 4 <= a.last_calls + a.last_requests - h.last_calls - h.last_requests
              then h.last_errors
          end,
          case
            when h.errors * 2 >= h.calls + h.requests and (a.errors - h.errors) * 4 <= a.calls + a.requests - h.calls - h.requests
              then h.errors
            else 0
          end,
          null, null
        )
    ) as m (measure, short, long, short_of_one, long_of_one)
    -- What one user does is found with that user: no member can have the whole organization stopped.
    cross join lateral (
      select
        case when m.short_of_one * 5 >= m.short * 4 then 0 else m.short end as short,
        case when m.long_of_one * 5 >= m.long * 4 then 0 else m.long end as long
    ) as c
    join vital_private.abuse_patterns as p on p.kind = h.kind and p.measure = m.measure
    where c.short >= p.short_floor or c.long >= p.long_floor
    union all
    select p.pattern, f.organization_id, f.subject, 0, f.cost, null, p.long_floor
    from vital_private.abuse_patterns as p
    cross join lateral vital_private.first_day_costs(moment, p.long_floor) as f
    where p.measure = 'day_cost'
  )

  select l.pattern, l.organization_id, l.subject, l.short, l.long
  from loud as l
  order by greatest(l.short / l.short_floor, l.long / l.long_floor) desc
  limit 500;
end;
$$;

-- From how many addresses a user came in the hour up to a moment.
create function vital_private.addresses_of(organization text, who text, moment timestamptz) returns numeric
language sql
stable
set search_path = ''
as $$
  select count(distinct e.ip_hash)::numeric
  from public.platform_events as e
  where e.user_id = who and e.occurred_at >= moment - interval '1 hour' and e.occurred_at < moment
    and e.organization_id is not distinct from organization and e.category = 'user_behavior'
$$;

select vital_private.restrict_functions();
