-- What admins do about advice: have it looked for again, take it, dismiss it, open it again. An admin decides about what an organization of
-- theirs is advised; about advice for all, the service role. Tries that are refused are audited, so a refusal is an answer.

-- What is decided is audited; that figures were renewed is noted by may_renew_advice_v1.
create trigger recommendations_audit
after update of status on public.recommendations
for each row execute function vital_private.audit_change('id organization_id type', 'decided_by reason');

create trigger recommendations_audit_truncate
after truncate on public.recommendations
for each statement execute function vital_private.audit_truncate();

create function vital_private.may_renew_advice(organization text) returns json
language plpgsql
security definer
set search_path = ''
as $$
declare
  may constant boolean := vital_private.may_change(organization);
begin
  perform vital_private.note(
    'recommendations', case when may then 'update' else 'refused' end, left(organization, 255), '{}',
    jsonb_build_object('change', jsonb_build_array(null, 'renew'))
  );
  return case when may then json_build_object('may', true) else json_build_object('refused', 'not_an_admin') end;
end;
$$;

-- Whether the caller may have advice looked for and saved, of an organization or of all (NULL); noted in the audit either way:
-- {"may": true} or {"refused": "not_an_admin"}.
create function public.may_renew_advice_v1(organization text default null) returns json
language sql
set search_path = ''
as $$
  select vital_private.may_renew_advice(organization)
$$;

create function vital_private.decide_recommendation(recommendation text, decision text, why text) returns json
language plpgsql
security definer
set search_path = ''
as $$
declare
  known public.recommendations;
  decider constant text := coalesce(
    case when vital_private.by_a_user() then vital_private.subject() end, nullif(current_setting('role', true), 'none'), session_user
  );
begin
  if decision not in ('open', 'taken', 'dismissed') then
    raise exception 'decision is taken, dismissed or open.' using errcode = '22023';
  end if;
  select r.* into known from public.recommendations as r where r.id = recommendation for update;
  if not found then
    return json_build_object('missing', true);
  end if;
  if not vital_private.may_change(known.organization_id) then
    perform vital_private.note(
      'recommendations', 'refused', known.organization_id, jsonb_build_object('id', known.id, 'type', known.type),
      jsonb_build_object('change', jsonb_build_array(known.status, decision))
    );
    return vital_private.refused_or_missing(known.organization_id);
  end if;
  -- Taken twice is taken once: the promise of the first time counts, and the month that began then.
  if decision <> known.status then
    update public.recommendations as r
    set
      status = decision, decided_by = case when decision <> 'open' then decider end, decided_at = case when decision <> 'open' then now() end,
      reason = case when decision <> 'open' then left(why, 500) end,
      promised_low = case when decision = 'taken' then r.saving_low end,
      promised_expected = case when decision = 'taken' then r.saving_expected end,
      promised_high = case when decision = 'taken' then r.saving_high end,
      measured_saving = null, measured_at = null, measured_note = null
    where r.id = known.id;
  end if;
  return (select vital_private.recommendation_json(r)::json from public.recommendations as r where r.id = known.id);
end;
$$;

-- Decide about a recommendation: `taken`, `dismissed`, or `open` again: it as it then is, {"missing": true} or
-- {"refused": "not_an_admin"}.
create function public.decide_recommendation_v1(recommendation text, decision text, why text default null) returns json
language sql
set search_path = ''
as $$
  select vital_private.check_given('recommendation', recommendation);
  select vital_private.check_given('decision', decision);
  select vital_private.decide_recommendation(recommendation, decision, why)
$$;

select vital_private.restrict_functions(
  api => '{may_renew_advice_v1, decide_recommendation_v1}', helpers => '{may_renew_advice, decide_recommendation}'
);
