-- What was found, and what became of it: findings, rules that act by themselves, and marks of false alarms, which silence their like.

create table public.abuse_findings (
  id bigint generated always as identity primary key,
  pattern text not null references vital_private.abuse_patterns (pattern),
  organization_id text,
  subject_kind text not null,
  subject text not null,
  entity_type text,
  entity_id text,
  severity text not null,
  state text not null default 'open',
  first_seen timestamptz not null,
  last_seen timestamptz not null,
  rows_since timestamptz not null,
  measure text not null,
  minutes integer not null,
  value numeric not null,
  usual numeric,
  threshold numeric not null,
  size numeric not null,
  known_days bigint not null,
  action text,
  action_until timestamptz,
  budget_id bigint,
  with_finding bigint,
  decided_at timestamptz,
  decided_by text,
  reason text,
  constraint abuse_findings_severity check (severity in ('low', 'medium', 'high')),
  constraint abuse_findings_state check (state in ('open', 'acted_on', 'false_alarm')),
  constraint abuse_findings_action check (action in ('watch', 'throttle', 'block')),
  constraint abuse_findings_reason check (length(reason) <= 500),
  constraint abuse_findings_entity check ((entity_type is null) = (entity_id is null))
);

comment on table public.abuse_findings is 'What looked like abuse: which pattern, who, since when, its figures, and what became of it.';
comment on column public.abuse_findings.subject is 'A user, an organization, or the keyed hash of an address or a request; no address and no text.';
comment on column public.abuse_findings.entity_type is 'What an action stands on: user or organization; NULL: nobody whose calls could be stopped.';
comment on column public.abuse_findings.entity_id is 'Which one: of addresses and requests the user who is behind four fifths of it.';
comment on column public.abuse_findings.severity is 'By how often the value is the threshold: low, medium from 2 on, high from 5 on.';
comment on column public.abuse_findings.state is 'open, acted_on or false_alarm.';
comment on column public.abuse_findings.rows_since is 'When the rows behind it begin; they end with last_seen.';
comment on column public.abuse_findings.measure is 'What was counted: calls, cost (US dollars), requests, errors, addresses, day_cost (US dollars).';
comment on column public.abuse_findings.minutes is 'In how many minutes: 5, 60, or 1440 of day_cost.';
comment on column public.abuse_findings.value is 'The most that it came to.';
comment on column public.abuse_findings.usual is 'What is usual in so many minutes at the busiest of a day; NULL: not known.';
comment on column public.abuse_findings.threshold is 'What it had to come to.';
comment on column public.abuse_findings.size is 'The most in five minutes, by which a mark silences its like; of addresses and day_cost the value.';
comment on column public.abuse_findings.known_days is 'Of how many days of its own that is; below 3 it is of others.';
-- No foreign key: whoever removes a budget holds all budgets, and would wait for whoever decides about the finding, who waits for the budgets.
comment on column public.abuse_findings.budget_id is 'The budget that acts; there is none of that id any more once it has ended.';
comment on column public.abuse_findings.with_finding is 'The finding about the same user or organization with which it was decided.';
comment on column public.abuse_findings.decided_by is 'Subject of the token of whoever decided, else the role; rule where a rule did.';

create unique index abuse_findings_open on public.abuse_findings (pattern, subject, organization_id) nulls not distinct where state = 'open';
create index abuse_findings_subject on public.abuse_findings (subject, pattern);
create index abuse_findings_organization on public.abuse_findings (organization_id, last_seen);
create index abuse_findings_entity on public.abuse_findings (entity_id, entity_type);
create index abuse_findings_seen on public.abuse_findings (last_seen);

select vital_private.restrict_relation('public.abuse_findings', readers => '{authenticated, service_role}');

create policy "Organization admins see what was found in their organization" on public.abuse_findings
for select to authenticated
using (organization_id = any((select vital_private.administered_organizations())::text[]));

