-- What admins read and ask, always fresh: all of it comes from the aggregations, in milliseconds at ten million calls. Views and
-- functions run with the rights of whoever asks, so that the policies of the aggregations decide what is seen: admins their
-- organizations', the service role everything. Days are those of UTC.

do $do$
declare
  additive constant text := 's.timed_calls::bigint as timed_calls, s.latency_us, s.latency_histogram';
  -- Not one array for all three: so a reader who leaves them out does not pay for them.
  percentiles constant text := $columns$
    (public.latency_percentiles(s.latency_histogram, '{0.5}'))[1] as p50_latency_ms,
    (public.latency_percentiles(s.latency_histogram, '{0.95}'))[1] as p95_latency_ms,
    (public.latency_percentiles(s.latency_histogram, '{0.99}'))[1] as p99_latency_ms$columns$;
begin
  execute format(
    $view$
create view public.service_performance_metrics with (security_invoker = true) as
select s.day, s.organization_id, s.service_type, %1$s, %2$s, %3$s
from (
  select u.day, u.organization_id, u.service_type, %4$s
  from public.usage_aggregations_daily_totals as u
  group by u.day, u.organization_id, u.service_type
  having sum(u.calls) > 0
) as s
    $view$,
    vital_private.told_of_usage(), percentiles, additive, vital_private.sums_of_usage()
  );
  execute format(
    $view$
create view public.agent_performance_metrics with (security_invoker = true) as
select s.day, s.organization_id, s.agent_id, s.agent_name, s.agent_tier, %1$s, %2$s, %3$s
from (
  select u.day, u.organization_id, u.agent_id, u.agent_tier, max(u.agent_name) as agent_name, %4$s
  from public.usage_aggregations_daily as u
  group by u.day, u.organization_id, u.agent_id, u.agent_tier
  having sum(u.calls) > 0
) as s
    $view$,
    vital_private.told_of_usage(), percentiles, additive, vital_private.sums_of_usage()
  );
end;
$do$;

drop function vital_private.told_of_usage_and_latency();
drop function vital_private.told_of_usage();
drop function vital_private.sums_of_usage();

comment on view public.service_performance_metrics is
'A row a day, organization and service: calls, tokens, US dollars of priced calls, cache savings, success, latency.';
comment on column public.service_performance_metrics.average_cost is 'US dollars a priced call; NULL where there is none.';
comment on column public.service_performance_metrics.latency_histogram is
'For longer times: latency_percentile(sum(latency_histogram), 0.95), and sum(latency_us) / 1000 / sum(timed_calls) is the average.';
comment on view public.agent_performance_metrics is
'A row a day, organization, agent and tier: calls, tokens, US dollars of priced calls, cache savings, success, latency.';
comment on column public.agent_performance_metrics.agent_name is 'A name that the agent had on that day.';

-- The whole system, or for an admin what is his of it: a row a day, from the first day with a call until today, the empty ones too.
create view public.system_analytics with (security_invoker = true) as
with visible_users as not materialized (
  select
    u.day,
    u.user_id,
    u.calls,
    u.total_cost
  from public.usage_aggregations_daily_users as u
  -- Whoever reads as a user of the API also sees rows of their own, in organizations that they do not administer: not here.
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
  round((totals.calls - totals.failed_calls) / nullif(totals.calls - totals.blocked_calls, 0), 6) as success_rate,
  coalesce(totals.total_tokens, 0) as total_tokens,
  coalesce(totals.total_cost, 0) as total_cost,
  coalesce(totals.potential_cost, 0) as potential_cost,
  coalesce(totals.potential_cost - totals.total_cost, 0) as cache_savings,
  round(totals.cached_calls / nullif(totals.calls, 0), 6) as hit_rate,
  (totals.latency_us / 1000 / nullif(totals.timed_calls, 0))::double precision as average_latency_ms,
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
) as active;

comment on view public.system_analytics is
'A row a day: users known until then, active and new ones, calls, success, US dollars of priced calls, busiest agents, dearest users.';

