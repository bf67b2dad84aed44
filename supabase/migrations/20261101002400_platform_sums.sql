-- Sums of events, costs and executions, kept as those of calls are: by the statement that changes the rows, whoever inserts, reprices or
-- deletes them, so at every commit the sums are those of the rows (docs/decisions/0023).
--
--   platform_events_5min            5 minutes, organization, category, event
--   platform_events_daily_sessions  day, organization, user, session, category
--   tenant_costs_5min               5 minutes, organization, kind of cost, service
--   tenant_costs_daily              day, organization, user, kind of cost, service, resource, unit
--   agent_executions_hourly         hour, organization, agent
-- Times are those of UTC. A sum whose rows are all gone again stays, with zeros.

-- The columns of the sums: keys first, in the order of the index; `of_row` is what a row is grouped by, or what it adds.
create table vital_private.platform_sums (
  target text not null,
  position smallint not null,
  name text not null,
  type text not null,
  of_row text not null,
  is_key boolean not null default false,
  about text not null,
  primary key (target, position)
);

-- Which table each is the sum of.
create table vital_private.platform_sum_sources (
  target text not null primary key,
  source text not null
);

select vital_private.restrict_relation('vital_private.platform_sums');
select vital_private.restrict_relation('vital_private.platform_sum_sources');

-- Whether an event says of itself that something failed: a request answered with 5xx, `success: false`, or the class of an error. (No SET
-- clause, so that PostgreSQL may inline it.)
create function vital_private.event_failed(properties jsonb) returns boolean
language sql
immutable
parallel safe
return coalesce(
  properties ? 'error_type' or properties -> 'success' = 'false'
  or (jsonb_typeof(properties -> 'status') = 'number' and (properties ->> 'status')::numeric >= 500),
  false
);

insert into vital_private.platform_sum_sources (target, source) values
('platform_events_5min', 'platform_events'),
('platform_events_daily_sessions', 'platform_events'),
('tenant_costs_5min', 'tenant_cost_events'),
('tenant_costs_daily', 'tenant_cost_events'),
('agent_executions_hourly', 'agent_executions');

insert into vital_private.platform_sums (target, position, name, type, is_key, of_row, about) values
('platform_events_5min', 1, 'organization_id', 'text', true, 'r.organization_id', 'Whose it is.'),
(
  'platform_events_5min', 2, 'bucket', 'timestamptz', true, 'date_bin(''5 minutes'', r.occurred_at, ''2000-01-01 00:00:00+00'')',
  'Start of the five minutes.'
),
('platform_events_5min', 3, 'category', 'text', true, 'r.category', 'As in platform_events.'),
('platform_events_5min', 4, 'event_name', 'text', true, 'r.event_name', 'As in platform_events.'),
('platform_events_5min', 11, 'events', 'bigint', false, '1::bigint', 'Events.'),
(
  'platform_events_5min', 12, 'failed_events', 'bigint', false,
  'case when vital_private.event_failed(r.properties) then 1::bigint else 0 end', 'Events that say that something failed.'
),
('platform_events_5min', 13, 'valued_events', 'bigint', false, 'case when r.value is null then 0 else 1::bigint end', 'Events with a value.'),
('platform_events_5min', 14, 'value', 'numeric', false, 'coalesce(r.value, 0)', 'The sum of the values.'),

('platform_events_daily_sessions', 1, 'organization_id', 'text', true, 'r.organization_id', 'Whose it is.'),
('platform_events_daily_sessions', 2, 'day', 'date', true, '(r.occurred_at at time zone ''UTC'')::date', 'The day (UTC).'),
('platform_events_daily_sessions', 3, 'user_id', 'text', true, 'r.user_id', 'Who did it.'),
('platform_events_daily_sessions', 4, 'session_id', 'text', true, 'r.session_id', 'In which session.'),
('platform_events_daily_sessions', 5, 'category', 'text', true, 'r.category', 'As in platform_events.'),
('platform_events_daily_sessions', 11, 'events', 'bigint', false, '1::bigint', 'Events.'),
(
  'platform_events_daily_sessions', 12, 'revenue', 'numeric', false,
  'case when r.category = ''business'' and r.event_name = ''revenue'' then coalesce(r.value, 0) else 0 end',
  'US dollars of business events named revenue.'
),

