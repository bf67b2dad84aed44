-- Exploring: any measures of calls by any dimensions, filtered by any dimension, in any time zone. What pages, reports and the API show of
-- usage comes from here, for whoever asks: it runs with the caller's rights, so the policies decide what is counted.
--
-- Answers come from the smallest aggregation that holds what is asked for, which takes milliseconds however many calls there are; else
-- from the calls themselves. Aggregations hold no user's own hours, models or steps, so who administers no organization is always
-- answered from his calls.

create table vital_private.usage_dimensions (
  position smallint not null unique,
  name text not null primary key,
  of_call text,
  of_sums text,
  of_time text,
  needs_hours boolean not null default false,
  name_of_call text,
  name_of_sums text,
  about text not null,
  has_many_values boolean not null default false,
  constraint usage_dimensions_source check ((of_time is null) = (of_call is not null))
);

comment on table vital_private.usage_dimensions is 'By what usage_explore_v1 groups and filters.';
comment on column vital_private.usage_dimensions.of_call is 'Its value for a row `call` of token_usage_logs.';
comment on column vital_private.usage_dimensions.of_sums is 'Its value for a row `s` of aggregations that have these columns; NULL: only calls do.';
comment on column vital_private.usage_dimensions.of_time is 'Of times: its value for u.local, the time by the clocks of the zone, and u.at.';
comment on column vital_private.usage_dimensions.needs_hours is 'Of times: whether days are not enough.';
comment on column vital_private.usage_dimensions.name_of_call is 'The column of calls with a name for people, which may change.';
comment on column vital_private.usage_dimensions.name_of_sums is 'The same of aggregations.';

insert into vital_private.usage_dimensions (position, name, of_time, needs_hours, about) values
(1, 'hour', 'date_trunc(''hour'', u.at, %L)', true, 'The hour that the call began in.'),
(2, 'day', 'u.local::date', false, 'The day that the call began on.'),
(3, 'week', 'date_trunc(''week'', u.local)::date', false, 'The Monday of its week.'),
(4, 'month', 'date_trunc(''month'', u.local)::date', false, 'The first day of its month.'),
(5, 'weekday', 'extract(isodow from u.local)::integer', false, 'Its day of the week: 1 is Monday, 7 is Sunday.'),
(6, 'hour_of_day', 'extract(hour from u.local)::integer', true, 'Its hour of the day: 0 to 23.');

insert into vital_private.usage_dimensions (position, name, of_call, of_sums, name_of_call, name_of_sums, about) values
(11, 'organization', 'call.organization_id', 's.organization_id', null, null, 'The organization.'),
(12, 'user', 'call.user_id', 's.user_id', null, null, 'The user.'),
(13, 'session', 'call.session_id', null, null, null, 'The session: a conversation or thread.'),
(14, 'service', 'call.service_type', 's.service_type', null, null, 'The service.'),
(
  15, 'kind', 'case call.call_type when ''embedding'' then ''embeddings'' else ''llm'' end',
  'case s.call_type when ''embedding'' then ''embeddings'' else ''llm'' end', null, null,
  'What was called: llm (chat and completion) or embeddings.'
),
(16, 'agent', 'call.agent_id', 's.agent_id', 'agent_name', 'agent_name', 'The agent.'),
(17, 'tier', 'call.agent_tier', 's.agent_tier', null, null, 'The tier of the agent.'),
(18, 'role', 'call.agent_role', null, null, null, 'The role of the agent.'),
(19, 'workflow', 'call.workflow_id', 's.workflow_id', null, null, 'The workflow.'),
(20, 'step', 'call.workflow_step', 's.workflow_step', 'workflow_step_name', 'workflow_step_name', 'The step of the workflow.'),
(21, 'panel', 'call.panel_id', 's.panel_id', null, null, 'The panel.'),
(22, 'seat', 'call.panel_position', 's.panel_position', null, null, 'The seat of the panel.'),
(23, 'solution', 'call.solution_id', null, null, null, 'The solution.'),
(24, 'provider', 'call.provider', 's.provider', null, null, 'The provider of the model.'),
(25, 'model', 'call.model', 's.model', null, null, 'The model that answered.'),
(26, 'framework', 'call.framework', 's.framework', null, null, 'The framework that made the call.'),
(27, 'message_type', 'call.message_type', 's.message_type', null, null, 'The kind of message, as the application names it.'),
(28, 'status', 'call.status', null, null, null, 'How the call ended.'),
(29, 'error', 'call.error_type', null, null, null, 'The class of its error.'),
(
  30, 'endpoint',
  'case when call.workflow_step is not null then concat_ws(''/'', coalesce(call.workflow_id, ''workflow''), call.workflow_step)
    else concat_ws(''/'', call.service_type, call.agent_id) end',
  'case when s.workflow_step is not null then concat_ws(''/'', coalesce(s.workflow_id, ''workflow''), s.workflow_step)
    else concat_ws(''/'', s.service_type, s.agent_id) end', null, null,
  'What was called: service/agent or workflow/step.'
),
(31, 'run', 'call.service_run_id', null, 'service_name', null, 'The service run.');

