-- When saved reports are sent, and to which channel. A channel is a name: where it leads is a secret of the machine that sends
-- (VITAL_REPORT_CHANNELS), and never in the database. So the operators decide what is sent where, and the owner of a report sees it.
--
-- A report is what its owner may see: it is asked for with his rights, by ask_for_report_v1. What is due is claimed by one process, which
-- settles it once it was sent; what could not be sent is due again after a pause.

create table public.report_schedules (
  report_id bigint primary key references public.saved_reports (id) on delete cascade,
  every text not null,
  weekday smallint,
  day smallint,
  hour smallint not null,
  timezone text not null,
  channel text not null,
  due_at timestamptz not null,
  claimed_by text,
  claimed_until timestamptz,
  taken integer[] not null default '{}',
  failures integer not null default 0,
  problem text,
  sent_at timestamptz,
  constraint report_schedules_every check (every in ('day', 'week', 'month')),
  constraint report_schedules_weekday check ((every = 'week') = (weekday is not null) and coalesce(weekday, 1) between 1 and 7),
  constraint report_schedules_day check ((every = 'month') = (day is not null) and coalesce(day, 1) between 1 and 31),
  constraint report_schedules_hour check (hour between 0 and 23),
  constraint report_schedules_channel check (channel ~ '^[a-z][a-z0-9_-]{0,39}$')
);

comment on table public.report_schedules is 'When saved reports are sent, and to which channel. Written by schedule_report_v1.';
comment on column public.report_schedules.weekday is 'Of weekly ones: 1 is Monday, 7 is Sunday.';
comment on column public.report_schedules.day is 'Of monthly ones: the day of the month; in a shorter month its last day.';
comment on column public.report_schedules.channel is 'The name of a channel of the machine that sends. No address and no password.';
comment on column public.report_schedules.due_at is 'The moment that is sent next, or being sent.';
comment on column public.report_schedules.claimed_until is 'Nobody else sends it before: while it is being sent, and in the pause after a failure.';
comment on column public.report_schedules.taken is 'Which of the channel''s addresses, by their place, have taken what is due.';
comment on column public.report_schedules.problem is 'Why it could not be sent last time: the class of an error or a status of HTTP.';

create index report_schedules_due on public.report_schedules (due_at);

select vital_private.restrict_relation('public.report_schedules', readers => '{authenticated, service_role}');

create policy "Users see when their reports are sent" on public.report_schedules
for select to authenticated
using (report_id in (select s.id from public.saved_reports as s where s.owner = (select auth.jwt()) ->> 'sub'));

-- What was decided is audited; that a report was sent is not.
create trigger report_schedules_audit
after insert or delete or update of every, weekday, day, hour, timezone, channel on public.report_schedules
for each row execute function vital_private.audit_change('report_id', '');

create trigger report_schedules_audit_truncate
after truncate on public.report_schedules
for each statement execute function vital_private.audit_truncate();

-- The moments of a schedule around an instant, by the clocks of its zone: an hour that a day skips is the next one.
create function vital_private.report_moments(schedule public.report_schedules, around timestamptz) returns setof timestamptz
language sql
stable
set search_path = ''
as $$
  select (d.day + make_interval(hours => schedule.hour)) at time zone schedule.timezone
  from generate_series(
    date_trunc('day', around at time zone schedule.timezone) - interval '63 days',
    date_trunc('day', around at time zone schedule.timezone) + interval '63 days', interval '1 day'
  ) as d (day)
  where case schedule.every
    when 'day' then true
    when 'week' then extract(isodow from d.day) = schedule.weekday
    else extract(day from d.day) = least(schedule.day, extract(day from date_trunc('month', d.day) + interval '1 month - 1 day'))
  end
$$;

-- Send a report of anybody's to a channel from now on: every day, week or month at an hour of a time zone. One schedule a report.
create function public.schedule_report_v1(
  report bigint,
  channel text,
  every text default 'week',
  weekday integer default 1,
  day integer default 1,
  hour integer default 8,
  timezone text default 'UTC'
) returns json
language plpgsql
security definer
set search_path = ''
as $$
declare
  wanted public.report_schedules;
