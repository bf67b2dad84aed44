-- Sums of calls, kept by the statement that changes the calls: whoever inserts, reprices or deletes calls, and in whichever way, at
-- every commit the sums are those of the rows.
--
-- Five tables, each with every call in it once (the last one: every call of a panel or workflow), so that each adds up to the
-- same bill. Their grains were chosen by measuring how many rows they hold for a hundred calls (docs/decisions/0022):
--   usage_aggregations_daily_totals   day, organization, service                                      0.9
--   usage_aggregations_hourly         hour, organization, service                                     5
--   usage_aggregations_daily_users    day, organization, user, service                                8
--   usage_aggregations_daily          day, organization, service, agent, tier, provider, model        21
--   usage_aggregations_daily_parts    day, organization, service, panel, seat, workflow, step, agent  17
-- Hours and days are those of UTC.

-- What calls come to. Each is a plain sum, so that sums of these are right too, over longer times and larger circles.
create table vital_private.usage_measures (
  calls bigint not null default 0,
  cached_calls bigint not null default 0,
  failed_calls bigint not null default 0,
  blocked_calls bigint not null default 0,
  unpriced_calls bigint not null default 0,
  estimated_calls bigint not null default 0,
  timed_calls bigint not null default 0,
  prompt_tokens numeric not null default 0,
  completion_tokens numeric not null default 0,
  total_tokens numeric not null default 0,
  cache_read_tokens numeric not null default 0,
  cache_write_tokens numeric not null default 0,
  reasoning_tokens numeric not null default 0,
  audio_tokens numeric not null default 0,
  input_cost numeric not null default 0,
  output_cost numeric not null default 0,
  total_cost numeric not null default 0,
  potential_cost numeric not null default 0,
  latency_us numeric not null default 0,
  latency_histogram numeric not null default 0
);

comment on table vital_private.usage_measures is 'The columns that all aggregations share. It holds no rows.';
comment on column vital_private.usage_measures.cached_calls is 'Calls that LangChain answered from its own cache.';
comment on column vital_private.usage_measures.failed_calls is 'Calls whose status is not ok; blocked ones are among them.';
comment on column vital_private.usage_measures.unpriced_calls is 'Calls without a known price: they are in no cost.';
comment on column vital_private.usage_measures.estimated_calls is 'Calls whose tokens nobody reported.';
comment on column vital_private.usage_measures.timed_calls is 'Calls with a latency.';
comment on column vital_private.usage_measures.total_cost is 'US dollars, of the calls with a price.';
comment on column vital_private.usage_measures.potential_cost is 'US dollars that these calls would have cost without any cache.';
comment on column vital_private.usage_measures.latency_us is 'The sum of the latencies, in microseconds.';
comment on column vital_private.usage_measures.latency_histogram is 'Add them up with sum(), then ask latency_percentile().';

alter table vital_private.usage_measures enable row level security;

create table public.usage_aggregations_hourly (
  hour_start timestamptz not null,
  organization_id text,
  service_type text,
  like vital_private.usage_measures including all
) with (fillfactor = 70);

create table public.usage_aggregations_daily_totals (
  day date not null,
  organization_id text,
  service_type text,
  like vital_private.usage_measures including all
) with (fillfactor = 70);

create table public.usage_aggregations_daily (
  day date not null,
  organization_id text,
  service_type text,
  agent_id text,
  agent_name text,
  agent_tier text,
  provider text,
  model text,
  like vital_private.usage_measures including all
) with (fillfactor = 70);

create table public.usage_aggregations_daily_users (
  day date not null,
  organization_id text,
  user_id text,
  service_type text,
  like vital_private.usage_measures including all
) with (fillfactor = 70);

create table public.usage_aggregations_daily_parts (
  day date not null,
  organization_id text,
  service_type text,
  panel_id text,
  panel_position smallint,
  workflow_id text,
  workflow_step text,
  workflow_step_name text,
  agent_id text,
  agent_name text,
  like vital_private.usage_measures including all
) with (fillfactor = 70);

