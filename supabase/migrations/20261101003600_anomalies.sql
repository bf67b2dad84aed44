-- Anomalies: days of an agent, a user or a model that cost far more, took far longer or failed far more often than its days before.
--
-- Each day is compared with the days of the four weeks before on which the same agent, user or model was in use. What is usual is
-- their median, or that of the same weekday if it is more. The score is a number of standard deviations, estimated by the median distance from
-- the median, with lower bounds so that a short or very steady history makes nothing small remarkable:
--   cost        on a logarithmic scale (what varies by half each day may double); 4 or more, twice the usual and half a dollar above
--               it; where only three to six days are known, five dollars above it
--   latency     likewise, by the mean of each day with 20 calls or more; then the day's median or, of 100 calls or more, its 95th
--               percentile must be half above that of the days before, and that is what is reported
--   error_rate  of the calls that were not blocked, if they are 20 or more and 5 of them failed; what chance makes of so few calls
--               counts as much as how the days before have differed; 4 or more, twice the usual and 5 % above it
-- Latency and error rate need seven days. What is new, or known of one or two days, is compared by its cost with all others of its kind in
-- its organization: the usual is what 19 of 20 of their days cost at most, in the four weeks before the first day that is asked for. It is an
-- anomaly (measure `newcomer`) from five times of that on, and five times its own days, and ten dollars above. Where there are
-- no 20 such days, a new user's day counts from a hundred dollars on, since nothing else is known.
-- Only what is too much is reported, the dearest first: the dollars beyond the usual; of failed calls, what as many calls usually cost;
-- of slow ones, the part of their cost by which they took longer.

-- A day of a subject, without blocked calls.
create type vital_private.subject_day as (
  day date, calls double precision, failed double precision, timed double precision, cost numeric, unpriced double precision,
  latency_us numeric
);

-- Agents, models and users that may have been out of the ordinary on a day from `first_asked` on, with all their days from `first_day` on.
-- Most are too small to be remarkable whatever they did, and of those the days before are not added up. Each aggregation is read once.
create function vital_private.usage_by_subject(first_day date, first_asked date, last_day date, organization text)
returns table (subject text, organization_id text, id text, days vital_private.subject_day array)
language plpgsql
stable
set search_path = ''
set work_mem = '64MB'
set jit = off
set enable_nestloop = off -- few rows are looked for, but their days are many
set enable_mergejoin = off
set enable_sort = off
as $$
begin
  return query execute (
    select string_agg(
      format(
        $query$(
          with known as materialized (
            select
              u.organization_id, u.day, %1$s, (u.calls - u.blocked_calls)::double precision as calls,
              (u.failed_calls - u.blocked_calls)::double precision as failed, u.timed_calls::double precision as timed, u.total_cost as cost,
              u.unpriced_calls::double precision as unpriced, u.latency_us
            from vital_private.visible_%2$s as u
            where u.day >= $1 and u.day <= $3 and %3$s
          ),

          %4$s
        )$query$,
        source.columns, source.name, case when organization is null then 'true' else 'u.organization_id = $4' end, source.subjects
      ), ' union all '
    )
    from (
      select
        g.source as name,
        string_agg(format('u.%I', g.keys[1]), ', ') as columns,
        string_agg(format(
          $query$
            busy_%1$s as materialized (
              select d.organization_id, d.id
              from (
                select
                  u.organization_id, u.%2$I as id, vital_private.total(u.cost) as cost, sum(u.failed) as failed, sum(u.timed) as timed
                from known as u
                where u.day >= $2 and u.%2$I is not null
                group by u.organization_id, u.%2$I, u.day
              ) as d
              where d.cost >= 0.5 or d.failed >= 5 or d.timed >= 20
              group by d.organization_id, d.id
            ),

            days_%1$s as (
              select
                u.organization_id, u.%2$I as id, u.day, sum(u.calls) as calls, sum(u.failed) as failed, sum(u.timed) as timed,
                vital_private.total(u.cost) as cost, sum(u.unpriced) as unpriced, vital_private.total(u.latency_us) as latency_us
              from busy_%1$s as b
              inner join known as u
                on u.%2$I = b.id and coalesce(u.organization_id, '') = coalesce(b.organization_id, '')
                and (u.organization_id is null) = (b.organization_id is null)
              group by u.organization_id, u.%2$I, u.day
            )
          $query$, g.name, g.keys[1]
        ), ', ') || string_agg(format(
          $query$
            select %1$L, d.organization_id, d.id, array_agg(
              row(d.day, d.calls, d.failed, d.timed, d.cost, d.unpriced, d.latency_us)::vital_private.subject_day
            )
            from days_%1$s as d
            where d.calls > 0
            group by d.organization_id, d.id
          $query$, g.name
        ), ' union all ') as subjects
      from vital_private.usage_groupings as g
      where g.name in ('agent', 'model', 'user')
      group by g.source
    ) as source
  ) using first_day, first_asked, last_day, organization;
