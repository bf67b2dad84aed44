-- What pages, API and invoices ask of events and other costs: the rows by filters, and what they come to by a few dimensions, from the
-- smallest sums that know them. All of it runs with the rights of whoever asks, so the policies decide what is counted.
--
-- `what` is `events` or `costs`. `filters` is the text of a JSON object, in which what is missing or null lets everything pass:
--   since, until   the time, from `since` up to, and without, `until` (of rows alone; sums have arguments of these names)
--   id             the row of that id
--   failed         true: only events that say that something failed; unpriced: only costs without a price (both of rows alone)
--   the others     values of a dimension, one or several: {"user": ["u-1", null], "category": "business", "service": "*"}

-- What events and costs are told apart by: how a row says it, and whether the sums by five minutes and by day know it.
create function vital_private.platform_dimensions(what text)
returns table (name text, of_row text, by_minutes boolean, by_days boolean)
language sql
immutable
set search_path = ''
as $$
  select d.name, d.of_row, d.by_minutes, d.by_days
  from (
    values
    ('events', 'organization', 'organization_id', true, true),
    ('events', 'user', 'user_id', false, true),
    ('events', 'session', 'session_id', false, true),
    ('events', 'category', 'category', true, true),
    ('events', 'event', 'event_name', true, false),
    ('events', 'source', 'source', false, false),
    ('costs', 'organization', 'organization_id', true, true),
    ('costs', 'user', 'user_id', false, true),
    ('costs', 'cost_type', 'cost_type', true, true),
    ('costs', 'service', 'service', true, true),
    ('costs', 'resource', 'resource', false, true),
    ('costs', 'unit', 'unit', false, true)
  ) as d (what, name, of_row, by_minutes, by_days)
  where d.what = platform_dimensions.what
$$;

-- The condition that filters make of rows `r`, as the text of SQL; of sums, those of dimensions alone.
create function vital_private.platform_filter(what text, filters jsonb, of_sums boolean) returns text
language plpgsql
stable
set search_path = ''
as $$
declare
  parts text[] := '{true}';
  filter record;
  part text;
begin
  for filter in
    select f.key as name, f.value, f.value #>> '{}' as plain
    from jsonb_each(filters) as f
    where jsonb_typeof(f.value) <> 'null'
  loop
    part := (
      select vital_private.has_one_of('r.' || d.of_row, filter.value)
      from vital_private.platform_dimensions(what) as d
      where d.name = filter.name
    );
    if part is null and not of_sums then
      part := case
        when filter.name = 'since' then format('r.occurred_at >= %L::timestamptz', filter.plain)
        when filter.name = 'until' then format('r.occurred_at < %L::timestamptz', filter.plain)
        when filter.name = 'id' then format('r.id = %L::uuid', filter.plain)
        when filter.name = 'failed' and what = 'events'
          then case when filter.plain::boolean then 'vital_private.event_failed(r.properties)' else 'true' end
        when filter.name = 'unpriced' and what = 'costs' then case when filter.plain::boolean then 'not r.priced' else 'true' end
      end;
    end if;
    if part is null then
      raise exception 'There is no filter %.', quote_literal(filter.name) using errcode = '22023';
    end if;
    parts := parts || part;
  end loop;
  return array_to_string(parts, ' and ');
end;
$$;

-- Whether whoever asks has nothing but rows of their own; then an index finds these.
create function vital_private.has_own_alone() returns boolean
language sql
stable
set search_path = ''
as $$
  select current_user = 'authenticated' and vital_private.administered_organizations() = '{}'
$$;

create function vital_private.check_platform_kind(what text) returns void
language plpgsql
immutable
set search_path = ''
as $$
begin
  if what is null or what not in ('events', 'costs') then
    raise exception 'There are events and costs, and not %.', coalesce(quote_literal(what), 'NULL') using errcode = '22023';
  end if;
end;
$$;

-- Events or costs that filters let pass, the newest first, as an array of objects; numbers with all their digits are text. `after_at`
-- and `after_id` are `occurred_at` and `id` of the last row of the page before.
create function public.platform_rows_v1(
  what text,
  filters text default '{}',
  after_at timestamptz default null,
  after_id uuid default null,
  max_rows integer default 100
) returns json
language plpgsql
stable
set search_path = ''
set timezone = 'UTC'
as $$
declare
  answer json;