comment on table public.usage_aggregations_hourly is 'Calls by hour (UTC), organization and service.';
comment on table public.usage_aggregations_daily_totals is 'Calls by day (UTC), organization and service.';
comment on table public.usage_aggregations_daily is 'Calls by day (UTC), organization, service, agent, tier, provider and model.';
comment on table public.usage_aggregations_daily_users is 'Calls by day (UTC), organization, user and service.';
comment on table public.usage_aggregations_daily_parts is 'Calls of panels and workflows by day (UTC), seat or step, and agent.';
comment on column public.usage_aggregations_daily.agent_name is 'A name that the agent had on that day.';

create unique index usage_aggregations_hourly_key on public.usage_aggregations_hourly
(organization_id, hour_start, service_type) nulls not distinct;
create unique index usage_aggregations_daily_totals_key on public.usage_aggregations_daily_totals
(organization_id, day, service_type) nulls not distinct;
create unique index usage_aggregations_daily_key on public.usage_aggregations_daily
(organization_id, day, service_type, agent_id, agent_tier, provider, model) nulls not distinct;
create unique index usage_aggregations_daily_users_key on public.usage_aggregations_daily_users
(organization_id, day, user_id, service_type) nulls not distinct;
create unique index usage_aggregations_daily_parts_key on public.usage_aggregations_daily_parts
(organization_id, day, service_type, panel_id, panel_position, workflow_id, workflow_step, agent_id) nulls not distinct;

-- For reports over all organizations: rows are written in the order of time, which is all that such an index needs.
create index usage_aggregations_hourly_time on public.usage_aggregations_hourly using brin (hour_start);
create index usage_aggregations_daily_totals_time on public.usage_aggregations_daily_totals using brin (day);
create index usage_aggregations_daily_time on public.usage_aggregations_daily using brin (day);
create index usage_aggregations_daily_users_time on public.usage_aggregations_daily_users using brin (day);
create index usage_aggregations_daily_parts_time on public.usage_aggregations_daily_parts using brin (day);
create index usage_aggregations_daily_users_user on public.usage_aggregations_daily_users (user_id, day);

do $$
declare
  name text;
begin
  foreach name in array array['hourly', 'daily_totals', 'daily', 'daily_users', 'daily_parts'] loop
    name := 'usage_aggregations_' || name;
    execute format('alter table public.%I enable row level security', name);
    execute format('revoke all on public.%I from anon, authenticated, service_role', name);
    execute format('grant select on public.%I to authenticated, service_role', name);
    execute format(
      'create policy "Organization admins see their organization''s usage" on public.%I
      for select to authenticated
      using (organization_id = any((select vital_private.administered_organizations())::text[]))', name
    );
    execute format('create policy "The service role sees all usage" on public.%I for select to service_role using (true)', name);
  end loop;
end;
$$;

create policy "Users see their own usage" on public.usage_aggregations_daily_users
for select to authenticated
using (user_id = (select auth.jwt()) ->> 'sub');

-- The histogram: bucket n counts latencies above 1.1^(n - 101) and up to 1.1^(n - 100) ms. What is told by the middle of its bucket
-- is off by at most (1.1 - 1) / (1.1 + 1) = 4.8 %. All counts stand in one number, twelve digits each: adding two such
-- numbers adds all their counts, at the price of an addition. (Written without SET, so that PostgreSQL may inline it.)
create function vital_private.latency_bucket(latency_ms double precision) returns integer
language sql
immutable
parallel safe
return case when latency_ms <= 7.25e-5 then 0 else least(ceil(ln(latency_ms) / ln(1.1::double precision))::integer + 100, 400) end;

-- Percentiles of a histogram, or of the sum of several, in milliseconds; NULL where it is empty. Between two ranks it interpolates
-- as percentile_cont does. Most buckets are empty, so it begins with the first call.
create function public.latency_percentiles(histogram numeric, fractions double precision[]) returns double precision[]
language plpgsql
immutable
parallel safe
set search_path = ''
as $$
declare
  empty integer := (4812 - min_scale(histogram * 1e-4812)) / 12;
  digits text := trunc(histogram * ('1e-' || 12 * empty)::numeric)::text;
  buckets integer := (length(digits) + 11) / 12;
  counts bigint[];
  passed bigint := 0;
  total bigint := 0;
  fraction double precision;
  rank double precision;
  below integer;
  above integer;
  answer double precision[] := '{}';