update vital_private.usage_dimensions set has_many_values = true where name in ('session', 'run');

comment on column vital_private.usage_dimensions.has_many_values is 'Whether there may be nearly as many of them as calls.';

select vital_private.restrict_relation('vital_private.usage_dimensions', readers => '{authenticated, service_role}');

create policy "Signed-in users see by what usage can be explored" on vital_private.usage_dimensions
for select to authenticated
using (true);

-- Which aggregation an answer comes from is chosen with the rights of whoever asks.
select vital_private.restrict_relation('vital_private.usage_aggregations', readers => '{authenticated, service_role}');

create policy "Signed-in users see which aggregations there are" on vital_private.usage_aggregations
for select to authenticated
using (true);

-- The measures that aggregations keep and from which these measures follow.
create function vital_private.kept_for(measures text[]) returns text[]
language sql
stable
set search_path = ''
as $$
  select array_agg(k.name order by k.position)
  from vital_private.usage_measures as k
  where k.of_call is not null and exists (
    select from vital_private.usage_measures as m
    where m.name = any(measures) and (
      (m.name = k.name and m.of_sums is null)
      or m.of_sums ~ ('\ms\.' || k.name || '\M')
      or (m.fraction is not null and k.unit = 'histogram')
    )
  )
$$;

-- The columns of a row `s` that an expression reads; NULL: there is no expression.
create function vital_private.columns_of(expression text) returns text[]
language sql
immutable
strict
set search_path = ''
as $$
  select array(select c[1] from regexp_matches(expression, '\ms\.(\w+)', 'g') as c)
$$;

-- These measures of a row `s` of sums as JSON: amounts as text, so that no client turns them into floats, everything else as numbers.
create function vital_private.explored_json(measures text[]) returns text
language sql
stable
set search_path = ''
as $$
  select format(
    '(select jsonb_build_object(%s) from %s as p (latencies))',
    string_agg(
      format('%L, ', m.name) || format(
        case m.unit when 'usd' then 'trim_scale(%s)::text' when 'ms' then 'round((%s)::numeric, 3)' else '%s' end,
        vital_private.measure(m.name, 's', 'p.latencies')
      ), ', ' order by m.position
    ),
    case when bool_or(m.fraction is not null) then vital_private.all_latencies('s') else '(select null::double precision[])' end
  )
  from vital_private.usage_measures as m
  where m.name = any(measures)
$$;

-- Whether every boundary between local hours of a zone is one of UTC's, in a time of some years.
create function vital_private.has_whole_hours(zone text, since timestamptz, until timestamptz) returns boolean
language sql
stable
set search_path = ''
as $$
  select bool_and(extract(epoch from (m at time zone zone) - (m at time zone 'UTC'))::integer % 3600 = 0)
  from generate_series(since, greatest(until, since), interval '30 days') as m
$$;

-- The condition that an expression has one of the values of a filter: a text, or an array of them in which null stands for none and '*',
-- as in budgets, for any. (The cast of what is text already costs nothing, and hides no index.)
create function vital_private.has_one_of(expression text, wanted jsonb) returns text
language sql
immutable
set search_path = ''
as $$
  select format(
    case
      when bool_or(w.value is null) and bool_or(w.value = '*') then 'true'
      when bool_or(w.value is null) then '(%1$s::text = any(%2$L::text[]) or %1$s is null)'
      when bool_or(w.value = '*') then '%1$s is not null'
      else '%1$s::text = any(%2$L::text[])'
    end,
    expression, coalesce(array_agg(w.value) filter (where w.value is not null), '{}')
  )
  from jsonb_array_elements_text(case jsonb_typeof(wanted) when 'array' then wanted else jsonb_build_array(wanted) end) as w (value)
$$;

