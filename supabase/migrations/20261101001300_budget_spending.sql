-- How recorded calls are posted to the windows of budgets, and how the windows of a new or changed budget are filled from the calls
-- recorded so far.

-- What the windows of a budget come to by the calls themselves; `periods` NULL means all of them. The expressions of the budget's entity
-- and metric are built in, so that each call is looked at for these two alone.
create function vital_private.sums_of(budget public.budget_limits, periods text[] default null)
returns table (entity_id text, period text, starts_at timestamptz, ends_at timestamptz, limit_amount numeric, amount numeric)
language plpgsql
stable
set search_path = ''
as $$
begin
  if budget.by_plan then
    return query select q.* from vital_private.quota_sums(budget) as q;
    return;
  end if;
  return query execute format(
    $query$
      with counted as (
        select
          p.period, p.limit_amount,
          case when p.period = 'minute' then interval '1 minute' else interval '15 minutes' end as step,
          vital_private.window_start(p.period, p.since, $1.timezone, p.since) as first_start
        from vital_private.budget_periods as p
        where p.budget_id = $1.id and ($2 is null or p.period = any($2))
      ),

      -- In every time zone days begin at a quarter of an hour, so calls can be added up by quarters before windows are looked up.
      parts as materialized (
        select
          e.entity_id,
          date_bin((select min(counted.step) from counted), call.created_at, '2000-01-01 00:00:00+00') as part,
          call.created_at >= (select counted.first_start from counted where counted.period = 'total') as in_total,
          sum(%s) as amount
        from public.token_usage_logs as call
        cross join lateral (select %s) as e (entity_id)
        where call.created_at >= (select min(counted.first_start) from counted)
          and e.entity_id is not null
          and $1.entity_id in ('*', e.entity_id)
          and ($1.organization_id is null or call.organization_id = $1.organization_id)
        group by 1, 2, 3
      ),

      times as materialized (
        select distinct parts.part from parts
      ),

      frames as materialized (
        select
          counted.period, counted.limit_amount, times.part,
          vital_private.window_start(counted.period, times.part, $1.timezone, counted.first_start) as starts_at,
          vital_private.window_end(counted.period, times.part, $1.timezone) as ends_at
        from times
        join counted on counted.period = 'total' or times.part >= counted.first_start
      )

      select parts.entity_id, frames.period, frames.starts_at, frames.ends_at, frames.limit_amount, sum(parts.amount)
      from parts
      join frames on frames.part = parts.part and (frames.period <> 'total' or parts.in_total)
      group by 1, 2, 3, 4, 5
    $query$,
    (select t.of_call from vital_private.budget_terms as t where t.kind = 'metric' and t.name = budget.metric),
    (select t.of_call from vital_private.budget_terms as t where t.kind = 'entity' and t.name = budget.entity_type)
  ) using budget, periods;
end;
$$;

-- Bring a budget's windows into line after it was made or changed: windows get the limit now in force, those of limits that were
-- lifted are deleted, and for a new limit the windows that are running are filled from the calls recorded so far.
create function vital_private.open_windows() returns trigger
language plpgsql
security definer
set search_path = ''
as $$
declare
  anew constant boolean := tg_op = 'UPDATE' and vital_private.counts_otherwise(new, old);
  opened text[];
