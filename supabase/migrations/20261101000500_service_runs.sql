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
comment on column public.service_runs.error_type is 'Class name of the error that ended the run; its text is never stored.';

-- Without a list of pending entries, which every look-up would have to go through.
create index service_runs_ancestors on public.service_runs using gin (ancestor_run_ids) with (fastupdate = off);
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

-- The runs nested in a run, of those that the reader may see. Under row level security PostgreSQL uses an index for operators alone that
-- cannot tell anybody about rows that he may not see; one that searches arrays is not among them, and without the index each run would
-- be a walk through all. So this looks past the policies, and asks itself what they ask.
create function vital_private.runs_within(run_id text) returns setof text
language sql
stable
security definer
rows 4
set search_path = ''
as $$
  select r.id
  from public.service_runs as r
  where r.ancestor_run_ids @> array[run_id]
    and (
      current_setting('role', true) is distinct from 'authenticated'
      or r.user_id = (select vital_private.subject())
      or r.organization_id = any((select vital_private.administered_organizations())::text[])
    )
$$;

select vital_private.restrict_functions(helpers => '{runs_within}');
