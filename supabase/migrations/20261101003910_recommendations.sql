-- Advice and what became of it: each recommendation with its saving as a range, whether it was taken or dismissed, and what it really saved.
-- The same advice has the same id whenever it is given, so what was decided about it stays.
--
-- All text is made by the package, but for the reason that an admin gives. So only the service role saves; whether somebody may have advice
-- renewed is asked first (may_renew_advice_v1).

create table public.recommendations (
  id text primary key,
  organization_id text,
  type text not null,
  subject jsonb not null,
  current text not null,
  recommended text not null,
  impact text not null,
  since timestamptz not null,
  until timestamptz not null,
  calls bigint not null,
  evidence jsonb not null,
  saving_low numeric not null,
  saving_expected numeric not null,
  saving_high numeric not null,
  sequential_low numeric not null,
  sequential_expected numeric not null,
  sequential_high numeric not null,
  counted boolean not null,
  revenue numeric,
  confidence text not null,
  effort text not null,
  priority text not null,
  risk text not null,
  how_to_try text not null,
  command text,
  assumptions jsonb not null,
  changes jsonb not null,
  first_seen timestamptz not null default now(),
  last_seen timestamptz not null default now(),
  still_given boolean not null default true,
  status text not null default 'open',
  decided_by text,
  decided_at timestamptz,
  reason text,
  promised_low numeric,
  promised_expected numeric,
  promised_high numeric,
  measured_saving numeric,
  measured_at timestamptz,
  measured_note text,
  constraint recommendations_id check (id ~ '^[0-9a-f]{16}$'),
  constraint recommendations_subject check (jsonb_typeof(subject) = 'object' and octet_length(subject::text) <= 4096),
  constraint recommendations_evidence check (jsonb_typeof(evidence) = 'object' and octet_length(evidence::text) <= 4096),
  constraint recommendations_assumptions check (jsonb_typeof(assumptions) = 'array' and octet_length(assumptions::text) <= 16384),
  constraint recommendations_changes check (jsonb_typeof(changes) = 'array' and octet_length(changes::text) <= 65536),
  constraint recommendations_texts check (
    greatest(length(current), length(recommended), length(impact), length(risk), length(how_to_try), length(command)) <= 4000
  ),
  constraint recommendations_window check (since < until),
  constraint recommendations_calls check (calls >= 0),
  constraint recommendations_saving check (
    saving_low <= saving_expected and saving_expected <= saving_high and saving_high < 'Infinity' and saving_low > '-Infinity'
  ),
  constraint recommendations_sequential check (
    sequential_low <= sequential_expected and sequential_expected <= sequential_high and sequential_high < 'Infinity'
    and sequential_low > '-Infinity'
  ),
  constraint recommendations_levels check (
    confidence in ('low', 'medium', 'high') and effort in ('low', 'medium', 'high') and priority in ('low', 'medium', 'high')
  ),
  constraint recommendations_status check (status in ('open', 'taken', 'dismissed')),
  constraint recommendations_decided check ((status = 'open') = (decided_at is null)),
  constraint recommendations_promised check ((status = 'taken') = (promised_expected is not null)),
  constraint recommendations_reason check (length(reason) <= 500),
  constraint recommendations_measured check (measured_at is null or status = 'taken')
);

comment on table public.recommendations is 'Advice: what would save money, which calls it rests on, what was decided, and what it really saved.';
comment on column public.recommendations.id is 'The same for the same advice, whenever it is given.';
comment on column public.recommendations.organization_id is 'Whose calls it rests on; NULL: those of all organizations together.';
comment on column public.recommendations.type is 'model_switch, smart_routing, caching, ...: docs/advice.md lists them.';
comment on column public.recommendations.subject is 'What it is about, by the names of dimensions.';
comment on column public.recommendations.since is 'The window that it rests on last; it ends with until.';
comment on column public.recommendations.calls is 'How many calls of the window it rests on.';
comment on column public.recommendations.evidence is 'The filters of these calls, by the names of dimensions.';
comment on column public.recommendations.saving_expected is 'US dollars a month of 30 days where this alone is taken; to saving_high.';
comment on column public.recommendations.sequential_expected is 'What it adds a month where those before it are taken, too; these add up.';
comment on column public.recommendations.counted is 'Whether it is part of the total: not where it is an upper bound, or no part of the bill.';
comment on column public.recommendations.revenue is 'US dollars a month that it brings in beside.';
comment on column public.recommendations.changes is 'What it does to the calls, by which it is measured: [{"change", "where", ...}].';
comment on column public.recommendations.last_seen is 'When it was given last.';
comment on column public.recommendations.still_given is 'Whether it was given when advice was last looked for.';
comment on column public.recommendations.decided_by is 'Subject of the token of whoever decided, else the role.';
comment on column public.recommendations.promised_expected is 'What the saving was when it was taken.';
comment on column public.recommendations.measured_saving is 'US dollars a month that it really saved; NULL: not measured, or not to be.';

