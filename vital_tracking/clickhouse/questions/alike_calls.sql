-- The calls that a provider's cache of prompts would have read or writes more for, as vital_private.alike_calls finds them among the calls
-- from `alike_from` up to `until`: a beginning that is used within `prefixes_within` microseconds is kept as long again.
select
  id,
  read_tokens,
  least(greatest(kept_tokens - already - read_tokens - writes, 0), plain - read_tokens) as write_tokens
from (
  select
    use.2 as name,
    toUUID(name) as id,
    any(use.4) as writes,
    any(use.5) as already,
    any(use.6) as plain,
    maxIf(use.3, found or found_later) as kept_tokens,
    least(greatest(maxIf(use.3, found) - already, 0), plain) as read_tokens
  from (
    select
      arraySort(groupArray((at, name, tokens, writes, already, plain))) as uses,
      arrayMap(
        (d, place) -> place > 1 and d <= {prefixes_within:Int64},
        arrayDifference(arrayMap(c -> c.1, uses)), arrayEnumerate(uses)
      ) as were_found,
      arrayPushBack(arrayPopFront(were_found), 0) as will_be_found
    from (
      select
        toUnixTimestamp64Micro(t.created_at) as at,
        toString(t.id) as name,
        intDiv(t.prompt_tokens * bitShiftLeft(toInt64(4096), place - 1), assumeNotNull(t.prompt_bytes)) as tokens,
        t.cache_write_tokens as writes,
        t.cache_read_tokens as already,
        t.prompt_tokens - t.cache_read_tokens - t.cache_write_tokens - t.audio_tokens + t.audio_output_tokens as plain,
        sipHash64(ifNull(t.organization_id, ''), ifNull(t.provider, ''), ifNull(t.model, ''), hash) as beginning
      from token_usage_logs as t final
      array join t.prefix_hashes as hash, arrayEnumerate(t.prefix_hashes) as place
      where t.created_at >= {alike_from:DateTime64(6, 'UTC')} and t.created_at < {until:DateTime64(6, 'UTC')}
        and t.calls = 1 and ${billed}
    )
    group by beginning
    having count() > 1
  )
  array join uses as use, were_found as found, will_be_found as found_later
  group by name
  having countIf(found or found_later) > 0
)
where read_tokens > 0 or write_tokens > 0
