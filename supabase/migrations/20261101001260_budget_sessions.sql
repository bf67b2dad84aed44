-- What users see of the budgets of their sessions.

-- The sessions of the signed-in user in which nobody else has called a model: what is spent in those is the user's own. Where no budget
-- stands on sessions nothing is looked for.
create function vital_private.own_sessions() returns text[]
language sql
stable
security definer
set search_path = ''
as $$
  select coalesce(array_agg(mine.session_id), '{}')
  from (
    select distinct call.session_id
    from public.token_usage_logs as call
    where call.user_id = (select auth.jwt()) ->> 'sub' and call.session_id is not null
      and exists (select from public.budget_limits as b where b.entity_type = 'session')
  ) as mine
  where not exists (
    select from public.token_usage_logs as other
    where other.session_id = mine.session_id and other.user_id is distinct from (select auth.jwt()) ->> 'sub'
  )
$$;

select vital_private.restrict_functions(helpers => '{own_sessions}');

create policy "Users see the budgets of their sessions" on public.budget_limits
for select to authenticated
using (
  entity_type = 'session'
  and (entity_id = '*' or entity_id = any((select vital_private.own_sessions())::text[]))
  and (
    organization_id is null
    or organization_id in (
      select m.organization_id from public.organization_members as m where m.user_id = (select auth.jwt()) ->> 'sub'
    )
  )
);

create policy "Users see the windows of their sessions" on public.budget_windows
for select to authenticated
using (
  budget_id in (select b.id from public.budget_limits as b where b.entity_type = 'session')
  and entity_id = any((select vital_private.own_sessions())::text[])
);

create policy "Users see alerts about their sessions" on public.cost_alerts
for select to authenticated
using (entity_type = 'session' and entity_id = any((select vital_private.own_sessions())::text[]));