begin
  perform vital_private.check_given('report', report::text);
  perform vital_private.check_given('channel', channel);
  every := coalesce(every, 'week');
  timezone := coalesce(timezone, 'UTC');
  if every not in ('day', 'week', 'month') then
    raise exception 'every: a report is sent every day, week or month.' using errcode = '22023';
  end if;
  if channel !~ '^[a-z][a-z0-9_-]{0,39}$' then
    raise exception 'channel: name one of the machine that sends, such as alerts; an address is no name.' using errcode = '22023';
  end if;
  if coalesce(weekday, 1) not between 1 and 7 or coalesce(day, 1) not between 1 and 31 or coalesce(hour, 8) not between 0 and 23 then
    raise exception 'weekday, day, hour: give 1 (Monday) to 7, 1 to 31, and 0 to 23.' using errcode = '22023';
  end if;
  if not exists (select from pg_catalog.pg_timezone_names as z where z.name = schedule_report_v1.timezone) then
    raise exception 'timezone: use an IANA name such as Europe/Berlin.' using errcode = '22023';
  end if;
  if not exists (select from public.saved_reports as s where s.id = report) then
    raise exception 'report: there is none of that id.' using errcode = '22023';
  end if;
  wanted.report_id := report;
  wanted.every := every;
  wanted.weekday := case every when 'week' then coalesce(weekday, 1) end;
  wanted.day := case every when 'month' then coalesce(day, 1) end;
  wanted.hour := coalesce(hour, 8);
  wanted.timezone := timezone;
  wanted.channel := channel;
  wanted.due_at := (select min(m) from vital_private.report_moments(wanted, now()) as m where m > now());
  insert into public.report_schedules as s (report_id, every, weekday, day, hour, timezone, channel, due_at)
  values (
    wanted.report_id, wanted.every, wanted.weekday, wanted.day, wanted.hour, wanted.timezone, wanted.channel, wanted.due_at
  )
  on conflict (report_id) do update set
    every = excluded.every, weekday = excluded.weekday, day = excluded.day, hour = excluded.hour, timezone = excluded.timezone,
    channel = excluded.channel, due_at = excluded.due_at, claimed_by = null, claimed_until = null, taken = '{}', failures = 0, problem = null;
  return json_build_object('due_at', wanted.due_at);
end;
$$;

-- Send a report no more; false where it was not sent.
create function public.unschedule_report_v1(report bigint) returns boolean
language sql
security definer
set search_path = ''
as $$
  select vital_private.check_given('report', report::text);
  with removed as (
    delete from public.report_schedules as s where s.report_id = unschedule_report_v1.report returning s.report_id
  )

  select exists (select from removed)
$$;

-- The reports that the caller saved, by name, with when they are sent: [{"id", "owner", "name", "asked", "changed_at", "schedule"}]; of
-- `everybody`, for operators: those of all owners that the caller may see.
create function public.saved_reports_v1(everybody boolean default false) returns json
language sql
stable
set search_path = ''
as $$
  select coalesce(
    json_agg(
      json_build_object(
        'id', s.id, 'owner', s.owner, 'name', s.name, 'asked', s.asked, 'changed_at', s.changed_at,
        'schedule', case when c.report_id is not null then json_build_object(
          'every', c.every, 'weekday', c.weekday, 'day', c.day, 'hour', c.hour, 'timezone', c.timezone, 'channel', c.channel,
          'due_at', c.due_at, 'sent_at', c.sent_at, 'failures', c.failures, 'problem', c.problem
        ) end
      )
      order by s.owner nulls first, s.name
    ), '[]'
  )
  from public.saved_reports as s
  left join public.report_schedules as c on c.report_id = s.id
  where coalesce(everybody, false) or s.owner is not distinct from vital_private.owner_of_reports()
$$;

-- Claim the report that is due longest, or a certain one if it is due, in order to send it, for a quarter of an hour; of `channels`, a JSON
-- array, only what goes to these. NULL: none is due. Where several moments were missed, the last of them is due: older ones tell
-- nobody anything new.
create function public.claim_report_v1(holder text, report bigint default null, channels text default null) returns json
language plpgsql
security definer
set search_path = ''
as $$
declare
  due public.report_schedules;
  moment timestamptz;
  answer json;
begin
  perform vital_private.check_given('holder', holder);
  select s.* into due
  from public.report_schedules as s
  where s.due_at <= now() and coalesce(s.claimed_until, '-infinity') < now()
    and (claim_report_v1.report is null or s.report_id = claim_report_v1.report)
    and (channels is null or s.channel in (select c.value from json_array_elements_text(channels::json) as c (value)))
  order by s.due_at, s.report_id
  limit 1
  for update skip locked;
  if due.report_id is null then
    return null;
  end if;
  moment := (select max(m) from vital_private.report_moments(due, now()) as m where m <= now());
  update public.report_schedules as s
  set claimed_by = holder, claimed_until = now() + interval '15 minutes', due_at = greatest(s.due_at, moment),
    taken = case when moment > s.due_at then '{}' else s.taken end
  where s.report_id = due.report_id
  returning json_build_object(
    'id', s.report_id, 'channel', s.channel, 'due_at', s.due_at, 'sent_at', s.sent_at, 'timezone', s.timezone,
    'every', s.every, 'taken', s.taken,
    'owner', (select r.owner from public.saved_reports as r where r.id = s.report_id),
    'name', (select r.name from public.saved_reports as r where r.id = s.report_id),
    'asked', (select r.asked from public.saved_reports as r where r.id = s.report_id)
  ) into answer;
  return answer;
