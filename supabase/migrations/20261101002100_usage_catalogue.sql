-- The catalogue of all reports: what is measured of calls, and by what calls can be grouped. Aggregations, views, reports and dashboards
-- are made of these two tables, so that a rate or a grouping is written once.
--
-- A new measure is one row of usage_measures and one call of vital_private.build_usage_aggregations(); a new grouping is one row of
-- usage_groupings. The text of expressions refers to fixed names: `call` is a row of token_usage_logs, `u` a row of an
-- aggregation, `s` a row of sums of these.

-- Whether an error's class is that of a time-out: of Python, of HTTP clients, or of a provider's own library.
-- (No SET clause, so that PostgreSQL may inline it: it runs for every call recorded.)
create function vital_private.is_time_out(error_type text) returns boolean
language sql
immutable
parallel safe
return error_type = any(
  '{
    TimeoutError, APITimeoutError, Timeout, TimeoutException, ReadTimeout, ConnectTimeout, WriteTimeout, PoolTimeout,
    ReadTimeoutError, ConnectTimeoutError, ServerTimeoutError, SocketTimeoutError, ConnectionTimeoutError, DeadlineExceeded,
    GatewayTimeout, GatewayTimeoutError, RequestTimeoutError, RequestTimeout, StreamChunkTimeoutError, NodeTimeoutError
  }'::text[]
);

create table vital_private.usage_measures (
  position smallint not null unique,
  name text not null primary key,
  unit text not null,
  of_call text,
  of_sums text,
  fraction double precision,
  in_reports boolean not null,
  in_views boolean not null,
  about text not null,
  constraint usage_measures_unit check (unit in ('calls', 'tokens', 'usd', 'percent', 'ms', 'us', 'histogram')),
  constraint usage_measures_source check (num_nonnulls(of_call, of_sums, fraction) >= 1)
);

comment on table vital_private.usage_measures is 'What is measured of calls: measures that aggregations keep, and those that follow from them.';
comment on column vital_private.usage_measures.of_call is 'What one call adds to it; NULL: aggregations do not keep it, it follows from others.';
comment on column vital_private.usage_measures.of_sums is 'How it follows from sums; NULL: it is itself such a sum.';
comment on column vital_private.usage_measures.fraction is 'Of percentiles: which one, of latency_histogram.';
comment on column vital_private.usage_measures.in_reports is 'Whether reports and dashboards (JSON) show it.';
comment on column vital_private.usage_measures.in_views is 'Whether views and materialized views show it.';
comment on column vital_private.usage_measures.about is 'What it means; the comment of its column in the aggregations.';

