-- How rows are recorded. A function takes a whole batch as text, which arrives unchanged through PostgREST, psycopg and psql alike. The
-- batch is inserted in one statement. Only if that fails is every row tried alone, so that bad rows are set aside and the others are
-- stored. Calls come as the literal of an array of rows, which PostgreSQL reads three times as fast as JSON; everything else, and the
-- calls of older clients, as a JSON array of objects with the columns' names (docs/decisions/0046).

-- A call as it is sent: what is NULL is NULL or the column's default. The client has the same list (vital_tracking/calls/row_literal.py);
-- a type that is in use is never changed, so other fields are another version.
--   draw_windows, draw_amounts: how much of the call is covered by what these windows granted to the process
--   replaces_abandoned: the true end of a call that was recorded as given up; as the last field, `t` or nothing, it is found in the text
create type vital_private.call_v2 as (
  id uuid,
  created_at timestamptz,
  organization_id text,
  user_id text,
  session_id text,
  service_type text,
  service_id text,
  service_name text,
  service_run_id text,
  agent_id text,
  agent_name text,
  agent_tier text,
  agent_role text,
  workflow_id text,
  workflow_step text,
  workflow_step_name text,
  panel_id text,
  panel_position smallint,
  panel_size smallint,
  solution_id text,
  framework text,
  message_type text,
  provider text,
  model text,
  requested_model text,
  sent_model text,
  call_type text,
  status text,
  run_id text,
  parent_run_id text,
  trace_id text,
  langsmith_project text,
  prompt_tokens bigint,
  completion_tokens bigint,
  total_tokens bigint,
  cache_read_tokens bigint,
  cache_write_tokens bigint,
  cache_write_1h_tokens bigint,
  reasoning_tokens bigint,
  audio_tokens bigint,
  audio_output_tokens bigint,
  usage_estimated boolean,
  priced boolean,
  input_cost numeric,
  output_cost numeric,
  fees numeric,
  total_cost numeric,
  potential_cost numeric,
  price_version text,
  ceiling_cost numeric,
  reported_cost numeric,
  latency_ms double precision,
  ttft_ms double precision,
  first_word_ms double precision,
  throttled_ms double precision,
  cache_hit boolean,
  request_hash text,
  prefix_hashes text array,
  prompt_bytes bigint,
  tags text array,
  metadata jsonb,
  billed_units jsonb,
  calls integer,
  error_type text,
  budget_action text,
  blocked_by jsonb,
  draw_windows bigint array,
  draw_amounts numeric array,
  replaces_abandoned boolean
);

-- Insert calls, none of which is stored, and post them to the windows of the budgets; returns how many there were. Rows are inserted in the
-- order of their ids, so that two writers that send the same rows wait for each other in one order and cannot deadlock. Only where
-- `replacing` may calls take the place of others.
create function vital_private.insert_calls(batch vital_private.call_v2[], holder text, replacing boolean) returns bigint
language plpgsql
set search_path = ''
as $$
declare
  budgeted constant boolean := exists (select from public.budget_limits);
  inserted bigint;
  counted vital_private.counted_call[];
  replaced vital_private.counted_call[];
  draw_windows bigint[];
  draw_amounts numeric[];
