-- What a dashboard shows, in one answer. It runs with the rights of whoever asks.

-- What a dashboard shows of an organization: the last `days` days, today (UTC) included, beside as many days before them. Amounts are text,
-- in US dollars of priced calls: {"organization", "since", "until", "days", "fresh_at", "totals", "previous", "change" (0.25 is a
-- quarter more; null where there was nothing before), "cache", "by_service", "by_model", "by_day", "top_users", "top_agents"}.
create function public.get_dashboard_stats(project_id text, days integer default 30) returns json
language plpgsql
stable
set search_path = ''
set timezone = 'UTC'
set work_mem = '64MB'
as $$
declare
  first_day constant date := vital_private.first_of_days(days);
  answer json;
begin
  perform vital_private.check_administered(project_id);
  execute format(
    $query$
      with services as materialized (
        select u.day, u.service_type, %1$s
        from public.usage_aggregations_daily_totals as u
        where u.day >= $2 - $3 and u.day < $2 + $3 and %2$s
        group by 1, 2
        having sum(u.calls) > 0
      ),

      users as materialized (
        select
          u.user_id, u.day >= $2 as recent, sum(u.calls) as calls, sum(u.failed_calls) as failed_calls,
          sum(u.unpriced_calls) as unpriced_calls, sum(u.total_cost) as total_cost, sum(u.potential_cost) as potential_cost
        from public.usage_aggregations_daily_users as u
        where u.day >= $2 - $3 and u.day < $2 + $3 and u.calls > 0 and u.user_id is not null and %2$s
        group by 1, 2
      ),

      pairs as materialized (
        select
          u.provider, u.model, u.agent_id, %1$s,
          -- The newest name is the one with the greatest day.
          max(array[u.day::text, u.agent_name] collate "C") filter (where u.agent_name is not null and u.calls > 0) as named
        from public.usage_aggregations_daily as u
        where u.day >= $2 and u.day < $2 + $3 and %2$s
        group by 1, 2, 3
        having sum(u.calls) > 0
      ),

      totals as (
        select s.*, %3$s || jsonb_build_object('active_users', s.active_users) as shown
        from (
          select w.recent, (select count(*) from users as p where p.recent = w.recent) as active_users, %1$s
          from (values (true), (false)) as w (recent)
          left join services as u on (u.day >= $2) = w.recent
          group by w.recent
          offset 0
        ) as s
      )

      select json_build_object(
        'organization', $1, 'since', $2, 'until', $2 + $3 - 1, 'days', $3, 'fresh_at', now(),
        'totals', latest.shown,
        'previous', previous.shown || jsonb_build_object('since', $2 - $3, 'until', $2 - 1),
        'change', json_build_object(
          'calls', round((latest.calls - previous.calls) / nullif(previous.calls, 0), 4),
          'total_cost', round((latest.total_cost - previous.total_cost) / nullif(previous.total_cost, 0), 4),
          'active_users', round((latest.active_users - previous.active_users)::numeric / nullif(previous.active_users, 0), 4)
        ),
        'cache', json_build_object(
          'cached_calls', latest.cached_calls, 'hit_rate', latest.shown -> 'hit_rate',
          'cache_savings', latest.shown -> 'cache_savings', 'savings_rate', %4$s, 'prompt_cache_rate', %5$s
        ),
        'by_service', (
          select coalesce(json_agg(
            jsonb_build_object(
              'service_type', s.service_type, 'share', round(coalesce(s.total_cost / nullif(latest.total_cost, 0), 0), 6)
            ) || %3$s
            order by s.total_cost desc, s.calls desc, s.service_type
          ), '[]')
          from (select u.service_type, %1$s from services as u where u.day >= $2 group by 1 offset 0) as s
        ),
        'by_model', (
          select coalesce(json_agg(
            jsonb_build_object(
              'provider', s.provider, 'model', s.model,
              'share', round(coalesce(s.total_cost / nullif(latest.total_cost, 0), 0), 6)
            ) || %3$s
            order by s.total_cost desc, s.calls desc, s.provider, s.model
          ), '[]')
          from (select u.provider, u.model, %1$s from pairs as u group by 1, 2 offset 0) as s
        ),
        'by_day', (
          select json_agg(jsonb_build_object('day', s.day::date) || %3$s order by s.day)
          from (
            select g.day, %1$s
            from generate_series($2::timestamp, ($2 + $3 - 1)::timestamp, interval '1 day') as g (day)
            left join services as u on u.day = g.day::date
            group by g.day
            offset 0
          ) as s
        ),
        'top_users', (
          select coalesce(json_agg(json_build_object(
            'user_id', s.user_id, 'calls', s.calls, 'failed_calls', s.failed_calls, 'unpriced_calls', s.unpriced_calls,
            'total_cost', trim_scale(s.total_cost)::text, 'cache_savings', trim_scale(%6$s)::text
          ) order by s.total_cost desc, s.calls desc, s.user_id), '[]')
          from (select p.* from users as p where p.recent order by p.total_cost desc, p.calls desc, p.user_id limit 10) as s
        ),
        'top_agents', (
          select coalesce(json_agg(json_build_object(
            'agent_id', s.agent_id, 'agent_name', s.named[2], 'calls', s.calls, 'failed_calls', s.failed_calls,
            'success_rate', %7$s, 'unpriced_calls', s.unpriced_calls,
            'total_cost', trim_scale(s.total_cost)::text, 'cache_savings', trim_scale(%6$s)::text
          ) order by s.total_cost desc, s.calls desc, s.agent_id), '[]')
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
          ) as s
        )
      )
      from totals as latest
      cross join totals as previous
      where latest.recent and not previous.recent
    $query$,
    vital_private.sum_columns(),
    case when project_id is null then 'true' else 'u.organization_id = $1' end,
    vital_private.measures_json(),
    vital_private.measure('savings_rate', 'latest'),
    vital_private.measure('prompt_cache_rate', 'latest'),
    vital_private.measure('cache_savings'),
    vital_private.measure('success_rate')
  ) into answer using project_id, first_day, days;
  return answer;
end;
$$;

comment on function public.get_dashboard_stats(text, integer) is
'An organization''s last days as JSON: totals beside the days before, by service, model and day, top users and agents, cache savings.';

select vital_private.restrict_functions(api => '{get_dashboard_stats}');
