-- Views of the aggregations, always fresh: a row a day by service, by agent, and of the whole system. They are security_invoker, so
-- the policies of the aggregations decide what is seen. Days are those of UTC.

do $do$
declare
  -- For longer times than a day: sums, of which averages and percentiles can be taken anew.
  additive constant text := 's.timed_calls::bigint as timed_calls, s.latency_us, s.latency_histogram';
begin
  execute format(
    $view$
    create view public.service_performance_metrics with (security_invoker = true) as
    select s.day, s.organization_id, s.service_type, %1$s, %2$s
    from (
      select u.day, u.organization_id, u.service_type, %3$s
      from public.usage_aggregations_daily_totals as u
      group by u.day, u.organization_id, u.service_type
      having sum(u.calls) > 0
    ) as s
    $view$,
    vital_private.measure_columns(), additive, vital_private.sum_columns()
  );
  execute format(
    $view$
    create view public.agent_performance_metrics with (security_invoker = true) as
    select s.day, s.organization_id, s.agent_id, s.agent_name, s.agent_tier, %1$s, %2$s
    from (
      select u.day, u.organization_id, u.agent_id, u.agent_tier, max(u.agent_name) as agent_name, %3$s
      from public.usage_aggregations_daily as u
      group by u.day, u.organization_id, u.agent_id, u.agent_tier
      having sum(u.calls) > 0
    ) as s
    $view$,
    vital_private.measure_columns(), additive, vital_private.sum_columns()
  );
end;
$do$;

comment on view public.service_performance_metrics is
'A row a day, organization and service: calls, tokens, US dollars of priced calls, cache savings, success, latency.';
comment on column public.service_performance_metrics.average_cost is 'US dollars a priced call; NULL where there is none.';
comment on column public.service_performance_metrics.latency_histogram is
'For longer times: latency_percentile(sum(latency_histogram), 0.95), and sum(latency_us) / 1000 / sum(timed_calls) is the average.';
comment on view public.agent_performance_metrics is
'A row a day, organization, agent and tier: calls, tokens, US dollars of priced calls, cache savings, success, latency.';
comment on column public.agent_performance_metrics.agent_name is 'A name that the agent had on that day.';

