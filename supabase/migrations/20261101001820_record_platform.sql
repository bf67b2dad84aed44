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

-- Record events that somebody sends over the API. `poster` is the subject of a token that the server has verified, and decides: all events
-- are theirs, of an organization that they are a member of (where none is named: of the only one), of the last 31 days; what counts
-- as business, such as revenue, comes from admins of it. NULL is the operator, who writes for everybody.
--
-- An event is known by its id: one that was recorded within 31 days is not recorded again, whatever time it comes with.
-- {"now", "recorded": n, "duplicates": n, "refused": [{"place", "reason", "organization_id"}]}, places from 0.
create function vital_private.post_events(events text, poster text) returns json
language plpgsql
set search_path = ''
as $$
declare
  earliest constant timestamptz := now() - interval '31 days';
  judged jsonb;
  report jsonb;
begin
  if json_typeof(events::json) is distinct from 'array' then
    raise exception 'The batch must be text that holds a JSON array of objects.' using errcode = '22023';
  end if;
  -- One batch of somebody at a time, so that none sent twice at once finds itself new twice.
  perform pg_advisory_xact_lock(hashtextextended('vital_tracking.events ' || coalesce(poster, ''), 0));
  with places as materialized (
    select m.organization_id, m.role from public.organization_members as m where m.user_id = poster
  ),

  sent as (
    select
      e.ordinality - 1 as place, lower(e.value ->> 'id') as id, e.value,
      case
        when e.value ->> 'organization_id' is not null or poster is null then e.value ->> 'organization_id'
        else (select min(p.organization_id) from places as p having count(*) = 1)
      end as organization_id,
      coalesce((e.value ->> 'occurred_at')::timestamptz, now()) as occurred_at
    from json_array_elements(events::json) with ordinality as e
  ),

  found as (
    select
      s.place, s.id, s.organization_id,
      case
        when s.id is null or s.id !~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then 'no_id'
        when poster is null then null
        when s.value ->> 'user_id' <> poster then 'another_user'
        when s.organization_id is not null and s.organization_id not in (select p.organization_id from places as p) then 'no_member'
        when s.value ->> 'category' = 'business' and not exists (
          select from places as p where p.organization_id = s.organization_id and p.role = 'admin'
        ) then 'not_an_admin'
        when s.occurred_at not between earliest and now() + interval '1 hour' then 'out_of_time'
      end as reason,
      s.value::jsonb || jsonb_build_object('id', s.id, 'organization_id', s.organization_id, 'occurred_at', s.occurred_at)
      || case when poster is null then '{}' else jsonb_build_object('user_id', poster) end as filled
    from sent as s
  ),

  unknown as (
    select distinct on (f.id) f.place, f.filled
    from found as f
    where f.reason is null and not exists (
      select from public.platform_events as known where known.id = f.id::uuid and known.occurred_at >= earliest
    )
    order by f.id, f.place
  )

  select jsonb_build_object(
    'good', (select count(*) from found as f where f.reason is null),
    'new', coalesce((select jsonb_agg(u.filled order by u.place) from unknown as u), '[]'),
    'places', coalesce((select jsonb_object_agg(u.filled ->> 'id', u.place) from unknown as u), '{}'),
    'refused', coalesce((
      select jsonb_agg(jsonb_build_object('place', f.place, 'reason', f.reason, 'organization_id', f.organization_id) order by f.place)
      from found as f
      where f.reason is not null
    ), '[]')
  ) into judged;
  report := vital_private.record_batch(judged ->> 'new', 'vital_private.insert_events'::regproc, null);
  return json_build_object(
    'now', clock_timestamp(),
    'recorded', report -> 'inserted',
    'duplicates', (judged -> 'good')::bigint - (report -> 'inserted')::bigint - jsonb_array_length(report -> 'rejected'),
    'refused', judged -> 'refused' || coalesce((
      select jsonb_agg(jsonb_build_object('place', judged -> 'places' -> (r.value ->> 'id'), 'reason', r.value ->> 'rule', 'organization_id', null))
      from jsonb_array_elements(report -> 'rejected') as r
    ), '[]')
  );
end;
$$;

-- Events of a signed-in user, whom the server has verified; no user calls this, so none passes by what the server leaves out of events.
create function public.post_user_events_v1(events text, subject text) returns json
language plpgsql
security definer
set search_path = ''
as $$
begin
  perform vital_private.check_given('events', events);
  perform vital_private.check_given('subject', nullif(subject, ''));
  return vital_private.post_events(events, subject);
end;
$$;

-- Events of an operator, for any user and organization.
create function public.post_events_v1(events text) returns json
language plpgsql
security definer
set search_path = ''
as $$
begin
  perform vital_private.check_given('events', events);
  return vital_private.post_events(events, null);
end;
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
-- came with a price of their own stay as they are. At most `max_rows` at a time, by time and id, after (after_at, after_id): {"repriced": n,
-- "next": where to go on as {"after_at", "after_id"}, NULL at the end, "unpriced": n left, NULL but at the end}.
create function public.reprice_costs_v1(
  since timestamptz default null, until timestamptz default null, again boolean default false, max_rows integer default 10000,
  after_at timestamptz default null, after_id uuid default null
) returns json
language plpgsql
security definer
set search_path = ''
set statement_timeout = '15min'
-- A plan for any place and any number of rows would read all that are left to sort them.
set plan_cache_mode = 'force_custom_plan'
as $$
declare
  batch constant bigint := greatest(coalesce(max_rows, 10000), 1);
  -- What is before the cursor was looked at: no partition of it is read again.
  earliest constant timestamptz := greatest(coalesce(since, '-infinity'), coalesce(after_at, '-infinity'));
  latest constant timestamptz := coalesce(until, 'infinity');
  changed bigint;
  last_at timestamptz;
  last_id uuid;
begin
  perform vital_private.check_times(since, until);
  with due as (
    select c.id, c.occurred_at, p.unit_price, p.price_version
    from public.tenant_cost_events as c
    cross join lateral vital_private.resource_price(c.cost_type, c.resource, c.unit, c.occurred_at) as p
    where c.occurred_at >= earliest and c.occurred_at < latest
      and (after_at is null or c.occurred_at > after_at or c.id > coalesce(after_id, '00000000-0000-0000-0000-000000000000'))
      and (not c.priced or (coalesce(again, false) and c.price_version like 'resource_prices:%' and c.price_version <> p.price_version))
    order by c.occurred_at, c.id
    limit batch
  ),

  done as (
    update public.tenant_cost_events as c
    set unit_price = due.unit_price, cost_usd = c.quantity * due.unit_price, price_version = due.price_version
    from due
    where c.id = due.id and c.occurred_at = due.occurred_at
    returning c.occurred_at, c.id
  )

  select count(*) over (), d.occurred_at, d.id into changed, last_at, last_id
  from done as d
  order by d.occurred_at desc, d.id desc
  limit 1;
  return json_build_object(
    'repriced', coalesce(changed, 0),
    'next', case when changed = batch then json_build_object('after_at', last_at, 'after_id', last_id) end,
    'unpriced', case
      when changed = batch then null
      else (
        select count(*) from public.tenant_cost_events as c
        where not c.priced and c.occurred_at >= coalesce(since, '-infinity') and c.occurred_at < latest
      )
    end
  );
end;
$$;

select vital_private.restrict_functions(
  api => '{record_events_v1, post_user_events_v1, post_events_v1, record_costs_v1, record_executions_v1, reprice_costs_v1}'
);
