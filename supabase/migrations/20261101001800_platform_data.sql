-- What is not a call to a model: events of the platform, what else costs money, and executions of agents as their users see them.
--
-- Three tables, partitioned by month as the calls are. Their rows are recorded by id, each once; their sums are kept by the statements
-- that change them. No table holds an address, a user agent, a text that somebody wrote, or the text of an error.

create table public.platform_events (
  id uuid not null,
  occurred_at timestamptz not null,
  recorded_at timestamptz not null default now(),
  organization_id text,
  user_id text,
  session_id text,
  category text not null default 'user_behavior',
  event_name text not null,
  source text,
  ip_hash text,
  value numeric,
  properties jsonb not null default '{}',
  xact xid8 not null default pg_current_xact_id(),
  primary key (id, occurred_at),
  constraint platform_events_occurred_at check (occurred_at >= '1970-01-01 00:00:00+00' and occurred_at < '9999-01-01 00:00:00+00'),
  constraint platform_events_category check (category in ('user_behavior', 'system_health', 'business')),
  constraint platform_events_event_name check (btrim(event_name) <> '' and length(event_name) <= 256),
  constraint platform_events_ip_hash check (ip_hash ~ '^[0-9a-f]{16,64}$'),
  constraint platform_events_value check (value > '-Infinity' and value < 'Infinity'),
  constraint platform_events_properties check (jsonb_typeof(properties) = 'object' and octet_length(properties::text) <= 4096)
) partition by range (occurred_at);

comment on table public.platform_events is 'One row an event of the platform: what somebody did, how a system fares, what the business saw.';
comment on column public.platform_events.id is 'The event''s own id, a UUIDv7; sending it again changes nothing.';
comment on column public.platform_events.occurred_at is 'When it happened.';
comment on column public.platform_events.recorded_at is 'When the row was written, by the database clock.';
comment on column public.platform_events.category is 'user_behavior, system_health or business.';
comment on column public.platform_events.event_name is 'What happened, in the platform''s own words: page_view, http_request, revenue.';
comment on column public.platform_events.source is 'Where it came from: a page, a service, the path of a request.';
comment on column public.platform_events.ip_hash is 'A keyed hash of the address; the address itself is stored nowhere.';
comment on column public.platform_events.value is 'A number that belongs to it: milliseconds of a request, US dollars of revenue.';
comment on column public.platform_events.xact is 'The transaction that wrote the row last: copies elsewhere are brought up to date by it.';
comment on column public.platform_events.properties is 'Small and flat: allow-listed names, no texts that somebody wrote.';

create table public.tenant_cost_events (
  id uuid not null,
  occurred_at timestamptz not null,
  recorded_at timestamptz not null default now(),
  organization_id text,
  user_id text,
  cost_type text not null,
  service text,
  resource text,
  quantity numeric not null default 1,
  unit text,
  unit_price numeric,
  cost_usd numeric,
  price_version text,
  metadata jsonb not null default '{}',
  priced boolean generated always as (cost_usd is not null) stored,
  xact xid8 not null default pg_current_xact_id(),
  primary key (id, occurred_at),
  constraint tenant_cost_events_occurred_at check (occurred_at >= '1970-01-01 00:00:00+00' and occurred_at < '9999-01-01 00:00:00+00'),
  constraint tenant_cost_events_cost_type check (
    cost_type in ('llm', 'embedding', 'storage', 'bandwidth', 'compute', 'search', 'tts', 'stt', 'other')
  ),
  constraint tenant_cost_events_finite check (
    least(quantity, unit_price, cost_usd) > '-Infinity' and greatest(quantity, unit_price, cost_usd) < 'Infinity'
  ),
  constraint tenant_cost_events_price check ((cost_usd is null) = (price_version is null)),
  constraint tenant_cost_events_product check (unit_price is null or cost_usd is null or cost_usd = quantity * unit_price),
  constraint tenant_cost_events_metadata check (jsonb_typeof(metadata) = 'object' and octet_length(metadata::text) <= 4096)
) partition by range (occurred_at);

comment on table public.tenant_cost_events is 'One row a cost that is no call to a model: storage, bandwidth, searches, machines. In US dollars.';
comment on column public.tenant_cost_events.id is 'The cost''s own id, a UUIDv7; sending it again changes nothing.';
comment on column public.tenant_cost_events.cost_type is 'llm and embedding are for what a provider bills beside the calls in token_usage_logs.';
comment on column public.tenant_cost_events.service is 'What it serves, in the platform''s own words.';
comment on column public.tenant_cost_events.resource is 'What was used: a bucket, a machine, a search engine. Prices may differ by it.';
comment on column public.tenant_cost_events.quantity is 'How much was used, in units; below 0 it is a credit.';
comment on column public.tenant_cost_events.unit is 'What is counted: gb_month, gb, call, hour.';
comment on column public.tenant_cost_events.unit_price is 'US dollars a unit, as of occurred_at; NULL where the cost was given as a whole.';
comment on column public.tenant_cost_events.cost_usd is 'US dollars; NULL where no price is known, never 0 for that.';
comment on column public.tenant_cost_events.price_version is 'What priced it: resource_prices:ID, given, or allocation.';
comment on column public.tenant_cost_events.xact is 'The transaction that wrote the row last: copies elsewhere are brought up to date by it.';
comment on column public.tenant_cost_events.priced is 'False where no price is known: the cost is NULL until it is repriced.';

