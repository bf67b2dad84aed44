-- How long rows are kept, table by table, and how those that have expired are deleted.
--
-- Nothing is deleted unless an admin runs `apply_retention(false)` or schedules it. Rows are deleted by whole months (UTC), so each row is
-- kept at least as long as the policy of its table says. The sums outlive the rows: aggregations and windows of budgets stay as they
-- are.

create table public.retention_policies (
  table_name text not null primary key,
  keep interval,
  updated_at timestamptz not null default now(),
  constraint retention_policies_table check (
    table_name in (
      'token_usage_logs', 'service_runs', 'usage_aggregations_hourly_totals', 'usage_aggregations_daily_agents', 'usage_aggregations_daily_users',
      'usage_aggregations_daily_parts', 'usage_aggregations_daily_totals', 'budget_windows', 'cost_alerts', 'admin_audit',
      'platform_events', 'tenant_cost_events', 'agent_executions', 'platform_events_5min', 'platform_events_daily_sessions',
      'tenant_costs_5min', 'tenant_costs_daily', 'agent_executions_hourly', 'abuse_findings', 'abuse_marks',
      'recommendations'
    )
  ),
  -- Budgets are filled from the calls of the month that runs, in every time zone.
  constraint retention_policies_a_month_at_least check (keep >= interval '31 days' and keep <= interval '1000 years')
);

comment on table public.retention_policies is 'How long rows are kept at least; whole months (UTC) go, once apply_retention(false) runs.';
comment on column public.retention_policies.keep is 'At least 31 days; NULL: for ever.';

insert into public.retention_policies (table_name, keep) values
('token_usage_logs', '90 days'),
('service_runs', '90 days'),
('usage_aggregations_hourly_totals', '7 years'),
('usage_aggregations_daily_agents', '7 years'),
('usage_aggregations_daily_users', '7 years'),
('usage_aggregations_daily_parts', '7 years'),
('usage_aggregations_daily_totals', '7 years'),
('budget_windows', '2 years'),
('cost_alerts', '2 years'),
('admin_audit', '7 years'),
('platform_events', '3 years'),
('tenant_cost_events', '7 years'),
('agent_executions', '3 years'),
('platform_events_5min', '3 years'),
('platform_events_daily_sessions', '3 years'),
('tenant_costs_5min', '3 years'),
('tenant_costs_daily', '7 years'),
('agent_executions_hourly', '7 years'),
('abuse_findings', '1 year'),
('abuse_marks', '1 year'),
('recommendations', '2 years');

select vital_private.restrict_relation('public.retention_policies', readers => '{authenticated, service_role}');
grant update on public.retention_policies to service_role;

create policy "Organization admins see how long data are kept" on public.retention_policies
for select to authenticated
using (cardinality((select vital_private.administered_organizations())) > 0);

create policy "The service role manages how long data are kept" on public.retention_policies
for all to service_role
using (true)
with check (true);

select vital_private.audit_table('public.retention_policies', 'table_name');

-- Set how long the rows of a table are kept: '90 days', '7 years'; NULL: for ever. This alone deletes nothing.
create function public.set_retention_v1(table_name text, keep text default null) returns json
language plpgsql
security definer
set search_path = ''
as $$
declare
  stored public.retention_policies;
begin
  perform vital_private.check_given('table_name', set_retention_v1.table_name);
  update public.retention_policies as p
  set keep = set_retention_v1.keep::interval, updated_at = now()
  where p.table_name = set_retention_v1.table_name
  returning p.* into stored;
  if stored.table_name is null then
    raise exception 'There is no retention of %.', set_retention_v1.table_name
      using errcode = '22023', hint = 'The tables: select table_name from retention_policies;';
  end if;
  return json_build_object('table_name', stored.table_name, 'keep', stored.keep::text);
end;
$$;

-- Which months were archived. Retention says of each month that it would drop whether it was.
create table vital_private.archived_months (
  table_name text not null,
  month date not null,
  held bigint not null,
  amount numeric not null,
  ids numeric not null,
  file text not null,
  archived_at timestamptz not null default now(),
  primary key (table_name, month)
);
select vital_private.restrict_relation('vital_private.archived_months');

comment on table vital_private.archived_months is 'The months that were written to a file and read back, with what was in it.';

-- The last twelve hexadecimal digits of an id as a number. Sums of them change when a row is replaced by one of the same amount, as
-- forgetting a user does. (No SET clause, so that PostgreSQL may inline it.)
create function vital_private.id_digits(id uuid) returns bigint
language sql
immutable
parallel safe
return ('x' || right(id::text, 12))::bit(48)::bigint;

