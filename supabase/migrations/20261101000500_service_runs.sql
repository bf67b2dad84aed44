-- One row a service run: a conversation's turn, a panel's session, a workflow's run, a solution. Runs nest.

create table public.service_runs (
  id text not null primary key,
  parent_run_id text,
  ancestor_run_ids text[] not null default '{}',
  organization_id text,
  user_id text,
  session_id text,
  service_type text not null,
  service_id text,
  service_name text,
  agent_id text,
  workflow_id text,
  panel_id text,
  panel_size smallint,
  solution_id text,
  status text not null default 'running',
  started_at timestamptz not null,
  ended_at timestamptz,
  error_type text,
  metadata jsonb not null default '{}',
  recorded_at timestamptz not null default now(),
  xact xid8 not null default pg_current_xact_id(),
  constraint service_runs_service_type check (
    service_type in ('1:1_conversation', 'virtual_panel', 'workflow', 'solution_builder')
  ),
  constraint service_runs_status check (status in ('running', 'ok', 'error', 'cancelled', 'abandoned')),
  constraint service_runs_ended check ((ended_at is null) = (status = 'running')),
  constraint service_runs_order check (ended_at >= started_at),
  constraint service_runs_metadata_small check (
    jsonb_typeof(metadata) = 'object' and octet_length(metadata::text) <= 4096
  )
);

comment on table public.service_runs is 'One row a service run, with its status, start and end; runs nest by parent_run_id.';
comment on column public.service_runs.status is 'running, ok, error, cancelled; abandoned: its process has ended before it.';
comment on column public.service_runs.ancestor_run_ids is 'The runs around this one, the nearest first.';
comment on column public.service_runs.xact is 'The transaction that wrote the row last: copies elsewhere are brought up to date by it.';
comment on column public.service_runs.error_type is 'Class name of the error that ended the run; its text is never stored.';

create index service_runs_parent on public.service_runs (parent_run_id) where parent_run_id is not null;
create index service_runs_organization on public.service_runs (organization_id, started_at);
create index service_runs_user on public.service_runs (user_id, started_at);
create index service_runs_started on public.service_runs (started_at);

select vital_private.restrict_relation('public.service_runs', readers => '{authenticated, service_role}');

create policy "Users see their own service runs" on public.service_runs
for select to authenticated
using (user_id = (select auth.jwt()) ->> 'sub');

create policy "Organization admins see their organization's service runs" on public.service_runs
for select to authenticated
using (organization_id = any((select vital_private.administered_organizations())::text[]));

-- A run and the runs nested in it, to any depth, of those that the reader may see. Each level is looked up by its parent, and not all at once
-- by the array of ancestors: under row level security PostgreSQL uses indexes for such operators alone as can tell nobody about
-- rows that he may not see, and those of arrays are not among them.
create function vital_private.runs_within(run text) returns text[]
language sql
stable
set search_path = ''
as $$
  with recursive inside (id) as (
    select run
    union
    select r.id
    from inside
    inner join public.service_runs as r on r.parent_run_id = inside.id
  )

  select array_agg(inside.id) from inside
$$;

select vital_private.restrict_functions(helpers => '{runs_within}');
