-- Latencies as histograms that can be added up, so that percentiles of any time and any group come from sums alone.
--
-- Bucket n counts latencies above 1.1^(n - 101) and up to 1.1^(n - 100) ms. A latency that is read as the middle of its bucket is
-- wrong by at most (1.1 - 1) / (1.1 + 1) = 4.8 %. All counts of a histogram are kept in one number, twelve digits each, so that adding two
-- numbers adds all their counts (docs/decisions/0024).

-- The bucket of a latency. (No SET clause, so that PostgreSQL may inline it: it runs for every call recorded.)
create function vital_private.latency_bucket(latency_ms double precision) returns integer
language sql
immutable
parallel safe
return case when latency_ms <= 7.25e-5 then 0 else least(ceil(ln(latency_ms) / ln(1.1::double precision))::integer + 100, 400) end;

-- The middle of a bucket in milliseconds: in percent, as far from its lower end as from its upper one.
create function vital_private.latency_of(bucket integer) returns double precision
language sql
immutable
parallel safe
return power(1.1::double precision, bucket - 100) * 2 / 2.1;

-- One of the counts in a row of digits of base 10,000, each two bytes: three digits make a count.
create function vital_private.count_at(digits bytea, place integer) returns bigint
language sql
immutable
parallel safe
return (
  (get_byte(digits, 6 * place)::bigint * 256 + get_byte(digits, 6 * place + 1)) * 10000
  + get_byte(digits, 6 * place + 2) * 256 + get_byte(digits, 6 * place + 3)
) * 10000 + get_byte(digits, 6 * place + 4) * 256 + get_byte(digits, 6 * place + 5);

-- Percentiles of a histogram, or of the sum of several, in milliseconds; NULL where it is empty. Between two ranks it interpolates
-- as percentile_cont does. It reads the number as PostgreSQL sends it: how many digits of base 10,000 there are, the place of the first one,
-- and, without the zeros at both ends, the digits. Counts are passed from that of the slowest calls on until all ranks are found.
create function public.latency_percentiles(histogram numeric, fractions double precision[]) returns double precision[]
language plpgsql
immutable
parallel safe
set search_path = ''
as $$
declare
  sent constant bytea := numeric_send(trunc(histogram));
  first_digit constant integer := get_byte(sent, 2) * 256 + get_byte(sent, 3);
  last_digit constant integer := first_digit + 1 - get_byte(sent, 0) * 256 - get_byte(sent, 1);
  -- With zeros that make its first and its last count whole.
  digits constant bytea := substr('\x00000000'::bytea, 1, 4 - 2 * (first_digit % 3)) || substr(sent, 9) || '\x00000000'::bytea;
  slowest constant integer := first_digit / 3;
  total bigint;
  place integer := -1;
  count bigint := 0;
  passed bigint := 0; -- calls in the buckets from the slowest to that of `place`
  rank double precision;
  wanted bigint; -- a rank counted from the slowest call
  above integer;
  answer double precision[] := '{}';
begin
  if fractions is null then
    raise exception 'fractions must be given: it is NULL.' using errcode = '22004';
  end if;
  if coalesce(histogram, 0) <= 0 then
    return null;
  end if;
  -- 10^12 leaves 1 when divided by 10^12 - 1, so what the number leaves is the sum of its counts (of fewer calls than that).
  total := mod(trunc(histogram * ('1e-' || 12 * (last_digit / 3))::numeric), 999999999999);
  -- The ranks are found fastest from the highest fraction on, which mostly stands last.
  for number in reverse cardinality(fractions)..1 loop
    if fractions[number] is null or not fractions[number] between 0 and 1 then
      raise exception 'A percentile is asked for by a fraction from 0 to 1, not %.', coalesce(fractions[number]::text, 'NULL')
        using errcode = '22023', hint = 'For the 95th percentile: 0.95.';
    end if;
    rank := fractions[number] * (total - 1);
    wanted := total - 1 - ceil(rank)::bigint;
    if wanted < passed - count then
      place := -1;
      passed := 0;
    end if;
    while passed <= wanted loop
      place := place + 1;
      count := vital_private.count_at(digits, place);
      passed := passed + count;
    end loop;
    above := slowest - place;
    wanted := total - 1 - floor(rank)::bigint;
    while passed <= wanted loop
      place := place + 1;
      count := vital_private.count_at(digits, place);
      passed := passed + count;
    end loop;
    answer[number] := vital_private.latency_of(slowest - place)
      + (vital_private.latency_of(above) - vital_private.latency_of(slowest - place)) * (rank - floor(rank));
  end loop;
  return answer;
end;
$$;

create function public.latency_percentile(histogram numeric, fraction double precision) returns double precision
language sql
immutable
parallel safe
set search_path = ''
as $$
  select (public.latency_percentiles(histogram, array[fraction]))[1]
$$;

comment on function public.latency_percentile(numeric, double precision) is
'A percentile in milliseconds of a latency_histogram or of the sum of several: latency_percentile(sum(latency_histogram), 0.95).';

select vital_private.restrict_functions(api => '{latency_percentile, latency_percentiles}', helpers => '{latency_bucket, latency_of, count_at}');
