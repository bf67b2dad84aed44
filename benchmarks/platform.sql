-- Events, other costs and executions as a platform makes them, beside the calls of usage.sql, whose organizations, users and hours they
-- share: sessions of eight events, a cost for every ten events, an execution too. Each follows from its number alone.

-- Who did what when: the rows from one number to another, of so many in all.
create function bench.platform_rows(
  first_number bigint, last_number bigint, total bigint, since timestamptz, hours double precision[], organizations integer, users integer
)
returns table (
  n bigint, at timestamptz, id uuid, organization_id text, user_id text, session_id text, c1 double precision, c2 double precision,
  c3 double precision
)
language sql
stable
as $$
  select
    p.n, p.at,
    (lpad(to_hex((extract(epoch from p.at) * 1000)::bigint), 12, '0') || '7' || substr(md5(p.n::text), 1, 3)
      || '8' || substr(md5(p.n::text), 4, 15))::uuid,
    'org-' || p.org, 'user-' || p.org || '-' || p.usr, 'session-' || p.n / 8, p.c1, p.c2, p.c3
  from (
    select
      d.*, since + ((d.hour - 1) + (d.passed - hours[d.hour]) / (hours[d.hour + 1] - hours[d.hour])) * interval '1 hour'
      + d.n % 8 * interval '20 seconds' as at
    from (
      select
        g.n, (g.n / 8 * 8)::float8 / total as passed,
        width_bucket((g.n / 8 * 8)::float8 / total, hours[1:cardinality(hours) - 1]) as hour,
        floor(power(organizations + 1, bench.chance(g.n / 8, 1)))::int - 1 as org,
        floor(power(users + 1, bench.chance(g.n / 8, 2)))::int - 1 as usr,
        bench.chance(g.n, 21) as c1, bench.chance(g.n, 22) as c2, bench.chance(g.n, 23) as c3
      from generate_series(first_number, last_number) as g (n)
    ) as d
  ) as p
$$;

-- Put them into tables like platform_events, tenant_cost_events and agent_executions.
create procedure bench.load_platform(
  events regclass, costs regclass, executions regclass, first_number bigint, last_number bigint, total bigint, since timestamptz,
  hours double precision[], organizations integer, users integer
)
language plpgsql
as $procedure$
begin
  execute format($query$
    insert into %s (id, occurred_at, organization_id, user_id, session_id, category, event_name, source, ip_hash, value, properties)
    select
      r.id, r.at, r.organization_id, r.user_id, r.session_id, e.category,
      case
        when e.category = 'system_health' then 'http_request' when e.category = 'business' and r.c2 < 0.5 then 'revenue'
        when e.category = 'business' then 'subscription_changed'
        else (array['page_view', 'report_opened', 'search', 'agent_started', 'document_uploaded'])[1 + floor(5 * r.c2 * r.c2)::int]
      end,
      '/page-' || floor(20 * r.c3)::int, md5(r.user_id || floor(2 * r.c2)::text),
      case when e.category = 'system_health' then round((20 + 400 * r.c2)::numeric, 1) when e.category = 'business' then 49 end,
      jsonb_build_object('page', '/page-' || floor(20 * r.c3)::int, 'status', case when r.c3 > 0.99 then 500 else 200 end)
    from bench.platform_rows($1, $2, $3, $4, $5, $6, $7) as r
    cross join lateral (
      select case when r.c1 < 0.85 then 'user_behavior' when r.c1 < 0.97 then 'system_health' else 'business' end as category
    ) as e
  $query$, events) using first_number, last_number, total, since, hours, organizations, users;
  execute format($query$
    insert into %s (
      id, occurred_at, organization_id, user_id, cost_type, service, resource, quantity, unit, unit_price, cost_usd, price_version
    )
    select
      r.id, r.at, r.organization_id, r.user_id, c.cost_type, 'service-' || floor(5 * r.c2)::int, 'resource-' || floor(9 * r.c3)::int,
      1 + floor(10 * r.c3)::int, 'call', 0.0012, (1 + floor(10 * r.c3)::int) * 0.0012, 'given'
    from bench.platform_rows($1, $2, $3, $4, $5, $6, $7) as r
    cross join lateral (
      select (array['storage', 'bandwidth', 'compute', 'search', 'tts', 'stt'])[1 + floor(6 * r.c1)::int] as cost_type
    ) as c
    where r.n %% 10 = 0
  $query$, costs) using first_number, last_number, total, since, hours, organizations, users;
  execute format($query$
    insert into %s (
      id, started_at, organization_id, user_id, agent_id, agent_name, duration_ms, success, error_type, total_tokens, cost_usd, rating,
      faithfulness, citations
    )
    select
      r.id, r.at, r.organization_id, r.user_id, 'agent-' || floor(40 * r.c2)::int, 'Agent', 300 + 9000 * r.c3 * r.c3, r.c1 < 0.97,
      case when r.c1 >= 0.97 then 'TimeoutError' end, 500 + floor(4000 * r.c3)::int, round((0.01 * r.c3)::numeric, 6),
      case when r.c1 < 0.2 then 1 + floor(5 * r.c2)::int end, case when r.c1 < 0.5 then round(r.c2::numeric, 3) end, floor(5 * r.c3)::int
    from bench.platform_rows($1, $2, $3, $4, $5, $6, $7) as r
    where r.n %% 10 = 5
  $query$, executions) using first_number, last_number, total, since, hours, organizations, users;
end;
$procedure$;

-- Count all sums of a table anew, a day of its rows at a time.
create procedure bench.sum_platform(source text, since date, days integer)
language plpgsql
as $$
declare
  monthly vital_private.monthly_tables;
  sums record;
begin
  select m.* into monthly from vital_private.monthly_tables as m where m.table_name = source;
  for sums in select s.target from vital_private.platform_sum_sources as s where s.source = sum_platform.source loop
    for day in 0..days - 1 loop
      execute vital_private.adding_to_platform(
        sums.target,
        format(
          '(select 1 as sign, t.* from public.%I as t where t.%I >= %L and t.%I < %L)',
          source, monthly.time_column, (since + day)::timestamptz, monthly.time_column, (since + day + 1)::timestamptz
        )
      );
      commit;
    end loop;
  end loop;
end;
$$;
