-- What admins do about findings of abuse: act, mark false alarms, take marks back, and set rules. An admin decides about whoever belongs to
-- their organization, but not about themselves; about organizations, as about everything, the service role. Tries that are refused are
-- audited, so a refusal is an answer.

select vital_private.audit_table('vital_private.abuse_marks', 'id organization_id pattern', hidden => 'subject reason marked_by');
select vital_private.audit_table('vital_private.abuse_rules', 'id organization_id pattern');

-- What somebody is answered who may not decide: whoever sees nothing of the organization is not told that there is a finding.
create function vital_private.refused_or_missing(organization text) returns json
language sql
stable
set search_path = ''
as $$
  select case
    when organization = any(vital_private.administered_organizations()) then json_build_object('refused', 'not_an_admin')
    else json_build_object('missing', true)
  end
$$;

-- Decide about a finding: `watch`, `throttle`, `block` until a moment, `false_alarm`, or `open` again, which ends what was put up. What else is
-- open about the same user or organization is closed by an action, and opened with it. Findings are locked before budgets, as wherever both are.
create function vital_private.decide_abuse(finding bigint, decision text, until timestamptz, why text) returns json
language plpgsql
security definer
set search_path = ''
as $$
declare
  known public.abuse_findings;
  decided public.abuse_findings;
  acts constant boolean := decision in ('watch', 'throttle', 'block');
  decider constant text := coalesce(
    case when vital_private.by_a_user() then vital_private.subject() end, nullif(current_setting('role', true), 'none'), session_user
  );
begin
  select f.* into known from public.abuse_findings as f where f.id = finding for update;
  if not found then
    return json_build_object('missing', true);
  end if;
  if not vital_private.may_change(case when known.subject_kind <> 'organization' then known.organization_id end)
    or (vital_private.by_a_user() and vital_private.subject() in (known.subject, known.entity_id)) then
    perform vital_private.note_abuse(known, 'refused', jsonb_build_object('change', jsonb_build_array(null, left(decision, 20))));
    return vital_private.refused_or_missing(known.organization_id);
  end if;
  if acts then
    perform vital_private.check_given('until', until::text);
    if known.entity_id is null and decision <> 'watch' then
      raise exception 'Nobody is behind finding %, whose calls a budget could stop: it can be watched.', known.id
        using errcode = '22023', hint = 'Stop the address where requests come in.';
    end if;
    if until <= now() or until > now() + interval '31 days' then
      raise exception 'until must be within the next 31 days.' using errcode = '22023', hint = 'For an hour: 1h.';
    end if;
    perform vital_private.put_up_action(known.id, decision, until, why, decider);
    delete from vital_private.abuse_marks as m where m.finding_id = known.id;
  elsif decision in ('false_alarm', 'open') then
    if decision = 'open' and exists (
      select from public.abuse_findings as o
      where o.pattern = known.pattern and o.subject = known.subject and o.organization_id is not distinct from known.organization_id
        and o.state = 'open' and o.id <> known.id
    ) then
      raise exception 'A newer finding of this is open already.' using errcode = '23505', hint = 'Decide about that one.';
    end if;
    perform vital_private.end_action(known.id);
    update public.abuse_findings as f
    set
      state = decision, action = null, action_until = null, budget_id = null, with_finding = null, decided_at = now(),
      decided_by = decider, reason = left(why, 500)
    where f.id = known.id
    returning f.* into decided;
    perform vital_private.open_beside(decided);
    if decision = 'false_alarm' then
      insert into vital_private.abuse_marks as m (pattern, organization_id, subject, up_to, finding_id, marked_by, reason)
      values (known.pattern, known.organization_id, known.subject, known.size, known.id, decider, left(why, 500))
      on conflict on constraint abuse_marks_key do update
      set
        up_to = greatest(m.up_to, excluded.up_to), finding_id = excluded.finding_id, marked_at = now(), marked_by = excluded.marked_by,
        reason = excluded.reason;
    else
      delete from vital_private.abuse_marks as m where m.finding_id = known.id;
    end if;
  else
    raise exception 'decision is watch, throttle, block, false_alarm or open.' using errcode = '22023';
  end if;
  perform vital_private.note_abuse(
    known, 'update',
    jsonb_build_object(
      'state', jsonb_build_array(known.state, case when acts then 'acted_on' else decision end),
      'action', jsonb_build_array(known.action, case when acts then decision end), 'until', jsonb_build_array(known.action_until, until)
    )
  );
  return (select vital_private.finding_json(f)::json from public.abuse_findings as f where f.id = known.id);
