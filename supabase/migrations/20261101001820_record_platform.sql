-- How events, costs and executions are recorded: as calls are, in batches, each once by its id, bad rows alone set aside.

create function vital_private.insert_events(batch json, holder text) returns bigint[]
language plpgsql
set search_path = ''
as $$
declare
  inserted bigint;
begin
  insert into public.platform_events (
    id, occurred_at, organization_id, user_id, session_id, category, event_name, source, ip_hash, value, properties
  )
  select
    e.id, e.occurred_at, e.organization_id, e.user_id, e.session_id, coalesce(e.category, 'user_behavior'), e.event_name, e.source,
    e.ip_hash, e.value, coalesce(e.properties, '{}')
  from json_populate_recordset(null::public.platform_events, batch) as e
  order by e.id, e.occurred_at
  on conflict (id, occurred_at) do nothing;
  get diagnostics inserted = row_count;
  return array[inserted, json_array_length(batch)];
end;
$$;

-- Costs are priced here, as of the instant at which they arose: by what they came with (`cost_usd`, else `unit_price`), else by the price
-- in force, else not at all. A cost that does not come to its quantity times its unit price keeps the cost.
create function vital_private.insert_costs(batch json, holder text) returns bigint[]
language plpgsql
set search_path = ''
as $$
declare
  inserted bigint;
begin
  insert into public.tenant_cost_events (
    id, occurred_at, organization_id, user_id, cost_type, service, resource, quantity, unit, unit_price, cost_usd, price_version, metadata
  )
  select
    c.id, c.occurred_at, c.organization_id, c.user_id, c.cost_type, c.service, c.resource, c.quantity, c.unit,
    case when c.cost_usd is null or c.cost_usd = c.quantity * c.unit_price then coalesce(c.unit_price, p.unit_price) end,
    coalesce(c.cost_usd, c.quantity * coalesce(c.unit_price, p.unit_price)),
    case when num_nonnulls(c.cost_usd, c.unit_price) > 0 then coalesce(c.price_version, 'given') else p.price_version end,
    c.metadata
  from (
    select
      r.id, r.occurred_at, r.organization_id, r.user_id, coalesce(r.cost_type, 'other') as cost_type, r.service, r.resource,
      coalesce(r.quantity, 1) as quantity, coalesce(r.unit, vital_private.usual_unit(r.cost_type)) as unit, r.unit_price, r.cost_usd,
      r.price_version, coalesce(r.metadata, '{}') as metadata
    from json_populate_recordset(null::public.tenant_cost_events, batch) as r
  ) as c
  left join lateral vital_private.resource_price(c.cost_type, c.resource, c.unit, c.occurred_at) as p
    on c.cost_usd is null and c.unit_price is null
  order by c.id, c.occurred_at
  on conflict (id, occurred_at) do nothing;
  get diagnostics inserted = row_count;
  return array[inserted, json_array_length(batch)];
end;
$$;

create function vital_private.insert_executions(batch json, holder text) returns bigint[]
language plpgsql
set search_path = ''
as $$
declare
  inserted bigint;
begin
  insert into public.agent_executions (
    id, started_at, organization_id, user_id, agent_id, agent_name, workflow_id, service_run_id, duration_ms, success, error_type,
    total_tokens, cost_usd, rating, faithfulness, answer_relevancy, context_precision, context_recall, citations, metadata
  )
  select
    e.id, e.started_at, e.organization_id, e.user_id, e.agent_id, e.agent_name, e.workflow_id, e.service_run_id, e.duration_ms,
    coalesce(e.success, e.error_type is null), e.error_type, e.total_tokens, e.cost_usd, e.rating, e.faithfulness, e.answer_relevancy,
    e.context_precision, e.context_recall, e.citations, coalesce(e.metadata, '{}')
  from json_populate_recordset(null::public.agent_executions, batch) as e
  order by e.id, e.started_at
  on conflict (id, started_at) do nothing;
  get diagnostics inserted = row_count;
  return array[inserted, json_array_length(batch)];
end;
$$;

-- Record a batch of events: {"now", "inserted": n, "duplicate": n, "rejected": [{"id", "sqlstate", "rule"}]}. Sending one again changes
-- nothing.
create function public.record_events_v1(events text) returns json
language sql
security definer
set search_path = ''
as $$
  select vital_private.check_given('events', events);
  select (
    vital_private.record_batch(events, 'vital_private.insert_events'::regproc, null) || jsonb_build_object('now', clock_timestamp())
  )::json
$$;

-- Record a batch of costs; the same answer.
create function public.record_costs_v1(costs text) returns json
language sql
security definer
set search_path = ''
as $$
  select vital_private.check_given('costs', costs);
  select (
    vital_private.record_batch(costs, 'vital_private.insert_costs'::regproc, null) || jsonb_build_object('now', clock_timestamp())
  )::json
$$;

-- Record a batch of executions of agents; the same answer.
create function public.record_executions_v1(executions text) returns json
language sql
security definer
set search_path = ''
as $$
  select vital_private.check_given('executions', executions);
  select (
    vital_private.record_batch(executions, 'vital_private.insert_executions'::regproc, null)
    || jsonb_build_object('now', clock_timestamp())
  )::json
$$;

-- Price costs without a price, and with `again` those whose price has changed since, from the prices in force when they arose; costs that
-- came with a price of their own stay as they are. At most `max_rows` at a time: {"repriced": n, "unpriced": n left}.
create function public.reprice_costs_v1(
  since timestamptz default null, until timestamptz default null, again boolean default false, max_rows integer default 10000
) returns json
language plpgsql
security definer
set search_path = ''
set statement_timeout = '15min'
as $$
declare
  changed bigint;
begin
  perform vital_private.check_times(since, until);
  with due as (
    select c.id, c.occurred_at, p.unit_price, p.price_version
    from public.tenant_cost_events as c
    cross join lateral vital_private.resource_price(c.cost_type, c.resource, c.unit, c.occurred_at) as p
    where c.occurred_at >= coalesce(since, '-infinity') and c.occurred_at < coalesce(until, 'infinity')
      and (not c.priced or (coalesce(again, false) and c.price_version like 'resource_prices:%' and c.price_version <> p.price_version))
    order by c.id
    limit greatest(coalesce(max_rows, 10000), 1)
  )

  update public.tenant_cost_events as c
  set unit_price = due.unit_price, cost_usd = c.quantity * due.unit_price, price_version = due.price_version
  from due
  where c.id = due.id and c.occurred_at = due.occurred_at;
  get diagnostics changed = row_count;
  return json_build_object('repriced', changed, 'unpriced', (
    select count(*) from public.tenant_cost_events as c
    where not c.priced and c.occurred_at >= coalesce(since, '-infinity') and c.occurred_at < coalesce(until, 'infinity')
  ));
end;
$$;

select vital_private.restrict_functions(
  api => '{record_events_v1, record_costs_v1, record_executions_v1, reprice_costs_v1}'
);
