-- Who changes plans and subscriptions. Plans are the team's: operators change them alone. Which plan an organization is on is decided by
-- operators: its own admins could lift what they pay for. Which plan a user of an organization is on is decided by its admins as well, and
-- by the token of the user himself, where the identity provider says it in a claim.
--
-- Changes are audited by the tables' triggers. Tries that are refused are audited as well: so a refusal is an answer, not an error, which
-- would take its line of the audit along.

select vital_private.audit_table('public.plans', 'id name valid_from');
select vital_private.audit_table('public.subscriptions', 'id organization_id entity_type entity_id');

create function vital_private.change_plan(plan text) returns json
language plpgsql
security definer
set search_path = ''
as $$
declare
  given jsonb;
  wanted public.plans;
begin
  given := plan::jsonb - array['id', 'created_at', 'in_force'];
  perform vital_private.check_given('name', given ->> 'name');
  if vital_private.by_a_user() then
    perform vital_private.note('plans', 'refused', null, jsonb_build_object('name', left(given ->> 'name', 64)), '{"change": [null, "set"]}');
    return json_build_object('refused', 'not_an_operator');
  end if;
  perform vital_private.lock_budgets(alone => true);
  select p.* into wanted
  from public.plans as p
  where p.name = given ->> 'name' and p.valid_from <= coalesce((given ->> 'valid_from')::timestamptz, clock_timestamp())
  order by p.valid_from desc
  limit 1;
  wanted := jsonb_populate_record(wanted, given);
  wanted.valid_from := coalesce((given ->> 'valid_from')::timestamptz, clock_timestamp());
  if wanted.valid_from < clock_timestamp() - interval '1 minute' and exists (select from public.plans as p where p.name = wanted.name) then
    raise exception 'A plan is not changed for the past: % is over.', wanted.valid_from
      using errcode = '22023', hint = 'Leave valid_from out for a change from now on.';
  end if;
  if exists (select from public.plans as p where p.name = wanted.name and p.valid_from = wanted.valid_from) then
    raise exception 'Plan % has a version of % already.', wanted.name, wanted.valid_from
      using errcode = '23505', hint = 'Versions are not overwritten: give the new one a later valid_from.';
  end if;
  insert into public.plans (name, valid_from, calls, tokens, calls_per_minute, tokens_per_minute, price_usd)
  values (
    wanted.name, wanted.valid_from, wanted.calls, wanted.tokens, wanted.calls_per_minute, wanted.tokens_per_minute, wanted.price_usd
  );
  return (
    select p.value from json_array_elements(public.plans_v1(wanted.name)) as p (value)
    where (p.value ->> 'valid_from')::timestamptz = wanted.valid_from
  );
end;
$$;

create function vital_private.remove_plan(plan text) returns json
language plpgsql
security definer
set search_path = ''
as $$
declare
  subscribers bigint;
  removed bigint;
begin
  if vital_private.by_a_user() then
    perform vital_private.note('plans', 'refused', null, jsonb_build_object('name', left(plan, 64)), '{"change": [null, "remove"]}');
    return json_build_object('refused', 'not_an_operator');
  end if;
  perform vital_private.lock_budgets(alone => true);
  select count(*) into subscribers
  from public.subscriptions as s
  where s.plan = remove_plan.plan and coalesce(s.until, 'infinity') > clock_timestamp();
  if subscribers > 0 then
    raise exception 'Plan % has subscribers, now or to come: %.', plan, subscribers
      using errcode = '23001', hint = 'Put them on another plan or end their subscriptions first.';
  end if;
  delete from public.plans as p where p.name = remove_plan.plan;
  get diagnostics removed = row_count;
  return json_build_object('removed', removed);
end;
$$;

-- Whether the caller may change a subscription. An organization's own is for operators.
create function vital_private.may_change_subscription(given jsonb) returns boolean
language sql
stable
set search_path = ''
as $$
  select vital_private.may_change(case when given ->> 'entity_type' is distinct from 'organization' then given ->> 'organization_id' end)
$$;

-- Whose a subscription is: the organization's that it is of, or in which it counts.
create function vital_private.subscription_organization(given jsonb) returns text
language sql
immutable
return case when given ->> 'entity_type' = 'organization' then given ->> 'entity_id' else given ->> 'organization_id' end;