begin
  with lifted as (
    delete from vital_private.budget_periods as p
    where p.budget_id = new.id and (anew or p.period not in (select l.period from vital_private.limits_of(new) as l))
    returning p.period
  )

  delete from public.budget_windows as w using lifted where w.budget_id = new.id and w.period = lifted.period;

  with changed as (
    update vital_private.budget_periods as p
    set limit_amount = l.limit_amount
    from vital_private.limits_of(new) as l
    where p.budget_id = new.id and p.period = l.period and p.limit_amount <> l.limit_amount
    returning p.period, p.limit_amount
  )

  update public.budget_windows as w
  set limit_amount = vital_private.limit_in_force(new, w.entity_id, w.period, now())
  from changed
  where w.budget_id = new.id and w.period = changed.period and coalesce(w.ends_at, 'infinity') > now();

  with added as (
    insert into vital_private.budget_periods as p (budget_id, period, limit_amount, since)
    select
      new.id, l.period, l.limit_amount,
      case l.period when 'total' then new.counting_since else date_trunc('minute', now(), 'UTC') end
    from vital_private.limits_of(new) as l
    on conflict on constraint budget_periods_pkey do nothing
    returning p.period
  )

  select array_agg(added.period) into opened from added;
  if opened is not null then
    insert into public.budget_windows (budget_id, entity_id, period, starts_at, ends_at, limit_amount, spent)
    select new.id, s.entity_id, s.period, s.starts_at, s.ends_at, s.limit_amount, s.amount
    from vital_private.sums_of(new, opened) as s
    where s.amount <> 0;
    perform vital_private.refresh_limits(array(select w.id from public.budget_windows as w where w.budget_id = new.id));
  end if;
  return null;
end;
$$;

create trigger budget_limits_open_windows
after insert or update on public.budget_limits
for each row execute function vital_private.open_windows();

-- An amount to post to one window.
create type vital_private.posting as (
  budget_id bigint,
  entity_id text,
  period text,
  starts_at timestamptz,
  ends_at timestamptz,
  limit_amount numeric,
  amount numeric
);

-- What calls come to in each window that counts them and is no quota's, without windows in which they come to nothing, in the order of the
-- windows' keys. Budgets that are over count nothing any more. Calls are added up by entity before they meet the budgets, and meet them
-- in equality joins: thousands of budgets cost no more than a few. (The planner cannot know how many rows arrays and new tables hold,
-- and would choose nested loops, or compile, for a handful of rows; hence the settings.)
create function vital_private.budget_postings(calls vital_private.counted_call[]) returns vital_private.posting[]
language plpgsql
stable
set search_path = ''
set enable_nestloop = off
set jit = off
as $$
declare
  entities constant text[] := vital_private.budget_names('entity');
  metrics constant text[] := vital_private.budget_names('metric');
  -- In every time zone days begin at a quarter of an hour, so only minutes and totals need a look at each minute.
  step constant interval := case
    when exists (select from vital_private.budget_periods as p where p.period in ('minute', 'total')) then interval '1 minute'
    else interval '15 minutes'
  end;
begin
  return (
    with counted as materialized (
      select c.*, date_bin(step, c.created_at, '2000-01-01 00:00:00+00') as part from unnest(calls) as c
    ),

    -- What is limited on which kind of entity, by some budget.
    limited as materialized (
      select
        b.entity_type, b.metric, array_position(entities, b.entity_type) as entity_position,
        array_position(metrics, b.metric) as metric_position
      from (
        select distinct l.entity_type, l.metric
        from public.budget_limits as l
        where coalesce(l.until, 'infinity') > now()
      ) as b
    ),

    summed as materialized (
      select
        l.entity_type, l.metric, c.entities[l.entity_position] as entity_id, c.organization_id, c.part,
        vital_private.total(c.amounts[l.metric_position]) as amount
      from counted as c
      cross join limited as l
      where c.entities[l.entity_position] is not null
      group by 1, 2, 3, 4, 5
    ),

    frames as materialized (
      select
        k.timezone, k.period, c.part, vital_private.window_start(k.period, c.part, k.timezone, null) as starts_at,
        vital_private.window_end(k.period, c.part, k.timezone) as ends_at
      from (
        select distinct b.timezone, p.period
        from public.budget_limits as b
        join vital_private.budget_periods as p on p.budget_id = b.id
      ) as k
      cross join (select distinct counted.part from counted) as c
    ),

    limits as materialized (
      select
        b.id, b.organization_id, b.entity_type, b.entity_id, b.metric, p.period, p.limit_amount, f.part,
        coalesce(f.starts_at, p.since) as starts_at, f.ends_at
      from public.budget_limits as b
      join vital_private.budget_periods as p on p.budget_id = b.id
      join frames as f on f.timezone = b.timezone and f.period = p.period
      where coalesce(b.until, 'infinity') > now() and case p.period when 'total' then f.part >= p.since else f.ends_at > p.since end
    ),

    matched as (
      select s.entity_id as name, s.amount, l.*
      from summed as s
      join limits as l
        on l.entity_type = s.entity_type and l.metric = s.metric and l.part = s.part and l.entity_id = s.entity_id
      where l.organization_id is null or l.organization_id = s.organization_id
      union all
      select s.entity_id, s.amount, l.*
      from summed as s
      join limits as l on l.entity_type = s.entity_type and l.metric = s.metric and l.part = s.part
      where l.entity_id = '*' and s.entity_id <> '*' and (l.organization_id is null or l.organization_id = s.organization_id)
    ),

    posted as (
      select m.id, m.name, m.period, m.starts_at, m.ends_at, m.limit_amount, vital_private.total(m.amount) as amount
      from matched as m
      group by 1, 2, 3, 4, 5, 6
    )

    select array_agg(
      row(p.id, p.name, p.period, p.starts_at, p.ends_at, p.limit_amount, p.amount)::vital_private.posting
      order by p.id, p.name, p.period, p.starts_at
    )
    from posted as p
    where p.amount <> 0
  );