-- What rows are compared by, once in the database and once in a file: how many they are, and the sums of their amounts and ids.
create function vital_private.contents_of(
  table_name text, since timestamptz, until timestamptz, out held bigint, out amount numeric, out ids numeric
)
language plpgsql
stable
set search_path = ''
as $$
declare
  monthly vital_private.monthly_tables;
begin
  select m.* into monthly from vital_private.monthly_tables as m where m.table_name = contents_of.table_name;
  execute format(
    $query$
    select count(*), coalesce(sum(t.%I), 0), coalesce(sum(vital_private.id_digits(t.id)), 0)
    from public.%I as t
    where t.%I >= %L and t.%I < %L
    $query$,
    monthly.amount_column, monthly.table_name, monthly.time_column, since, monthly.time_column, until
  ) into held, amount, ids;
end;
$$;

-- The instant from which the rows are complete that a table of sums is of, or that windows of budgets count; NULL for other tables.
create function vital_private.summed_rows_kept_since(table_name text) returns timestamptz
language sql
stable
security definer
set search_path = ''
as $$
  select case
    when summed_rows_kept_since.table_name ~ '^(usage_aggregations_.*|budget_windows|cost_alerts)$' then vital_private.rows_kept_since()
    else (
      select vital_private.rows_kept_since(s.source)
      from vital_private.platform_sum_sources as s
      where s.target = summed_rows_kept_since.table_name
    )
  end
$$;

-- The instant from which the rows of a table are kept: its policy, cut to whole months. Sums must not be deleted before the rows that they
-- are the sums of, nor windows of budgets before the calls in them.
create function vital_private.kept_from(table_name text) returns timestamptz
language sql
stable
set search_path = ''
set timezone = 'UTC'
as $$
  select least(date_trunc('month', now() - p.keep), vital_private.summed_rows_kept_since(p.table_name))
  from public.retention_policies as p
  where p.table_name = kept_from.table_name and p.keep is not null
$$;

-- The text of the condition that a row `t` of a table has expired; `kept` is the instant from which rows are kept.
create function vital_private.expired(table_name text, kept timestamptz) returns text
language sql
stable
set search_path = ''
set timezone = 'UTC'
as $$
  select format(
    case table_name
      when 'token_usage_logs' then 't.created_at < %L'
      when 'service_runs' then 't.started_at < %L'
      when 'usage_aggregations_hourly_totals' then 't.hour_start < %L'
      when 'agent_executions_hourly' then 't.hour_start < %L'
      when 'platform_events' then 't.occurred_at < %L'
      when 'tenant_cost_events' then 't.occurred_at < %L'
      when 'agent_executions' then 't.started_at < %L'
      when 'platform_events_5min' then 't.bucket < %L'
      when 'tenant_costs_5min' then 't.bucket < %L'
      when 'budget_windows' then
        '(t.ends_at < %L or (t.period = ''minute'' and t.ends_at < vital_private.minutes_kept_since()))'
        ' and not exists (select from public.budget_grants as g where g.window_id = t.id)'
      -- An alert must not be deleted before its window, which would otherwise raise it again.
      when 'cost_alerts' then
        't.created_at < %L and not exists (
          select from public.budget_windows as w
          where w.budget_id = t.budget_id and w.entity_id = t.entity_id and w.period = t.period and w.starts_at = t.window_starts_at
        )'
      when 'admin_audit' then 't.at < %L'
      -- What still acts stays, so that it can be ended.
      when 'abuse_findings' then
        't.last_seen < %L and not exists (select from public.budget_limits as b where b.id = t.budget_id)'
      when 'abuse_marks' then 't.marked_at < %L'
      when 'recommendations' then 'greatest(t.last_seen, t.decided_at, t.measured_at) < %L'
      else 't.day < (%L::timestamptz at time zone ''UTC'')::date'
    end,
    kept
  )
$$;

-- Delete the rows that have expired or, as a dry run, say what would be deleted. Months of calls, events, costs and executions are
-- dropped as a whole, which takes no time. Of every other table, and of rows outside the monthly partitions, at most `max_rows` are
-- deleted: `more` says whether to run it again. NULL is the default, so it deletes nothing.
create function public.apply_retention(dry_run boolean default true, max_rows integer default 50000) returns json
language plpgsql
security definer
set search_path = ''
set timezone = 'UTC'
set statement_timeout = '15min'
as $$
declare
  policy record;
  kept timestamptz;
  source text;
  months jsonb;
  rows_in_months bigint;
  expires boolean;
  affected bigint;
  bytes bigint;
  waiting boolean := false;
  more boolean;
  answers jsonb := '[]';