revoke all on public.service_performance_metrics from anon, authenticated, service_role;
revoke all on public.agent_performance_metrics from anon, authenticated, service_role;
revoke all on public.system_analytics from anon, authenticated, service_role;
grant select on public.service_performance_metrics to authenticated, service_role;
grant select on public.agent_performance_metrics to authenticated, service_role;
grant select on public.system_analytics to authenticated, service_role;

-- The first of so many days, the last of which is today.
create function vital_private.first_of_days(days integer) returns date
language plpgsql
stable
set search_path = ''
as $$
begin
  if days is null or days not between 1 and 3660 then
    raise exception 'days must be a number from 1 to 3660.' using errcode = '22023';
  end if;
  return (now() at time zone 'UTC')::date - days + 1;
end;
$$;

-- How reliable agents are: select * from agent_success_rate('cardio'), or of all agents: agent_success_rate(days => 7). A row an
-- organization and agent, by its newest name. Blocked calls were never made: they count for nothing in the rate.
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
as $$
begin
  return query execute format(
    $query$
      select
        u.organization_id, u.agent_id,
        (array_agg(u.agent_name order by u.day desc, u.agent_name desc) filter (where u.agent_name is not null and u.calls > 0))[1],
        sum(u.calls)::bigint, sum(u.failed_calls)::bigint, sum(u.blocked_calls)::bigint,
        round((sum(u.calls) - sum(u.failed_calls)) / nullif(sum(u.calls) - sum(u.blocked_calls), 0), 6),
        sum(u.unpriced_calls)::bigint, sum(u.total_cost), sum(u.potential_cost) - sum(u.total_cost),
        round(sum(u.cached_calls) / nullif(sum(u.calls), 0), 6),
        (sum(u.latency_us) / 1000 / nullif(sum(u.timed_calls), 0))::double precision
      from public.usage_aggregations_daily as u
      where u.day >= $1
        and u.agent_id is not null
        and ($3 is null or u.agent_id = $3)
        and %s
      group by u.organization_id, u.agent_id
      having sum(u.calls) > 0
      order by 4 desc, 1, 2
    $query$,
    case when organization is null then 'true' else 'u.organization_id = $2' end
  ) using vital_private.first_of_days(days), organization, agent;
end;
$$;

-- How users use it: select * from user_engagement(organization => 'acme'). A row an organization and user, the busiest first; who is no
-- admin sees themselves.
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
as $$
begin
  return query execute format(
    $query$
      select
        d.organization_id, d.user_id, count(*), sum(d.calls)::bigint, round(sum(d.calls) / count(*), 2), min(d.day), max(d.day),
        coalesce((
          select array_agg(distinct s.service) from unnest(string_to_array(string_agg(d.services, ','), ',')) as s (service)
        ), '{}'),
        sum(d.failed_calls)::bigint, sum(d.unpriced_calls)::bigint, sum(d.total_cost), sum(d.potential_cost) - sum(d.total_cost),
        round(sum(d.cached_calls) / nullif(sum(d.calls), 0), 6)
      from (
        select
          u.organization_id, u.user_id, u.day, string_agg(u.service_type, ',') as services,
          sum(u.calls) as calls, sum(u.failed_calls) as failed_calls, sum(u.unpriced_calls) as unpriced_calls,
          sum(u.cached_calls) as cached_calls, sum(u.total_cost) as total_cost, sum(u.potential_cost) as potential_cost
        from public.usage_aggregations_daily_users as u
        where u.day >= $1
          and u.user_id is not null
          and u.calls > 0
          and %s
        group by u.organization_id, u.user_id, u.day
      ) as d
      group by d.organization_id, d.user_id
      order by count(*) desc, sum(d.calls) desc, d.user_id, d.organization_id
      limit greatest($3, 0)
    $query$,
    case when organization is null then 'true' else 'u.organization_id = $2' end
  ) using vital_private.first_of_days(days), organization, max_rows;
end;
$$;

revoke execute on function vital_private.first_of_days(integer) from public;
revoke execute on function public.agent_success_rate(text, integer, text) from public, anon;
revoke execute on function public.user_engagement(integer, text, integer) from public, anon;
grant execute on function vital_private.first_of_days(integer) to authenticated, service_role;
grant execute on function public.agent_success_rate(text, integer, text) to authenticated, service_role;
grant execute on function public.user_engagement(integer, text, integer) to authenticated, service_role;
