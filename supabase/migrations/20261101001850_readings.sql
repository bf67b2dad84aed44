-- What is read from time to time: counters of LiteLLM, which only ever grow until it starts anew, and sizes, which cost by the time for which they
-- stand. The last reading of each is kept here, and replaced in the transaction that records what came of it: so each reading counts once.

create table vital_private.counter_readings (
  source text not null,
  series text not null,
  measure text not null,
  value numeric not null,
  read_at timestamptz not null default now(),
  primary key (source, series, measure),
  constraint counter_readings_value check (value >= 0 and value < 'Infinity')
);

comment on table vital_private.counter_readings is 'The last reading of each counter, by where it was read and of what.';

create table vital_private.meter_readings (
  resource text not null,
  organization_id text,
  bytes numeric not null,
  read_at timestamptz not null,
  constraint meter_readings_bytes check (bytes >= 0 and bytes < 'Infinity')
);

create unique index meter_readings_key on vital_private.meter_readings (resource, organization_id) nulls not distinct;

comment on table vital_private.meter_readings is 'The last reading of each size: until when its storage is paid for.';

select vital_private.restrict_relation('vital_private.counter_readings');
select vital_private.restrict_relation('vital_private.meter_readings');

-- Take a reading of LiteLLM's counters: {"source", "organization_id", "costs": whether they are costs, "series": {model: {"cost_usd", "requests",
-- "errors", "input_tokens", "output_tokens", "latency_s"}}}, amounts as text. Of each model that was used since the last reading an event
-- `litellm_usage` is recorded, with `costs` also a cost of the kind llm. A counter below its last reading has begun anew: it counts from 0. The first
-- reading of a source only says where its counters stand; a model that appears later counts from 0.
-- {"first": bool, "resets": n, "used": [{"model", "cost_usd", ...}, ...]}
create function public.record_counters_v1(reading text) returns json
language plpgsql
security definer
set search_path = ''
as $$
declare
  given record;
  first boolean;
  resets integer;
  used jsonb;
begin
  perform vital_private.check_given('reading', reading);
  select * into given
  from json_to_record(reading::json) as r (source text, organization_id text, costs boolean, series json);
  if given.source is null or given.series is null or json_typeof(given.series) <> 'object' then
    raise exception 'A reading names its source, and the series that were read.' using errcode = '22023';
  end if;
  perform pg_catalog.pg_advisory_xact_lock(hashtext('vital_tracking.counters'), hashtext(given.source));
  first := not exists (select from vital_private.counter_readings as c where c.source = given.source);

  with read as (
    select s.key as series, m.key as measure, m.value::numeric as value
    from json_each(given.series) as s
    cross join lateral json_each_text(s.value) as m
  ),

  -- Where one counter has gone back, the source has begun anew, and with it all of them.
  known as (
    select r.series, r.measure, r.value, k.value as before, coalesce(bool_or(r.value < k.value) over (), false) as reset
    from read as r
    left join vital_private.counter_readings as k on k.source = given.source and k.series = r.series and k.measure = r.measure
  ),

  compared as (
    select k.series, k.measure, k.value, k.reset and k.before is not null as reset,
      case when first then 0 when k.before is null or k.reset then k.value else k.value - k.before end as more
    from known as k
  ),

  gone as (
    delete from vital_private.counter_readings as k
    where k.source = given.source and (select bool_or(c.reset) from compared as c)
      and not exists (select from read as r where r.series = k.series and r.measure = k.measure)
  ),

  kept as (
    insert into vital_private.counter_readings as k (source, series, measure, value)
    select given.source, c.series, c.measure, c.value from compared as c
    on conflict (source, series, measure) do update set value = excluded.value, read_at = now()
  )

  select
    count(distinct c.series) filter (where c.reset),
    (
      select coalesce(jsonb_agg(u.use order by u.series), '[]')
      from (
        select
          d.series, jsonb_build_object('model', d.series) || jsonb_object_agg(d.measure, d.more::text) as use
        from compared as d
        group by d.series
        having sum(d.more) > 0
      ) as u
    )
  into resets, used
  from compared as c;

  insert into public.platform_events (id, occurred_at, organization_id, category, event_name, source, value, properties)
  select
    gen_random_uuid(), now(), given.organization_id, 'system_health', 'litellm_usage', left(u.use ->> 'model', 256),
    (u.use ->> 'cost_usd')::numeric,
    jsonb_strip_nulls(jsonb_build_object(
      'requests', (u.use ->> 'requests')::numeric, 'errors', (u.use ->> 'errors')::numeric,
      'input_tokens', (u.use ->> 'input_tokens')::numeric, 'output_tokens', (u.use ->> 'output_tokens')::numeric,
      'duration_ms', 1000 * (u.use ->> 'latency_s')::numeric
    ))
  from jsonb_array_elements(used) as u (use);
  if given.costs then
    insert into public.tenant_cost_events (
      id, occurred_at, organization_id, cost_type, service, resource, quantity, unit, cost_usd, price_version
    )
    select
      gen_random_uuid(), now(), given.organization_id, 'llm', 'litellm', left(u.use ->> 'model', 256),
      coalesce((u.use ->> 'requests')::numeric, 0), 'call', (u.use ->> 'cost_usd')::numeric, 'given'
    from jsonb_array_elements(used) as u (use)
    where (u.use ->> 'cost_usd')::numeric > 0;
  end if;
  return json_build_object('first', first, 'resets', resets, 'used', used);
