-- Forecasts: where the day or the month ends. What was spent so far, and what the rest will cost by weekday and hour.
--
-- Method. At 14:20 on a Tuesday, two numbers of each day of the last eight weeks matter: what it cost before 14:20, and what it cost
-- from then on. Each weekday has a usual cost of both: the mean of its days, in which a day far from their median counts as the
-- median, so that neither an incident nor an outage is taken for a habit. The last seven days, compared with what is usual for
-- them, give the level, so that growth is followed. The projection is the usual rest of this Tuesday and the usual whole days that
-- follow, times the level. With less than two weeks of history all days count as alike.
--
-- Error. The same forecast is made for earlier times, at the same time of the day and from what was known then, and compared with how
-- those windows ended: the window is moved back by whole days (for a day) or whole weeks (for a month), 28 and 8 times at most. The
-- mean of these errors is the error of the forecast, their spread gives its low and high end.
--
-- What is spent is exact, in every time zone and to the microsecond: whole hours come from the aggregation, the rest from the calls. The
-- days of the history are made of whole hours (UTC); where a local day begins within one, as in India, the hour is split by time.

-- A forecast: a window in its zone, what was spent in it, and what it will cost.
create type vital_private.forecast as (
  zone text,
  starts_at timestamptz,
  ends_at timestamptz,
  today date,
  -- An element for each day of the window, up to and including today: the costs, and the calls without a price.
  spent numeric array,
  unpriced_calls numeric array,
  -- What is still to come, an element for each day of the window from today on.
  rest numeric array,
  total numeric,
  projected numeric,
  low numeric,
  high numeric,
  burn_rate_per_day numeric,
  mape double precision,
  windows integer,
  method text
);

-- A value, or the median instead if the value is too far from it to be a habit: more than three times as much or less than a third, and more
-- than five standard deviations away, which are estimated by the median distance from the median. (No SET clause, so that it is inlined.)
create function vital_private.within_reason(
  value double precision, median double precision, spread double precision, known bigint
) returns double precision
language sql
immutable
parallel safe
return case
  when known >= 4 and median > 0 and (value > 3 * median or value < median / 3) and abs(value - median) > 7.413 * spread then median
  else value
end;

-- What each hour of a time has cost, of what the caller may see: from the sums and, of whoever is no admin, from his own calls, which
-- are in no sums that he sees. `organizations` NULL: of all.
create function vital_private.costs_by_hour(organizations text[], since timestamptz, until timestamptz)
returns table (hour_start timestamptz, total_cost numeric, unpriced_calls numeric, calls numeric)
language plpgsql
stable
rows 2000
set search_path = ''
set plan_cache_mode = force_custom_plan
set jit = off
as $$
declare
  administered text[]; -- known when it is planned, so that an index finds the hours
  me text;
begin
  if current_user = 'authenticated' then
    administered := vital_private.administered_organizations();
    me := vital_private.subject();
    return query
    select u.hour_start, sum(u.total_cost), sum(u.unpriced_calls), sum(u.calls)
    from (
      select h.hour_start, h.total_cost, h.unpriced_calls, h.calls
      from public.usage_aggregations_hourly_totals as h
      where h.organization_id = any(administered) and (organizations is null or h.organization_id = any(organizations))
        and h.hour_start >= since and h.hour_start < until
      union all
      select date_trunc('hour', c.created_at, 'UTC'), c.total_cost, c.unpriced_calls, c.calls
      from vital_private.measured_calls as c
      where c.user_id = me and c.created_at >= since and c.created_at < until
        and (c.organization_id is null or c.organization_id <> all(administered))
        and (organizations is null or c.organization_id = any(organizations))
    ) as u
    group by u.hour_start;
  else
    return query
    select h.hour_start, sum(h.total_cost), sum(h.unpriced_calls), sum(h.calls)
    from public.usage_aggregations_hourly_totals as h
    where (organizations is null or h.organization_id = any(organizations)) and h.hour_start >= since and h.hour_start < until
    group by h.hour_start;
  end if;
