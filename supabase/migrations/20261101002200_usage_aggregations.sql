-- Sums of calls. They are kept by the statement that changes the calls, whoever inserts, reprices or deletes them and in whichever way,
-- so at every commit the sums are those of the rows (docs/decisions/0023).
--
-- Five tables, each of which holds every call once, so each adds up to the same bill. Their grains were chosen by measuring how many
-- rows they hold for a hundred calls (docs/decisions/0022):
--   usage_aggregations_daily_totals   day, organization, service                                                                   0.9
--   usage_aggregations_hourly_totals  hour, organization, service                                                                  5
--   usage_aggregations_daily_users    day, organization, user, service, call type                                                  8
--   usage_aggregations_daily_agents   day, organization, service, agent, tier, framework, provider, model, message type, call type 30
--   usage_aggregations_daily_parts    day, organization, service, panel, seat, workflow, step, agent                               20
-- The last of these figures is reckoned from one that was measured of calls with a seat or step alone.
-- Hours and days are those of UTC. The columns of measures are added by vital_private.build_usage_aggregations() below.

create table public.usage_aggregations_hourly_totals (
  hour_start timestamptz not null,
  organization_id text,
  service_type text
) with (fillfactor = 70);

create table public.usage_aggregations_daily_totals (
  day date not null,
  organization_id text,
  service_type text
) with (fillfactor = 70);

create table public.usage_aggregations_daily_agents (
  day date not null,
  organization_id text,
  service_type text,
  agent_id text,
  agent_name text,
  agent_tier text,
  framework text,
  provider text,
  model text,
  message_type text,
  call_type text
) with (fillfactor = 70);

create table public.usage_aggregations_daily_users (
  day date not null,
  organization_id text,
  user_id text,
  service_type text,
  call_type text
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
  agent_name text
) with (fillfactor = 70);

comment on table public.usage_aggregations_hourly_totals is 'Calls by hour (UTC), organization and service.';
comment on table public.usage_aggregations_daily_totals is 'Calls by day (UTC), organization and service.';
comment on table public.usage_aggregations_daily_agents is
'Calls by day (UTC), organization, service, agent, tier, framework, provider, model, message type, call type.';
comment on table public.usage_aggregations_daily_users is 'Calls by day (UTC), organization, user, service and call type.';
comment on table public.usage_aggregations_daily_parts is 'Calls by day (UTC), service, seat of a panel or step of a workflow, and agent.';
comment on column public.usage_aggregations_daily_agents.agent_name is 'A name that the agent had on that day.';

-- Whatever no report looks up is compared byte by byte, which is the cheapest order.
create unique index usage_aggregations_hourly_totals_key on public.usage_aggregations_hourly_totals
(organization_id, hour_start, service_type) nulls not distinct;
create unique index usage_aggregations_daily_totals_key on public.usage_aggregations_daily_totals
(organization_id, day, service_type) nulls not distinct;
create unique index usage_aggregations_daily_agents_key on public.usage_aggregations_daily_agents
(
  organization_id, day, service_type, agent_id collate "C", agent_tier collate "C", framework collate "C",
  provider collate "C", model collate "C", message_type collate "C", call_type collate "C"
) nulls not distinct;
create unique index usage_aggregations_daily_users_key on public.usage_aggregations_daily_users
(organization_id, day, user_id, service_type, call_type collate "C") nulls not distinct;
create unique index usage_aggregations_daily_parts_key on public.usage_aggregations_daily_parts
(
  organization_id, day, service_type, panel_id collate "C", panel_position, workflow_id collate "C",
  workflow_step collate "C", agent_id collate "C"
) nulls not distinct;

-- For reports over all organizations, and for views of the newest days, which are read in the order of this index until there are enough.
create index usage_aggregations_hourly_totals_time on public.usage_aggregations_hourly_totals (hour_start, organization_id);
create index usage_aggregations_daily_totals_time on public.usage_aggregations_daily_totals (day, organization_id);
create index usage_aggregations_daily_agents_time on public.usage_aggregations_daily_agents (day, organization_id);
create index usage_aggregations_daily_users_time on public.usage_aggregations_daily_users (day, organization_id);
create index usage_aggregations_daily_parts_time on public.usage_aggregations_daily_parts (day, organization_id);
create index usage_aggregations_daily_users_user on public.usage_aggregations_daily_users (user_id, day);

