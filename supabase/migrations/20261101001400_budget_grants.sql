-- Grants. A process asks for what a call needs, and for more for the calls to come, of which it gets a small share of what is left. So far
-- from the limit it can admit most calls without asking, and near the limit it has to ask for each one, which makes that exact.
--
--   at every commit, for every window of an enforcing budget: spent + granted <= limit + X,
--   where X is what calls cost beyond what was held for them, late arrivals after a crash, and limits lowered meanwhile.

-- The share of what is left that one process may be granted beyond its need.
create function vital_private.grant_share() returns numeric
language sql
immutable
set search_path = ''
as $$
  select 0.05
$$;

-- Take back grants of these windows that have expired. The caller holds the locks of the windows.
create function vital_private.take_back_expired(windows bigint[]) returns void
language plpgsql
set search_path = ''
as $$
begin
  with expired as (
    delete from public.budget_grants where window_id = any(windows) and expires_at <= clock_timestamp()
    returning window_id, amount
  )

  update public.budget_windows as w
  set granted = greatest(w.granted - sums.amount, 0)
  from (select window_id, sum(amount) as amount from expired group by window_id) as sums
  where w.id = sums.window_id;
end;
$$;

-- Take turns back that throttled calls were given and did not use: [{"window", "slot"}]. The last one given is the next again; one
-- between others is kept for who asks next. The caller holds the locks of the windows.
create function vital_private.take_back_turns(turns json) returns void
language plpgsql
set search_path = ''
as $$
begin
  with returned as (
    select (t.value ->> 'window')::bigint as window_id, array_agg(distinct (t.value ->> 'slot')::timestamptz) as slots
    from json_array_elements(turns) as t (value)
    group by 1
  )

  update public.budget_windows as w
  set
    free_slots = array(
      select distinct s.slot from unnest(w.free_slots || returned.slots) as s (slot) where s.slot < w.next_slot_at
    )
  from returned
  where w.id = returned.window_id;
  loop
    update public.budget_windows as w
    set
      next_slot_at = w.next_slot_at - b.throttle_interval,
      free_slots = array_remove(w.free_slots, w.next_slot_at - b.throttle_interval)
    from public.budget_limits as b
    where b.id = w.budget_id
      and w.id in (select (t.value ->> 'window')::bigint from json_array_elements(turns) as t (value))
      and w.next_slot_at - b.throttle_interval = any(w.free_slots);
    exit when not found;
  end loop;
end;
$$;

-- Ask for grants. `asks` is a JSON array of requests, one for each call (or each kind of call) that waits:
--   {"max_wait": seconds, "ahead": boolean, "windows": [{
--      "budget": id, "entity": "u-1",
--      "unit":  what the call needs, in the budget's metric,
--      "want":  what the process would like to have in all, for calls to come,
--      "pass":  whether the call's model may pass a downgrading budget that is over its limit,
--      "have":  {"<window id>": what the process has not spent yet of what it was granted; expired grants do not count},
--      "owe":   {"<window id>": what its calls have spent beyond what it was granted, of which the rows are still to come},
--      "here":  {"<window id>": what the process knows of its part: {"granted", "held" for calls under way, "unposted": spent, rows to come}}
--   }]}
-- `turns` are those that calls of the process were given and have not used: [{"window", "slot"}]. A request is granted for all of its
-- windows or for none. `ahead`: no call is waiting; the answer grants whole units or nothing, and refuses nothing.
--
-- Answers {"now", "answers": [{"admitted", "wait", "again", "slot", "windows": [{"id", "budget", "entity", "period", "starts_at", "ends_at",
-- "limit", "spent", "granted", "mine", "amount", "over", "stops", "turn"}]}], "alerts"}. `mine` is the part of `granted` that the process had,
-- `amount` is added to what it may spend, its debt included. `wait`: seconds
-- until a throttled call may go; `again`: its window ends before that, so ask again then. `over`: the window cannot pay for
-- the call; if the request was admitted all the same, the budget's action lets the call pass. `stops`: the window refuses the call.
-- `slot` is the turn of a call that was throttled, taken from the windows marked `turn`. An entity without a quota has no windows of the
-- budgets that keep quotas.
create function public.acquire_grants_v1(
  holder text, asks text, lifetime_s double precision default 60, turns text default '[]'
) returns json
language plpgsql
security definer
set search_path = ''
set plan_cache_mode = 'force_generic_plan' -- planning again each time would take longer than everything else
as $$
declare
  requests json := asks::json;
  moment timestamptz;
  wanted vital_private.posting[];
  window_ids bigint[];
  answers jsonb := '[]';
  request json;
