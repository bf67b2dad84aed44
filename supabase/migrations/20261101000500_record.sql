-- How rows get in. One call takes a batch, as text holding a JSON array of objects with the columns' names: text arrives alike
-- through PostgREST, psycopg and psql. The whole batch goes in as one statement; only where that fails is every row tried alone,
-- so that the bad ones are set aside and their neighbours stay.

-- A call as it is sent: a row, and what goes with it. This table holds no rows; it is the row type of json_populate_recordset.
--   replaces_abandoned: the true end of a call that had been given up
--   draws: [[window id, amount], ...], what of the call had been granted to its process by these windows
create table vital_private.incoming_calls (
  like public.token_usage_logs,
  replaces_abandoned boolean,
  draws json
);
alter table vital_private.incoming_calls enable row level security;

-- Insert calls and post them to the windows of the budgets; returns how many were new, and how many there were. Rows go in sorted
-- by id, so that two writers that send the same rows wait for each other in one order and cannot deadlock.
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
  -- The true end of a call that had been given up, as `abandoned` or `cancelled`, takes the place of its row, but never of one
  -- that stands for other calls too. Rare, so look before reading twice.
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
    -- Where a batch holds both ends of one call, the true one comes first and stays.
    order by c.id, c.created_at, c.status is not distinct from 'abandoned'
  ),

  added as (
    insert into public.token_usage_logs as added (
      id, created_at, organization_id, user_id, session_id, service_type, service_id, service_name, service_run_id,
      agent_id, agent_name, agent_tier, agent_role, workflow_id, workflow_step, workflow_step_name,
      panel_id, panel_position, panel_size, solution_id, framework, provider, model, requested_model, call_type, message_type,
      calls, run_id, parent_run_id, trace_id, langsmith_project,
      prompt_tokens, completion_tokens, total_tokens, cache_read_tokens, cache_write_tokens, cache_write_1h_tokens,
      reasoning_tokens, audio_tokens, audio_output_tokens, usage_estimated,
      input_cost, output_cost, total_cost, potential_cost, price_version, priced, ceiling_cost,
      latency_ms, ttft_ms, cache_hit, status, error_type, budget_action, throttled_ms, request_hash, tags, metadata
    )
    select
      c.id, c.created_at, c.organization_id, c.user_id, c.session_id, c.service_type, c.service_id, c.service_name, c.service_run_id,
      c.agent_id, c.agent_name, c.agent_tier, c.agent_role, c.workflow_id, c.workflow_step, c.workflow_step_name,
      c.panel_id, c.panel_position, c.panel_size, c.solution_id, c.framework, c.provider, c.model, c.requested_model,
      coalesce(c.call_type, 'chat'), c.message_type,
      coalesce(c.calls, 1), c.run_id, c.parent_run_id, c.trace_id, c.langsmith_project,
      coalesce(c.prompt_tokens, 0), coalesce(c.completion_tokens, 0), coalesce(c.total_tokens, 0),
      coalesce(c.cache_read_tokens, 0), coalesce(c.cache_write_tokens, 0), coalesce(c.cache_write_1h_tokens, 0),
      coalesce(c.reasoning_tokens, 0), coalesce(c.audio_tokens, 0), coalesce(c.audio_output_tokens, 0),
      coalesce(c.usage_estimated, false),
      c.input_cost, c.output_cost, c.total_cost, c.potential_cost, c.price_version, c.priced, c.ceiling_cost,
      c.latency_ms, c.ttft_ms, coalesce(c.cache_hit, false), coalesce(c.status, 'ok'), c.error_type, c.budget_action,
      c.throttled_ms, c.request_hash, coalesce(c.tags, '{}'), coalesce(c.metadata, '{}')
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

-- Insert service runs or bring them to their end; returns how many rows were new or changed, and how many there were. An end is final: a start that
-- arrives after it changes nothing. (`holder` is of use to calls only.)
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
  order by r.id, r.ended_at nulls last
  on conflict (id) do update
    set status = excluded.status, ended_at = excluded.ended_at, error_type = excluded.error_type, recorded_at = now()
    where known.ended_at is null and excluded.ended_at is not null;
  get diagnostics changed = row_count;
  return array[changed, json_array_length(batch)];
end;
$$;

-- Run one of the two over a batch, whole where that works. Else every row is tried alone and taken back, and then the good ones
-- go in as a whole: a writer that kept the rows and windows of one row while it takes the next would lock them out of order.
-- Only errors of the data (SQLSTATE classes 22, 23 and 54) set a row aside; any other error fails the batch, which the client
-- sends again. The report names no values but the row's id, only which rule was broken.
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
      raise exception using errcode = 'VT000'; -- a good one: take back what was tried
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

-- The id of a row, shortened, where it has one at all; a row may be anything.
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

-- Record a batch of calls: {"inserted": n, "duplicate": n, "rejected": [{"id", "sqlstate", "rule"}], "alerts": [...]}. Idempotent
-- by id. In the same transaction the calls are posted to the windows of the budgets, what `holder` had been granted for them
-- is taken out of its grants, and alerts that became due are written.
create function public.record_calls_v1(calls text, holder text default null) returns json
language plpgsql
security definer
set search_path = ''
as $$
declare
  report jsonb;
begin
  -- Calls that take the place of others change the sums twice, which only somebody alone can do in one order. It is rare.
  perform vital_private.lock_budgets(alone => strpos(calls, '"replaces_abandoned"') > 0);
  report := vital_private.record_batch(calls, 'vital_private.insert_calls'::regproc, holder);
  return report || jsonb_build_object('alerts', vital_private.alerts_of_this_transaction());
end;
$$;

-- Record a batch of service runs, each at its start and again at its end; the same report, without alerts.
create function public.record_runs_v1(runs text) returns json
language sql
security definer
set search_path = ''
as $$
  select vital_private.record_batch(runs, 'vital_private.upsert_runs'::regproc, null)::json
$$;

revoke execute on function vital_private.insert_calls(json, text) from public;
revoke execute on function vital_private.upsert_runs(json, text) from public;
revoke execute on function vital_private.record_batch(text, regproc, text) from public;
revoke execute on function vital_private.row_id(json) from public;
revoke execute on function public.record_calls_v1(text, text) from public, anon, authenticated;
revoke execute on function public.record_runs_v1(text) from public, anon, authenticated;
grant execute on function public.record_calls_v1(text, text) to service_role;
grant execute on function public.record_runs_v1(text) to service_role;

-- The database's clock: rows and windows go by it, whatever the clock of the machine that sends them says.
create function public.database_time_v1() returns json
language sql
volatile
set search_path = ''
as $$
  select to_json(clock_timestamp())
$$;

revoke execute on function public.database_time_v1() from public, anon, authenticated;
grant execute on function public.database_time_v1() to service_role;
