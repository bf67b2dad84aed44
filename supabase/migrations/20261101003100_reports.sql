-- Reports: what was spent by whom and on what. All but cost_breakdown read the aggregations, which takes milliseconds at ten million
-- calls. What signed-in users may call runs with their rights, so the policies decide what they see: admins their
-- organizations' calls and what is their own, users what is their own, the service role all. Days are those of UTC. Groupings and
-- measures are those of the catalogue.
--
-- Each function sets a time limit. The Data API applies it to the whole request. A statement that is under way keeps the limit with
-- which it began, so in SQL the session's own statement_timeout counts.

-- What was spent between two instants, grouped by one thing, from the calls themselves: select * from cost_breakdown('panel_seat').
-- Costs are US dollars of priced calls; unpriced ones are counted beside them. A group is told by its key, and `label` names it as its
-- newest calls do: two agents of one name stay two, and one that was renamed stays one.
create function public.cost_breakdown(
  by text,
  since timestamptz default null,
  until timestamptz default null,
  organization text default null
) returns table (
  label text,
  calls bigint,
  failed_calls bigint,
  cached_calls bigint,
  unpriced_calls bigint,
  prompt_tokens numeric,
  completion_tokens numeric,
  total_cost numeric,
  potential_cost numeric,
  average_latency_ms double precision,
  key text
)
language plpgsql
stable
set search_path = ''
set work_mem = '64MB'
set statement_timeout = '8s'
set jit = off
as $$
declare
  chosen constant vital_private.usage_groupings := vital_private.grouping_named(by, offered_by => 'cost_breakdown');
  keys constant text := (select string_agg(format('u.%I', k), ', ') from unnest(chosen.keys) as k);
  groups text;
begin
  perform vital_private.check_times(since, until);
  -- Calls by keys and names, ...
  groups := format(
    $query$
      select
        %1$s,
        sum(u.calls) as calls,
        coalesce(sum(u.calls) filter (where not u.success), 0) as failed_calls,
        coalesce(sum(u.calls) filter (where u.cache_hit), 0) as cached_calls,
        coalesce(sum(u.calls) filter (where not u.priced), 0) as unpriced_calls,
        sum(u.prompt_tokens) as prompt_tokens,
        sum(u.completion_tokens) as completion_tokens,
        coalesce(sum(u.total_cost), 0) as total_cost,
        coalesce(sum(u.potential_cost), 0) as potential_cost,
        sum(u.latency_ms) as latency_ms,
        count(u.latency_ms) as timed_calls%2$s
      from public.token_usage_logs as u
      where %3$s
      group by %1$s
    $query$,
    concat_ws(', ', keys, (select string_agg(format('u.%I', n), ', ') from unnest(chosen.call_names) as n)),
    case when chosen.call_names <> '{}' then ', max(u.created_at) as last_at' end,
    concat_ws(
      ' and ',
      format('u.%I is not null', chosen.keys[1]),
      case when since is not null then 'u.created_at >= $1' end,
      case when until is not null then 'u.created_at < $2' end,
      case when organization is not null then 'u.organization_id = $3' end
    )
  );
  -- ... and where there are names, by keys alone, with the newest names.
  if chosen.call_names <> '{}' then
    groups := format(
      $query$
        select
          %1$s, sum(u.calls) as calls, sum(u.failed_calls) as failed_calls, sum(u.cached_calls) as cached_calls,
          sum(u.unpriced_calls) as unpriced_calls, sum(u.prompt_tokens) as prompt_tokens,
          sum(u.completion_tokens) as completion_tokens, sum(u.total_cost) as total_cost, sum(u.potential_cost) as potential_cost,
          sum(u.latency_ms) as latency_ms, sum(u.timed_calls) as timed_calls, %2$s
        from (%3$s) as u
        group by %1$s
      $query$,
      keys,
      (
        select string_agg(
          format('(array_agg(u.%1$I order by u.last_at desc, u.%1$I desc) filter (where u.%1$I is not null))[1] as %1$I', n), ', '
        )
        from unnest(chosen.call_names) as n
      ),
      groups
    );
  end if;
  return query execute format(
    $query$
      select
        %1$s, u.calls::bigint, u.failed_calls::bigint, u.cached_calls::bigint, u.unpriced_calls::bigint, u.prompt_tokens,
        u.completion_tokens, u.total_cost, u.potential_cost, u.latency_ms / nullif(u.timed_calls, 0)::double precision, %2$s
      from (%3$s) as u
      where (%1$s) is not null
      order by u.total_cost desc, u.calls desc, 1, 11
    $query$,
    chosen.call_label,
    format('concat_ws('' / '', %s)', keys),
    groups
  ) using since, until, organization;