-- Whether a change of a subscription is refused to the caller; then it is noted.
create function vital_private.refuses_subscription_change(given jsonb, change text) returns boolean
language plpgsql
set search_path = ''
as $$
begin
  if vital_private.may_change_subscription(given) then
    return false;
  end if;
  perform vital_private.note(
    'subscriptions', 'refused', left(vital_private.subscription_organization(given), 255),
    (
      select coalesce(jsonb_object_agg(k.key, left(k.value, 255)), '{}')
      from jsonb_each_text(jsonb_strip_nulls(given)) as k
      where k.key = any('{organization_id,entity_type,entity_id}'::text[])
    ),
    jsonb_build_object('change', jsonb_build_array(null, change), 'plan', jsonb_build_array(null, left(given ->> 'plan', 64)))
  );
  return true;
end;
$$;

-- How many of these changes are refused to the caller. One line notes them all, for the admins of their organization where they are all of
-- one that the caller belongs to: nobody else fills its audit.
create function vital_private.refused_subscriptions(changes jsonb) returns bigint
language plpgsql
set search_path = ''
as $$
declare
  refused bigint;
  organizations text[];
begin
  select count(*), array_agg(distinct vital_private.subscription_organization(e.value)) into refused, organizations
  from jsonb_array_elements(changes) as e (value)
  where not vital_private.may_change_subscription(e.value);
  if refused > 0 then
    perform vital_private.note(
      'subscriptions', 'refused',
      (
        select m.organization_id
        from public.organization_members as m
        where m.organization_id = all(organizations) and m.user_id = (select auth.jwt()) ->> 'sub'
      ),
      '{}', jsonb_build_object('change', jsonb_build_array(null, 'set'), 'rows', refused)
    );
  end if;
  return refused;
end;
$$;

-- What of a subscription may be named to change it, besides when it begins and ends.
create function vital_private.named_of_subscription(given jsonb) returns jsonb
language sql
immutable
return jsonb_strip_nulls(given - '{id,since,until,source,counting_since,claimed_at,created_at}'::text[]);

-- The latest subscription of a subscriber that has not ended; NULL where there is none.
create function vital_private.latest_subscription(given jsonb) returns public.subscriptions
language sql
stable
set search_path = ''
as $$
  select s.*
  from public.subscriptions as s
  where s.entity_type = given ->> 'entity_type' and s.entity_id = given ->> 'entity_id'
    and coalesce(s.organization_id, '') = coalesce(given ->> 'organization_id', '')
    and coalesce(s.until, 'infinity') > clock_timestamp()
  order by s.since desc
  limit 1
$$;

-- Whether a subscription stands as it is wanted, with nothing to follow it: then nobody has to wait for its change.
create function vital_private.is_subscribed(given jsonb) returns boolean
language plpgsql
stable
set search_path = ''
as $$
declare
  latest constant public.subscriptions := vital_private.latest_subscription(given);
begin
  return latest.id is not null
    and case when given ->> 'since' is null then latest.since <= clock_timestamp() else latest.since = (given ->> 'since')::timestamptz end
    and (not given ? 'until' or latest.until is not distinct from (given ->> 'until')::timestamptz)
    and jsonb_populate_record(latest, vital_private.named_of_subscription(given)) is not distinct from latest;
end;
$$;

-- Put a subscriber on a plan, or change what is named of his subscription: it ends, and one that is as it was but for this begins, `since`
-- then, by default now; what was to follow is replaced. The answer has the window that runs by it, with what is used in it.
create function vital_private.subscribe(given jsonb, source text, claimed_at timestamptz default null) returns json
language plpgsql
set search_path = ''
as $$
declare
  before public.subscriptions;
  wanted public.subscriptions;
  stored public.subscriptions;
  moment timestamptz;
  ending timestamptz;