begin
  perform vital_private.check_given('holder', holder);
  perform vital_private.check_given('asks', asks);
  lifetime_s := coalesce(lifetime_s, 60);
  turns := coalesce(turns, '[]');
  perform vital_private.lock_budgets(alone => false);
  moment := clock_timestamp();
  select array_agg(
    row(k.budget_id, k.entity_id, p.period, s.starts_at, vital_private.window_end(p.period, moment, p.timezone, p.reset_day),
      case when not b.by_plan then p.limit_amount end, 0)::vital_private.posting
    order by k.budget_id, k.entity_id, p.period, s.starts_at
  )
  into wanted
  from (
    select distinct (w.value ->> 'budget')::bigint as budget_id, w.value ->> 'entity' as entity_id
    from json_array_elements(requests) as a (value)
    cross join lateral json_array_elements(a.value -> 'windows') as w (value)
  ) as k
  join public.budget_limits as b on b.id = k.budget_id and coalesce(b.until, 'infinity') > moment
  cross join lateral vital_private.limits_for(b, k.entity_id, moment) as p
  cross join lateral vital_private.window_start(p.period, moment, p.timezone, b.counting_since, p.reset_day) as s (starts_at);
  if wanted is not null or turns <> '[]' then
    perform vital_private.make_windows(wanted);
    with locked as materialized (
      select w.id
      from public.budget_windows as w
      where w.id in (
        select k.id
        from unnest(wanted) as p
        join public.budget_windows as k
          on k.budget_id = p.budget_id and k.entity_id = p.entity_id and k.period = p.period and k.starts_at = p.starts_at
        union all
        select (t.value ->> 'window')::bigint from json_array_elements(turns::json) as t (value)
      )
      order by w.id
      for update
    )

    select array_agg(id) into window_ids from locked;
    perform vital_private.take_back_expired(window_ids);
    perform vital_private.refresh_limits_due(window_ids);
    if turns <> '[]' then
      perform vital_private.take_back_turns(turns::json);
    end if;
  end if;
  for request in select value from json_array_elements(requests) loop
    answers := answers || vital_private.answer_request(holder, request, window_ids, lifetime_s);
  end loop;
  return json_build_object(
    'now', clock_timestamp(), 'answers', answers, 'alerts', vital_private.alerts_of_this_transaction()
  );
end;
$$;

-- A window as a request finds it, and the amount that the request gets of it. `spent_with_unposted` and `held` are what calls have spent
-- and hold, with what the process told of its own: `granted` has what it may still spend as well, and neither it nor `spent` has rows to
-- come. `over`: it cannot pay for the call; `stops`: so the call must not be made; `throttles`: so the call waits for its turn.
create type vital_private.requested_window as (
  id bigint,
  budget_id bigint,
  entity_id text,
  period text,
  starts_at timestamptz,
  ends_at timestamptz,
  limit_amount numeric,
  spent numeric,
  granted numeric,
  mine numeric,
  spent_with_unposted numeric,
  held numeric,
  throttle_interval interval,
  amount numeric,
  "over" boolean,
  stops boolean,
  throttles boolean
);

-- The first moment at which a call may pass all of these windows: a turn that came back to some, and no earlier than the next of the others.
create function vital_private.next_turn(window_ids bigint[], moment timestamptz) returns timestamptz
language sql
stable
set search_path = ''
as $$
  with throttling as (
    select coalesce(w.next_slot_at, moment) as next_slot_at, w.free_slots
    from public.budget_windows as w
    where w.id = any(window_ids)
  ),

  turns as (
    select max(greatest(t.next_slot_at, moment)) as slot from throttling as t
    union all
    select s.slot from throttling as t cross join unnest(t.free_slots) as s (slot) where s.slot >= moment
  )

  select min(turns.slot)
  from turns
  where not exists (
    select from throttling as t where turns.slot < t.next_slot_at and turns.slot <> all(t.free_slots)
  )
$$;

-- Answer one request. The caller holds the locks of all its windows, which are among `window_ids`.
create function vital_private.answer_request(holder text, request json, window_ids bigint[], lifetime_s double precision)
returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  ahead constant boolean := coalesce((request ->> 'ahead')::boolean, false);
  share constant numeric := vital_private.grant_share();
  moment constant timestamptz := clock_timestamp();
  windows vital_private.requested_window[];
  short boolean;
  refused boolean;
  throttled boolean;
  slot_at timestamptz;
  ends_first timestamptz;
  again boolean := false;
  admitted boolean;
  wait_s double precision := 0;