insert into vital_private.usage_measures (position, name, unit, of_call, of_sums, fraction, in_reports, in_views, about) values
-- Kept by the aggregations. Each is a plain sum, so sums of sums are right too, over longer times and larger groups.
(1, 'calls', 'calls', 'call.calls::bigint', null, null, true, true, 'Calls.'),
(
  2, 'cached_calls', 'calls', 'case when call.cache_hit then call.calls::bigint else 0 end', null, null, true, true,
  'Calls that LangChain answered from its own cache.'
),
(
  3, 'failed_calls', 'calls', 'case when call.status = ''ok'' then 0 else call.calls::bigint end', null, null, true, true,
  'Calls whose status is not ok; blocked ones are among them.'
),
(
  4, 'blocked_calls', 'calls', 'case when call.status = ''blocked'' then call.calls::bigint else 0 end', null, null, true, true,
  'Calls that a budget stopped before they were made.'
),
(
  5, 'unpriced_calls', 'calls', 'case when call.priced then 0 else call.calls::bigint end', null, null, true, true,
  'Calls without a known price: they are in no cost.'
),
(
  6, 'estimated_calls', 'calls', 'case when call.usage_estimated then call.calls::bigint else 0 end', null, null, true, true,
  'Calls whose tokens nobody reported.'
),
(
  7, 'timed_calls', 'calls', 'case when call.latency_ms is null then 0 else 1::bigint end', null, null, false, false,
  'Calls with a latency.'
),
(8, 'prompt_tokens', 'tokens', 'call.prompt_tokens', null, null, true, true, 'Tokens of prompts.'),
(9, 'completion_tokens', 'tokens', 'call.completion_tokens', null, null, true, true, 'Tokens of answers.'),
(
  10, 'total_tokens', 'tokens', 'call.total_tokens', 's.prompt_tokens + s.completion_tokens', null, true, true,
  'Tokens of prompts and answers together.'
),
(
  11, 'cache_read_tokens', 'tokens', 'call.cache_read_tokens', null, null, true, true,
  'Tokens of prompts that providers read from their caches.'
),
(
  12, 'cache_write_tokens', 'tokens', 'call.cache_write_tokens', null, null, false, false,
  'Tokens of prompts that providers wrote to their caches.'
),
(13, 'reasoning_tokens', 'tokens', 'call.reasoning_tokens', null, null, false, false, 'Tokens of answers that were reasoning.'),
(14, 'audio_tokens', 'tokens', 'call.audio_tokens', null, null, false, false, 'Tokens of audio, in prompts and answers.'),
(15, 'input_cost', 'usd', 'coalesce(call.input_cost, 0)', null, null, false, false, 'US dollars for prompts.'),
(16, 'output_cost', 'usd', 'coalesce(call.output_cost, 0)', null, null, false, false, 'US dollars for answers.'),
(
  17, 'fees', 'usd', 'coalesce(call.fees, 0)', null, null, true, false,
  'US dollars for searches and other units that are no tokens.'
),
(18, 'total_cost', 'usd', 'coalesce(call.total_cost, 0)', null, null, true, true, 'US dollars, of the calls with a price.'),
(
  19, 'potential_cost', 'usd', 'coalesce(call.potential_cost, 0)', null, null, true, true,
  'US dollars that these calls would have cost without any cache.'
),
-- The provider's own figure beside ours of the same calls.
(
  20, 'reported_calls', 'calls', 'case when call.reported_cost is null or not call.priced then 0 else call.calls::bigint end',
  null, null, false, false, 'Calls with a price of which the provider, too, said what they cost.'
),
(
  21, 'reported_cost', 'usd', 'case when call.priced then coalesce(call.reported_cost, 0) else 0 end', null, null, false, false,
  'US dollars that providers say these calls cost.'
),
(
  22, 'reported_total_cost', 'usd', 'case when call.reported_cost is null then 0 else coalesce(call.total_cost, 0) end',
  null, null, false, false, 'US dollars that these calls cost by our prices.'
),
(
  23, 'latency_us', 'us',
  'case when call.latency_ms is null then 0 else (least(call.latency_ms, 1e15) * 1000)::bigint end', null, null, false, false,
  'The sum of the latencies, in microseconds.'
),
(
  24, 'latency_histogram', 'histogram',
  'case when call.latency_ms is null then 0 else (''1e'' || 12 * vital_private.latency_bucket(call.latency_ms))::numeric end',
  null, null, false, false, 'Add them up with sum(), then ask latency_percentile().'
),
(
  25, 'timed_out_calls', 'calls', 'case when vital_private.is_time_out(call.error_type) then call.calls::bigint else 0 end',
  null, null, true, true, 'Calls that failed because nobody waited longer; they are among the failed ones.'
),
-- What follows from sums. A rate or an average of nothing is NULL.
(
  101, 'cache_savings', 'usd', null, 's.potential_cost - s.total_cost', null, true, true,
  'US dollars that caches saved, those of providers and LangChain''s.'
),
(
  102, 'average_cost', 'usd', null, 's.total_cost / nullif(s.calls - s.unpriced_calls, 0)', null, false, true,
  'US dollars a priced call; NULL where there is none.'
),
(
  103, 'hit_rate', 'percent', null, 'round(100.0 * s.cached_calls / nullif(s.calls, 0), 4)', null, true, true,
  'Percent of calls that LangChain answered from its own cache.'
),
(
  104, 'success_rate', 'percent', null, 'round(100.0 * (s.calls - s.failed_calls) / nullif(s.calls - s.blocked_calls, 0), 4)', null, true, true,
  'Percent of calls that succeeded; blocked calls were never made and do not count.'
),
(
  105, 'prompt_cache_rate', 'percent', null, 'round(100 * s.cache_read_tokens / nullif(s.prompt_tokens, 0), 4)', null, false, false,
  'Percent of prompt tokens that providers read from their caches.'
),
(
  106, 'savings_rate', 'percent', null, 'round(100 * (s.potential_cost - s.total_cost) / nullif(s.potential_cost, 0), 4)', null, false, false,
  'Percent of the potential cost that caches saved.'
),
(
  107, 'average_latency_ms', 'ms', null, 's.latency_us / 1000 / nullif(s.timed_calls, 0)', null, true, true,
  'The mean latency in milliseconds.'
),
(108, 'p50_latency_ms', 'ms', null, null, 0.5, true, true, 'The median latency in milliseconds.'),
(109, 'p95_latency_ms', 'ms', null, null, 0.95, true, true, '95 of 100 calls took at most so many milliseconds.'),
(110, 'p99_latency_ms', 'ms', null, null, 0.99, true, true, '99 of 100 calls took at most so many milliseconds.'),
(
  111, 'timeout_rate', 'percent', null, 'round(100.0 * s.timed_out_calls / nullif(s.calls - s.blocked_calls, 0), 4)', null, true, true,
  'Percent of calls that timed out; blocked calls were never made and do not count.'
);

