-- Calls, runs and reports from the calls themselves: by sessions and runs, in any time zone, by any filter, and a month's invoice. All of
-- it runs with the rights of whoever asks, so the policies decide what is counted.
--
-- `filters` is the text of a JSON object; a filter that is missing or null lets everything pass:
--   since, until           the call's start, from `since` up to, and without, `until`
--   organization, user, session, service, agent, tier, workflow, panel, solution, framework, provider, model, message_type, call_type,
--   status, error          the value of the column
--   id                     the call of that id
--   step                   the step by its id or name, or the outermost node of the graph
--   run                    the service run, with all that is nested in it
--   unpriced, blocked      true: only calls without a known price, only calls that a budget stopped
--   metadata               an object of keys and values, as text, that the call's metadata have
--   local                  hour_of_day (0 to 23) and weekday (1 to 7, from Monday on) that the call began in, by the clocks of a timezone
--   search                 words that must each occur in a name, id or tag of the call
--   where                  an object of values by dimension, as usage_explore_v1 takes them: {"seat": ["1", "2"], "user": [null], "agent": "*"}
--   without                an array of such objects: only calls that have not all values of one of them
-- and what advice chooses calls by, of those that savings rest on:
--   reached, repriceable   true: no cache and no budget kept it from a model; it was billed by tokens alone, at a known price, and is no
--                          shadow run
--   audio                  true, false: with tokens of sound, or without
--   prompt_from, prompt_below  so many tokens of the prompt, or more; fewer than so many
--   unattended, attended   nobody waited for it, or somebody may have, by the clock of this time zone
--   between                the clock of UTC, as 22:00-06:00: from the first, up to and without the second
--   repeated_within        an exact cache that keeps answers for so long would have answered it; new_within: is known to have had none
--   alike_within           a provider that keeps beginnings of prompts for so long would have read more of it, or written more for others

-- The columns that filters of these names compare.
create function vital_private.filter_column(filter text) returns text
language sql
immutable
set search_path = ''
as $$
  select c.column_name
  from (
    values
    ('organization', 'organization_id'), ('user', 'user_id'), ('session', 'session_id'), ('service', 'service_type'),
    ('agent', 'agent_id'), ('tier', 'agent_tier'), ('workflow', 'workflow_id'), ('panel', 'panel_id'), ('solution', 'solution_id'),
    ('framework', 'framework'), ('provider', 'provider'), ('model', 'model'), ('message_type', 'message_type'),
    ('call_type', 'call_type'), ('status', 'status'), ('error', 'error_type')
  ) as c (name, column_name)
  where c.name = filter
$$;

-- The condition that values by dimension, as usage_explore_v1 takes them, make of calls `call`, or of runs `r`, which have fewer of them.
create function vital_private.where_of(wanted jsonb, of text) returns text
language plpgsql
stable
set search_path = ''
as $$
declare
  parts text[] := '{true}';
  one record;
begin
  for one in
    select
      w.key as name, w.value,
      case
        when of = 'r' then (
          select format('r.%I', vital_private.filter_column(f.name))
          from unnest('{organization, user, session, service, agent, workflow, panel, solution, status}'::text[]) as f (name)
          where f.name = w.key
        )
        when w.key like 'metadata.%' then format('(call.metadata ->> %L)', substr(w.key, 10))
        else (select format('(%s)', d.of_call) from vital_private.usage_dimensions as d where d.name = w.key and d.of_call is not null)
      end as expression
    from jsonb_each(wanted) as w
  loop
    if one.expression is null then
      perform vital_private.no_such_filter(one.name);
    end if;
    parts := parts || vital_private.has_one_of(one.expression, one.value);
  end loop;
  return array_to_string(parts, ' and ');
end;
$$;

-- The query that finds which calls of the time and the organization that filters name are `repeated` or `alike`: what else is asked for
-- changes nothing of that.
create function vital_private.found_among(filters jsonb, what text, kept_for text) returns text
language sql
stable
set search_path = ''
as $$
  select case what when 'repeated' then vital_private.repeated_calls(q.since, q.until, q.kept_for, q.condition)
    else vital_private.alike_calls(q.since, q.until, q.kept_for, q.condition) end
  from (
    select
      format('%L::timestamptz', coalesce(filters ->> 'since', '-infinity')) as since,
      format('%L::timestamptz', coalesce(filters ->> 'until', 'infinity')) as until,
      format('%L::interval', kept_for::interval) as kept_for,
      concat_ws(
        ' and ', vital_private.call_condition('billed'),
        case when filters ->> 'organization' is not null then format('call.organization_id = %L', filters ->> 'organization') end,
        case when filters -> 'where' ? 'organization' then vital_private.has_one_of('call.organization_id', filters -> 'where' -> 'organization') end
      ) as condition
  ) as q
