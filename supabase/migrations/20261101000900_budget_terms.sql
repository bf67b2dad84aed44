-- What a budget can be made of, in one place: the entities that it can stand on, the metrics that it can limit, and the actions that
-- it can take. Budgets are checked by this table, and calls are counted by functions that are generated from it.
--
-- A new entity or metric is one row here and one call of vital_private.build_budget_terms(). The library keeps the same
-- lists; tests/sql/test_budget_terms.py holds them against these.

create table vital_private.budget_terms (
  kind text not null,
  position smallint not null,
  name text not null,
  of_call text,
  primary key (kind, name),
  constraint budget_terms_order unique (kind, position),
  constraint budget_terms_kind check (kind in ('entity', 'metric', 'action')),
  constraint budget_terms_of_call check ((of_call is null) = (kind = 'action'))
);

comment on table vital_private.budget_terms is 'The entities, metrics and actions of budgets.';
comment on column vital_private.budget_terms.position is 'Order within the kind; of actions, from the mildest to the strictest.';
comment on column vital_private.budget_terms.of_call is 'Expression over a row `call` of token_usage_logs: its entity, or how much it counts.';

select vital_private.restrict_relation('vital_private.budget_terms');

-- The model that a budget counts a call for: the one that was asked for, under whatever dated name it answered; after a downgrade the
-- one that was sent instead. Where nobody kept that name it is the one that answered, without its date. (No SET clause, so that
-- PostgreSQL may inline it: it runs for every call recorded.)
create function vital_private.budget_model(model text, requested_model text, sent_model text, budget_action text) returns text
language sql
immutable
return case
  when budget_action = 'downgrade' then coalesce(sent_model, regexp_replace(model, '-([0-9]{8}|[0-9]{4}-[0-9]{2}-[0-9]{2})$', ''))
  else coalesce(requested_model, sent_model, model)
end;

insert into vital_private.budget_terms (kind, position, name, of_call) values
('entity', 1, 'organization', 'call.organization_id'),
('entity', 2, 'service', 'call.service_type'),
('entity', 3, 'tier', 'call.agent_tier'),
('entity', 4, 'user', 'call.user_id'),
('entity', 5, 'session', 'call.session_id'),
('entity', 6, 'agent', 'call.agent_id'),
('entity', 7, 'workflow', 'call.workflow_id'),
('entity', 8, 'panel', 'call.panel_id'),
('entity', 9, 'solution', 'call.solution_id'),
('entity', 10, 'model', 'vital_private.budget_model(call.model, call.requested_model, call.sent_model, call.budget_action)'),
-- Until a call without a price is repriced, it counts what it can have cost at most.
('metric', 1, 'cost_usd', 'coalesce(call.total_cost, call.ceiling_cost, 0)'),
('metric', 2, 'tokens', 'case when call.cache_hit then 0 else call.total_tokens end'),
('metric', 3, 'calls', 'case when call.cache_hit or call.status = ''blocked'' then 0 else call.calls end'),
('action', 1, 'alert', null),
('action', 2, 'throttle', null),
('action', 3, 'downgrade', null),
('action', 4, 'block', null);

-- The names of a kind, in their order.
create function vital_private.budget_names(kind text) returns text[]
language sql
stable
set search_path = ''
as $$
  select array_agg(t.name order by t.position) from vital_private.budget_terms as t where t.kind = budget_names.kind
$$;

-- A call as budgets count it. `entities` and `amounts` are in the order of budget_terms.
create type vital_private.counted_call as (
  created_at timestamptz,
  organization_id text,
  entities text array,
  amounts numeric array
);

-- Generate what follows from budget_terms: counted(call, sign) makes a counted_call of a recorded call; `sign` -1 takes it back. (Like
-- budget_model it has no SET clause.)
create function vital_private.build_budget_terms() returns void
language plpgsql
set search_path = ''
as $build$
begin
  execute (
    select format(
      $function$
      create or replace function vital_private.counted(call public.token_usage_logs, sign integer) returns vital_private.counted_call
      language sql
      immutable
      return row(call.created_at, call.organization_id, array[%s], array[%s]::numeric[])::vital_private.counted_call
      $function$,
      string_agg(t.of_call, ', ' order by t.position) filter (where t.kind = 'entity'),
      string_agg(format('sign * %s', t.of_call), ', ' order by t.position) filter (where t.kind = 'metric')
    )
    from vital_private.budget_terms as t
  );
  perform vital_private.restrict_functions();
end;
$build$;

select vital_private.build_budget_terms();
