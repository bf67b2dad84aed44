-- One row a call: the bill. Partitioned by month on the call's start; rows outside every month's partition go to the default.
--
-- Money is numeric US dollars and exact. Token buckets are disjoint inside their total:
--   prompt_tokens     = uncached text + cache_read_tokens + cache_write_tokens + audio
--   completion_tokens = text + reasoning_tokens + audio
-- What is billed beside tokens is counted in billed_units, by the names of genai-prices' usage keys, and costs fees:
--   total_cost = input_cost + output_cost + fees
-- `< 'Infinity'` keeps NaN out too, which PostgreSQL sorts above every number; least and greatest leave NULLs out.
--
-- `calls` is more than 1 only where calls were merged into one row, because there was no room to keep more than their money: such a
-- row holds sums, has no latency, and says 'merged' in the notes of its metadata.
--
-- Reports read hundreds of thousands of rows for a few columns, and to come to one PostgreSQL goes through all before it. So what is of a
-- fixed width and never NULL stands first, then what most reports read, and names, ids of traces and JSON last.

create table public.token_usage_logs (
  id uuid not null,
  created_at timestamptz not null,
  recorded_at timestamptz not null default now(),
  prompt_tokens bigint not null default 0,
  completion_tokens bigint not null default 0,
  total_tokens bigint not null default 0,
  cache_read_tokens bigint not null default 0,
  cache_write_tokens bigint not null default 0,
  cache_write_1h_tokens bigint not null default 0,
  reasoning_tokens bigint not null default 0,
  audio_tokens bigint not null default 0,
  audio_output_tokens bigint not null default 0,
  calls integer not null default 1,
  usage_estimated boolean not null default false,
  priced boolean not null,
  cache_hit boolean not null default false,
  success boolean generated always as (status = 'ok') stored,
  status text not null default 'ok',
  latency_ms double precision,
  organization_id text,
  user_id text,
  session_id text,
  service_type text,
  total_cost numeric,
  potential_cost numeric,
  fees numeric,
  error_type text,
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
  provider text,
  model text,
  requested_model text,
  sent_model text,
  call_type text not null default 'chat',
  message_type text,
  run_id text,
  parent_run_id text,
  trace_id text,
  langsmith_project text,
  billed_units jsonb,
  input_cost numeric,
  output_cost numeric,
  price_version text,
  ceiling_cost numeric,
  reported_cost numeric,
  ttft_ms double precision,
  first_word_ms double precision,
  budget_action text,
  blocked_by jsonb,
  throttled_ms double precision,
  request_hash text,
  prefix_hashes text[],
  prompt_bytes bigint,
  tags text[] not null default '{}',
  metadata jsonb not null default '{}',
  xact xid8 not null default pg_current_xact_id(),
  primary key (id, created_at),
  -- Clients cannot read every date that PostgreSQL can store: one row of the year 20,000 would break every list of the newest calls.
  constraint token_usage_logs_created_at check (created_at >= '1970-01-01 00:00:00+00' and created_at < '9999-01-01 00:00:00+00'),
  constraint token_usage_logs_service_type check (
    service_type in ('1:1_conversation', 'virtual_panel', 'workflow', 'solution_builder')
  ),
  constraint token_usage_logs_call_type check (call_type in ('chat', 'completion', 'embedding')),
  constraint token_usage_logs_calls check (calls >= 1),
  constraint token_usage_logs_status check (status in ('ok', 'error', 'cancelled', 'abandoned', 'blocked')),
  constraint token_usage_logs_tokens_not_negative check (
    least(
      prompt_tokens, completion_tokens, total_tokens, cache_read_tokens, cache_write_tokens, cache_write_1h_tokens,
      reasoning_tokens, audio_tokens, audio_output_tokens
    ) >= 0
  ),
  constraint token_usage_logs_total_tokens check (total_tokens = prompt_tokens + completion_tokens),
  constraint token_usage_logs_tokens_disjoint check (
    cache_read_tokens + cache_write_tokens + (audio_tokens - audio_output_tokens) <= prompt_tokens
    and reasoning_tokens + audio_output_tokens <= completion_tokens
    and cache_write_1h_tokens <= cache_write_tokens
    and audio_output_tokens <= audio_tokens
  ),
  -- An object of counts, but for `passes`, which lists what each pass of one answer used. A count that is not whole may be text, of
  -- which no client makes a float.
  constraint token_usage_logs_billed_units check (
    jsonb_typeof(billed_units) = 'object' and billed_units <> '{}' and octet_length(billed_units::text) <= 4096
    and not billed_units @? '$.keyvalue() ? (
      @.key <> "passes" && !(@.value.type() == "number" && @.value >= 0)
      && !(@.value.type() == "string" && @.value like_regex "^[0-9]{1,15}([.][0-9]{1,15})?$")
    )'
    and coalesce(jsonb_typeof(billed_units -> 'passes'), 'array') = 'array'
  ),
  constraint token_usage_logs_costs_not_negative check (
    least(input_cost, output_cost, fees, total_cost, potential_cost, ceiling_cost, reported_cost) >= 0
    and greatest(input_cost, output_cost, fees, total_cost, potential_cost, ceiling_cost, reported_cost) < 'Infinity'
  ),
  constraint token_usage_logs_total_cost check (total_cost = input_cost + output_cost + fees),
  constraint token_usage_logs_priced check (
    num_nonnulls(input_cost, output_cost, fees, total_cost, potential_cost, price_version) = case when priced then 6 else 0 end
  ),
  constraint token_usage_logs_cache_hit_costs_nothing check (not cache_hit or not priced or total_cost = 0),
  constraint token_usage_logs_blocked_costs_nothing check (status <> 'blocked' or (priced and total_cost = 0)),
  constraint token_usage_logs_times_not_negative check (
    least(latency_ms, ttft_ms, first_word_ms, throttled_ms) >= 0
    and greatest(latency_ms, ttft_ms, first_word_ms, throttled_ms) < 'Infinity'
  ),
  constraint token_usage_logs_blocked_by_small check (
    jsonb_typeof(blocked_by) = 'object' and octet_length(blocked_by::text) <= 4096
  ),
  constraint token_usage_logs_prefix_hashes check (
    (prefix_hashes is null) = (prompt_bytes is null)
    and cardinality(prefix_hashes) between 1 and 8 and prompt_bytes >= 4096::bigint << (cardinality(prefix_hashes) - 1)
  ),
  constraint token_usage_logs_metadata_small check (
    jsonb_typeof(metadata) = 'object' and octet_length(metadata::text) <= 4096
  )
) partition by range (created_at);