-- What is no abuse although it looks like it: a pattern of one subject, up to the size at which somebody said so.
create table vital_private.abuse_marks (
  id bigint generated always as identity primary key,
  pattern text not null references vital_private.abuse_patterns (pattern),
  organization_id text,
  subject text not null,
  up_to numeric not null,
  finding_id bigint references public.abuse_findings (id) on delete set null,
  silenced bigint not null default 0,
  last_silenced_at timestamptz,
  marked_at timestamptz not null default now(),
  marked_by text,
  reason text,
  constraint abuse_marks_key unique nulls not distinct (pattern, organization_id, subject)
);

comment on table vital_private.abuse_marks is 'False alarms: a pattern of one subject that is silenced up to a size.';
comment on column vital_private.abuse_marks.silenced is 'In how many scans it was silenced since.';

-- What is done without anybody: findings of a pattern (NULL: of any), from a severity on, in an organization (NULL: in all).
create table vital_private.abuse_rules (
  id bigint generated always as identity primary key,
  organization_id text,
  pattern text references vital_private.abuse_patterns (pattern),
  severity text not null default 'high',
  action text not null,
  lasts interval not null default '1 hour',
  constraint abuse_rules_severity check (severity in ('low', 'medium', 'high')),
  constraint abuse_rules_action check (action in ('watch', 'throttle', 'block')),
  constraint abuse_rules_lasts check (lasts >= interval '1 minute' and lasts <= interval '31 days'),
  constraint abuse_rules_key unique nulls not distinct (organization_id, pattern)
);

comment on table vital_private.abuse_rules is 'What is done with findings by itself, and for how long.';

do $$
declare
  kept text;
begin
  foreach kept in array array['abuse_marks', 'abuse_rules'] loop
    perform vital_private.restrict_relation(format('vital_private.%I', kept)::regclass, readers => '{authenticated, service_role}');
    execute format(
      'create policy "Organization admins see their organization''s" on vital_private.%I for select to authenticated
      using (organization_id = any((select vital_private.administered_organizations())::text[]))', kept
    );
  end loop;
end;
$$;

-- What a subject must come to in five minutes and in an hour to be found, and what is usual: the median of its own days of the four weeks before,
-- else what 19 of 20 days of others come to. Days on which it was found, and nobody called that a false alarm, are no part of it.
create function vital_private.abuse_thresholds(of_pattern vital_private.abuse_patterns, organization text, whose text, today date)
returns table (known_days bigint, usual_short numeric, usual_long numeric, short_threshold numeric, long_threshold numeric)
language sql
stable
set search_path = ''
as $$
  with own as (
    select d.short, d.long
    from vital_private.abuse_days as d
    where d.subject = whose and d.kind = of_pattern.kind and d.measure = of_pattern.measure and d.day < today and d.day >= today - 28
      and d.organization_id is not distinct from organization
      and not exists (
        select from public.abuse_findings as f
        where f.pattern = of_pattern.pattern and f.subject = whose and f.organization_id is not distinct from organization
          and f.state <> 'false_alarm' and d.day between (f.first_seen at time zone 'UTC')::date and (f.last_seen at time zone 'UTC')::date
      )
  ),

  middle as (
    select
      count(*) as days, max(o.short) as most_short, max(o.long) as most_long,
      percentile_cont(0.5) within group (order by ln(o.short::double precision + 0.01)) as log_short,
      percentile_cont(0.5) within group (order by ln(o.long::double precision + 0.01)) as log_long
    from own as o
  ),

  spread as (
    select
      exp(least(6 * 1.4826 * percentile_cont(0.5) within group (order by abs(ln(o.short::double precision + 0.01) - m.log_short)), 5)) as of_short,
      exp(least(6 * 1.4826 * percentile_cont(0.5) within group (order by abs(ln(o.long::double precision + 0.01) - m.log_long)), 5)) as of_long
    from own as o
    cross join middle as m
  ),

  others as (
    select u.short, u.long
    from vital_private.abuse_usual as u
    where u.kind = of_pattern.kind and u.measure = of_pattern.measure and u.days >= 20
      and (u.organization_id is null or u.organization_id = organization)
    order by u.organization_id nulls last
    limit 1
  ),

  expected as (
    select
      m.days, coalesce(m.most_short, 0) as most_short, coalesce(m.most_long, 0) as most_long, s.of_short, s.of_long,
      case when m.days >= 3 then greatest(exp(m.log_short)::numeric - 0.01, 0) else o.short end as usual_short,
      case when m.days >= 3 then greatest(exp(m.log_long)::numeric - 0.01, 0) else o.long end as usual_long
    from middle as m
    left join spread as s on true
    left join others as o on true
  )

  select
    e.days, round(e.usual_short, 4), round(e.usual_long, 4),
    case when of_pattern.short_floor is not null then greatest(
      of_pattern.short_floor * case when e.usual_short is null then of_pattern.alone else 1 end, of_pattern.times * e.usual_short,
      2 * e.most_short, case when e.days >= 3 then least(e.usual_short * e.of_short::numeric, 3 * e.most_short) end
    ) end,
    greatest(
      of_pattern.long_floor * case when e.usual_long is null then of_pattern.alone else 1 end, of_pattern.times * e.usual_long,
      2 * e.most_long, case when e.days >= 3 then least(e.usual_long * e.of_long::numeric, 3 * e.most_long) end
    )
  from expected as e
