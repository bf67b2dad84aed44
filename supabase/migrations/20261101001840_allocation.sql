-- A cost that all share, such as a month's invoice of infrastructure, allocated to organizations by a rule that one can see. The shares add up
-- to the invoice to its last digit, and allocating it again replaces what was allocated of it before.

-- Shares of an amount by weights: each gets what its weight is of all, rounded down to `digits` digits, and what is left goes, a unit each, to those
-- that lost most by that; of those alike to the first by name. Weights are 0 or more, and not all of them 0.
create function vital_private.shares(amount numeric, digits integer, names text[], weights numeric[])
returns table (name text, share numeric)
language sql
immutable
set search_path = ''
as $$
  with parts as (
    select w.name, abs(amount) * (10::numeric ^ digits) as units, w.weight, sum(w.weight) over () as total
    from unnest(names, weights) as w (name, weight)
  ),

  rounded as (
    select p.name, p.units, div(p.units * p.weight, p.total) as whole, mod(p.units * p.weight, p.total) as lost
    from parts as p
  ),

  ranked as (
    select
      r.name, r.whole, r.units - sum(r.whole) over () as left_over,
      row_number() over (order by r.lost desc, r.name collate "C") as place
    from rounded as r
  )

  select k.name, round(sign(amount) * (k.whole + (k.place <= k.left_over)::integer) / (10::numeric ^ digits), digits)
  from ranked as k
$$;

-- Allocate a month's invoice, or with `dry_run` say what each would get:
--   {"month": "2026-11", "amount": "1200", "by": "equal" | "cost" | "calls", "name": "infrastructure", "cost_type": "other",
--    "organizations": [...] (by default those with calls, events or costs in the month), "dry_run": false}
-- answers with {"month", "name", "by", "amount", "before" (what was allocated of it until now), "digits", "dry_run", "shares":
-- [{"organization_id", "weight", "percent", "cost_usd"}, ...]}. The weight is what the organization cost, or how many calls it made, in that
-- month (UTC); what was allocated is no cost in that. With the amount 0 what was allocated of this name is taken back. Amounts are text.
create function public.allocate_cost_v1(allocation text) returns json
language plpgsql
security definer
set search_path = ''
set timezone = 'UTC'
as $$
declare
  given record;
  rule text;
  first_day date;
  middle timestamptz;
  digits integer;
  before numeric;
  names text[];
  weights numeric[];
  answer json;
