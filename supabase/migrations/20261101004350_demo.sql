-- The made-up history of `vital-tracking demo --history`: what there is of it, and taking it out again. Its calls and runs, events, other
-- costs and executions are marked by the key `demo_history` of their metadata or properties, whose value says how they were made; its
-- organizations are named by who asks.

-- What there is of the history in some organizations (a JSON array): {"calls", "runs", "budgets", "platform_rows", "first", "last", "mark"},
-- and "others": whether there is any call that is not of it.
create function public.demo_history_v1(organizations text) returns json
language plpgsql
stable
security definer
set search_path = ''
as $$
declare
  named text[];
begin
  perform vital_private.check_given('organizations', organizations);
  named := array(select o.value from json_array_elements_text(organizations::json) as o (value));
  return (
    select json_build_object(
      'calls', count(*), 'first', min(t.created_at), 'last', max(t.created_at), 'mark', max(t.metadata ->> 'demo_history'),
      'runs', (
        select count(*) from public.service_runs as r
        where r.organization_id = any(named) and r.metadata ? 'demo_history'
      ),
      'budgets', (select count(*) from public.budget_limits as b where b.organization_id = any(named) and not b.by_plan),
      'platform_rows', (
        select count(*)
        from (
          select from public.platform_events as e where e.organization_id = any(named) and e.properties ? 'demo_history'
          union all
          select from public.tenant_cost_events as c where c.organization_id = any(named) and c.metadata ? 'demo_history'
          union all
          select from public.agent_executions as x where x.organization_id = any(named) and x.metadata ? 'demo_history'
        ) as p
      ),
      'others', exists (
        select from public.token_usage_logs as o
        where o.organization_id <> all(named) or o.organization_id is null or not o.metadata ? 'demo_history'
      )
    )
    from public.token_usage_logs as t
    where t.organization_id = any(named) and t.metadata ? 'demo_history'
  );
end;
$$;

-- Take the history out of some organizations (a JSON array): `max_rows` calls and runs at a time, because nobody can record or admit
-- calls meanwhile. Sums and the windows of other budgets lose what its calls came to; the organizations' budgets go with their
-- windows and alerts, and what looked like abuse, unless other calls were recorded for the same organization. Call it again until it answers
-- {"done": true}.
create function public.remove_demo_history_v1(organizations text, max_rows integer default 2000) returns json
language plpgsql
security definer
set search_path = ''
set statement_timeout = '15min'
as $$
declare
  limit_rows constant integer := greatest(coalesce(max_rows, 2000), 1);
  named text[];
  owned text[];
  removed_calls bigint;
  removed_runs bigint;
  removed_budgets bigint;
  emptied bigint[];
  counted vital_private.counted_call[];
  aggregation vital_private.usage_aggregations;
  platform record;
  removed_rows bigint;
  platform_rows bigint := 0;
  all_gone boolean := true;