$$;

-- How bad something is, by how often it is what it had to be.
create function vital_private.severity_of(times numeric) returns text
language sql
immutable
set search_path = ''
as $$
  select case when times >= 5 then 'high' when times >= 2 then 'medium' else 'low' end
$$;

create function vital_private.severity_rank(severity text) returns integer
language sql
immutable
set search_path = ''
as $$
  select array_position('{low, medium, high}', severity)
$$;

-- Whom an action against a finding would stand on: the user or organization itself; of an address or a request the user who is behind four
-- fifths of its last hour. NULL: nobody.
create function vital_private.behind(kind text, organization text, whose text, moment timestamptz) returns text
language sql
stable
set search_path = ''
as $$
  select case
    when kind in ('user', 'organization') then whose
    when kind = 'request' then (
      select u.user_id
      from (
        select c.user_id, count(*) as n, sum(count(*)) over () as whole
        from public.token_usage_logs as c
        where c.created_at >= moment - interval '1 hour' and c.created_at < moment and c.request_hash = whose
          and c.organization_id is not distinct from organization
        group by c.user_id
      ) as u
      where u.user_id is not null and u.n * 5 >= u.whole * 4
    )
    else (
      select u.user_id
      from (
        select e.user_id, count(*) as n, sum(count(*)) over () as whole
        from public.platform_events as e
        where e.occurred_at >= moment - interval '1 hour' and e.occurred_at < moment and e.ip_hash = whose
          and e.organization_id is not distinct from organization
        group by e.user_id
      ) as u
      where u.user_id is not null and u.n * 5 >= u.whole * 4
    )
  end
$$;

-- Tell of a finding the way alerts of budgets are told: `spent` is what was counted, `limit_amount` what it had to be.
create function vital_private.alert_of_abuse(finding public.abuse_findings) returns void
language sql
set search_path = ''
as $$
  insert into public.cost_alerts (
    organization_id, entity_type, entity_id, metric, action, enforce, period, window_starts_at, window_ends_at, threshold, limit_amount,
    spent, pattern, severity
  )
  values (
    finding.organization_id, finding.subject_kind, finding.subject,
    case when finding.measure in ('cost', 'day_cost') then 'cost_usd' else finding.measure end,
    coalesce(finding.action, 'alert'), true,
    case finding.minutes when 5 then '5 minutes' when 60 then 'hour' else 'day' end,
    finding.rows_since, null, round(finding.value / finding.threshold, 4), finding.threshold, finding.value, finding.pattern,
    finding.severity
  )
