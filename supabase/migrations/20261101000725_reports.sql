-- Reports for the command line, from the aggregations alone.

-- What is told of calls, as sums: aggregations added up in one go.
create type vital_private.usage_sums as (
  calls numeric,
  cached_calls numeric,
  failed_calls numeric,
  blocked_calls numeric,
  unpriced_calls numeric,
  estimated_calls numeric,
  timed_calls numeric,
  prompt_tokens numeric,
  completion_tokens numeric,
  cache_read_tokens numeric,
  total_cost numeric,
  potential_cost numeric,
  latency_us numeric,
  latency_histogram numeric
);

-- The text of columns that add up a relation `u`: with their names, or, where they come `as_one`, as one value of that type.
create function vital_private.summed_usage(as_one boolean) returns text
language sql
stable
set search_path = ''
as $$
  select case
    when as_one then format(
      'row(%s)::vital_private.usage_sums', string_agg(format('coalesce(sum(u.%I), 0)', a.attname), ', ' order by a.attnum)
    )
    else string_agg(format('sum(u.%1$I) as %1$I', a.attname), ', ' order by a.attnum)
  end
  from pg_catalog.pg_attribute as a
  inner join pg_catalog.pg_type as t on a.attrelid = t.typrelid
  where t.oid = 'vital_private.usage_sums'::regtype and a.attnum > 0
$$;

-- The same as JSON: amounts as text, counts and rates as numbers. There is no rate of nothing.
create function vital_private.measures_json(m vital_private.usage_sums) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select jsonb_build_object(
    'calls', m.calls, 'cached_calls', m.cached_calls, 'failed_calls', m.failed_calls, 'blocked_calls', m.blocked_calls,
    'unpriced_calls', m.unpriced_calls, 'estimated_calls', m.estimated_calls,
    'prompt_tokens', m.prompt_tokens, 'completion_tokens', m.completion_tokens, 'total_tokens', m.prompt_tokens + m.completion_tokens,
    'cache_read_tokens', m.cache_read_tokens,
    'total_cost', trim_scale(m.total_cost)::text, 'potential_cost', trim_scale(m.potential_cost)::text,
    'cache_savings', trim_scale(m.potential_cost - m.total_cost)::text,
    'hit_rate', round(m.cached_calls / nullif(m.calls, 0), 6),
    'success_rate', round((m.calls - m.failed_calls) / nullif(m.calls - m.blocked_calls, 0), 6),
    'average_latency_ms', round(m.latency_us / 1000 / nullif(m.timed_calls, 0), 3),
    'p50_latency_ms', round(p.latencies[1]::numeric, 3),
    'p95_latency_ms', round(p.latencies[2]::numeric, 3),
    'p99_latency_ms', round(p.latencies[3]::numeric, 3)
  )
  from public.latency_percentiles(m.latency_histogram, '{0.5,0.95,0.99}') as p (latencies)
$$;

-- The text of a condition: `u` and `p` have the same in these columns, NULL like any other value. First what can be hashed, then
-- what is right.
create function vital_private.same_labels(labels text[]) returns text
language sql
immutable
set search_path = ''
as $$
  select string_agg(
    format('coalesce(u.%1$I::text, '''') = coalesce(p.%1$I::text, '''') and u.%1$I is not distinct from p.%1$I', l), ' and '
  )
  from unnest(labels) as l
$$;