begin
  perform vital_private.check_given('organizations', organizations);
  named := array(select o.value from json_array_elements_text(organizations::json) as o (value));
  owned := array(
    select n.name from unnest(named) as n (name)
    where not exists (
      select from public.token_usage_logs as t where t.organization_id = n.name and not t.metadata ? 'demo_history'
    )
  );
  -- What looked like abuse in it, too; findings before budgets, as whoever decides about one locks them.
  delete from public.abuse_findings as f where f.organization_id = any(owned);
  delete from vital_private.abuse_marks as m where m.organization_id = any(owned);
  delete from vital_private.abuse_rules as r where r.organization_id = any(owned);
  delete from vital_private.abuse_days as d where d.organization_id = any(owned);
  perform vital_private.lock_budgets(alone => true);
  delete from public.cost_alerts as a where a.organization_id = any(owned);
  -- Advice for all rests on these calls, too: the next look finds what is left of it.
  delete from public.recommendations as r where r.organization_id = any(owned) or (r.organization_id is null and r.status = 'open');
  delete from public.advice_runs as a where a.organization_id = any(owned) or a.organization_id is null;
  delete from public.subscriptions as s
  where s.organization_id = any(owned) or (s.entity_type = 'organization' and s.entity_id = any(owned));
  delete from vital_private.budget_overrides as o where o.organization_id = any(owned);
  delete from public.budget_limits as b where b.organization_id = any(owned) and b.by_plan;
  delete from public.budget_limits as b where b.organization_id = any(owned);
  get diagnostics removed_budgets = row_count;

  with picked as materialized (
    select t.id, t.created_at
    from public.token_usage_logs as t
    where t.organization_id = any(named) and t.metadata ? 'demo_history'
    order by t.created_at
    limit limit_rows
  ),

  gone as (
    delete from public.token_usage_logs as t
    using picked
    where t.id = picked.id and t.created_at = picked.created_at
    returning t as call
  )

  select count(*), array_agg(vital_private.counted(gone.call, -1)) into removed_calls, counted from gone;
  with lowered as (
    update public.budget_windows as w
    set spent = w.spent + p.amount
    from unnest(vital_private.postings_of(counted)) as p
    where w.budget_id = p.budget_id and w.entity_id = p.entity_id and w.period = p.period and w.starts_at = p.starts_at
    returning w.id, w.spent, w.granted
  )

  select array_agg(l.id) into emptied from lowered as l where l.spent = 0 and l.granted = 0;
  delete from public.cost_alerts as a
  using public.budget_windows as w
  where w.id = any(emptied) and a.budget_id = w.budget_id and a.entity_id = w.entity_id and a.period = w.period
    and a.window_starts_at = w.starts_at;
  delete from public.budget_windows as w where w.id = any(emptied);

  delete from public.service_runs as r
  where r.id in (
    select k.id from public.service_runs as k
    where k.organization_id = any(named) and k.metadata ? 'demo_history'
    limit limit_rows
  );
  get diagnostics removed_runs = row_count;

  for platform in
    select t.name, t.time_column, t.mark_column
    from (
      values
      ('platform_events', 'occurred_at', 'properties'), ('tenant_cost_events', 'occurred_at', 'metadata'),
      ('agent_executions', 'started_at', 'metadata')
    ) as t (name, time_column, mark_column)
  loop
    execute format(
      $delete$
        delete from public.%1$I as r
        using (
          select o.id, o.%2$I as at from public.%1$I as o
          where o.organization_id = any($1) and o.%3$I ? 'demo_history'
          order by o.%2$I
          limit $2
        ) as picked
        where r.id = picked.id and r.%2$I = picked.at
      $delete$, platform.name, platform.time_column, platform.mark_column
    ) using named, limit_rows;
    get diagnostics removed_rows = row_count;
    platform_rows := platform_rows + removed_rows;
    all_gone := all_gone and removed_rows < limit_rows;
  end loop;

  -- Sums of no calls are none, nor are those of no events, costs or executions.
  for aggregation in select * from vital_private.usage_aggregations order by target desc loop
    execute format('delete from public.%I as b where b.organization_id = any($1) and b.calls = 0', aggregation.target) using named;
  end loop;
  for platform in
    select s.target, min(c.name) filter (where c.position = 11) as measure
    from vital_private.platform_sum_sources as s
    join vital_private.platform_sums as c on c.target = s.target
    group by s.target
  loop
    execute format('delete from public.%I as b where b.organization_id = any($1) and b.%I = 0', platform.target, platform.measure) using named;
  end loop;
  return json_build_object(
    'done', removed_calls < limit_rows and removed_runs < limit_rows and all_gone,
    'calls', removed_calls, 'runs', removed_runs, 'budgets', removed_budgets, 'platform_rows', platform_rows
  );
end;
$$;

select vital_private.restrict_functions(api => '{demo_history_v1, remove_demo_history_v1}');