('tenant_costs_5min', 1, 'organization_id', 'text', true, 'r.organization_id', 'Whose it is.'),
(
  'tenant_costs_5min', 2, 'bucket', 'timestamptz', true, 'date_bin(''5 minutes'', r.occurred_at, ''2000-01-01 00:00:00+00'')',
  'Start of the five minutes.'
),
('tenant_costs_5min', 3, 'cost_type', 'text', true, 'r.cost_type', 'As in tenant_cost_events.'),
('tenant_costs_5min', 4, 'service', 'text', true, 'r.service', 'As in tenant_cost_events.'),
('tenant_costs_5min', 11, 'costs', 'bigint', false, '1::bigint', 'Rows.'),
(
  'tenant_costs_5min',
  12,
  'unpriced_costs',
  'bigint',
  false,
  'case when r.cost_usd is null then 1::bigint else 0 end',
  'Rows without a price: they are in no cost.'
),
('tenant_costs_5min', 13, 'cost_usd', 'numeric', false, 'coalesce(r.cost_usd, 0)', 'US dollars, of the rows with a price.'),

('tenant_costs_daily', 1, 'organization_id', 'text', true, 'r.organization_id', 'Whose it is.'),
('tenant_costs_daily', 2, 'day', 'date', true, '(r.occurred_at at time zone ''UTC'')::date', 'The day (UTC).'),
('tenant_costs_daily', 3, 'user_id', 'text', true, 'r.user_id', 'Who caused it.'),
('tenant_costs_daily', 4, 'cost_type', 'text', true, 'r.cost_type', 'As in tenant_cost_events.'),
('tenant_costs_daily', 5, 'service', 'text', true, 'r.service', 'As in tenant_cost_events.'),
('tenant_costs_daily', 6, 'resource', 'text', true, 'r.resource', 'As in tenant_cost_events.'),
('tenant_costs_daily', 7, 'unit', 'text', true, 'r.unit', 'As in tenant_cost_events.'),
('tenant_costs_daily', 11, 'costs', 'bigint', false, '1::bigint', 'Rows.'),
(
  'tenant_costs_daily',
  12,
  'unpriced_costs',
  'bigint',
  false,
  'case when r.cost_usd is null then 1::bigint else 0 end',
  'Rows without a price: they are in no cost.'
),
('tenant_costs_daily', 13, 'quantity', 'numeric', false, 'r.quantity', 'How much, in units.'),
('tenant_costs_daily', 14, 'cost_usd', 'numeric', false, 'coalesce(r.cost_usd, 0)', 'US dollars, of the rows with a price.'),