-- What calls between two instants come to, by some dimensions: {"since", "until", "timezone", "source", "fresh_at", "total": {measures},
-- "groups", "rows": [{dimensions and measures}, ...], "names": {"agent": {"cardio": "Cardiologist"}}}. Times come first and in their
-- order, the rest by `order_by`, the greatest first.
--
-- `filters` are values by the name of a dimension, or by metadata.KEY: {"service": "workflow", "model": ["a", "b", null], "agent": "*"};
-- null stands for none, '*' for any. Of those in "any" one must hold: {"any": {"workflow": "*", "step": "*"}}. "calls" holds filters as
-- calls_v1 takes them, of which only calls know: {"calls": {"search": "triage", "unpriced": true}}. `measures` NULL: those of reports;
-- "active_users" is one that only this function knows. `top`: the groups of the first dimension that is no time after so many are added up
-- in one, whose row says "others": true. `ascending` puts the least first, or false the greatest, whatever times there are.
--
-- With a `grain` (hour, day, week from Monday on, month) it is a report: of the whole days (hours, where that is the grain) of the time zone
-- that the time touches. Each row tells its course, too, as "days": [[time, cost], ...], its "first_day" and "last_day", and the newest names
-- of its own ("agent_name", "workflow_step_name", "service_name"); a user's how many "services". "kept_since" says from when on calls are
-- still there, where the answer is from them and that is later than what was asked for.
--
-- `copied` lets a copy of the calls answer for what it holds (docs/clickhouse.md). {"copy": id, "least": n}: where at least so many calls are
-- needed and that copy has some of them, the answer is {"ask_copy": what to ask it}. That once more with its "groups" joins these to the calls
-- from "until" on. The groups are sums of what whoever asks may see, which "reader" says, so they are added to his own answer alone.
create function public.usage_explore_v1(
  since timestamptz,
  until timestamptz,
  dimensions text[] default '{}',
  filters jsonb default '{}',
  measures text[] default null,
  timezone text default 'UTC',
  order_by text default 'total_cost',
  top integer default null,
  max_rows integer default 1000,
  grain text default null,
  ascending boolean default null,
  copied jsonb default null
) returns json
language plpgsql
stable
set search_path = ''
set timezone = 'UTC'
set work_mem = '64MB'
set jit = off
as $$
declare
  first_at timestamptz := since;
  end_at timestamptz := until;
  told_until timestamptz;
  wanted text[];
  kept text[];
  by_users boolean;
  chosen vital_private.usage_dimensions[];
  problem text;
  advice text;
  source text;
  row_source text;
  conditions text;
  columns text; -- the dimensions as columns of their own names
  times text; -- those of them that are times, which come first in order
  same_group text;
  sums text;
  told text; -- the measures as JSON
  ranking text;
  counted text;
  total text;
  first_one text;
  administered text[];
  any_of jsonb; -- filters of which one must hold,
  of_calls text; -- and those that only calls know
  every_filter jsonb;
  course vital_private.usage_dimensions; -- the dimension of the grain
  read vital_private.usage_dimensions[]; -- what is chosen, and the grain
  by_position text;
  ordering text; -- of rows of sums %1$s
  copied_until timestamptz; -- calls before it come from a copy
  answer json;
