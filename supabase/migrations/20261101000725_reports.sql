-- Reports for the command line, from the aggregations alone. Every report takes its days, or its days and the rows of its kind, from the
-- table that holds the fewest rows for it.

-- How each report groups calls: from which table, by which columns (`labels`), with which others that are told of a group (`more`).
create function vital_private.report_of(report text)
returns table (source text, day text, labels text[], more text, condition text, ranking text)
language sql
immutable
set search_path = ''
as $$
  select r.source, r.day, r.labels, r.more, r.condition, coalesce(r.ranking, 'sum(u.total_cost) desc, sum(u.calls) desc')
  from (
    values
    ('services', 'usage_aggregations_hourly', '(u.hour_start at time zone ''UTC'')::date', '{service_type}'::text[], null, 'true', null),
    (
      'users', 'usage_aggregations_daily_users', 'u.day', '{organization_id,user_id}',
      '''services'', count(distinct u.service_type) filter (where u.calls > 0),
      ''last_day'', max(u.day) filter (where u.calls > 0)', 'true', null
    ),
    (
      'agents', 'usage_aggregations_daily', 'u.day', '{organization_id,agent_id,agent_tier}', 'agent_name', 'true', null
    ),
    (
      'panels', 'usage_aggregations_daily_parts', 'u.day', '{organization_id,panel_id,panel_position,agent_id}', 'agent_name',
      'u.panel_id is not null', null
    ),
    (
      'workflows', 'usage_aggregations_daily_parts', 'u.day', '{organization_id,workflow_id,workflow_step}', 'workflow_step_name',
      'coalesce(u.workflow_id, u.workflow_step) is not null', null
    ),
    ('models', 'usage_aggregations_daily', 'u.day', '{provider,model}', null, 'true', null),
    (
      'cache', 'usage_aggregations_daily', 'u.day', '{service_type,provider,model}', null, 'true',
      'sum(u.potential_cost) - sum(u.total_cost) desc, sum(u.total_cost) desc, sum(u.calls) desc'
    )
  ) as r (report, source, day, labels, more, condition, ranking)
  where r.report = report_of.report
$$;

-- What is told of sums, as JSON: amounts as text, counts and rates as numbers.
create function vital_private.measures_json(m vital_private.usage_measures) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select jsonb_build_object(
    'calls', m.calls, 'cached_calls', m.cached_calls, 'failed_calls', m.failed_calls, 'blocked_calls', m.blocked_calls,
    'unpriced_calls', m.unpriced_calls, 'estimated_calls', m.estimated_calls,
    'prompt_tokens', m.prompt_tokens, 'completion_tokens', m.completion_tokens, 'total_tokens', m.total_tokens,
    'cache_read_tokens', m.cache_read_tokens,
    'total_cost', trim_scale(m.total_cost)::text, 'potential_cost', trim_scale(m.potential_cost)::text,
    'cache_savings', trim_scale(m.potential_cost - m.total_cost)::text,
    'hit_rate', round(m.cached_calls::numeric / nullif(m.calls, 0), 6),
    'success_rate', round((m.calls - m.failed_calls)::numeric / nullif(m.calls - m.blocked_calls, 0), 6),
    'average_latency_ms', round(m.latency_us / 1000 / nullif(m.timed_calls, 0), 3),
    'p50_latency_ms', round(p.latencies[1]::numeric, 3),
    'p95_latency_ms', round(p.latencies[2]::numeric, 3),
    'p99_latency_ms', round(p.latencies[3]::numeric, 3)
  )
  from public.latency_percentiles(m.latency_histogram, '{0.5,0.95,0.99}') as p (latencies)
$$;

-- The text of a query's column that adds up the measures of an aggregation `u`, as one vital_private.usage_measures.
create function vital_private.summed_usage() returns text
language sql
stable
set search_path = ''
as $$
  select 'row(' || string_agg(format('coalesce(sum(u.%I), 0)', a.attname), ', ' order by a.attnum) || ')::vital_private.usage_measures'
  from pg_catalog.pg_attribute as a
  where a.attrelid = 'vital_private.usage_measures'::regclass and a.attnum > 0
$$;

-- Whoever comes as a user of the API must be an admin of the organization; NULL, which is all of them, is for the service role.
create function vital_private.check_administered(organization text) returns void
language plpgsql
stable
set search_path = ''
as $$
begin
  if current_user = 'authenticated' and not coalesce(organization = any(vital_private.administered_organizations()), false) then
    raise exception 'Only an admin of organization % may ask for its figures.', coalesce(organization, '(all)') using errcode = '42501';
  end if;
end;
$$;

-- A report of the days (UTC) that a time touches: {"report", "since", "until", "organization", "fresh_at", "total": {...}, "rows": [{...,
-- "share", "days": [[day, cost], ...]}]}, the dearest rows first. `organization` NULL: all of them.
create function public.usage_report_v1(
  report text,
  since timestamptz,
  until timestamptz,
  organization text default null,
  rows integer default 50
) returns json
language plpgsql
stable
security definer
set search_path = ''
set timezone = 'UTC'
as $$
declare
  first_day date := date_trunc('day', since)::date;
  -- The first day that is not in it.
  last_day date := (date_trunc('day', until - interval '1 microsecond') + interval '1 day')::date;
  measures constant text := vital_private.summed_usage();
  kind record;
  period text;
  label text;
  key text;
  total vital_private.usage_measures;
  answer json;
begin
  select * into kind from vital_private.report_of(report);
  if not found then
    raise exception 'There is no report %.', quote_nullable(report) using errcode = '22023',
      hint = 'Choose services, users, agents, panels, workflows, models or cache.';
  end if;
  if since is null or until is null then
    raise exception 'A report needs to know from when until when.' using errcode = '22023';
  end if;
  -- Conditions that tables of days and of hours understand, without a function around their columns.
  period := case when organization is null then 'true' else 'u.organization_id = $3' end || ' and ' || kind.condition;
  execute format(
    'select (m.sums).* from (select %s as sums from public.%I as u where %s and %s offset 0) as m',
    measures,
    case when kind.condition = 'true' then 'usage_aggregations_hourly' else kind.source end,
    case
      when kind.condition = 'true' then 'u.hour_start >= $1::timestamptz and u.hour_start < $2::timestamptz'
      else 'u.day >= $1 and u.day < $2'
    end,
    period
  ) into total using first_day, last_day, organization;
  period := period || case
    when kind.source = 'usage_aggregations_hourly' then ' and u.hour_start >= $1::timestamptz and u.hour_start < $2::timestamptz'
    else ' and u.day >= $1 and u.day < $2'
  end;
  key := (select 'array[' || string_agg(format('u.%I::text', l), ', ') || ']' from unnest(kind.labels) as l);
  label := (
    select string_agg(format('%L, max(u.%I)', l, l), ', ')
      || case when kind.more not like '%(%' then format(
        ', %1$L, (array_agg(u.%1$I order by u.day desc, u.%1$I desc) filter (where u.%1$I is not null and u.calls > 0))[1]', kind.more
      ) else coalesce(', ' || kind.more, '') end
    from unnest(kind.labels) as l
  );
  -- First which rows, by the few sums that decide it; then all that is told of those, in one more pass over them alone.
  execute format(
    $query$
      with picked as materialized (
        select p.key, row_number() over () as place
        from (
          select %1$s as key
          from public.%2$I as u
          where %3$s
          group by 1
          having sum(u.calls) > 0
          order by %4$s, 1
          limit $4
        ) as p
      ),

      told as materialized (
        select
          picked.place, jsonb_build_object(%5$s) as label, %6$s as sums
        from public.%2$I as u
        inner join picked on picked.key = %1$s
        where %3$s
        group by picked.place
      ),

      days as (
        select d.place, jsonb_agg(jsonb_build_array(d.day, trim_scale(d.cost)::text) order by d.day) as days
        from (
          select picked.place, %7$s as day, sum(u.total_cost) as cost
          from public.%2$I as u
          inner join picked on picked.key = %1$s
          where %3$s
          group by 1, 2
          having sum(u.calls) > 0
        ) as d
        group by d.place
      )

      select json_agg(
        t.label || vital_private.measures_json(t.sums) || %8$s
        || jsonb_build_object('share', round(coalesce((t.sums).total_cost / nullif($5, 0), 0), 6), 'days', days.days)
        order by t.place
      )
      from told as t
      inner join days on days.place = t.place
    $query$,
    key, kind.source, period, kind.ranking, label, measures, kind.day,
    case
      when report = 'cache' then
        'jsonb_build_object(''prompt_cache_rate'', round((t.sums).cache_read_tokens / nullif((t.sums).prompt_tokens, 0), 6))'
      else '''{}'''
    end
  ) into answer using first_day, last_day, organization, least(greatest(rows, 0), 100000), total.total_cost;
  return json_build_object(
    'report', report, 'since', first_day::timestamptz, 'until', last_day::timestamptz, 'organization', organization,
    'fresh_at', now(),
    'total', vital_private.measures_json(total),
    'rows', coalesce(answer, '[]')
  );
end;
$$;

revoke execute on function vital_private.report_of(text) from public;
revoke execute on function vital_private.measures_json(vital_private.usage_measures) from public;
revoke execute on function vital_private.summed_usage() from public;
revoke execute on function vital_private.check_administered(text) from public;
revoke execute on function public.usage_report_v1(text, timestamptz, timestamptz, text, integer) from public, anon, authenticated;
grant execute on function vital_private.measures_json(vital_private.usage_measures) to authenticated, service_role;
grant execute on function vital_private.summed_usage() to authenticated, service_role;
grant execute on function vital_private.check_administered(text) to authenticated, service_role;
grant execute on function public.usage_report_v1(text, timestamptz, timestamptz, text, integer) to service_role;
