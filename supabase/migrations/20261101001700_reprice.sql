-- Calls whose price was unknown are stored with NULL costs; once a price is known they are repriced from the tokens on the row.

-- The facts in a call's metadata by which providers choose one of several prices of a model.
create function vital_private.price_facts(metadata jsonb) returns jsonb
language sql
immutable
parallel safe
set search_path = ''
as $$
  select coalesce(jsonb_object_agg(fact, metadata ->> fact), '{}')
  from unnest('{service_tier, speed, latency, inference_geo, search_context_size, search_tool, processing}'::text[]) as fact
  where metadata ->> fact is not null
$$;

-- What the price of a call depends on, beside what it cost when it was recorded. Amounts are text, so that no client turns money into a
-- float, and so are the counts of billed_units, which need not be whole.
create view vital_private.calls_to_price
with (security_invoker = true)
as
select
  id,
  created_at,
  calls,
  provider,
  model,
  sent_model,
  requested_model,
  cache_hit,
  status,
  prompt_tokens,
  completion_tokens,
  cache_read_tokens,
  cache_write_tokens,
  cache_write_1h_tokens,
  reasoning_tokens,
  audio_tokens,
  audio_output_tokens,
  usage_estimated,
  billed_units::text as billed_units,
  vital_private.price_facts(metadata) as price_facts,
  coalesce(metadata -> 'notes' ? 'usage_missing', false) as usage_missing,
  reported_cost::text as reported_cost,
  total_cost::text as total_cost,
  price_version,
  priced
from public.token_usage_logs;

-- The next unpriced calls after (after_created_at, after_id), in that order, as JSON: what their price depends on.
create function public.unpriced_calls_v1(after_created_at timestamptz, after_id uuid, batch_size integer) returns json
language sql
stable
security definer
set search_path = ''
as $$
  select coalesce(json_agg(call order by call.created_at, call.id), '[]')
  from (
    select *
    from vital_private.calls_to_price
    where not priced
      -- Nobody knows how many tokens these used, so a price is of no use.
      and not (usage_estimated and prompt_tokens + completion_tokens = 0 and billed_units is null and reported_cost is null)
      and (created_at, id) > (
        coalesce(after_created_at, '-infinity'::timestamptz), coalesce(after_id, '00000000-0000-0000-0000-000000000000')
      )
    order by created_at, id
    limit least(greatest(coalesce(batch_size, 1000), 1), 1000)
  ) as call
$$;

-- The next calls that started from `since` on, priced or not, after the id `after_id` (NULL: from the first on), in the order of ids, as
-- JSON: what their price depends on, and what they cost. Blocked calls were never made. (Ids are the order of the primary key, which
-- holds the start, too, so that a batch reads little more than its rows.)
create function public.calls_to_price_v1(since timestamptz, after_id uuid, batch_size integer) returns json
language sql
stable
security definer
set search_path = ''
as $$
  select coalesce(json_agg(call order by call.id), '[]')
  from (
    select *
    from vital_private.calls_to_price
    where created_at >= coalesce(since, '-infinity') and status <> 'blocked'
      and id > coalesce(after_id, '00000000-0000-0000-0000-000000000000')
    order by id
    limit least(greatest(coalesce(batch_size, 1000), 1), 1000)
  ) as call
$$;

-- Put prices on unpriced calls: a JSON array of {id, created_at, input_cost, output_cost, fees, total_cost, potential_cost,
-- price_version}. A call that has a price keeps it, so running this twice changes nothing. Budgets, which had counted the call
-- at its ceiling cost, count what it truly cost from now on. Returns how many rows were priced.
create function public.reprice_calls_v1(prices text) returns bigint
language plpgsql
security definer
set search_path = ''
as $$
declare
  repriced bigint;
  before vital_private.counted_call[];
  after vital_private.counted_call[];
begin
  perform vital_private.check_given('prices', prices);
  perform vital_private.lock_budgets(alone => false);
  with waiting as (
    select call.id, call.created_at, call as old
    from public.token_usage_logs as call
    join json_populate_recordset(null::public.token_usage_logs, prices::json) as p using (id, created_at)
    where not call.priced
    order by call.id
    for update of call
  ),

  priced as (
    update public.token_usage_logs as call
    set
      input_cost = p.input_cost, output_cost = p.output_cost, fees = p.fees, total_cost = p.total_cost,
      potential_cost = p.potential_cost, price_version = p.price_version, priced = true
    from waiting
    join json_populate_recordset(null::public.token_usage_logs, prices::json) as p using (id, created_at)
    where call.id = waiting.id and call.created_at = waiting.created_at
    returning vital_private.counted(waiting.old, -1) as before, vital_private.counted(call, 1) as after
  )

  select count(*), array_agg(priced.before), array_agg(priced.after) into repriced, before, after from priced;
  if exists (select from public.budget_limits) then
    perform vital_private.post_spend(before || after, null, null, null);
  end if;
  return repriced;
end;
$$;

select vital_private.restrict_relation('vital_private.calls_to_price');
select vital_private.restrict_functions(api => '{unpriced_calls_v1, calls_to_price_v1, reprice_calls_v1}');