$$;

-- The condition that filters make of calls `call`, as the text of SQL.
create function vital_private.call_filter(filters text) returns text
language plpgsql
stable
set search_path = ''
as $$
declare
  parts text[] := '{}';
  filter record;
begin
  -- What the policies say anyway, where somebody has nothing but calls of his own: said here, too, an index serves it, and what he has is
  -- found without reading what all have.
  if current_user = 'authenticated' and vital_private.administered_organizations() = '{}' then
    parts := parts || format('call.user_id = %L', vital_private.subject());
  end if;
  for filter in
    select f.key as name, f.value #>> '{}' as value, f.value as raw
    from jsonb_each(filters::jsonb) as f
    where jsonb_typeof(f.value) <> 'null'
  loop
    parts := parts || case
      when vital_private.filter_column(filter.name) is not null
        then format('call.%I = %L', vital_private.filter_column(filter.name), filter.value)
      else case filter.name
        when 'since' then format('call.created_at >= %L::timestamptz', filter.value)
        when 'until' then format('call.created_at < %L::timestamptz', filter.value)
        when 'id' then format('call.id = %L::uuid', filter.value)
        when 'step' then format(
          '%L in (call.workflow_step, call.workflow_step_name, split_part(call.metadata ->> ''langgraph_path'', ''/'', 1))', filter.value
        )
        when 'run' then format('call.service_run_id = any(%L::text[])', vital_private.runs_within(filter.value))
        when 'unpriced' then case when filter.value::boolean then 'not call.priced' else 'true' end
        when 'blocked' then case when filter.value::boolean then 'call.status = ''blocked''' else 'true' end
        when 'metadata' then coalesce(
          (
            select string_agg(format('call.metadata ->> %L = %L', m.key, m.value), ' and ')
            from jsonb_each_text(filter.raw) as m
          ), 'true'
        )
        when 'where' then vital_private.where_of(filter.raw, 'call')
        when 'without' then coalesce(
          (
            select string_agg(format('(%s) is not true', vital_private.where_of(w.value, 'call')), ' and ')
            from jsonb_array_elements(filter.raw) as w
          ), 'true'
        )
        when 'reached' then case when filter.value::boolean then 'not call.cache_hit and call.status <> ''blocked''' else 'true' end
        when 'repriceable' then case
          when filter.value::boolean then format(
            '%s and call.priced and not %s and not %s', vital_private.call_condition('billed'), vital_private.call_condition('fixed'),
            vital_private.call_condition('shadow')
          )
          else 'true'
        end
        when 'audio' then format('(call.audio_tokens > 0) = %L::boolean', filter.value)
        when 'prompt_from' then format('(call.prompt_tokens + call.calls - 1) / call.calls >= %L::bigint', filter.value)
        when 'prompt_below' then format('(call.prompt_tokens + call.calls - 1) / call.calls < %L::bigint', filter.value)
        when 'unattended' then vital_private.call_condition('unattended', filter.value)
        when 'attended' then format('not %s', vital_private.call_condition('unattended', filter.value))
        when 'between' then format(
          case when split_part(filter.value, '-', 1)::time < split_part(filter.value, '-', 2)::time then '(%1$s >= %2$L and %1$s < %3$L)'
            else '(%1$s >= %2$L or %1$s < %3$L)' end,
          '(call.created_at at time zone ''UTC'')::time', split_part(filter.value, '-', 1)::time, split_part(filter.value, '-', 2)::time
        )
        when 'repeated_within' then format('call.id in (%s)', vital_private.found_among(filters::jsonb, 'repeated', filter.value))
        when 'new_within' then format(
          'call.request_hash is not null and call.id not in (%s)', vital_private.found_among(filters::jsonb, 'repeated', filter.value)
        )
        when 'alike_within' then format(
          'call.id in (select found.id from (%s) as found)', vital_private.found_among(filters::jsonb, 'alike', filter.value)
        )
        when 'local' then concat_ws(
          ' and ', 'true',
          case when filter.raw ? 'hour_of_day' then format(
            'extract(hour from call.created_at at time zone %L) = %L::integer', coalesce(filter.raw ->> 'timezone', 'UTC'),
            filter.raw ->> 'hour_of_day'
          ) end,
          case when filter.raw ? 'weekday' then format(
            'extract(isodow from call.created_at at time zone %L) = %L::integer', coalesce(filter.raw ->> 'timezone', 'UTC'),
            filter.raw ->> 'weekday'
          ) end
        )
        when 'search' then coalesce(
          (
            select string_agg(format($found$concat_ws(
              ' ', call.id, call.user_id, call.session_id, call.service_id, call.service_name, call.service_run_id, call.agent_id,
              call.agent_name, call.agent_role, call.workflow_id, call.workflow_step, call.workflow_step_name, call.panel_id,
              call.solution_id, call.framework, call.provider, call.model, call.requested_model, call.message_type, call.error_type,
              call.run_id, call.trace_id, call.langsmith_project, array_to_string(call.tags, ' '), call.metadata ->> 'langgraph_path'
            ) ilike %L$found$, '%' || regexp_replace(w, '([%_\\])', '\\\1', 'g') || '%'), ' and ')
            from regexp_split_to_table(filter.value, '\s+') as w
            where w <> ''
          ), 'true'
        )
      end
    end;
    if parts[cardinality(parts)] is null then
      raise exception 'There is no filter %.', quote_literal(filter.name)
        using errcode = '22023', hint = 'Filters are named like dimensions (user, agent, step, run), or search, unpriced, blocked, metadata, local.';
    end if;
  end loop;
  return coalesce(array_to_string(parts, ' and '), 'true');
