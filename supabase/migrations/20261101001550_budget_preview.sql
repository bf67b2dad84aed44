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

-- Each call from `since` on that a budget counts and that the caller may see, with what would have become of it: `passed`, or the budget's
-- action where it did not fit into what its windows had left. A call that is stopped spends nothing; all others spend what they did. Calls
-- go entity by entity in the order of time, so a window ends where the next one begins, and one pass over them is enough. `crossed` are
-- the thresholds that it crossed, of any window.
create function vital_private.replay_budget(budget public.budget_limits, since timestamptz)
returns table (
  local_day date, created_at timestamptz, entity_id text, amount numeric, cost numeric, priced boolean, calls bigint, outcome text,
  crossed numeric[]
)
language plpgsql
stable
set search_path = ''
as $$
#variable_conflict use_column
declare
  limits constant numeric[] := array[budget.minute_limit, budget.daily_limit, budget.monthly_limit, budget.total_limit];
  first_at constant timestamptz := case
    when budget.monthly_limit is not null then vital_private.window_start('month', since, budget.timezone, null) else since
  end;
  call record;
  whose text;
  places timestamptz[];
  spent numeric[];
  fits boolean;
begin
  for call in execute format(
    $query$
      with counted as materialized (
        select
          date_bin('15 minutes', call.created_at, '2000-01-01 00:00:00+00') as part, call.id, call.created_at,
          (%s)::text as entity_id, (%s)::numeric as amount, call.total_cost, call.priced, call.calls,
          vital_private.budget_model(call.model, call.requested_model, call.sent_model, call.budget_action) as model
        from public.token_usage_logs as call
        where call.created_at >= $1 and call.created_at <= now() and call.status <> 'blocked'
          and ($2 is null or call.organization_id = $2)
      ),

      -- In every time zone days begin at a quarter of an hour.
      times as materialized (
        select
          t.part, vital_private.local_day(t.part, $4)::date as local_day,
          vital_private.window_start('day', t.part, $4, null) as day_start,
          vital_private.window_start('month', t.part, $4, null) as month_start
        from (select distinct c.part from counted as c) as t
      )

      select c.*, t.local_day, t.day_start, t.month_start
      from counted as c
      join times as t on t.part = c.part
      where c.entity_id is not null and $3 in ('*', c.entity_id)
      order by c.entity_id, c.created_at, c.id
    $query$,
    vital_private.counted_as('entity', budget.entity_type), vital_private.counted_as('metric', budget.metric)
  ) using first_at, budget.organization_id, budget.entity_id, budget.timezone
  loop
    if call.entity_id is distinct from whose then
      whose := call.entity_id;
      places := array[null, null, null, since];
      spent := array[0, 0, 0, 0];
    end if;
    if places[1] is distinct from date_trunc('minute', call.created_at, 'UTC') then
      places[1] := date_trunc('minute', call.created_at, 'UTC');
      spent[1] := 0;
    end if;
    if places[2] is distinct from call.day_start then
      places[2] := call.day_start;
      spent[2] := 0;
    end if;
    if places[3] is distinct from call.month_start then
      places[3] := call.month_start;
      spent[3] := 0;
    end if;
    fits := true;
    for place in 1..4 loop
      fits := fits and (call.amount = 0 or spent[place] + call.amount <= coalesce(limits[place], 'Infinity') or (place = 4 and call.created_at < since));
    end loop;
    outcome := case
      when fits or budget.action = 'alert' or (budget.action = 'downgrade' and call.model = budget.downgrade_to) then 'passed'
      else budget.action
    end;
    crossed := '{}';
    if outcome <> 'block' or not budget.enforce then
      for place in 1..4 loop
        if place < 4 or call.created_at >= since then
          if limits[place] > 0 and call.amount > 0 then
            crossed := crossed || array(
              select t.share from unnest(budget.alert_thresholds) as t (share)
              where spent[place] < t.share * limits[place] and spent[place] + call.amount >= t.share * limits[place]
            );
          end if;
          spent[place] := spent[place] + call.amount;
        end if;
      end loop;
    end if;
    if call.created_at >= since then
      local_day := call.local_day;
      created_at := call.created_at;
      entity_id := call.entity_id;
      amount := call.amount;
      cost := call.total_cost;
      priced := call.priced;
      calls := call.calls;
      return next;
    end if;
  end loop;
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
        coalesce(sum(r.calls) filter (where r.outcome = 'block'), 0) as stopped,
        coalesce(sum(r.calls) filter (where r.outcome = 'throttle'), 0) as slowed,
        coalesce(sum(r.calls) filter (where r.outcome = 'downgrade'), 0) as downgraded,
        coalesce(sum(r.amount) filter (where r.outcome = 'block'), 0) as stopped_amount,
        coalesce(sum(r.cost) filter (where r.outcome = 'block'), 0) as stopped_cost,
        coalesce(sum(r.calls) filter (where r.outcome = 'block' and not r.priced), 0) as stopped_unpriced,
        coalesce((select jsonb_object_agg(c.share::text, c.alerts) from crossings as c where c.local_day = d.day::date), '{}') as alerts
      from generate_series(first_day::timestamp, last_day::timestamp, '1 day') as d (day)
      left join replayed as r on r.local_day = d.day::date
      group by d.day
    )

    select json_build_object(
      'first_day', first_day, 'last_day', last_day, 'budget', vital_private.budget_json(wanted),
      'entities', (select count(distinct r.entity_id) from replayed as r),
      'entities_met', (select count(distinct r.entity_id) from replayed as r where r.outcome <> 'passed'),
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