create table vital_private.usage_groupings (
  position smallint not null unique,
  name text not null primary key,
  keys text[] not null,
  source text,
  condition text not null default 'true',
  name_column text,
  call_names text[] not null default '{}',
  call_label text,
  sum_label text,
  is_report boolean not null default false,
  groups text not null default 'many',
  ranked_by text not null default 'total_cost' references vital_private.usage_measures (name),
  more_measures text[] not null default '{}',
  day_detail text,
  details text,
  constraint usage_groupings_groups check (groups in ('few', 'few an organization', 'many')),
  constraint usage_groupings_source check (source in ('daily_totals', 'daily_users', 'daily_agents', 'daily_parts'))
);

comment on table vital_private.usage_groupings is 'By what calls can be grouped, and what each kind of report makes of a group.';
comment on column vital_private.usage_groupings.keys is 'The columns that make a group, of calls and of the aggregation alike.';
comment on column vital_private.usage_groupings.source is 'The aggregation (usage_aggregations_...) that has them; NULL: only the calls do.';
comment on column vital_private.usage_groupings.condition is 'Which rows of the aggregation belong to a report.';
comment on column vital_private.usage_groupings.name_column is 'The column with a name for people, which may change: the newest counts.';
comment on column vital_private.usage_groupings.call_names is 'The columns of calls that its label shows beside the keys: the newest count.';
comment on column vital_private.usage_groupings.call_label is
'How cost_breakdown names a group `u` of keys and newest names; NULL: it does not offer it.';
comment on column vital_private.usage_groupings.sum_label is 'How top_usage names a group (%s: the newest name); NULL: it does not offer it.';
comment on column vital_private.usage_groupings.is_report is 'Whether usage_report_v1 offers it.';
comment on column vital_private.usage_groupings.groups is 'Of a report: how many groups there may be.';
comment on column vital_private.usage_groupings.ranked_by is 'Of a report: the measure by which its rows are ordered.';
comment on column vital_private.usage_groupings.more_measures is 'Of a report: measures that it shows beside those of all reports.';
comment on column vital_private.usage_groupings.day_detail is 'Of a report: an aggregate over the rows of a group and day, ...';
comment on column vital_private.usage_groupings.details is '... and what is shown of these (`d.day`, `d.detail`), as aggregates over days.';