end;
$$;

-- The calls that filters let pass, the newest first, as an array of objects; amounts are text. `after_at` and `after_id` are `created_at`
-- and `id` of the last call of the page before.
create function public.calls_v1(
  filters text default '{}',
  after_at timestamptz default null,
  after_id uuid default null,
  max_rows integer default 100
) returns json
language plpgsql
stable
set search_path = ''
set timezone = 'UTC'
as $$
declare
  answer json;
begin
  execute format(
    $query$
      select coalesce(json_agg(found order by found.created_at desc, found.id desc), '[]')
      from (
        select
          call.id, call.created_at, call.organization_id, call.user_id, call.session_id, call.service_type, call.service_id,
          call.service_name, call.service_run_id, call.agent_id, call.agent_name, call.agent_tier, call.agent_role, call.workflow_id,
          call.workflow_step, call.workflow_step_name, call.panel_id, call.panel_position, call.solution_id, call.framework,
          call.provider, call.model, call.requested_model, call.sent_model, call.call_type, call.message_type, call.calls,
          call.prompt_tokens, call.completion_tokens, call.total_tokens, call.cache_read_tokens, call.cache_write_tokens,
          call.reasoning_tokens, call.billed_units, call.usage_estimated,
          trim_scale(call.input_cost)::text as input_cost, trim_scale(call.output_cost)::text as output_cost,
          trim_scale(call.fees)::text as fees, trim_scale(call.total_cost)::text as total_cost,
          trim_scale(call.potential_cost)::text as potential_cost, trim_scale(call.reported_cost)::text as reported_cost,
          call.priced, call.price_version, call.latency_ms as response_time_ms, call.ttft_ms, call.first_word_ms, call.throttled_ms,
          call.cache_hit, call.status, call.error_type, call.budget_action, call.blocked_by, call.run_id, call.trace_id, call.tags,
          call.metadata
        from public.token_usage_logs as call
        where %s and %s
        order by call.created_at desc, call.id desc
        limit least(greatest($1, 0), 10000)
      ) as found
    $query$,
    case
      when after_at is null then 'true'
      else 'call.created_at <= $2 and (call.created_at < $2 or call.id < $3)'
    end,
    coalesce(nullif(vital_private.call_filter(filters), ''), 'true')
  ) into answer using vital_private.rows_wanted(max_rows, 100), after_at, after_id;
  return answer;
end;
$$;

