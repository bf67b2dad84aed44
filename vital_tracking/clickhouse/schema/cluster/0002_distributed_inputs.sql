-- On a cluster what is inserted goes to the shard of its organization as text is read, and into the table that keeps it there.

create table if not exists token_usage_logs_input ${on_cluster} as token_usage_logs_input_local
engine = Distributed('${cluster}', currentDatabase(), token_usage_logs_input_local, cityHash64(ifNull(organization_id, '')));

create table if not exists service_runs_input ${on_cluster} as service_runs_input_local
engine = Distributed('${cluster}', currentDatabase(), service_runs_input_local, cityHash64(ifNull(organization_id, '')));

create table if not exists platform_events_input ${on_cluster} as platform_events_input_local
engine = Distributed('${cluster}', currentDatabase(), platform_events_input_local, cityHash64(ifNull(organization_id, '')));

create table if not exists tenant_cost_events_input ${on_cluster} as tenant_cost_events_input_local
engine = Distributed('${cluster}', currentDatabase(), tenant_cost_events_input_local, cityHash64(ifNull(organization_id, '')));

create table if not exists agent_executions_input ${on_cluster} as agent_executions_input_local
engine = Distributed('${cluster}', currentDatabase(), agent_executions_input_local, cityHash64(ifNull(organization_id, '')));