create index recommendations_organization on public.recommendations (organization_id, status);
create index recommendations_status on public.recommendations (status, decided_at);

select vital_private.restrict_relation('public.recommendations', readers => '{authenticated, service_role}');

create policy "Organization admins see what their organization is advised" on public.recommendations
for select to authenticated
using (organization_id = any((select vital_private.administered_organizations())::text[]));

-- When advice was last looked for, of an organization or of all (NULL), and what was found on the whole.
create table public.advice_runs (
  organization_id text,
  since timestamptz not null,
  until timestamptz not null,
  bill numeric not null,
  total_low numeric not null,
  total_expected numeric not null,
  total_high numeric not null,
  given text[] not null,
  not_applicable jsonb not null,
  notes jsonb not null,
  found_at timestamptz not null default now(),
  constraint advice_runs_key unique nulls not distinct (organization_id),
  constraint advice_runs_window check (since < until),
  constraint advice_runs_total check (
    total_low <= total_expected and total_expected <= total_high and total_high < 'Infinity' and total_low > '-Infinity'
  ),
  constraint advice_runs_bill check (bill > '-Infinity' and bill < 'Infinity'),
  constraint advice_runs_given check (cardinality(given) <= 500),
  constraint advice_runs_texts check (
    jsonb_typeof(not_applicable) = 'array' and octet_length(not_applicable::text) <= 32768
    and jsonb_typeof(notes) = 'array' and octet_length(notes::text) <= 32768
  )
);

comment on table public.advice_runs is 'When advice was last looked for, of an organization or of all, and what was found on the whole.';
comment on column public.advice_runs.bill is 'US dollars that the calls of the window cost.';
comment on column public.advice_runs.total_expected is 'US dollars a month, each call repriced once through all that counts; to total_high.';
comment on column public.advice_runs.given is 'The ids of what was given, in the order in which the savings are counted.';
comment on column public.advice_runs.not_applicable is 'Kinds that give no advice, and why: [{"type", "reason"}].';

select vital_private.restrict_relation('public.advice_runs', readers => '{authenticated, service_role}');

create policy "Organization admins see when their advice was looked for" on public.advice_runs
for select to authenticated
using (organization_id = any((select vital_private.administered_organizations())::text[]));

-- What is advised and not decided, the largest saving first.
create view public.open_recommendations with (security_invoker = true) as
select
  r.organization_id,
  r.type,
  r.priority,
  r.current,
  r.recommended,
  r.saving_low,
  r.saving_expected,
  r.saving_high,
  r.sequential_expected,
  r.counted,
  r.calls,
  r.confidence,
  r.effort,
  r.risk,
  r.how_to_try,
  r.command,
  r.subject,
  r.evidence,
  r.since,
  r.until,
  r.first_seen,
  r.last_seen,
  r.still_given,
  r.id
from public.recommendations as r
where r.status = 'open'
order by r.still_given desc, r.saving_expected desc, r.id asc;

comment on view public.open_recommendations is 'What is advised and not decided, the largest saving first; savings are US dollars a month.';

select vital_private.restrict_relation('public.open_recommendations', readers => '{authenticated, service_role}');

-- When one that was taken can be measured: once 30 whole days (UTC) are over that began after it was.
create function vital_private.measured_from(taken timestamptz) returns timestamptz
language sql
stable
set search_path = ''
as $$
  select date_trunc('day', taken, 'UTC') + interval '31 days'
$$;

