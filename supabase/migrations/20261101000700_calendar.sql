-- Days and months in a time zone. Which window of a budget a moment is in follows from the database's clock and the budget's zone
-- alone, so nothing has to be reset when a day ends.

-- The first instant of a local day. Where clocks jump forward over midnight it is the instant of the jump; where midnight comes
-- twice, the first of the two.
create function vital_private.local_midnight(day timestamp, zone text) returns timestamptz
language plpgsql
stable
set search_path = ''
as $$
declare
  last_one constant timestamptz := day at time zone zone;
  day_before constant timestamptz := last_one - interval '24 hours';
  -- Midnight by the clock of the day before.
  first_one constant timestamptz := (day - ((day_before at time zone zone) - (day_before at time zone 'UTC'))) at time zone 'UTC';
begin
  if first_one < last_one and first_one at time zone zone = day then
    return first_one;
  end if;
  return last_one;
end;
$$;

-- The local day of a moment. Where clocks go back over midnight, the new day has begun already and goes on.
create function vital_private.local_day(moment timestamptz, zone text) returns timestamp
language plpgsql
stable
set search_path = ''
as $$
declare
  today constant timestamp := date_trunc('day', moment at time zone zone);
begin
  if vital_private.local_midnight(today + interval '1 day', zone) <= moment then
    return today + interval '1 day';
  end if;
  return today;
end;
$$;

-- The first day of the month that a local day is in, where months begin on a day of their own: on the 31st is on the last one of a shorter
-- month. `months` later than that with them.
create function vital_private.month_start(day timestamp, reset_day integer, months integer default 0) returns timestamp
language plpgsql
immutable
set search_path = ''
as $$
declare
  first_day timestamp := date_trunc('month', day);
begin
  if reset_day <> 1 and day < least(first_day + (reset_day - 1) * interval '1 day', first_day + interval '1 month -1 day') then
    first_day := first_day - interval '1 month';
  end if;
  first_day := first_day + months * interval '1 month';
  return least(first_day + (reset_day - 1) * interval '1 day', first_day + interval '1 month -1 day');
end;
$$;

-- When the window of a moment starts. The period `total` starts at `since`; a month begins on its day of the reset.
create function vital_private.window_start(
  period text, moment timestamptz, zone text, since timestamptz, reset_day integer default 1
) returns timestamptz
language plpgsql
stable
set search_path = ''
as $$
begin
  return case period
    when 'minute' then date_trunc('minute', moment, 'UTC')
    when 'day' then vital_private.local_midnight(vital_private.local_day(moment, zone), zone)
    when 'month' then vital_private.local_midnight(vital_private.month_start(vital_private.local_day(moment, zone), reset_day), zone)
    when 'total' then since
  end;
end;
$$;

-- The first instant after the window of a moment. The period `total` never ends: NULL.
create function vital_private.window_end(period text, moment timestamptz, zone text, reset_day integer default 1)
returns timestamptz
language plpgsql
stable
set search_path = ''
as $$
begin
  return case period
    when 'minute' then date_trunc('minute', moment, 'UTC') + interval '1 minute'
    when 'day' then vital_private.local_midnight(vital_private.local_day(moment, zone) + interval '1 day', zone)
    when 'month' then
      vital_private.local_midnight(vital_private.month_start(vital_private.local_day(moment, zone), reset_day, 1), zone)
  end;
end;
$$;

-- The first of so many days (UTC), the last of which is today.
create function vital_private.first_of_days(days integer) returns date
language plpgsql
stable
set search_path = ''
as $$
begin
  if days is null or days not between 1 and 3660 then
    raise exception 'days must be a number from 1 to 3660.' using errcode = '22023', hint = 'For the last week, today included: 7.';
  end if;
  return (now() at time zone 'UTC')::date - days + 1;
end;
$$;

-- Refuse a time that ends before it begins. NULL is no time to refuse: what it stands for is the caller's to say.
create function vital_private.check_times(since timestamptz, until timestamptz) returns void
language plpgsql
immutable
set search_path = ''
as $$
begin
  if until < since then
    raise exception 'The time ends before it begins: from % until %.', since, until
      using errcode = '22023', hint = 'Name the earlier instant first.';
  end if;
end;
$$;

-- How many rows somebody asks for: `usual` where they do not say.
create function vital_private.rows_wanted(max_rows integer, usual integer) returns integer
language plpgsql
immutable
set search_path = ''
as $$
begin
  if max_rows < 0 then
    raise exception 'The number of rows must be 0 or more.' using errcode = '22023', hint = format('The usual number is %s.', usual);
  end if;
  return coalesce(max_rows, usual);
end;
$$;

select vital_private.restrict_functions(
  helpers => '{check_times, rows_wanted, local_midnight, local_day, month_start, window_start, window_end, first_of_days}'
);