end;
$$;

-- What calls come to in each window that counts them, with those of quotas.
create function vital_private.postings_of(calls vital_private.counted_call[]) returns vital_private.posting[]
language plpgsql
stable
set search_path = ''
as $$
begin
  return vital_private.budget_postings(calls) || vital_private.quota_postings(calls);
end;
$$;

-- Make the windows that are missing, with the amounts of their postings spent, and return those that were made: in the order of their keys,
-- so that two transactions that make the same ones wait for each other in one order. It is never called while the lock of another
-- window is held. The limit of a quota's is looked up once they are locked.
create function vital_private.make_windows(wanted vital_private.posting[]) returns setof public.budget_windows
language plpgsql
set search_path = ''
as $$
begin
  return query
  insert into public.budget_windows (
    budget_id, entity_id, period, starts_at, ends_at, limit_amount, limit_until, spent, unasked
  )
  select
    p.budget_id, p.entity_id, p.period, p.starts_at, p.ends_at, p.limit_amount, case when p.limit_amount is null then now() end,
    p.amount, greatest(p.amount, 0)
  from unnest(wanted) as p
  where not exists (
    select from public.budget_windows as w
    where w.budget_id = p.budget_id and w.entity_id = p.entity_id and w.period = p.period and w.starts_at = p.starts_at
  )
  order by p.budget_id, p.entity_id, p.period, p.starts_at
  on conflict do nothing
  returning *;
end;
$$;

-- Post what calls have spent to their windows, take what they had been granted out of the grants of `holder`, and write the alerts that
-- became due. A draw is a window's id and an amount, at the same place of both arrays. Windows that are missing are made first, spent from
-- already; the others every transaction locks in the order of their ids, each only once, so there are no deadlocks.
create function vital_private.post_spend(
  calls vital_private.counted_call[], holder text, draw_windows bigint[], draw_amounts numeric[]
) returns void
language plpgsql
set search_path = ''
as $$
declare
  postings vital_private.posting[] := vital_private.postings_of(calls);
  missing vital_private.posting[];
  found_ids bigint[];
  found_amounts numeric[];
  ids bigint[] := '{}';
  amounts numeric[] := '{}';
  made_ids bigint[] := '{}';
  made_amounts numeric[] := '{}';