-- The tables for those who fill them: the key in the order of its index, the second column being the bucket of time; and the names, of
-- which any value of the group will do.
create table vital_private.usage_aggregations (
  position smallint not null unique,
  target text not null primary key,
  keys text[] not null,
  names text[] not null default '{}'
);

insert into vital_private.usage_aggregations (position, target, keys, names) values
(1, 'usage_aggregations_hourly_totals', '{organization_id, hour_start, service_type}', '{}'),
(2, 'usage_aggregations_daily_totals', '{organization_id, day, service_type}', '{}'),
(
  3, 'usage_aggregations_daily_agents',
  '{organization_id, day, service_type, agent_id, agent_tier, framework, provider, model, message_type, call_type}', '{agent_name}'
),
(4, 'usage_aggregations_daily_users', '{organization_id, day, user_id, service_type, call_type}', '{}'),
(
  5, 'usage_aggregations_daily_parts',
  '{organization_id, day, service_type, panel_id, panel_position, workflow_id, workflow_step, agent_id}',
  '{agent_name, workflow_step_name}'
);

select vital_private.restrict_relation('vital_private.usage_aggregations');

do $$
declare
  aggregation text;
begin
  for aggregation in select format('public.%I', a.target) from vital_private.usage_aggregations as a loop
    perform vital_private.restrict_relation(aggregation, readers => '{authenticated, service_role}');
    execute format(
      'create policy "Organization admins see their organization''s usage" on %s
      for select to authenticated
      using (organization_id = any((select vital_private.administered_organizations())::text[]))', aggregation
    );
  end loop;
end;
$$;

create policy "Users see their own usage" on public.usage_aggregations_daily_users
for select to authenticated
using (user_id = (select auth.jwt()) ->> 'sub');

-- Whoever adds to a day holds this lock shared until the commit; whoever counts a day again holds it alone.
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

-- The measures that aggregations keep.
create function vital_private.kept_measures() returns text[]
language sql
stable
set search_path = ''
as $$
  select array_agg(m.name order by m.position) from vital_private.usage_measures as m where m.of_call is not null
$$;

-- The text of a query that measures calls: a row for each call, with all columns by which aggregations group, and the measures. `source`
-- is a table or query of calls. If it is `signed`, its column `sign` says whether a call is added (1) or taken away (-1). The types are
-- those of the aggregations; where the calls are `small`, together, tokens and times stay bigint, which is added up faster. (date_bin finds
-- an hour of UTC ten times faster than date_trunc, which asks the time zone.)
create function vital_private.measured(source text, signed boolean default false, small boolean default false) returns text
language sql
stable
set search_path = ''
as $$
  select format(
    $query$(
      select
        date_bin('1 hour', call.created_at, '2000-01-01 00:00:00+00') as hour_start, (call.created_at at time zone 'UTC')::date as day,
        call.organization_id, call.user_id, call.service_type, call.agent_id, call.agent_name, call.agent_tier, call.framework,
        call.provider, call.model, call.message_type, call.call_type, call.panel_id, call.panel_position, call.workflow_id, call.workflow_step,
        call.workflow_step_name, %s
      from %s as call
    )$query$,
    string_agg(
      format(
        '%s(%s)%s as %I', case when signed then 'call.sign * ' end, m.of_call,
        case when not small and m.unit in ('tokens', 'us') then '::numeric' end, m.name
      ), ', ' order by m.position
    ),
    source
  )
  from vital_private.usage_measures as m
  where m.of_call is not null
$$;