-- How each report groups calls: which table, by which columns; what more it tells of a group, from a column of its days; and whether
-- it can have so many groups that only those that are shown should be added up in full.
create function vital_private.report_of(report text)
returns table (source text, labels text[], detail text, more text, condition text, ranking text, many text)
language sql
immutable
set search_path = ''
as $$
  select
    'usage_aggregations_' || r.source, r.labels, r.detail,
    coalesce(r.more, format('jsonb_build_object(%L, (array_agg(d.detail order by d.day desc) filter (where d.detail is not null))[1])', r.name)),
    r.condition, coalesce(r.ranking, 'total_cost desc, calls desc'), r.many
  from (
    values
    ('services', 'daily_totals', '{service_type}'::text[], 'null', '''{}''::jsonb', null, 'true', null, 'never'),
    (
      'users', 'daily_users', '{organization_id,user_id}',
      'bit_or(array_position(''{null,1:1_conversation,virtual_panel,null,workflow,null,null,null,solution_builder}'', u.service_type) - 1)',
      'jsonb_build_object(''services'', bit_count(coalesce(bit_or(d.detail), 0)::bit(4)), ''last_day'', max(d.day))',
      null, 'true', null, 'always'
    ),
    ('agents', 'daily', '{organization_id,agent_id,agent_tier}', null, null, 'agent_name', 'true', null, 'over all'),
    (
      'panels', 'daily_parts', '{organization_id,panel_id,panel_position,agent_id}', null, null, 'agent_name',
      'u.panel_id is not null', null, 'always'
    ),
    (
      'workflows', 'daily_parts', '{organization_id,workflow_id,workflow_step}', null, null, 'workflow_step_name',
      'coalesce(u.workflow_id, u.workflow_step) is not null', null, 'over all'
    ),
    ('models', 'daily', '{provider,model}', 'null', '''{}''::jsonb', null, 'true', null, 'never'),
    (
      'cache', 'daily', '{service_type,provider,model}', 'null', '''{}''::jsonb', null, 'true',
      'potential_cost - total_cost desc, total_cost desc, calls desc', 'never'
    )
  ) as v (report, source, labels, detail, more, name, condition, ranking, many)
  cross join lateral (
    select v.source, v.labels, coalesce(v.detail, format('max(u.%I) filter (where u.calls > 0)', v.name)) as detail, v.more, v.name,
      v.condition, v.ranking, v.many
  ) as r
  where v.report = report_of.report
$$;

-- A report of the days (UTC) that a time touches: {"report", "since", "until", "organization", "fresh_at", "total": {...}, "rows": [{...,
-- "share", "days": [[day, cost], ...]}]}, the dearest rows first; "until" is the first instant that is not in it. `organization`
-- NULL: all of them.
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
set work_mem = '64MB'
as $$
declare
  first_day date := date_trunc('day', since)::date;
  last_day date := (date_trunc('day', until - interval '1 microsecond') + interval '1 day')::date;
  kind record;
  labels text[];
  one_pass boolean;
  days constant text := 'u.day >= $1 and u.day < $2';
  mine constant text := case when organization is null then 'true' else 'u.organization_id = $3' end;
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
  -- Where the organization is the same in all rows, it need not tell them apart.
  labels := case when organization is null then kind.labels else array_remove(kind.labels, 'organization_id') end;
  one_pass := kind.many = 'never' or (kind.many = 'over all' and organization is not null);
  execute format(
    $query$
      with groups as materialized (
        select %1$s, %2$s
        from public.%3$I as u
        where %4$s
        group by %1$s
        having sum(u.calls) > 0
      ),

      picked as materialized (
        select g.*, row_number() over (order by %5$s, %1$s) as place
        from groups as g
        order by place
        limit $4
      ),

      total as (
        select %6$s as sums from %7$s
      ),

      days as (
        select p.place, u.day, %8$s as detail, %9$s
        from public.%3$I as u
        inner join picked as p on %10$s
        where %4$s
        group by 1, 2
        having sum(u.calls) > 0
      ),

      told as (
        select
          u.place, %11$s as sums, %12$s as more,
          jsonb_agg(jsonb_build_array(u.day, trim_scale(u.total_cost)::text) order by u.day) as days
        from days as u
        cross join lateral (select u.day, u.detail) as d
        group by u.place
      )

      select json_build_object(
        'report', $5, 'since', $1::timestamptz, 'until', $2::timestamptz, 'organization', $3, 'fresh_at', now(),
        'total', vital_private.measures_json(total.sums),
        'rows', (
          select coalesce(json_agg(
            jsonb_build_object(%13$s) || t.more || vital_private.measures_json(r.sums) || jsonb_build_object(
              'share', round(coalesce((r.sums).total_cost / nullif((total.sums).total_cost, 0), 0), 6), 'days', t.days
            ) || %14$s
            order by p.place
          ), '[]')
          from picked as p
          inner join told as t on p.place = t.place
          cross join lateral (select %15$s as sums offset 0) as r
        )
      )
      from (select sums from total offset 0) as total
    $query$,
    (select string_agg(format('%I', l), ', ') from unnest(labels) as l),
    case when one_pass then vital_private.summed_usage(as_one => false) else
      'sum(u.calls) as calls, sum(u.total_cost) as total_cost, sum(u.potential_cost) as potential_cost'
    end,
    kind.source,
    concat_ws(' and ', mine, kind.condition, days),
    kind.ranking,
    vital_private.summed_usage(as_one => true),
    case
      when one_pass then 'groups as u'
      when kind.condition = 'true' then format('public.usage_aggregations_daily_totals as u where %s and %s', mine, days)
      else format('public.%I as u where %s and %s and %s', kind.source, mine, kind.condition, days)
    end,
    kind.detail,
    case when one_pass then 'sum(u.total_cost) as total_cost' else vital_private.summed_usage(as_one => false) end,
    vital_private.same_labels(labels),
    case when one_pass then 'null::vital_private.usage_sums' else vital_private.summed_usage(as_one => true) end,
    kind.more,
    (
      select string_agg(format(case when l = any(labels) then '%1$L, p.%1$I' else '%1$L, $3' end, l), ', ') from unnest(kind.labels) as l
    ),
    case
      when report = 'cache' then
        'jsonb_build_object(''prompt_cache_rate'', round((r.sums).cache_read_tokens / nullif((r.sums).prompt_tokens, 0), 6))'
      else '''{}'''
    end,
    case
      when one_pass then regexp_replace(vital_private.summed_usage(as_one => true), 'sum\(u\.(\w+)\)', 'p.\1', 'g')
      else 't.sums'
    end
  ) into answer using first_day, last_day, organization, least(greatest(rows, 0), 100000), report;
  return answer;
end;
$$;

revoke execute on function vital_private.report_of(text) from public;
revoke execute on function vital_private.measures_json(vital_private.usage_sums) from public;
revoke execute on function vital_private.summed_usage(boolean) from public;
revoke execute on function vital_private.same_labels(text[]) from public;
revoke execute on function public.usage_report_v1(text, timestamptz, timestamptz, text, integer) from public, anon, authenticated;
grant execute on function vital_private.measures_json(vital_private.usage_sums) to authenticated, service_role;
grant execute on function vital_private.summed_usage(boolean) to authenticated, service_role;
grant execute on function vital_private.same_labels(text[]) to authenticated, service_role;
grant execute on function public.usage_report_v1(text, timestamptz, timestamptz, text, integer) to service_role;
