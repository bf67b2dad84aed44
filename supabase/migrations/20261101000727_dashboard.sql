-- What a dashboard shows, and the dearest of anything. Both run with the rights of whoever asks.

-- What a dashboard shows of an organization: the last `days` days, today (UTC) included, beside as many before them. Amounts are text, in
-- US dollars of priced calls: {"organization", "since", "until", "days", "fresh_at", "totals", "previous", "change" (0.25 is a
-- quarter more; null where there was nothing), "cache", "by_service", "by_model", "by_day", "top_users", "top_agents"}.
create function public.get_dashboard_stats(project_id text, days integer default 30) returns json
language plpgsql
stable
set search_path = ''
set timezone = 'UTC'
set work_mem = '64MB'
as $$
declare
  first_day date := vital_private.first_of_days(days);
  answer json;
begin
  perform vital_private.check_administered(project_id);
  execute format(
    $query$
      with services as materialized (
        select u.day, u.service_type, %2$s
        from public.usage_aggregations_daily_totals as u
        where u.day >= $2 - $3 and u.day < $2 + $3 and %3$s
        group by 1, 2
        having sum(u.calls) > 0
      ),

      users as materialized (
        select
          u.user_id, u.day >= $2 as recent, sum(u.calls) as calls, sum(u.failed_calls) as failed_calls,
          sum(u.unpriced_calls) as unpriced_calls, sum(u.total_cost) as total_cost, sum(u.potential_cost) as potential_cost
        from public.usage_aggregations_daily_users as u
        where u.day >= $2 - $3 and u.day < $2 + $3 and u.calls > 0 and u.user_id is not null and %3$s
        group by 1, 2
      ),

      pairs as materialized (
        select
          u.provider, u.model, u.agent_id, %2$s,
          -- The newest name: the one with the greatest day.
          max(array[u.day::text, u.agent_name] collate "C") filter (where u.agent_name is not null and u.calls > 0) as named
        from public.usage_aggregations_daily as u
        where u.day >= $2 and u.day < $2 + $3 and %3$s
        group by 1, 2, 3
        having sum(u.calls) > 0
      ),

      totals as (
        select t.recent, t.sums, t.active_users,
          vital_private.measures_json(t.sums) || jsonb_build_object('active_users', t.active_users) as told
        from (
          select w.recent, (select count(*) from users as p where p.recent = w.recent) as active_users, %1$s as sums
          from (values (true), (false)) as w (recent)
          left join services as u on (u.day >= $2) = w.recent
          group by w.recent
          offset 0
        ) as t
      )

      select json_build_object(
        'organization', $1, 'since', $2, 'until', $2 + $3 - 1, 'days', $3, 'fresh_at', now(),
        'totals', latest.told,
        'previous', previous.told || jsonb_build_object('since', $2 - $3, 'until', $2 - 1),
        'change', json_build_object(
          'calls', round(((latest.sums).calls - (previous.sums).calls) / nullif((previous.sums).calls, 0), 4),
          'total_cost', round(((latest.sums).total_cost - (previous.sums).total_cost) / nullif((previous.sums).total_cost, 0), 4),
          'active_users', round((latest.active_users - previous.active_users)::numeric / nullif(previous.active_users, 0), 4)
        ),
        'cache', json_build_object(
          'cached_calls', (latest.sums).cached_calls, 'hit_rate', latest.told -> 'hit_rate',
          'cache_savings', latest.told -> 'cache_savings',
          'savings_rate', round(
            ((latest.sums).potential_cost - (latest.sums).total_cost) / nullif((latest.sums).potential_cost, 0), 6
          ),
          'prompt_cache_rate', round((latest.sums).cache_read_tokens / nullif((latest.sums).prompt_tokens, 0), 6)
        ),
        'by_service', (
          select coalesce(json_agg(
            jsonb_build_object(
              'service_type', s.service_type, 'share', round(coalesce((s.sums).total_cost / nullif((latest.sums).total_cost, 0), 0), 6)
            ) || vital_private.measures_json(s.sums)
            order by (s.sums).total_cost desc, (s.sums).calls desc, s.service_type
          ), '[]')
          from (
            select u.service_type, %1$s as sums
            from services as u
            where u.day >= $2
            group by 1
            offset 0
          ) as s
        ),
        'by_model', (
          select coalesce(json_agg(
            jsonb_build_object(
              'provider', m.provider, 'model', m.model,
              'share', round(coalesce((m.sums).total_cost / nullif((latest.sums).total_cost, 0), 0), 6)
            ) || vital_private.measures_json(m.sums)
            order by (m.sums).total_cost desc, (m.sums).calls desc, m.provider, m.model
          ), '[]')
          from (select u.provider, u.model, %1$s as sums from pairs as u group by 1, 2 offset 0) as m
        ),
        'by_day', (
          select json_agg(jsonb_build_object('day', d.day::date) || vital_private.measures_json(d.sums) order by d.day)
          from (
            select g.day, %1$s as sums
            from generate_series($2::timestamp, ($2 + $3 - 1)::timestamp, interval '1 day') as g (day)
            left join services as u on u.day = g.day::date
            group by g.day
            offset 0
          ) as d
        ),
        'top_users', (
          select coalesce(json_agg(json_build_object(
            'user_id', u.user_id, 'calls', u.calls, 'failed_calls', u.failed_calls, 'unpriced_calls', u.unpriced_calls,
            'total_cost', trim_scale(u.total_cost)::text, 'cache_savings', trim_scale(u.potential_cost - u.total_cost)::text
          ) order by u.total_cost desc, u.calls desc, u.user_id), '[]')
          from (select p.* from users as p where p.recent order by p.total_cost desc, p.calls desc, p.user_id limit 10) as u
        ),
        'top_agents', (
          select coalesce(json_agg(json_build_object(
            'agent_id', a.agent_id, 'agent_name', a.named[2], 'calls', a.calls, 'failed_calls', a.failed_calls,
            'success_rate', round((a.calls - a.failed_calls) / nullif(a.calls - a.blocked_calls, 0), 6),
            'unpriced_calls', a.unpriced_calls,
            'total_cost', trim_scale(a.total_cost)::text, 'cache_savings', trim_scale(a.potential_cost - a.total_cost)::text
          ) order by a.total_cost desc, a.calls desc, a.agent_id), '[]')
          from (
            select
              u.agent_id, sum(u.calls) as calls, sum(u.failed_calls) as failed_calls, sum(u.blocked_calls) as blocked_calls,
              sum(u.unpriced_calls) as unpriced_calls, sum(u.total_cost) as total_cost, sum(u.potential_cost) as potential_cost,
              max(u.named collate "C") as named
            from pairs as u
            where u.agent_id is not null
            group by 1
            order by sum(u.total_cost) desc, sum(u.calls) desc, 1
            limit 10
          ) as a
        )
      )
      from totals as latest
      cross join totals as previous
      where latest.recent and not previous.recent
    $query$,
    vital_private.summed_usage(as_one => true), vital_private.summed_usage(as_one => false),
    case when project_id is null then 'true' else 'u.organization_id = $1' end
  ) into answer using project_id, first_day, days;
  return answer;