begin
  -- What was asked for, and whether it can be answered.
  dimensions := coalesce(dimensions, '{}');
  -- Some clients hand JSON over as a text.
  filters := coalesce(case jsonb_typeof(filters) when 'string' then (filters #>> '{}')::jsonb else filters end, '{}');
  timezone := coalesce(timezone, 'UTC');
  if timezone <> 'UTC' and (
    upper(timezone) in ('CET', 'EET', 'MET', 'WET') or not exists (select from pg_catalog.pg_timezone_names as z where z.name = timezone)
  ) then
    raise exception 'There is no time zone %.', quote_literal(timezone) using errcode = '22023', hint = 'Use an IANA name such as Europe/Berlin.';
  end if;
  if since is null or until is null or since >= until then
    raise exception 'What is explored begins before it ends.' using errcode = '22023', hint = 'Give since and until.';
  end if;
  if jsonb_typeof(filters) <> 'object' or jsonb_typeof(coalesce(filters -> 'any', '{}')) <> 'object' then
    raise exception 'Filters are an object of values by dimension.' using errcode = '22023', hint = 'Such as {"service": "workflow"}.';
  end if;
  every_filter := filters;
  any_of := coalesce(filters -> 'any', '{}');
  of_calls := nullif(filters -> 'calls', '{}')::text;
  filters := filters - '{any, calls}'::text[];
  if grain is not null and grain not in ('hour', 'day', 'week', 'month') then
    raise exception 'There is no grain %.', quote_literal(grain) using errcode = '22023', hint = 'Choose hour, day, week or month.';
  end if;
  wanted := coalesce(
    measures, array(select m.name from vital_private.usage_measures as m where m.in_reports order by m.position)
  );
  by_users := 'active_users' = any(wanted);
  if grain is not null and (by_users or top is not null) then
    raise exception 'The rows of a report tell neither active users nor others.' using errcode = '22023', hint = 'Leave the grain out.';
  end if;
  wanted := array_remove(wanted, 'active_users');
  order_by := coalesce(order_by, 'total_cost');
  select format('There is no measure %s.', quote_literal(w.name)) into problem
  from unnest(wanted || order_by) as w (name)
  where not exists (select from vital_private.usage_measures as m where m.name = w.name and m.unit <> 'histogram');
  if problem is not null then
    select string_agg(m.name, ', ' order by m.position) into advice from vital_private.usage_measures as m where m.unit <> 'histogram';
    raise exception '%', problem using errcode = '22023', hint = format('Choose among %s, active_users.', advice);
  end if;
  select format('There is no dimension %s.', quote_nullable(d.name)) into problem
  from (
    select unnest(dimensions) as name, true as may_be_time
    union all
    select k.name, false from jsonb_object_keys(any_of || filters) as k (name)
  ) as d
  where (d.name like 'metadata.%') is not true and not exists (
    select from vital_private.usage_dimensions as u where u.name = d.name and (d.may_be_time or u.of_call is not null)
  );
  if problem is not null then
    select string_agg(u.name, ', ' order by u.position) into advice from vital_private.usage_dimensions as u;
    raise exception '%', problem using errcode = '22023', hint = format('Choose among %s, metadata.KEY.', advice);
  end if;
  if cardinality(dimensions) > 6 or cardinality(dimensions) <> (select count(distinct d) from unnest(dimensions) as d) then
    raise exception 'Calls are grouped by at most six different dimensions.' using errcode = '22023', hint = 'Leave some out.';
  end if;

  -- What that takes of columns. A dimension of metadata is made up here; the others are those of the catalogue.
  select array_agg(
    coalesce(
      (select u from vital_private.usage_dimensions as u where u.name = d.name),
      row(
        0, d.name, format('call.metadata ->> %L', substr(d.name, 10)), null, null, false, null, null, '', false
      )::vital_private.usage_dimensions
    )
    order by d.place
  ) into chosen
  from (
    select d.name, d.place
    from unnest(dimensions) with ordinality as d (name, place)
    union all
    select k.name, 100 + k.place
    from jsonb_object_keys(
      any_of || filters || case when grain is not null and 'user' = any(dimensions) then '{"service": null}' else '{}' end::jsonb
    ) with ordinality as k (name, place)
    where k.name <> all(dimensions)
  ) as d;
  chosen := coalesce(chosen, '{}');
  select u.* into course from vital_private.usage_dimensions as u where u.name = grain;
  read := case when grain is null then chosen else chosen || course end;
  kept := vital_private.kept_for(wanted || order_by || case when grain is not null then '{calls, total_cost}' end::text[]);

  if grain is not null then
    first_at := date_trunc(case grain when 'hour' then 'hour' else 'day' end, since, timezone);
    end_at := until - interval '1 microsecond';
    end_at := case
      when grain = 'hour' then date_trunc('hour', end_at, timezone) + interval '1 hour'
      else ((end_at at time zone timezone)::date + 1)::timestamp at time zone timezone
    end;
    told_until := end_at;
  end if;

  -- From where. Sums are by hour or day of UTC, and a signed-in user sees those of the organizations that he administers.
  if end_at >= now() then
    end_at := date_trunc('day', end_at, 'UTC') + interval '1 day';
  end if;
  if current_user = 'authenticated' then
    administered := vital_private.administered_organizations();
  end if;
  copied := case jsonb_typeof(copied) when 'string' then (copied #>> '{}')::jsonb else copied end;
  if of_calls is null and (administered is null or (
    administered <> '{}' and (not filters ? 'organization' or not exists (
      select
      from jsonb_array_elements_text(
        case jsonb_typeof(filters -> 'organization') when 'array' then filters -> 'organization'
        else jsonb_build_array(filters -> 'organization') end
      ) as o (id)
      where (o.id = any(administered)) is not true
    ))
  )) then
    select a.target into source
    from vital_private.usage_aggregations as a
    cross join lateral (select 'hour_start' = any(a.keys) as hourly) as h
    where not exists (
        select from unnest(read) as d
        where case when d.of_time is null then (vital_private.columns_of(d.of_sums) <@ a.keys) is not true else d.needs_hours and not h.hourly end
      )
      and (not by_users or 'user_id' = any(a.keys))
      and first_at = date_trunc(case when h.hourly then 'hour' else 'day' end, first_at, 'UTC')
      and end_at = date_trunc(case when h.hourly then 'hour' else 'day' end, end_at, 'UTC')
      and case
        when timezone = 'UTC' or not exists (select from unnest(read) as d where d.of_time is not null) then true
        else h.hourly and vital_private.has_whole_hours(timezone, first_at, end_at)
      end
    -- Days before hours, and few columns before many.
    order by h.hourly, cardinality(a.keys)
    limit 1;
  end if;

  if source is null and of_calls is null and copied is not null then
    if copied ? 'groups' then
      copied_until := (copied ->> 'until')::timestamptz;
    else
      answer := vital_private.ask_copy(
        (copied ->> 'copy')::uuid, first_at, end_at, coalesce((copied ->> 'least')::bigint, 0),
        case
          when exists (select from unnest(read) as d where d.needs_hours) then 'hour'
          when grain is not null or exists (select from unnest(read) as d where d.of_time is not null) then 'day'
        end, timezone
      );
      if answer is not null then
        return json_build_object('ask_copy', answer::jsonb || jsonb_build_object(
          'filters', vital_private.filter_texts(filters), 'any', vital_private.filter_texts(any_of), 'measures', kept, 'by_users', by_users,
          'dimensions', (
            select coalesce(jsonb_agg(jsonb_build_object('name', d.name, 'named', d.name_of_call)), '[]') from unnest(chosen) as d
            where d.of_call is not null and (d.name = any(dimensions) or (grain is not null and d.name = 'service'))
          )
        ));
      end if;
    end if;
  end if;

  -- The rows to be added up, with a column for each dimension and measure.
  if source is null then
    select
      concat_ws(
        ' and ',
        string_agg(vital_private.has_one_of('(' || d.of_call || ')', filters -> d.name), ' and ') filter (where filters ? d.name),
        '(' || string_agg(vital_private.has_one_of('(' || d.of_call || ')', any_of -> d.name), ' or ') filter (where any_of ? d.name) || ')',
        case when of_calls is not null then vital_private.call_filter(of_calls) end
      )
    into conditions
    from unnest(chosen) as d;
    row_source := format(
      $query$(
        select c.*, c.at at time zone %1$L as local
        from (
          select call.created_at as at, call.user_id as of_user %2$s %3$s
          from public.token_usage_logs as call
          where call.created_at >= %5$s and call.created_at < $2 %4$s
          %6$s
        ) as c
      )$query$,
      timezone,
      (select string_agg(format(', %s as %I', d.of_call, 'd_' || d.name), '') from unnest(chosen) as d where d.of_call is not null)
      || coalesce((
        select string_agg(
          format(', case when call.%1$I is not null then array[call.created_at::text, call.%1$I] end as %2$I', d.name_of_call, 'n_' || d.name), ''
        )
        from unnest(chosen) as d
        where d.name_of_call is not null
      ), ''),
      (
        -- Sums of bigint are as exact as those of numeric, and take less time.
        select string_agg(format(', %s as %I', regexp_replace(m.of_call, '(?<!\))::numeric', ''), m.name), '' order by m.position)
        from vital_private.usage_measures as m
        where m.name = any(kept)
      ),
      concat(
        ' and ' || nullif(conditions, ''),
        -- What the policies say anyway, where somebody has nothing but calls of his own: said here, too, an index serves it.
        case when administered = '{}' then format(' and call.user_id = %L', vital_private.subject()) end
      ),
      case when copied_until is null then '$1' else 'greatest($1, $9)' end,
      case when copied_until is not null then format(
        $query$
          union all
          select g.at, g.of_user %1$s %2$s
          from jsonb_to_recordset($10) as g (at timestamptz, of_user text, buckets jsonb, edges jsonb %3$s)
        $query$,
        (
          select string_agg(format(
            ', g.%I::%s', 'd_' || d.name, coalesce((
              select a.atttypid::regtype::text from pg_catalog.pg_attribute as a
              where a.attrelid = 'public.token_usage_logs'::regclass and 'call.' || a.attname = d.of_call
            ), 'text')
          ), '')
          from unnest(chosen) as d
          where d.of_call is not null
        ) || coalesce((
          select string_agg(
            format(', case when g.%1$I is not null then array[(g.%1$I ->> 0)::timestamptz::text, g.%1$I ->> 1] end', 'n_' || d.name), ''
          )
          from unnest(chosen) as d
          where d.name_of_call is not null
        ), ''),
        (
          select string_agg(
            case when m.unit = 'histogram' then ', vital_private.histogram_of(g.buckets, g.edges)' else format(', g.%I', m.name) end,
            '' order by m.position
          )
          from vital_private.usage_measures as m
          where m.name = any(kept)
        ),
        concat(
          (select string_agg(format(', %I text', 'd_' || d.name), '') from unnest(chosen) as d where d.of_call is not null),
          (select string_agg(format(', %I jsonb', 'n_' || d.name), '') from unnest(chosen) as d where d.name_of_call is not null),
          (
            select string_agg(format(', %I numeric', m.name), '') from vital_private.usage_measures as m
            where m.name = any(kept) and m.unit <> 'histogram'
          )
        )
      ) end
    );
  else
    select
      concat_ws(
        ' and ',
        string_agg(vital_private.has_one_of('(' || d.of_sums || ')', filters -> d.name), ' and ') filter (where filters ? d.name),
        '(' || string_agg(vital_private.has_one_of('(' || d.of_sums || ')', any_of -> d.name), ' or ') filter (where any_of ? d.name) || ')'
      )
    into conditions
    from unnest(chosen) as d;
    row_source := format(
      $query$(
        select c.*, c.at at time zone %1$L as local
        from (
          select %2$s as at, %3$s as of_user %4$s %5$s
          from %6$s as s
          where %7$s %8$s
        ) as c
      )$query$,
      timezone,
      case when source = 'usage_aggregations_hourly_totals' then 's.hour_start' else 's.day::timestamp at time zone ''UTC''' end,
      case when by_users then 's.user_id' else 'null::text' end,
      (select string_agg(format(', %s as %I', d.of_sums, 'd_' || d.name), '') from unnest(chosen) as d where d.of_sums is not null)
      || coalesce((
        select string_agg(
          format(
            ', case when s.%1$I is not null then array[(%3$s)::text, s.%1$I] end as %2$I', d.name_of_sums, 'n_' || d.name,
            case when source = 'usage_aggregations_hourly_totals' then 's.hour_start' else 's.day' end
          ), ''
        )
        from unnest(chosen) as d
        where d.name_of_sums is not null
      ), ''),
      (select string_agg(format(', s.%I', k), '') from unnest(kept) as k),
      -- Whoever administers an organization also has calls of his own elsewhere, which are in no sums that he sees.
      case when administered is null or filters ? 'organization' then format('public.%I', source)
      else format('vital_private.%I', replace(source, 'usage_aggregations_', 'visible_')) end,
      case
        when source = 'usage_aggregations_hourly_totals' then 's.hour_start >= $1 and s.hour_start < $2'
        else 's.day >= ($1 at time zone ''UTC'')::date and s.day < ($2 at time zone ''UTC'')::date'
      end,
      ' and ' || nullif(conditions, '')
    );
  end if;
  raise debug '%', row_source;
  first_one := (
    select format('%I', d.name) from unnest(chosen) as d
    where d.name = any(dimensions) and d.of_time is null
    order by array_position(dimensions, d.name)
    limit 1
  );
  select
    string_agg(format('%s as %I', n.expression, n.name), ', ' order by n.place),
    string_agg(format('%I, ', n.name), '' order by n.place) filter (where n.is_time),
    string_agg(
      format('coalesce((%1$s)::text, '''') = coalesce(p.%2$I::text, '''') and %1$s is not distinct from p.%2$I', n.expression, n.name),
      ' and ' order by n.place
    )
  into columns, times, same_group
  from (
    select
      d.name, d.of_time is not null as is_time, coalesce(format(d.of_time, timezone), format('u.%I', 'd_' || d.name)) as expression,
      array_position(dimensions, d.name) as place
    from unnest(chosen) as d
    where d.name = any(dimensions)
  ) as n;
  sums := (select string_agg(format(', coalesce(sum(u.%1$I), 0) as %1$I', k), '') from unnest(kept) as k);
  told := case when wanted = '{}' then '''{}''::jsonb' else vital_private.explored_json(wanted) end
  || case when by_users then ' || jsonb_build_object(''active_users'', s.active_users)' else '' end;
  row_source := row_source || ' as u';
  by_position := array_to_string(
    array(select generate_series(1, cardinality(dimensions)))
    -- 1 + that: users; 2 + that: the times of the course
    || case when by_users or dimensions = '{}' then 1 + cardinality(dimensions) end
    || case when grain is not null then 2 + cardinality(dimensions) end, ', '
  );
  ordering := concat(
    case when ascending is null then times end,
    case when ascending then '%1$s.rank asc' else '%1$s.rank desc' end, ' nulls last',
    case when grain is not null then ', %1$s.total_cost desc, %1$s.calls desc' end,
    (select string_agg(', %1$s.' || replace(quote_ident(n), '%', '%%'), '' order by place) from unnest(dimensions) with ordinality as d (n, place))
  );

  -- Where calls make very many groups, first which of them are shown, by the sums that decide it; then all measures, of these alone. What
  -- all of them come to is asked for by itself, since sums hold it.
  if source is null and top is null and not by_users and first_at >= vital_private.rows_kept_since() and copied_until is null
    and exists (select from unnest(chosen) as d where d.has_many_values and d.name = any(dimensions)) then
    ranking := format(
      $query$
        every_group as materialized (
          select %1$s %2$s from %3$s group by %4$s
        ),

        shown as materialized (
          select s.* from (select s.*, %5$s as rank from every_group as s) as s order by %6$s limit $3
        ),
      $query$,
      columns,
      (
        select string_agg(format(', coalesce(sum(u.%1$I), 0) as %1$I', k), '')
        from unnest(vital_private.kept_for(order_by || case when grain is not null then '{calls, total_cost}' end::text[])) as k
      ),
      row_source, (select string_agg(n::text, ', ') from generate_series(1, cardinality(dimensions)) as n),
      vital_private.measure(order_by, 's'), format(ordering, 's')
    );
    row_source := format('%s inner join shown as p on %s', row_source, same_group);
    counted := 'every_group';
    total := format('public.usage_explore_v1($1, $2, filters => %L, measures => %L) -> ''total''', every_filter, wanted);
  else
    counted := 'folded';
    total := format(
      '(select %s from (select %s as active_users %s from added as u) as s)', told,
      case when by_users then 'count(distinct u.of_user)' else 'null::bigint' end, sums
    );
  end if;

  execute format(
    $query$
      with %1$s added as materialized (
        select %2$s %3$s as of_user, %16$s %4$s %5$s
        from %6$s
        group by %7$s
      ),

      %8$s

      select json_build_object(
        'since', $1, 'until', coalesce($8, $2), 'timezone', $5, 'source', $6, 'fresh_at', now(), 'copied_until', $9,
        'kept_since', case when $6 = 'calls' and $1 < $7 then $7 end,
        'total', %9$s,
        'groups', (select count(*) from %10$s),
        'rows', (
          select coalesce(json_agg(r.shown order by %11$s), '[]')
          from (
            select s.*, jsonb_build_object(%13$s) || %14$s
              || case when s.others then '{"others": true}'::jsonb else '{}'::jsonb end as shown
            from (select s.*, %12$s as rank from folded as s) as s
            order by %17$s
            limit $3
          ) as r
        ),
        'names', %15$s
      )
    $query$,
    ranking,
    columns || ', ',
    case when by_users then 'u.of_user' else 'null::text' end,
    -- 4: the newest name of each
    (
      select string_agg(
        format(', max(u.%1$I collate "C") as %1$I', 'n_' || d.name), ''
      )
      from unnest(chosen) as d
      where d.name = any(dimensions) and d.name_of_call is not null
    ),
    sums,
    row_source,
    by_position,
    -- 8: what is shown: the groups as they are, with their courses, or others folded into one, and users counted
    case
      when grain is not null then format(
        $query$
          folded as materialized (
            select
              %1$s false as others, null::bigint as active_users %2$s %3$s,
              jsonb_agg(jsonb_build_array(u.period, trim_scale(u.total_cost)::text) order by u.period) filter (where u.calls > 0) as days,
              min(u.first_day) as first_day, max(u.last_day) as last_day, bit_count(coalesce(bit_or(u.services), 0)::bit(4)) as services
            from added as u
            %4$s
            having sum(u.calls) > 0
          )
        $query$,
        (select string_agg(format('u.%I, ', n), '' order by place) from unnest(dimensions) with ordinality as d (n, place)),
        sums,
        (
          select string_agg(format(', max(u.%1$I collate "C") as %1$I', 'n_' || d.name), '')
          from unnest(chosen) as d
          where d.name = any(dimensions) and d.name_of_call is not null
        ),
        'group by ' || (select string_agg(n::text, ', ') from generate_series(1, cardinality(dimensions)) as n)
      )
      when top is null and not by_users then
        'folded as not materialized (select u.*, false as others, null::bigint as active_users from added as u)'
      else format(
        $query$
          ranked as materialized (
            select s.value, row_number() over (order by %1$s desc nulls last, s.value) as place
            from (select %2$s as value %3$s from added as u group by 1) as s
          ),

          folded as materialized (
            select %4$s, coalesce(r.place > $4, false) as others, %5$s as active_users %3$s
            from added as u
            -- The first half can be hashed, the second tells none and '' apart.
            left join ranked as r
              on $4 is not null and coalesce(r.value::text, '') = coalesce((%2$s)::text, '') and r.value is not distinct from %2$s
            group by %6$s
          )
        $query$,
        vital_private.measure(order_by, 's'),
        coalesce('u.' || first_one, 'null::text'),
        sums,
        -- 4: dimensions, where the first that is no time is left out of what is folded
        coalesce((
          select string_agg(
            case when format('%I', n) = first_one then format('case when r.place <= $4 or $4 is null then u.%1$I end as %1$I', n)
            else format('u.%I', n) end,
            ', ' order by place
          )
          from unnest(dimensions) with ordinality as d (n, place)
        ), 'null::text as nothing'),
        case when by_users then 'count(distinct u.of_user)' else 'null::bigint' end,
        (select string_agg(n::text, ', ') from generate_series(1, greatest(cardinality(dimensions), 1) + 1) as n)
      )
    end,
    total,
    counted,
    format(ordering, 'r'),
    vital_private.measure(order_by, 's'),
    -- 13: dimensions as JSON
    (select string_agg(format('%1$L, s.%1$I', n), ', ' order by place) from unnest(dimensions) with ordinality as d (n, place)),
    told || case when grain is not null then format(
      ' || jsonb_build_object(''days'', s.days, ''first_day'', s.first_day, ''last_day'', s.last_day %s %s)',
      case when 'user' = any(dimensions) then ', ''services'', s.services' end,
      (
        select string_agg(format(', %L, s.%I[2]', d.name_of_call, 'n_' || d.name), '')
        from unnest(chosen) as d
        where d.name = any(dimensions) and d.name_of_call is not null
      )
    ) else '' end,
    -- 15: names
    coalesce('json_build_object(' || (
      select string_agg(
        format(
          '%1$L, (select coalesce(json_object_agg(u.key, u.named[2]), ''{}'') from (
            select u.%1$I as key, max(u.%2$I collate "C") as named from added as u where u.%1$I is not null group by 1
          ) as u where u.named is not null)', d.name, 'n_' || d.name
        ), ', '
      )
      from unnest(chosen) as d
      where d.name = any(dimensions) and d.name_of_call is not null and not d.has_many_values
    ) || ')', '''{}''::json'),
    -- 16: the times of the course, and what else the rows of a report tell
    case when grain is null then 'null::date as period' else format(
      '%s as period, min(u.local)::date as first_day, max(u.local)::date as last_day, %s as services', format(course.of_time, timezone),
      case
        when 'user' = any(dimensions) then
          'bit_or(1 << (array_position(''{1:1_conversation, virtual_panel, workflow, solution_builder}'', u.d_service) - 1))'
        else 'null::integer'
      end
    ) end,
    format(ordering, 's')
  ) into answer
  using first_at, end_at, least(greatest(coalesce(max_rows, 1000), 0), 100000), top, timezone,
    coalesce(replace(source, 'usage_aggregations_', ''), 'calls'),
    case when copied_until is null then vital_private.rows_kept_since() else (copied ->> 'kept_since')::timestamptz end,
    told_until, copied_until, copied -> 'groups';
  return answer;
end;
$$;

comment on function public.usage_explore_v1(timestamptz, timestamptz, text[], jsonb, text[], text, text, integer, integer, text, boolean, jsonb) is
'What calls come to by any dimensions, filtered by any, from the smallest sums that hold it, else from the calls: as whoever asks may see.';

select vital_private.restrict_functions(
  api => '{usage_explore_v1}', helpers => '{kept_for, columns_of, explored_json, has_whole_hours, has_one_of, latency_bucket}'
);
