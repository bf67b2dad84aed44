-- On a cluster each shard holds the rows of some organizations, in tables whose names end in _local. The tables with the plain names
-- lead to all shards; what is inserted there goes to the shard of its organization.

create table if not exists token_usage_logs ${on_cluster} as token_usage_logs_local
engine = Distributed('${cluster}', currentDatabase(), token_usage_logs_local, cityHash64(ifNull(organization_id, '')));

create table if not exists service_runs ${on_cluster} as service_runs_local
engine = Distributed('${cluster}', currentDatabase(), service_runs_local, cityHash64(ifNull(organization_id, '')));

create table if not exists platform_events ${on_cluster} as platform_events_local
engine = Distributed('${cluster}', currentDatabase(), platform_events_local, cityHash64(ifNull(organization_id, '')));

create table if not exists tenant_cost_events ${on_cluster} as tenant_cost_events_local
engine = Distributed('${cluster}', currentDatabase(), tenant_cost_events_local, cityHash64(ifNull(organization_id, '')));

create table if not exists agent_executions ${on_cluster} as agent_executions_local
engine = Distributed('${cluster}', currentDatabase(), agent_executions_local, cityHash64(ifNull(organization_id, '')));