end;
$$;

-- What part of its month (UTC) has passed at an instant, to 18 digits: differences of it add up to 1 over a month.
create function vital_private.part_of_month(instant timestamptz) returns numeric
language sql
immutable
set search_path = ''
set timezone = 'UTC'
as $$
  select round(
    extract(epoch from instant - date_trunc('month', instant))
    / extract(epoch from date_trunc('month', instant) + interval '1 month' - date_trunc('month', instant)), 18
  )
$$;

-- Take readings of sizes: [{"resource", "organization_id", "service", "bytes", "read_at" (by default now)}, ...]. A size is taken to have stood
-- since the last reading: it costs that part of each month in gigabyte-months (of 10^9 bytes), a row of `tenant_cost_events` a month, so that what
-- a month costs does not depend on how often it was read. The first reading costs nothing, and one that is no later than the last changes nothing.
-- [{"resource", "bytes", "gb_months", "cost_usd", "since", "also_of" (which other organizations it was read for, '' for none)}, ...]
create function public.record_sizes_v1(readings text) returns json
language plpgsql
security definer
set search_path = ''
set timezone = 'UTC'
as $$
declare
  size record;
  since timestamptz;
  until timestamptz;
  rows json;
  answers jsonb := '[]';
begin
  perform vital_private.check_given('readings', readings);
  for size in
    select r.resource, r.organization_id, r.service, r.bytes, coalesce(r.read_at, now()) as read_at
    from json_to_recordset(readings::json) as r (resource text, organization_id text, service text, bytes numeric, read_at timestamptz)
    order by r.resource, r.organization_id
  loop
    if nullif(btrim(size.resource), '') is null or size.bytes is null then
      raise exception 'A reading names its resource and its bytes.' using errcode = '22023';
    end if;
    perform pg_catalog.pg_advisory_xact_lock(
      hashtext('vital_tracking.meters'), hashtext(concat_ws(chr(31), size.resource, size.organization_id))
    );
    select m.read_at into since
    from vital_private.meter_readings as m
    where m.resource = size.resource and m.organization_id is not distinct from size.organization_id;
    continue when since >= size.read_at;
    select coalesce(json_agg(p.*), '[]') into rows
    from (
      select
        md5(concat_ws(chr(31), 'meter', size.resource, size.organization_id, s.starts_at))::uuid as id,
        s.starts_at as occurred_at, size.organization_id, 'storage' as cost_type, coalesce(size.service, 'meter') as service, size.resource,
        size.bytes / 1000000000 * (
          case when s.ends_at = s.next_month then 1 else vital_private.part_of_month(s.ends_at) end - vital_private.part_of_month(s.starts_at)
        ) as quantity,
        'gb_month' as unit
      from (
        select
          greatest(since, m.month) as starts_at, least(size.read_at, m.month + interval '1 month') as ends_at,
          m.month + interval '1 month' as next_month
        from generate_series(date_trunc('month', since), size.read_at, interval '1 month') as m (month)
        where greatest(since, m.month) < least(size.read_at, m.month + interval '1 month')
      ) as s
    ) as p;
    if json_array_length(rows) > 0 then
      perform vital_private.insert_costs(rows, null);
    end if;
    insert into vital_private.meter_readings as m (resource, organization_id, bytes, read_at)
    values (size.resource, size.organization_id, size.bytes, size.read_at)
    on conflict (resource, organization_id) do update set bytes = excluded.bytes, read_at = excluded.read_at;
    answers := answers || jsonb_build_object(
      'resource', size.resource, 'bytes', size.bytes, 'since', since,
      'also_of', (
        select coalesce(jsonb_agg(coalesce(m.organization_id, '') order by m.organization_id), '[]')
        from vital_private.meter_readings as m
        where m.resource = size.resource and m.organization_id is distinct from size.organization_id
      ),
      'gb_months', (select coalesce(sum((r.value ->> 'quantity')::numeric), 0)::text from json_array_elements(rows) as r),
      'cost_usd', (
        select sum(c.cost_usd)::text from public.tenant_cost_events as c
        join json_array_elements(rows) as r on c.id = (r.value ->> 'id')::uuid and c.occurred_at = (r.value ->> 'occurred_at')::timestamptz
      )
    );
  end loop;
  return answers;
end;
$$;

-- How large each database of this server is that the caller's owner may connect to: [{"name", "bytes"}, ...].
create function public.database_sizes_v1() returns json
language sql
stable
security definer
set search_path = ''
as $$
  select coalesce(json_agg(json_build_object('name', d.datname, 'bytes', pg_catalog.pg_database_size(d.oid)) order by d.datname), '[]')
  from pg_catalog.pg_database as d
  where not d.datistemplate and d.datallowconn and has_database_privilege(d.oid, 'connect')
$$;

select vital_private.restrict_functions(api => '{record_counters_v1, record_sizes_v1, database_sizes_v1}');