end;
$$;

-- What each day of a window has cost until a moment, exactly.
create function vital_private.spent_by_day(organizations text[], first_day date, today date, zone text, moment timestamptz)
returns table (day date, spent numeric, unpriced_calls numeric)
language plpgsql
stable
set search_path = ''
set plan_cache_mode = force_custom_plan
set jit = off
as $$
begin
  return query
  with days as materialized (
    select
      b.day, b.since, b.until,
      -- Its whole hours; where it has none, the first of the two parts of hours holds all of its calls.
      date_trunc('hour', b.since + interval '1 hour' - interval '1 microsecond', 'UTC') as first_hour,
      date_trunc('hour', b.until, 'UTC') as last_hour
    from (
      select
        d::date as day, vital_private.local_midnight(d, zone) as since,
        least(vital_private.local_midnight(d + interval '1 day', zone), moment) as until
      from generate_series(first_day::timestamp, today::timestamp, interval '1 day') as d
    ) as b
  ),

  sums as materialized (
    select h.* from (select min(d.first_hour) as since, max(d.last_hour) as until from days as d) as t
    cross join lateral vital_private.costs_by_hour(organizations, t.since, t.until) as h
  )

  select d.day, coalesce(sum(u.total_cost), 0), coalesce(sum(u.unpriced_calls), 0)
  from days as d
  left join lateral (
    select h.total_cost, h.unpriced_calls
    from sums as h
    where h.hour_start >= d.first_hour and h.hour_start < d.last_hour
    union all
    select c.total_cost, c.unpriced_calls
    from vital_private.measured_calls as c
    where d.since < d.first_hour
      and (organizations is null or c.organization_id = any(organizations))
      and c.created_at >= d.since and c.created_at < least(d.first_hour, d.until)
    union all
    select c.total_cost, c.unpriced_calls
    from vital_private.measured_calls as c
    where d.until > greatest(d.last_hour, d.first_hour)
      and (organizations is null or c.organization_id = any(organizations))
      and c.created_at >= greatest(d.last_hour, d.first_hour) and c.created_at < d.until
  ) as u on true
  group by d.day
  order by d.day;
end;
$$;

-- The forecast for the window of a moment, from what was known then.
create function vital_private.forecast_of(organizations text[], period text, zone text, moment timestamptz)
returns vital_private.forecast
language plpgsql
stable
set search_path = ''
set plan_cache_mode = force_custom_plan
set jit = off
set enable_nestloop = off -- the planner cannot know how many rows the steps below have
as $$
declare
  history_days constant integer := 56;
  known_well constant integer := 14; -- days of history from which weekdays are told apart
  answer vital_private.forecast;
  first_day date;
  last_day date;
  days_left integer; -- after today
  shifts integer[]; -- by how many days the window is moved back: 0 for itself, and those that measure the error
  clock double precision; -- seconds of the local day that have passed
  spent_today double precision;
  known_since date;
  low_share double precision;
  high_share double precision;
