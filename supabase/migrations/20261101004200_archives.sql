-- Months of calls that are written to files: what there is to archive, and the record of what was archived.

-- The months that have calls, the oldest first: {"month", "partition", "rows" (as last analyzed; exact outside the monthly
-- partitions), "bytes", "gone", "archived": {"rows", "total_cost", "file", "at"}}. `gone`: the month was dropped before, and
-- these calls arrived later.
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
    from vital_private.monthly_partitions('token_usage_logs') as p
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
    'bytes', (select sum(p.bytes) from vital_private.monthly_partitions('token_usage_logs') as p)
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
  left join vital_private.archived_months as a on a.table_name = 'token_usage_logs' and a.month = h.month
$$;

-- The sums of the calls from one instant to another, and how many digits their amounts have before and after the decimal
-- point: {"rows", "calls", "total_cost", "unpriced_calls", "digits": {column: [before, after]}}.
create function public.call_totals_v1(
  since timestamptz default null, until timestamptz default null, organization text default null, user_id text default null
) returns json
language plpgsql
stable
security definer
set search_path = ''
set timezone = 'UTC'
set statement_timeout = '15min' -- the API, which would stop it after seconds, respects this
as $$
declare
  answer json;
begin
  perform vital_private.check_times(since, until);
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

-- Note that a month was written to a file, which holds so many rows with such a total cost. It is refused if that is not what the month
-- holds now. `drop_rows`: delete the month from the database, if no older one is left there and it ended at least 31 days ago.
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
  partition_name constant text := vital_private.partition_of('token_usage_logs', since::date);
  partitioned constant boolean := to_regclass(format('vital_private.%I', partition_name)) is not null;
  late constant boolean := not partitioned and since < vital_private.rows_kept_since();
  bytes bigint;
  counted bigint;
  cost numeric;
begin
  perform vital_private.check_given('month', archive_month_v1.month::text);
  perform vital_private.check_given('held', held::text);
  perform vital_private.check_given('total_cost', archive_month_v1.total_cost);
  perform vital_private.check_given('file', archive_month_v1.file);
  drop_rows := coalesce(drop_rows, false);
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
    -- Nobody writes while the month is counted for the last time; reading goes on. The parent is locked first, as by all writers.
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

select vital_private.restrict_functions(api => '{months_v1, call_totals_v1, archive_month_v1}');
