-- The ids of the calls that an exact cache would have answered which keeps an answer for `repeated_within` microseconds, as
-- vital_private.cache_written_at finds them among the calls from `repeated_from` up to `until`: those from `since` on.
--
-- Each part is so long that the cache writes at most once in it, so the state is passed on from part to part and not from call to call:
-- of each part it is known when the answer at hand was written before it, and the call in it, if any, that writes the next one.
select
  arrayJoin(arrayFlatten(arrayMap(
    (part, w) -> arrayMap(
      c -> toUUID(c.2),
      arrayFilter(c -> c.1 >= {since_us:Int64} and c.1 >= w.1 and not (c.1 >= w.2 and c.1 < w.3), part)
    ),
    parts, written
  ))) as id
from (
  select
    arraySort(groupArray((at, name, ended))) as same, -- ids are in the order of their text, as in PostgreSQL
    arraySplit((c, d) -> d <> 0, same, arrayDifference(arrayMap(c -> intDiv(c.1, {repeated_within:Int64}), same))) as parts,
    arrayFold(
      (done, part) -> (
        if(
          arrayExists(c -> c.1 >= done.1 + {repeated_within:Int64}, part),
          arrayFirst(c -> c.1 >= done.1 + {repeated_within:Int64}, part).3, done.1
        ),
        arrayPushBack(done.2, (
          done.1,
          arrayFirst(c -> c.1 >= done.1 + {repeated_within:Int64}, part).1,
          arrayFirst(c -> c.1 >= done.1 + {repeated_within:Int64}, part).3
        ))
      ),
      parts,
      (0 - {repeated_within:Int64}, arrayPopBack([(toInt64(0), toInt64(0), toInt64(0))]))
    ).2 as written
  from (
    select
      toUnixTimestamp64Micro(t.created_at) as at,
      toString(t.id) as name,
      at + toInt64(roundBankers(least(greatest(ifNull(t.latency_ms, 0), 0.001), 1e15) * 1000)) as ended,
      sipHash64(ifNull(t.organization_id, ''), ifNull(t.service_type, ''), ifNull(t.agent_id, ''), t.request_hash) as asked
    from token_usage_logs as t final
    where t.created_at >= {repeated_from:DateTime64(6, 'UTC')} and t.created_at < {until:DateTime64(6, 'UTC')}
      and t.request_hash is not null and t.status = 'ok' and t.calls = 1 and ${billed}
  )
  group by asked
  having count() > 1 and max(at) >= {since_us:Int64}
)