begin
  if period is null or period not in ('day', 'month') then
    raise exception 'A forecast is for a day or a month, not for %.', coalesce(quote_literal(period), 'NULL')
      using errcode = '22023', hint = 'period => ''day'' or ''month''.';
  end if;
  if zone is null or moment is null or not isfinite(moment) then
    raise exception 'A forecast needs a time zone and a moment.' using errcode = '22023';
  end if;
  answer.zone := zone;
  answer.starts_at := vital_private.window_start(period, moment, zone, null);
  answer.ends_at := vital_private.window_end(period, moment, zone);
  answer.today := vital_private.local_day(moment, zone);
  first_day := date_trunc(period, answer.today::timestamp);
  last_day := first_day + ('1 ' || period)::interval - interval '1 day';
  days_left := last_day - answer.today;
  clock := least(greatest(extract(epoch from moment at time zone zone - answer.today), 0), 86400);
  shifts := case period
    when 'day' then array(select generate_series(0, 28))
    else array(select 0 union all select 7 * (days_left / 7 + n) from generate_series(1, 8) as n)
  end;

  select array_agg(s.spent order by s.day), array_agg(s.unpriced_calls order by s.day), sum(s.spent)
  into answer.spent, answer.unpriced_calls, answer.total
  from vital_private.spent_by_day(organizations, first_day, answer.today, zone, moment) as s;
  spent_today := answer.spent[cardinality(answer.spent)];

  with hours as materialized (
    select h.hour_start at time zone zone as local_start, h.total_cost::double precision as cost
    from vital_private.costs_by_hour(
      organizations, moment - make_interval(days => (select max(s) from unnest(shifts) as s) + history_days + 2),
      date_trunc('hour', moment, 'UTC')
    ) as h
    where h.calls > 0
  ),

  -- Each day in two parts: before this time of the day, and from then on.
  parts as (
    select
      h.local_start::date + o.later as day,
      sum(h.cost * greatest(least(p.second + 3600, clock) - greatest(p.second, 0), 0) / 3600) as before,
      sum(h.cost * greatest(least(p.second + 3600, 86400) - greatest(p.second, clock), 0) / 3600) as after
    from hours as h
    cross join (values (0), (1)) as o (later)
    cross join lateral (
      select extract(epoch from h.local_start - date_trunc('day', h.local_start))::double precision - o.later * 86400 as second
    ) as p
    where o.later = 0 or p.second > -3600
    group by 1
  ),

  -- The first day of the history, from this time of the day to the same time of the next day: the one with the first call in it.
  beginning as (
    select
      min(case
        when h.local_start + interval '1 hour' <= h.local_start::date + make_interval(secs => clock)
          then h.local_start::date - 1
        else h.local_start::date
      end) as day
    from hours as h
  ),

  days as materialized (
    select
      d.day, d.before + d.after as cost, d.after,
      lead(d.before) over (order by d.day) as before_next,
      sum(d.before + d.after) over (order by d.day) - d.after as cost_until -- this time of the day
    from (
      select
        s::date as day,
        case when s::date = answer.today then spent_today else coalesce(p.before, 0) end as before,
        case when s::date = answer.today then 0 else coalesce(p.after, 0) end as after
      from generate_series((select b.day from beginning as b)::timestamp, answer.today::timestamp, interval '1 day') as s
      left join parts as p on p.day = s::date
    ) as d
  ),

  origins as materialized (
    select o.shift, o.today, least(history_days, o.today - (select b.day from beginning as b)) as known
    from (select s as shift, answer.today - s as today from unnest(shifts) as s) as o
    where o.shift = 0 or o.today - (select b.day from beginning as b) >= 7
  ),

  history as materialized (
    select
      o.shift, o.today - d.day as ago, case when o.known >= known_well then extract(isodow from d.day) else 0 end as kind,
      case o.known when 1 then (d.after + d.before_next) * (1 - clock / 86400) else d.after end as after,
      case o.known when 1 then (d.after + d.before_next) * (clock / 86400) else d.before_next end as before_next
    from origins as o
    join days as d on d.day >= o.today - o.known and d.day < o.today
  ),

  medians as (
    select
      h.shift, h.kind, count(*) as known,
      percentile_cont(0.5) within group (order by h.after) as after,
      percentile_cont(0.5) within group (order by h.before_next) as before_next
    from history as h
    group by h.shift, h.kind
  ),

  spreads as (
    select
      m.*,
      percentile_cont(0.5) within group (order by abs(h.after - m.after)) as after_spread,
      percentile_cont(0.5) within group (order by abs(h.before_next - m.before_next)) as before_next_spread
    from history as h
    join medians as m on m.shift = h.shift and m.kind = h.kind
    group by m.shift, m.kind, m.known, m.after, m.before_next
  ),

  usual as materialized (
    select
      h.shift, h.kind,
      avg(vital_private.within_reason(h.after, s.after, s.after_spread, s.known)) as after,
      avg(vital_private.within_reason(h.before_next, s.before_next, s.before_next_spread, s.known)) as before_next
    from history as h
    join spreads as s on s.shift = h.shift and s.kind = h.kind
    group by h.shift, h.kind
  ),

  -- The last week compared with what is usual for it.
  recent as materialized (
    select
      h.shift, h.after + h.before_next as cost, u.after + u.before_next as usual,
      (h.after + h.before_next) / nullif(u.after + u.before_next, 0) as ratio
    from history as h
    join usual as u on u.shift = h.shift and u.kind = h.kind
    where h.ago <= 7
  ),

  ratios as (
    select r.shift, count(r.ratio) as known, percentile_cont(0.5) within group (order by r.ratio) as ratio
    from recent as r
    group by r.shift
  ),

  ratio_spreads as (
    select
      m.shift, m.known, m.ratio, percentile_cont(0.5) within group (order by abs(r.ratio - m.ratio)) as spread
    from recent as r
    join ratios as m on m.shift = r.shift
    group by m.shift, m.known, m.ratio
  ),

  levels as (
    select
      r.shift,
      coalesce(
        sum(vital_private.within_reason(r.ratio, m.ratio, m.spread, m.known) * r.usual) / nullif(sum(r.usual), 0), 1
      ) as level,
      sum(r.cost) / count(*) as burn_rate
    from recent as r
    join ratio_spreads as m on m.shift = r.shift
    group by r.shift
  ),

  -- The rest of today, and the days that follow.
  coming as (
    select
      o.shift, n.later,
      l.level * (this.after + case when n.later = 0 then 0 else before.before_next end) as cost
    from origins as o
    join levels as l on l.shift = o.shift
    cross join generate_series(0, days_left) as n (later)
    join usual as this
      on this.shift = o.shift
      and this.kind = case when o.known >= known_well then extract(isodow from o.today + n.later) else 0 end
    join usual as before
      on before.shift = o.shift
      and before.kind = case when o.known >= known_well then extract(isodow from o.today + n.later - 1) else 0 end
  ),

  -- What would have been forecast for earlier windows, and how they ended.
  held_back as (
    select
      o.shift,
      coalesce(now_then.cost_until, 0) - coalesce(start.cost_until + start.after - start.cost, 0)
      + (select sum(c.cost) from coming as c where c.shift = o.shift) as forecast,
      coalesce(finish.cost_until + finish.after, 0) - coalesce(start.cost_until + start.after - start.cost, 0) as ended
    from origins as o
    left join days as start on start.day = first_day - o.shift
    left join days as now_then on now_then.day = o.today
    left join days as finish on finish.day = last_day - o.shift
    where o.shift > 0
  ),

  errors as (
    select
      count(*)::integer as windows, avg(abs(h.forecast - h.ended) / h.ended) as mape,
      max(abs(h.ended - h.forecast) / h.forecast) * (1 + 1.0 / nullif(count(*), 0)) as farthest,
      percentile_cont(0.05) within group (order by (h.ended - h.forecast) / h.forecast) as low,
      percentile_cont(0.95) within group (order by (h.ended - h.forecast) / h.forecast) as high
    from held_back as h
    where h.forecast > 0 and h.ended > 0
  )

  select
    (select b.day from beginning as b),
    (select array_agg(round(c.cost::numeric, 6) order by c.later) from coming as c where c.shift = 0),
    (select round(l.burn_rate::numeric, 6) from levels as l where l.shift = 0),
    e.windows, round(100 * e.mape::numeric, 2),
    -- A few overlapping windows are too few for percentiles: assume that the next one is a little farther off than any of them.
    case when e.windows >= 20 then e.low else -e.farthest end,
    case when e.windows >= 20 then e.high else e.farthest end
  into known_since, answer.rest, answer.burn_rate_per_day, answer.windows, answer.mape, low_share, high_share
  from errors as e;

  answer.method := case
    when known_since is null then 'no history'
    when answer.today - known_since >= known_well then 'weekday and hour'
    when answer.today - known_since > 1 then 'average day'
    else 'last day'
  end;
  answer.rest := coalesce(answer.rest, array_fill(0::numeric, array[days_left + 1]));
  answer.burn_rate_per_day := coalesce(answer.burn_rate_per_day, 0);
  answer.projected := answer.total + (select sum(r) from unnest(answer.rest) as r);
  if answer.windows > 0 then
    answer.low := answer.projected + round((answer.projected::double precision * least(low_share, 0))::numeric, 6);
    answer.high := answer.projected + round((answer.projected::double precision * greatest(high_share, 0))::numeric, 6);
  else
    -- If nothing is known about errors, the rest may cost nothing, or twice as much.
    answer.high := answer.projected + (answer.projected - answer.total);
  end if;
  answer.low := greatest(answer.low, answer.total);
  return answer;