$$;

create function vital_private.note_abuse(finding public.abuse_findings, operation text, changes jsonb) returns void
language plpgsql
security definer
set search_path = ''
as $$
begin
  perform vital_private.note(
    'abuse_findings', operation, finding.organization_id,
    jsonb_strip_nulls(jsonb_build_object(
      'id', finding.id::text, 'pattern', finding.pattern, 'entity_type', finding.entity_type, 'entity_id', finding.entity_id
    )),
    changes
  );
end;
$$;

-- End what an action has put up: that of another finding, with which this one was decided, goes on.
create function vital_private.end_action(finding bigint) returns void
language sql
set search_path = ''
as $$
  delete from public.budget_limits as b
  using public.abuse_findings as f
  where f.id = finding and f.with_finding is null and b.id = f.budget_id
$$;

-- The findings about whoever is behind one, which are open or were decided with it. Those about which somebody else decides at this moment
-- are left to him: nobody waits for them, since the budgets are held by now.
create function vital_private.lock_findings_beside(known public.abuse_findings) returns setof public.abuse_findings
language sql
set search_path = ''
as $$
  select f.*
  from public.abuse_findings as f
  where f.entity_id = known.entity_id and f.entity_type = known.entity_type and f.organization_id is not distinct from known.organization_id
    and f.id <> known.id and (f.state = 'open' or f.with_finding = known.id)
  order by f.id
  for update skip locked
$$;

-- Decide about the findings beside one as about itself.
create function vital_private.decide_beside(known public.abuse_findings) returns void
language sql
set search_path = ''
as $$
  update public.abuse_findings as f
  set
    state = known.state, action = known.action, action_until = known.action_until, budget_id = known.budget_id, with_finding = known.id,
    decided_at = known.decided_at, decided_by = known.decided_by, reason = known.reason
  from vital_private.lock_findings_beside(known) as beside
  where f.id = beside.id and known.state = 'acted_on'
  returning vital_private.note_abuse(
    beside, 'update',
    jsonb_build_object(
      'state', jsonb_build_array(beside.state, known.state), 'action', jsonb_build_array(beside.action, known.action),
      'until', jsonb_build_array(beside.action_until, known.action_until), 'with_finding', jsonb_build_array(beside.with_finding, known.id)
    )
  )
$$;

-- What was decided with a finding is open again, unless a newer one of its kind is.
create function vital_private.open_beside(known public.abuse_findings) returns void
language sql
set search_path = ''
as $$
  update public.abuse_findings as f
  set
    state = 'open', action = null, action_until = null, budget_id = null, with_finding = null, decided_at = known.decided_at,
    decided_by = known.decided_by, reason = null
  from vital_private.lock_findings_beside(known) as beside
  where f.id = beside.id and f.with_finding = known.id and not exists (
    select from public.abuse_findings as o
    where o.pattern = f.pattern and o.subject = f.subject and o.organization_id is not distinct from f.organization_id
      and o.state = 'open' and o.id <> f.id
  )
  returning vital_private.note_abuse(
    beside, 'update',
    jsonb_build_object('state', jsonb_build_array(beside.state, 'open'), 'action', jsonb_build_array(beside.action, null))
  )
$$;

-- Act on a finding until a moment: a budget of no calls at all on whoever is behind it, which ends by itself. `block` stops every call,
-- `throttle` lets one pass in 30 seconds, `watch` stops none and notes on each call that a block would have stopped it.
create function vital_private.put_up_action(finding bigint, wanted text, until timestamptz, why text, decider text) returns void
language plpgsql
set search_path = ''
as $$
declare
  known public.abuse_findings;
  ends timestamptz := until;
  budget json;