end;
$$;

-- The groups of something that cost most in the last `days` days, today (UTC) included, from the aggregations:
-- select * from top_usage('panel_seat', organization => 'acme').
create function public.top_usage(by text, days integer default 30, organization text default null, max_rows integer default 20)
returns table (
  label text,
  calls bigint,
  failed_calls bigint,
  unpriced_calls bigint,
  total_tokens numeric,
  total_cost numeric,
  percent_of_cost numeric,
  cache_savings numeric,
  hit_rate numeric,
  success_rate numeric,
  average_latency_ms double precision,
  p95_latency_ms double precision
)
language plpgsql
stable
set search_path = ''
set timezone = 'UTC'
set work_mem = '64MB'
set statement_timeout = '8s'
set jit = off
as $$
declare
  first_day constant date := vital_private.first_of_days(coalesce(days, 30));
  chosen constant vital_private.usage_groupings := vital_private.grouping_named(by, offered_by => 'top_usage');
begin
  return query execute format(
    $query$
      select
        s.label, %7$s, round(100 * s.total_cost / nullif(s.whole, 0), 4), %8$s
      from (
        select p.place, p.whole, %3$s as label, %4$s
        from vital_private.visible_%1$s as u
        inner join (
          -- First which groups, by the few sums that decide it; then all measures, of these groups alone.
          select %2$s, row_number() over dearest as place, sum(sum(u.total_cost)) over () as whole
          from vital_private.visible_%1$s as u
          where %5$s
          group by %2$s
          having sum(u.calls) > 0
          window dearest as (order by sum(u.total_cost) desc, sum(u.calls) desc, %2$s)
          order by place
          limit $3
        ) as p on %6$s
        where %5$s
        group by p.place, p.whole, %2$s
        offset 0
      ) as s
      order by s.place
    $query$,
    chosen.source,
    (select string_agg(format('u.%I', k), ', ') from unnest(chosen.keys) as k),
    replace(chosen.sum_label, '%s', coalesce(vital_private.newest(chosen.name_column), '')),
    vital_private.sum_columns(),
    concat_ws(
      ' and ',
      'u.day >= $1',
      case when organization is not null then 'u.organization_id = $2' end,
      format('u.%I is not null', chosen.keys[1])
    ),
    vital_private.same_keys(chosen.keys),
    vital_private.measure_columns('{calls, failed_calls, unpriced_calls, total_tokens, total_cost}'),
    vital_private.measure_columns('{cache_savings, hit_rate, success_rate, average_latency_ms, p95_latency_ms}')
  ) using first_day, organization, vital_private.rows_wanted(max_rows, 20);
end;
$$;

comment on function public.top_usage(text, integer, text, integer) is
'The dearest users, agents, panels, seats, steps, models ... of the last days, from the aggregations.';

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
set statement_timeout = '60s'
set jit = off
as $$
declare
  first_day constant date := date_trunc('day', since)::date;
  last_day constant date := (date_trunc('day', until - interval '1 microsecond') + interval '1 day')::date;
  chosen constant vital_private.usage_groupings := vital_private.grouping_named(report, offered_by => 'usage_report_v1');
  -- Where all rows are of one organization, it need not tell them apart.
  keys constant text[] := case
    when organization is null or chosen.keys = '{organization_id}' then chosen.keys else array_remove(chosen.keys, 'organization_id')
  end;
  -- Where there are few groups, all measures are added up at once; where there may be many, only for those that are shown.
  one_pass constant boolean := chosen.groups = 'few' or (chosen.groups = 'few an organization' and organization is not null);
  filters constant text := concat_ws(
    ' and ', 'u.day >= $1 and u.day < $2', case when organization is not null then 'u.organization_id = $3' end
  );
  answer json;
