-- How long what is kept: months made ahead, months that are over and done with dropped, and the rest deleted by its age.
--
-- Nothing is deleted unless an admin runs `apply_retention(false)` or schedules it. Data go by whole months (UTC), so each row is
-- kept at least as long as its table's policy says. The sums outlive the rows: what the aggregations and the windows of budgets
-- hold stays as it is.

-- Partitions made ahead.

-- The months whose rows are in the default partition although they could have a partition of their own: since rows are kept, of
-- the last ten years or of the months to come. (An impossible clock gets no partition.)
create function vital_private.homeless_months() returns table (month date, calls bigint)
language sql
stable
set search_path = ''
as $$
  select date_trunc('month', d.created_at at time zone 'UTC')::date, count(*)
  from vital_private.token_usage_logs_default as d
  where d.created_at >= greatest(vital_private.rows_kept_since(), now() - interval '10 years')
    and d.created_at < now() + interval '13 months'
  group by 1
$$;

-- Make the partitions of this month and the twelve after it, and for rows in the default partition those of their months. Who is
-- in the way is waited for `patience_ms` at most, so that those behind wait no longer either; then the next run tries again.
create function public.maintain_partitions(patience_ms integer default 2000) returns json
language plpgsql
security definer
set search_path = ''
set timezone = 'UTC'
set statement_timeout = '15min'
as $$
declare
  this_month constant date := date_trunc('month', now())::date;
  wanted date;
  calls bigint;
  made integer := 0;
  moved bigint := 0;
  left_for_later integer := 0;
begin
  -- One at a time; whoever comes second finds the work being done.
  if not pg_catalog.pg_try_advisory_xact_lock(hashtext('vital_tracking.partitions')) then
    return json_build_object('made', 0, 'moved', 0, 'waiting', 0, 'busy', true);
  end if;
  perform set_config('lock_timeout', greatest(patience_ms, 1)::text, true);
  for wanted, calls in
    select m.month, coalesce(h.calls, 0)
    from (
      select (this_month + step * interval '1 month')::date as month from generate_series(0, 12) as step
      union
      select homeless.month from vital_private.homeless_months() as homeless
    ) as m
    left join vital_private.homeless_months() as h using (month)
    where to_regclass(format('vital_private.%I', vital_private.partition_of(m.month))) is null
    order by m.month desc
    limit 36
  loop
    begin
      made := made + public.ensure_partitions_v1(wanted, 1);
      moved := moved + calls;
    exception when lock_not_available or deadlock_detected then
      left_for_later := left_for_later + 1;
    end;
  end loop;
  perform set_config('lock_timeout', '0', true);
  return json_build_object('made', made, 'moved', moved, 'waiting', left_for_later, 'busy', false);
end;
$$;

comment on function public.maintain_partitions(integer) is 'Makes partitions a year ahead and moves calls of the default partition.';

-- The same for every process that starts: where nothing is to be done, which is nearly always, it takes no lock at all.
create function public.maintain_partitions_v1() returns json
language plpgsql
security definer
set search_path = ''
set timezone = 'UTC'
set statement_timeout = '15min'
as $$
begin
  if to_regclass(format('vital_private.%I', vital_private.partition_of((now() + interval '6 months')::date))) is not null
    and not exists (select from vital_private.homeless_months()) then
    return json_build_object('made', 0, 'moved', 0, 'waiting', 0, 'busy', false);
  end if;
  return public.maintain_partitions();
end;
$$;

-- How long what is kept.

