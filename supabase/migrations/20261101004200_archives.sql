-- Months of calls, events, costs and executions that are written to files: what there is to archive, and the record of what was archived.

-- What is known of a table whose months can be archived.
create function vital_private.monthly_table(table_name text) returns vital_private.monthly_tables
language plpgsql
stable
set search_path = ''
as $$
declare
  monthly vital_private.monthly_tables;
begin
  perform vital_private.check_given('table_name', monthly_table.table_name);
  select m.* into monthly from vital_private.monthly_tables as m where m.table_name = monthly_table.table_name;
  if monthly.table_name is null then
    raise exception 'There are no months of %.', left(monthly_table.table_name, 63)
      using errcode = '22023', hint = 'The tables: token_usage_logs, platform_events, tenant_cost_events, agent_executions.';
  end if;
  return monthly;
end;
$$;

-- The months of a table that have rows, the oldest first: {"month", "partition", "rows" (as last analyzed; exact outside the monthly
-- partitions), "bytes", "gone", "archived": {"rows", "amount", "ids", "file", "at"}}. `gone`: the month was dropped before, and these rows
-- arrived later. Beside them "amount", the column that months are compared by, and "archived_until": months that ended by then are
-- archived unless told otherwise (NULL: none are).
create function public.months_v1(table_name text default 'token_usage_logs') returns json
language plpgsql
stable
security definer
set search_path = ''
set timezone = 'UTC'
set statement_timeout = '15min'
as $$
declare
  monthly constant vital_private.monthly_tables := vital_private.monthly_table(coalesce(table_name, 'token_usage_logs'));
  held jsonb;
  homes jsonb := '[]';
  one record;
begin
  for one in
    select p.month, greatest(c.reltuples, 0)::bigint as rows, p.bytes
    from vital_private.monthly_partitions(monthly.table_name) as p
    join pg_catalog.pg_class as c on c.oid = p.relation
    order by p.month
  loop
    execute format('select to_jsonb(exists (select from vital_private.%I))', vital_private.partition_of(monthly.table_name, one.month))
    into held;
    if held = 'true' then
      homes := homes || jsonb_build_object('month', one.month, 'partition', true, 'rows', one.rows, 'bytes', one.bytes);
    end if;
  end loop;
  execute format(
    $query$
    select coalesce(jsonb_agg(jsonb_build_object('month', d.month, 'partition', false, 'rows', d.rows)), '[]')
    from (
      select date_trunc('month', t.%I at time zone 'UTC')::date as month, count(*) as rows from vital_private.%I as t group by 1
    ) as d
    $query$,
    monthly.time_column, monthly.table_name || '_default'
  ) into held;
  return (
    select json_build_object(
      'now', now(),
      'amount', monthly.amount_column,
      'archived_until', case
        when monthly.archived_after is null then vital_private.kept_from(monthly.table_name)
        else date_trunc('month', now() - monthly.archived_after)
      end,
      'bytes', (select sum(p.bytes) from vital_private.monthly_partitions(monthly.table_name) as p)
      + pg_catalog.pg_total_relation_size(format('vital_private.%I', monthly.table_name || '_default')::regclass),
      'months', coalesce(json_agg(json_build_object(
        'month', to_char(h.month, 'YYYY-MM'), 'partition', h.partition, 'rows', h.rows, 'bytes', h.bytes,
        'gone', not h.partition and h.month::timestamptz < monthly.rows_kept_since,
        'archived', case when a.month is not null then json_build_object(
          'rows', a.held, 'amount', a.amount::text, 'ids', a.ids::text, 'file', a.file, 'at', a.archived_at
        ) end
      ) order by h.month), '[]')
    )
    from jsonb_to_recordset(homes || held) as h (month date, partition boolean, rows bigint, bytes bigint)
    left join vital_private.archived_months as a on a.table_name = monthly.table_name and a.month = h.month
  );
end;
$$;

-- What the rows of a table come to from one instant to another, and how many digits their amounts have before and after the decimal
-- point: {"rows", "calls" (of a row of calls, how many it is; else 1), "amount", "ids", "digits": {column: [before, after]}}.
create function public.row_totals_v1(
  table_name text default 'token_usage_logs', since timestamptz default null, until timestamptz default null,
  organization text default null, user_id text default null
) returns json
language plpgsql
stable
security definer
set search_path = ''
set timezone = 'UTC'
set statement_timeout = '15min' -- the API, which would stop it after seconds, respects this
as $$
declare
  monthly constant vital_private.monthly_tables := vital_private.monthly_table(coalesce(table_name, 'token_usage_logs'));
  answer json;
begin
  perform vital_private.check_times(since, until);
  execute format(
    $query$
    select json_build_object(
      'rows', count(*), 'calls', coalesce(sum(%s), 0), 'amount', coalesce(sum(t.%I), 0)::text,
      'ids', coalesce(sum(vital_private.id_digits(t.id)), 0)::text, 'digits', json_build_object(%s)
    )
    from public.%I as t
    where t.%I >= %L and t.%I < %L %s %s
    $query$,
    case when monthly.table_name = 'token_usage_logs' then 't.calls' else '1' end,
    monthly.amount_column,
    (
      select string_agg(
        format('%1$L, json_build_array(coalesce(length(max(trunc(abs(t.%1$I)))::text), 1), coalesce(max(min_scale(t.%1$I)), 0))', c.attname), ', '
      )
      from pg_catalog.pg_attribute as c
      where c.attrelid = format('public.%I', monthly.table_name)::regclass and c.attnum > 0 and not c.attisdropped
        and c.atttypid = 'pg_catalog.numeric'::regtype
    ),
    monthly.table_name, monthly.time_column, coalesce(since, '-infinity'), monthly.time_column, coalesce(until, 'infinity'),
    case when organization is not null then format('and t.organization_id = %L', organization) end,
    case when user_id is not null then format('and t.user_id = %L', user_id) end
  ) into answer;
  return answer;