insert into vital_private.usage_groupings (position, name, keys, source, condition, name_column, call_names, call_label, sum_label) values
(1, 'organization', '{organization_id}', 'daily_totals', 'true', null, '{}', 'u.organization_id', 'u.organization_id'),
(2, 'service', '{service_type}', 'daily_totals', 'true', null, '{}', 'u.service_type', 'u.service_type'),
(3, 'user', '{user_id}', 'daily_users', 'true', null, '{}', 'u.user_id', 'u.user_id'),
(4, 'session', '{session_id}', null, 'true', null, '{}', 'u.session_id', null),
(
  5, 'agent', '{agent_id}', 'daily_agents', 'true', 'agent_name', '{agent_name}', 'coalesce(u.agent_name, u.agent_id)',
  'coalesce(%s, u.agent_id)'
),
(6, 'tier', '{agent_tier}', 'daily_agents', 'true', null, '{}', 'u.agent_tier', 'u.agent_tier'),
(7, 'provider', '{provider}', 'daily_agents', 'true', null, '{}', 'u.provider', 'u.provider'),
(8, 'model', '{model}', 'daily_agents', 'true', null, '{}', 'u.model', 'u.model'),
(9, 'panel', '{panel_id}', 'daily_parts', 'true', null, '{}', 'u.panel_id', 'u.panel_id'),
(
  10, 'panel_seat', '{panel_id, panel_position, agent_id}', 'daily_parts', 'true', 'agent_name', '{agent_name, panel_size}',
  'u.panel_id || '' / seat '' || u.panel_position || coalesce('' of '' || u.panel_size, '''')
    || coalesce('' / '' || coalesce(u.agent_name, u.agent_id), '''')',
  'concat_ws('' / '', u.panel_id, ''seat '' || u.panel_position, coalesce(%s, u.agent_id))'
),
(11, 'workflow', '{workflow_id}', 'daily_parts', 'true', null, '{}', 'u.workflow_id', 'u.workflow_id'),
(
  12, 'workflow_step', '{workflow_step, workflow_id}', 'daily_parts', 'true', 'workflow_step_name', '{workflow_step_name}',
  'concat_ws('' / '', u.workflow_id, coalesce(u.workflow_step_name, u.workflow_step))',
  'concat_ws('' / '', u.workflow_id, coalesce(%s, u.workflow_step))'
),
(13, 'solution', '{solution_id}', null, 'true', null, '{}', 'u.solution_id', null),
(14, 'framework', '{framework}', 'daily_agents', 'true', null, '{}', 'u.framework', 'u.framework'),
(15, 'message_type', '{message_type}', 'daily_agents', 'true', null, '{}', 'u.message_type', 'u.message_type'),
(16, 'status', '{status}', null, 'true', null, '{}', 'u.status', null);

insert into vital_private.usage_groupings (
  position, name, is_report, groups, keys, source, condition, name_column, ranked_by, more_measures, day_detail, details
) values
(101, 'services', true, 'few', '{service_type}', 'daily_totals', 'true', null, 'total_cost', '{}', null, null),
(
  102, 'users', true, 'many', '{organization_id, user_id}', 'daily_users', 'true', null, 'total_cost', '{}',
  -- Each service is a bit, so that days can be put together without listing services.
  'bit_or(array_position(''{null,1:1_conversation,virtual_panel,null,workflow,null,null,null,solution_builder}'', u.service_type) - 1)',
  'bit_count(coalesce(bit_or(d.detail), 0)::bit(4)) as services, max(d.day) as last_day'
),
(
  103, 'agents', true, 'few an organization', '{organization_id, agent_id, agent_tier}', 'daily_agents', 'true', 'agent_name', 'total_cost', '{}',
  null, null
),
(
  104, 'panels', true, 'many', '{organization_id, panel_id, panel_position, agent_id}', 'daily_parts', 'u.panel_id is not null',
  'agent_name', 'total_cost', '{}', null, null
),
(
  105, 'workflows', true, 'few an organization', '{organization_id, workflow_id, workflow_step}', 'daily_parts',
  'coalesce(u.workflow_id, u.workflow_step) is not null', 'workflow_step_name', 'total_cost', '{}', null, null
),
(
  106, 'models', true, 'few', '{provider, model}', 'daily_agents', 'true', null, 'total_cost',
  '{reported_calls, reported_cost, reported_total_cost}', null, null
),
(107, 'cache', true, 'few', '{service_type, provider, model}', 'daily_agents', 'true', null, 'cache_savings', '{prompt_cache_rate}', null, null);