begin
  -- The true end of a call that was recorded as `abandoned` or `cancelled` replaces its row, but never a row that stands for
  -- other calls too.
  if replacing then
    with waiting as (
      select c.id, c.created_at
      from public.token_usage_logs as c
      join unnest(batch) as late using (id, created_at)
      where late.replaces_abandoned and c.status in ('abandoned', 'cancelled') and c.calls = 1
      order by c.id
      for update of c
    ),

    given_up as (
      delete from public.token_usage_logs as c
      using waiting
      where c.id = waiting.id and c.created_at = waiting.created_at
      returning c as call
    )

    select array_agg(vital_private.counted(given_up.call, -1)) into replaced from given_up;
  end if;
  with added as (
    insert into public.token_usage_logs as added (
      id, created_at, organization_id, user_id, session_id, service_type, service_id, service_name, service_run_id,
      agent_id, agent_name, agent_tier, agent_role, workflow_id, workflow_step, workflow_step_name,
      panel_id, panel_position, panel_size, solution_id, framework, provider, model, requested_model, sent_model,
      call_type, message_type, calls, run_id, parent_run_id, trace_id, langsmith_project,
      prompt_tokens, completion_tokens, total_tokens, cache_read_tokens, cache_write_tokens, cache_write_1h_tokens,
      reasoning_tokens, audio_tokens, audio_output_tokens, billed_units, usage_estimated,
      input_cost, output_cost, fees, total_cost, potential_cost, price_version, priced, ceiling_cost, reported_cost,
      latency_ms, ttft_ms, first_word_ms, cache_hit, status, error_type, budget_action, blocked_by,
      throttled_ms, request_hash, prefix_hashes, prompt_bytes, tags, metadata
    )
    select
      c.id, c.created_at, c.organization_id, c.user_id, c.session_id, c.service_type, c.service_id, c.service_name, c.service_run_id,
      c.agent_id, c.agent_name, c.agent_tier, c.agent_role, c.workflow_id, c.workflow_step, c.workflow_step_name,
      c.panel_id, c.panel_position, c.panel_size, c.solution_id, c.framework, c.provider, c.model, c.requested_model, c.sent_model,
      coalesce(c.call_type, 'chat'), c.message_type, coalesce(c.calls, 1), c.run_id, c.parent_run_id, c.trace_id, c.langsmith_project,
      coalesce(c.prompt_tokens, 0), coalesce(c.completion_tokens, 0), coalesce(c.total_tokens, 0),
      coalesce(c.cache_read_tokens, 0), coalesce(c.cache_write_tokens, 0), coalesce(c.cache_write_1h_tokens, 0),
      coalesce(c.reasoning_tokens, 0), coalesce(c.audio_tokens, 0), coalesce(c.audio_output_tokens, 0),
      c.billed_units, coalesce(c.usage_estimated, false),
      c.input_cost, c.output_cost, c.fees, c.total_cost, c.potential_cost, c.price_version, c.priced, c.ceiling_cost, c.reported_cost,
      c.latency_ms, c.ttft_ms, c.first_word_ms, coalesce(c.cache_hit, false), coalesce(c.status, 'ok'), c.error_type, c.budget_action,
      c.blocked_by, c.throttled_ms, c.request_hash, c.prefix_hashes, c.prompt_bytes, coalesce(c.tags, '{}'), coalesce(c.metadata, '{}')
    from unnest(batch) as c
    order by c.id, c.created_at
    returning case when budgeted then vital_private.counted(added, 1) end as counted
  )

  select count(*), array_agg(a.counted) filter (where budgeted) into inserted, counted from added as a;
  if budgeted then
    select array_agg(d.window_id), array_agg(d.amount) into draw_windows, draw_amounts
    from unnest(batch) as c
    cross join unnest(c.draw_windows, c.draw_amounts) as d (window_id, amount)
    where c.draw_windows is not null;
    perform vital_private.post_spend(counted || replaced, holder, draw_windows, draw_amounts);
  end if;
  return inserted;
end;
$$;

-- The calls of a batch that are not stored yet, or will replace what is, each once: of both ends of a call the true one.
create function vital_private.new_calls(batch vital_private.call_v2[]) returns vital_private.call_v2[]
language sql
stable
set search_path = ''
as $$
  select coalesce(array_agg(row(c.*)::vital_private.call_v2), '{}')
  from (
    select distinct on (b.id, b.created_at) b.*
    from unnest(batch) as b
    where not exists (
      select from public.token_usage_logs as k
      where k.id = b.id and k.created_at = b.created_at
        and not (coalesce(b.replaces_abandoned, false) and k.status in ('abandoned', 'cancelled') and k.calls = 1)
    )
    order by b.id, b.created_at, b.status is not distinct from 'abandoned'
  ) as c
$$;

