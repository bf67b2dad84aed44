-- Who changes budgets. Nobody writes the tables themselves but the service role; these functions do, for the service role whatever
-- they are given, and for a signed-in admin the budgets of that organization.
--
-- Changes are audited by the tables' triggers. Tries that are refused are audited as well: so a refusal is an answer, not an error, which
-- would take its line of the audit along.

-- Whether a change of an organization's budgets is refused to the caller; then it is noted. NULL stands for all organizations, over which
-- only operators decide.
create function vital_private.refuses_budget_change(organization text, change text, key jsonb) returns boolean
language plpgsql
security definer
set search_path = ''
as $$
begin
  if vital_private.may_change(organization) then
    return false;
  end if;
  perform vital_private.note(
    'budget_limits', 'refused', left(organization, 255),
    (
      select coalesce(jsonb_object_agg(k.key, left(k.value, 255)), '{}')
      from jsonb_each_text(jsonb_strip_nulls(key)) as k
      where k.key = any('{id,organization_id,entity_type,entity_id,metric,action}'::text[])
    ),
    jsonb_build_object('change', jsonb_build_array(null, change))
  );
  return true;
end;
$$;

-- Carry out a change of budgets, if the caller may: `set`, `remove` (of `{"id"}`), `override` or `raise`. A refusal is
-- {"refused": "not_an_admin"}.
create function vital_private.change_budgets(change text, told text) returns json
language plpgsql
security definer
set search_path = ''
as $$
declare
  given constant jsonb := told::jsonb;
  organization text := given ->> 'organization_id';
begin
  if jsonb_typeof(given) <> 'object' then
    raise exception 'What is to be changed is a JSON object.' using errcode = '22023';
  end if;
  if change = 'remove' then
    select b.organization_id into organization from public.budget_limits as b where b.id = (given ->> 'id')::bigint;
    if not found then
      return json_build_object('removed', 0);
    end if;
  end if;
  if vital_private.refuses_budget_change(organization, change, given) then
    return json_build_object('refused', 'not_an_admin');
  end if;
  return case change
    when 'set' then vital_private.set_budget(told)
    when 'override' then vital_private.override_budget(told)
    when 'raise' then vital_private.raise_budget(told)
    when 'remove' then vital_private.remove_budget((given ->> 'id')::bigint)
  end;
end;
$$;

-- Make a budget, or change the one of the same organization, entity, metric and action: a JSON object of columns of budget_limits. Columns
-- that are not named keep their value; those that nobody sets are passed over. `throttle_interval_s` gives the interval in seconds.
create function public.set_budget_v1(budget text) returns json
language sql
set search_path = ''
as $$
  select vital_private.check_given('budget', budget);
  select vital_private.change_budgets('set', budget)
$$;

-- Give one entity other limits than each of its kind has, or take them back: a JSON object {"organization_id", "entity_type",
-- "entity_id", "metric", "action", "daily_limit", ...}.
create function public.override_budget_v1(override text) returns json
language sql
set search_path = ''
as $$
  select vital_private.check_given('override', override);
  select vital_private.change_budgets('override', override)
$$;

-- Add to every limit of one entity until a moment: a JSON object {"organization_id", "entity_type", "entity_id", "metric", "action",
-- "raise_by", "until"}. Without `raise_by` all its raises end now.
create function public.raise_budget_v1(raise_ text) returns json
language sql
set search_path = ''
as $$
  select vital_private.check_given('raise_', raise_);
  select vital_private.change_budgets('raise', raise_)
$$;

-- Remove a budget with its windows; its alerts stay.
create function public.remove_budget_v1(budget_id bigint) returns json
language sql
set search_path = ''
as $$
  select vital_private.check_given('budget_id', budget_id::text);
  select vital_private.change_budgets('remove', json_build_object('id', budget_id)::text)
$$;

select vital_private.restrict_functions(
  api => '{set_budget_v1, override_budget_v1, raise_budget_v1, remove_budget_v1}', helpers => '{change_budgets}'
);