end;
$$;

-- Note that a month was written to a file, which holds so many rows with such a sum of amounts and such ids. It is refused if that is not
-- what the month holds now. `drop_rows`: delete the month from the database, if no older one is left there and it ended so long ago as
-- its table asks for. Answers {"rows", "dropped", "bytes": what the month took}.
create function public.archive_month_v1(
  table_name text, month date, held bigint, amount text, ids text, file text, drop_rows boolean default false
) returns json
language plpgsql
security definer
set search_path = ''
set timezone = 'UTC'
set statement_timeout = '15min'
as $$
declare
  monthly constant vital_private.monthly_tables := vital_private.monthly_table(archive_month_v1.table_name);
  since constant timestamptz := date_trunc('month', archive_month_v1.month)::date;
  until constant timestamptz := since + interval '1 month';
  -- Budgets may be counted from the calls of the month that runs, in every time zone.
  settled_after constant interval := coalesce(monthly.archived_after, interval '31 days');
  partition_name constant text := vital_private.partition_of(monthly.table_name, since::date);
  default_name constant text := monthly.table_name || '_default';
  partitioned constant boolean := to_regclass(format('vital_private.%I', partition_name)) is not null;
  late constant boolean := not partitioned and since < monthly.rows_kept_since;
  older boolean;
  bytes bigint;
  found record;
begin
  perform vital_private.check_given('month', archive_month_v1.month::text);
  perform vital_private.check_given('held', archive_month_v1.held::text);
  perform vital_private.check_given('amount', archive_month_v1.amount);
  perform vital_private.check_given('ids', archive_month_v1.ids);
  perform vital_private.check_given('file', archive_month_v1.file);
  drop_rows := coalesce(drop_rows, false);
  if drop_rows then
    if until > now() - settled_after then
      raise exception 'The month % of % has not ended % ago.', to_char(since, 'YYYY-MM'), monthly.table_name, settled_after
        using errcode = '55000';
    end if;
    execute format('select exists (select from public.%I as t where t.%I < %L)', monthly.table_name, monthly.time_column, since) into older;
    if older then
      raise exception 'There are older rows of % than those of %.', monthly.table_name, to_char(since, 'YYYY-MM')
        using errcode = '55000', hint = 'Months go in their order.';
    end if;
  end if;
  perform set_config('lock_timeout', '5s', true);
  if drop_rows then
    if monthly.table_name = 'token_usage_logs' then
      perform vital_private.sums_are_complete(until);
    end if;
    perform pg_catalog.pg_advisory_xact_lock(hashtext('vital_tracking.partitions'));
    -- Nobody writes while the month is counted for the last time; reading goes on. The parent is locked first, as by all writers.
    execute format('lock table only public.%I in share row exclusive mode', monthly.table_name);
    execute format('lock table vital_private.%I in share row exclusive mode', case when partitioned then partition_name else default_name end);
  end if;
  select c.* into found from vital_private.contents_of(monthly.table_name, since, until) as c;
  if (found.held, found.amount, found.ids)
    <> (archive_month_v1.held, archive_month_v1.amount::numeric, archive_month_v1.ids::numeric) then
    raise exception 'The rows of % have changed since they were written to the file.', to_char(since, 'YYYY-MM')
      using errcode = '55000', hint = 'Archive the month again.';
  end if;
  if not late then
    insert into vital_private.archived_months as known (table_name, month, held, amount, ids, file)
    values (monthly.table_name, since::date, found.held, found.amount, found.ids, archive_month_v1.file)
    on conflict on constraint archived_months_pkey do update
      set held = excluded.held, amount = excluded.amount, ids = excluded.ids, file = excluded.file, archived_at = now();
  end if;
  if drop_rows then
    if partitioned then
      bytes := pg_catalog.pg_total_relation_size(format('vital_private.%I', partition_name)::regclass);
      execute format('drop table vital_private.%I', partition_name);
    else
      perform set_config('vital_tracking.keep_sums', 'on', true);
      execute format(
        'delete from vital_private.%I as d where d.%I >= %L and d.%I < %L', default_name, monthly.time_column, since, monthly.time_column,
        until
      );
      perform set_config('vital_tracking.keep_sums', '', true);
    end if;
    perform vital_private.rows_gone_before(until, monthly.table_name);
  end if;
  perform vital_private.note(
    monthly.table_name, case when drop_rows then 'drop' else 'archive' end, null,
    jsonb_build_object('month', to_char(since, 'YYYY-MM')),
    jsonb_build_object('rows', found.held, monthly.amount_column, found.amount::text, 'file', archive_month_v1.file)
  );
  return json_build_object('rows', found.held, 'dropped', drop_rows, 'bytes', bytes);
end;
$$;

select vital_private.restrict_functions(api => '{months_v1, row_totals_v1, archive_month_v1}');