begin
  if coalesce(histogram, 0) <= 0 then
    return null;
  end if;
  digits := lpad(digits, 12 * buckets, '0');
  counts := string_to_array(rtrim(regexp_replace(digits, '(.{12})', '\1,', 'g'), ','), ',');
  foreach passed in array counts loop
    total := total + passed;
  end loop;
  foreach fraction in array fractions loop
    rank := fraction * (total - 1);
    below := buckets;
    passed := counts[buckets];
    while passed <= floor(rank) loop
      below := below - 1;
      passed := passed + counts[below];
    end loop;
    above := below;
    while passed <= ceil(rank) loop
      above := above - 1;
      passed := passed + counts[above];
    end loop;
    below := empty + buckets - below;
    above := empty + buckets - above;
    answer := answer || (
      vital_private.latency_of(below) + (vital_private.latency_of(above) - vital_private.latency_of(below)) * (rank - floor(rank))
    );
  end loop;
  return answer;
end;
$$;

-- The middle of a bucket, in milliseconds: as far from its lower end as from its upper one, in percent.
create function vital_private.latency_of(bucket integer) returns double precision
language sql
immutable
parallel safe
return power(1.1::double precision, bucket - 100) * 2 / 2.1;

create function public.latency_percentile(histogram numeric, fraction double precision) returns double precision
language sql
immutable
parallel safe
set search_path = ''
as $$
  select (public.latency_percentiles(histogram, array[fraction]))[1]
$$;

comment on function public.latency_percentile(numeric, double precision) is
'A percentile in milliseconds of a latency_histogram or of the sum of several: latency_percentile(sum(latency_histogram), 0.95).';

-- One step between calls and the tables: the sums of many calls, by all that the tables of hours, days and users tell apart.
create type vital_private.usage as (
  hour_start timestamptz,
  day date,
  organization_id text,
  user_id text,
  service_type text,
  agent_id text,
  agent_name text,
  agent_tier text,
  provider text,
  model text,
  calls bigint,
  cached_calls bigint,
  failed_calls bigint,
  blocked_calls bigint,
  unpriced_calls bigint,
  estimated_calls bigint,
  timed_calls bigint,
  prompt_tokens numeric,
  completion_tokens numeric,
  total_tokens numeric,
  cache_read_tokens numeric,
  cache_write_tokens numeric,
  reasoning_tokens numeric,
  audio_tokens numeric,
  input_cost numeric,
  output_cost numeric,
  total_cost numeric,
  potential_cost numeric,
  latency_us numeric,
  latency_histogram numeric
);

-- sum() makes room for millions of numbers before it adds the first one, and a histogram is hundreds of digits long. Groups of a batch
-- are small, mostly of one call, whose numbers these take as they are.
create aggregate vital_private.total (numeric)(
  sfunc = numeric_add, stype = numeric, combinefunc = numeric_add, parallel = safe
);
create aggregate vital_private.total (bigint)(
  sfunc = int8pl, stype = bigint, combinefunc = int8pl, parallel = safe
);

-- The functions below differ only in where calls come from and which table they are added to, so they are written by helpers. Those
-- of no use to later functions are dropped at the end of the next migration.

-- The columns that add up.
create function vital_private.measures() returns text[]
language sql
stable
set search_path = ''
as $$
  select array_agg(attname::text order by attnum)
  from pg_catalog.pg_attribute
  where attrelid = 'vital_private.usage_measures'::regclass and attnum > 0
$$;

