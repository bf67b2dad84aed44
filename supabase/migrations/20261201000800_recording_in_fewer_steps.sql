-- Recording in fewer steps: calls are added up by the narrow sums' keys once, and only windows that may need it are looked at again after they
-- were posted to.

-- The text of a statement that adds measured calls to all aggregations. The calls of a batch are of nearly as many kinds as there are calls,
-- so they are not folded by all columns first; but those aggregations that name no agents or steps have few columns in their keys,
-- and are added up from one fold by these.
drop function vital_private.adding_to_all(text[], text);
create function vital_private.adding_to_all(columns text[], source text) returns text
language sql
stable
set search_path = ''
as $$
  with tables as (
    select
      a.position, substr(a.target, 20) as name,
      vital_private.adding_to(a, case when a.names = '{}' then 'narrow' else 'measured' end) as adding
    from vital_private.usage_aggregations as a
  )

  select format(
    'with measured as materialized (select %1$s, %2$s from %3$s as u), '
    'narrow as materialized (select %4$s, %5$s from measured as u group by %4$s), %6$s %7$s',
    (select string_agg(format('u.%I', c), ', ') from unnest(columns) as c),
    (select string_agg(format('u.%I', m), ', ') from unnest(vital_private.kept_measures()) as m),
    source,
    (
      select string_agg(distinct format('u.%I', k.name), ', ')
      from vital_private.usage_aggregations as a
      cross join unnest(a.keys) as k (name)
      where a.names = '{}'
    ),
    (select string_agg(format('vital_private.total(u.%1$I) as %1$I', m), ', ') from unnest(vital_private.kept_measures()) as m),
    (select string_agg(format('%s as (%s)', t.name, t.adding), ', ' order by t.position) from tables as t where t.position > 1),
    (select t.adding from tables as t where t.position = 1)
  )
$$;

-- Post what calls have spent to their windows, take what they had been granted out of the grants of `holder`, and write the alerts that
-- became due. A draw is a window's id and an amount, at the same place of both arrays. Windows that are missing are made first, spent from
-- already; the others every transaction locks in the order of their ids, each only once, so there are no deadlocks. Only where a window has
-- passed the first threshold of its budget are alerts looked for.
create or replace function vital_private.post_spend(
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
  made_due boolean;
  limits_due boolean := false;
  passed bigint[];
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
    select array_agg(w.id), bool_or(w.limit_until is not null) into found_ids, made_due from vital_private.make_windows(missing) as w;
    made_ids := made_ids || found_ids;
    limits_due := limits_due or coalesce(made_due, false);
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
  -- Whether a limit is due is seen as the windows are locked: those of exceptions change by the clock, those of plans are looked up.
  select limits_due or coalesce(bool_or(l.limit_until <= clock_timestamp()), false) into limits_due
  from (
    select w.limit_until from public.budget_windows as w where w.id = any(ids) order by w.id for update
  ) as l;
  if limits_due or exists (select from vital_private.budget_overrides) then
    perform vital_private.refresh_limits(ids || made_ids);
  end if;
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
  ),

  posted as (
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
    where w.id = k.id
    returning w.id, w.budget_id, w.limit_amount, w.spent, k.amount
  ),

  counted as (
    select p.* from posted as p where p.amount > 0
    union all
    select w.id, w.budget_id, w.limit_amount, w.spent, w.spent from public.budget_windows as w where w.id = any(made_ids) and w.spent > 0
  ),

  -- The first threshold of each budget that calls were posted to.
  firsts as materialized (
    select b.id, (select min(t.threshold) from unnest(b.alert_thresholds) as t (threshold)) as threshold
    from public.budget_limits as b
    where b.id in (select c.budget_id from counted as c)
  )

  select array_agg(c.id) into passed
  from counted as c
  join firsts as f on f.id = c.budget_id
  where c.spent >= f.threshold * c.limit_amount;
  if passed is null then
    return;
  end if;
  insert into public.cost_alerts (
    budget_id, organization_id, entity_type, entity_id, metric, action, enforce, period, window_starts_at, window_ends_at,
    threshold, limit_amount, spent, superseded
  )
  select
    b.id, b.organization_id, b.entity_type, w.entity_id, b.metric, b.action, b.enforce, w.period, w.starts_at, w.ends_at,
    t.threshold, w.limit_amount, w.spent,
    -- Where one batch crosses several thresholds, only the highest is worth sending.
    t.threshold < max(t.threshold) over (partition by w.id)
  from public.budget_windows as w
  join public.budget_limits as b on b.id = w.budget_id
  cross join unnest(b.alert_thresholds) as t (threshold)
  -- Every threshold that is passed and has no alert yet, not only those that this batch crossed: a limit may have been lowered
  -- meanwhile, or the budget made when the window was already running.
  where w.id = any(passed)
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

select vital_private.build_usage_aggregations();
select vital_private.restrict_functions();
