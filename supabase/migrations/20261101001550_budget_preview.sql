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

-- The days from `since`, the midnight of a day, on of each entity, with the calls that a budget counts and that the caller may see, and what
-- would have become of them: they pass, or meet the budget's action where they do not fit into what its windows had left. A call that is
-- stopped spends nothing; all others spend what they did. Calls go entity by entity in the order of time, so a window ends where the next
-- one begins, and one pass over them is enough. `crossed` are the thresholds that were crossed on that day, of any window.
--
-- Most entities never come near a threshold in any window. Their days are added up and told together: a row a day, without an entity, and one
-- without a day that says how many `entities` they are. The calls of the others alone are replayed. There each step of the loop counts: it
-- looks at the windows that have a limit alone, and adds up as it goes.
create function vital_private.replay_budget(budget public.budget_limits, since timestamptz)
returns table (
  local_day date, entity_id text, calls bigint, amount numeric, stopped bigint, slowed bigint, downgraded bigint, stopped_amount numeric,
  stopped_cost numeric, stopped_unpriced bigint, crossed numeric[], entities bigint
)
language plpgsql
stable
set search_path = ''
set work_mem = '64MB'
set jit = off
set enable_sort = off -- days make few groups of calls, which the planner cannot know
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
  entity constant text := vital_private.counted_as('entity', budget.entity_type);
  counted constant text := vital_private.counted_as('metric', budget.metric);
  -- The days in the budget's time zone: their names, when they begin, and when the month of each began.
  days constant date[] := array(
    select d.day::date
    from generate_series(
      vital_private.local_day(first_at, budget.timezone), vital_private.local_day(now(), budget.timezone), interval '1 day'
    ) as d (day)
  );
  midnights constant timestamptz[] := array(
    select vital_private.local_midnight(d.day::timestamp, budget.timezone) from unnest(days) with ordinality as d (day, place) order by d.place
  );
  months constant timestamptz[] := array(
    select vital_private.window_start('month', m.midnight, budget.timezone, null)
    from unnest(midnights) with ordinality as m (midnight, place)
    order by m.place
  );
  a_day record;
  busy text[];
  call record;
  place integer;
  this_minute timestamptz;
  this_day integer;
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
      with days as materialized (
        select
          (%1$s)::text as entity_id, width_bucket(call.created_at, $4) as day, sum(call.calls) as calls, sum((%2$s)::numeric) as amount
        from public.token_usage_logs as call
        where call.created_at >= $1 and call.created_at <= now() and call.status <> 'blocked'
          and ($2 is null or call.organization_id = $2) and ($3 = '*' or (%1$s)::text = $3)
        group by 1, 2
      ),

      months as materialized (
        select
          d.entity_id, sum(d.amount) as month, max(d.amount) as day, sum(d.amount) filter (where $4[d.day] >= $6) as total,
          sum(d.calls) filter (where $4[d.day] >= $6) as calls
        from days as d
        where d.entity_id is not null
        group by d.entity_id, $5[d.day]
      ),

      entities as materialized (
        select
          m.entity_id, (max(m.day) >= $7 * least($8, $9) or max(m.month) >= $7 * $10 or sum(m.total) >= $7 * $11) is true as is_busy,
          coalesce(sum(m.calls), 0) > 0 as is_shown
        from months as m
        group by m.entity_id
      )

      select
        null::integer as day, null::bigint as calls, null::numeric as amount,
        count(*) filter (where e.is_shown and not e.is_busy) as entities, array_agg(e.entity_id) filter (where e.is_busy) as busy
      from entities as e
      union all
      select d.day, sum(d.calls), sum(d.amount), null, null
      from days as d
      inner join entities as e on e.entity_id = d.entity_id and not e.is_busy
      where $4[d.day] >= $6
      group by d.day
    $query$, entity, counted
  ) using first_at, budget.organization_id, budget.entity_id, midnights, months, since, first_share, budget.minute_limit, budget.daily_limit,
    budget.monthly_limit, budget.total_limit
  loop
    busy := coalesce(busy, a_day.busy);
    local_day := days[a_day.day];
    calls := a_day.calls;
    amount := a_day.amount;
    entities := a_day.entities;
    return next;
  end loop;
  entities := null;
  calls := 0;
  if busy is null then
    return;
  end if;
  for call in execute format(
    $query$
      select
        (%1$s)::text as entity_id, width_bucket(call.created_at, $4) as day, call.created_at, (%2$s)::numeric as amount, call.total_cost,
        call.priced, call.calls, %3$s as spared, call.created_at >= $5 as shown
      from public.token_usage_logs as call
      where call.created_at >= $1 and call.created_at <= now() and call.status <> 'blocked'
        and ($2 is null or call.organization_id = $2) and (%1$s)::text = any($3)
      order by 1, call.created_at, call.id
    $query$,
    entity, counted,
    case
      when budget.action = 'downgrade' then format(
        '(vital_private.budget_model(call.model, call.requested_model, call.sent_model, call.budget_action) = %L) is true', budget.downgrade_to
      )
      else 'false'
    end
  ) using first_at, budget.organization_id, busy, midnights, since
  loop
    if call.entity_id is distinct from entity_id or call.day is distinct from this_day then
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
      this_day := call.day;
      spent[2] := 0;
      next_alert[2] := first_alerts[2];
      if months[this_day] is distinct from this_month then
        this_month := months[this_day];
        spent[3] := 0;
        next_alert[3] := first_alerts[3];
      end if;
      local_day := days[this_day];
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
      'entities', (select coalesce(sum(r.entities), 0) + count(distinct r.entity_id) from replayed as r),
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