begin
  perform vital_private.check_given('entity_type', given ->> 'entity_type');
  perform vital_private.check_given('entity_id', given ->> 'entity_id');
  if vital_private.is_subscribed(given) then
    before := vital_private.latest_subscription(given);
    stored := before;
  else
    perform vital_private.lock_budgets(alone => true);
    moment := clock_timestamp();
    ending := (vital_private.latest_subscription(given)).until;
    -- What was to follow is replaced.
    delete from public.subscriptions as s
    where s.entity_type = given ->> 'entity_type' and s.entity_id = given ->> 'entity_id'
      and coalesce(s.organization_id, '') = coalesce(given ->> 'organization_id', '')
      and s.since > moment and s.since >= coalesce((given ->> 'since')::timestamptz, moment);
    before := vital_private.latest_subscription(given);
    wanted.reset_day := 1;
    wanted.timezone := 'UTC';
    wanted.enforced := false;
    if before.id is not null then
      wanted := before;
    end if;
    wanted := jsonb_populate_record(wanted, vital_private.named_of_subscription(given));
    wanted.since := coalesce((given ->> 'since')::timestamptz, moment);
    wanted.until := case
      when given ? 'until' then (given ->> 'until')::timestamptz
      when before.id is not null and ending > wanted.since then ending
    end;
    perform vital_private.check_given('plan', wanted.plan);
    if (wanted.plan, wanted.reset_day, wanted.timezone, wanted.enforced) is not distinct from
      (before.plan, before.reset_day, before.timezone, before.enforced) and (not given ? 'since' or wanted.since = before.since)
    then
      update public.subscriptions as s
      set until = wanted.until
      where s.id = before.id and s.until is distinct from wanted.until;
      select s.* into stored from public.subscriptions as s where s.id = before.id;
    else
      if before.id is not null and wanted.since <= before.since then
        raise exception '% is on plan % from % on.', quote_literal(before.entity_id), before.plan, before.since
          using errcode = '22023', hint = 'A change begins later than that; leave since out for now.';
      end if;
      update public.subscriptions as s set until = wanted.since where s.id = before.id and coalesce(s.until, 'infinity') > wanted.since;
      insert into public.subscriptions (
        organization_id, entity_type, entity_id, plan, since, until, reset_day, timezone, enforced, source, claimed_at
      )
      values (
        wanted.organization_id, wanted.entity_type, wanted.entity_id, wanted.plan, wanted.since, wanted.until, wanted.reset_day,
        wanted.timezone, wanted.enforced, subscribe.source, subscribe.claimed_at
      )
      returning * into stored;
    end if;
  end if;
  return json_build_object(
    'subscription', vital_private.subscription_json(stored),
    'before', case when before.id is not null then vital_private.subscription_json(before) end,
    'starts_at', vital_private.window_start('month', greatest(stored.since, now()), stored.timezone, null, stored.reset_day),
    'ends_at', vital_private.window_end('month', greatest(stored.since, now()), stored.timezone, stored.reset_day),
    'calls_used', vital_private.quota_used(stored, 'calls')::text, 'tokens_used', vital_private.quota_used(stored, 'tokens')::text
  );
end;
$$;

-- What is used of a subscription's quota in the month that runs, or with which it will begin.
create function vital_private.quota_used(subscription public.subscriptions, metric text) returns numeric
language sql
stable
set search_path = ''
as $$
  select coalesce(sum(w.spent), 0)
  from public.budget_limits as b
  join public.budget_windows as w on w.budget_id = b.id
  where vital_private.keeps(b, subscription) and b.metric = quota_used.metric and w.entity_id = subscription.entity_id
    and w.period = 'month' and w.starts_at = vital_private.window_start(
      'month', greatest(subscription.since, now()), subscription.timezone, null, subscription.reset_day
    )
$$;

create function vital_private.change_subscription(subscription text) returns json
language plpgsql
security definer
set search_path = ''
as $$
declare
  problem text;
  fix text;
begin
  if vital_private.refuses_subscription_change(subscription::jsonb, 'set') then
    return json_build_object('refused', 'not_an_admin');
  end if;
  begin
    return vital_private.subscribe(subscription::jsonb, 'command');
  exception
    when data_exception or integrity_constraint_violation then
      get stacked diagnostics problem = message_text, fix = pg_exception_hint;
      return json_build_object('problem', problem, 'hint', fix);
  end;
end;
$$;

create function vital_private.close_subscription(subscription text) returns json
language plpgsql
security definer
set search_path = ''
as $$
declare
  given jsonb;
  moment timestamptz;
  ended bigint;