begin
  if since is null or until is null then
    raise exception 'A report needs to know from when until when.' using errcode = '22023', hint = 'Name since and until.';
  end if;
  perform vital_private.check_times(since, until);
  execute format(
    $query$
      with groups as materialized (
        select %1$s, %14$s
        from public.usage_aggregations_%2$s as u
        where %3$s and %4$s
        group by %1$s
        having sum(u.calls) > 0
      ),

      picked as materialized (
        select s.*, row_number() over (order by %5$s desc, s.total_cost desc, s.calls desc, %1$s) as place
        from groups as s
        order by place
        limit $4
      ),

      days as (
        select p.place, u.day, %6$s as detail, %15$s
        from public.usage_aggregations_%2$s as u
        inner join picked as p on %8$s
        where %3$s and %4$s
        group by 1, 2
        having sum(u.calls) > 0
      ),

      details as (
        select u.place, %9$s, jsonb_agg(jsonb_build_array(u.day, trim_scale(u.total_cost)::text) order by u.day) as days, %15$s
        from days as u
        cross join lateral (select u.day, u.detail) as d
        group by u.place
      ),

      total as materialized (
        select %7$s from %10$s
      )

      select json_build_object(
        'report', $5, 'since', $1::timestamptz, 'until', $2::timestamptz, 'organization', $3, 'fresh_at', now(),
        'total', %11$s,
        'rows', (
          select coalesce(json_agg(
            jsonb_build_object(%12$s, 'share', round(coalesce(s.total_cost / nullif(t.total_cost, 0), 0), 6), 'days', d.days) || %13$s
            order by p.place
          ), '[]')
          from picked as p
          inner join details as d on d.place = p.place
          cross join lateral (select %16$s.*) as s
        )
      )
      from total as t
    $query$,
    (select string_agg(format('%I', k), ', ') from unnest(keys) as k),
    chosen.source,
    filters,
    chosen.condition,
    vital_private.measure(chosen.ranked_by),
    coalesce(chosen.day_detail, 'max(u.' || chosen.name_column || ') filter (where u.calls > 0)', 'null'),
    vital_private.sum_columns(),
    vital_private.same_keys(keys),
    coalesce(
      chosen.details,
      '(array_agg(d.detail order by d.day desc) filter (where d.detail is not null))[1] as ' || chosen.name_column,
      'null'
    ),
    case
      when one_pass then 'groups as u'
      -- What counts every call is added up fastest in the smallest table.
      when chosen.condition = 'true' then format('public.usage_aggregations_daily_totals as u where %s', filters)
      else format('public.usage_aggregations_%s as u where %s and %s', chosen.source, filters, chosen.condition)
    end,
    vital_private.measures_json('t'),
    concat_ws(
      ', ',
      (select string_agg(format(case when k = any(keys) then '%1$L, p.%1$I' else '%1$L, $3' end, k), ', ') from unnest(chosen.keys) as k),
      quote_literal(chosen.name_column) || ', d.' || chosen.name_column,
      (select string_agg(format('%1$L, d.%1$I', d[1]), ', ') from regexp_matches(chosen.details, ' as (\w+)', 'g') as d)
    ),
    vital_private.measures_json('s', chosen.more_measures),
    case when one_pass then vital_private.sum_columns() else
      'sum(u.calls) as calls, sum(u.total_cost) as total_cost, sum(u.potential_cost) as potential_cost'
    end,
    case when one_pass then 'sum(u.total_cost) as total_cost' else vital_private.sum_columns() end,
    case when one_pass then 'p' else 'd' end
  ) into answer using first_day, last_day, organization, least(vital_private.rows_wanted(rows, 50), 100000), report;
  return answer;