-- The text of a statement that adds measured calls, or sums of them, to an aggregation, by an aggregate function. Rows are added in the
-- order of the key, so that two writers wait for each other in one order.
create function vital_private.adding_to(
  aggregation vital_private.usage_aggregations, source text, adding text default 'vital_private.total'
) returns text
language sql
stable
set search_path = ''
as $$
  select format(
    'insert into public.%I as known (%s)
    select %s
    from %s as u group by %s order by %s
    on conflict (%s) do update set %s',
    aggregation.target,
    array_to_string(aggregation.keys || aggregation.names || m.measures, ', '),
    array_to_string(
      array(select 'u.' || k from unnest(aggregation.keys) as k)
      || array(select format('max(u.%I)', n) from unnest(aggregation.names) as n)
      || array(select format('%s(u.%I)', adding, k) from unnest(m.measures) as k),
      ', '
    ),
    source,
    array_to_string(array(select generate_series(1, cardinality(aggregation.keys))), ', '),
    -- Any order will do if everybody uses it; this one is the cheapest to compare.
    array_to_string(
      array(
        select case when k in ('day', 'hour_start', 'panel_position') then ordinality::text else format('u.%I collate "C"', k) end
        from unnest(aggregation.keys) with ordinality as k
      ), ', '
    ),
    array_to_string(aggregation.keys, ', '),
    array_to_string(
      array(select format('%1$I = coalesce(excluded.%1$I, known.%1$I)', n) from unnest(aggregation.names) as n)
      || array(select format('%1$I = known.%1$I + excluded.%1$I', k) from unnest(m.measures) as k),
      ', '
    )
  )
  from (select vital_private.kept_measures() as measures) as m
$$;

-- The text of a statement that adds measured calls to all aggregations, after they were folded by these columns.
create function vital_private.adding_to_all(folded text[], source text) returns text
language sql
stable
set search_path = ''
as $$
  select format(
    'with folded as materialized (select %1$s, %2$s from %3$s as u group by %1$s), %4$s %5$s',
    array_to_string(array(select format('u.%I', c) from unnest(folded) as c), ', '),
    array_to_string(array(select format('vital_private.total(u.%1$I) as %1$I', m) from unnest(vital_private.kept_measures()) as m), ', '),
    source,
    (
      select string_agg(format('%s as (%s)', substr(a.target, 20), vital_private.adding_to(a, 'folded')), ', ' order by a.position)
      from vital_private.usage_aggregations as a
      where a.position > 1
    ),
    (select vital_private.adding_to(a, 'folded') from vital_private.usage_aggregations as a where a.position = 1)
  )
$$;

-- The reader's own calls that none of the sums which they may read holds: those outside the organizations that they administer, from one
-- instant on and before another. None for whoever reads all sums. (As a function, so that views of sums need not plan a scan of
-- every month for it.)
create function vital_private.own_calls(since timestamptz default '-infinity', until timestamptz default 'infinity')
returns setof public.token_usage_logs
language plpgsql
stable
set search_path = ''
as $$
declare
  subject constant text := vital_private.subject();
  administered constant text[] := vital_private.administered_organizations();
begin
  if current_user = 'authenticated' then
    return query
    select c.* from public.token_usage_logs as c
    where c.user_id = subject and c.created_at >= since and c.created_at < until
      and (c.organization_id is null or c.organization_id <> all(administered));
  end if;
end;
$$;

-- Bring everything that keeps the sums in line with usage_measures and usage_aggregations: the columns of the aggregations, the view of
-- measured calls, the views of what one may see, and the triggers. Call it after a row was added to usage_measures; days from before are
-- counted again with queue_backfill_v1. What counts again and compares (the next migration) and the reports read the catalogue each time.
create function vital_private.build_usage_aggregations() returns void
language plpgsql
set search_path = ''
as $build$
declare
  sources constant jsonb := jsonb_build_object(
    'insert', 'added',
    'update', '(select 1 as sign, c.* from added as c union all select -1, c.* from removed as c)',
    'delete', '(select -1 as sign, c.* from removed as c)'
  );
  tables constant jsonb := jsonb_build_object(
    'insert', 'new table as added', 'update', 'old table as removed new table as added', 'delete', 'old table as removed'
  );
  -- Everything by which the aggregations group, and the names.
  folded constant text[] := array(
    select c.name
    from vital_private.usage_aggregations as a
    cross join unnest(a.keys || a.names) with ordinality as c (name, place)
    group by c.name
    order by min(a.position * 100 + c.place)
  );
  measures constant text[] := vital_private.kept_measures();
  kept record;
  aggregation vital_private.usage_aggregations;
  operation text;