begin
  given := subscription::jsonb;
  perform vital_private.check_given('entity_type', given ->> 'entity_type');
  perform vital_private.check_given('entity_id', given ->> 'entity_id');
  if vital_private.refuses_subscription_change(given, 'end') then
    return json_build_object('refused', 'not_an_admin');
  end if;
  perform vital_private.lock_budgets(alone => true);
  moment := coalesce((given ->> 'until')::timestamptz, clock_timestamp());
  if moment < clock_timestamp() - interval '1 minute' then
    raise exception 'A subscription does not end in the past: % is over.', moment
      using errcode = '22023', hint = 'Leave until out for an end now.';
  end if;
  with doomed as (
    delete from public.subscriptions as s
    where s.entity_type = given ->> 'entity_type' and s.entity_id = given ->> 'entity_id'
      and coalesce(s.organization_id, '') = coalesce(given ->> 'organization_id', '') and s.since >= moment
    returning 1
  ),

  closed as (
    update public.subscriptions as s
    set until = moment
    where s.entity_type = given ->> 'entity_type' and s.entity_id = given ->> 'entity_id'
      and coalesce(s.organization_id, '') = coalesce(given ->> 'organization_id', '') and s.since < moment
      and coalesce(s.until, 'infinity') > moment
    returning 1
  )

  select (select count(*) from doomed) + (select count(*) from closed) into ended;
  return json_build_object('ended', ended);
end;
$$;

create function vital_private.change_subscriptions(subscriptions text) returns json
language plpgsql
security definer
set search_path = ''
as $$
declare
  rows constant jsonb := subscriptions::jsonb;
  given record;
  changed bigint[] := '{}';
  unchanged bigint := 0;
  refused bigint;
  rejected jsonb := '[]';
  problem text;
  fix text;
begin
  if jsonb_array_length(rows) > 1000 then
    raise exception 'At most 1,000 subscriptions are set at once: these are %.', jsonb_array_length(rows)
      using errcode = '22023', hint = 'Send them in several calls.';
  end if;
  refused := vital_private.refused_subscriptions(rows);
  perform set_config('vital_tracking.quotas_later', 'on', true);
  for given in
    select e.value, e.place - 1 as place
    from jsonb_array_elements(rows) with ordinality as e (value, place)
    where vital_private.may_change_subscription(e.value)
    order by e.place
  loop
    begin
      if vital_private.is_subscribed(given.value) then
        unchanged := unchanged + 1;
      else
        perform vital_private.subscribe(given.value, 'import');
        changed := changed || given.place;
      end if;
    exception
      when data_exception or integrity_constraint_violation then
        get stacked diagnostics problem = message_text, fix = pg_exception_hint;
        rejected := rejected || jsonb_build_object('row', given.place, 'problem', problem, 'hint', fix);
    end;
  end loop;
  perform set_config('vital_tracking.quotas_later', '', true);
  perform vital_private.open_quotas_of(g.organization_id, g.entity_type, g.ids)
  from (
    select
      e.value ->> 'organization_id' as organization_id, e.value ->> 'entity_type' as entity_type,
      array_agg(distinct e.value ->> 'entity_id') as ids
    from jsonb_array_elements(rows) with ordinality as e (value, place)
    where e.place - 1 = any(changed)
    group by 1, 2
    order by 1, 2
  ) as g;
  return json_build_object('set', cardinality(changed), 'unchanged', unchanged, 'refused', refused, 'rejected', rejected);
end;
$$;

-- Whether what a token says of a user's plan counts: none that was issued later was taken, as where an old one is sent once more, and nobody
-- has set a plan in place of the one that it wants.
create function vital_private.claim_counts(who text, wanted text, issued_at timestamptz) returns boolean
language sql
stable
set search_path = ''
as $$
  select not exists (
    select from public.subscriptions as s
    where s.entity_type = 'user' and s.entity_id = who and case s.source
      when 'claim' then s.claimed_at > coalesce(issued_at, '-infinity')
      else wanted is not null and coalesce(s.until, 'infinity') > now()
    end
  )
$$;

create function vital_private.claim_plan() returns json
language plpgsql
security definer
set search_path = ''
as $$
declare
  token constant jsonb := (select auth.jwt());
  claims constant jsonb := coalesce(token -> 'app_metadata', '{}');
  who constant text := token ->> 'sub';
  wanted constant text := claims ->> 'plan';
  issued_at constant timestamptz := to_timestamp((token ->> 'iat')::double precision);
  given constant jsonb := jsonb_strip_nulls(jsonb_build_object(
    'entity_type', 'user', 'entity_id', who, 'plan', wanted, 'reset_day', claims -> 'plan_reset_day', 'timezone', claims -> 'plan_timezone',
    'enforced', claims -> 'plan_enforced'
  ));
  as_wanted boolean;