begin
  select f.* into known from public.abuse_findings as f where f.id = finding for update;
  perform vital_private.end_action(finding);
  if known.entity_id is not null then
    -- Budgets of one key are one: where another finding's action ends at the same moment, this one ends a microsecond later.
    while exists (
      select from public.budget_limits as b
      where b.entity_type = known.entity_type and b.entity_id = known.entity_id and b.metric = 'calls' and b.until = ends
    ) loop
      ends := ends + interval '1 microsecond';
    end loop;
    budget := vital_private.set_budget(
      json_build_object(
        'organization_id', case when known.entity_type = 'user' then known.organization_id end,
        'entity_type', known.entity_type, 'entity_id', known.entity_id, 'metric', 'calls', 'daily_limit', '0',
        'action', case wanted when 'throttle' then 'throttle' else 'block' end, 'enforce', wanted <> 'watch',
        'throttle_interval_s', '30', 'alert_thresholds', '{}'::text[], 'until', ends
      )::text
    );
  end if;
  update public.abuse_findings as f
  set
    state = 'acted_on', action = wanted, action_until = ends, budget_id = (budget ->> 'id')::bigint, with_finding = null,
    decided_at = now(), decided_by = decider, reason = left(why, 500)
  where f.id = finding
  returning f.* into known;
  perform vital_private.decide_beside(known);
end;
$$;

-- What a subject came to beside what is usual, at its loudest: in five minutes or in an hour, of day_cost in a day.
create type vital_private.abuse_figures as (
  minutes integer, value numeric, usual numeric, threshold numeric, times numeric, size numeric, known_days bigint
);

-- The figures of somebody loud; NULL where it is no more than may be.
create function vital_private.abuse_figures_of(
  of_pattern vital_private.abuse_patterns, organization text, whose text, short numeric, long numeric, today date
) returns vital_private.abuse_figures
language sql
stable
set search_path = ''
as $$
  select row(c.minutes, c.value, c.usual, c.threshold, c.value / c.threshold, s.size, t.known_days)::vital_private.abuse_figures
  from vital_private.abuse_thresholds(of_pattern, organization, whose, today) as t
  cross join lateral (
    values
      (5, abuse_figures_of.short, t.usual_short, t.short_threshold),
      (case of_pattern.measure when 'day_cost' then 1440 else 60 end, abuse_figures_of.long, t.usual_long, t.long_threshold)
  ) as c (minutes, value, usual, threshold)
  cross join lateral (
    select case when of_pattern.measure in ('addresses', 'day_cost') then abuse_figures_of.long
      else greatest(abuse_figures_of.short, round(abuse_figures_of.long / 12, 6)) end as size
  ) as s
  where c.value >= c.threshold
  order by c.value / c.threshold desc
  limit 1
$$;

-- Take down what somebody was found with: `new`, the finding of it, which is to be met (the same one again where it is worse now);
-- `going_on`, the same one, as long as it is open or an action lasts; or `silenced` by a mark.
create function vital_private.note_finding(
  of_pattern vital_private.abuse_patterns, organization text, whose text, figures vital_private.abuse_figures, moment timestamptz,
  out outcome text, out finding bigint
)
language plpgsql
set search_path = ''
as $$
declare
  how_bad constant text := vital_private.severity_of(figures.times);
  known public.abuse_findings;
  whom text;