begin
  for kept in
    select a.target, m.name, m.about, case m.unit when 'calls' then 'bigint' else 'numeric' end as type
    from vital_private.usage_aggregations as a
    cross join vital_private.usage_measures as m
    where m.of_call is not null
    order by a.position, m.position
  loop
    execute format('alter table public.%I add column if not exists %I %s not null default 0', kept.target, kept.name, kept.type);
    execute format('comment on column public.%I.%I is %L', kept.target, kept.name, kept.about);
  end loop;

  -- Calls with their measures, by the names that the aggregations have. Its reader sees the calls that the policies show.
  drop view if exists vital_private.measured_calls;
  execute (
    select format(
      'create view vital_private.measured_calls with (security_invoker = true) as select %s from public.token_usage_logs as call',
      string_agg(c.expression, ', ' order by c.place, c.position)
    )
    from (
      select 1 as place, a.attnum as position, format('call.%I', a.attname) as expression
      from pg_catalog.pg_attribute as a
      where a.attrelid = 'public.token_usage_logs'::regclass and a.attnum > 0 and not a.attisdropped and a.attname <> all(measures)
      union all
      select 2, m.position, format('%s as %I', m.of_call, m.name) from vital_private.usage_measures as m where m.of_call is not null
    ) as c
  );
  perform vital_private.restrict_relation('vital_private.measured_calls', readers => '{authenticated, service_role}');

  -- The aggregations as anybody may see them: organizations' sums for whoever administers them, and whoever does not is shown what their
  -- own calls come to, since but for the sums of users no row holds those alone. New measures come last, so replacing does.
  for aggregation in select * from vital_private.usage_aggregations order by position loop
    execute format(
      'create or replace view vital_private.%1$I with (security_invoker = true) as select %2$s from public.%3$I as u%4$s',
      replace(aggregation.target, 'usage_aggregations_', 'visible_'),
      columns.list,
      aggregation.target,
      case when 'user_id' <> all(aggregation.keys) then format(
        ' union all select %s from %s as u',
        columns.list,
        vital_private.measured($calls$(select o.* from vital_private.own_calls() as o where (select current_user) = 'authenticated')$calls$)
      ) end
    )
    from (
      select string_agg(format('u.%I', c), ', ' order by ordinality) as list
      from unnest(aggregation.keys || aggregation.names || measures) with ordinality as c
    ) as columns;
    perform vital_private.restrict_relation(
      format('vital_private.%I', replace(aggregation.target, 'usage_aggregations_', 'visible_')), readers => '{authenticated, service_role}'
    );
  end loop;

  -- The triggers, one for each kind of statement. They measure each call once, and fold the calls by everything that any table groups by:
  -- the turns of a conversation become one row. All of it is one statement, which has the same parts in the same order in each, so that
  -- they lock in one order. What is inserted is added up in bigint, unless it might be too large for that.
  foreach operation in array array['insert', 'update', 'delete'] loop
    execute format(
      $function$
create or replace function vital_private.aggregate_usage_on_%1$s() returns trigger
language plpgsql
security definer
set search_path = ''
as $body$
begin
  if tg_op = 'DELETE' and current_setting('vital_tracking.keep_sums', true) = 'on' then
    return null;
  end if;
  perform vital_private.lock_usage(d.day, alone => false)
  from (select distinct (c.created_at at time zone 'UTC')::date as day from %2$s as c order by 1) as d;
  if tg_op = 'INSERT' and (select sum(c.total_tokens) < 1e18 and coalesce(sum(least(c.latency_ms, 1e15)), 0) < 1e15 from %2$s as c) then
    %3$s;
  else
    %4$s;
  end if;
  return null;
end;
$body$
      $function$,
      operation,
      sources ->> operation,
      vital_private.adding_to_all(folded, vital_private.measured(sources ->> operation, operation <> 'insert', small => operation = 'insert')),
      vital_private.adding_to_all(folded, vital_private.measured(sources ->> operation, operation <> 'insert'))
    );
    execute format(
      'create or replace trigger aggregate_usage_on_%1$s after %1$s on public.token_usage_logs referencing %2$s
      for each statement execute function vital_private.aggregate_usage_on_%1$s()', operation, tables ->> operation
    );
  end loop;
  perform vital_private.restrict_functions();
end;
$build$;

select vital_private.restrict_functions(helpers => '{own_calls, measured}');
select vital_private.build_usage_aggregations();