end;
$$;

-- What 19 of 20 days of all agents, models or users of an organization cost at most, and how many days that were.
create function vital_private.usual_of_others(subjects text[], organizations text[], first_day date, last_day date)
returns table (subject text, organization_id text, days bigint, usual double precision)
language plpgsql
stable
set search_path = ''
set work_mem = '64MB'
set jit = off
as $$
begin
  return query execute (
    select string_agg(format(
      $query$
        select
          %1$L, d.organization_id, count(*), percentile_cont(0.95) within group (order by d.cost::double precision)
        from (
          select u.organization_id, vital_private.total(u.total_cost) as cost
          from vital_private.visible_%3$s as u
          where u.day >= $1 and u.day <= $2 and u.%2$I is not null and %4$s
          group by u.organization_id, u.%2$I, u.day
        ) as d
        group by d.organization_id
      $query$,
      g.name, g.keys[1], g.source, case when array_position(organizations, null) is null then 'u.organization_id = any($3)' else 'true' end
    ), ' union all ')
    from vital_private.usage_groupings as g
    where g.name = any(subjects) and g.name in ('agent', 'model', 'user')
  ) using first_day, last_day, organizations;
end;
$$;

-- The latencies of days of subjects, and of the 28 days before each, as histograms. Each aggregation is read once for all of them.
create function vital_private.latencies_of(subjects text[], organizations text[], ids text[], days date[])
returns table (number bigint, this_day numeric, days_before numeric)
language plpgsql
stable
set search_path = ''
set jit = off
set enable_nestloop = off
set enable_mergejoin = off
as $$
begin
  return query execute (
    select string_agg(format(
      $query$
        select
          w.number, sum(u.latency_histogram) filter (where u.day = w.day), sum(u.latency_histogram) filter (where u.day < w.day)
        from unnest($1, $2, $3, $4) with ordinality as w (subject, organization_id, id, day, number)
        inner join vital_private.%1$I as u
          on u.%2$I = w.id and coalesce(u.organization_id, '') = coalesce(w.organization_id, '')
          and (u.organization_id is null) = (w.organization_id is null) and u.day between w.day - 28 and w.day
        where w.subject = %3$L and u.day between $5 and $6 and %4$s
        group by w.number
      $query$, 'visible_' || g.source, g.keys[1], g.name,
      case when array_position(organizations, null) is null then 'u.organization_id = any($2)' else 'true' end
    ), ' union all ')
    from vital_private.usage_groupings as g
    where g.name = any(subjects) and g.name in ('agent', 'model', 'user')
  ) using subjects, organizations, ids, days, (select min(d) - 28 from unnest(days) as d), (select max(d) from unnest(days) as d);
end;
$$;

-- Days (UTC) that are out of the ordinary, the dearest first, with the query that lists their calls:
-- select * from usage_anomalies(now() - interval '7 days', now(), 'acme')
create function public.usage_anomalies(
  since timestamptz default now() - interval '7 days',
  until timestamptz default now(),
  organization text default null,
  max_rows integer default 50
)
returns table (
  subject text,
  organization_id text,
  id text,
  day date,
  metric text,
  measure text,
  value numeric,
  usual numeric,
  score numeric,
  cost_at_stake numeric,
  calls bigint,
  unpriced_calls bigint,
  query text
)
language plpgsql
stable
set search_path = ''
set statement_timeout = '8s'
set plan_cache_mode = force_custom_plan
set work_mem = '64MB'
set jit = off
set enable_nestloop = off -- the planner cannot know how many rows the steps below have
set enable_mergejoin = off
as $$
declare
  first_day constant date := (coalesce(since, now() - interval '7 days') at time zone 'UTC')::date;
  last_day constant date := ((coalesce(until, now()) - interval '1 microsecond') at time zone 'UTC')::date;