end;
$$;

-- When a window reaches an amount: the hour in which it did, or the moment at which it will by the usual hours of that weekday; NULL: not
-- in this window.
create function vital_private.reaches_at(
  forecast vital_private.forecast, organizations text[], moment timestamptz, amount numeric
) returns timestamptz
language plpgsql
stable
set search_path = ''
set plan_cache_mode = force_custom_plan
set jit = off
as $$
declare
  missing numeric := amount - forecast.total;
  later integer := 0;
  day date;
  answer timestamptz;
begin
  if missing <= 0 then
    select greatest(min(s.hour_start), forecast.starts_at) into answer
    from (
      select h.hour_start, sum(h.total_cost) over (order by h.hour_start) as reached
      from vital_private.costs_by_hour(organizations, forecast.starts_at - interval '1 hour' + interval '1 microsecond', moment) as h
    ) as s
    where s.reached >= amount;
    return coalesce(answer, least(moment, forecast.starts_at));
  end if;
  while later < cardinality(forecast.rest) and forecast.rest[later + 1] < missing loop
    missing := missing - forecast.rest[later + 1];
    later := later + 1;
  end loop;
  if later = cardinality(forecast.rest) then
    return null;
  end if;
  day := forecast.today + later;
  with habits as (
    select extract(hour from h.hour_start at time zone forecast.zone) as hour, sum(h.total_cost) as cost
    from vital_private.costs_by_hour(organizations, moment - interval '56 days', moment) as h
    where extract(isodow from h.hour_start at time zone forecast.zone) = extract(isodow from day)
    group by 1
  ),

  hours as (
    select
      t.starts_at, least(t.starts_at + interval '1 hour', vital_private.local_midnight(day + interval '1 day', forecast.zone)) as ends_at,
      -- Every hour weighs a little, so that there always is one in which the day's sum is reached.
      coalesce(h.cost, 0) / (select nullif(sum(a.cost), 0) from habits as a) + 1e-6 as weight
    from generate_series(
      greatest(vital_private.local_midnight(day, forecast.zone), moment),
      vital_private.local_midnight(day + interval '1 day', forecast.zone) - interval '1 microsecond', interval '1 hour'
    ) as t (starts_at)
    left join habits as h on h.hour = extract(hour from t.starts_at at time zone forecast.zone)
  ),

  passed as (
    select
      h.starts_at, h.ends_at, coalesce(h.weight, 1) as weight,
      sum(coalesce(h.weight, 1)) over (order by h.starts_at) as reached, sum(coalesce(h.weight, 1)) over () as whole
    from hours as h
  )

  select
    p.ends_at - (p.ends_at - p.starts_at) * ((p.reached - p.whole * missing / forecast.rest[later + 1]) / p.weight)::double precision
  into answer
  from passed as p
  where p.reached >= p.whole * missing / forecast.rest[later + 1]
  order by p.starts_at
  limit 1;
  return date_trunc('minute', answer);