create function vital_private.recommendation_json(r public.recommendations) returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'id', r.id, 'organization_id', r.organization_id, 'type', r.type, 'subject', r.subject, 'current', r.current,
    'recommended', r.recommended, 'impact', r.impact, 'since', r.since, 'until', r.until, 'calls', r.calls, 'evidence', r.evidence,
    'saving', jsonb_build_object('low', r.saving_low::text, 'expected', r.saving_expected::text, 'high', r.saving_high::text),
    'sequential', jsonb_build_object(
      'low', r.sequential_low::text, 'expected', r.sequential_expected::text, 'high', r.sequential_high::text
    ),
    'counted', r.counted, 'revenue', r.revenue::text, 'confidence', r.confidence, 'effort', r.effort, 'priority', r.priority
  ) || jsonb_build_object(
    'risk', r.risk, 'how_to_try', r.how_to_try, 'command', r.command, 'assumptions', r.assumptions, 'changes', r.changes, 'first_seen', r.first_seen,
    'last_seen', r.last_seen, 'still_given', r.still_given, 'status', r.status, 'decided_by', r.decided_by, 'decided_at', r.decided_at,
    'reason', r.reason,
    'promised', case when r.promised_expected is not null then jsonb_build_object(
      'low', r.promised_low::text, 'expected', r.promised_expected::text, 'high', r.promised_high::text
    ) end,
    'measured_saving', r.measured_saving::text, 'measured_at', r.measured_at, 'measured_note', r.measured_note,
    'measured_from', case when r.status = 'taken' then vital_private.measured_from(r.decided_at) end
  )
$$;

-- Recommendations that the caller may see, at most 1,000, what is given now first and then by saving: of an organization, with a status, the
-- one of an id, or those that were taken 30 whole days ago and are not measured yet (`due`). NULL filters nothing.
create function public.recommendations_v1(
  organization text default null, status text default null, id text default null, due boolean default false, max_rows integer default 500
) returns json
language plpgsql
stable
set search_path = ''
set statement_timeout = '8s'
as $$
begin
  if recommendations_v1.status not in ('open', 'taken', 'dismissed') then
    raise exception 'status is open, taken or dismissed.' using errcode = '22023';
  end if;
  return (
    select coalesce(json_agg(vital_private.recommendation_json(n) order by n.still_given desc, n.saving_expected desc, n.id), '[]')
    from (
      select r.*
      from public.recommendations as r
      where (recommendations_v1.organization is null or r.organization_id = recommendations_v1.organization)
        and (recommendations_v1.status is null or r.status = recommendations_v1.status)
        and (recommendations_v1.id is null or r.id = recommendations_v1.id)
        and (
          due is not true or (r.status = 'taken' and r.measured_at is null and vital_private.measured_from(r.decided_at) <= now())
        )
      order by r.still_given desc, r.saving_expected desc, r.id
      limit least(greatest(coalesce(max_rows, 500), 1), 1000)
    ) as n
  );
end;
$$;

-- What was found when advice was last looked for, of an organization or of all (NULL): amounts are text, "recommendations" stand in the order
-- in which their savings are counted. NULL: nobody has looked, or the caller may not see it.
create function public.last_advice_v1(organization text default null) returns json
language sql
stable
set search_path = ''
as $$
  select json_build_object(
    'organization_id', a.organization_id, 'since', a.since, 'until', a.until, 'found_at', a.found_at, 'bill', a.bill::text,
    'total', json_build_object('low', a.total_low::text, 'expected', a.total_expected::text, 'high', a.total_high::text),
    'not_applicable', a.not_applicable, 'notes', a.notes,
    'recommendations', (
      select coalesce(json_agg(vital_private.recommendation_json(r) order by g.place), '[]')
      from unnest(a.given) with ordinality as g (id, place)
      join public.recommendations as r on r.id = g.id
    )
  )
  from public.advice_runs as a
  where a.organization_id is not distinct from last_advice_v1.organization
$$;

-- Save what was found, a JSON object {"organization_id", "since", "until", "bill", "total", "recommendations", "not_applicable", "notes"}.
-- Figures of what is known are renewed; what was decided about it stays. What is given no longer stays, too, and says since when.
-- {"saved": how many, "new": how many of them were not known}.
create function public.save_advice_v1(advice text) returns json
language plpgsql
security definer
set search_path = ''
as $$
declare
  told jsonb;
  ids text[];
  known bigint;
