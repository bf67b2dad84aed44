-- Views, always fresh: a row a day by service, by user and agent, and of the whole system. They are security_invoker, so the policies
-- decide what is seen. Days are those of UTC; rates are percent.

-- All days, for views that take them one by one. A table, because the order of its index is known before a row is computed: who asks for the
-- newest days waits for these alone.
create table vital_private.days (day date primary key);

insert into vital_private.days
select d::date from generate_series(timestamp '1970-01-01', timestamp '2099-12-31', interval '1 day') as d;

select vital_private.restrict_relation('vital_private.days', readers => '{authenticated, service_role}');

create policy "Signed-in users see all days" on vital_private.days
for select to authenticated
using (true);

do $do$
declare
  -- For longer times than a day: sums, of which averages and percentiles can be taken anew.
  additive constant text := 's.timed_calls::bigint as timed_calls, s.latency_us, s.latency_histogram';
begin
  execute format(
    $view$
    create view public.service_performance_metrics with (security_invoker = true) as
    select d.day, s.organization_id, s.service_type, %1$s, %2$s
    from vital_private.days as d
    cross join lateral (
      select u.organization_id, u.service_type, %3$s
      from (
        select u.organization_id, u.service_type, %4$s from public.usage_aggregations_daily_totals as u where u.day = d.day
        union all
        select u.organization_id, u.service_type, %4$s from %5$s as u
      ) as u
      group by u.organization_id, u.service_type
      having sum(u.calls) > 0
    ) as s
    where
      d.day >= (select min(u.day) from vital_private.visible_daily_totals as u)
      and d.day <= (select max(u.day) from vital_private.visible_daily_totals as u)
    $view$,
    vital_private.measure_columns(), additive, vital_private.sum_columns(),
    (select string_agg(format('u.%I', m), ', ') from unnest(vital_private.summed_measures()) as m),
    vital_private.measured($calls$(
      select o.*
      from vital_private.own_calls(d.day::timestamp at time zone 'UTC', (d.day + 1)::timestamp at time zone 'UTC') as o
      where (select current_user) = 'authenticated'
    )$calls$)
  );
end;
$do$;

comment on view public.service_performance_metrics is
'A row a day, organization and service: calls, tokens, US dollars of priced calls, cache savings, success, latency.';
comment on column public.service_performance_metrics.average_cost is 'US dollars a priced call; NULL where there is none.';
comment on column public.service_performance_metrics.latency_histogram is
'For longer times: latency_percentile(sum(latency_histogram), 0.95), and sum(latency_us) / 1000 / sum(timed_calls) is the average.';

-- A row a day, user, agent, framework and provider. The sums know agents and users, not which user asked which agent, so a day comes from its
-- calls, or where these are gone from the sums of agents, without the user. Days are taken one by one, so that a condition on the date
-- leaves out the calls of all others.
do $do$
begin
  execute format(
    $view$
    create view public.agent_performance_metrics with (security_invoker = true) as
    select
      s.user_id, s.agent_id, s.agent_name, s.framework, s.provider, d.day as date,
      s.calls::bigint as total_requests,
      (s.calls - s.failed_calls)::bigint as successful_requests,
      s.failed_calls::bigint as failed_requests,
      s.prompt_tokens::bigint as total_input_tokens,
      s.completion_tokens::bigint as total_output_tokens,
      (s.prompt_tokens + s.completion_tokens)::bigint as total_tokens,
      s.total_cost as total_cost_usd,
      (%1$s)::double precision as avg_response_time_ms,
      s.popular_actions,
      s.organization_id,
      s.agent_tier,
      s.cached_calls::bigint as cached_requests,
      s.blocked_calls::bigint as blocked_requests,
      s.timed_out_calls::bigint as timed_out_requests,
      s.unpriced_calls::bigint as unpriced_requests,
      s.potential_cost as potential_cost_usd,
      %2$s as total_savings_usd,
      %3$s as cache_hit_rate,
      %4$s as success_rate,
      %5$s as timeout_rate,
      s.timed_calls::bigint as timed_calls,
      s.latency_us
    from vital_private.days as d
    cross join lateral (
      select
        u.organization_id, u.user_id, u.agent_id, u.framework, u.provider, max(u.agent_name) as agent_name, max(u.agent_tier) as agent_tier,
        jsonb_object_agg(coalesce(u.message_type, '(no message type)'), u.calls) as popular_actions, %6$s
      from (
        select
          u.organization_id, u.user_id, u.agent_id, u.framework, u.provider, u.message_type, max(u.agent_name) as agent_name,
          max(u.agent_tier) as agent_tier, %6$s
        from (
          select u.organization_id, u.user_id, u.agent_id, u.framework, u.provider, u.message_type, u.agent_name, u.agent_tier, %7$s
          from %8$s as u
          union all
          select u.organization_id, null, u.agent_id, u.framework, u.provider, u.message_type, u.agent_name, u.agent_tier, %7$s
          from public.usage_aggregations_daily_agents as u
          where u.day = d.day and d.day::timestamp at time zone 'UTC' < (select vital_private.rows_kept_since())
        ) as u
        group by u.organization_id, u.user_id, u.agent_id, u.framework, u.provider, u.message_type
        having sum(u.calls) > 0
      ) as u
      group by u.organization_id, u.user_id, u.agent_id, u.framework, u.provider
    ) as s
    where
      d.day >= (select min(u.day) from vital_private.visible_daily_totals as u)
      and d.day <= (select max(u.day) from vital_private.visible_daily_totals as u)
    $view$,
    vital_private.measure('average_latency_ms'), vital_private.measure('cache_savings'), vital_private.measure('hit_rate'),
    vital_private.measure('success_rate'), vital_private.measure('timeout_rate'),
    (select string_agg(format('sum(u.%1$I) as %1$I', m), ', ') from unnest(vital_private.summed_measures()) as m where m <> 'latency_histogram'),
    (select string_agg(format('u.%I', m), ', ') from unnest(vital_private.summed_measures()) as m where m <> 'latency_histogram'),
    vital_private.measured(
      '(select c.* from public.token_usage_logs as c
        where c.created_at >= d.day::timestamp at time zone ''UTC'' and c.created_at < (d.day + 1)::timestamp at time zone ''UTC''
          and d.day::timestamp at time zone ''UTC'' >= (select vital_private.rows_kept_since()))'
    )
  );