begin
  dry_run := coalesce(dry_run, true);
  max_rows := coalesce(max_rows, 50000);
  if max_rows < 1 then
    raise exception 'max_rows must be 1 or more.' using errcode = '22023';
  end if;
  if not dry_run then
    perform vital_private.sums_are_complete(vital_private.kept_from('token_usage_logs'));
    perform pg_catalog.pg_advisory_xact_lock(hashtext('vital_tracking.partitions'));
    perform set_config('vital_tracking.keep_sums', 'on', true);
    perform set_config('vital_tracking.audit_may_change', 'on', true);
  end if;
  for policy in
    select p.table_name, p.keep
    from public.retention_policies as p
    -- Windows before their alerts. Calls last: from the drop of a month until the commit, everybody has to wait.
    order by p.table_name = 'token_usage_logs', p.table_name = 'cost_alerts', p.table_name
  loop
    kept := vital_private.kept_from(policy.table_name);
    months := '[]';
    rows_in_months := 0;
    affected := 0;
    more := false;
    source := coalesce(
      to_regclass(format('public.%I', policy.table_name)), to_regclass(format('vital_private.%I', policy.table_name))
    );
    bytes := pg_catalog.pg_total_relation_size(source::regclass);
    if exists (select from vital_private.monthly_tables as m where m.table_name = policy.table_name) then
      source := format('vital_private.%I', policy.table_name || '_default');
      bytes := pg_catalog.pg_total_relation_size(source::regclass)
        + coalesce((select sum(m.bytes) from vital_private.monthly_partitions(policy.table_name) as m), 0);
      if kept is not null then
        months := vital_private.drop_months(policy.table_name, kept, dry_run);
        select
          coalesce(sum((m.value ->> 'rows')::bigint) filter (where (m.value ->> 'dropped')::boolean or dry_run), 0),
          waiting or coalesce(bool_or(not (m.value ->> 'dropped')::boolean and not dry_run), false)
        into rows_in_months, waiting
        from jsonb_array_elements(months) as m (value);
      end if;
    end if;
    -- Windows of a minute go also where all calls are still there.
    expires := kept > '-infinity' or (kept is not null and policy.table_name = 'budget_windows');
    if expires and dry_run then
      execute format('select count(*) from %s as t where %s', source, vital_private.expired(policy.table_name, kept)) into affected;
    elsif expires then
      execute format(
        'delete from %s as t where t.ctid = any(array(select t.ctid from %s as t where %s limit %s))',
        source, source, vital_private.expired(policy.table_name, kept), max_rows
      );
      get diagnostics affected = row_count;
      more := affected >= max_rows;
      if rows_in_months + affected > 0 then
        perform vital_private.rows_gone_before(kept, policy.table_name);
      end if;
      if jsonb_array_length(months) + affected > 0 then
        perform vital_private.note(
          policy.table_name, 'retention', null, jsonb_build_object('before', nullif(kept, '-infinity')),
          jsonb_build_object(
            'rows', rows_in_months + affected,
            'months', (select coalesce(jsonb_agg(m.value -> 'month'), '[]') from jsonb_array_elements(months) as m (value))
          )
        );
      end if;
    end if;
    answers := answers || jsonb_build_object(
      'table_name', policy.table_name, 'keep', policy.keep::text, 'kept_from', nullif(kept, '-infinity'), 'bytes', bytes,
      'rows', rows_in_months + affected, 'months', months, 'more', more
    );
  end loop;
  perform set_config('vital_tracking.keep_sums', '', true);
  perform set_config('vital_tracking.audit_may_change', '', true);
  return json_build_object(
    'dry_run', dry_run, 'more', answers @> '[{"more": true}]', 'waiting', waiting, 'tables', answers
  );
end;
$$;

comment on function public.apply_retention(boolean, integer) is
'Deletes what is older than retention_policies allow; by default (dry_run) it only says what would go.';

-- What apply_retention would delete now, for whoever may look and not delete, as the auditor.
create function public.retention_plan_v1() returns json
language sql
stable
security definer
set search_path = ''
set statement_timeout = '15min'
as $$
  select public.apply_retention(true)
$$;

-- Refuse to delete calls before an instant while some of them are not in the sums yet, as calls older than the aggregations may be.
create function vital_private.sums_are_complete(kept timestamptz) returns void
language plpgsql
set search_path = ''
as $$
begin
  if exists (select from vital_private.usage_backfill as b where b.day < (kept at time zone 'UTC')::date) then
    raise exception 'Days of calls that would go are not in the aggregations yet.'
      using errcode = '55000', hint = 'First run: vital-tracking backfill';
  end if;
end;
$$;