begin
  update vital_private.abuse_marks as m
  set silenced = m.silenced + 1, last_silenced_at = moment
  where m.pattern = of_pattern.pattern and m.subject = whose and m.organization_id is not distinct from organization
    and m.up_to >= figures.size;
  if found then
    outcome := 'silenced';
    return;
  end if;
  select f.* into known
  from public.abuse_findings as f
  where f.pattern = of_pattern.pattern and f.subject = whose and f.organization_id is not distinct from organization
    and (f.state = 'open' or (f.state = 'acted_on' and f.action_until > moment))
  order by f.id desc
  limit 1
  for update;
  if found then
    update public.abuse_findings as f
    set
      last_seen = greatest(f.last_seen, moment), size = greatest(f.size, figures.size),
      severity = case when vital_private.severity_rank(how_bad) > vital_private.severity_rank(f.severity) then how_bad else f.severity end,
      minutes = case when figures.times > f.value / f.threshold then figures.minutes else f.minutes end,
      value = case when figures.times > f.value / f.threshold then figures.value else f.value end,
      usual = case when figures.times > f.value / f.threshold then figures.usual else f.usual end,
      threshold = case when figures.times > f.value / f.threshold then figures.threshold else f.threshold end
    where f.id = known.id;
    if vital_private.severity_rank(how_bad) <= vital_private.severity_rank(known.severity) then
      outcome := 'going_on';
      return;
    end if;
  else
    whom := vital_private.behind(of_pattern.kind, organization, whose, moment);
    insert into public.abuse_findings as f (
      pattern, organization_id, subject_kind, subject, entity_type, entity_id, severity, first_seen, last_seen, rows_since, measure,
      minutes, value, usual, threshold, size, known_days
    )
    values (
      of_pattern.pattern, organization, of_pattern.kind, whose,
      case when whom is not null then case of_pattern.kind when 'organization' then 'organization' else 'user' end end, whom, how_bad,
      moment, moment, moment - make_interval(mins => figures.minutes), of_pattern.measure, figures.minutes, figures.value, figures.usual,
      figures.threshold, figures.size, figures.known_days
    )
    returning f.* into known;
  end if;
  outcome := 'new';
  finding := known.id;
end;
$$;

-- Meet a finding: do what the strictest of the rules that are for it says, whoever set it, and tell of it.
create function vital_private.meet_finding(finding bigint) returns void
language plpgsql
set search_path = ''
as $$
declare
  known public.abuse_findings;
  rule vital_private.abuse_rules;
begin
  select f.* into known from public.abuse_findings as f where f.id = finding;
  select r.* into rule
  from vital_private.abuse_rules as r
  where (r.organization_id is null or r.organization_id = known.organization_id) and (r.pattern is null or r.pattern = known.pattern)
    and vital_private.severity_rank(r.severity) <= vital_private.severity_rank(known.severity)
  order by array_position('{block, throttle, watch}', r.action), r.lasts desc
  limit 1;
  if found and known.state = 'open' then
    perform vital_private.put_up_action(known.id, rule.action, clock_timestamp() + rule.lasts, 'A rule did.', 'rule');
    select f.* into known from public.abuse_findings as f where f.id = finding;
  end if;
  perform vital_private.alert_of_abuse(known);
end;
$$;

-- Look for abuse in the hour up to a moment, by default and at the latest now: {"busy"}: somebody else is looking; {"learning"}: the past is
-- still being counted; else how many are new (or worse than before), going on, silenced by marks. It takes as long as the calls and events of
-- an hour do, whatever else there is.
create function public.find_abuse_v1(moment timestamptz default null) returns json
language plpgsql
security definer
set search_path = ''
set statement_timeout = '60s'
set jit = off
as $$
declare
  at_moment constant timestamptz := least(moment, clock_timestamp());
  loud record;
  of_pattern vital_private.abuse_patterns;
  figures vital_private.abuse_figures;
  noted record;
  to_meet bigint[] := '{}';
  met bigint;
  outcomes jsonb := '{"new": 0, "going_on": 0, "silenced": 0}';
  busy constant boolean := not pg_try_advisory_xact_lock(hashtext('vital_tracking.abuse'));
  learning boolean := false;
