-- Calls, service runs, events, costs and executions as PostgreSQL holds them, column by column.
--
-- A row of a table may be there in several states until ClickHouse merges its parts: `final` reads the last one. `version` says which
-- that is; a deleted row is one of nothing but its key with is_deleted = 1. The sorting key is what never changes of a row; where it
-- does, as for a person who is forgotten, the old key is deleted and the row comes under a new one. The key holds the time, by which months
-- are partitions, so no state of a row is in another one: do_not_merge_across_partitions_select_final = 1 is safe.
--
-- The codecs are those that came out smallest on calls as a company makes them, without being slower to read: differences for times and
-- transactions, the bits that are in use for counts, a more thorough ZSTD for ids that come again and again.
--
-- xact: the transaction of PostgreSQL that wrote the row. odd_amounts: the exact text of amounts that a Decimal(38, 12) does not hold,
-- which are rounded in their columns, or NULL where they are too large. Lists and JSON: metadata and the like are JSON as text.

-- One row a call: public.token_usage_logs of PostgreSQL.
create table if not exists token_usage_logs${local} ${on_cluster} (
  xact UInt64 codec(Delta, ZSTD),
  id UUID codec(ZSTD),
  created_at DateTime64(6, 'UTC') codec(Delta, ZSTD),
  recorded_at DateTime64(6, 'UTC') codec(Delta, ZSTD),
  organization_id LowCardinality(Nullable(String)) codec(ZSTD),
  user_id Nullable(String) codec(ZSTD(3)),
  session_id Nullable(String) codec(ZSTD(3)),
  service_type LowCardinality(Nullable(String)) codec(ZSTD),
  service_id LowCardinality(Nullable(String)) codec(ZSTD),
  service_name LowCardinality(Nullable(String)) codec(ZSTD),
  service_run_id Nullable(String) codec(ZSTD(3)),
  agent_id LowCardinality(Nullable(String)) codec(ZSTD),
  agent_name LowCardinality(Nullable(String)) codec(ZSTD),
  agent_tier LowCardinality(Nullable(String)) codec(ZSTD),
  agent_role LowCardinality(Nullable(String)) codec(ZSTD),
  workflow_id LowCardinality(Nullable(String)) codec(ZSTD),
  workflow_step LowCardinality(Nullable(String)) codec(ZSTD),
  workflow_step_name LowCardinality(Nullable(String)) codec(ZSTD),
  panel_id LowCardinality(Nullable(String)) codec(ZSTD),
  panel_position Nullable(Int16) codec(T64, ZSTD),
  panel_size Nullable(Int16) codec(T64, ZSTD),
  solution_id LowCardinality(Nullable(String)) codec(ZSTD),
  framework LowCardinality(Nullable(String)) codec(ZSTD),
  provider LowCardinality(Nullable(String)) codec(ZSTD),
  model LowCardinality(Nullable(String)) codec(ZSTD),
  requested_model LowCardinality(Nullable(String)) codec(ZSTD),
  sent_model LowCardinality(Nullable(String)) codec(ZSTD),
  call_type LowCardinality(String) codec(ZSTD),
  message_type LowCardinality(Nullable(String)) codec(ZSTD),
  calls Int32 codec(T64, ZSTD),
  run_id Nullable(String) codec(ZSTD(3)),
  parent_run_id Nullable(String) codec(ZSTD(3)),
  trace_id Nullable(String) codec(ZSTD(3)),
  langsmith_project LowCardinality(Nullable(String)) codec(ZSTD),
  prompt_tokens Int64 codec(T64, ZSTD),
  completion_tokens Int64 codec(T64, ZSTD),
  total_tokens Int64 codec(T64, ZSTD),
  cache_read_tokens Int64 codec(T64, ZSTD),
  cache_write_tokens Int64 codec(T64, ZSTD),
  cache_write_1h_tokens Int64 codec(T64, ZSTD),
  reasoning_tokens Int64 codec(T64, ZSTD),
  audio_tokens Int64 codec(T64, ZSTD),
  audio_output_tokens Int64 codec(T64, ZSTD),
  billed_units Nullable(String) codec(ZSTD),
  usage_estimated Bool codec(ZSTD),
  input_cost Nullable(Decimal(38, 12)) codec(ZSTD),
  output_cost Nullable(Decimal(38, 12)) codec(ZSTD),
  fees Nullable(Decimal(38, 12)) codec(ZSTD),
  total_cost Nullable(Decimal(38, 12)) codec(ZSTD),
  potential_cost Nullable(Decimal(38, 12)) codec(ZSTD),
  price_version LowCardinality(Nullable(String)) codec(ZSTD),
  priced Bool codec(ZSTD),
  ceiling_cost Nullable(Decimal(38, 12)) codec(ZSTD),
  reported_cost Nullable(Decimal(38, 12)) codec(ZSTD),
  latency_ms Nullable(Float64) codec(ZSTD),
  ttft_ms Nullable(Float64) codec(ZSTD),
  first_word_ms Nullable(Float64) codec(ZSTD),
  cache_hit Bool codec(ZSTD),
  status LowCardinality(String) codec(ZSTD),
  success Bool codec(ZSTD),
  error_type LowCardinality(Nullable(String)) codec(ZSTD),
  budget_action LowCardinality(Nullable(String)) codec(ZSTD),
  blocked_by Nullable(String) codec(ZSTD),
  throttled_ms Nullable(Float64) codec(ZSTD),
  request_hash Nullable(String) codec(ZSTD),
  prefix_hashes Array(String) codec(ZSTD),
  prompt_bytes Nullable(Int64) codec(T64, ZSTD),
  tags Array(String) codec(ZSTD),
  metadata String codec(ZSTD),
  odd_amounts Map(LowCardinality(String), String) codec(ZSTD),
  version UInt64 codec(Delta, ZSTD),
  is_deleted UInt8 codec(ZSTD)
)
engine = ${replacing}(version, is_deleted)
partition by toYYYYMM(created_at)
order by (organization_id, created_at, id)
settings ${settings};