comment on function public.calls_v1(text, timestamptz, uuid, integer) is 'Calls by filters, the newest first, page by page.';

-- Which keys the metadata of such calls have, of the newest 10,000: an array of text.
create function public.metadata_keys_v1(filters text default '{}') returns json
language plpgsql
stable
set search_path = ''
as $$
declare
  answer json;
begin
  execute format(
    $query$
      select coalesce(json_agg(distinct k.key), '[]')
      from (
        select call.metadata from public.token_usage_logs as call where %s order by call.created_at desc limit 10000
      ) as newest
      cross join lateral jsonb_object_keys(newest.metadata) as k (key)
    $query$, coalesce(nullif(vital_private.call_filter(filters), ''), 'true')
  ) into answer;
  return answer;
end;
$$;

-- What calls come to: measures that runs and their parts have, as columns of sums of calls `call`.
create function vital_private.run_sums() returns text
language sql
immutable
set search_path = ''
as $$
  select $sums$
    coalesce(sum(call.calls), 0) as calls,
    coalesce(sum(call.calls) filter (where call.status <> 'ok'), 0) as failed_calls,
    coalesce(sum(call.calls) filter (where call.status = 'blocked'), 0) as blocked_calls,
    coalesce(sum(call.calls) filter (where call.status = 'abandoned'), 0) as abandoned_calls,
    coalesce(sum(call.calls) filter (where call.metadata ->> 'attempt' not in ('0', '1')), 0) as retried_calls,
    coalesce(sum(call.calls) filter (where call.cache_hit), 0) as cached_calls,
    coalesce(sum(call.calls) filter (where not call.priced), 0) as unpriced_calls,
    coalesce(sum(call.calls) filter (where call.usage_estimated), 0) as estimated_calls,
    coalesce(sum(call.prompt_tokens), 0) as prompt_tokens,
    coalesce(sum(call.completion_tokens), 0) as completion_tokens,
    coalesce(sum(call.total_tokens), 0) as total_tokens,
    trim_scale(coalesce(sum(call.input_cost), 0))::text as input_cost,
    trim_scale(coalesce(sum(call.output_cost), 0))::text as output_cost,
    trim_scale(coalesce(sum(call.fees), 0))::text as fees,
    trim_scale(coalesce(sum(call.total_cost), 0))::text as total_cost,
    trim_scale(coalesce(sum(call.potential_cost), 0))::text as potential_cost,
    round(coalesce(sum(call.latency_ms), 0)::numeric, 3) as model_ms
  $sums$
$$;