begin
  as_wanted := case
    when who is null then true
    when wanted is null then not exists (
      select from public.subscriptions as s
      where s.entity_type = 'user' and s.entity_id = who and s.source = 'claim' and coalesce(s.until, 'infinity') > now()
    )
    else vital_private.is_subscribed(given) or not exists (select from public.plans as p where p.name = wanted)
  end;
  if as_wanted or not vital_private.claim_counts(who, wanted, issued_at) then
    return json_build_object('plan', wanted, 'changed', false);
  end if;
  perform vital_private.lock_budgets(alone => true);
  -- Another may have been taken while this one waited.
  if not vital_private.claim_counts(who, wanted, issued_at) then
    return json_build_object('plan', wanted, 'changed', false);
  elsif wanted is null then
    update public.subscriptions as s
    set until = clock_timestamp(), claimed_at = coalesce(issued_at, s.claimed_at)
    where s.entity_type = 'user' and s.entity_id = who and s.source = 'claim' and coalesce(s.until, 'infinity') > clock_timestamp();
  else
    perform vital_private.subscribe(given, 'claim', issued_at);
  end if;
  return json_build_object('plan', wanted, 'changed', true);
end;
$$;

-- Make a plan, or change it from an instant on (`valid_from`, by default now): a JSON object of columns of plans. What it does not name stays
-- as it was; null is unlimited. Versions are not overwritten.
create function public.set_plan_v1(plan text) returns json
language sql
set search_path = ''
as $$
  select vital_private.check_given('plan', plan);
  select vital_private.change_plan(plan)
$$;

-- Remove a plan with all its versions, if nobody is on it, or will be; subscriptions that have ended go on naming it. Answers {"removed": n
-- versions}, 0 where there was none, or {"refused": "not_an_operator"}.
create function public.remove_plan_v1(plan text) returns json
language sql
set search_path = ''
as $$
  select vital_private.check_given('plan', plan);
  select vital_private.remove_plan(plan)
$$;

-- Put a subscriber on a plan, or change what is named: a JSON object {"organization_id", "entity_type", "entity_id", "plan", "since", "until",
-- "reset_day", "timezone", "enforced"}. Answers {"subscription", "before", "starts_at", "ends_at", "calls_used", "tokens_used"}: what was used
-- in the month that runs stays used. A refusal is {"refused": "not_an_admin"}; what cannot be is {"problem", "hint"}.
create function public.set_subscription_v1(subscription text) returns json
language sql
set search_path = ''
as $$
  select vital_private.check_given('subscription', subscription);
  select vital_private.change_subscription(subscription)
$$;

-- End a subscription, with what was to follow it: a JSON object {"organization_id", "entity_type", "entity_id", "until"}, by default now. Its
-- limit ends with it. Answers {"ended": n}.
create function public.end_subscription_v1(subscription text) returns json
language sql
set search_path = ''
as $$
  select vital_private.check_given('subscription', subscription);
  select vital_private.close_subscription(subscription)
$$;

-- Set many subscriptions: a JSON array of at most 1,000 objects as set_subscription_v1 takes them. Each stands for itself: {"set", "unchanged",
-- "refused", "rejected": [{"row", "problem", "hint"}]}, of which `row` counts from 0.
create function public.set_subscriptions_v1(subscriptions text) returns json
language sql
set search_path = ''
as $$
  select vital_private.check_given('subscriptions', subscriptions);
  select vital_private.change_subscriptions(subscriptions)
$$;

-- Put the signed-in user on the plan that the claim `plan` of his token names, in `app_metadata`, which the identity provider alone writes; its
-- `plan_reset_day`, `plan_timezone` and `plan_enforced` go with it. A token that names none ends a subscription by a claim; one that is older
-- (`iat`) than the last one taken changes nothing. A subscription that somebody set otherwise stays. Answers {"plan"}, NULL where the token
-- names none, and whether that changed anything.
create function public.claim_plan_v1() returns json
language sql
set search_path = ''
as $$
  select vital_private.claim_plan()
$$;

select vital_private.restrict_functions(
  api => '{set_plan_v1, remove_plan_v1, set_subscription_v1, end_subscription_v1, set_subscriptions_v1, claim_plan_v1}',
  helpers => '{change_plan, remove_plan, change_subscription, close_subscription, change_subscriptions, claim_plan}'
);