begin
  perform vital_private.check_platform_kind(what);
  execute format(
    $query$
      select coalesce(json_agg(found order by found.occurred_at desc, found.id desc), '[]')
      from (
        select %1$s
        from public.%2$I as r
        where %3$s and %4$s %5$s
        order by r.occurred_at desc, r.id desc
        limit least(greatest($1, 0), 10000)
      ) as found
    $query$,
    case what
      when 'events' then
        'r.id, r.occurred_at, r.organization_id, r.user_id, r.session_id, r.category, r.event_name, r.source, r.ip_hash,
        trim_scale(r.value)::text as value, vital_private.event_failed(r.properties) as failed, r.properties'
      else
        'r.id, r.occurred_at, r.organization_id, r.user_id, r.cost_type, r.service, r.resource, trim_scale(r.quantity)::text as quantity,
        r.unit, trim_scale(r.unit_price)::text as unit_price, trim_scale(r.cost_usd)::text as cost_usd, r.priced, r.price_version, r.metadata'
    end,
    case what when 'events' then 'platform_events' else 'tenant_cost_events' end,
    case
      when after_at is null then 'true'
      else 'r.occurred_at <= $2 and (r.occurred_at < $2 or r.id < $3)'
    end,
    vital_private.platform_filter(what, coalesce(filters, '{}')::jsonb, of_sums => false),
    case when vital_private.has_own_alone() then format('and r.user_id = %L', vital_private.subject()) end
  ) into answer using vital_private.rows_wanted(max_rows, 100), after_at, after_id;
  return answer;
end;
$$;

comment on function public.platform_rows_v1(text, text, timestamptz, uuid, integer) is
'Events or other costs by filters, the newest first, page by page.';

-- What events or costs of a time come to by some dimensions, beside the above also hour, day, week and month of a time zone:
-- {"source", "fresh_at", "groups", "total": {...}, "rows": [{...}]}, times first, then the most events or the dearest first. Events:
-- `events`, `failed_events`, `valued_events` and their `value`; costs: `costs`, `unpriced_costs`, `quantity`, `cost_usd`. What the sums
-- that answered do not know is null. `source` is `minutes`, `days` (with the rows of the parts of days at both ends), or `rows`. Whoever
-- needs the `whole`, as an invoice does, gets the error 22VT1 where the rows of a part of a day are gone.
create function public.platform_explore_v1(
  what text,
  since timestamptz,
  until timestamptz,
  dimensions text[] default '{}',
  filters text default '{}',
  timezone text default 'UTC',
  max_rows integer default 1000,
  whole boolean default false
) returns json
language plpgsql
stable
set search_path = ''
set work_mem = '64MB'
set jit = off
as $$
declare
  zone constant text := coalesce(timezone, 'UTC');
  wanted constant jsonb := coalesce(filters, '{}')::jsonb;
  times constant text[] := array(select d from unnest(dimensions) as d where d in ('hour', 'day', 'week', 'month'));
  named constant text[] := array(
    select d from unnest(dimensions) as d where d <> all(times)
    union
    select k from jsonb_object_keys(wanted) as k
  );
  own_alone constant boolean := vital_private.has_own_alone();
  first_day constant timestamptz := date_trunc('day', since + interval '1 day' - interval '1 microsecond', 'UTC');
  last_day constant timestamptz := greatest(date_trunc('day', until, 'UTC'), first_day);
  rows_of constant text := case what when 'events' then 'platform_events' else 'tenant_cost_events' end;
  kept_since constant timestamptz := vital_private.rows_kept_since(rows_of);
  mine constant text := case when own_alone then format('and r.user_id = %L', vital_private.subject()) else '' end;
  unknown text;
  knows_minutes boolean;
  knows_days boolean;
  source text;
  keys text;
  measured text[]; -- the measures, in the order in which the two lines below tell them
  of_sums text;
  of_rows text;
  sums_table text;
  rows_table text;
  rows_query text; -- with a place for the condition on their time
  source_query text;
  answer json;