begin
  if postings is null and draw_windows is null then
    return;
  end if;
  for attempt in 1..2 loop
    select
      array_agg(w.id) filter (where w.id <> all(made_ids)), array_agg(p.amount) filter (where w.id <> all(made_ids)),
      array_agg(p) filter (where w.id is null)
    into found_ids, found_amounts, missing
    from unnest(postings) as p
    left join public.budget_windows as w
      on w.budget_id = p.budget_id and w.entity_id = p.entity_id and w.period = p.period and w.starts_at = p.starts_at;
    ids := ids || found_ids;
    amounts := amounts || found_amounts;
    exit when missing is null or attempt = 2;
    select array_agg(w.id), array_agg(w.spent) into found_ids, found_amounts from vital_private.make_windows(missing) as w;
    made_ids := made_ids || found_ids;
    made_amounts := made_amounts || found_amounts;
    exit when cardinality(found_ids) = cardinality(missing);
    postings := missing; -- somebody else has made some of them meanwhile
  end loop;
  if draw_windows is not null then
    select array_agg(k.id), array_agg(k.amount) into ids, amounts
    from (
      select a.id, sum(a.amount) as amount
      from (
        select s.* from unnest(ids, amounts) as s (id, amount)
        union all
        select d.window_id, 0 from unnest(draw_windows) as d (window_id) where d.window_id is not null
      ) as a
      group by 1
    ) as k;
  end if;
  perform from public.budget_windows as w where w.id = any(ids) order by w.id for update;
  perform vital_private.refresh_limits_due(ids || made_ids);
  with declared as (
    select d.window_id, greatest(sum(d.amount), 0) as amount
    from unnest(draw_windows, draw_amounts) as d (window_id, amount)
    group by 1
  ),

  drawn as (
    select
      c.window_id, c.amount as declared, g.amount is null as lapsed, least(coalesce(g.amount, 0), c.amount) as amount
    from declared as c
    left join public.budget_grants as g on g.window_id = c.window_id and g.holder = post_spend.holder
  ),

  lowered as (
    update public.budget_grants as g
    set amount = g.amount - drawn.amount
    from drawn
    where g.window_id = drawn.window_id and g.holder = post_spend.holder
  )

  update public.budget_windows as w
  -- greatest: even if a sum was changed by hand, calls must still be recorded.
  set
    spent = w.spent + k.amount,
    granted = greatest(w.granted - coalesce(drawn.amount, 0), 0),
    beyond_hold = w.beyond_hold
      + case when drawn.lapsed then 0 else greatest(least(k.amount, drawn.declared) - coalesce(drawn.amount, k.amount), 0) end,
    late = w.late + case when drawn.lapsed then greatest(least(k.amount, drawn.declared), 0) else 0 end,
    unasked = w.unasked + greatest(k.amount - coalesce(drawn.declared, 0), 0)
  from unnest(ids, amounts) as k (id, amount)
  left join drawn on drawn.window_id = k.id
  where w.id = k.id;
  insert into public.cost_alerts (
    budget_id, organization_id, entity_type, entity_id, metric, action, enforce, period, window_starts_at, window_ends_at,
    threshold, limit_amount, spent, superseded
  )
  select
    b.id, b.organization_id, b.entity_type, w.entity_id, b.metric, b.action, b.enforce, w.period, w.starts_at, w.ends_at,
    t.threshold, w.limit_amount, w.spent,
    -- Where one batch crosses several thresholds, only the highest is worth sending.
    t.threshold < max(t.threshold) over (partition by w.id)
  from unnest(ids || made_ids, amounts || made_amounts) as k (id, amount)
  join public.budget_windows as w on w.id = k.id
  join public.budget_limits as b on b.id = w.budget_id
  cross join unnest(b.alert_thresholds) as t (threshold)
  -- Every threshold that is passed and has no alert yet, not only those that this batch crossed: a limit may have been lowered
  -- meanwhile, or the budget made when the window was already running.
  where k.amount > 0
    and w.spent >= t.threshold * w.limit_amount
    and not exists (
      select from public.cost_alerts as a
      where a.budget_id = w.budget_id and a.entity_id = w.entity_id and a.period = w.period
        and a.window_starts_at = w.starts_at and a.threshold = t.threshold
    )
  order by w.id, t.threshold
  on conflict do nothing;
end;
$$;

select vital_private.restrict_functions();