begin
  perform vital_private.check_given('advice', advice);
  if octet_length(advice) > 4194304 then
    raise exception 'advice is too large: at most 4 MB are saved.' using errcode = '22023';
  end if;
  told := advice::jsonb;
  if jsonb_typeof(told -> 'recommendations') is distinct from 'array' then
    raise exception 'advice is a JSON object with recommendations.' using errcode = '22023';
  end if;
  ids := array(
    select r.value ->> 'id' from jsonb_array_elements(told -> 'recommendations') with ordinality as r (value, place) order by r.place
  );
  -- One at a time: else two could each take the other's for given no longer.
  perform pg_advisory_xact_lock(hashtextextended('vital_tracking.advice', 0));
  select count(*) into known from public.recommendations as r where r.id = any(ids);
  update public.recommendations as r
  set still_given = false
  from public.advice_runs as a
  where a.organization_id is not distinct from told ->> 'organization_id' and r.id = any(a.given) and r.id <> all(ids);
  insert into public.recommendations as r (
    id, organization_id, type, subject, current, recommended, impact, since, until, calls, evidence, saving_low, saving_expected,
    saving_high, sequential_low, sequential_expected, sequential_high, counted, revenue, confidence, effort, priority, risk, how_to_try,
    command, assumptions, changes
  )
  select
    t.id, t.organization_id, t.type, t.subject, t.current, t.recommended, t.impact, (told ->> 'since')::timestamptz,
    (told ->> 'until')::timestamptz, t.calls, t.evidence, (t.saving ->> 'low')::numeric, (t.saving ->> 'expected')::numeric,
    (t.saving ->> 'high')::numeric, (t.sequential ->> 'low')::numeric, (t.sequential ->> 'expected')::numeric,
    (t.sequential ->> 'high')::numeric, t.counted, t.revenue, t.confidence, t.effort, t.priority, t.risk, t.how_to_try, t.command,
    t.assumptions, coalesce(t.changes, '[]')
  from jsonb_to_recordset(told -> 'recommendations') as t (
    id text, organization_id text, type text, subject jsonb, current text, recommended text, impact text, calls bigint, evidence jsonb,
    saving jsonb, sequential jsonb, counted boolean, revenue numeric, confidence text, effort text, priority text, risk text,
    how_to_try text, command text, assumptions jsonb, changes jsonb
  )
  on conflict (id) do update set
    current = excluded.current, recommended = excluded.recommended, impact = excluded.impact, since = excluded.since,
    until = excluded.until, calls = excluded.calls, evidence = excluded.evidence, saving_low = excluded.saving_low,
    saving_expected = excluded.saving_expected, saving_high = excluded.saving_high, sequential_low = excluded.sequential_low,
    sequential_expected = excluded.sequential_expected, sequential_high = excluded.sequential_high, counted = excluded.counted,
    revenue = excluded.revenue, confidence = excluded.confidence, effort = excluded.effort, priority = excluded.priority,
    risk = excluded.risk, how_to_try = excluded.how_to_try, command = excluded.command, assumptions = excluded.assumptions,
    -- What was taken is measured by what it was then.
    changes = case when r.status = 'taken' then r.changes else excluded.changes end,
    last_seen = now(), still_given = true;
  insert into public.advice_runs as a (
    organization_id, since, until, bill, total_low, total_expected, total_high, given, not_applicable, notes
  )
  values (
    told ->> 'organization_id', (told ->> 'since')::timestamptz, (told ->> 'until')::timestamptz, (told ->> 'bill')::numeric,
    (told -> 'total' ->> 'low')::numeric, (told -> 'total' ->> 'expected')::numeric, (told -> 'total' ->> 'high')::numeric, ids,
    coalesce(told -> 'not_applicable', '[]'), coalesce(told -> 'notes', '[]')
  )
  on conflict on constraint advice_runs_key do update set
    since = excluded.since, until = excluded.until, bill = excluded.bill, total_low = excluded.total_low,
    total_expected = excluded.total_expected, total_high = excluded.total_high, given = excluded.given,
    not_applicable = excluded.not_applicable, notes = excluded.notes, found_at = now();
  return json_build_object('saved', cardinality(ids), 'new', cardinality(ids) - known);
end;
$$;

-- Write down what a recommendation that was taken really saved, US dollars a month; NULL: it cannot be measured, because of `note`. False where
-- none of that id was taken.
create function public.note_saving_v1(recommendation text, note text, saving numeric default null) returns boolean
language plpgsql
security definer
set search_path = ''
as $$
begin
  perform vital_private.check_given('recommendation', recommendation);
  perform vital_private.check_given('note', note);
  if saving in ('NaN', 'Infinity', '-Infinity') then
    raise exception 'saving is an amount of US dollars.' using errcode = '22023';
  end if;
  update public.recommendations as r
  set measured_saving = saving, measured_at = now(), measured_note = left(note, 500)
  where r.id = recommendation and r.status = 'taken';
  return found;
end;
$$;

select vital_private.restrict_functions(
  api => '{recommendations_v1, last_advice_v1, save_advice_v1, note_saving_v1}', helpers => '{recommendation_json, measured_from}'
);