-- One row a service run.
create table if not exists service_runs${local} ${on_cluster} (
  xact UInt64 codec(Delta, ZSTD),
  id String codec(ZSTD),
  parent_run_id Nullable(String) codec(ZSTD(3)),
  ancestor_run_ids Array(String) codec(ZSTD),
  organization_id LowCardinality(Nullable(String)) codec(ZSTD),
  user_id Nullable(String) codec(ZSTD(3)),
  session_id Nullable(String) codec(ZSTD(3)),
  service_type LowCardinality(String) codec(ZSTD),
  service_id LowCardinality(Nullable(String)) codec(ZSTD),
  service_name LowCardinality(Nullable(String)) codec(ZSTD),
  agent_id LowCardinality(Nullable(String)) codec(ZSTD),
  workflow_id LowCardinality(Nullable(String)) codec(ZSTD),
  panel_id LowCardinality(Nullable(String)) codec(ZSTD),
  panel_size Nullable(Int16) codec(T64, ZSTD),
  solution_id LowCardinality(Nullable(String)) codec(ZSTD),
  status LowCardinality(String) codec(ZSTD),
  started_at DateTime64(6, 'UTC') codec(Delta, ZSTD),
  ended_at Nullable(DateTime64(6, 'UTC')) codec(Delta, ZSTD),
  error_type LowCardinality(Nullable(String)) codec(ZSTD),
  metadata String codec(ZSTD),
  recorded_at DateTime64(6, 'UTC') codec(Delta, ZSTD),
  version UInt64 codec(Delta, ZSTD),
  is_deleted UInt8 codec(ZSTD)
)
engine = ${replacing}(version, is_deleted)
partition by toYYYYMM(started_at)
order by (organization_id, started_at, id)
settings ${settings};

-- One row an event of the platform.
create table if not exists platform_events${local} ${on_cluster} (
  xact UInt64 codec(Delta, ZSTD),
  id UUID codec(ZSTD),
  occurred_at DateTime64(6, 'UTC') codec(Delta, ZSTD),
  recorded_at DateTime64(6, 'UTC') codec(Delta, ZSTD),
  organization_id LowCardinality(Nullable(String)) codec(ZSTD),
  user_id Nullable(String) codec(ZSTD(3)),
  session_id Nullable(String) codec(ZSTD(3)),
  category LowCardinality(String) codec(ZSTD),
  event_name LowCardinality(String) codec(ZSTD),
  source LowCardinality(Nullable(String)) codec(ZSTD),
  ip_hash Nullable(String) codec(ZSTD),
  value Nullable(Decimal(38, 12)) codec(ZSTD),
  properties String codec(ZSTD),
  odd_amounts Map(LowCardinality(String), String) codec(ZSTD),
  version UInt64 codec(Delta, ZSTD),
  is_deleted UInt8 codec(ZSTD)
)
engine = ${replacing}(version, is_deleted)
partition by toYYYYMM(occurred_at)
order by (organization_id, occurred_at, id)
settings ${settings};

