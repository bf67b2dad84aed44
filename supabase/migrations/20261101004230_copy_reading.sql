-- Questions that a copy of the calls answers for what it holds: until when that is, and what whoever asks may see of it.
--
-- A copy holds what transactions before its place have written. So what they wrote last is there, of all calls but those that a later
-- transaction has written, changed or deleted: the copy answers for the time before the first of these, and never for today, whose figures
-- come from here. From then on the calls here are read, so each call is counted once, as it was when it was asked, or later.

-- Until when a copy holds the calls as they are here; NULL: it is not known, not filled, another server's, or too far behind.
create function vital_private.copied_until(copy uuid, since timestamptz) returns timestamptz
language plpgsql
stable
security definer
set search_path = ''
as $$
declare
  reached xid8;
  changed bigint;
  answer timestamptz;
begin
  select p.place into reached
  from vital_private.exports as e
  inner join vital_private.export_places as p on p.copy = e.copy
  where e.copy = copied_until.copy and p.table_name = 'token_usage_logs' and p.loaded and (e.since is null or e.since <= copied_until.since)
    and e.server is not distinct from vital_private.server_id() and p.place <= pg_snapshot_xmax(pg_current_snapshot());
  if reached is null then
    return null;
  end if;
  -- By the index of transactions: a plan by time would read all calls.
  select count(*), least(min(w.at), date_trunc('day', now(), 'UTC')) into changed, answer
  from (
    (select t.created_at as at from public.token_usage_logs as t where t.xact >= reached limit 200001)
    union all
    (select d.at from vital_private.export_deletions as d where d.table_name = 'token_usage_logs' and d.xact >= reached limit 200001)
  ) as w;
  if changed > 200000 or answer < vital_private.rows_kept_since() then
    return null;
  end if;
  return answer;
end;
$$;

-- Which calls whoever asks may see, as the policies of token_usage_logs say: {}: all; {"user", "organizations"}: those of that user and
-- of these organizations; NULL: by other rules, which no copy knows.
create function vital_private.reader_of_calls() returns jsonb
language sql
stable
set search_path = ''
as $$
  select case
    when not row_security_active('public.token_usage_logs') then '{}'::jsonb
    when current_user = 'authenticated' then
      jsonb_build_object('user', vital_private.subject(), 'organizations', vital_private.administered_organizations())
  end
$$;

-- What a copy is asked for calls between two instants, of which there are at least so many: {"since", "until": what it holds, "reader",
-- "starts": when hours or days of a time zone begin, in seconds; NULL: `unit` is, "dropped": whether some are gone here that it may still have}.
-- NULL: nothing.
create function vital_private.ask_copy(copy uuid, since timestamptz, until timestamptz, least_calls bigint, unit text, timezone text) returns json
language plpgsql
stable
set search_path = ''
set timezone = 'UTC'
as $$
declare
  copied_until timestamptz := vital_private.copied_until(copy, since);
  reader constant jsonb := vital_private.reader_of_calls();
begin
  if reader is null or (copied_until > since) is not true then
    return null;
  end if;
  copied_until := least(copied_until, until);
  -- Of few calls the database tells sooner, by its indexes. Who administers nothing sees none of these sums, and has few calls.
  if least_calls > 0 and (
    select coalesce(sum(t.calls), 0) < least_calls
    from public.usage_aggregations_daily_totals as t
    where t.day >= (since at time zone 'UTC')::date and t.day <= (copied_until at time zone 'UTC')::date
  ) then
    return null;
  end if;
  return json_build_object(
    'since', since, 'until', copied_until, 'reader', reader, 'dropped', since < vital_private.rows_kept_since(),
    -- Every zone is some quarters of an hour from UTC. Calls of one hour or day have the same dimensions of time, which need not be known there.
    'starts', case when unit is not null then (
      select json_agg(extract(epoch from s.at)::bigint order by s.at)
      from (
        select since as at
        union
        select q from generate_series(date_trunc('hour', since) + interval '15 minutes', copied_until, interval '15 minutes') as q
        where q > since and date_trunc(unit, q, ask_copy.timezone) = q
      ) as s
    ) end
  );
end;
$$;

-- Filters with lists of texts for values.
create function vital_private.filter_texts(filters jsonb) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select coalesce(jsonb_object_agg(f.key, (
    select jsonb_agg(w.value)
    from jsonb_array_elements_text(case jsonb_typeof(f.value) when 'array' then f.value else jsonb_build_array(f.value) end) as w (value)
  )), '{}')
  from jsonb_each(filters) as f
$$;

-- The histogram of latencies of which a copy tells the buckets, [[bucket, ...], [count, ...]], and, at the edge of two buckets, the latencies
-- themselves, [[milliseconds, ...], [count, ...]]: to which of the two those belong is decided here, where that of all others was.
create function vital_private.histogram_of(buckets jsonb, edges jsonb) returns numeric
language sql
immutable
set search_path = ''
as $$
  select coalesce(sum(counted.calls * ('1e' || 12 * counted.bucket)::numeric), 0)
  from (
    select b.value::integer as bucket, b.calls::numeric as calls
    from rows from (jsonb_array_elements_text(buckets -> 0), jsonb_array_elements_text(buckets -> 1)) as b (value, calls)
    union all
    select vital_private.latency_bucket(e.value::double precision), e.calls::numeric
    from rows from (jsonb_array_elements_text(edges -> 0), jsonb_array_elements_text(edges -> 1)) as e (value, calls)
  ) as counted
$$;

select vital_private.restrict_functions(helpers => '{copied_until, reader_of_calls, ask_copy, filter_texts, histogram_of}');