create table public.agent_executions (
  id uuid not null,
  started_at timestamptz not null,
  recorded_at timestamptz not null default now(),
  organization_id text,
  user_id text,
  agent_id text not null,
  agent_name text,
  workflow_id text,
  service_run_id text,
  duration_ms double precision,
  success boolean not null,
  error_type text,
  total_tokens bigint,
  cost_usd numeric,
  rating numeric,
  faithfulness numeric,
  answer_relevancy numeric,
  context_precision numeric,
  context_recall numeric,
  citations integer,
  metadata jsonb not null default '{}',
  xact xid8 not null default pg_current_xact_id(),
  primary key (id, started_at),
  constraint agent_executions_started_at check (started_at >= '1970-01-01 00:00:00+00' and started_at < '9999-01-01 00:00:00+00'),
  constraint agent_executions_agent_id check (agent_id <> ''),
  constraint agent_executions_duration check (duration_ms >= 0 and duration_ms < 'Infinity'),
  constraint agent_executions_error check (error_type is null or not success),
  constraint agent_executions_not_negative check (
    least(total_tokens, citations) >= 0 and cost_usd >= 0 and cost_usd < 'Infinity'
  ),
  constraint agent_executions_rating check (rating between 1 and 5),
  constraint agent_executions_scores check (
    least(faithfulness, answer_relevancy, context_precision, context_recall) >= 0
    and greatest(faithfulness, answer_relevancy, context_precision, context_recall) <= 1
  ),
  constraint agent_executions_metadata check (jsonb_typeof(metadata) = 'object' and octet_length(metadata::text) <= 4096)
) partition by range (started_at);

comment on table public.agent_executions is 'One row an execution: one run of an agent as its users see it, with its success, duration and quality.';
comment on column public.agent_executions.id is 'The execution''s own id, a UUIDv7; sending it again changes nothing.';
comment on column public.agent_executions.service_run_id is 'The service run whose calls belong to it.';
comment on column public.agent_executions.success is 'Whether its users got what they came for.';
comment on column public.agent_executions.error_type is 'Class name of the error only; its text is never stored.';
comment on column public.agent_executions.total_tokens is 'Tokens of its calls, as whoever recorded it knew them; no part of any bill.';
comment on column public.agent_executions.cost_usd is 'US dollars of its calls, as whoever recorded it knew them; no part of any bill.';
comment on column public.agent_executions.rating is 'What a user gave it, from 1 to 5.';
comment on column public.agent_executions.faithfulness is 'From 0 to 1, as RAGAS and its kin measure it; so are the other three.';
comment on column public.agent_executions.xact is 'The transaction that wrote the row last: copies elsewhere are brought up to date by it.';
comment on column public.agent_executions.citations is 'How many sources it named.';

select vital_private.partition_by_month('platform_events', 'occurred_at', 'value', '30 days');
select vital_private.partition_by_month('tenant_cost_events', 'occurred_at', 'cost_usd', '90 days');
select vital_private.partition_by_month('agent_executions', 'started_at', 'cost_usd', '30 days');

create index platform_events_organization on public.platform_events (organization_id, occurred_at);
create index platform_events_user on public.platform_events (user_id, occurred_at) where user_id is not null;
create index platform_events_time on public.platform_events (occurred_at);
create index platform_events_session on public.platform_events
using brin (session_id text_bloom_ops (n_distinct_per_range = 256)) with (pages_per_range = 32, autosummarize = on);
create index tenant_cost_events_organization on public.tenant_cost_events (organization_id, occurred_at);
create index tenant_cost_events_user on public.tenant_cost_events (user_id, occurred_at) where user_id is not null;
create index tenant_cost_events_time on public.tenant_cost_events (occurred_at);
create index tenant_cost_events_unpriced on public.tenant_cost_events (occurred_at) where not priced;
create index agent_executions_organization on public.agent_executions (organization_id, started_at);
create index agent_executions_user on public.agent_executions (user_id, started_at) where user_id is not null;
create index agent_executions_time on public.agent_executions (started_at);
create index agent_executions_service_run on public.agent_executions (service_run_id) where service_run_id is not null;

do $$
declare
  platform_table text;
begin
  foreach platform_table in array array['platform_events', 'tenant_cost_events', 'agent_executions'] loop
    perform vital_private.restrict_relation(format('public.%I', platform_table), readers => '{authenticated, service_role}');
    execute format(
      'create policy "Users see their own" on public.%I for select to authenticated
      using (user_id = (select auth.jwt()) ->> ''sub'')', platform_table
    );
    execute format(
      'create policy "Organization admins see their organization''s" on public.%I for select to authenticated
      using (organization_id = any((select vital_private.administered_organizations())::text[]))', platform_table
    );
  end loop;
end;
$$;
