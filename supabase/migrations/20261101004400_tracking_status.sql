-- The state of the installation.

-- What `vital-tracking doctor` checks, as one JSON object.
create function public.tracking_status_v1() returns json
language plpgsql
stable
security definer
set search_path = ''
as $$
begin
  return json_build_object(
    'server_version', current_setting('server_version'),
    'compiles_queries', pg_jit_available(),
    'database_time', now(),
    'calls_last_day', (
      select coalesce(sum(calls), 0) from public.token_usage_logs where created_at >= now() - interval '1 day'
    ),
    'last_call_at', (select max(created_at) from public.token_usage_logs where created_at >= now() - interval '31 days'),
    'unpriced_calls', (select coalesce(sum(calls), 0) from public.token_usage_logs where not priced),
    'unpriced_models', (
      select coalesce(json_agg(model order by model), '[]')
      from (select distinct coalesce(model, '(no model)') as model from public.token_usage_logs where not priced limit 20) as names
    ),
    'calls_in_default_partition', (select coalesce(sum(calls), 0) from vital_private.token_usage_logs_default),
    'partitions_until', (select max(p.month) + interval '1 month' from vital_private.monthly_partitions('token_usage_logs') as p),
    'runs_still_open', (
      select count(*) from public.service_runs where ended_at is null and started_at < now() - interval '1 day'
    )
  );
end;
$$;

select vital_private.restrict_functions(api => '{tracking_status_v1}');