-- One row a cost that is no call.
create table if not exists tenant_cost_events${local} ${on_cluster} (
  xact UInt64 codec(Delta, ZSTD),
  id UUID codec(ZSTD),
  occurred_at DateTime64(6, 'UTC') codec(Delta, ZSTD),
  recorded_at DateTime64(6, 'UTC') codec(Delta, ZSTD),
  organization_id LowCardinality(Nullable(String)) codec(ZSTD),
  user_id Nullable(String) codec(ZSTD(3)),
  cost_type LowCardinality(String) codec(ZSTD),
  service LowCardinality(Nullable(String)) codec(ZSTD),
  resource LowCardinality(Nullable(String)) codec(ZSTD),
  quantity Decimal(38, 12) codec(ZSTD),
  unit LowCardinality(Nullable(String)) codec(ZSTD),
  unit_price Nullable(Decimal(38, 12)) codec(ZSTD),
  cost_usd Nullable(Decimal(38, 12)) codec(ZSTD),
  price_version LowCardinality(Nullable(String)) codec(ZSTD),
  metadata String codec(ZSTD),
  priced Bool codec(ZSTD),
  odd_amounts Map(LowCardinality(String), String) codec(ZSTD),
  version UInt64 codec(Delta, ZSTD),
  is_deleted UInt8 codec(ZSTD)
)
engine = ${replacing}(version, is_deleted)
partition by toYYYYMM(occurred_at)
order by (organization_id, occurred_at, id)
settings ${settings};

-- One row an execution of an agent.
create table if not exists agent_executions${local} ${on_cluster} (
  xact UInt64 codec(Delta, ZSTD),
  id UUID codec(ZSTD),
  started_at DateTime64(6, 'UTC') codec(Delta, ZSTD),
  recorded_at DateTime64(6, 'UTC') codec(Delta, ZSTD),
  organization_id LowCardinality(Nullable(String)) codec(ZSTD),
  user_id Nullable(String) codec(ZSTD(3)),
  agent_id LowCardinality(String) codec(ZSTD),
  agent_name LowCardinality(Nullable(String)) codec(ZSTD),
  workflow_id LowCardinality(Nullable(String)) codec(ZSTD),
  service_run_id Nullable(String) codec(ZSTD(3)),
  duration_ms Nullable(Float64) codec(ZSTD),
  success Bool codec(ZSTD),
  error_type LowCardinality(Nullable(String)) codec(ZSTD),
  total_tokens Nullable(Int64) codec(T64, ZSTD),
  cost_usd Nullable(Decimal(38, 12)) codec(ZSTD),
  rating Nullable(Decimal(38, 12)) codec(ZSTD),
  faithfulness Nullable(Decimal(38, 12)) codec(ZSTD),
  answer_relevancy Nullable(Decimal(38, 12)) codec(ZSTD),
  context_precision Nullable(Decimal(38, 12)) codec(ZSTD),
  context_recall Nullable(Decimal(38, 12)) codec(ZSTD),
  citations Nullable(Int32) codec(T64, ZSTD),
  metadata String codec(ZSTD),
  odd_amounts Map(LowCardinality(String), String) codec(ZSTD),
  version UInt64 codec(Delta, ZSTD),
  is_deleted UInt8 codec(ZSTD)
)
engine = ${replacing}(version, is_deleted)
partition by toYYYYMM(started_at)
order by (organization_id, started_at, id)
settings ${settings};

-- Which PostgreSQL this is a copy of, and the copy's own id: a copy that is made anew has another one.
create table if not exists vital_tracking_copy ${on_cluster} (
  copy UUID,
  source UUID,
  made_at DateTime64(6, 'UTC') default now64(6)
)
engine = ${everywhere} order by made_at;