begin
  perform vital_private.check_platform_kind(what);
  perform vital_private.check_given('since', since::text);
  perform vital_private.check_given('until', until::text);
  perform vital_private.check_times(since, until);
  select min(n.name) into unknown
  from unnest(named) as n (name)
  where n.name not in (select d.name from vital_private.platform_dimensions(what) as d);
  if unknown is not null then
    raise exception 'Of % there is no dimension %.', what, quote_literal(unknown)
      using errcode = '22023', hint = (select string_agg(d.name, ', ') from vital_private.platform_dimensions(what) as d);
  end if;
  select coalesce(bool_and(d.by_minutes), true), coalesce(bool_and(d.by_days), true) into knows_minutes, knows_days
  from vital_private.platform_dimensions(what) as d
  where d.name = any(named);
  -- Who has nothing but rows of their own is answered from these, or from their own sums by day.
  knows_minutes := knows_minutes and not own_alone
    and date_bin('5 minutes', since, '2000-01-01 00:00:00+00') = since and date_bin('5 minutes', until, '2000-01-01 00:00:00+00') = until;
  knows_days := knows_days and (times = '{}' or (zone = 'UTC' and 'hour' <> all(times)));
  source := case
    when what = 'events' and knows_minutes then 'minutes'
    when knows_days then 'days'
    when knows_minutes then 'minutes'
    else 'rows'
  end;
  if whole and source <> 'minutes' and (
    (since < least(first_day, until) and since < kept_since) or (until > greatest(last_day, since) and last_day < kept_since)
  ) then
    raise exception 'The rows before % are gone, and with them what parts of days came to. Ask for whole days (UTC) there.', kept_since
      using errcode = '22VT1';
  end if;
  keys := coalesce((
    select string_agg(format('r.%I, ', d.of_row), '') from vital_private.platform_dimensions(what) as d where d.name = any(named)
  ), '');
  -- What a row of each source says of the measures; what the sums by day do not know, their rows at both ends do not say either.
  if what = 'events' then
    measured := '{events, failed_events, valued_events, value}';
    sums_table := case source when 'minutes' then 'platform_events_5min' else 'platform_events_daily_sessions' end;
    rows_table := case source when 'minutes' then 'vital_private.own_events($1)' else 'public.platform_events' end;
    of_sums := case source
      when 'minutes' then 'r.events, r.failed_events, r.valued_events, r.value' else 'r.events, null::bigint, null::bigint, null::numeric'
    end;
    of_rows := case source
      when 'days' then '1::bigint, null::bigint, null::bigint, null::numeric'
      else '1::bigint, vital_private.event_failed(r.properties)::integer::bigint, num_nonnulls(r.value)::bigint, r.value'
    end;
  else
    measured := '{costs, unpriced_costs, quantity, cost_usd}';
    sums_table := case source when 'minutes' then 'tenant_costs_5min' else 'tenant_costs_daily' end;
    rows_table := case source when 'minutes' then 'vital_private.own_costs($1)' else 'public.tenant_cost_events' end;
    of_sums := 'r.costs, r.unpriced_costs, ' || case source when 'minutes' then 'null::numeric' else 'r.quantity' end || ', r.cost_usd';
    of_rows := '1::bigint, num_nulls(r.cost_usd)::bigint, ' || case source when 'minutes' then 'null::numeric' else 'r.quantity' end || ', r.cost_usd';
  end if;
  rows_query := format('select %sr.occurred_at, %s from %s as r where %%s %s', keys, of_rows, rows_table, mine);
  source_query := case source
    when 'minutes' then concat(
      format('select %sr.bucket, %s from public.%I as r where r.bucket >= $1 and r.bucket < $2', keys, of_sums, sums_table),
      case when current_user = 'authenticated' then ' union all ' || format(rows_query, 'r.occurred_at < $2') end
    )
    when 'days' then concat(
      format(
        $days$
          select %sr.day::timestamp at time zone 'UTC', %s
          from public.%I as r
          where r.day >= ($3 at time zone 'UTC')::date and r.day < ($4 at time zone 'UTC')::date %s
        $days$, keys, of_sums, sums_table, mine
      ),
      case when since < first_day then ' union all ' || format(rows_query, 'r.occurred_at >= $1 and r.occurred_at < least($3, $2)') end,
      -- Where both instants are in one day, the part above holds all of it.
      case when until > last_day then ' union all ' || format(rows_query, 'r.occurred_at >= $4 and r.occurred_at < $2') end
    )
    else format(rows_query, 'r.occurred_at >= $1 and r.occurred_at < $2')
  end;
  execute format(
    $query$
      with groups as materialized (
        select %1$s %2$s
        from (%3$s) as r (%10$sat, %11$s)
        where %4$s
        %5$s
      ),

      picked as (
        select g.*, row_number() over (order by %6$s) as place
        from groups as g
        where g.%7$I <> 0
        order by place
        limit $5
      )

      select json_build_object(
        'source', $6, 'fresh_at', now(),
        'groups', (select count(*) from groups as g where g.%7$I <> 0),
        'total', (select json_build_object(%8$s) from groups as t),
        'rows', (select coalesce(json_agg(json_build_object(%9$s) order by p.place), '[]') from picked as p)
      )
    $query$,
    coalesce((
      select string_agg(format('%s as %I, ', coalesce(
        case d.name
          when 'hour' then format('date_trunc(''hour'', r.at, %L)', zone)
          else case when d.name = any(times) then format('date_trunc(%L, r.at at time zone %L)::date', d.name, zone) end
        end,
        (select format('r.%I', p.of_row) from vital_private.platform_dimensions(what) as p where p.name = d.name)
      ), 'd_' || d.name), '' order by d.place)
      from unnest(dimensions) with ordinality as d (name, place)
    ), ''),
    (select string_agg(format('sum(r.%1$I) as %1$I', m), ', ') from unnest(measured) as m),
    source_query,
    vital_private.platform_filter(what, wanted, of_sums => true),
    coalesce('group by ' || nullif((select string_agg(n::text, ', ') from generate_series(1, cardinality(dimensions)) as n), ''), ''),
    concat_ws(
      ', ',
      nullif((select string_agg(format('g.%I', 'd_' || t), ', ') from unnest(times) as t), ''),
      case what when 'events' then 'g.events desc' else 'g.cost_usd desc nulls last, g.costs desc' end,
      nullif((select string_agg(format('g.%I', 'd_' || d), ', ') from unnest(dimensions) as d), '')
    ),
    measured[1],
    (
      select string_agg(case
        when m = 'cost_usd' then format('%1$L, case when sum(t.costs) > sum(t.unpriced_costs) then trim_scale(sum(t.%1$I))::text end', m)
        when m in ('value', 'quantity') then format('%1$L, trim_scale(sum(t.%1$I))::text', m)
        when m in ('events', 'costs') then format('%1$L, coalesce(sum(t.%1$I), 0)', m)
        else format('%1$L, sum(t.%1$I)', m)
      end, ', ')
      from unnest(measured) as m
    ),
    concat_ws(
      ', ',
      (select string_agg(format('%L, p.%I', d, 'd_' || d), ', ') from unnest(dimensions) as d),
      (
        select string_agg(case
          -- Sums hold 0 for what has no price.
          when m = 'cost_usd' then format('%1$L, case when p.costs > p.unpriced_costs then trim_scale(p.%1$I)::text end', m)
          when m in ('value', 'quantity') then format('%1$L, trim_scale(p.%1$I)::text', m)
          else format('%1$L, p.%1$I', m)
        end, ', ')
        from unnest(measured) as m
      )
    ),
    replace(keys, 'r.', ''),
    array_to_string(measured, ', ')
  ) into answer using since, until, first_day, last_day, least(vital_private.rows_wanted(max_rows, 1000), 100000), source;
  return answer;
end;
$$;

comment on function public.platform_explore_v1(text, timestamptz, timestamptz, text[], text, text, integer, boolean) is
'What events or other costs of a time come to by some dimensions, from the smallest sums that know them.';

select vital_private.restrict_functions(
  api => '{platform_rows_v1, platform_explore_v1}',
  helpers => '{platform_dimensions, platform_filter, has_own_alone, check_platform_kind}'
);
