-- Billed calls in groups that are priced alike, as public.call_groups_v1 of PostgreSQL makes them. `nights` are the starts of hours, in
-- seconds, from 22 to 6 by the clock of the time zone; `eras` are instants in microseconds. Those that are looked for among other calls are
-- found by repeated_calls.sql and alike_calls.sql.
select
  ${shown},
  toString(sum(t.calls)) as calls,
  toString(sum(ifNull(t.total_cost, 0))) as total_cost,
  ${tokens}
  toString(sumIf(t.calls, t.usage_estimated)) as estimated_calls,
  ${prefixes}
  max(notEmpty(odd_amounts) or arrayExists(f -> JSONType(metadata, f) not in ('String', 'Int64', 'UInt64', 'Bool'), told_facts)) as is_odd
from (
  select
    *,
    arrayFilter(
      f -> JSONType(metadata, f) <> 'Null',
      ['service_tier', 'speed', 'latency', 'inference_geo', 'search_context_size', 'search_tool', 'processing']
    ) as told_facts,
    arrayMap(
      f -> (f, if(JSONType(metadata, f) = 'String', JSONExtractString(metadata, f), JSONExtractRaw(metadata, f))), told_facts
    ) as facts,
    arrayLast(s -> s <= intDiv(prompt_tokens + t.calls - 1, t.calls), {sizes:Array(Int64)}) as size,
    arrayCount(e -> e <= toUnixTimestamp64Micro(created_at), {eras:Array(Int64)}) as era,
    ttft_ms is null and multiIf(
      call_type = 'embedding', ifNull(service_type <> '1:1_conversation', 1),
      ifNull(service_type in ('workflow', 'solution_builder'), 0),
      has({nights:Array(UInt32)}, roundDown(toUnixTimestamp(created_at), {starts:Array(UInt32)})),
      0
    ) as unattended,
    audio_tokens > 0 as audio,
    billed_units is not null or ifNull(startsWith(price_version, 'reported by '), 0) as fixed,
    JSONHas(metadata, 'shadow_of') as shadow,
    request_hash is not null as hashed
  from token_usage_logs as t final
  where t.created_at >= {since:DateTime64(6, 'UTC')} and t.created_at < {until:DateTime64(6, 'UTC')}
    and ${billed}
) as t
${alike}
group by ${keys}