end;
$$;

-- Where the day or the month of what the caller may see ends, of an organization or (NULL) of all: a user's is that of his own calls.
-- `mape` and `projected_share` are percent.
-- select * from cost_forecast('acme', 'month', 'Europe/Berlin')
create function public.cost_forecast(
  organization text default null,
  period text default 'month',
  timezone text default 'UTC',
  moment timestamptz default now()
)
returns table (
  starts_at timestamptz,
  ends_at timestamptz,
  spent numeric,
  unpriced_calls numeric,
  burn_rate_per_day numeric,
  projected numeric,
  low numeric,
  high numeric,
  mape double precision,
  windows integer,
  method text,
  days json,
  budgets json
)
language plpgsql
stable
set search_path = ''
set statement_timeout = '8s'
as $$
declare
  organizations constant text[] := case when organization is not null then array[organization] end;
  told constant vital_private.forecast := vital_private.forecast_of(organizations, period, timezone, moment);
  theirs vital_private.forecast;
  budget record;
  found json[] := '{}';
begin
  for budget in
    select b.id, b.entity_id, b.action, b.enforce, b.timezone as zone, l.limit_amount
    from public.budget_limits as b
    cross join lateral (select case period when 'day' then b.daily_limit else b.monthly_limit end as limit_amount) as l
    where b.entity_type = 'organization' and b.metric = 'cost_usd' and l.limit_amount is not null
      and b.entity_id in ('*', organization) and coalesce(b.organization_id, organization) = organization
    order by b.timezone, l.limit_amount, b.id
  loop
    -- The day and the month of a budget are those of its own zone.
    if budget.zone = timezone then
      theirs := told;
    elsif theirs is null or theirs.zone <> budget.zone then
      theirs := vital_private.forecast_of(organizations, period, budget.zone, moment);
    end if;
    found := found || json_build_object(
      'id', budget.id, 'entity', budget.entity_id, 'action', budget.action, 'enforce', budget.enforce, 'timezone', budget.zone,
      'limit', budget.limit_amount::text, 'spent', theirs.total::text, 'projected', theirs.projected::text,
      'projected_share', round(100 * theirs.projected / nullif(budget.limit_amount, 0), 2),
      'runs_out_at', vital_private.reaches_at(theirs, organizations, moment, budget.limit_amount)
    );
  end loop;
  return query
  select
    told.starts_at, told.ends_at, told.total, (select sum(u) from unnest(told.unpriced_calls) as u), told.burn_rate_per_day,
    told.projected, told.low, told.high, told.mape, told.windows, told.method,
    (
      select json_agg(json_build_array(d.day, d.spent::text, d.projected::text) order by d.day)
      from (
        select
          told.today + n - cardinality(told.spent) as day, told.spent[n] as spent,
          told.rest[n + 1 - cardinality(told.spent)]
          + case when n = cardinality(told.spent) then told.spent[n] else 0 end as projected
        from generate_series(1, cardinality(told.spent) + cardinality(told.rest) - 1) as n
      ) as d
    ),
    array_to_json(found);
