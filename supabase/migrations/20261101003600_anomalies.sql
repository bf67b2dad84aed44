-- Anomalies: days of an agent, a user or a model that cost far more, took far longer or failed far more often than its days before.
--
-- Each day is compared with the days of the four weeks before on which the same agent, user or model was in use, at least seven of
-- them. What is usual is their median, or that of the same weekday if it is more. The score is a number of standard deviations, estimated
-- by the median distance from the median, with lower bounds so that a short or very steady history makes nothing small remarkable:
--   cost        on a logarithmic scale (what varies by half each day may double); 4 or more, twice the usual and half a dollar above it
--   latency     likewise, by the mean of each day with 20 calls or more; then the day's median or, of 100 calls or more, its 95th
--               percentile must be half above that of the days before, and that is what is reported
--   error_rate  of the calls that were not blocked, if they are 20 or more and 5 of them failed; what chance makes of so few calls
--               counts as much as how the days before have differed; 4 or more, twice the usual and 5 % above it
-- Only what is too much is reported, the dearest first: the dollars beyond the usual; of failed calls, what as many calls usually cost;
-- of slow ones, the part of their cost by which they took longer.

-- What agents, models and users did each day, without blocked calls. Each aggregation is read once for all subjects that it has.
create function vital_private.usage_by_subject(first_day date, last_day date, organization text)
returns table (
  subject text, organization_id text, id text, day date, calls numeric, failed numeric, timed numeric, cost numeric,
  unpriced numeric, latency_us numeric
)
language plpgsql
stable
set search_path = ''
set jit = off
as $$
begin
  return query execute (
    select string_agg(format(
      $query$
        select
          case %1$s end, u.organization_id, coalesce(%2$s), u.day,
          sum(u.calls - u.blocked_calls), sum(u.failed_calls - u.blocked_calls), sum(u.timed_calls), sum(u.total_cost),
          sum(u.unpriced_calls), sum(u.latency_us)
        from public.usage_aggregations_%3$s as u
        where u.day >= $1 and u.day <= $2 and ($3 is null or u.organization_id = $3)
        group by grouping sets (%4$s)
        having coalesce(%2$s) is not null and sum(u.calls - u.blocked_calls) > 0
      $query$,
      s.subjects, s.ids, s.source, s.sets
    ), ' union all ')
    from (
      select
        g.source,
        string_agg(format('when grouping(u.%I) = 0 then %L', g.keys[1], g.name), ' ' order by g.position) as subjects,
        string_agg(format('u.%I', g.keys[1]), ', ' order by g.position) as ids,
        string_agg(format('(u.organization_id, u.day, u.%I)', g.keys[1]), ', ' order by g.position) as sets
      from vital_private.usage_groupings as g
      where g.name in ('agent', 'model', 'user')
      group by g.source
    ) as s
  ) using first_day, last_day, organization;
end;
$$;

-- The latencies of a subject's days, as a histogram.
create function vital_private.latencies_of(subject text, organization text, id text, first_day date, last_day date)
returns numeric
language plpgsql
stable
set search_path = ''
as $$
declare
  histogram numeric;
begin
  execute (
    select format(
      $query$
        select sum(u.latency_histogram)
        from public.usage_aggregations_%s as u
        where u.organization_id is not distinct from $1 and u.%I = $2 and u.day >= $3 and u.day <= $4
      $query$, g.source, g.keys[1]
    )
    from vital_private.usage_groupings as g
    where g.name = subject
  ) into histogram using organization, id, first_day, last_day;
  return histogram;
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
set jit = off
set enable_nestloop = off -- the planner cannot know how many rows the steps below have
as $$
declare
  first_day constant date := (since at time zone 'UTC')::date;
  last_day constant date := ((until - interval '1 microsecond') at time zone 'UTC')::date;