begin
  -- For every window: what is left, what this call still needs of it, and what the process gets on top.
  with wished as (
    select
      (w.value ->> 'budget')::bigint as budget_id, w.value ->> 'entity' as entity_id, (w.value ->> 'unit')::numeric as unit,
      (w.value ->> 'want')::numeric as want, coalesce((w.value ->> 'pass')::boolean, false) as may_pass, w.value -> 'have' as have,
      w.value -> 'owe' as owe, w.value -> 'here' as here
    from json_array_elements(request -> 'windows') as w (value)
  ),

  needs as (
    select
      w.*, b.action, b.enforce, b.throttle_interval, wished.unit, wished.want, wished.may_pass,
      w.limit_amount - w.spent - w.granted as room,
      coalesce(g.amount, 0) as mine,
      -- What it counts as granted and we do not any more was taken out by rows of which it has not heard yet.
      w.spent + coalesce(greatest(k.unposted - greatest(k.granted - coalesce(g.amount, 0), 0), 0), 0) as spent_with_unposted,
      greatest(w.granted + coalesce(k.held - coalesce(g.amount, 0), 0), 0) as held,
      case
        when ahead or wished.unit = 0 then 0
        else greatest(wished.unit - least(coalesce((wished.have ->> w.id::text)::numeric, 0), coalesce(g.amount, 0)), 0)
          + greatest(coalesce((wished.owe ->> w.id::text)::numeric, 0), 0)
      end as need
    from wished
    join public.budget_windows as w on w.budget_id = wished.budget_id and w.entity_id = wished.entity_id
    join public.budget_limits as b on b.id = w.budget_id
    left join public.budget_grants as g on g.window_id = w.id and g.holder = answer_request.holder
    cross join lateral json_to_record(coalesce(wished.here -> w.id::text, '{}'))
      as k (granted numeric, held numeric, unposted numeric)
    where w.id = any(window_ids)
  ),

  sized as (
    select
      n.*,
      not (n.need = 0 or n.room >= n.need) as is_short,
      case when n.room > n.need and n.unit > 0 then
        greatest(floor((least(n.want, n.room * share) - n.need) / n.unit), 0) * n.unit
      else 0 end as extra
    from needs as n
  ),

  judged as (
    select
      s.*,
      s.is_short and s.enforce and (s.action = 'block' or (s.action = 'downgrade' and not s.may_pass)) as stops,
      s.is_short and s.enforce and s.action = 'throttle' as throttles
    from sized as s
  )

  select
    array_agg(row(
      j.id, j.budget_id, j.entity_id, j.period, j.starts_at, j.ends_at, j.limit_amount, j.spent, j.granted,
      j.mine, j.spent_with_unposted, j.held, j.throttle_interval, case when j.is_short then 0 else j.need + j.extra end, j.is_short, j.stops, j.throttles
    )::vital_private.requested_window order by j.id),
    coalesce(bool_or(j.is_short), false),
    coalesce(bool_or(j.stops), false),
    coalesce(bool_or(j.throttles), false),
    -- A wait must not be longer than any other window that granted something: the process asks again when that has ended.
    min(j.ends_at) filter (where j.enforce or j.throttles)
  into windows, short, refused, throttled, ends_first
  from judged as j;

  if throttled and not refused then
    slot_at := vital_private.next_turn(array(select w.id from unnest(windows) as w where w.throttles), moment);
    wait_s := greatest(extract(epoch from least(slot_at, ends_first) - moment), 0);
    refused := wait_s > coalesce((request ->> 'max_wait')::double precision, 0);
    again := not refused and coalesce(slot_at >= ends_first, false);
  end if;
  admitted := not refused and not again;

  if admitted then
    with raised as (
      insert into public.budget_grants as g (window_id, holder, amount, expires_at)
      select w.id, answer_request.holder, w.amount, moment + lifetime_s * interval '1 second'
      from unnest(windows) as w
      where w.amount > 0
      on conflict on constraint budget_grants_pkey do update
        set amount = g.amount + excluded.amount, expires_at = excluded.expires_at
    )

    update public.budget_windows as k
    set
      granted = k.granted + w.amount,
      next_slot_at = case
        when w.throttles and slot_at >= coalesce(k.next_slot_at, slot_at) then slot_at + w.throttle_interval
        else k.next_slot_at
      end,
      free_slots = case
        when w.throttles then array(select s.slot from unnest(k.free_slots) as s (slot) where s.slot > moment and s.slot <> slot_at)
        else k.free_slots
      end
    from unnest(windows) as w
    where k.id = w.id and (w.amount > 0 or w.throttles);
  end if;

  if short then
    -- That a call no longer fits under a limit is an alert too, whatever is spent so far: its threshold is 0.
    insert into public.cost_alerts (
      budget_id, organization_id, entity_type, entity_id, metric, action, enforce, period, window_starts_at, window_ends_at,
      threshold, limit_amount, spent, held
    )
    select
      b.id, b.organization_id, b.entity_type, w.entity_id, b.metric, b.action, b.enforce, w.period, w.starts_at, w.ends_at,
      0, w.limit_amount, w.spent_with_unposted, w.held
    from unnest(windows) as w
    join public.budget_limits as b on b.id = w.budget_id
    where w.over and cardinality(b.alert_thresholds) > 0
    on conflict do nothing;
  end if;

  return (
    select jsonb_build_object(
      'admitted', admitted,
      'wait', wait_s,
      'again', again,
      'slot', case when admitted then slot_at end,
      'windows', coalesce(jsonb_agg(jsonb_build_object(
        'id', w.id, 'budget', w.budget_id, 'entity', w.entity_id, 'period', w.period, 'starts_at', w.starts_at,
        'ends_at', w.ends_at, 'limit', w.limit_amount::text, 'spent', w.spent::text, 'granted', w.granted::text,
        'mine', w.mine::text, 'amount', case when admitted then w.amount::text else '0' end, 'over', w.over, 'stops', w.stops,
        'turn', admitted and w.throttles
      )), '[]')
    )
    from unnest(windows) as w
  );
