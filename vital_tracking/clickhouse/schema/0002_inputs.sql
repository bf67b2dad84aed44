-- Where rows come in: for each copied table one of the engine Null, which keeps nothing, and a view that hands what is inserted there on.
--
-- ClickHouse builds the dictionaries of LowCardinality columns value by value where it reads them from text, which took more than half of
-- what a row cost; made of whole columns, as the view has them, they take a fraction of it. So text is read into plain columns, with the names
-- and, but for LowCardinality, the types of the table that keeps the rows.
--
-- Once in a table, a row is what it was without this: the view hands a block of rows on as one block, so the token of an insert holds for it
-- (deduplicate_blocks_in_dependent_materialized_views = 1), and an insert fails where its rows could not be kept.

-- Calls.
create table if not exists token_usage_logs_input${local} ${on_cluster} (
  xact UInt64,
  id UUID,
  created_at DateTime64(6, 'UTC'),
  recorded_at DateTime64(6, 'UTC'),
  organization_id Nullable(String),
  user_id Nullable(String),
  session_id Nullable(String),
  service_type Nullable(String),
  service_id Nullable(String),
  service_name Nullable(String),
  service_run_id Nullable(String),
  agent_id Nullable(String),
  agent_name Nullable(String),
  agent_tier Nullable(String),
  agent_role Nullable(String),
  workflow_id Nullable(String),
  workflow_step Nullable(String),
  workflow_step_name Nullable(String),
  panel_id Nullable(String),
  panel_position Nullable(Int16),
  panel_size Nullable(Int16),
  solution_id Nullable(String),
  framework Nullable(String),
  provider Nullable(String),
  model Nullable(String),
  requested_model Nullable(String),
  sent_model Nullable(String),
  call_type String,
  message_type Nullable(String),
  calls Int32,
  run_id Nullable(String),
  parent_run_id Nullable(String),
  trace_id Nullable(String),
  langsmith_project Nullable(String),
  prompt_tokens Int64,
  completion_tokens Int64,
  total_tokens Int64,
  cache_read_tokens Int64,
  cache_write_tokens Int64,
  cache_write_1h_tokens Int64,
  reasoning_tokens Int64,
  audio_tokens Int64,
  audio_output_tokens Int64,
  billed_units Nullable(String),
  usage_estimated Bool,
  input_cost Nullable(Decimal(38, 12)),
  output_cost Nullable(Decimal(38, 12)),
  fees Nullable(Decimal(38, 12)),
  total_cost Nullable(Decimal(38, 12)),
  potential_cost Nullable(Decimal(38, 12)),
  price_version Nullable(String),
  priced Bool,
  ceiling_cost Nullable(Decimal(38, 12)),
  reported_cost Nullable(Decimal(38, 12)),
  latency_ms Nullable(Float64),
  ttft_ms Nullable(Float64),
  first_word_ms Nullable(Float64),
  cache_hit Bool,
  status String,
  success Bool,
  error_type Nullable(String),
  budget_action Nullable(String),
  blocked_by Nullable(String),
  throttled_ms Nullable(Float64),
  request_hash Nullable(String),
  prefix_hashes Array(String),
  prompt_bytes Nullable(Int64),
  tags Array(String),
  metadata String,
  odd_amounts Map(String, String),
  version UInt64,
  is_deleted UInt8
)
engine = Null;

create materialized view if not exists token_usage_logs_kept${local} ${on_cluster} to token_usage_logs${local}
as select * from token_usage_logs_input${local};

-- Service runs.
create table if not exists service_runs_input${local} ${on_cluster} (
  xact UInt64,
  id String,
  parent_run_id Nullable(String),
  ancestor_run_ids Array(String),
  organization_id Nullable(String),
  user_id Nullable(String),
  session_id Nullable(String),
  service_type String,
  service_id Nullable(String),
  service_name Nullable(String),
  agent_id Nullable(String),
  workflow_id Nullable(String),
  panel_id Nullable(String),
  panel_size Nullable(Int16),
  solution_id Nullable(String),
  status String,
  started_at DateTime64(6, 'UTC'),
  ended_at Nullable(DateTime64(6, 'UTC')),
  error_type Nullable(String),
  metadata String,
  recorded_at DateTime64(6, 'UTC'),
  version UInt64,
  is_deleted UInt8
)
engine = Null;

create materialized view if not exists service_runs_kept${local} ${on_cluster} to service_runs${local}
as select * from service_runs_input${local};

-- Events of the platform.
create table if not exists platform_events_input${local} ${on_cluster} (
  xact UInt64,
  id UUID,
  occurred_at DateTime64(6, 'UTC'),
  recorded_at DateTime64(6, 'UTC'),
  organization_id Nullable(String),
  user_id Nullable(String),
  session_id Nullable(String),
  category String,
  event_name String,
  source Nullable(String),
  ip_hash Nullable(String),
  value Nullable(Decimal(38, 12)),
  properties String,
  odd_amounts Map(String, String),
  version UInt64,
  is_deleted UInt8
)
engine = Null;

create materialized view if not exists platform_events_kept${local} ${on_cluster} to platform_events${local}
as select * from platform_events_input${local};

-- Costs that are no calls.
create table if not exists tenant_cost_events_input${local} ${on_cluster} (
  xact UInt64,
  id UUID,
  occurred_at DateTime64(6, 'UTC'),
  recorded_at DateTime64(6, 'UTC'),
  organization_id Nullable(String),
  user_id Nullable(String),
  cost_type String,
  service Nullable(String),
  resource Nullable(String),
  quantity Decimal(38, 12),
  unit Nullable(String),
  unit_price Nullable(Decimal(38, 12)),
  cost_usd Nullable(Decimal(38, 12)),
  price_version Nullable(String),
  metadata String,
  priced Bool,
  odd_amounts Map(String, String),
  version UInt64,
  is_deleted UInt8
)
engine = Null;

create materialized view if not exists tenant_cost_events_kept${local} ${on_cluster} to tenant_cost_events${local}
as select * from tenant_cost_events_input${local};

-- Executions of agents.
create table if not exists agent_executions_input${local} ${on_cluster} (
  xact UInt64,
  id UUID,
  started_at DateTime64(6, 'UTC'),
  recorded_at DateTime64(6, 'UTC'),
  organization_id Nullable(String),
  user_id Nullable(String),
  agent_id String,
  agent_name Nullable(String),
  workflow_id Nullable(String),
  service_run_id Nullable(String),
  duration_ms Nullable(Float64),
  success Bool,
  error_type Nullable(String),
  total_tokens Nullable(Int64),
  cost_usd Nullable(Decimal(38, 12)),
  rating Nullable(Decimal(38, 12)),
  faithfulness Nullable(Decimal(38, 12)),
  answer_relevancy Nullable(Decimal(38, 12)),
  context_precision Nullable(Decimal(38, 12)),
  context_recall Nullable(Decimal(38, 12)),
  citations Nullable(Int32),
  metadata String,
  odd_amounts Map(String, String),
  version UInt64,
  is_deleted UInt8
)
engine = Null;

create materialized view if not exists agent_executions_kept${local} ${on_cluster} to agent_executions${local}
as select * from agent_executions_input${local};