comment on table public.token_usage_logs is 'One row a call to a model: who, what for, tokens, cost in US dollars, latency in milliseconds.';
comment on column public.token_usage_logs.id is 'Our own call id, a UUIDv7: it sorts by time.';
comment on column public.token_usage_logs.created_at is 'When the call started.';
comment on column public.token_usage_logs.recorded_at is 'When the row was written, by the database clock.';
comment on column public.token_usage_logs.model is 'The model that answered.';
comment on column public.token_usage_logs.requested_model is 'The model that was asked for, before any downgrade, where another one answered.';
comment on column public.token_usage_logs.sent_model is 'The model that the request named, where another one answered.';
comment on column public.token_usage_logs.workflow_step is 'The step as its author named it, else the LangGraph node.';
comment on column public.token_usage_logs.calls is 'How many calls the row stands for: 1, or more where they were merged.';
comment on column public.token_usage_logs.cache_write_1h_tokens is 'The part of cache_write_tokens kept for an hour, which is priced apart.';
comment on column public.token_usage_logs.audio_output_tokens is 'The part of audio_tokens that the model spoke, which is priced apart.';
comment on column public.token_usage_logs.billed_units is 'What is billed beside plain tokens: {"web_searches": 4, ...}; NULL: nothing.';
comment on column public.token_usage_logs.usage_estimated is 'True where nobody reported token counts and they were estimated.';
comment on column public.token_usage_logs.input_cost is 'US dollars for the tokens of the prompt.';
comment on column public.token_usage_logs.output_cost is 'US dollars for the tokens of the answer.';
comment on column public.token_usage_logs.fees is 'US dollars for searches, requests, citations and other units that are no tokens of the model.';
comment on column public.token_usage_logs.total_cost is 'US dollars: input_cost + output_cost + fees.';
comment on column public.token_usage_logs.potential_cost is 'What the call would have cost without any cache.';
comment on column public.token_usage_logs.price_version is 'The price entry that priced this row.';
comment on column public.token_usage_logs.priced is 'False where no price is known: the costs are NULL, never 0, until the row is repriced.';
comment on column public.token_usage_logs.ceiling_cost is 'What budgets count for a call without a price, until it is repriced; no part of the bill.';
comment on column public.token_usage_logs.reported_cost is 'The provider''s own figure in US dollars, where it gives one; no part of the bill.';
comment on column public.token_usage_logs.ttft_ms is 'Milliseconds to the first token that was not empty, thoughts included.';
comment on column public.token_usage_logs.first_word_ms is 'Milliseconds to the first token of the answer that was no thought.';
comment on column public.token_usage_logs.cache_hit is 'True where LangChain answered from its own cache: nothing was billed.';
comment on column public.token_usage_logs.budget_action is 'Strictest budget action: throttle, downgrade, block; shadow_... if only noted.';
comment on column public.token_usage_logs.blocked_by is 'Of a blocked call: the budget and window that stopped it, as they were at that moment.';
comment on column public.token_usage_logs.throttled_ms is 'Milliseconds that a budget made the call wait.';
comment on column public.token_usage_logs.request_hash is 'A keyed hash of the request; NULL where hashes are off.';
comment on column public.token_usage_logs.prefix_hashes is
'Keyed hashes of the beginnings of the prompt as providers keep them (tools, system, messages), whatever the model: element k, from 1, is that
of its first 4096 * 2^(k-1) bytes, at most 8. Tokens of a beginning: prompt_tokens * its bytes / prompt_bytes. NULL: shorter, or hashes are off.';
comment on column public.token_usage_logs.prompt_bytes is 'All bytes of the prompt that prefix_hashes were made of, its tools included.';
comment on column public.token_usage_logs.xact is 'The transaction that wrote the row last: copies elsewhere are brought up to date by it.';
comment on column public.token_usage_logs.error_type is 'Class name of the error only; its text is never stored.';