end;
$$;

comment on function public.cost_forecast(text, text, text, timestamptz) is
'Where a day or month ends: US dollars spent, projected by weekday and hour, low and high, mean error (mape, percent) on held-back windows.';

-- The same as JSON; amounts are text.
create function public.forecast_v1(
  organization text default null,
  period text default 'month',
  timezone text default 'UTC',
  moment timestamptz default now()
) returns json
language sql
stable
set search_path = ''
as $$
  select json_build_object(
    'organization', organization, 'period', period, 'timezone', timezone, 'moment', moment,
    'starts_at', f.starts_at, 'ends_at', f.ends_at, 'spent', f.spent::text, 'unpriced_calls', f.unpriced_calls,
    'burn_rate_per_day', f.burn_rate_per_day::text, 'projected', f.projected::text, 'low', f.low::text, 'high', f.high::text,
    'error', case when f.windows > 0 then json_build_object('mape', f.mape, 'windows', f.windows) end,
    'method', f.method, 'days', f.days, 'budgets', f.budgets
  )
  from public.cost_forecast(organization, period, timezone, moment) as f
$$;

select vital_private.restrict_functions(
  api => '{cost_forecast, forecast_v1}', helpers => '{within_reason, costs_by_hour, spent_by_day, forecast_of, reaches_at}'
);