begin
  if not busy then
    learning := not vital_private.learn_what_is_usual(at_moment);
  end if;
  if not busy and not learning then
    for loud in select l.* from vital_private.loud_at(at_moment) as l loop
      select p.* into of_pattern from vital_private.abuse_patterns as p where p.pattern = loud.pattern;
      figures := vital_private.abuse_figures_of(
        of_pattern, loud.organization_id, loud.subject, loud.short, loud.long, (at_moment at time zone 'UTC')::date
      );
      continue when figures.times is null;
      select n.* into noted
      from vital_private.note_finding(of_pattern, loud.organization_id, loud.subject, figures, at_moment) as n;
      outcomes := outcomes || jsonb_build_object(noted.outcome, (outcomes ->> noted.outcome)::integer + 1);
      if noted.finding is not null then
        to_meet := to_meet || noted.finding;
      end if;
    end loop;
    update vital_private.abuse_state as s set scanned_at = greatest(s.scanned_at, at_moment);
  end if;
  -- Last, because from a change of budgets until the commit whoever records or admits calls has to wait.
  foreach met in array to_meet loop
    perform vital_private.meet_finding(met);
  end loop;
  if not busy and exists (select from public.budget_limits as b where b.until <= now()) then
    delete from public.budget_limits as b where b.until <= now();
  end if;
  return outcomes || jsonb_build_object('busy', busy, 'learning', learning);
end;
$$;

comment on function public.find_abuse_v1(timestamptz) is
'Looks for abuse in the last hour: what it finds is in abuse_findings, and is told as alerts are. Run it every minute or two.';

-- What shows the rows behind a finding, as SQL.
create function vital_private.rows_of_finding(finding public.abuse_findings) returns text
language sql
stable
set search_path = ''
as $$
  select format(
    'select * from %s where %I = %L%s%s and %I >= %L and %I < %L order by %I',
    case when c.of_calls then 'token_usage_logs' else 'platform_events' end, c.named, finding.subject,
    case
      when finding.subject_kind = 'organization' then ''
      when finding.organization_id is null then ' and organization_id is null'
      else format(' and organization_id = %L', finding.organization_id)
    end,
    case when finding.measure = 'errors' and c.of_calls then format(' and status = %L', 'error') else '' end,
    c.at, finding.rows_since, c.at, finding.last_seen, c.at
  )
  from (
    select
      k.of_calls, case when k.of_calls then 'created_at' else 'occurred_at' end as at,
      case finding.subject_kind
        when 'user' then 'user_id' when 'organization' then 'organization_id' when 'address' then 'ip_hash' else 'request_hash'
      end as named
    from (
      select
        finding.measure in ('calls', 'cost', 'day_cost') or (
          finding.measure = 'errors' and finding.subject_kind = 'user' and not exists (
            select from public.platform_events as e
            where e.user_id = finding.subject and e.occurred_at >= finding.rows_since and e.occurred_at < finding.last_seen
          )
        ) as of_calls
    ) as k
  ) as c
$$;

-- What runs against whoever is behind an open finding, put up because of another one, the strictest first; NULL where nothing does.
create function vital_private.action_beside(finding public.abuse_findings) returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object('finding', f.id, 'action', f.action, 'until', f.action_until)
  from public.abuse_findings as f
  join public.budget_limits as b on b.id = f.budget_id
  where finding.state = 'open' and f.entity_id = finding.entity_id and f.entity_type = finding.entity_type
    and f.organization_id is not distinct from finding.organization_id and f.action_until > now()
  order by array_position('{block, throttle, watch}', f.action), f.action_until desc, f.with_finding is not null, f.id
  limit 1
$$;

create function vital_private.finding_json(finding public.abuse_findings) returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'id', finding.id, 'pattern', finding.pattern, 'about', p.about, 'organization_id', finding.organization_id,
    'subject_kind', finding.subject_kind, 'subject', finding.subject, 'entity_type', finding.entity_type,
    'entity_id', finding.entity_id, 'severity', finding.severity, 'state', finding.state, 'first_seen', finding.first_seen,
    'last_seen', finding.last_seen, 'rows_since', finding.rows_since, 'measure', finding.measure, 'minutes', finding.minutes
  ) || jsonb_build_object(
    'value', finding.value::text, 'usual', finding.usual::text, 'threshold', finding.threshold::text, 'known_days', finding.known_days,
    'action', finding.action, 'action_until', finding.action_until,
    'acting', finding.action_until > now() and exists (select from public.budget_limits as b where b.id = finding.budget_id),
    'with_finding', finding.with_finding, 'beside', vital_private.action_beside(finding), 'decided_at', finding.decided_at,
    'decided_by', finding.decided_by, 'reason', finding.reason, 'query', vital_private.rows_of_finding(finding)
  )
  from vital_private.abuse_patterns as p
  where p.pattern = finding.pattern