-- Each index makes recording dearer by some percent, so there are these and no more. Five serve whoever may see a part of the calls, or
-- looks for a run, or for calls that have no price or were blocked. The sixth is for the newest calls of all, whichever way they are
-- filtered; rows come in the order of time, so it grows at its end alone. The calls of a session lie close together, so a block range index
-- finds them and costs next to nothing.
create index token_usage_logs_organization on public.token_usage_logs (organization_id, created_at);
create index token_usage_logs_user on public.token_usage_logs (user_id, created_at);
create index token_usage_logs_service_run on public.token_usage_logs (service_run_id) where service_run_id is not null;
create index token_usage_logs_unpriced on public.token_usage_logs (created_at) where not priced;
create index token_usage_logs_blocked on public.token_usage_logs (created_at) where status = 'blocked';
create index token_usage_logs_time on public.token_usage_logs (created_at);
create index token_usage_logs_session on public.token_usage_logs
using brin (session_id text_bloom_ops (n_distinct_per_range = 256)) with (pages_per_range = 32, autosummarize = on);

select vital_private.restrict_relation('public.token_usage_logs', readers => '{authenticated, service_role}');

create policy "Users see their own calls" on public.token_usage_logs
for select to authenticated
using (user_id = (select auth.jwt()) ->> 'sub');

create policy "Organization admins see their organization's calls" on public.token_usage_logs
for select to authenticated
using (organization_id = any((select vital_private.administered_organizations())::text[]));