begin
  perform vital_private.check_times(since, until);
  return query
  with subjects as materialized (
    select u.subject, u.organization_id, u.id, u.days
    from vital_private.usage_by_subject(first_day - 28, first_day, last_day, organization) as u
  ),

  -- The days that may be out of the ordinary. What is at least twice the median is at least twice half of the days, which is quickly counted
  -- and spares most days the steps that follow.
  judged as materialized (
    select
      row_number() over () as number, s.subject, s.organization_id, s.id, s.days,
      u.day, u.calls, u.failed, u.timed, u.cost, u.unpriced, u.failed / u.calls as rate,
      case when u.timed >= 5 then t.latency_us / 1000 / u.timed end as latency, b.known, b.dearest
    from subjects as s
    cross join lateral unnest(s.days) as u
    cross join lateral (select u.latency_us::double precision as latency_us) as t
    cross join lateral (
      select
        count(*) as known,
        count(*) filter (where 2 * h.cost <= u.cost) as cheaper,
        count(*) filter (where h.timed >= 5) as timed,
        count(*) filter (where h.timed >= 5 and 1.5 * h.latency_us::double precision / h.timed <= t.latency_us / nullif(u.timed, 0)) as faster,
        max(h.cost) as dearest
      from unnest(s.days) as h
      where h.day >= u.day - 28 and h.day < u.day
      offset 0
    ) as b
    where u.day >= first_day
      and (u.cost >= 0.5 or u.failed >= 5 or u.timed >= 20)
      and (
        (u.cost >= case when b.known < 3 then 10 when b.known < 7 then 5 else 0.5 end and b.cheaper >= (b.known + 1) / 2)
        or (b.known >= 7 and u.failed >= 5 and u.calls >= 20 and u.failed >= 0.05 * u.calls)
        or (b.timed >= 7 and u.timed >= 20 and b.faster >= (b.timed + 1) / 2)
      )
  ),

  -- What is new, beside the days of others of its kind.
  others as (
    select o.*
    from (
      select array_agg(distinct j.subject) as subjects, array_agg(distinct j.organization_id) as organizations
      from judged as j
      where j.known < 3
      having count(*) > 0
    ) as n
    cross join lateral vital_private.usual_of_others(n.subjects, n.organizations, first_day - 28, first_day - 1) as o
  ),

  newcomers as (
    select
      j.*, case when o.days >= 20 then greatest(o.usual, j.dearest) when j.subject = 'user' then greatest(20, j.dearest) end as usual
    from judged as j
    left join others as o
      on o.subject = j.subject and coalesce(o.organization_id, '') = coalesce(j.organization_id, '')
      and (o.organization_id is null) = (j.organization_id is null)
    where j.known < 3
  ),

  -- Each of the other days with its own days before.
  history as materialized (
    select
      j.number, h.cost, h.calls, h.failed, h.failed / h.calls as rate,
      -- Differences of cents or of a millisecond do not count.
      ln(h.cost::double precision + 0.05) as log_cost,
      case when h.timed >= 5 then ln(h.latency_us::double precision / 1000 / h.timed + 1) end as log_latency,
      extract(isodow from h.day) = extract(isodow from j.day) as same_weekday,
      row_number() over (partition by j.number order by h.failed desc, h.failed / h.calls desc, h.day) as by_failures
    from judged as j
    cross join lateral unnest(j.days) as h
    where j.known >= 3 and h.day >= j.day - 28 and h.day < j.day
  ),

  medians as (
    select
      h.number, count(*) as days, count(h.log_latency) as timed_days,
      count(*) filter (where h.same_weekday) as weekdays, count(h.log_latency) filter (where h.same_weekday) as timed_weekdays,
      percentile_cont(0.5) within group (order by h.log_cost) as log_cost,
      percentile_cont(0.5) within group (order by h.log_cost) filter (where h.same_weekday) as weekday_log_cost,
      percentile_cont(0.5) within group (order by h.log_latency) as log_latency,
      percentile_cont(0.5) within group (order by h.log_latency) filter (where h.same_weekday) as weekday_log_latency,
      percentile_cont(0.5) within group (order by h.rate) as rate,
      -- Where calls are few, the median rate is often 0. The two worst days are left out, because they do not make a habit.
      sum(h.failed) filter (where h.by_failures > 2) / nullif(sum(h.calls) filter (where h.by_failures > 2), 0) as pooled_rate,
      sum(h.cost)::double precision / sum(h.calls) as cost_a_call
    from history as h
    group by h.number
  ),

  spreads as (
    select
      m.number,
      1.4826 * percentile_cont(0.5) within group (order by abs(h.log_cost - m.log_cost)) as log_cost,
      1.4826 * percentile_cont(0.5) within group (order by abs(h.log_latency - m.log_latency)) as log_latency,
      1.4826 * percentile_cont(0.5) within group (order by abs(h.rate - m.rate)) as rate
    from medians as m
    join history as h on h.number = m.number
    group by m.number
  ),

  measured as (
    select
      j.*, m.timed_days, m.cost_a_call,
      exp(u.log_cost) - 0.05 as usual_cost,
      exp(u.log_latency) - 1 as usual_latency,
      u.rate as usual_rate,
      -- The fewer days there are, the less is known about how far they differ.
      (ln(j.cost::double precision + 0.05) - u.log_cost) / (greatest(s.log_cost, 0.2) * (1 + 5.0 / m.days)) as cost_score,
      (ln(j.latency + 1) - u.log_latency) / (greatest(s.log_latency, 0.1) * (1 + 5.0 / nullif(m.timed_days, 0))) as latency_score,
      -- For few calls, the square root shows better how unlikely so many failures are.
      least(
        (j.rate - u.rate)
        / sqrt(greatest(u.rate, 0.01) * (1 - least(u.rate, 0.99)) / j.calls + power(s.rate, 2)),
        2 * (sqrt(j.failed + 0.375) - sqrt(u.rate * j.calls + 0.375))
      ) as rate_score
    from judged as j
    join medians as m on m.number = j.number
    join spreads as s on s.number = j.number
    cross join lateral (
      select
        case when m.weekdays >= 2 then greatest(m.log_cost, m.weekday_log_cost) else m.log_cost end as log_cost,
        case when m.timed_weekdays >= 2 then greatest(m.log_latency, m.weekday_log_latency) else m.log_latency end as log_latency,
        greatest(m.rate, m.pooled_rate) as rate
    ) as u
  ),

  slow as materialized (
    select m.*, row_number() over (order by m.at_stake desc, m.latency_score desc, m.number) as place
    from (
      select m.*, m.cost::double precision * (1 - m.usual_latency / m.latency) as at_stake
      from measured as m
      where m.latency_score >= 4 and m.timed >= 20 and m.timed_days >= 7 and m.latency >= 1.5 * m.usual_latency
      -- Percentiles take time, and nobody reads more rows than these.
      order by at_stake desc, m.latency_score desc, m.number
      limit least(greatest(coalesce(max_rows, 50), 0), 200)
    ) as m
  ),

  found as (
    select
      n.subject, n.organization_id, n.id, n.day, 'cost' as metric, 'newcomer' as measure, n.cost as value,
      round(n.usual::numeric, 6) as usual, ln((n.cost::double precision + 0.05) / (n.usual + 0.05)) / 0.4 as score,
      n.cost - n.usual::numeric as at_stake, n.calls, n.unpriced
    from newcomers as n
    where n.cost >= 5 * n.usual and n.cost - n.usual >= 10
    union all
    select
      m.subject, m.organization_id, m.id, m.day, 'cost', 'sum', m.cost,
      greatest(round(m.usual_cost::numeric, 6), 0), m.cost_score, m.cost - m.usual_cost::numeric,
      m.calls, m.unpriced
    from measured as m
    where m.cost_score >= 4 and m.cost >= 2 * m.usual_cost and m.cost - m.usual_cost >= case when m.known < 7 then 5 else 0.5 end
    union all
    select
      m.subject, m.organization_id, m.id, m.day, 'error_rate', 'percent', round(100 * m.rate::numeric, 2), round(100 * m.usual_rate::numeric, 2),
      m.rate_score, ((m.failed - m.usual_rate * m.calls) * m.cost_a_call)::numeric, m.calls, m.unpriced
    from measured as m
    where m.known >= 7 and m.rate_score >= 4 and m.calls >= 20 and m.failed >= 5 and m.rate >= 2 * m.usual_rate
      and m.rate >= m.usual_rate + 0.05
    union all
    select
      l.subject, l.organization_id, l.id, l.day, 'latency', p.measure, p.value, p.usual, l.latency_score,
      l.cost * (1 - p.usual / p.value), l.calls, l.unpriced
    from (
      select
        array_agg(s.subject order by s.place) as subjects, array_agg(s.organization_id order by s.place) as organizations,
        array_agg(s.id order by s.place) as ids, array_agg(s.day order by s.place) as days
      from slow as s
      having count(*) > 0
    ) as a
    cross join lateral vital_private.latencies_of(a.subjects, a.organizations, a.ids, a.days) as h
    inner join slow as l on l.place = h.number
    cross join lateral (
      select
        public.latency_percentiles(h.this_day, '{0.5,0.95}') as this_day,
        public.latency_percentiles(h.days_before, '{0.5,0.95}') as days_before
      offset 0
    ) as b
    cross join lateral (
      select
        v.measure, round(v.value::numeric, 3) as value, round(v.usual::numeric, 3) as usual
      from (
        values ('median', b.this_day[1], b.days_before[1]), ('p95', b.this_day[2], b.days_before[2])
      ) as v (measure, value, usual)
      where v.value >= 1.5 * v.usual and (v.measure = 'median' or l.timed >= 100)
      order by v.measure
      limit 1
    ) as p
  )

  select
    f.subject, f.organization_id, f.id, f.day, f.metric, f.measure, f.value, f.usual, round(f.score::numeric, 1),
    greatest(round(f.at_stake, 6), 0), f.calls::bigint, f.unpriced::bigint,
    format(
      'select * from agent_usage_detailed where %s and %I = %L and created_at >= %L and created_at < %L%s order by %s limit 100',
      case when f.organization_id is null then 'organization_id is null' else format('organization_id = %L', f.organization_id) end,
      (select g.keys[1] from vital_private.usage_groupings as g where g.name = f.subject), f.id,
      f.day || ' 00:00:00+00', f.day + 1 || ' 00:00:00+00',
      case f.metric
        when 'cost' then ' and total_cost > 0'
        when 'latency' then format(' and response_time_ms > %s', f.usual)
        else ' and not success and status <> ''blocked'''
      end,
      case f.metric when 'cost' then 'total_cost desc' when 'latency' then 'response_time_ms desc' else 'created_at' end
    )
  from found as f
  order by f.at_stake desc, f.score desc, f.day desc, f.subject, f.organization_id, f.id, f.metric
  limit least(greatest(coalesce(max_rows, 50), 0), 10000);