-- Insert those calls that are not stored yet; returns how many. Nearly always all are new, so none is looked up before; where one is not,
-- those that are stored, or whose transaction was waited for, are left out, and the others inserted anew.
create function vital_private.insert_new_calls(batch vital_private.call_v2[], holder text, replacing boolean) returns bigint
language plpgsql
set search_path = ''
as $$
declare
  sent bigint;
begin
  loop
    begin
      return vital_private.insert_calls(batch, holder, replacing);
    exception when unique_violation then
      sent := cardinality(batch);
      batch := vital_private.new_calls(batch);
      if cardinality(batch) = sent then
        raise; -- another rule than that of the ids
      end if;
    end;
  end loop;
end;
$$;

-- Record calls: as a whole if that works. If not, every row is tried alone and rolled back, and then the good ones are inserted together:
-- keeping the locks of one row while trying the next would take locks out of order. Only errors of the data (SQLSTATE classes 22, 23 and
-- 54) set a row aside; any other error fails the batch, which the client sends again. The report names the row's id and which rule it broke,
-- and no other value. `rejected` are those that were no rows of calls.
create function vital_private.record_calls(
  batch vital_private.call_v2[], holder text, replacing boolean, rejected jsonb
) returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  good vital_private.call_v2[] := '{}';
  one vital_private.call_v2;
  inserted bigint;
  broken_constraint text;
  broken_column text;
begin
  begin
    inserted := vital_private.insert_new_calls(batch, holder, replacing);
    return jsonb_build_object('inserted', inserted, 'duplicate', cardinality(batch) - inserted, 'rejected', rejected);
  exception when data_exception or integrity_constraint_violation or program_limit_exceeded then
    null;
  end;
  foreach one in array batch loop
    begin
      perform vital_private.insert_calls(array[one], holder, replacing);
      raise exception using errcode = 'VT000'; -- a good row: roll it back
    exception
      when sqlstate 'VT000' then
        good := good || one;
      when data_exception or integrity_constraint_violation or program_limit_exceeded then
        get stacked diagnostics broken_constraint = constraint_name, broken_column = column_name;
        if sqlstate = '23505' and vital_private.new_calls(array[one]) = '{}' then
          good := good || one; -- it is stored
        else
          rejected := rejected || jsonb_build_object(
            'id', one.id, 'sqlstate', sqlstate, 'rule', coalesce(nullif(broken_constraint, ''), nullif(broken_column, ''))
          );
        end if;
    end;
  end loop;
  inserted := vital_private.insert_new_calls(good, holder, replacing);
  return jsonb_build_object('inserted', inserted, 'duplicate', cardinality(good) - inserted, 'rejected', rejected);
end;
$$;

-- Insert service runs or end them; returns how many rows were new or changed, and how many there were. An end is final: a start that
-- arrives after it changes nothing. Only the true end of a run that was taken for abandoned replaces that. How long it took is known
-- by one clock, and added to the start as it is stored. (`holder` is not used: the functions that record_batch runs have it.)
create function vital_private.upsert_runs(batch json, holder text) returns bigint[]
language plpgsql
set search_path = ''
as $$
declare
  changed bigint;
begin
  insert into public.service_runs as known (
    id, parent_run_id, ancestor_run_ids, organization_id, user_id, session_id, service_type, service_id, service_name,
    agent_id, workflow_id, panel_id, panel_size, solution_id, status, started_at, ended_at, error_type, metadata
  )
  select distinct on (r.id)
    r.id, r.parent_run_id, coalesce(r.ancestor_run_ids, '{}'), r.organization_id, r.user_id, r.session_id, r.service_type,
    r.service_id, r.service_name, r.agent_id, r.workflow_id, r.panel_id, r.panel_size, r.solution_id,
    coalesce(r.status, 'running'), r.started_at, r.ended_at, r.error_type, coalesce(r.metadata, '{}')
  from json_populate_recordset(null::public.service_runs, batch) as r
  order by r.id, r.ended_at is null, r.status = 'abandoned', r.ended_at
  on conflict (id) do update
    set
      status = excluded.status, ended_at = known.started_at + (excluded.ended_at - excluded.started_at),
      error_type = excluded.error_type, session_id = coalesce(known.session_id, excluded.session_id), recorded_at = now()
    where excluded.ended_at is not null
      and (known.ended_at is null or (known.status = 'abandoned' and excluded.status <> 'abandoned'));
  get diagnostics changed = row_count;
  return array[changed, json_array_length(batch)];