end;
$$;

-- How reliable agents are: select * from agent_success_rate('cardio'), or of all agents: agent_success_rate(days => 7). A row for each
-- organization and agent, with its newest name.
create function public.agent_success_rate(agent text default null, days integer default 30, organization text default null)
returns table (
  organization_id text,
  agent_id text,
  agent_name text,
  calls bigint,
  failed_calls bigint,
  blocked_calls bigint,
  success_rate numeric,
  unpriced_calls bigint,
  total_cost numeric,
  cache_savings numeric,
  hit_rate numeric,
  average_latency_ms double precision
)
language plpgsql
stable
set search_path = ''
set statement_timeout = '8s'
set jit = off
as $$
begin
  return query execute format(
    $query$
      select s.organization_id, s.agent_id, s.agent_name, %3$s
      from (
        select u.organization_id, u.agent_id, %1$s as agent_name, %2$s
        from vital_private.visible_daily_agents as u
        where u.day >= $1
          and u.agent_id is not null
          and ($3 is null or u.agent_id = $3)
          and %4$s
        group by u.organization_id, u.agent_id
        having sum(u.calls) > 0
      ) as s
      order by 4 desc, 1, 2
    $query$,
    vital_private.newest('agent_name'),
    vital_private.sum_columns(),
    vital_private.measure_columns(
      '{calls, failed_calls, blocked_calls, success_rate, unpriced_calls, total_cost, cache_savings, hit_rate, average_latency_ms}'
    ),
    case when organization is null then 'true' else 'u.organization_id = $2' end
  ) using vital_private.first_of_days(coalesce(days, 30)), organization, agent;
end;
$$;

-- How much users use it: select * from user_engagement(organization => 'acme'). A row for each organization and user, the most active
-- first. Who administers no organization sees themselves.
create function public.user_engagement(days integer default 30, organization text default null, max_rows integer default 100)
returns table (
  organization_id text,
  user_id text,
  active_days bigint,
  calls bigint,
  calls_per_active_day numeric,
  first_day date,
  last_day date,
  services text[],
  failed_calls bigint,
  unpriced_calls bigint,
  total_cost numeric,
  cache_savings numeric,
  hit_rate numeric
)
language plpgsql
stable
set search_path = ''
set statement_timeout = '8s'
set jit = off
as $$
begin
  return query execute format(
    $query$
      select
        s.organization_id, s.user_id, s.active_days, %2$s, round(s.calls / s.active_days, 2), s.first_day, s.last_day,
        coalesce((select array_agg(distinct n.service) from unnest(string_to_array(s.services, ',')) as n (service)), '{}'),
        %3$s
      from (
        select
          u.organization_id, u.user_id, count(*) as active_days, min(u.day) as first_day, max(u.day) as last_day,
          string_agg(u.services, ',') as services, sum(u.calls) as calls, sum(u.failed_calls) as failed_calls,
          sum(u.unpriced_calls) as unpriced_calls, sum(u.cached_calls) as cached_calls, sum(u.total_cost) as total_cost,
          sum(u.potential_cost) as potential_cost
        from (
          select
            u.organization_id, u.user_id, u.day, string_agg(u.service_type, ',') as services,
            sum(u.calls) as calls, sum(u.failed_calls) as failed_calls, sum(u.unpriced_calls) as unpriced_calls,
            sum(u.cached_calls) as cached_calls, sum(u.total_cost) as total_cost, sum(u.potential_cost) as potential_cost
          from public.usage_aggregations_daily_users as u
          where u.day >= $1
            and u.user_id is not null
            and u.calls > 0
            and %1$s
          group by u.organization_id, u.user_id, u.day
        ) as u
        group by u.organization_id, u.user_id
      ) as s
      order by s.active_days desc, s.calls desc, s.user_id, s.organization_id
      limit $3
    $query$,
    case when organization is null then 'true' else 'u.organization_id = $2' end,
    vital_private.measure_columns('{calls}'),
    vital_private.measure_columns('{failed_calls, unpriced_calls, total_cost, cache_savings, hit_rate}')
  ) using vital_private.first_of_days(coalesce(days, 30)), organization, vital_private.rows_wanted(max_rows, 100);