end;
$do$;

comment on view public.agent_performance_metrics is
'A row a day, user, agent, framework and provider: requests, tokens, US dollars of priced ones, response times, message types.';
comment on column public.agent_performance_metrics.user_id is 'NULL, too, where the calls of the day are gone.';
comment on column public.agent_performance_metrics.agent_name is 'A name that the agent had on that day.';
comment on column public.agent_performance_metrics.popular_actions is 'Requests by message type: {"chat": 12, "embedding": 3}.';
comment on column public.agent_performance_metrics.latency_us is 'For longer times: sum(latency_us) / 1000 / sum(timed_calls) is the average.';

-- The whole system, or for an admin their part of it, or for a user what is their own: a row a day, from the first day with a call until
-- today, days without calls too.
do $do$
begin
  execute format(
    $view$
    create view public.system_analytics with (security_invoker = true) as
    select
      d.day as date,
      coalesce(width_bucket(d.day, known.first_days), 0)::bigint as total_users, -- how many of them are not after the day
      active.users as active_users,
      coalesce(width_bucket(d.day, known.first_days) - width_bucket(d.day - 1, known.first_days), 0)::bigint as new_users,
      coalesce(s.calls, 0)::bigint as total_requests,
      coalesce(s.calls - s.failed_calls, 0)::bigint as successful_requests,
      coalesce(s.failed_calls, 0)::bigint as failed_requests,
      coalesce(s.prompt_tokens, 0)::bigint as total_input_tokens,
      coalesce(s.completion_tokens, 0)::bigint as total_output_tokens,
      coalesce(s.prompt_tokens + s.completion_tokens, 0)::bigint as total_tokens,
      coalesce(s.total_cost, 0) as total_cost_usd,
      coalesce(s.cost_by_provider, '{}') as cost_by_provider,
      (%2$s)::double precision as avg_response_time_ms,
      %3$s as success_rate,
      coalesce(s.popular_agents, '[]') as popular_agents,
      coalesce(s.framework_usage, '{}') as framework_usage,
      coalesce(s.provider_usage, '{}') as provider_usage,
      coalesce(active.top, '[]') as top_users_by_usage,
      coalesce(s.cached_calls, 0)::bigint as cached_requests,
      coalesce(s.blocked_calls, 0)::bigint as blocked_requests,
      coalesce(s.timed_out_calls, 0)::bigint as timed_out_requests,
      coalesce(s.unpriced_calls, 0)::bigint as unpriced_requests,
      coalesce(s.potential_cost, 0) as potential_cost_usd,
      coalesce(%4$s, 0) as total_savings_usd,
      %5$s as cache_hit_rate,
      %6$s as timeout_rate
    from vital_private.days as d
    cross join (
      -- One row, so that it is computed once and leaves the days in their order.
      select array_agg(f.first_day order by f.first_day) as first_days
      from (
        select min(u.day) as first_day
        from vital_private.visible_daily_users as u
        -- By the policies, admins also see rows of their own, in organizations that they do not administer. Not here.
        where u.calls > 0 and u.user_id is not null and %1$s
        group by u.user_id
      ) as f
    ) as known
    cross join
      lateral (
        with own as materialized (
          select u.organization_id, u.provider, u.framework, u.agent_id, u.agent_name, %8$s from %9$s as u
        ),

        parts as materialized (
          select
            coalesce(u.provider, '(no provider)') as provider,
            coalesce(u.framework, '(no framework)') as framework,
            u.agent_id,
            max(u.agent_name) as agent_name,
            sum(u.calls) as calls,
            sum(u.total_cost) as total_cost
          from (
            select u.organization_id, u.provider, u.framework, u.agent_id, u.agent_name, u.calls, u.total_cost
            from public.usage_aggregations_daily_agents as u
            where u.day = d.day
            union all
            select o.organization_id, o.provider, o.framework, o.agent_id, o.agent_name, o.calls, o.total_cost from own as o
          ) as u
          where %1$s
          group by 1, 2, 3
          having sum(u.calls) > 0
        ),

        providers as (
          select
            p.provider,
            sum(p.calls) as calls,
            sum(p.total_cost) as total_cost
          from parts as p
          group by p.provider
        ),

        frameworks as (
          select
            p.framework,
            sum(p.calls) as calls
          from parts as p
          group by p.framework
        ),

        agents as (
          select
            p.agent_id,
            max(p.agent_name) as agent_name,
            sum(p.calls) as calls,
            sum(p.total_cost) as total_cost
          from parts as p
          where p.agent_id is not null
          group by p.agent_id
          order by sum(p.calls) desc, p.agent_id asc
          limit 5
        )

        select
          %7$s,
          (select jsonb_object_agg(r.provider, trim_scale(r.total_cost)) from providers as r) as cost_by_provider,
          (select jsonb_object_agg(r.provider, r.calls) from providers as r) as provider_usage,
          (select jsonb_object_agg(r.framework, r.calls) from frameworks as r) as framework_usage,
          (
            select
              jsonb_agg(
                jsonb_build_object('agent_id', r.agent_id, 'agent_name', r.agent_name, 'requests', r.calls, 'cost_usd', trim_scale(r.total_cost))
                order by r.calls desc, r.agent_id asc
              )
            from agents as r
          ) as popular_agents
        from (
          select u.organization_id, %8$s from public.usage_aggregations_daily_totals as u where u.day = d.day
          union all
          select u.organization_id, %8$s from own as u
        ) as u
        where %1$s
      ) as s
    cross join lateral (
      select
        count(p.user_id) as users,
        jsonb_agg(
          jsonb_build_object(
            'user_id', p.user_id, 'requests', p.calls, 'total_tokens', p.total_tokens, 'cost_usd', trim_scale(p.total_cost)
          ) order by p.place
        ) filter (where p.place <= 5) as top
      from (
        select
          u.user_id,
          sum(u.calls) as calls,
          sum(u.total_tokens) as total_tokens,
          sum(u.total_cost) as total_cost,
          row_number() over (order by sum(u.total_cost) desc, sum(u.calls) desc, u.user_id asc) as place
        from vital_private.visible_daily_users as u
        where u.day = d.day and u.user_id is not null and u.calls > 0 and %1$s
        group by u.user_id
      ) as p
    ) as active
    where
      d.day >= (select min(u.day) from vital_private.visible_daily_totals as u where u.calls > 0 and %1$s)
      and d.day <= (
        select greatest(max(u.day), (now() at time zone 'UTC')::date)
        from vital_private.visible_daily_totals as u
        where u.calls > 0 and %1$s
      )
    $view$,
    $condition$(
      (select current_user) <> 'authenticated'
      or (select vital_private.administered_organizations()) = '{}'
      or u.organization_id = any((select vital_private.administered_organizations())::text[])
    )$condition$,
    vital_private.measure('average_latency_ms'), vital_private.measure('success_rate'), vital_private.measure('cache_savings'),
    vital_private.measure('hit_rate'), vital_private.measure('timeout_rate'),
    (select string_agg(format('sum(u.%1$I) as %1$I', m), ', ') from unnest(vital_private.summed_measures()) as m where m <> 'latency_histogram'),
    (select string_agg(format('u.%I', m), ', ') from unnest(vital_private.summed_measures()) as m where m <> 'latency_histogram'),
    vital_private.measured($calls$(
      select o.*
      from vital_private.own_calls(d.day::timestamp at time zone 'UTC', (d.day + 1)::timestamp at time zone 'UTC') as o
      where (select current_user) = 'authenticated'
    )$calls$)
  );
end;
$do$;

comment on view public.system_analytics is
'A row a day: users known until then, active and new ones, requests, success, US dollars of priced ones, busiest agents, dearest users.';

select vital_private.restrict_relation('public.service_performance_metrics', readers => '{authenticated, service_role}');
select vital_private.restrict_relation('public.agent_performance_metrics', readers => '{authenticated, service_role}');
select vital_private.restrict_relation('public.system_analytics', readers => '{authenticated, service_role}');