end;
$$;

-- A batch of JSON: an array, or an error that says so.
create function vital_private.json_batch(batch_text text) returns json
language plpgsql
immutable
set search_path = ''
as $$
declare
  batch json;
begin
  begin
    batch := batch_text::json;
  exception when data_exception then
    null;
  end;
  if json_typeof(batch) is distinct from 'array' then
    raise exception 'The batch must be text that holds a JSON array of objects.' using errcode = '22023';
  end if;
  return batch;
end;
$$;

-- Record what comes as a JSON array, in the same way, by a function that inserts a batch and returns how many rows were new, and how many
-- there were, such as upsert_runs.
create function vital_private.record_batch(batch_text text, insert_rows regproc, holder text) returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  batch json;
  element json;
  place bigint;
  bad bigint[] := '{}';
  counts bigint[]; -- how many were new, and how many there were
  rejected jsonb := '[]';
  broken_constraint text;
  broken_column text;
begin
  batch := vital_private.json_batch(batch_text);
  begin
    execute format('select %s($1, $2)', insert_rows) into counts using batch, holder;
    return jsonb_build_object('inserted', counts[1], 'duplicate', counts[2] - counts[1], 'rejected', jsonb_build_array());
  exception when data_exception or integrity_constraint_violation or program_limit_exceeded then
    null;
  end;
  for element, place in select * from json_array_elements(batch) with ordinality loop
    begin
      execute format('select %s($1, $2)', insert_rows) using json_build_array(element), holder;
      raise exception using errcode = 'VT000'; -- a good row: roll it back
    exception
      when sqlstate 'VT000' then null;
      when data_exception or integrity_constraint_violation or program_limit_exceeded then
        get stacked diagnostics broken_constraint = constraint_name, broken_column = column_name;
        bad := bad || place;
        rejected := rejected || jsonb_build_object(
          'id', vital_private.row_id(element), 'sqlstate', sqlstate,
          'rule', coalesce(nullif(broken_constraint, ''), nullif(broken_column, ''))
        );
    end;
  end loop;
  select coalesce(json_agg(e.value order by e.ordinality), '[]') into batch
  from json_array_elements(batch) with ordinality as e
  where e.ordinality <> all(bad);
  execute format('select %s($1, $2)', insert_rows) into counts using batch, holder;
  return jsonb_build_object('inserted', counts[1], 'duplicate', counts[2] - counts[1], 'rejected', rejected);
end;
$$;

-- The id of a row, shortened; NULL where there is none. An element of a batch may be anything.
create function vital_private.row_id(element json) returns text
language plpgsql
immutable
set search_path = ''
as $$
begin
  return left(element ->> 'id', 64);
exception when others then
  return null;
end;
$$;

-- Record a batch of calls: {"now", "inserted": n, "duplicate": n, "rejected": [{"id", "sqlstate", "rule"}], "alerts": [...]}. Calls are known
-- by their ids: sending one again changes nothing. In the same transaction they are posted to the windows of the budgets, what the
-- process `holder` had been granted for them is taken out of its grants, and alerts that became due are written. `calls` is the literal of
-- an array of vital_private.call_v2. The id of what is no such row is its first field.
create function public.record_calls_v2(calls text, holder text default null) returns json
language plpgsql
security definer
set search_path = ''
as $$
declare
  -- In a row each quote has a backslash before it, so this is the end of one whose last field is true.
  replacing constant boolean := strpos(calls, 't)"') > 0;
  batch vital_private.call_v2[];
  elements text[];
  element text;
  one vital_private.call_v2;
  rejected jsonb := '[]';
  report jsonb;