-- Functions that run with their caller's rights read the catalogue, so signed-in users may.
select vital_private.restrict_relation('vital_private.usage_measures', readers => '{authenticated, service_role}');
select vital_private.restrict_relation('vital_private.usage_groupings', readers => '{authenticated, service_role}');

create policy "Signed-in users see what is measured" on vital_private.usage_measures
for select to authenticated
using (true);

create policy "Signed-in users see by what calls can be grouped" on vital_private.usage_groupings
for select to authenticated
using (true);

-- The rest of this file makes text of queries from the catalogue.

-- A measure, as an expression over a row of sums with this alias. `latencies` is an expression for all percentiles together, which is
-- cheaper where several are read; without it a percentile is computed alone.
create function vital_private.measure(name text, alias text default 's', latencies text default null) returns text
language sql
stable
set search_path = ''
as $$
  select regexp_replace(
    case
      when m.fraction is null then coalesce(m.of_sums, 's.' || m.name)
      when latencies is null then format('(public.latency_percentiles(s.latency_histogram, ''{%s}''))[1]', m.fraction)
      else format('%s[%s]', latencies, (
        select count(*) from vital_private.usage_measures as f where f.fraction is not null and f.position <= m.position
      ))
    end, '\ms\.', alias || '.', 'g'
  )
  from vital_private.usage_measures as m
  where m.name = measure.name
$$;

-- All percentiles of a row of sums in one array, in the order that `measure` counts on.
create function vital_private.all_latencies(alias text default 's') returns text
language sql
stable
set search_path = ''
as $$
  select format('public.latency_percentiles(%s.latency_histogram, ''{%s}'')', alias, string_agg(m.fraction::text, ',' order by m.position))
  from vital_private.usage_measures as m
  where m.fraction is not null
$$;

-- Measures as columns of a view or function, by their names; without names those that views show.
create function vital_private.measure_columns(names text[] default null, alias text default 's', latencies text default null) returns text
language sql
stable
set search_path = ''
as $$
  select string_agg(
    format(
      case m.unit when 'calls' then '(%s)::bigint as %I' when 'ms' then '(%s)::double precision as %I' else '%s as %I' end,
      vital_private.measure(m.name, alias, latencies), m.name
    ), ', ' order by array_position(names, m.name), m.position
  )
  from vital_private.usage_measures as m
  where case when names is null then m.in_views else m.name = any(names) end
$$;

-- Measures as JSON: amounts as text, so that no client turns them into floats, everything else as numbers. Those that reports show, and
-- `more` of them.
create function vital_private.measures_json(alias text default 's', more text[] default '{}') returns text
language sql
stable
set search_path = ''
as $$
  select format(
    '(select jsonb_build_object(%s) from %s as p (latencies))',
    string_agg(
      format('%L, ', m.name) || format(
        case m.unit when 'usd' then 'trim_scale(%s)::text' when 'ms' then 'round((%s)::numeric, 3)' else '%s' end,
        vital_private.measure(m.name, alias, 'p.latencies')
      ), ', ' order by m.position
    ),
    vital_private.all_latencies(alias)
  )
  from vital_private.usage_measures as m
  where m.in_reports or m.name = any(more)
$$;

-- The measures whose sums others are made of, and those that are shown themselves.
create function vital_private.summed_measures() returns text[]
language sql
stable
set search_path = ''
as $$
  select array_agg(m.name order by m.position)
  from vital_private.usage_measures as m
  where m.of_call is not null and (
    (m.of_sums is null and (m.in_reports or m.in_views))
    or m.unit = 'histogram'
    or exists (select from vital_private.usage_groupings as g where m.name = any(g.more_measures))
    or exists (select from vital_private.usage_measures as d where strpos(d.of_sums, 's.' || m.name) > 0)
  )