$$;

-- Findings that the caller may see, the newest first, below an id: of an organization, in a state, seen since a moment, or the one of an id.
create function public.abuse_findings_v1(
  organization text default null,
  state text default null,
  since timestamptz default null,
  before_id bigint default null,
  max_rows integer default 100,
  id bigint default null
) returns json
language plpgsql
stable
set search_path = ''
set statement_timeout = '8s'
as $$
begin
  perform vital_private.check_times(since, null);
  if state not in ('open', 'acted_on', 'false_alarm') then
    raise exception 'state is open, acted_on or false_alarm.' using errcode = '22023';
  end if;
  return (
    select coalesce(json_agg(vital_private.finding_json(n) order by n.id desc), '[]')
    from (
      select f.*
      from public.abuse_findings as f
      where (abuse_findings_v1.organization is null or f.organization_id = abuse_findings_v1.organization)
        and (abuse_findings_v1.state is null or f.state = abuse_findings_v1.state)
        and (abuse_findings_v1.since is null or f.last_seen >= abuse_findings_v1.since)
        and (abuse_findings_v1.before_id is null or f.id < abuse_findings_v1.before_id)
        and (abuse_findings_v1.id is null or f.id = abuse_findings_v1.id)
      order by f.id desc
      limit least(greatest(coalesce(max_rows, 100), 1), 1000)
    ) as n
  );
end;
$$;

-- By what abuse is found, and what is done about it: {"patterns", "marks", "rules"}; numbers are text, durations seconds.
create function public.abuse_settings_v1(organization text default null) returns json
language sql
stable
set search_path = ''
as $$
  select json_build_object(
    'patterns', (
      select coalesce(json_agg(json_build_object(
        'pattern', p.pattern, 'about', p.about, 'kind', p.kind, 'measure', p.measure, 'short_floor', p.short_floor::text,
        'long_floor', p.long_floor::text, 'times', p.times::text, 'alone', p.alone::text, 'reason', p.reason
      ) order by p.position), '[]')
      from vital_private.abuse_patterns as p
    ),
    'marks', (
      select coalesce(json_agg(json_build_object(
        'id', m.id, 'pattern', m.pattern, 'organization_id', m.organization_id, 'subject', m.subject, 'up_to', m.up_to::text,
        'finding_id', m.finding_id, 'silenced', m.silenced, 'last_silenced_at', m.last_silenced_at, 'marked_at', m.marked_at,
        'marked_by', m.marked_by, 'reason', m.reason
      ) order by m.id desc), '[]')
      from vital_private.abuse_marks as m
      where abuse_settings_v1.organization is null or m.organization_id = abuse_settings_v1.organization
    ),
    'rules', (
      select coalesce(json_agg(json_build_object(
        'id', r.id, 'organization_id', r.organization_id, 'pattern', r.pattern, 'severity', r.severity, 'action', r.action,
        'lasts_s', extract(epoch from r.lasts)::bigint
      ) order by r.id), '[]')
      from vital_private.abuse_rules as r
      where abuse_settings_v1.organization is null or r.organization_id = abuse_settings_v1.organization
    )
  )
$$;

select vital_private.restrict_functions(
  api => '{find_abuse_v1, abuse_findings_v1, abuse_settings_v1}', helpers => '{rows_of_finding, finding_json, action_beside}'
);