create table public.retention_policies (
  table_name text not null primary key,
  keep interval,
  updated_at timestamptz not null default now(),
  constraint retention_policies_table check (
    table_name in (
      'token_usage_logs', 'service_runs', 'usage_aggregations_hourly', 'usage_aggregations_daily', 'usage_aggregations_daily_users',
      'usage_aggregations_daily_parts', 'usage_aggregations_daily_totals', 'budget_windows', 'cost_alerts', 'admin_audit'
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
('usage_aggregations_hourly', '7 years'),
('usage_aggregations_daily', '7 years'),
('usage_aggregations_daily_users', '7 years'),
('usage_aggregations_daily_parts', '7 years'),
('usage_aggregations_daily_totals', '7 years'),
('budget_windows', '2 years'),
('cost_alerts', '2 years'),
('admin_audit', '7 years');

alter table public.retention_policies enable row level security;
revoke all on public.retention_policies from anon, authenticated, service_role;
grant select on public.retention_policies to authenticated;
grant select, update on public.retention_policies to service_role;

create policy "Organization admins see how long data are kept" on public.retention_policies
for select to authenticated
using (cardinality((select vital_private.administered_organizations())) > 0);

create policy "The service role manages how long data are kept" on public.retention_policies
for all to service_role
using (true)
with check (true);

create trigger retention_policies_audit
after insert or update or delete on public.retention_policies
for each row execute function vital_private.audit_change('table_name', '');
create trigger retention_policies_audit_truncate
after truncate on public.retention_policies for each statement execute function vital_private.audit_truncate();

-- Keep a table's rows so long: '90 days', '7 years'; NULL: for ever. Nothing is deleted by it.
create function public.set_retention_v1(table_name text, keep text default null) returns json
language plpgsql
security definer
set search_path = ''
as $$
declare
  stored public.retention_policies;
begin
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

-- What was archived, so that what was not can be told before it is deleted.
create table vital_private.archived_months (
  month date not null primary key,
  held bigint not null,
  total_cost numeric not null,
  file text not null,
  archived_at timestamptz not null default now()
);
alter table vital_private.archived_months enable row level security;

comment on table vital_private.archived_months is 'The months that were written to a file and read back, with what was in it.';

-- From when on a table's rows are kept: its policy, cut to whole months. Sums must not go before the rows they are the sums of, nor
-- the windows of budgets before the calls in them.
create function vital_private.kept_from(table_name text) returns timestamptz
language sql
stable
set search_path = ''
set timezone = 'UTC'
as $$
  select case
    when p.table_name like 'usage_aggregations_%' or p.table_name in ('budget_windows', 'cost_alerts')
      then least(date_trunc('month', now() - p.keep), vital_private.rows_kept_since())
    else date_trunc('month', now() - p.keep)
  end
  from public.retention_policies as p
  where p.table_name = kept_from.table_name and p.keep is not null
$$;

-- The condition of the rows of a table that have had their time; `kept` is from when on they are kept.
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
      when 'usage_aggregations_hourly' then 't.hour_start < %L'
      when 'budget_windows' then
        't.ends_at < %L and not exists (select from public.budget_grants as g where g.window_id = t.id)'
      -- An alert goes after its window, or the window would raise it once more.
      when 'cost_alerts' then
        't.created_at < %L and not exists (
          select from public.budget_windows as w
          where w.budget_id = t.budget_id and w.entity_id = t.entity_id and w.period = t.period and w.starts_at = t.window_starts_at
        )'
      when 'admin_audit' then 't.at < %L'
      else 't.day < (%L::timestamptz at time zone ''UTC'')::date'
    end,
    kept
  )
$$;

-- Delete what has had its time, or say what would be. Months of calls are dropped whole, which takes no time; of everything else, and
-- of calls outside the monthly partitions, `max_rows` a table at most: `more` says whether to run it again.
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
  affected bigint;
  bytes bigint;
  waiting boolean := false;
  more boolean;
  answers jsonb := '[]';
begin
  if not dry_run then
    perform vital_private.sums_are_complete(vital_private.kept_from('token_usage_logs'));
    perform pg_catalog.pg_advisory_xact_lock(hashtext('vital_tracking.partitions'));
    perform set_config('vital_tracking.keep_sums', 'on', true);
    perform set_config('vital_tracking.audit_may_change', 'on', true);
  end if;
  for policy in
    select p.table_name, p.keep
    from public.retention_policies as p
    -- Windows before their alerts. Calls last: dropping a month holds up everybody until this commits.
    order by p.table_name = 'token_usage_logs', p.table_name = 'cost_alerts', p.table_name
  loop
    kept := vital_private.kept_from(policy.table_name);
    months := '[]';
    rows_in_months := 0;
    affected := 0;
    more := false;
    bytes := pg_catalog.pg_total_relation_size(format('public.%I', policy.table_name)::regclass);
    source := format('public.%I', policy.table_name);
    if policy.table_name = 'token_usage_logs' then
      source := 'vital_private.token_usage_logs_default';
      bytes := pg_catalog.pg_total_relation_size(source::regclass)
        + coalesce((select sum(m.bytes) from vital_private.monthly_partitions() as m), 0);
      if kept is not null then
        months := vital_private.drop_months(kept, dry_run);
        select
          coalesce(sum((m.value ->> 'rows')::bigint) filter (where (m.value ->> 'dropped')::boolean or dry_run), 0),
          coalesce(bool_or(not (m.value ->> 'dropped')::boolean and not dry_run), false)
        into rows_in_months, waiting
        from jsonb_array_elements(months) as m (value);
      end if;
    end if;
    if kept > '-infinity' and dry_run then
      execute format('select count(*) from %s as t where %s', source, vital_private.expired(policy.table_name, kept)) into affected;
    elsif kept > '-infinity' then
      execute format(
        'delete from %s as t where t.ctid = any(array(select t.ctid from %s as t where %s limit %s))',
        source, source, vital_private.expired(policy.table_name, kept), greatest(max_rows, 1)
      );
      get diagnostics affected = row_count;
      more := affected >= greatest(max_rows, 1);
      if policy.table_name = 'token_usage_logs' and rows_in_months + affected > 0 then
        perform vital_private.rows_gone_before(kept);
      end if;
      if jsonb_array_length(months) + affected > 0 then
        perform vital_private.note(
          policy.table_name, 'retention', null, jsonb_build_object('before', kept),
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

-- Rows must not go before they are in the sums, as those are that are older than the aggregations themselves.
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

-- Drop the partitions of the months that ended by an instant, the oldest first, or list them:
-- [{"month", "rows", "bytes", "archived", "dropped"}, ...]. A partition that others are at is left for the next run.
create function vital_private.drop_months(kept timestamptz, dry_run boolean) returns jsonb
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
  -- All are counted first: from the first drop on, everybody waits until this commits.
  for old in
    select m.month, m.bytes, a.held as archived
    from vital_private.monthly_partitions() as m
    left join vital_private.archived_months as a on a.month = m.month
    where m.month + interval '1 month' <= kept
    order by m.month
  loop
    execute format('select count(*) from vital_private.%I', vital_private.partition_of(old.month)) into held;
    answers := answers || jsonb_build_object(
      'month', to_char(old.month, 'YYYY-MM'), 'rows', held, 'bytes', old.bytes, 'archived', coalesce(old.archived = held, held = 0),
      'dropped', not dry_run
    );
  end loop;
  for place in 0..jsonb_array_length(answers) - 1 loop
    if not waits then
      begin
        perform set_config('lock_timeout', '5s', true);
        execute format(
          'drop table vital_private.%I', vital_private.partition_of(to_date(answers -> place ->> 'month', 'YYYY-MM'))
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

-- Archives.

-- The months of which there are calls, the oldest first: {"month", "partition", "rows" (as last analyzed; exact outside the monthly
-- partitions), "bytes", "gone", "archived": {"rows", "total_cost", "file", "at"}}. `gone`: the month was dropped before, and
-- these calls came late.
create function public.months_v1() returns json
language sql
stable
security definer
set search_path = ''
set timezone = 'UTC'
set statement_timeout = '15min'
as $$
  with homes as (
    select p.month, true as partitioned, greatest(c.reltuples, 0)::bigint as rows, p.bytes
    from vital_private.monthly_partitions() as p
    join pg_catalog.pg_class as c on c.oid = p.relation
    where exists (
      select from public.token_usage_logs as t
      where t.created_at >= p.month::timestamptz and t.created_at < (p.month + interval '1 month')::timestamptz
    )
    union all
    select date_trunc('month', d.created_at at time zone 'UTC')::date, false, count(*), null
    from vital_private.token_usage_logs_default as d
    group by 1
  )

  select json_build_object(
    'now', now(),
    'kept_from', vital_private.kept_from('token_usage_logs'),
    'bytes', (select sum(p.bytes) from vital_private.monthly_partitions() as p)
    + pg_catalog.pg_total_relation_size('vital_private.token_usage_logs_default'),
    'months', coalesce(json_agg(json_build_object(
      'month', to_char(h.month, 'YYYY-MM'), 'partition', h.partitioned, 'rows', h.rows, 'bytes', h.bytes,
      'gone', not h.partitioned and h.month::timestamptz < vital_private.rows_kept_since(),
      'archived', case when a.month is not null then json_build_object(
        'rows', a.held, 'total_cost', a.total_cost::text, 'file', a.file, 'at', a.archived_at
      ) end
    ) order by h.month), '[]')
  )
  from homes as h
  left join vital_private.archived_months as a on a.month = h.month
$$;

-- What the calls from one instant to another come to, in rows and dollars, and how many digits their amounts have before the point
-- and behind it: {"rows", "calls", "total_cost", "unpriced_calls", "digits": {column: [before, behind]}}.
create function public.call_totals_v1(
  since timestamptz default null, until timestamptz default null, organization text default null, user_id text default null
) returns json
language plpgsql
stable
security definer
set search_path = ''
set timezone = 'UTC'
set statement_timeout = '15min' -- the API, which would stop it after seconds, heeds this
as $$
declare
  answer json;
begin
  execute format(
    $query$
    select json_build_object(
      'rows', count(*), 'calls', coalesce(sum(t.calls), 0), 'total_cost', coalesce(sum(t.total_cost), 0)::text,
      'unpriced_calls', coalesce(sum(t.calls) filter (where not t.priced), 0), 'digits', json_build_object(%s)
    )
    from public.token_usage_logs as t
    where t.created_at >= %L and t.created_at < %L %s %s
    $query$,
    (
      select string_agg(
        format('%1$L, json_build_array(coalesce(length(max(trunc(t.%1$I))::text), 1), coalesce(max(min_scale(t.%1$I)), 0))', c.attname), ', '
      )
      from pg_catalog.pg_attribute as c
      where c.attrelid = 'public.token_usage_logs'::regclass and c.attnum > 0 and not c.attisdropped
        and c.atttypid = 'pg_catalog.numeric'::regtype
    ),
    coalesce(since, '-infinity'), coalesce(until, 'infinity'),
    case when organization is not null then format('and t.organization_id = %L', organization) end,
    case when user_id is not null then format('and t.user_id = %L', user_id) end
  ) into answer;
  return answer;
end;
$$;

-- Note that a month is in a file, which holds so many rows that cost so much. Where the month does not hold just that (any more), it
-- is refused. `drop_rows`: take the month out of the database, if no older one is left in it and it ended at least 31 days ago.
-- Answers {"rows", "dropped", "bytes": what the month took}.
create function public.archive_month_v1(
  month date, held bigint, total_cost text, file text, drop_rows boolean default false
) returns json
language plpgsql
security definer
set search_path = ''
set timezone = 'UTC'
set statement_timeout = '15min'
as $$
declare
  since constant timestamptz := date_trunc('month', archive_month_v1.month)::date;
  until constant timestamptz := since + interval '1 month';
  partition_name constant text := vital_private.partition_of(since::date);
  partitioned constant boolean := to_regclass(format('vital_private.%I', partition_name)) is not null;
  late constant boolean := not partitioned and since < vital_private.rows_kept_since();
  bytes bigint;
  counted bigint;
  cost numeric;
begin
  if drop_rows and until > now() - interval '31 days' then
    raise exception 'The month % has not ended 31 days ago: budgets may still be counted from its calls.', to_char(since, 'YYYY-MM')
      using errcode = '55000';
  elsif drop_rows and exists (select from public.token_usage_logs as t where t.created_at < since) then
    raise exception 'There are older calls than those of %.', to_char(since, 'YYYY-MM')
      using errcode = '55000', hint = 'Months go in their order.';
  end if;
  perform set_config('lock_timeout', '5s', true);
  if drop_rows then
    perform vital_private.sums_are_complete(until);
    perform pg_catalog.pg_advisory_xact_lock(hashtext('vital_tracking.partitions'));
    -- Nobody writes while the month is counted for the last time; reading goes on. The parent first, as all writers do.
    lock table only public.token_usage_logs in share row exclusive mode;
    execute format(
      'lock table vital_private.%I in share row exclusive mode',
      case when partitioned then partition_name else 'token_usage_logs_default' end
    );
  end if;
  select count(*), coalesce(sum(t.total_cost), 0) into counted, cost
  from public.token_usage_logs as t
  where t.created_at >= since and t.created_at < until;
  if counted <> held or cost <> archive_month_v1.total_cost::numeric then
    raise exception 'The calls of % have changed since they were written to the file.', to_char(since, 'YYYY-MM')
      using errcode = '55000', hint = 'Archive the month again.';
  end if;
  if not late then
    insert into vital_private.archived_months as known (month, held, total_cost, file)
    values (since::date, counted, cost, archive_month_v1.file)
    on conflict on constraint archived_months_pkey do update
      set held = excluded.held, total_cost = excluded.total_cost, file = excluded.file, archived_at = now();
  end if;
  if drop_rows then
    if partitioned then
      bytes := pg_catalog.pg_total_relation_size(format('vital_private.%I', partition_name)::regclass);
      execute format('drop table vital_private.%I', partition_name);
    else
      perform set_config('vital_tracking.keep_sums', 'on', true);
      delete from vital_private.token_usage_logs_default as d where d.created_at >= since and d.created_at < until;
      perform set_config('vital_tracking.keep_sums', '', true);
    end if;
    perform vital_private.rows_gone_before(until);
  end if;
  perform vital_private.note(
    'token_usage_logs', case when drop_rows then 'drop' else 'archive' end, null,
    jsonb_build_object('month', to_char(since, 'YYYY-MM')),
    jsonb_build_object('rows', counted, 'total_cost', cost::text, 'file', archive_month_v1.file)
  );
  return json_build_object('rows', counted, 'dropped', drop_rows, 'bytes', bytes);
end;
$$;

revoke execute on function vital_private.homeless_months() from public;
revoke execute on function vital_private.kept_from(text) from public;
revoke execute on function vital_private.expired(text, timestamptz) from public;
revoke execute on function vital_private.sums_are_complete(timestamptz) from public;
revoke execute on function vital_private.drop_months(timestamptz, boolean) from public;
revoke execute on function public.maintain_partitions(integer) from public, anon, authenticated;
revoke execute on function public.maintain_partitions_v1() from public, anon, authenticated;
revoke execute on function public.set_retention_v1(text, text) from public, anon, authenticated;
revoke execute on function public.apply_retention(boolean, integer) from public, anon, authenticated;
revoke execute on function public.months_v1() from public, anon, authenticated;
revoke execute on function public.call_totals_v1(timestamptz, timestamptz, text, text) from public, anon, authenticated;
revoke execute on function public.archive_month_v1(date, bigint, text, text, boolean) from public, anon, authenticated;
grant execute on function public.maintain_partitions(integer) to service_role;
grant execute on function public.maintain_partitions_v1() to service_role;
grant execute on function public.set_retention_v1(text, text) to service_role;
grant execute on function public.apply_retention(boolean, integer) to service_role;
grant execute on function public.months_v1() to service_role;
grant execute on function public.call_totals_v1(timestamptz, timestamptz, text, text) to service_role;
grant execute on function public.archive_month_v1(date, bigint, text, text, boolean) to service_role;

-- Have pg_cron keep the partitions each night and, only where an admin says so, delete what has had its time. False where pg_cron
-- is not there, or does not let us; then each process that records keeps the partitions, and so does `vital-tracking refresh`.
create function public.schedule_maintenance(retention boolean default false) returns boolean
language sql
security definer
set search_path = ''
as $$
  select
    vital_private.schedule('vital_tracking.maintain_partitions', '17 3 * * *', 'select public.maintain_partitions()')
    -- Six times a night, since each time so many rows go at most.
    and (
      not retention
      or vital_private.schedule('vital_tracking.apply_retention', '*/10 4 * * *', 'select public.apply_retention(false, 200000)')
    )
$$;

comment on function public.schedule_maintenance(boolean) is
'Has pg_cron keep the partitions, and with true also delete each night what retention_policies no longer keep.';

revoke execute on function public.schedule_maintenance(boolean) from public, anon, authenticated;
grant execute on function public.schedule_maintenance(boolean) to service_role;

select public.schedule_maintenance();
