-- What a dashboard shows: a row a day, and all of it in one answer. Both run with the rights of whoever asks.

-- A project's last days, today (UTC) included: a row a day with the columns of usage_aggregations_daily, days without requests too, the oldest
-- first: select * from get_dashboard_stats('acme', 7). `p_project_id` NULL counts all that one may see. Users see what is their own.
create function public.get_dashboard_stats(p_project_id text default null, p_days integer default 30)
returns setof public.usage_aggregations_daily
language plpgsql
stable
set search_path = ''
set timezone = 'UTC'
set work_mem = '64MB'
set statement_timeout = '8s'
set jit = off
as $$
declare
  filters constant text := concat_ws(' and ', 'u.day >= $2', case when p_project_id is not null then 'u.organization_id = $1' end);
  measures constant text[] := array_remove(vital_private.summed_measures(), 'latency_histogram');
  columns constant text := (select string_agg(format('u.%I', m), ', ') from unnest(measures) as m);
begin
  return query execute format(
    $query$
      with own as materialized (
        select u.day, u.provider, u.model, u.total_tokens, %8$s from %9$s as u where %1$s
      ),

      parts as materialized (
        select u.day, u.provider, u.model, sum(u.calls) as calls, sum(u.total_tokens) as total_tokens, sum(u.total_cost) as total_cost,
          sum(u.unpriced_calls) as unpriced_calls
        from (
          select u.day, u.provider, u.model, u.calls, u.total_tokens, u.total_cost, u.unpriced_calls
          from public.usage_aggregations_daily_agents as u
          where %1$s
          union all
          select u.day, u.provider, u.model, u.calls, u.total_tokens, u.total_cost, u.unpriced_calls from own as u
        ) as u
        group by u.day, u.provider, u.model
        having sum(u.calls) > 0
      ),

      providers as (
        select p.day, %2$s as told
        from (select u.day, %3$s from parts as u group by u.day, name) as p
        group by p.day
      ),

      models as (
        select p.day, %2$s as told
        from (select u.day, %4$s from parts as u group by u.day, name) as p
        group by p.day
      ),

      totals as (
        select u.day, %5$s
        from (
          select u.day, %8$s from public.usage_aggregations_daily_totals as u where %1$s
          union all
          select u.day, %8$s from own as u
        ) as u
        group by u.day
      )

      select $1, s.day, %6$s
      from (
        select d.day::date as day, %7$s, providers.told as by_provider, models.told as by_model
        from generate_series($2::timestamp, now() at time zone 'UTC', interval '1 day') as d (day)
        left join totals as t on t.day = d.day::date
        left join providers on providers.day = d.day::date
        left join models on models.day = d.day::date
        offset 0
      ) as s
      order by s.day
    $query$,
    filters, vital_private.parts_json(), vital_private.part_columns('provider'), vital_private.part_columns('model'),
    (select string_agg(format('sum(u.%1$I) as %1$I', m), ', ') from unnest(measures) as m),
    vital_private.project_columns($json$coalesce(s.by_provider, '{}')$json$, $json$coalesce(s.by_model, '{}')$json$),
    (select string_agg(format('coalesce(t.%1$I, 0) as %1$I', m), ', ') from unnest(measures) as m),
    columns,
    -- What the sums do not show to whoever asks: of these days alone, and read once.
    vital_private.measured($calls$(
      select o.* from vital_private.own_calls($2::timestamp at time zone 'UTC') as o where (select current_user) = 'authenticated'
    )$calls$)
  ) using p_project_id, vital_private.first_of_days(coalesce(p_days, 30));
end;
$$;

comment on function public.get_dashboard_stats(text, integer) is
'A project''s last days: a row a day with the columns of usage_aggregations_daily, the oldest first.';

-- What a dashboard shows of an organization: the last `days` days, today (UTC) included, beside as many days before them. Amounts are text,
-- in US dollars of priced calls, rates are percent: {"organization", "since", "until", "days", "fresh_at", "totals", "previous",
-- "change_percent" (25 is a quarter more; null where there was nothing before), "cache", "by_service", "by_model", "by_day", "top_users",
-- "top_agents"}.
create function public.dashboard_summary(organization text default null, days integer default 30) returns json
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
  known_days constant integer := coalesce(days, 30);
  answer json;
begin
  perform vital_private.check_administered(organization);
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
        from public.usage_aggregations_daily_agents as u
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
        'change_percent', json_build_object(
          'calls', round(100 * (latest.calls - previous.calls) / nullif(previous.calls, 0), 2),
          'total_cost', round(100 * (latest.total_cost - previous.total_cost) / nullif(previous.total_cost, 0), 2),
          'active_users', round(100.0 * (latest.active_users - previous.active_users) / nullif(previous.active_users, 0), 2)
        ),
        'cache', json_build_object(
          'cached_calls', latest.cached_calls, 'hit_rate', latest.shown -> 'hit_rate',
          'cache_savings', latest.shown -> 'cache_savings', 'savings_rate', %4$s, 'prompt_cache_rate', %5$s
        ),
        'by_service', (
          select coalesce(json_agg(
            jsonb_build_object(
              'service_type', s.service_type, 'percent_of_cost', round(coalesce(100 * s.total_cost / nullif(latest.total_cost, 0), 0), 4)
            ) || %3$s
            order by s.total_cost desc, s.calls desc, s.service_type
          ), '[]')
          from (select u.service_type, %1$s from services as u where u.day >= $2 group by 1 offset 0) as s
        ),
        'by_model', (
          select coalesce(json_agg(
            jsonb_build_object(
              'provider', s.provider, 'model', s.model,
              'percent_of_cost', round(coalesce(100 * s.total_cost / nullif(latest.total_cost, 0), 0), 4)
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
    case when organization is null then 'true' else 'u.organization_id = $1' end,
    vital_private.measures_json(),
    vital_private.measure('savings_rate', 'latest'),
    vital_private.measure('prompt_cache_rate', 'latest'),
    vital_private.measure('cache_savings'),
    vital_private.measure('success_rate')
  ) into answer using organization, first_day, known_days;
  return answer;
end;
$$;

comment on function public.dashboard_summary(text, integer) is
'An organization''s last days as JSON: totals beside the days before, by service, model and day, top users and agents, cache savings.';

select vital_private.restrict_functions(api => '{get_dashboard_stats, dashboard_summary}');
