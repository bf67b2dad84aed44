-- What a budget would have done: the calls of the last days once more, one after the other, as if it had stood all the time.

-- How budgets count a call: the expression over a row `call`.
create function vital_private.counted_as(kind text, name text) returns text
language sql
stable
security definer
set search_path = ''
as $$
  select t.of_call from vital_private.budget_terms as t where t.kind = counted_as.kind and t.name = counted_as.name
$$;

-- The days from `since` on of each entity, with the calls that a budget counts and that the caller may see, and what would have become of
-- them: they pass, or meet the budget's action where they do not fit into what its windows had left. A call that is stopped spends nothing;
-- all others spend what they did. Calls go entity by entity in the order of time, so a window ends where the next one begins, and one pass
-- over them is enough. `crossed` are the thresholds that were crossed on that day, of any window.
--
-- Most entities never come near a threshold in any window. Their days are added up and told as they are; the calls of the others alone are
-- replayed. There each step of the loop counts: it looks at the windows that have a limit alone, and adds up as it goes.
create function vital_private.replay_budget(budget public.budget_limits, since timestamptz)
returns table (
  local_day date, entity_id text, calls bigint, amount numeric, stopped bigint, slowed bigint, downgraded bigint, stopped_amount numeric,
  stopped_cost numeric, stopped_unpriced bigint, crossed numeric[]
)
language plpgsql
stable
set search_path = ''
set work_mem = '64MB'
set jit = off
as $$
#variable_conflict use_variable
declare
  limits constant numeric[] := array[budget.minute_limit, budget.daily_limit, budget.monthly_limit, budget.total_limit];
  limited constant integer[] := array(select p.place from unnest(limits) with ordinality as p (amount, place) where p.amount is not null);
  by_minute constant boolean := budget.minute_limit is not null;
  stops constant boolean := budget.action = 'block';
  spares constant boolean := budget.action = 'block' and budget.enforce; -- what is stopped is not spent
  thresholds constant numeric[] := array(select t.share from unnest(budget.alert_thresholds) as t (share) order by t.share);
  first_at constant timestamptz := case
    when budget.monthly_limit is not null then vital_private.window_start('month', since, budget.timezone, null) else since
  end;
  -- What a window must come to at least before anything happens.
  first_share constant numeric := least(thresholds[1], 1);
  entities constant text := vital_private.counted_as('entity', budget.entity_type);
  amounts constant text := vital_private.counted_as('metric', budget.metric);
  a_day record;
  busy text[] := '{}';
  call record;
  place integer;
  this_minute timestamptz;
  this_day timestamptz;
  this_month timestamptz;
  spent numeric[];
  next_alert numeric[]; -- by window, what the next threshold comes to
  first_alerts constant numeric[] := array(select nullif(l.amount, 0) * thresholds[1] from unnest(limits) as l (amount));
  fits boolean;
  counts boolean;