-- The whole system, or for an admin their part of it: a row a day, from the first day with a call until today, days without calls too.
do $do$
begin
  execute format(
    $view$
    create view public.system_analytics with (security_invoker = true) as
    with visible_users as not materialized (
      select
        u.day,
        u.user_id,
        u.calls,
        u.total_cost
      from public.usage_aggregations_daily_users as u
      -- By the policies, signed-in users also see rows of their own, in organizations that they do not administer. Not here.
      where
        u.calls > 0
        and (
          (select current_user) <> 'authenticated'
          or u.organization_id = any((select vital_private.administered_organizations())::text[])
        )
    ),

    arrivals as materialized (
      select
        f.first_day,
        count(f.user_id) as new_users,
        max(f.last_day) as last_day
      from (
        select
          u.user_id,
          min(u.day) as first_day,
          max(u.day) as last_day
        from visible_users as u
        group by u.user_id
      ) as f
      group by f.first_day
    ),

    known as (
      select
        min(a.first_day) as first_day,
        max(a.last_day) as last_day
      from arrivals as a
    )

    select
      d.day::date as day,
      (select coalesce(sum(a.new_users), 0)::bigint from arrivals as a where a.first_day <= d.day::date) as users,
      active.users as active_users,
      (select coalesce(sum(a.new_users), 0)::bigint from arrivals as a where a.first_day = d.day::date) as new_users,
      coalesce(totals.calls, 0)::bigint as calls,
      coalesce(totals.failed_calls, 0)::bigint as failed_calls,
      coalesce(totals.blocked_calls, 0)::bigint as blocked_calls,
      coalesce(totals.unpriced_calls, 0)::bigint as unpriced_calls,
      %1$s as success_rate,
      coalesce(totals.total_tokens, 0) as total_tokens,
      coalesce(totals.total_cost, 0) as total_cost,
      coalesce(totals.potential_cost, 0) as potential_cost,
      coalesce(%2$s, 0) as cache_savings,
      %3$s as hit_rate,
      (%4$s)::double precision as average_latency_ms,
      coalesce(totals.cost_by_provider, '{}') as cost_by_provider,
      coalesce(totals.popular_agents, '[]') as popular_agents,
      coalesce(active.top, '[]') as top_users
    from known
    cross join
      lateral generate_series(
        known.first_day::timestamp, greatest(known.last_day, (now() at time zone 'UTC')::date)::timestamp, interval '1 day'
      ) as d (day)
    cross join
      lateral (
        with pairs as materialized (
          select
            coalesce(u.provider, '(no provider)') as provider,
            u.agent_id,
            max(u.agent_name) as agent_name,
            sum(u.calls) as calls,
            sum(u.failed_calls) as failed_calls,
            sum(u.blocked_calls) as blocked_calls,
            sum(u.unpriced_calls) as unpriced_calls,
            sum(u.cached_calls) as cached_calls,
            sum(u.timed_calls) as timed_calls,
            sum(u.total_tokens) as total_tokens,
            sum(u.total_cost) as total_cost,
            sum(u.potential_cost) as potential_cost,
            sum(u.latency_us) as latency_us
          from public.usage_aggregations_daily as u
          where u.day = d.day::date
          group by coalesce(u.provider, '(no provider)'), u.agent_id
          having sum(u.calls) > 0
        ),

        providers as (
          select
            p.provider,
            sum(p.total_cost) as total_cost
          from pairs as p
          group by p.provider
        ),

        agents as (
          select
            p.agent_id,
            max(p.agent_name) as agent_name,
            sum(p.calls) as calls,
            sum(p.total_cost) as total_cost
          from pairs as p
          where p.agent_id is not null
          group by p.agent_id
          order by sum(p.calls) desc, p.agent_id asc
          limit 5
        )

        select
          sum(p.calls) as calls,
          sum(p.failed_calls) as failed_calls,
          sum(p.blocked_calls) as blocked_calls,
          sum(p.unpriced_calls) as unpriced_calls,
          sum(p.cached_calls) as cached_calls,
          sum(p.timed_calls) as timed_calls,
          sum(p.total_tokens) as total_tokens,
          sum(p.total_cost) as total_cost,
          sum(p.potential_cost) as potential_cost,
          sum(p.latency_us) as latency_us,
          (select jsonb_object_agg(r.provider, trim_scale(r.total_cost)::text) from providers as r) as cost_by_provider,
          (
            select
              jsonb_agg(
                jsonb_build_object('agent_id', r.agent_id, 'agent_name', r.agent_name, 'calls', r.calls, 'total_cost', trim_scale(r.total_cost)::text)
                order by r.calls desc, r.agent_id asc
              )
            from agents as r
          ) as popular_agents
        from pairs as p
      ) as totals
    cross join lateral (
      select
        count(p.user_id) as users,
        jsonb_agg(
          jsonb_build_object('user_id', p.user_id, 'calls', p.calls, 'total_cost', trim_scale(p.total_cost)::text) order by p.place
        ) filter (where p.place <= 5) as top
      from (
        select
          u.user_id,
          sum(u.calls) as calls,
          sum(u.total_cost) as total_cost,
          row_number() over (order by sum(u.total_cost) desc, sum(u.calls) desc, u.user_id asc) as place
        from visible_users as u
        where u.day = d.day::date and u.user_id is not null
        group by u.user_id
      ) as p
    ) as active
    $view$,
    vital_private.measure('success_rate', 'totals'), vital_private.measure('cache_savings', 'totals'),
    vital_private.measure('hit_rate', 'totals'), vital_private.measure('average_latency_ms', 'totals')
  );
end;
$do$;

comment on view public.system_analytics is
'A row a day: users known until then, active and new ones, calls, success, US dollars of priced calls, busiest agents, dearest users.';

select vital_private.restrict_relation('public.service_performance_metrics', readers => '{authenticated, service_role}');
select vital_private.restrict_relation('public.agent_performance_metrics', readers => '{authenticated, service_role}');
select vital_private.restrict_relation('public.system_analytics', readers => '{authenticated, service_role}');