-- The text of a query that measures calls: one row a call, with the columns of vital_private.usage and those of the parts. `source`
-- is a table or query of calls; where they are `signed`, its column `sign` says whether to add a call (1) or take it away (-1).
-- (date_bin finds an hour of UTC ten times faster than date_trunc, which asks the time zone.)
create function vital_private.measured(source text, signed boolean) returns text
language sql
as $$
  select replace(format($query$(
    select
      date_bin('1 hour', created_at, '2000-01-01 00:00:00+00') as hour_start, (created_at at time zone 'UTC')::date as day,
      organization_id, user_id, service_type, agent_id, agent_name, agent_tier, provider, model,
      panel_id, panel_position, workflow_id, workflow_step, workflow_step_name,
      sign * calls::bigint as calls,
      case when cache_hit then sign * calls::bigint else 0 end as cached_calls,
      case when status = 'ok' then 0 else sign * calls::bigint end as failed_calls,
      case when status = 'blocked' then sign * calls::bigint else 0 end as blocked_calls,
      case when priced then 0 else sign * calls::bigint end as unpriced_calls,
      case when usage_estimated then sign * calls::bigint else 0 end as estimated_calls,
      case when latency_ms is null then 0 else sign * 1::bigint end as timed_calls,
      sign * prompt_tokens::numeric as prompt_tokens,
      sign * completion_tokens::numeric as completion_tokens,
      sign * total_tokens::numeric as total_tokens,
      sign * cache_read_tokens::numeric as cache_read_tokens,
      sign * cache_write_tokens::numeric as cache_write_tokens,
      sign * reasoning_tokens::numeric as reasoning_tokens,
      sign * audio_tokens::numeric as audio_tokens,
      sign * coalesce(input_cost, 0) as input_cost,
      sign * coalesce(output_cost, 0) as output_cost,
      sign * coalesce(total_cost, 0) as total_cost,
      sign * coalesce(potential_cost, 0) as potential_cost,
      case when latency_ms is null then 0 else sign * (least(latency_ms, 1e15) * 1000)::bigint::numeric end as latency_us,
      case
        when latency_ms is not null then sign * ('1e' || 12 * vital_private.latency_bucket(latency_ms))::numeric
        else 0
      end as latency_histogram
    from %s as source
  )$query$, source), 'sign * ', case when signed then 'sign * ' else '' end)
$$;

-- The text of a statement that adds measured calls, or sums of them, to a table. `keys` are its key columns, in the order of its index; `names` those
-- of which any value will do. Rows are added in the order of the key, so that two writers wait for each other in one order.
create function vital_private.posting(target text, keys text[], names text[], source text, condition text default 'true')
returns text
language sql
stable
set search_path = ''
as $$
  select format(
    'insert into public.%I as known (%s)
    select %s
    from %s as u where %s group by %s order by %s
    on conflict (%s) do update set %s',
    target,
    array_to_string(keys || names || vital_private.measures(), ', '),
    array_to_string(
      array(select 'u.' || k from unnest(keys) as k)
      || array(select format('max(u.%I)', n) from unnest(names) as n)
      || array(select format('vital_private.total(u.%I)', m) from unnest(vital_private.measures()) as m),
      ', '
    ),
    source,
    condition,
    array_to_string(array(select generate_series(1, cardinality(keys))), ', '),
    -- Any order will do, if it is everybody's; this one is the cheapest to compare.
    array_to_string(
      array(
        select case when k in ('day', 'hour_start', 'panel_position') then ordinality::text else format('u.%I collate "C"', k) end
        from unnest(keys) with ordinality as k
      ), ', '
    ),
    array_to_string(keys, ', '),
    array_to_string(
      array(select format('%1$I = coalesce(excluded.%1$I, known.%1$I)', n) from unnest(names) as n)
      || array(select format('%1$I = known.%1$I + excluded.%1$I', m) from unnest(vital_private.measures()) as m),
      ', '
    )
  )
$$;

-- Which tables there are: their keys in the order of their indexes, names, and which calls they hold.
create function vital_private.aggregations() returns table (target text, keys text[], names text[], condition text)
language sql
as $$
  values
  ('usage_aggregations_hourly', '{organization_id, hour_start, service_type}'::text[], '{}'::text[], 'true'),
  ('usage_aggregations_daily_totals', '{organization_id, day, service_type}', '{}', 'true'),
  (
    'usage_aggregations_daily', '{organization_id, day, service_type, agent_id, agent_tier, provider, model}',
    '{agent_name}', 'true'
  ),
  ('usage_aggregations_daily_users', '{organization_id, day, user_id, service_type}', '{}', 'true'),
  (
    'usage_aggregations_daily_parts',
    '{organization_id, day, service_type, panel_id, panel_position, workflow_id, workflow_step, agent_id}',
    '{agent_name, workflow_step_name}', 'coalesce(u.panel_id, u.workflow_id, u.workflow_step) is not null'
  )