-- Drop the partitions of a table's months that ended by an instant, the oldest first, or list them:
-- [{"month", "rows", "bytes", "archived", "dropped"}, ...]. A partition that is in use is left for the next run.
create function vital_private.drop_months(table_name text, kept timestamptz, dry_run boolean) returns jsonb
language plpgsql
set search_path = ''
set timezone = 'UTC'
as $$
declare
  old record;
  held bigint;
  waits boolean := dry_run;
  answers jsonb := '[]';
begin
  -- All are counted first, because from the first drop until the commit everybody has to wait.
  for old in
    select m.month, m.bytes, a.month is not null as noted, a.held, a.amount, a.ids
    from vital_private.monthly_partitions(drop_months.table_name) as m
    left join vital_private.archived_months as a on a.table_name = drop_months.table_name and a.month = m.month
    where m.month + interval '1 month' <= kept
    order by m.month
  loop
    execute format('select count(*) from vital_private.%I', vital_private.partition_of(drop_months.table_name, old.month)) into held;
    answers := answers || jsonb_build_object(
      'month', to_char(old.month, 'YYYY-MM'), 'rows', held, 'bytes', old.bytes,
      'archived', held = 0 or (old.noted and held = old.held and (
        select (c.held, c.amount, c.ids) = (old.held, old.amount, old.ids)
        from vital_private.contents_of(drop_months.table_name, old.month::timestamptz, (old.month + interval '1 month')::timestamptz) as c
      )),
      'dropped', not dry_run
    );
  end loop;
  for place in 0..jsonb_array_length(answers) - 1 loop
    if not waits then
      begin
        perform set_config('lock_timeout', '5s', true);
        execute format(
          'drop table vital_private.%I', vital_private.partition_of(drop_months.table_name, to_date(answers -> place ->> 'month', 'YYYY-MM'))
        );
      exception when lock_not_available or deadlock_detected then
        waits := true;
      end;
      perform set_config('lock_timeout', '0', true);
    end if;
    answers := jsonb_set(answers, array[place::text, 'dropped'], to_jsonb(not waits));
  end loop;
  return answers;
end;
$$;

-- Let pg_cron look for abuse each minute, make partitions each night and, if an admin says so, delete what has expired. False where pg_cron
-- is not installed or refuses; then every process that records makes partitions, so does `vital-tracking refresh`, and `vital-tracking
-- abuse scan --every 1m` looks for abuse. NULL is false.
create function public.schedule_maintenance(retention boolean default false) returns boolean
language sql
security definer
set search_path = ''
as $$
  select
    vital_private.schedule('vital_tracking.maintain_partitions', '17 3 * * *', 'select public.maintain_partitions()')
    and vital_private.schedule('vital_tracking.find_abuse', '* * * * *', 'select public.find_abuse_v1()')
    -- Six times a night, because each time only so many rows are deleted.
    and (
      retention is not true
      or vital_private.schedule('vital_tracking.apply_retention', '*/10 4 * * *', 'select public.apply_retention(false, 200000)')
    )
$$;

comment on function public.schedule_maintenance(boolean) is
'Has pg_cron look for abuse and keep the partitions, and with true also delete each night what retention_policies no longer keep.';

-- Whether pg_cron deletes what has expired. False where it is not installed, or its jobs may not be read.
create function vital_private.retention_is_scheduled() returns boolean
language plpgsql
stable
security definer
set search_path = ''
as $$
declare
  scheduled boolean;
begin
  if to_regclass('cron.job') is null then
    return false;
  end if;
  execute 'select exists (select from cron.job where jobname = $1)' into scheduled using 'vital_tracking.apply_retention';
  return scheduled;
exception
  when others then
    return false;
end;
$$;

-- How long rows are kept, for whoever may see that: {"scheduled": whether pg_cron deletes what has expired, "next_at": when the next month
-- expires, "tables": [{"table_name", "keep", "kept_from"}]}. "kept_from" is the instant before which rows have expired; NULL: none ever do.
create function public.retention_v1() returns json
language sql
stable
set search_path = ''
set timezone = 'UTC'
as $$
  select json_build_object(
    'scheduled', vital_private.retention_is_scheduled(),
    'next_at', date_trunc('month', now()) + interval '1 month',
    'tables', coalesce(
      (
        select json_agg(
          json_build_object(
            'table_name', p.table_name, 'keep', p.keep::text, 'kept_from', nullif(vital_private.kept_from(p.table_name), '-infinity')
          )
          order by p.keep nulls last, p.table_name
        )
        from public.retention_policies as p
      ), '[]'
    )
  )
$$;

select vital_private.restrict_functions(
  api => '{set_retention_v1, apply_retention, retention_plan_v1, retention_v1, schedule_maintenance}',
  helpers => '{kept_from, summed_rows_kept_since, retention_is_scheduled}'
);

select public.schedule_maintenance();