end;
$$;

-- What an organization used between two instants (NULL: from its first call, until its last), to the microsecond: whole hours from the
-- aggregation, the parts of hours at both ends from the calls. So it is exact in every time zone:
-- select * from organization_cost('acme', '2026-03-01 Asia/Kolkata', '2026-04-01 Asia/Kolkata')
create function public.organization_cost(organization text, since timestamptz, until timestamptz)
returns table (
  calls bigint,
  failed_calls bigint,
  cached_calls bigint,
  unpriced_calls bigint,
  total_tokens numeric,
  total_cost numeric,
  potential_cost numeric,
  cache_savings numeric
)
language plpgsql
stable
set search_path = ''
set statement_timeout = '8s'
set jit = off
as $$
declare
  from_instant constant timestamptz := coalesce(since, '-infinity');
  until_instant constant timestamptz := coalesce(until, 'infinity');
  first_hour constant timestamptz := date_trunc('hour', from_instant + interval '1 hour' - interval '1 microsecond', 'UTC');
  last_hour constant timestamptz := date_trunc('hour', until_instant, 'UTC');
  kept_since constant timestamptz := vital_private.rows_kept_since();
begin
  if organization is null then
    raise exception 'Which organization?' using errcode = '22023', hint = 'Name one; top_usage(''organization'') lists them.';
  end if;
  perform vital_private.check_times(since, until);
  perform vital_private.check_administered(organization);
  if (from_instant < least(first_hour, until_instant) and from_instant < kept_since)
    or (until_instant > greatest(last_hour, from_instant) and last_hour < kept_since) then
    raise exception 'The calls before % are gone, and with them what parts of hours cost. Ask for whole hours (UTC) there.', kept_since
      using errcode = '55000';
  end if;
  return query
  select
    coalesce(sum(u.calls), 0)::bigint,
    coalesce(sum(u.failed_calls), 0)::bigint,
    coalesce(sum(u.cached_calls), 0)::bigint,
    coalesce(sum(u.unpriced_calls), 0)::bigint,
    coalesce(sum(u.total_tokens), 0),
    coalesce(sum(u.total_cost), 0),
    coalesce(sum(u.potential_cost), 0),
    coalesce(sum(u.potential_cost) - sum(u.total_cost), 0)
  from (
    select h.calls, h.failed_calls, h.cached_calls, h.unpriced_calls, h.total_tokens, h.total_cost, h.potential_cost
    from public.usage_aggregations_hourly_totals as h
    where h.organization_id = organization and h.hour_start >= first_hour and h.hour_start < last_hour
    union all
    select c.calls, c.failed_calls, c.cached_calls, c.unpriced_calls, c.total_tokens, c.total_cost, c.potential_cost
    from vital_private.measured_calls as c
    where c.organization_id = organization and c.created_at >= from_instant and c.created_at < least(first_hour, until_instant)
    union all
    select c.calls, c.failed_calls, c.cached_calls, c.unpriced_calls, c.total_tokens, c.total_cost, c.potential_cost
    from vital_private.measured_calls as c
    -- Where both instants are in one hour, the part above holds all calls.
    where c.organization_id = organization and c.created_at >= greatest(last_hour, first_hour) and c.created_at < until_instant
  ) as u;
end;
$$;

comment on function public.organization_cost(text, timestamptz, timestamptz) is
'What an organization used from one instant to another: calls, tokens, US dollars of priced calls, and what caches saved.';

select vital_private.restrict_functions(
  api => '{cost_breakdown, top_usage, usage_report_v1, agent_success_rate, user_engagement, organization_cost}'
);