end;
$$;

comment on function public.get_dashboard_stats(text, integer) is
'An organization''s last days as JSON: totals beside the days before, by service, model and day, top users and agents, cache savings.';

-- The dearest of something in the last `days` days, today (UTC) included: select * from top_usage('panel_seat', organization => 'acme').
-- by: organization, service, user, agent, tier, provider, model, panel, panel_seat, workflow, workflow_step. Like cost_breakdown, but from
-- the aggregations: of whole days, and at once.
create function public.top_usage(by text, days integer default 30, organization text default null, max_rows integer default 20)
returns table (
  label text,
  calls bigint,
  failed_calls bigint,
  unpriced_calls bigint,
  total_tokens numeric,
  total_cost numeric,
  share_of_cost numeric,
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
as $$
declare
  first_day date := vital_private.first_of_days(days);
  newest constant text := '(array_agg(u.%1$I order by u.day desc, u.%1$I desc) filter (where u.%1$I is not null and u.calls > 0))[1]';
  newest_agent constant text := 'coalesce(' || format(newest, 'agent_name') || ', u.agent_id)';
  newest_step constant text := 'coalesce(' || format(newest, 'workflow_step_name') || ', u.workflow_step)';
  kind record;
begin
  select * into kind
  from (
    values
    ('organization', 'daily_totals', '{organization_id}'::text[], 'u.organization_id'),
    ('service', 'daily_totals', '{service_type}', 'u.service_type'),
    ('user', 'daily_users', '{user_id}', 'u.user_id'),
    ('agent', 'daily', '{agent_id}', newest_agent),
    ('tier', 'daily', '{agent_tier}', 'u.agent_tier'),
    ('provider', 'daily', '{provider}', 'u.provider'),
    ('model', 'daily', '{model}', 'u.model'),
    ('panel', 'daily_parts', '{panel_id}', 'u.panel_id'),
    (
      'panel_seat', 'daily_parts', '{panel_id,panel_position,agent_id}',
      'concat_ws('' / '', u.panel_id, ''seat '' || u.panel_position, ' || newest_agent || ')'
    ),
    ('workflow', 'daily_parts', '{workflow_id}', 'u.workflow_id'),
    (
      'workflow_step', 'daily_parts', '{workflow_step,workflow_id}',
      'concat_ws('' / '', u.workflow_id, ' || newest_step || ')'
    )
  ) as k (name, source, keys, label)
  where k.name = by;
  if not found then
    raise exception 'top_usage cannot group by %.', quote_nullable(by) using errcode = '22023',
      hint = 'Choose organization, service, user, agent, tier, provider, model, panel, panel_seat, workflow or workflow_step.';
  end if;
  return query execute format(
    $query$
      select
        s.label, (s.sums).calls::bigint, (s.sums).failed_calls::bigint, (s.sums).unpriced_calls::bigint,
        (s.sums).prompt_tokens + (s.sums).completion_tokens, (s.sums).total_cost,
        round((s.sums).total_cost / nullif(s.whole, 0), 6),
        (s.sums).potential_cost - (s.sums).total_cost,
        round((s.sums).cached_calls / nullif((s.sums).calls, 0), 6),
        round(((s.sums).calls - (s.sums).failed_calls) / nullif((s.sums).calls - (s.sums).blocked_calls, 0), 6),
        ((s.sums).latency_us / 1000 / nullif((s.sums).timed_calls, 0))::double precision,
        (public.latency_percentiles((s.sums).latency_histogram, '{0.95}'))[1]
      from (
        select p.place, p.whole, %3$s as label, %4$s as sums
        from public.usage_aggregations_%1$s as u
        inner join (
          -- First which ones, by the few sums that decide it; then all that is told, of those alone.
          select %2$s, row_number() over dearest as place, sum(sum(u.total_cost)) over () as whole
          from public.usage_aggregations_%1$s as u
          where %5$s
          group by %2$s
          having sum(u.calls) > 0
          window dearest as (order by sum(u.total_cost) desc, sum(u.calls) desc, %2$s)
          order by place
          limit greatest($3, 0)
        ) as p on %6$s
        where %5$s
        group by p.place, p.whole, %2$s
        offset 0
      ) as s
      order by s.place
    $query$,
    kind.source,
    (select string_agg('u.' || k, ', ') from unnest(kind.keys) as k),
    kind.label,
    vital_private.summed_usage(as_one => true),
    concat_ws(
      ' and ',
      'u.day >= $1',
      case when organization is not null then 'u.organization_id = $2' end,
      'u.' || kind.keys[1] || ' is not null'
    ),
    vital_private.same_labels(kind.keys)
  ) using first_day, organization, max_rows;
end;
$$;

comment on function public.top_usage(text, integer, text, integer) is
'The dearest users, agents, panels, seats, steps, models ... of the last days, from the aggregations.';

revoke execute on function public.get_dashboard_stats(text, integer) from public, anon;
revoke execute on function public.top_usage(text, integer, text, integer) from public, anon;
grant execute on function public.get_dashboard_stats(text, integer) to authenticated, service_role;
grant execute on function public.top_usage(text, integer, text, integer) to authenticated, service_role;
