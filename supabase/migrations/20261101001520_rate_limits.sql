-- Rate limits: budgets with a limit of a minute, and plans that have one. How far they were used, and where calls did not fit.
--
-- Read from windows, alerts and the blocked calls alone, each by an index on time, and never from all calls.

-- The limits of a minute that the caller may see, by whom they were used most in the last hours: in how many minutes anything was used, how
-- full the fullest one was and all of them on average, in how many a call did not fit (`violations`), how many calls were blocked, and when
-- that happened last. Amounts are text, in the metric of the budget.
create function public.rate_limits_v1(hours integer default 24, organization text default null, max_rows integer default 100) returns json
language plpgsql
stable
set search_path = ''
as $$
declare
  since timestamptz;
begin
  if coalesce(hours, 24) not between 1 and 744 then
    raise exception 'hours must be a number from 1 to 744.' using errcode = '22023', hint = 'For the last day: 24.';
  end if;
  since := statement_timestamp() - coalesce(hours, 24) * interval '1 hour';
  return (
    with used as (
      select
        w.budget_id, w.entity_id, count(*) as minutes, sum(w.spent) as spent, max(w.limit_amount) as limit_amount,
        max(vital_private.percent_of(w.spent, w.limit_amount)) as fullest_percent,
        round(avg(vital_private.percent_of(w.spent, w.limit_amount)), 2) as average_percent
      from public.budget_windows as w
      where w.ends_at > since and w.period = 'minute' and w.limit_amount is not null
      group by 1, 2
    ),

    unfit as (
      select a.budget_id, a.entity_id, count(distinct a.window_starts_at) as violations, max(a.created_at) as last_at
      from public.cost_alerts as a
      where a.created_at > since and a.period = 'minute' and a.threshold = 0
      group by 1, 2
    ),

    blocked as (
      select (c.blocked_by ->> 'budget')::bigint as budget_id, c.blocked_by ->> 'entity_id' as entity_id, sum(c.calls) as calls
      from public.token_usage_logs as c
      where c.created_at > since and c.status = 'blocked' and c.blocked_by ->> 'period' = 'minute'
      group by 1, 2
    )

    select coalesce(json_agg(json_build_object(
      'budget_id', l.budget_id, 'organization_id', l.organization_id, 'entity_type', l.entity_type, 'entity_id', l.entity_id,
      'metric', l.metric, 'action', l.action, 'by_plan', l.by_plan, 'limit_amount', l.limit_amount::text, 'minutes', l.minutes,
      'spent', l.spent::text, 'fullest_percent', l.fullest_percent::text, 'average_percent', l.average_percent::text,
      'violations', l.violations, 'blocked_calls', l.blocked_calls, 'last_at', l.last_at
    ) order by l.place), '[]')
    from (
      select
        b.id as budget_id, b.organization_id, b.entity_type, u.entity_id, b.metric, b.action, b.by_plan, u.limit_amount, u.minutes, u.spent,
        u.fullest_percent, u.average_percent, coalesce(f.violations, 0) as violations, coalesce(k.calls, 0) as blocked_calls, f.last_at,
        row_number() over (
          order by coalesce(f.violations, 0) desc, u.fullest_percent desc, u.spent desc, b.id, u.entity_id
        ) as place
      from used as u
      join public.budget_limits as b on b.id = u.budget_id
      left join unfit as f on f.budget_id = u.budget_id and f.entity_id = u.entity_id
      left join blocked as k on k.budget_id = u.budget_id and k.entity_id = u.entity_id
      where rate_limits_v1.organization is null or b.organization_id = rate_limits_v1.organization
        or (b.entity_type = 'organization' and u.entity_id = rate_limits_v1.organization)
      order by place
      limit least(greatest(coalesce(max_rows, 100), 1), 1000)
    ) as l
  );
end;
$$;

select vital_private.restrict_functions(api => '{rate_limits_v1}');