begin
  stopped := 0;
  slowed := 0;
  downgraded := 0;
  stopped_amount := 0;
  stopped_cost := 0;
  stopped_unpriced := 0;
  crossed := '{}';
  for a_day in execute format(
    $query$
      with parts as materialized (
        select
          (%1$s)::text as entity_id, date_bin('15 minutes', call.created_at, '2000-01-01 00:00:00+00') as part, sum(call.calls) as calls,
          sum((%2$s)::numeric) as amount
        from public.token_usage_logs as call
        where call.created_at >= $1 and call.created_at <= now() and call.status <> 'blocked'
          and ($2 is null or call.organization_id = $2)
        group by 1, 2
      ),

      times as materialized (
        select
          t.part, vital_private.local_day(t.part, $4)::date as local_day, vital_private.window_start('month', t.part, $4, null) as month_start
        from (select distinct p.part from parts as p) as t
      ),

      days as materialized (
        select
          p.entity_id, t.local_day, t.month_start, sum(p.amount) as spent, sum(p.calls) filter (where p.part >= $5) as calls,
          sum(p.amount) filter (where p.part >= $5) as amount
        from parts as p
        join times as t on t.part = p.part
        where p.entity_id is not null and $3 in ('*', p.entity_id)
        group by p.entity_id, t.local_day, t.month_start
      ),

      busy as materialized (
        select m.entity_id
        from (
          select d.entity_id, sum(d.spent) as month, max(d.spent) as day, sum(d.amount) as total from days as d group by d.entity_id, d.month_start
        ) as m
        group by m.entity_id
        having (max(m.day) >= $6 * least($7, $8) or max(m.month) >= $6 * $9 or sum(m.total) >= $6 * $10) is true
      )

      select d.entity_id, d.local_day, d.calls, d.amount, b.entity_id is not null as is_busy
      from days as d
      left join busy as b on b.entity_id = d.entity_id
      order by b.entity_id nulls first
    $query$, entities, amounts
  ) using first_at, budget.organization_id, budget.entity_id, budget.timezone, since, first_share, budget.minute_limit, budget.daily_limit,
    budget.monthly_limit, budget.total_limit
  loop
    if not a_day.is_busy then
      if a_day.calls > 0 then
        local_day := a_day.local_day;
        entity_id := a_day.entity_id;
        calls := a_day.calls;
        amount := a_day.amount;
        return next;
      end if;
    elsif a_day.entity_id is distinct from busy[cardinality(busy)] then
      busy := busy || a_day.entity_id;
    end if;
  end loop;
  entity_id := null;
  calls := 0;
  if busy = '{}' then
    return;
  end if;
  for call in execute format(
    $query$
      with counted as materialized (
        select
          date_bin('15 minutes', call.created_at, '2000-01-01 00:00:00+00') as part, call.id, call.created_at,
          (%s)::text as entity_id, (%s)::numeric as amount, call.total_cost, call.priced, call.calls, %s as spared
        from public.token_usage_logs as call
        where call.created_at >= $1 and call.created_at <= now() and call.status <> 'blocked'
          and ($2 is null or call.organization_id = $2) and (%s)::text = any($6)
      ),

      -- In every time zone days begin at a quarter of an hour.
      times as materialized (
        select
          t.part, vital_private.local_day(t.part, $4)::date as local_day,
          vital_private.window_start('day', t.part, $4, null) as day_start,
          vital_private.window_start('month', t.part, $4, null) as month_start
        from (select distinct c.part from counted as c) as t
      )

      select c.*, t.local_day, t.day_start, t.month_start, c.created_at >= $5 as shown
      from counted as c
      join times as t on t.part = c.part
      where $3 in ('*', c.entity_id)
      order by c.entity_id, c.created_at, c.id
    $query$,
    entities, amounts,
    case
      when budget.action = 'downgrade' then format(
        '(vital_private.budget_model(call.model, call.requested_model, call.sent_model, call.budget_action) = %L) is true', budget.downgrade_to
      )
      else 'false'
    end,
    entities
  ) using first_at, budget.organization_id, budget.entity_id, budget.timezone, since, busy
  loop
    if call.entity_id is distinct from entity_id or call.day_start is distinct from this_day then
      if calls > 0 then
        return next;
      end if;
      if call.entity_id is distinct from entity_id then
        entity_id := call.entity_id;
        spent := array[0, 0, 0, 0];
        next_alert := first_alerts;
        this_month := null;
        this_minute := null;
      end if;
      this_day := call.day_start;
      spent[2] := 0;
      next_alert[2] := first_alerts[2];
      if call.month_start is distinct from this_month then
        this_month := call.month_start;
        spent[3] := 0;
        next_alert[3] := first_alerts[3];
      end if;
      local_day := call.local_day;
      calls := 0;
      amount := 0;
      stopped := 0;
      slowed := 0;
      downgraded := 0;
      stopped_amount := 0;
      stopped_cost := 0;
      stopped_unpriced := 0;
      crossed := '{}';
    end if;
    if by_minute and date_trunc('minute', call.created_at, 'UTC') is distinct from this_minute then
      this_minute := date_trunc('minute', call.created_at, 'UTC');
      spent[1] := 0;
      next_alert[1] := first_alerts[1];
    end if;
    if call.shown then
      calls := calls + call.calls;
      amount := amount + call.amount;
    end if;
    continue when call.amount = 0; -- it fits anywhere, and spends nothing
    fits := true;
    foreach place in array limited loop
      if spent[place] + call.amount > limits[place] and (place < 4 or call.shown) then
        fits := false;
        exit;
      end if;
    end loop;
    if not fits and not call.spared and call.shown then
      if stops then
        stopped := stopped + call.calls;
        stopped_amount := stopped_amount + call.amount;
        stopped_cost := stopped_cost + coalesce(call.total_cost, 0);
        if not call.priced then
          stopped_unpriced := stopped_unpriced + call.calls;
        end if;
      elsif budget.action = 'throttle' then
        slowed := slowed + call.calls;
      elsif budget.action = 'downgrade' then
        downgraded := downgraded + call.calls;
      end if;
    end if;
    continue when spares and not fits;
    foreach place in array limited loop
      counts := place < 4 or call.shown;
      if counts then
        spent[place] := spent[place] + call.amount;
        if spent[place] >= next_alert[place] then
          if call.shown then
            crossed := crossed || array(
              select t.share from unnest(thresholds) as t (share)
              where spent[place] - call.amount < t.share * limits[place] and spent[place] >= t.share * limits[place]
            );
          end if;
          next_alert[place] := (
            select min(t.share * limits[place]) from unnest(thresholds) as t (share) where t.share * limits[place] > spent[place]
          );
        end if;
      end if;
    end loop;
  end loop;
  if calls > 0 then
    return next;
  end if;
