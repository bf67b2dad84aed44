-- How rows are recorded. A function takes a whole batch, as the text of a JSON array of objects with the columns' names; text arrives
-- unchanged through PostgREST, psycopg and psql alike. The batch is inserted in one statement. Only if that fails is every row tried
-- alone, so that bad rows are set aside and the others are stored.

-- A call as it is sent: a row, and what goes with it. This table never holds rows; it is the row type for json_populate_recordset.
--   replaces_abandoned: the true end of a call that was recorded as given up
--   draws: [[window id, amount], ...]: how much of the call is covered by what these windows granted to the process
create table vital_private.incoming_calls (
  like public.token_usage_logs,
  replaces_abandoned boolean,
  draws json
);

-- Insert calls and post them to the windows of the budgets; returns how many were new, and how many there were. Rows are inserted in
-- the order of their ids, so that two writers that send the same rows wait for each other in one order and cannot deadlock.
create function vital_private.insert_calls(batch json, holder text) returns bigint[]
language plpgsql
set search_path = ''
as $$
declare
  budgeted boolean := exists (select from public.budget_limits);
  inserted bigint;
  sent bigint;
  counted vital_private.counted_call[];
  replaced vital_private.counted_call[];
  drawn json;
begin
  -- The true end of a call that was recorded as `abandoned` or `cancelled` replaces its row, but never a row that stands for
  -- other calls too. It is rare, so the batch is read a second time only where the word occurs in it.
  if strpos(batch::text, '"replaces_abandoned"') > 0 then
    with waiting as (
      select c.id, c.created_at
      from public.token_usage_logs as c
      join json_to_recordset(batch) as late (id uuid, created_at timestamptz, replaces_abandoned boolean) using (id, created_at)
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
  with incoming as materialized (
    select c.*
    from json_populate_recordset(null::vital_private.incoming_calls, batch) as c
    -- If a batch holds both ends of one call, the true one comes first and is stored.
    order by c.id, c.created_at, c.status is not distinct from 'abandoned'
  ),

  added as (
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
    from incoming as c
    on conflict (id, created_at) do nothing
    returning added.id, added.created_at, case when budgeted then vital_private.counted(added, 1) end as counted
  )

  select
    (select count(*) from added),
    (select count(*) from incoming),
    (select array_agg(a.counted) from added as a where budgeted),
    (
      select json_agg(c.draws)
      from (select distinct on (i.id, i.created_at) i.* from incoming as i where budgeted and i.draws is not null) as c
      inner join added as a on a.id = c.id and a.created_at = c.created_at
    )
  into inserted, sent, counted, drawn;

  if counted is not null or replaced is not null then
    perform vital_private.post_spend(
      counted || replaced, holder,
      (select json_agg(d.value) from json_array_elements(drawn) as c (value) cross join json_array_elements(c.value) as d (value))
    );
  end if;
  return array[inserted, sent];
end;
$$;

-- Insert service runs or end them; returns how many rows were new or changed, and how many there were. An end is final: a start that
-- arrives after it changes nothing. Only the true end of a run that was taken for abandoned replaces that. How long it took is known
-- by one clock, and added to the start as it is stored. (`holder` is not used: it makes the signature that of insert_calls.)
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

-- Run insert_calls or upsert_runs over a batch, as a whole if that works. If not, every row is tried alone and rolled back, and then the
-- good ones are inserted together: keeping the locks of one row while trying the next would take locks out of order.
-- Only errors of the data (SQLSTATE classes 22, 23 and 54) set a row aside; any other error fails the batch, which the client
-- sends again. The report names the row's id and which rule it broke, and no other value.
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
  begin
    batch := batch_text::json;
  exception when data_exception then
    null;
  end;
  if json_typeof(batch) is distinct from 'array' then
    raise exception 'The batch must be text that holds a JSON array of objects.' using errcode = '22023';
  end if;
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
-- process `holder` had been granted for them is taken out of its grants, and alerts that became due are written.
create function public.record_calls_v1(calls text, holder text default null) returns json
language plpgsql
security definer
set search_path = ''
as $$
declare
  report jsonb;
begin
  perform vital_private.check_given('calls', calls);
  -- Calls that replace others change the sums twice, and so would lock them out of order; such a batch, which is rare, runs alone.
  perform vital_private.lock_budgets(alone => strpos(calls, '"replaces_abandoned"') > 0);
  report := vital_private.record_batch(calls, 'vital_private.insert_calls'::regproc, holder);
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

select vital_private.restrict_relation('vital_private.incoming_calls');
select vital_private.restrict_functions(api => '{record_calls_v1, record_runs_v1}');