$$;

-- Whoever adds to a day holds this lock shared until it commits; who counts a day anew holds it alone.
create function vital_private.lock_usage(day date, alone boolean) returns void
language plpgsql
set search_path = ''
as $$
begin
  if alone then
    perform pg_catalog.pg_advisory_xact_lock(hashtext('vital_tracking.usage'), day - date '2000-01-01');
  else
    perform pg_catalog.pg_advisory_xact_lock_shared(hashtext('vital_tracking.usage'), day - date '2000-01-01');
  end if;
end;
$$;

-- One trigger for each kind of statement. Folding the calls first, by everything but the parts, makes the four tables of no parts
-- cheap: a conversation's turns become one row. Each posts in the same order of tables.
do $do$
declare
  sources constant jsonb := jsonb_build_object(
    'insert', 'added',
    'update', '(select 1 as sign, c.* from added as c union all select -1, c.* from removed as c)',
    'delete', '(select -1 as sign, c.* from removed as c)'
  );
  tables constant jsonb := jsonb_build_object(
    'insert', 'new table as added', 'update', 'old table as removed new table as added', 'delete', 'old table as removed'
  );
  folded constant text[] := '{hour_start, day, organization_id, user_id, service_type, agent_id, agent_name, agent_tier, provider, model}';
  operation text;
  posts text;
begin
  foreach operation in array array['insert', 'update', 'delete'] loop
    select string_agg(
      vital_private.posting(
        target, keys, names,
        case
          when condition = 'true' then 'unnest(folded)'
          else vital_private.measured(sources ->> operation, operation <> 'insert')
        end,
        condition
      ) || ';', E'\n  ' order by target desc
    )
    into posts
    from vital_private.aggregations();
    execute format(
      $function$
create function vital_private.aggregate_usage_on_%1$s() returns trigger
language plpgsql
security definer
set search_path = ''
as $body$
declare
  folded vital_private.usage[];
begin
  %2$s
  select array_agg(row(%3$s, %4$s)::vital_private.usage) into folded
  from (select %3$s, %5$s from %6$s as u group by %3$s) as u;
  if folded is null then
    return null;
  end if;
  perform vital_private.lock_usage(d.day, alone => false)
  from (select distinct u.day from unnest(folded) as u order by 1) as d;
  %7$s
  return null;
end;
$body$
      $function$,
      operation,
      case operation
        when 'delete' then
          E'if current_setting(''vital_tracking.keep_sums'', true) = ''on'' then\n    return null;\n  end if;'
        else ''
      end,
      array_to_string(folded, ', '),
      array_to_string(vital_private.measures(), ', '),
      array_to_string(array(select format('vital_private.total(u.%1$I) as %1$I', m) from unnest(vital_private.measures()) as m), ', '),
      vital_private.measured(sources ->> operation, operation <> 'insert'),
      posts
    );
    execute format('revoke execute on function vital_private.aggregate_usage_on_%s() from public', operation);
    execute format(
      'create trigger aggregate_usage_on_%1$s after %1$s on public.token_usage_logs referencing %2$s
      for each statement execute function vital_private.aggregate_usage_on_%1$s()', operation, tables ->> operation
    );
  end loop;
end;
$do$;

revoke execute on function vital_private.measures() from public;
revoke execute on function vital_private.posting(text, text[], text[], text, text) from public;
revoke execute on function vital_private.total(numeric) from public;
revoke execute on function vital_private.total(bigint) from public;
revoke execute on function vital_private.latency_bucket(double precision) from public;
revoke execute on function vital_private.latency_of(integer) from public;
revoke execute on function vital_private.lock_usage(date, boolean) from public;
revoke execute on function public.latency_percentiles(numeric, double precision[]) from public, anon;
revoke execute on function public.latency_percentile(numeric, double precision) from public, anon;
grant execute on function public.latency_percentiles(numeric, double precision[]) to authenticated, service_role;
grant execute on function public.latency_percentile(numeric, double precision) to authenticated, service_role;
grant execute on function vital_private.latency_of(integer) to authenticated, service_role;
