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

-- Percentiles of a histogram, or of the sum of several, in milliseconds; NULL where it is empty. Between two ranks it interpolates
-- as percentile_cont does. Empty buckets below the fastest call are skipped, since most buckets are empty.
create function public.latency_percentiles(histogram numeric, fractions double precision[]) returns double precision[]
language plpgsql
immutable
parallel safe
set search_path = ''
as $$
declare
  empty integer := (4812 - min_scale(histogram * 1e-4812)) / 12;
  digits text := trunc(histogram * ('1e-' || 12 * empty)::numeric)::text;
  buckets integer := (length(digits) + 11) / 12;
  counts bigint[];
  passed bigint := 0;
  total bigint := 0;
  fraction double precision;
  rank double precision;
  below integer;
  above integer;
  answer double precision[] := '{}';
begin
  if fractions is null then
    raise exception 'fractions must be given: it is NULL.' using errcode = '22004';
  end if;
  if coalesce(histogram, 0) <= 0 then
    return null;
  end if;
  digits := lpad(digits, 12 * buckets, '0');
  counts := string_to_array(rtrim(regexp_replace(digits, '(.{12})', '\1,', 'g'), ','), ',');
  foreach passed in array counts loop
    total := total + passed;
  end loop;
  foreach fraction in array fractions loop
    if fraction is null or not fraction between 0 and 1 then
      raise exception 'A percentile is asked for by a fraction from 0 to 1, not %.', coalesce(fraction::text, 'NULL')
        using errcode = '22023', hint = 'For the 95th percentile: 0.95.';
    end if;
    rank := fraction * (total - 1);
    below := buckets;
    passed := counts[buckets];
    while passed <= floor(rank) loop
      below := below - 1;
      passed := passed + counts[below];
    end loop;
    above := below;
    while passed <= ceil(rank) loop
      above := above - 1;
      passed := passed + counts[above];
    end loop;
    below := empty + buckets - below;
    above := empty + buckets - above;
    answer := answer || (
      vital_private.latency_of(below) + (vital_private.latency_of(above) - vital_private.latency_of(below)) * (rank - floor(rank))
    );
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

select vital_private.restrict_functions(api => '{latency_percentile, latency_percentiles}', helpers => '{latency_bucket, latency_of}');