begin
  perform vital_private.check_given('allocation', allocation);
  select a.* into given
  from json_to_record(allocation::json) as a (
    month text, amount numeric, name text, cost_type text, organizations text[], dry_run boolean
  );
  given.name := coalesce(nullif(btrim(given.name), ''), 'infrastructure');
  rule := coalesce(allocation::json ->> 'by', 'equal');
  if given.month is null or given.month !~ '^\d{4}-(0[1-9]|1[0-2])$' or given.amount is null or abs(given.amount) >= 'Infinity' then
    raise exception 'An allocation names its month, such as 2026-11, and an amount in US dollars.' using errcode = '22023';
  end if;
  if rule not in ('equal', 'cost', 'calls') then
    raise exception 'Costs are allocated by equal, cost or calls, not by %.', rule using errcode = '22023';
  end if;
  first_day := (given.month || '-01')::date;
  if first_day < vital_private.rows_kept_since('tenant_cost_events') then
    raise exception 'The costs of % were archived or are gone by age, and with them what was allocated: it would be there twice.', given.month
      using errcode = '22VT1', hint = 'Record the difference with tracker.track_cost.';
  end if;
  -- The middle of the month is in that month in every time zone.
  middle := first_day + interval '14 days 12 hours';
  digits := least(greatest(scale(trim_scale(given.amount)), 2), 12);
  if given.amount <> round(given.amount, digits) then
    raise exception 'The amount has more than 12 digits after its point.' using errcode = '22023';
  end if;
  perform pg_catalog.pg_advisory_xact_lock(hashtext('vital_tracking.allocation'));

  select coalesce(sum(c.cost_usd), 0) into before
  from public.tenant_cost_events as c
  where c.occurred_at = middle and c.price_version = 'allocation' and c.service = given.name;

  select array_agg(o.name order by o.name collate "C"), array_agg(o.weight order by o.name collate "C") into names, weights
  from (
    select
      u.organization_id as name,
      case rule when 'equal' then 1 when 'calls' then greatest(sum(u.calls), 0) else greatest(sum(u.cost), 0) end as weight
    from (
      select t.organization_id, t.calls::numeric as calls, t.total_cost as cost, t.calls as seen
      from public.usage_aggregations_daily_totals as t
      where t.day >= first_day and t.day < first_day + interval '1 month' and t.calls <> 0
      union all
      select c.organization_id, 0, c.cost_usd, c.costs
      from public.tenant_costs_daily as c
      where c.day >= first_day and c.day < first_day + interval '1 month' and c.costs <> 0
      union all
      -- An organization that was allocated something was not there for that.
      select c.organization_id, 0, -c.cost_usd, -1
      from public.tenant_cost_events as c
      where c.occurred_at = middle and c.price_version = 'allocation'
      union all
      select s.organization_id, 0, 0, s.events
      from public.platform_events_daily_sessions as s
      where s.day >= first_day and s.day < first_day + interval '1 month' and s.events <> 0
      union all
      select named.id, 0, 0, 1 from unnest(given.organizations) as named (id)
    ) as u
    where u.organization_id is not null and (given.organizations is null or u.organization_id = any(given.organizations))
    group by u.organization_id
    having sum(u.seen) > 0
  ) as o;

  if given.amount <> 0 and names is null then
    raise exception 'No organization had calls, events or costs in %.', given.month
      using errcode = '22023', hint = 'Name those that share: --organization acme --organization other';
  end if;
  if given.amount <> 0 and not exists (select from unnest(weights) as w (weight) where w.weight > 0) then
    raise exception 'No organization had any % in %.', case rule when 'calls' then 'calls' else 'costs' end, given.month
      using errcode = '22023', hint = 'Allocate it in equal parts: --by equal';
  end if;
  if given.amount = 0 then
    names := '{}';
    weights := '{}';
  end if;

  select json_build_object(
    'month', given.month, 'name', given.name, 'by', rule, 'amount', given.amount::text, 'before', before::text, 'digits', digits,
    'dry_run', coalesce(given.dry_run, false),
    'shares', coalesce(json_agg(
      json_build_object(
        'organization_id', s.name, 'weight', w.weight::text, 'percent', round(100 * w.weight / w.total, 4)::text, 'cost_usd', s.share::text
      ) order by s.share * sign(given.amount) desc, s.name collate "C"
    ), '[]')
  ) into answer
  from vital_private.shares(given.amount, digits, names, weights) as s
  join (
    select u.name, u.weight, sum(u.weight) over () as total from unnest(names, weights) as u (name, weight)
  ) as w on w.name = s.name;

  if given.dry_run is not true then
    delete from public.tenant_cost_events as c
    where c.occurred_at = middle and c.price_version = 'allocation' and c.service = given.name;
    insert into public.tenant_cost_events (
      id, occurred_at, organization_id, cost_type, service, quantity, unit, cost_usd, price_version, metadata
    )
    select
      md5(concat_ws(chr(31), 'allocation', given.month, given.name, s.value ->> 'organization_id'))::uuid, middle, s.value ->> 'organization_id',
      coalesce(given.cost_type, 'other'), given.name, 1, 'share', (s.value ->> 'cost_usd')::numeric, 'allocation',
      jsonb_build_object('allocated_by', rule, 'invoice_usd', given.amount::text, 'percent', s.value ->> 'percent')
    from json_array_elements(answer -> 'shares') as s
    where (s.value ->> 'cost_usd')::numeric <> 0;
    perform vital_private.note(
      'tenant_cost_events', 'allocate', null, jsonb_build_object('month', given.month, 'name', given.name),
      jsonb_build_object('cost_usd', jsonb_build_array(before::text, given.amount::text), 'by', jsonb_build_array(null, rule))
    );
  end if;
  return answer;
end;
$$;

select vital_private.restrict_functions(api => '{allocate_cost_v1}');