begin
  return query
  with usage as materialized (
    select
      u.*, u.failed / u.calls as rate,
      case when u.timed >= 5 then u.latency_us / 1000 / u.timed end as latency
    from vital_private.usage_by_subject(first_day - 28, last_day, organization) as u
  ),

  -- All days of a subject, ordered by what they cost and by how long they took.
  subjects as materialized (
    select
      u.subject, u.organization_id, u.id,
      array_agg(u.day) as days, array_agg(u.day) filter (where u.latency is not null) as timed_days,
      array_agg(u.cost order by u.cost) as costs, array_agg(u.latency order by u.latency) as latencies
    from usage as u
    group by u.subject, u.organization_id, u.id
    having count(*) >= 8 and max(u.day) >= first_day
  ),

  -- The days that may be out of the ordinary. If n days before are known, half of them are not above their median, so the element
  -- at half of n among all days is not above it either. This cheap lower bound spares most days the steps that follow.
  judged as materialized (
    select row_number() over () as number, u.*
    from usage as u
    join subjects as s
      on s.subject = u.subject and s.id = u.id and s.organization_id is not distinct from u.organization_id
    cross join lateral (
      select
        (select count(*) from unnest(s.days) as d where d >= u.day - 28 and d < u.day) as known,
        (select count(*) from unnest(s.timed_days) as d where d >= u.day - 28 and d < u.day) as timed_known
      offset 0
    ) as b
    where u.day >= first_day
      and b.known >= 7
      and (
        (u.cost >= 0.5 and u.cost >= 2 * s.costs[(b.known + 1) / 2])
        or (u.failed >= 5 and u.calls >= 20 and u.rate >= 0.05)
        or (u.timed >= 20 and u.latency >= 1.5 * s.latencies[(b.timed_known + 1) / 2])
      )
  ),

  -- Each of these days with its own days before.
  history as materialized (
    select
      j.number, h.cost, h.calls, h.failed, h.rate,
      -- Differences of cents or of a millisecond do not count.
      ln(h.cost::double precision + 0.05) as log_cost, ln(h.latency::double precision + 1) as log_latency,
      extract(isodow from h.day) = extract(isodow from j.day) as same_weekday,
      row_number() over (partition by j.number order by h.failed desc, h.rate desc, h.day) as by_failures
    from judged as j
    join usage as h
      on h.subject = j.subject and h.id = j.id and h.organization_id is not distinct from j.organization_id
      and h.day >= j.day - 28 and h.day < j.day
  ),

  medians as (
    select
      h.number, count(*) as days, count(h.log_latency) as timed_days,
      count(*) filter (where h.same_weekday) as weekdays, count(h.log_latency) filter (where h.same_weekday) as timed_weekdays,
      percentile_cont(0.5) within group (order by h.log_cost) as log_cost,
      percentile_cont(0.5) within group (order by h.log_cost) filter (where h.same_weekday) as weekday_log_cost,
      percentile_cont(0.5) within group (order by h.log_latency) as log_latency,
      percentile_cont(0.5) within group (order by h.log_latency) filter (where h.same_weekday) as weekday_log_latency,
      percentile_cont(0.5) within group (order by h.rate::double precision) as rate,
      -- Where calls are few, the median rate is often 0. The two worst days are left out, because they do not make a habit.
      sum(h.failed) filter (where h.by_failures > 2) / nullif(sum(h.calls) filter (where h.by_failures > 2), 0) as pooled_rate,
      sum(h.cost) / sum(h.calls) as cost_a_call
    from history as h
    group by h.number
    having count(*) >= 7
  ),

  spreads as (
    select
      m.number,
      1.4826 * percentile_cont(0.5) within group (order by abs(h.log_cost - m.log_cost)) as log_cost,
      1.4826 * percentile_cont(0.5) within group (order by abs(h.log_latency - m.log_latency)) as log_latency,
      1.4826 * percentile_cont(0.5) within group (order by abs(h.rate::double precision - m.rate)) as rate
    from medians as m
    join history as h on h.number = m.number
    group by m.number
  ),

  measured as (
    select
      j.*, j.timed as timed_calls, m.timed_days, m.cost_a_call,
      exp(u.log_cost) - 0.05 as usual_cost,
      exp(u.log_latency) - 1 as usual_latency,
      u.rate as usual_rate,
      -- The fewer days there are, the less is known about how far they differ.
      (ln(j.cost::double precision + 0.05) - u.log_cost) / (greatest(s.log_cost, 0.2) * (1 + 5.0 / m.days)) as cost_score,
      (ln(j.latency::double precision + 1) - u.log_latency) / (greatest(s.log_latency, 0.1) * (1 + 5.0 / nullif(m.timed_days, 0))) as latency_score,
      -- For few calls, the square root shows better how unlikely so many failures are.
      least(
        (j.rate::double precision - u.rate)
        / sqrt(greatest(u.rate, 0.01) * (1 - least(u.rate, 0.99)) / j.calls::double precision + power(s.rate, 2)),
        2 * (sqrt(j.failed::double precision + 0.375) - sqrt(u.rate * j.calls::double precision + 0.375))
      ) as rate_score
    from judged as j
    join medians as m on m.number = j.number
    join spreads as s on s.number = j.number
    cross join lateral (
      select
        case when m.weekdays >= 2 then greatest(m.log_cost, m.weekday_log_cost) else m.log_cost end as log_cost,
        case when m.timed_weekdays >= 2 then greatest(m.log_latency, m.weekday_log_latency) else m.log_latency end as log_latency,
        greatest(m.rate, m.pooled_rate::double precision) as rate
    ) as u
  ),

  found as (
    select
      m.subject, m.organization_id, m.id, m.day, 'cost' as metric, 'sum' as measure, m.cost as value,
      greatest(round(m.usual_cost::numeric, 6), 0) as usual, m.cost_score as score, m.cost - m.usual_cost::numeric as at_stake,
      m.calls, m.unpriced
    from measured as m
    where m.cost_score >= 4 and m.cost >= 2 * m.usual_cost and m.cost - m.usual_cost >= 0.5
    union all
    select
      m.subject, m.organization_id, m.id, m.day, 'error_rate', 'share', round(m.rate, 4), round(m.usual_rate::numeric, 4),
      m.rate_score, (m.failed - m.usual_rate::numeric * m.calls) * m.cost_a_call, m.calls, m.unpriced
    from measured as m
    where m.rate_score >= 4 and m.calls >= 20 and m.failed >= 5 and m.rate >= 2 * m.usual_rate and m.rate >= m.usual_rate + 0.05
    union all
    select
      l.subject, l.organization_id, l.id, l.day, 'latency', p.measure, p.value, p.usual, l.latency_score,
      l.cost * (1 - p.usual / p.value), l.calls, l.unpriced
    from (
      select m.*
      from measured as m
      where m.latency_score >= 4 and m.timed_calls >= 20 and m.timed_days >= 7 and m.latency >= 1.5 * m.usual_latency
      -- Percentiles take time, and nobody reads more rows than these.
      order by m.cost * (1 - m.usual_latency::numeric / m.latency) desc, m.latency_score desc, m.number
      limit least(greatest(max_rows, 0), 200)
    ) as l
    cross join lateral (
      select
        public.latency_percentiles(
          vital_private.latencies_of(l.subject, l.organization_id, l.id, l.day, l.day), '{0.5,0.95}'
        ) as this_day,
        public.latency_percentiles(
          vital_private.latencies_of(l.subject, l.organization_id, l.id, l.day - 28, l.day - 1), '{0.5,0.95}'
        ) as days_before
      offset 0
    ) as h
    cross join lateral (
      select
        v.measure, round(v.value::numeric, 3) as value, round(v.usual::numeric, 3) as usual
      from (
        values ('median', h.this_day[1], h.days_before[1]), ('p95', h.this_day[2], h.days_before[2])
      ) as v (measure, value, usual)
      where v.value >= 1.5 * v.usual and (v.measure = 'median' or l.timed_calls >= 100)
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
  limit least(greatest(max_rows, 0), 10000);
end;
$$;

comment on function public.usage_anomalies(timestamptz, timestamptz, text, integer) is
'Days of agents, users and models that cost more, took longer or failed more often than is usual of them, the dearest first.';

-- The same as JSON for the command line; amounts are text.
create function public.anomalies_v1(
  since timestamptz, until timestamptz, organization text default null, rows integer default 50
) returns json
language sql
stable
security definer
set search_path = ''
as $$
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
  api => '{usage_anomalies, anomalies_v1}', helpers => '{usage_by_subject, latencies_of}'
);