end;
$$;

-- What a budget would have done in the last days, today in its time zone included, to the calls that the caller may see: JSON columns as
-- set_budget_v1 takes them; nothing is stored. By day: the calls that it counts, what they came to in its metric, which it would have
-- stopped, slowed or sent to a cheaper model, the alerts at its thresholds, and what the stopped calls came to. Amounts are text.
create function public.budget_preview_v1(budget text, days integer default 30) returns json
language plpgsql
stable
set search_path = ''
as $$
declare
  wanted public.budget_limits;
  asked constant integer := coalesce(days, 30);
  first_day date;
  last_day date;
begin
  if asked not between 1 and 90 then
    raise exception 'days must be a number from 1 to 90.' using errcode = '22023', hint = 'For the last month, today included: 30.';
  end if;
  wanted := vital_private.budget_wanted(vital_private.budget_given(budget));
  perform vital_private.check_budget_columns(wanted);
  last_day := vital_private.local_day(now(), wanted.timezone)::date;
  first_day := last_day - asked + 1;
  return (
    with replayed as materialized (
      select * from vital_private.replay_budget(wanted, vital_private.local_midnight(first_day::timestamp, wanted.timezone))
    ),

    crossings as (
      select r.local_day, t.share, count(*) as alerts
      from replayed as r
      cross join lateral unnest(r.crossed) as t (share)
      group by 1, 2
    ),

    by_day as (
      select
        d.day::date as day, coalesce(sum(r.calls), 0) as calls, coalesce(sum(r.amount), 0) as amount,
        coalesce(sum(r.stopped), 0) as stopped, coalesce(sum(r.slowed), 0) as slowed, coalesce(sum(r.downgraded), 0) as downgraded,
        coalesce(sum(r.stopped_amount), 0) as stopped_amount, coalesce(sum(r.stopped_cost), 0) as stopped_cost,
        coalesce(sum(r.stopped_unpriced), 0) as stopped_unpriced,
        coalesce((select jsonb_object_agg(c.share::text, c.alerts) from crossings as c where c.local_day = d.day::date), '{}') as alerts
      from generate_series(first_day::timestamp, last_day::timestamp, '1 day') as d (day)
      left join replayed as r on r.local_day = d.day::date
      group by d.day
    )

    select json_build_object(
      'first_day', first_day, 'last_day', last_day, 'budget', vital_private.budget_json(wanted),
      'entities', (select count(distinct r.entity_id) from replayed as r),
      'entities_met', (select count(distinct r.entity_id) from replayed as r where r.stopped + r.slowed + r.downgraded > 0),
      'days', json_agg(json_build_object(
        'day', b.day, 'calls', b.calls, 'amount', b.amount::text, 'stopped', b.stopped, 'slowed', b.slowed, 'downgraded', b.downgraded,
        'stopped_amount', b.stopped_amount::text, 'stopped_cost', b.stopped_cost::text, 'stopped_unpriced', b.stopped_unpriced,
        'alerts', b.alerts
      ) order by b.day)
    )
    from by_day as b
  );
end;
$$;

select vital_private.restrict_functions(api => '{budget_preview_v1}', helpers => '{counted_as, replay_budget, budget_model}');