end;
$$;

comment on function public.usage_anomalies(timestamptz, timestamptz, text, integer) is
'Days of agents, users and models that cost more, took longer or failed more often than is usual of them, the dearest first.';

-- The same as JSON; amounts are text.
create function public.anomalies_v1(
  since timestamptz, until timestamptz, organization text default null, rows integer default 50
) returns json
language sql
stable
set search_path = ''
as $$
  select vital_private.check_given('since', since::text);
  select vital_private.check_given('until', until::text);
  select json_build_object(
    'since', since, 'until', until, 'organization', organization,
    'rows', coalesce(json_agg(json_build_object(
      'subject', a.subject, 'id', a.id, 'organization_id', a.organization_id, 'day', a.day, 'metric', a.metric,
      'measure', a.measure, 'value', a.value::text, 'usual', a.usual::text, 'score', a.score,
      'cost_at_stake', a.cost_at_stake::text, 'calls', a.calls, 'unpriced_calls', a.unpriced_calls, 'query', a.query
    ) order by a.place), '[]')
  )
  from (
    select f.*, row_number() over () as place from public.usage_anomalies(since, until, organization, rows) as f
  ) as a
$$;

select vital_private.restrict_functions(
  api => '{usage_anomalies, anomalies_v1}', helpers => '{usage_by_subject, usual_of_others, latencies_of, total}'
);