begin
  perform vital_private.check_given('calls', calls);
  -- Calls that replace others change the sums twice, and so would lock them out of order; such a batch, which is rare, runs alone.
  perform vital_private.lock_budgets(alone => replacing);
  begin
    batch := calls;
  exception when data_exception or program_limit_exceeded then
    batch := '{}';
    begin
      elements := calls;
    exception when data_exception then
      null;
    end;
    -- What is no row at all cannot be named in the report: such a batch is refused whole, and its client finds it.
    if elements is null or exists (select from unnest(elements) as e where e !~ '^\([^,]*,') then
      raise exception 'The batch must be text that holds an array of rows.' using errcode = '22023';
    end if;
    foreach element in array elements loop
      begin
        one := element;
        batch := batch || one;
      exception when data_exception or program_limit_exceeded then
        rejected := rejected || jsonb_build_object(
          'id', left(substring(element from '^\(([^,]+),'), 64), 'sqlstate', sqlstate, 'rule', null
        );
      end;
    end loop;
  end;
  report := vital_private.record_calls(batch, holder, replacing, rejected);
  return report || jsonb_build_object('now', clock_timestamp(), 'alerts', vital_private.alerts_of_this_transaction());
end;
$$;

-- An element of the JSON of older clients as a call; its `draws` are [[window id, amount], ...].
create function vital_private.call_of_json(element json) returns vital_private.call_v2
language plpgsql
stable
set search_path = ''
as $$
begin
  if json_typeof(element) is distinct from 'object' then
    raise exception 'A call must be a JSON object.' using errcode = '22023';
  end if;
  return json_populate_record(
    json_populate_record(null::vital_private.call_v2, element),
    (
      select json_build_object('draw_windows', json_agg(d.value -> 0), 'draw_amounts', json_agg(d.value -> 1))
      from json_array_elements(case json_typeof(element -> 'draws') when 'null' then null else element -> 'draws' end) as d
      having count(*) > 0
    )
  );
end;
$$;

-- The same, as clients sent it before, and as dead letters are: the text of a JSON array of objects with the columns' names.
create function public.record_calls_v1(calls text, holder text default null) returns json
language plpgsql
security definer
set search_path = ''
as $$
declare
  replacing constant boolean := strpos(calls, '"replaces_abandoned"') > 0;
  sent json;
  batch vital_private.call_v2[];
  element json;
  rejected jsonb := '[]';
  report jsonb;
begin
  perform vital_private.check_given('calls', calls);
  perform vital_private.lock_budgets(alone => replacing);
  sent := vital_private.json_batch(calls);
  begin
    if strpos(calls, '"draws"') > 0 then
      select array_agg(vital_private.call_of_json(e.value)) into batch from json_array_elements(sent) as e;
    else
      select array_agg(c) into batch from json_populate_recordset(null::vital_private.call_v2, sent) as c;
    end if;
  exception when data_exception then
    for element in select e.value from json_array_elements(sent) as e loop
      begin
        batch := batch || vital_private.call_of_json(element);
      exception when data_exception then
        rejected := rejected || jsonb_build_object('id', vital_private.row_id(element), 'sqlstate', sqlstate, 'rule', null);
      end;
    end loop;
  end;
  report := vital_private.record_calls(coalesce(batch, '{}'), holder, replacing, rejected);
  return report || jsonb_build_object('now', clock_timestamp(), 'alerts', vital_private.alerts_of_this_transaction());
end;
$$;

-- Record a batch of service runs, each at its start and again at its end; the same answer, without alerts.
create function public.record_runs_v1(runs text) returns json
language sql
security definer
set search_path = ''
as $$
  select vital_private.check_given('runs', runs);
  select vital_private.record_batch(runs, 'vital_private.upsert_runs'::regproc, null)::json
$$;

select vital_private.restrict_functions(api => '{record_calls_v1, record_calls_v2, record_runs_v1}');