end;
$$;

-- Renew the grants of a process. `kept` is a JSON object of window id -> amount that it still needs; the rest, and the grants of every window
-- that is not named, are taken back. So are the expired grants of any process. Answers with what the process has: {"now",
-- "version", "grants": {"<window id>": amount}}.
create function public.renew_grants_v1(holder text, kept text default '{}', lifetime_s double precision default 60)
returns json
language plpgsql
security definer
set search_path = ''
as $$
declare
  wanted json := kept::json;
  window_ids bigint[];
begin
  perform vital_private.check_given('holder', holder);
  -- The default keeps nothing, so NULL, which may be a slip, is not taken for it.
  perform vital_private.check_given('kept', kept);
  lifetime_s := coalesce(lifetime_s, 60);
  perform vital_private.lock_budgets(alone => false);
  with locked as materialized (
    select w.id
    from public.budget_windows as w
    where w.id in (
      select g.window_id from public.budget_grants as g
      where g.holder = renew_grants_v1.holder or g.expires_at <= clock_timestamp()
    )
    order by w.id
    for update
  )

  select array_agg(id) into window_ids from locked;
  if window_ids is not null then
    perform vital_private.take_back_expired(window_ids);
    with mine as (
      select g.window_id, g.amount, least(g.amount, greatest((wanted ->> g.window_id::text)::numeric, 0)) as keep
      from public.budget_grants as g
      where g.holder = renew_grants_v1.holder and g.window_id = any(window_ids)
    ),

    renewed as (
      update public.budget_grants as g
      set amount = mine.keep, expires_at = clock_timestamp() + lifetime_s * interval '1 second'
      from mine
      where g.window_id = mine.window_id and g.holder = renew_grants_v1.holder and mine.keep > 0
    ),

    dropped as (
      delete from public.budget_grants as g
      using mine
      where g.window_id = mine.window_id and g.holder = renew_grants_v1.holder and mine.keep = 0
    )

    update public.budget_windows as w
    set granted = greatest(w.granted - (mine.amount - mine.keep), 0)
    from mine
    where w.id = mine.window_id and mine.amount > mine.keep;
  end if;
  return json_build_object(
    'now', clock_timestamp(),
    'version', vital_private.budgets_version(),
    'grants', (
      select coalesce(json_object_agg(g.window_id, g.amount::text), '{}')
      from public.budget_grants as g
      where g.holder = renew_grants_v1.holder
    )
  );
end;
$$;

select vital_private.restrict_functions(api => '{acquire_grants_v1, renew_grants_v1}');