('agent_executions_hourly', 1, 'organization_id', 'text', true, 'r.organization_id', 'Whose it is.'),
(
  'agent_executions_hourly', 2, 'hour_start', 'timestamptz', true, 'date_bin(''1 hour'', r.started_at, ''2000-01-01 00:00:00+00'')',
  'Start of the hour.'
),
('agent_executions_hourly', 3, 'agent_id', 'text', true, 'r.agent_id', 'The agent.'),
('agent_executions_hourly', 11, 'executions', 'bigint', false, '1::bigint', 'Executions.'),
('agent_executions_hourly', 12, 'succeeded', 'bigint', false, 'case when r.success then 1::bigint else 0 end', 'Executions that succeeded.'),
('agent_executions_hourly', 13, 'timed', 'bigint', false, 'case when r.duration_ms is null then 0 else 1::bigint end', 'Executions with a duration.'),
(
  'agent_executions_hourly', 14, 'duration_us', 'numeric', false,
  'case when r.duration_ms is null then 0 else (least(r.duration_ms, 1e15) * 1000)::bigint::numeric end', 'The sum of the durations, in microseconds.'
),
(
  'agent_executions_hourly', 15, 'duration_histogram', 'numeric', false,
  'case when r.duration_ms is null then 0 else (''1e'' || 12 * vital_private.latency_bucket(r.duration_ms))::numeric end',
  'Add them up with sum(), then ask latency_percentile().'
),
('agent_executions_hourly', 16, 'total_tokens', 'numeric', false, 'coalesce(r.total_tokens, 0)::numeric', 'Tokens, where they were said.'),
(
  'agent_executions_hourly',
  17,
  'costed',
  'bigint',
  false,
  'case when r.cost_usd is null then 0 else 1::bigint end',
  'Executions that say what they cost.'
),
('agent_executions_hourly', 18, 'cost_usd', 'numeric', false, 'coalesce(r.cost_usd, 0)', 'US dollars of these; no part of any bill.'),
('agent_executions_hourly', 19, 'rated', 'bigint', false, 'case when r.rating is null then 0 else 1::bigint end', 'Executions with a rating.'),
('agent_executions_hourly', 20, 'rating', 'numeric', false, 'coalesce(r.rating, 0)', 'The sum of the ratings.'),
('agent_executions_hourly', 29, 'citations', 'numeric', false, 'coalesce(r.citations, 0)::numeric', 'Sources named.');

-- Of each score how many there are, and their sum.
insert into vital_private.platform_sums (target, position, name, type, of_row, about)
select
  'agent_executions_hourly' as target,
  19 + 2 * s.place + c.place as position,
  c.name,
  c.type,
  c.of_row,
  c.about
from unnest('{faithfulness, answer_relevancy, context_precision, context_recall}'::text[]) with ordinality as s (score, place)
cross join lateral (
  values
  (0, s.score || '_scores', 'bigint', format('case when r.%I is null then 0 else 1::bigint end', s.score), 'Executions with this score.'),
  (1, s.score, 'numeric', format('coalesce(r.%I, 0)', s.score), 'The sum of the scores.')
) as c (place, name, type, of_row, about);


-- Make the tables of the sums, their policies, and the triggers that keep them.
create function vital_private.build_platform_sums() returns void
language plpgsql
set search_path = ''
as $build$
declare
  operations constant jsonb := jsonb_build_object(
    'insert', jsonb_build_array('new table as added', '(select 1 as sign, a.* from added as a)'),
    'update', jsonb_build_array(
      'old table as removed new table as added', '(select 1 as sign, a.* from added as a union all select -1, g.* from removed as g)'
    ),
    'delete', jsonb_build_array('old table as removed', '(select -1 as sign, g.* from removed as g)')
  );
  sums record;
  operation record;