end;
$$;

-- Decide about a finding, for whoever may: it as it then is, {"missing": true}, or {"refused": "not_an_admin"}. `until` goes with an action.
create function public.decide_abuse_v1(finding bigint, decision text, until timestamptz default null, why text default null) returns json
language sql
set search_path = ''
as $$
  select vital_private.check_given('finding', finding::text);
  select vital_private.check_given('decision', decision);
  select vital_private.decide_abuse(finding, decision, until, why)
$$;

create function vital_private.unmark_abuse(mark bigint) returns json
language plpgsql
security definer
set search_path = ''
as $$
declare
  known vital_private.abuse_marks;
  of_organization boolean;
begin
  select m.* into known from vital_private.abuse_marks as m where m.id = mark;
  if not found then
    return json_build_object('missing', true);
  end if;
  select p.kind = 'organization' into of_organization from vital_private.abuse_patterns as p where p.pattern = known.pattern;
  if not vital_private.may_change(case when not of_organization then known.organization_id end) then
    perform vital_private.note(
      'abuse_marks', 'refused', known.organization_id, jsonb_build_object('id', known.id::text, 'pattern', known.pattern),
      jsonb_build_object('change', jsonb_build_array(null, 'remove'))
    );
    return vital_private.refused_or_missing(known.organization_id);
  end if;
  delete from vital_private.abuse_marks as m where m.id = known.id;
  return json_build_object('removed', 1);
end;
$$;

-- Take a mark back: {"removed": 1}, {"missing": true} or {"refused": "not_an_admin"}.
create function public.unmark_abuse_v1(mark bigint) returns json
language sql
set search_path = ''
as $$
  select vital_private.check_given('mark', mark::text);
  select vital_private.unmark_abuse(mark)
$$;

create function vital_private.set_abuse_rule(told text) returns json
language plpgsql
security definer
set search_path = ''
as $$
declare
  given constant jsonb := told::jsonb;
  changed bigint;
begin
  if jsonb_typeof(given) <> 'object' then
    raise exception 'A rule is a JSON object.' using errcode = '22023';
  end if;
  if not vital_private.may_change(given ->> 'organization_id') then
    perform vital_private.note(
      'abuse_rules', 'refused', left(given ->> 'organization_id', 255), jsonb_build_object('pattern', left(given ->> 'pattern', 255)),
      jsonb_build_object('change', jsonb_build_array(null, coalesce(left(given ->> 'action', 255), 'remove')))
    );
    return json_build_object('refused', 'not_an_admin');
  end if;
  if given ->> 'pattern' is not null and not exists (
    select from vital_private.abuse_patterns as p where p.pattern = given ->> 'pattern'
  ) then
    raise exception 'There is no pattern %.', given ->> 'pattern'
      using errcode = '22023', hint = (
        select format('One of: %s.', string_agg(p.pattern, ', ' order by p.position)) from vital_private.abuse_patterns as p
      );
  end if;
  if given ->> 'action' is null then
    delete from vital_private.abuse_rules as r
    where r.organization_id is not distinct from given ->> 'organization_id' and r.pattern is not distinct from given ->> 'pattern';
    get diagnostics changed = row_count;
    return json_build_object('removed', changed);
  end if;
  insert into vital_private.abuse_rules as r (organization_id, pattern, severity, action, lasts)
  values (
    given ->> 'organization_id', given ->> 'pattern', coalesce(given ->> 'severity', 'high'), given ->> 'action',
    make_interval(secs => coalesce((given ->> 'lasts_s')::double precision, 3600))
  )
  on conflict on constraint abuse_rules_key do update
  set severity = excluded.severity, action = excluded.action, lasts = excluded.lasts;
  return json_build_object('set', 1);
end;
$$;

-- Set what is done by itself, a JSON object {"organization_id", "pattern", "severity", "action", "lasts_s"}; without an action the rule
-- goes. {"set": 1}, {"removed": n} or {"refused": "not_an_admin"}.
create function public.set_abuse_rule_v1(rule text) returns json
language sql
set search_path = ''
as $$
  select vital_private.check_given('rule', rule);
  select vital_private.set_abuse_rule(rule)
$$;

select vital_private.restrict_functions(
  api => '{decide_abuse_v1, unmark_abuse_v1, set_abuse_rule_v1}', helpers => '{decide_abuse, unmark_abuse, set_abuse_rule}'
);