end;
$$;

-- Say what became of a report that `holder` had claimed: sent, and so due again at its next moment; or not, by which of the channel's
-- addresses it was taken all the same (a JSON array of their places), and why. What was not sent is due again after a pause of 5 minutes,
-- which doubles up to two hours. False where somebody else has it by now, or nobody.
create function public.settle_report_v1(
  report bigint, holder text, delivered boolean, taken text default '[]', problem text default null
) returns boolean
language plpgsql
security definer
set search_path = ''
as $$
begin
  perform vital_private.check_given('report', report::text);
  perform vital_private.check_given('holder', holder);
  perform vital_private.check_given('delivered', delivered::text);
  if delivered then
    update public.report_schedules as s
    set claimed_by = null, claimed_until = null, taken = '{}', failures = 0, problem = null, sent_at = now(),
      due_at = (select min(m) from vital_private.report_moments(s, now()) as m where m > now())
    where s.report_id = report and s.claimed_by = holder;
  else
    update public.report_schedules as s
    set claimed_by = null, claimed_until = now() + interval '5 minutes' * least(power(2, s.failures), 24), failures = s.failures + 1,
      taken = array(select t.value::integer from json_array_elements_text(coalesce(settle_report_v1.taken, '[]')::json) as t (value)),
      problem = left(settle_report_v1.problem, 200)
    where s.report_id = report and s.claimed_by = holder;
  end if;
  return found;
end;
$$;

-- What a function that signed-in users may call answers to the owner of a report, under the policies that hold for him; to the operators'
-- reports it answers as to the service role. It must change nothing. `arguments` are its own, as JSON by their names.
--
-- It runs with the rights of its caller, since no function with its owner's may take on a role; so it is granted by hand, below, to the
-- service role alone: for a signed-in user it would be a way to be somebody else.
create function public.ask_for_report_v1(report bigint, asks text, arguments text default '{}') returns json
language plpgsql
set search_path = ''
as $$
declare
  whose text;
  before_role constant text := current_setting('role');
  before_claims constant text := coalesce(current_setting('request.jwt.claims', true), '');
  before_claim constant text := coalesce(current_setting('request.jwt.claim.sub', true), '');
  given constant jsonb := coalesce(arguments, '{}')::jsonb;
  chosen oid;
  columns text;
  named text;
  answer json;
begin
  perform vital_private.check_given('report', report::text);
  perform vital_private.check_given('asks', asks);
  select s.owner into whose from public.saved_reports as s where s.id = report;
  if not found then
    raise exception 'report: there is none of that id.' using errcode = '22023';
  end if;
  select p.oid into chosen
  from pg_catalog.pg_proc as p
  where p.pronamespace = 'public'::regnamespace and p.proname = asks and p.prokind = 'f' and not p.proretset
    and not p.prosecdef and p.provolatile <> 'v' and has_function_privilege('authenticated', p.oid, 'execute');
  if chosen is null then
    raise exception 'asks: % is no function that signed-in users may call and that changes nothing.', quote_literal(asks) using errcode = '22023';
  end if;
  select
    string_agg(format('%1$I => a.%1$I', n.name), ', '),
    string_agg(format('%I %s', n.name, format_type(p.proargtypes[n.place - 1], null)), ', ')
  into named, columns
  from pg_catalog.pg_proc as p
  cross join unnest(p.proargnames) with ordinality as n (name, place)
  where p.oid = chosen and n.place <= p.pronargs and given ? n.name;
  if whose is not null then
    -- The older of Supabase's two ways to tell the subject comes first in auth.uid().
    perform set_config('request.jwt.claim.sub', '', true);
    perform set_config('request.jwt.claims', json_build_object('sub', whose, 'role', 'authenticated')::text, true);
    perform set_config('role', 'authenticated', true);
  end if;
  execute format(
    'select to_json(public.%I(%s))%s', asks, coalesce(named, ''), coalesce(' from json_to_record($1) as a (' || columns || ')', '')
  ) into answer using given::json;
  if whose is not null then
    perform set_config('role', before_role, true);
    perform set_config('request.jwt.claims', before_claims, true);
    perform set_config('request.jwt.claim.sub', before_claim, true);
  end if;
  return answer;
end;
$$;

select vital_private.restrict_functions(
  api => '{schedule_report_v1, unschedule_report_v1, saved_reports_v1, claim_report_v1, settle_report_v1, ask_for_report_v1}'
);
revoke execute on function public.ask_for_report_v1(bigint, text, text) from authenticated;