-- Service runs, the newest first, each with what all calls in it come to, those of nested runs included: an array of objects, amounts as
-- text. Of the filters it takes since, until (of the run's start), organization, user, session, service, agent, workflow, panel, solution
-- and status, and these as `where`, too. Runs inside of others are listed where `nested` is true.
create function public.runs_v1(
  filters text default '{}',
  after_at timestamptz default null,
  after_id text default null,
  max_rows integer default 100,
  nested boolean default false
) returns json
language plpgsql
stable
set search_path = ''
set timezone = 'UTC'
as $$
declare
  condition text;
  page public.service_runs[];
  roots text[];
  within text[];
  answer json;
begin
  select coalesce(string_agg(
    case
      when f.key in ('organization', 'user', 'session', 'service', 'agent', 'workflow', 'panel', 'solution', 'status')
        then format('r.%I = %L', vital_private.filter_column(f.key), f.value #>> '{}')
      when f.key = 'since' then format('r.started_at >= %L::timestamptz', f.value #>> '{}')
      when f.key = 'until' then format('r.started_at < %L::timestamptz', f.value #>> '{}')
      when f.key = 'where' then vital_private.where_of(f.value, 'r')
      else vital_private.no_such_filter(f.key)
    end, ' and '
  ), 'true') into condition
  from jsonb_each(filters::jsonb) as f
  where jsonb_typeof(f.value) <> 'null';
  execute format(
    $query$
      select coalesce(array_agg(page.run order by (page.run).started_at desc, (page.run).id desc), '{}')
      from (
        select r as run
        from public.service_runs as r
        where %s and %s and (
          $4 or not exists (select from public.service_runs as around where around.id = r.parent_run_id)
        )
        order by r.started_at desc, r.id desc
        limit least(greatest($1, 0), 10000)
      ) as page
    $query$,
    case when after_at is null then 'true' else 'r.started_at <= $2 and (r.started_at < $2 or r.id < $3)' end,
    condition
  ) into page using vital_private.rows_wanted(max_rows, 100), after_at, after_id, nested;

  with recursive inside (root, id) as (
    select p.id, p.id from unnest(page) as p
    union
    select inside.root, r.id
    from inside
    inner join public.service_runs as r on r.parent_run_id = inside.id
  )

  select array_agg(inside.root), array_agg(inside.id) into roots, within from inside;

  execute format(
    $query$
      with placed as (
        select i.root, call.*
        from public.token_usage_logs as call
        inner join unnest($2, $3) as i (root, id) on i.id = call.service_run_id
        where call.service_run_id = any($3)
      ),

      totals as (
        select p.id as root, %s
        from unnest($1) as p
        left join placed as call on call.root = p.id
        group by p.id
      )

      select coalesce(json_agg(to_jsonb(found) || to_jsonb(totals) - 'root' order by found.started_at desc, found.id desc), '[]')
      from (
        select
          r.id, r.parent_run_id, r.organization_id, r.user_id, r.session_id, r.service_type, r.service_id, r.service_name, r.agent_id,
          r.workflow_id, r.panel_id, r.panel_size, r.solution_id, r.status, r.started_at, r.ended_at,
          round(extract(epoch from r.ended_at - r.started_at) * 1000, 3) as duration_ms, r.error_type, r.metadata,
          (select count(*) - 1 from unnest($2) as i where i = r.id) as nested_runs
        from unnest($1) as r
      ) as found
      inner join totals on totals.root = found.id
    $query$, vital_private.run_sums()
  ) into answer using page, roots, within;
  return answer;
end;
$$;

comment on function public.runs_v1(text, timestamptz, text, integer, boolean) is
'Service runs by filters, the newest first, each with what all calls in it cost.';

create function vital_private.no_such_filter(name text) returns text
language plpgsql
immutable
set search_path = ''
as $$
begin
  raise exception 'There is no filter % here.', quote_literal(name) using errcode = '22023';
end;
$$;

-- The ids of runs that begin so, at most `max_rows` of them: an array of text. One that is exactly so comes alone.
create function public.run_ids_v1(prefix text, max_rows integer default 10) returns json
language sql
stable
set search_path = ''
as $$
  select vital_private.check_given('prefix', prefix);
  with exact as materialized (
    select r.id from public.service_runs as r where r.id = prefix
  )

  select coalesce(json_agg(f.id), '[]')
  from (
    select e.id from exact as e
    union all
    (
      select r.id
      from public.service_runs as r
      where not exists (select from exact)
        -- The first two use the index in whichever order the database sorts text.
        and r.id >= prefix and r.id <= prefix || repeat('z', 64) and starts_with(r.id, prefix) and prefix <> ''
      order by r.id
      limit vital_private.rows_wanted(max_rows, 10)
    )
  ) as f
$$;

-- A run as it was: {"id", "within": [...], "runs": [...], "parts": [...], "calls": [...]}; amounts are text.
--   within  the runs around it, the outermost first
--   runs    the run and those nested in it
--   parts   what each part of a run comes to; together they are all calls, each once. A part is a seat, a step, a path of nodes of the
--           graph (the outermost first), LangGraph's step number, and an attempt; `traces` are those of its calls in a graph
--   calls   the first `max_calls` calls by their start, each with the number of its part
-- NULL where there is no such run, or none that the caller may see. A run without a row of its own, of which only calls are known, is a
-- part without a run.
create function public.run_tree_v1(run text, max_calls integer default 1000) returns json
language plpgsql
stable
set search_path = ''
set timezone = 'UTC'
as $$
declare
  answer json;
begin
  perform vital_private.check_given('run', run);
  execute format(
    $query$
      with recursive around (id, parent_run_id, service_type, service_id, service_name, distance) as (
        select r.id, r.parent_run_id, r.service_type, r.service_id, r.service_name, 0 from public.service_runs as r where r.id = $1
        union all
        select r.id, r.parent_run_id, r.service_type, r.service_id, r.service_name, around.distance + 1
        from around
        inner join public.service_runs as r on r.id = around.parent_run_id
        where around.distance < 100
      ),

      placed as materialized (
        select
          call.*,
          dense_rank() over (
            order by
              call.service_run_id, call.panel_position, call.workflow_step, call.path, call.step_number, call.attempt
          ) as part
        from (
          select
            c.*, nullif(c.metadata ->> 'langgraph_path', '') as path, nullif(c.metadata ->> 'langgraph_step', '') as step_number,
            nullif(c.metadata ->> 'attempt', '') as attempt
          from public.token_usage_logs as c
          where c.service_run_id = any($2)
        ) as call
      ),

      parts as (
        select
          call.part, min(call.service_run_id) as service_run_id, min(call.panel_position) as panel_position,
          min(call.workflow_step) as workflow_step, max(call.workflow_step_name) as workflow_step_name, min(call.path) as path,
          min(call.step_number) as step_number, min(call.attempt) as attempt, max(call.agent_id) as agent_id,
          max(call.agent_name) as agent_name,
          array_agg(distinct call.trace_id) filter (where call.path is not null) as traces, min(call.created_at) as started_at,
          max(call.created_at + least(coalesce(call.latency_ms, 0), 1e12) * interval '1 millisecond') as ended_at, %s
        from placed as call
        group by call.part
      )

      select json_build_object(
        'id', $1,
        'within', (
          select coalesce(json_agg(json_build_object(
            'id', a.id, 'service_type', a.service_type, 'service_id', a.service_id, 'service_name', a.service_name
          ) order by a.distance desc), '[]')
          from around as a
          where a.distance > 0
        ),
        'runs', (
          select coalesce(json_agg(json_build_object(
            'id', r.id, 'parent_run_id', r.parent_run_id, 'organization_id', r.organization_id, 'user_id', r.user_id,
            'session_id', r.session_id, 'service_type', r.service_type, 'service_id', r.service_id, 'service_name', r.service_name,
            'agent_id', r.agent_id, 'workflow_id', r.workflow_id, 'panel_id', r.panel_id, 'panel_size', r.panel_size,
            'solution_id', r.solution_id, 'status', r.status, 'started_at', r.started_at, 'ended_at', r.ended_at,
            'error_type', r.error_type, 'metadata', r.metadata
          ) order by r.started_at, r.id), '[]')
          from public.service_runs as r
          where r.id = any($2)
        ),
        'parts', (select coalesce(json_agg(p order by p.started_at, p.part), '[]') from parts as p),
        'calls', (
          select coalesce(json_agg(c order by c.created_at, c.id), '[]')
          from (
            select
              call.id, call.part, call.created_at, call.latency_ms as response_time_ms, call.calls, call.agent_id, call.agent_name,
              call.provider, call.model, call.call_type, call.message_type, call.prompt_tokens, call.completion_tokens,
              call.total_tokens, trim_scale(call.input_cost)::text as input_cost, trim_scale(call.output_cost)::text as output_cost,
              trim_scale(call.fees)::text as fees, trim_scale(call.total_cost)::text as total_cost,
              trim_scale(call.potential_cost)::text as potential_cost, call.priced, call.usage_estimated, call.cache_hit, call.status,
              call.error_type, call.attempt
            from placed as call
            order by call.created_at, call.id
            limit greatest($3, 0)
          ) as c
        )
      )
      where exists (select from around) or exists (select from placed)
    $query$, vital_private.run_sums()
  ) into answer using run, vital_private.runs_within(run), vital_private.rows_wanted(max_calls, 1000);
  return answer;
end;
$$;

comment on function public.run_tree_v1(text, integer) is
'A service run as it was: the runs nested in it, and what each seat, step, inner node and attempt came to.';

-- Reports from the calls themselves ------------------------------------------------------------------------------------------------------

insert into vital_private.usage_measures (position, name, unit, of_call, of_sums, fraction, in_reports, in_views, about) values
(
  120, 'tokens_per_dollar', 'tokens', null,
  'case when s.unpriced_calls = 0 then round((s.prompt_tokens + s.completion_tokens) / nullif(s.total_cost, 0), 3) end',
  null, true, false, 'Tokens for a US dollar; NULL where nothing was paid, or some calls have no price.'
);

insert into vital_private.usage_groupings (
  position, name, is_report, groups, keys, source, condition, name_column, ranked_by, more_measures, day_detail, details
) values
(120, 'organizations', true, 'many', '{organization_id}', 'daily_totals', 'true', null, 'total_cost', '{}', null, null);

-- What an organization used from one instant to another, by service and model: an array of objects, amounts as text with all their
-- digits. Whole days (UTC) come from the aggregation, which outlives the calls; the parts of days at both ends from the calls, and where
-- these are gone the error 22VT1 says so.
create function public.invoice_v1(organization text, since timestamptz, until timestamptz) returns json
language plpgsql
stable
set search_path = ''
set timezone = 'UTC'
as $$
declare
  first_day constant timestamptz := date_trunc('day', since + interval '1 day' - interval '1 microsecond', 'UTC');
  last_day constant timestamptz := date_trunc('day', until, 'UTC');
  kept_since constant timestamptz := vital_private.rows_kept_since();
  answer json;
begin
  perform vital_private.check_administered(organization);
  perform vital_private.check_times(since, until);
  if organization is null or since is null or until is null then
    raise exception 'An invoice needs an organization, and from when until when: since and until.' using errcode = '22023';
  end if;
  if (since < least(first_day, until) and since < kept_since) or (until > greatest(last_day, since) and last_day < kept_since) then
    raise exception 'The calls before % are gone, and with them what parts of days cost. Ask for whole days (UTC) there.', kept_since
      using errcode = '22VT1';
  end if;
  execute format(
    $query$
      select coalesce(json_agg(json_build_object(
        'service_type', s.service_type, 'provider', s.provider, 'model', s.model,
        'calls', s.calls, 'failed_calls', s.failed_calls, 'cached_calls', s.cached_calls, 'unpriced_calls', s.unpriced_calls,
        'estimated_calls', s.estimated_calls, 'prompt_tokens', s.prompt_tokens, 'completion_tokens', s.completion_tokens,
        'input_cost', trim_scale(s.input_cost)::text, 'output_cost', trim_scale(s.output_cost)::text,
        'fees', trim_scale(s.fees)::text, 'total_cost', trim_scale(s.total_cost)::text
      ) order by s.service_type, s.total_cost desc, s.provider, s.model), '[]')
      from (
        select
          u.service_type, u.provider, u.model, sum(u.calls) as calls, sum(u.failed_calls) as failed_calls,
          sum(u.cached_calls) as cached_calls, sum(u.unpriced_calls) as unpriced_calls, sum(u.estimated_calls) as estimated_calls,
          sum(u.prompt_tokens) as prompt_tokens, sum(u.completion_tokens) as completion_tokens, sum(u.input_cost) as input_cost,
          sum(u.output_cost) as output_cost, sum(u.fees) as fees, sum(u.total_cost) as total_cost
        from (
          select u.service_type, u.provider, u.model, %2$s
          from public.usage_aggregations_%1$s as u
          where u.organization_id = $1 and u.day >= $4::date and u.day < $5::date
          union all
          select u.service_type, u.provider, u.model, %2$s
          from vital_private.measured_calls as u
          where u.organization_id = $1 and u.created_at >= $2 and u.created_at < least($4, $3)
          union all
          select u.service_type, u.provider, u.model, %2$s
          from vital_private.measured_calls as u
          -- Where both instants are in one day, the part above holds all calls.
          where u.organization_id = $1 and u.created_at >= greatest($5, $4) and u.created_at < $3
        ) as u
        group by 1, 2, 3
        having sum(u.calls) > 0
      ) as s
    $query$,
    (select g.source from vital_private.usage_groupings as g where g.name = 'models'),
    (
      select string_agg('u.' || m, ', ')
      from unnest(
        '{calls, failed_calls, cached_calls, unpriced_calls, estimated_calls, prompt_tokens, completion_tokens, input_cost, output_cost,
          fees, total_cost}'::text[]
      ) as m
    )
  ) into answer using organization, since, until, first_day, last_day;
  return answer;
end;
$$;

comment on function public.invoice_v1(text, timestamptz, timestamptz) is
'What an organization used from one instant to another, by service and model, exact to the last digit.';

select vital_private.restrict_functions(
  api => '{calls_v1, metadata_keys_v1, runs_v1, run_ids_v1, run_tree_v1, invoice_v1}',
  helpers => '{filter_column, where_of, found_among, call_filter, run_sums, no_such_filter}'
);