$$;

-- Their sums over rows `u`, as columns.
create function vital_private.sum_columns() returns text
language sql
stable
set search_path = ''
as $$
  select string_agg(format('coalesce(sum(u.%1$I), 0) as %1$I', name), ', ' order by ordinality)
  from unnest(vital_private.summed_measures()) with ordinality as m (name)
$$;

-- The newest of the names in a column of rows `u`.
create function vital_private.newest(name_column text) returns text
language sql
immutable
strict
set search_path = ''
as $$
  select format('(array_agg(u.%1$I order by u.day desc, u.%1$I desc) filter (where u.%1$I is not null and u.calls > 0))[1]', name_column)
$$;

-- The condition that rows `u` and `p` have the same keys, where NULL is a key like any other. The first half can be hashed, the second
-- tells NULL and '' apart.
create function vital_private.same_keys(keys text[]) returns text
language sql
immutable
set search_path = ''
as $$
  select string_agg(
    format('coalesce(u.%1$I::text, '''') = coalesce(p.%1$I::text, '''') and u.%1$I is not distinct from p.%1$I', k), ' and '
  )
  from unnest(keys) as k
$$;

-- The grouping of that name which a function offers; an error that lists what it offers where there is none.
create function vital_private.grouping_named(name text, offered_by text) returns vital_private.usage_groupings
language plpgsql
stable
set search_path = ''
as $$
declare
  found_one vital_private.usage_groupings;
  offered text[];
begin
  select array_agg(g.name order by g.position) into offered
  from vital_private.usage_groupings as g
  where case offered_by
    when 'cost_breakdown' then g.call_label is not null
    when 'top_usage' then g.sum_label is not null
    else g.is_report
  end;
  if name is null or name <> all(offered) then
    raise exception '%', case
      when offered_by = 'usage_report_v1' then format('There is no report %s.', quote_nullable(name))
      else format('%s cannot group by %s.', offered_by, quote_nullable(name))
    end
    using errcode = '22023', hint = format('Choose %s.', regexp_replace(array_to_string(offered, ', '), ', (\w+)$', ' or \1'));
  end if;
  select g.* into found_one from vital_private.usage_groupings as g where g.name = grouping_named.name;
  return found_one;
end;
$$;

-- The catalogue for clients: {"measures": [{"name", "unit", "kept", "in_reports", "about"}], "groupings": [{"name", "keys", "labels",
-- "aggregation", "offered_by"}]}. "kept" says whether the aggregations keep it. "labels" are the columns by which a report's rows are told
-- apart: keys, newest names and details.
create function public.usage_catalogue_v1() returns json
language sql
stable
security definer
set search_path = ''
as $$
  select json_build_object(
    'measures', (
      select json_agg(json_build_object(
        'name', m.name, 'unit', m.unit, 'kept', m.of_call is not null, 'in_reports', m.in_reports, 'about', m.about
      ) order by m.position)
      from vital_private.usage_measures as m
    ),
    'groupings', (
      select json_agg(json_build_object(
        'name', g.name, 'keys', g.keys,
        'labels', array_remove(
          g.keys || g.name_column || array(select d[1] from regexp_matches(g.details, ' as (\w+)', 'g') as d), null
        ),
        'aggregation', 'usage_aggregations_' || g.source,
        'more_measures', g.more_measures,
        'offered_by', array_remove(array[
          case when g.call_label is not null then 'cost_breakdown' end,
          case when g.sum_label is not null then 'top_usage' end,
          case when g.is_report then 'usage_report_v1' end
        ], null)
      ) order by g.position)
      from vital_private.usage_groupings as g
    )
  )
$$;

comment on function public.usage_catalogue_v1() is 'What reports measure, with units, and by what they group calls.';

select vital_private.restrict_functions(
  api => '{usage_catalogue_v1}',
  helpers => '{is_time_out, measure, all_latencies, measure_columns, measures_json, summed_measures, sum_columns, newest, same_keys, grouping_named}'
);