begin
  for sums in
    select
      s.target, s.source,
      string_agg(format('%I %s%s', c.name, c.type, case when not c.is_key then ' not null default 0' end), ', ' order by c.position) as columns,
      string_agg(c.name, ', ' order by c.position) filter (where c.is_key) as keys,
      bool_or(c.name = 'user_id') as of_users
    from vital_private.platform_sum_sources as s
    join vital_private.platform_sums as c on c.target = s.target
    group by s.target, s.source
    order by s.target
  loop
    execute format('create table public.%I (%s) with (fillfactor = 70)', sums.target, sums.columns);
    execute format('create unique index %I on public.%I (%s) nulls not distinct', sums.target || '_key', sums.target, sums.keys);
    perform vital_private.restrict_relation(format('public.%I', sums.target), readers => '{authenticated, service_role}');
    execute format(
      'create policy "Organization admins see their organization''s sums" on public.%I for select to authenticated
      using (organization_id = any((select vital_private.administered_organizations())::text[]))', sums.target
    );
    if sums.of_users then
      execute format(
        'create policy "Users see their own sums" on public.%I for select to authenticated
        using (user_id = (select auth.jwt()) ->> ''sub'')', sums.target
      );
    end if;
  end loop;
  execute (
    select string_agg(format('comment on column public.%I.%I is %L', c.target, c.name, c.about), '; ' order by c.target, c.position)
    from vital_private.platform_sums as c
  );

  for operation in
    select s.source, o.key as kind, o.value ->> 0 as tables, o.value ->> 1 as rows
    from (select distinct source from vital_private.platform_sum_sources) as s
    cross join jsonb_each(operations) as o
  loop
    execute format(
      $function$
create function vital_private.sum_%1$s_on_%2$s() returns trigger
language plpgsql
security definer
set search_path = ''
as $body$
begin
  if tg_op = 'DELETE' and current_setting('vital_tracking.keep_sums', true) = 'on' then
    return null;
  end if;
  %3$s
  return null;
end;
$body$
      $function$,
      operation.source, operation.kind,
      (
        select string_agg(vital_private.adding_to_platform(t.target, operation.rows) || ';', E'\n  ' order by t.target)
        from vital_private.platform_sum_sources as t
        where t.source = operation.source
      )
    );
    execute format(
      'create trigger sum_on_%2$s after %2$s on public.%1$I referencing %3$s
      for each statement execute function vital_private.sum_%1$s_on_%2$s()', operation.source, operation.kind, operation.tables
    );
  end loop;
  perform vital_private.restrict_functions();
end;
$build$;

-- The text of a statement that adds rows (the text of a query with a column `sign`) to their sums, in the order of the key, so that two
-- writers wait for each other in one order.
create function vital_private.adding_to_platform(target text, source text) returns text
language sql
stable
set search_path = ''
as $$
  select format(
    'insert into public.%I as known (%s) select %s from %s as r group by %s order by %s on conflict (%s) do update set %s',
    adding_to_platform.target,
    string_agg(c.name, ', ' order by c.position),
    string_agg(case when c.is_key then c.of_row else format('vital_private.total(r.sign * (%s))', c.of_row) end, ', ' order by c.position),
    source,
    string_agg(c.place::text, ', ' order by c.position) filter (where c.is_key),
    string_agg(
      case when c.type = 'text' then format('(%s) collate "C"', c.of_row) else c.place::text end, ', ' order by c.position
    ) filter (where c.is_key),
    string_agg(c.name, ', ' order by c.position) filter (where c.is_key),
    string_agg(format('%1$I = known.%1$I + excluded.%1$I', c.name), ', ' order by c.position) filter (where not c.is_key)
  )
  from (
    select s.*, row_number() over (order by s.position) as place
    from vital_private.platform_sums as s
    where s.target = adding_to_platform.target
  ) as c
$$;

select vital_private.build_platform_sums();
select vital_private.restrict_functions(helpers => '{event_failed}');

comment on table public.platform_events_5min is 'Events by five minutes, organization, category and name.';
comment on table public.platform_events_daily_sessions is 'Events by day (UTC), organization, user, session and category.';
comment on table public.tenant_costs_5min is 'Other costs by five minutes, organization, kind and service.';
comment on table public.tenant_costs_daily is 'Other costs by day (UTC), organization, user, kind, service, resource and unit.';
comment on table public.agent_executions_hourly is 'Executions by hour (UTC), organization and agent.';

create index platform_events_5min_time on public.platform_events_5min (bucket, organization_id);
create index platform_events_daily_sessions_time on public.platform_events_daily_sessions (day, organization_id);
create index platform_events_daily_sessions_user on public.platform_events_daily_sessions (user_id, day);
create index tenant_costs_5min_time on public.tenant_costs_5min (bucket, organization_id);
create index tenant_costs_daily_time on public.tenant_costs_daily (day, organization_id);
create index tenant_costs_daily_user on public.tenant_costs_daily (user_id, day);
create index agent_executions_hourly_time on public.agent_executions_hourly (hour_start, organization_id);
create index agent_executions_hourly_agent on public.agent_executions_hourly (agent_id, hour_start);
