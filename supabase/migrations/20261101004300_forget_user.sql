-- Forgetting a user: afterwards nobody can tell what the person did, and every sum is what it was.
--
-- The person's calls of one minute that differ in nothing else become one row with their sums, without user, session, run ids, trace ids,
-- request hash, tags and metadata. So calls and aggregations keep their tokens and money. So does every window of a budget, except
-- those of the user's own budgets and of the user's sessions, which are deleted.

-- How far a user is forgotten already, under a digest of the id: {rows, calls, merged, runs}.
create table vital_private.forgettings (
  digest text not null,
  organization_id text,
  done jsonb not null default '{}',
  begun_at timestamptz not null default now(),
  constraint forgettings_key unique nulls not distinct (digest, organization_id)
);
select vital_private.restrict_relation('vital_private.forgettings');

comment on table vital_private.forgettings is 'Users of whom a part is forgotten; the rest follows when forget_user is called again.';

-- The digest that replaces a user's id in the audit. Whoever knows the id can look it up by its digest; nobody can read it from there.
create function vital_private.digest_of(name text) returns text
language sql
immutable
set search_path = ''
as $$
  select 'sha256:' || encode(sha256(convert_to(name, 'UTF8')), 'hex')
$$;

-- The sums of the counts of two calls, by the names of their units.
create function vital_private.add_units(one jsonb, other jsonb) returns jsonb
language sql
immutable
set search_path = ''
as $$
  select case
    when one is null or other is null then coalesce(one, other)
    else (
      select jsonb_object_agg(both_sides.key, both_sides.count)
      from (
        select u.key, sum(u.value::numeric) as count
        from (select * from jsonb_each_text(one) union all select * from jsonb_each_text(other)) as u
        group by u.key
      ) as both_sides
    )
  end
$$;

create aggregate vital_private.total_units (jsonb)(sfunc = vital_private.add_units, stype = jsonb);

-- Replace at most `max_rows` calls of a user by merged ones. The caller holds the lock of the budgets alone, so nobody records
-- or admits calls meanwhile. Answers {"rows", "calls", "merged"}.
create function vital_private.forget_calls(who text, organization text, max_rows integer) returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  answer jsonb;
  sessions text[];
  counted vital_private.counted_call[];
  postings vital_private.posting[];
begin
  with picked as materialized (
    select t.id, t.created_at
    from public.token_usage_logs as t
    where t.user_id = who and (organization is null or t.organization_id = organization)
    order by t.created_at
    limit max_rows
  ),

  gone as (
    delete from public.token_usage_logs as t
    using picked
    where t.id = picked.id and t.created_at = picked.created_at
    returning t.*
  ),

  merged as (
    insert into public.token_usage_logs (
      id, created_at, recorded_at, organization_id, service_type, service_id, service_name, agent_id, agent_name, agent_tier, agent_role,
      workflow_id, workflow_step, workflow_step_name, panel_id, panel_position, panel_size, solution_id, framework, provider, model,
      requested_model, sent_model, call_type, message_type, usage_estimated, price_version, priced, cache_hit, status, error_type,
      budget_action, metadata,
      calls, prompt_tokens, completion_tokens, total_tokens, cache_read_tokens, cache_write_tokens, cache_write_1h_tokens,
      reasoning_tokens, audio_tokens, audio_output_tokens, billed_units, input_cost, output_cost, fees, total_cost, potential_cost,
      ceiling_cost, reported_cost, latency_ms, ttft_ms, first_word_ms, throttled_ms
    )
    select
      vital_private.id_of(g.minute), g.minute, max(date_trunc('minute', g.recorded_at, 'UTC')), g.organization_id, g.service_type,
      -- Of a conversation, these identify the session.
      case when g.service_type is distinct from '1:1_conversation' then g.service_id end,
      case when g.service_type is distinct from '1:1_conversation' then g.service_name end,
      g.agent_id, g.agent_name, g.agent_tier, g.agent_role,
      g.workflow_id, g.workflow_step, g.workflow_step_name, g.panel_id, g.panel_position, g.panel_size, g.solution_id, g.framework,
      g.provider, g.model, g.requested_model, g.sent_model, g.call_type, g.message_type, g.usage_estimated, g.price_version, g.priced,
      g.cache_hit, g.status, g.error_type, g.budget_action, g.price_facts || '{"notes": ["forgotten"]}',
      sum(g.calls), sum(g.prompt_tokens), sum(g.completion_tokens), sum(g.total_tokens), sum(g.cache_read_tokens),
      sum(g.cache_write_tokens), sum(g.cache_write_1h_tokens), sum(g.reasoning_tokens), sum(g.audio_tokens),
      sum(g.audio_output_tokens), vital_private.total_units(g.billed_units), sum(g.input_cost), sum(g.output_cost), sum(g.fees),
      sum(g.total_cost), sum(g.potential_cost), sum(g.ceiling_cost), sum(g.reported_cost),
      case when sum(g.calls) = 1 then max(g.latency_ms) end, case when sum(g.calls) = 1 then max(g.ttft_ms) end,
      case when sum(g.calls) = 1 then max(g.first_word_ms) end, case when sum(g.calls) = 1 then max(g.throttled_ms) end
    from (
      select
        gone.*, date_trunc('minute', gone.created_at, 'UTC') as minute, vital_private.price_facts(gone.metadata) as price_facts,
        array(select jsonb_object_keys(gone.billed_units)) as units
      from gone
    ) as g
    group by
      g.minute, g.organization_id, g.service_type, 6, 7, g.agent_id, g.agent_name, g.agent_tier, g.agent_role, g.workflow_id,
      g.workflow_step, g.workflow_step_name, g.panel_id, g.panel_position, g.panel_size, g.solution_id, g.framework, g.provider,
      g.model, g.requested_model, g.sent_model, g.call_type, g.message_type, g.usage_estimated, g.price_version, g.priced, g.cache_hit,
      g.status, g.error_type, g.budget_action, g.price_facts, g.units, g.reported_cost is null,
      -- What is merged already, and what is absurdly large, stays a row of its own, because sums of such could overflow; so does an
      -- answer of several passes, of which there are no sums.
      case
        when g.calls > 1 or g.total_tokens > 1e15 or octet_length(g.billed_units::text) > 1024 or g.billed_units ? 'passes' then g.id
      end
    returning 1
  )

  select
    jsonb_build_object('rows', count(*), 'calls', coalesce(sum(g.calls), 0), 'merged', (select count(*) from merged)),
    array_agg(distinct g.session_id) filter (where g.session_id is not null),
    array_agg(vital_private.counted(g.call, -1))
  into answer, sessions, counted
  from (select gone.calls, gone.session_id, gone::public.token_usage_logs as call from gone) as g;

  -- Only the windows of the user and of sessions counted the calls for who made them, so they no longer count there.
  select array_agg(p order by p.budget_id, p.entity_id, p.period, p.starts_at) into postings
  from unnest(vital_private.postings_of(counted)) as p
  join public.budget_limits as b on b.id = p.budget_id
  where b.entity_type in ('user', 'session');
  update public.budget_windows as w
  set spent = w.spent + p.amount
  from unnest(postings) as p
  where w.budget_id = p.budget_id and w.entity_id = p.entity_id and w.period = p.period and w.starts_at = p.starts_at;
  perform vital_private.forget_entity('session', sessions, null);
  return answer;
end;
$$;

-- A new id for a row of a minute, a UUIDv7 like all the others.
create function vital_private.id_of(moment timestamptz) returns uuid
language sql
volatile
set search_path = ''
as $$
  select (
    lpad(to_hex((extract(epoch from moment) * 1000)::bigint), 12, '0') || '7' || substr(replace(gen_random_uuid()::text, '-', ''), 14)
  )::uuid
$$;

-- Remove what budgets hold under the names of entities: windows with their grants, alerts, and limits of their own. Windows of sessions
-- stay if others have spent in them too.
create function vital_private.forget_entity(kind text, names text[], organization text) returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  windows bigint;
  alerts bigint;
  limits bigint;
begin
  delete from public.budget_windows as w
  using public.budget_limits as b
  where b.id = w.budget_id and b.entity_type = kind and w.entity_id = any(names)
    -- The window of a budget for all organizations together goes only if nothing of the other organizations is left in it.
    and (organization is null or b.organization_id = organization or (b.organization_id is null and w.spent <= 0))
    and (kind = 'user' or w.spent <= 0 or w.starts_at < vital_private.rows_kept_since());
  get diagnostics windows = row_count;
  delete from public.cost_alerts as a
  where a.entity_type = kind and a.entity_id = any(names)
    and (organization is null or a.organization_id is null or a.organization_id = organization)
    and not exists (select from public.budget_windows as w where w.budget_id = a.budget_id and w.entity_id = a.entity_id);
  get diagnostics alerts = row_count;
  delete from public.subscriptions as s
  where s.entity_type = kind and s.entity_id = any(names) and (organization is null or s.organization_id = organization);
  delete from vital_private.budget_overrides as o
  where o.entity_type = kind and o.entity_id = any(names) and (organization is null or o.organization_id = organization);
  delete from public.budget_limits as b
  where b.entity_type = kind and b.entity_id = any(names) and b.entity_id <> '*'
    and (organization is null or b.organization_id = organization)
    and not exists (select from public.budget_windows as w where w.budget_id = b.id);
  get diagnostics limits = row_count;
  if kind = 'user' then
    perform vital_private.forget_abuse(names, organization);
    perform vital_private.forget_advice(names, organization);
  end if;
  if kind = 'session' then -- the names of users in the audit are replaced at the very end
    perform set_config('vital_tracking.audit_may_change', 'on', true);
    update public.admin_audit as a
    set key = a.key || jsonb_build_object('entity_id', vital_private.digest_of(a.key ->> 'entity_id'))
    where a.key ->> 'entity_type' = 'session' and a.key ->> 'entity_id' = any(names);
    perform set_config('vital_tracking.audit_may_change', '', true);
  end if;
  return jsonb_build_object('windows', windows, 'alerts', alerts, 'limits', limits);
end;
$$;

-- Remove what was found of users, marks of that, and what was usual for them; whoever decided about others is named no more.
create function vital_private.forget_abuse(names text[], organization text) returns void
language plpgsql
set search_path = ''
as $$
begin
  delete from public.abuse_findings as f
  where ((f.subject_kind = 'user' and f.subject = any(names)) or (f.entity_type = 'user' and f.entity_id = any(names)))
    and (organization is null or f.organization_id = organization);
  delete from vital_private.abuse_marks as m
  using vital_private.abuse_patterns as p
  where p.pattern = m.pattern and p.kind = 'user' and m.subject = any(names) and (organization is null or m.organization_id = organization);
  delete from vital_private.abuse_days as d
  where d.kind = 'user' and d.subject = any(names) and (organization is null or d.organization_id = organization);
  update public.abuse_findings as f
  set decided_by = vital_private.digest_of(f.decided_by)
  where f.decided_by = any(names) and (organization is null or f.organization_id = organization);
  update vital_private.abuse_marks as m
  set marked_by = vital_private.digest_of(m.marked_by)
  where m.marked_by = any(names) and (organization is null or m.organization_id = organization);
end;
$$;

-- A text of words between spaces, without the signs around them.
create function vital_private.spaced(words text) returns text
language sql
immutable
set search_path = ''
as $$
  select ' ' || translate(words, E'''"`:;,()=\n', '          ') || ' '
$$;

-- Remove what was advised about users; whoever decided about the rest is named no more.
create function vital_private.forget_advice(names text[], organization text) returns void
language plpgsql
set search_path = ''
as $$
begin
  delete from public.recommendations as r
  where (organization is null or r.organization_id = organization)
    and exists (
      select from unnest(names) as n (name)
      where exists (select from jsonb_each_text(r.evidence || r.subject) as t where t.value = n.name)
        -- Advice about budgets names whom they stand on.
        or strpos(vital_private.spaced(concat_ws(' ', r.current, r.recommended, r.command)), vital_private.spaced(n.name)) > 0
    );
  update public.recommendations as r
  set decided_by = vital_private.digest_of(r.decided_by)
  where r.decided_by = any(names) and (organization is null or r.organization_id = organization);
end;
$$;

-- Strip at most `max_rows` service runs of a user of everything but what ran, when (to the minute), how long and how it ended.
create function vital_private.forget_runs(who text, organization text, max_rows integer) returns bigint
language plpgsql
set search_path = ''
as $$
declare
  changed bigint;
begin
  update public.service_runs as r
  set
    id = 'forgotten-' || gen_random_uuid(), parent_run_id = null, ancestor_run_ids = '{}', user_id = null, session_id = null,
    service_id = case when r.service_type <> '1:1_conversation' then r.service_id end,
    service_name = case when r.service_type <> '1:1_conversation' then r.service_name end,
    metadata = '{}', recorded_at = date_trunc('minute', r.recorded_at, 'UTC'), started_at = date_trunc('minute', r.started_at, 'UTC'),
    ended_at = date_trunc('minute', r.started_at, 'UTC') + (r.ended_at - r.started_at)
  where r.ctid = any(array(
    select k.ctid from public.service_runs as k
    where k.user_id = who and (organization is null or k.organization_id = organization)
    limit max_rows
  ));
  get diagnostics changed = row_count;
  return changed;
end;
$$;

-- Take a user out of at most `max_rows` events, costs and executions each: what happened and what it cost stays, to the minute, without
-- who, session, address, page and details. Their sums follow. Answers {"events", "costs", "executions"}.
create function vital_private.forget_platform(who text, organization text, max_rows integer) returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  events bigint;
  costs bigint;
  executions bigint;
begin
  update public.platform_events as e
  set
    id = vital_private.id_of(date_trunc('minute', e.occurred_at, 'UTC')), occurred_at = date_trunc('minute', e.occurred_at, 'UTC'),
    recorded_at = date_trunc('minute', e.recorded_at, 'UTC'), user_id = null, session_id = null, ip_hash = null, source = null,
    properties = '{}'
  from (
    select k.id, k.occurred_at from public.platform_events as k
    where k.user_id = who and (organization is null or k.organization_id = organization)
    limit max_rows
  ) as k
  where e.id = k.id and e.occurred_at = k.occurred_at;
  get diagnostics events = row_count;
  update public.tenant_cost_events as c
  set
    id = vital_private.id_of(date_trunc('minute', c.occurred_at, 'UTC')), occurred_at = date_trunc('minute', c.occurred_at, 'UTC'),
    recorded_at = date_trunc('minute', c.recorded_at, 'UTC'), user_id = null, metadata = '{}'
  from (
    select k.id, k.occurred_at from public.tenant_cost_events as k
    where k.user_id = who and (organization is null or k.organization_id = organization)
    limit max_rows
  ) as k
  where c.id = k.id and c.occurred_at = k.occurred_at;
  get diagnostics costs = row_count;
  update public.agent_executions as x
  set
    id = vital_private.id_of(date_trunc('minute', x.started_at, 'UTC')), started_at = date_trunc('minute', x.started_at, 'UTC'),
    recorded_at = date_trunc('minute', x.recorded_at, 'UTC'), user_id = null, service_run_id = null, metadata = '{}'
  from (
    select k.id, k.started_at from public.agent_executions as k
    where k.user_id = who and (organization is null or k.organization_id = organization)
    limit max_rows
  ) as k
  where x.id = k.id and x.started_at = k.started_at;
  get diagnostics executions = row_count;
  return jsonb_build_object('events', events, 'costs', costs, 'executions', executions);
end;
$$;

-- For days whose rows were deleted, the sums under the user's name move to no name. Empty sums are deleted.
create function vital_private.forget_sums(who text, organization text) returns bigint
language plpgsql
set search_path = ''
as $$
declare
  moved bigint;
begin
  perform vital_private.forget_platform_sums(who, organization);
  execute (
    select vital_private.adding_to(
      a,
      format(
        '(select organization_id, day, null::text as user_id, service_type, call_type, %s
          from public.usage_aggregations_daily_users
          where user_id = $1 and ($2 is null or organization_id = $2) and calls <> 0)',
        array_to_string(vital_private.kept_measures(), ', ')
      )
    )
    from vital_private.usage_aggregations as a
    where a.target = 'usage_aggregations_daily_users'
  ) using who, organization;
  get diagnostics moved = row_count;
  delete from public.usage_aggregations_daily_users as u
  where u.user_id = who and (organization is null or u.organization_id = organization);
  return moved;
end;
$$;

-- The same for the sums of events and costs.
create function vital_private.forget_platform_sums(who text, organization text) returns void
language plpgsql
set search_path = ''
as $$
declare
  of_users record;
begin
  for of_users in
    select
      c.target,
      string_agg(c.name, ', ' order by c.position) as columns,
      string_agg(c.name, ', ' order by c.position) filter (where c.is_key) as keys,
      -- Neither who it was nor in which session.
      string_agg(
        case
          when c.name in ('user_id', 'session_id') then 'null'
          when c.is_key then 'g.' || c.name
          else format('sum(g.%I)', c.name)
        end, ', ' order by c.position
      ) as moved,
      string_agg('g.' || c.name, ', ' order by c.position) filter (where c.is_key and c.name not in ('user_id', 'session_id')) as groups,
      string_agg(format('%1$I = known.%1$I + excluded.%1$I', c.name), ', ' order by c.position) filter (where not c.is_key) as added
    from vital_private.platform_sums as c
    group by c.target
    having bool_or(c.name = 'user_id')
  loop
    execute format(
      'with g as (
        delete from public.%1$I as u where u.user_id = $1 and ($2 is null or u.organization_id = $2) returning u.*
      )
      insert into public.%1$I as known (%2$s) select %3$s from g group by %4$s on conflict (%5$s) do update set %6$s',
      of_users.target, of_users.columns, of_users.moved, of_users.groups, of_users.keys, of_users.added
    ) using who, organization;
  end loop;
end;
$$;

-- Replace a user's id in the audit by its digest.
create function vital_private.forget_in_audit(who text, organization text) returns void
language plpgsql
set search_path = ''
as $$
declare
  digest constant text := vital_private.digest_of(who);
begin
  perform set_config('vital_tracking.audit_may_change', 'on', true);
  update public.admin_audit as a
  set
    actor = case when a.actor = who then digest else a.actor end,
    key = a.key || case
      when a.key ->> 'user_id' = who then jsonb_build_object('user_id', digest)
      when a.key ->> 'entity_type' = 'user' and a.key ->> 'entity_id' = who then jsonb_build_object('entity_id', digest)
      else '{}'
    end,
    changes = a.changes || coalesce((
      select jsonb_object_agg(c.key, (
        select jsonb_agg(case when v.value = to_jsonb(who) then to_jsonb(digest) else v.value end order by v.ordinality)
        from jsonb_array_elements(c.value) with ordinality as v
      ))
      from jsonb_each(a.changes) as c
      where c.key in ('user_id', 'entity_id') and jsonb_typeof(c.value) = 'array'
    ), '{}')
  where (organization is null or a.organization_id = organization)
    and (
      a.actor = who or a.key ->> 'user_id' = who or (a.key ->> 'entity_type' = 'user' and a.key ->> 'entity_id' = who)
      or a.changes -> 'user_id' @> to_jsonb(who) or a.changes -> 'entity_id' @> to_jsonb(who)
    );
  perform set_config('vital_tracking.audit_may_change', '', true);
end;
$$;

-- Forget a user, in one organization or in all: `max_rows` calls and service runs at a time, because nobody can record or admit calls
-- meanwhile (half a second for a thousand). Call it again until it answers {"done": true}; further calls change nothing. Calls that
-- are still in the spool of a process will be recorded under the user's name; then call it once more.
create function public.forget_user(user_id text, organization_id text default null, max_rows integer default 5000) returns json
language plpgsql
security definer
set search_path = ''
set statement_timeout = '15min'
as $$
declare
  who constant text := forget_user.user_id;
  organization constant text := forget_user.organization_id;
  limit_rows constant integer := greatest(coalesce(max_rows, 5000), 1);
  calls jsonb;
  runs bigint;
  platform jsonb;
  own jsonb := '{}';
  total jsonb;
  members bigint := 0;
  sums bigint := 0;
  finished boolean;
begin
  if coalesce(who, '') = '' then
    raise exception 'Whom? user_id is empty.' using errcode = '22023';
  end if;
  -- Findings before budgets, as whoever decides about one locks them.
  perform from public.abuse_findings as f
  where (f.subject = who or f.entity_id = who) and (organization is null or f.organization_id = organization)
  order by f.id
  for update;
  perform vital_private.lock_budgets(alone => true);
  calls := vital_private.forget_calls(who, organization, limit_rows);
  runs := vital_private.forget_runs(who, organization, limit_rows);
  platform := vital_private.forget_platform(who, organization, limit_rows);
  finished := (calls ->> 'rows')::bigint < limit_rows and runs < limit_rows
    and not exists (select from jsonb_each_text(platform) as p where p.value::bigint >= limit_rows);
  insert into vital_private.forgettings as known (digest, organization_id, done)
  values (vital_private.digest_of(who), organization, calls || jsonb_build_object('runs', runs) || platform)
  on conflict on constraint forgettings_key do update set done = (
    select jsonb_object_agg(d.key, d.value::text::bigint + coalesce((known.done ->> d.key)::bigint, 0))
    from jsonb_each(excluded.done) as d
  )
  returning known.done into total;
  if finished then
    own := vital_private.forget_entity('user', array[who], organization);
    delete from public.organization_members as m
    where m.user_id = who and (organization is null or m.organization_id = organization);
    get diagnostics members = row_count;
    delete from public.saved_reports as s
    where organization is null and (s.owner = who or s.asked @> jsonb_build_array(jsonb_build_array('user', who)));
    sums := vital_private.forget_sums(who, organization);
    perform vital_private.forget_in_audit(who, organization);
    total := total || own || jsonb_build_object('memberships', members, 'sums', sums);
    if exists (select from jsonb_each_text(total) as t where t.value <> '0') then
      perform vital_private.note(
        'token_usage_logs', 'forget_user', organization, jsonb_build_object('user', vital_private.digest_of(who)), total
      );
    end if;
    delete from vital_private.forgettings as f
    where f.digest = vital_private.digest_of(who) and f.organization_id is not distinct from organization;
  end if;
  return json_build_object(
    'done', finished, 'rows', calls -> 'rows', 'runs', runs, 'total', total, 'digest', vital_private.digest_of(who)
  );
end;
$$;

comment on function public.forget_user(text, text, integer) is
'Removes a person from calls, runs, sums and budgets; all sums stay. Run it until it answers done.';

-- The same for whoever asks: the service role in any organization or in all, a signed-in admin in that one, a few calls at a time. A try
-- that is refused is audited, so a refusal is an answer: {"refused": "not_an_admin"}, or 'is_the_last_admin', who stays one.
create function vital_private.forget_asked(who text, organization text, max_rows integer) returns json
language plpgsql
security definer
set search_path = ''
as $$
declare
  reason text;
begin
  if coalesce(who, '') = '' then
    raise exception 'Whom? user_id is empty.' using errcode = '22023';
  end if;
  if not vital_private.by_a_user() then
    return public.forget_user(who, organization, max_rows);
  end if;
  if not vital_private.may_change(organization) then
    reason := 'not_an_admin';
  elsif vital_private.is_last_admin(organization, who) then
    reason := 'is_the_last_admin';
  end if;
  if reason is not null then
    perform vital_private.note(
      'token_usage_logs', 'refused', left(organization, 255), jsonb_build_object('user_id', left(who, 255)),
      jsonb_build_object('change', jsonb_build_array(null, 'forget_user'))
    );
    return json_build_object('refused', reason);
  end if;
  return public.forget_user(who, organization, least(max_rows, 1000));
end;
$$;

create function public.forget_user_v1(user_id text, organization_id text default null, max_rows integer default 500) returns json
language sql
set search_path = ''
as $$
  select vital_private.forget_asked(user_id, organization_id, coalesce(max_rows, 500))
$$;

-- What is stored about a user, as far as the caller may see it: {"rows", "calls", "total_cost", "unpriced_calls", "runs", "events",
-- "costs", "executions", "windows", "memberships", "days", "first", "last"}.
create function public.user_traces_v1(user_id text, organization_id text default null) returns json
language sql
stable
set search_path = ''
as $$
  select vital_private.check_given('user_id', user_id);
  select json_build_object(
    'events', (
      select count(*) from public.platform_events as e
      where e.user_id = user_traces_v1.user_id
        and (user_traces_v1.organization_id is null or e.organization_id = user_traces_v1.organization_id)
    ),
    'costs', (
      select count(*) from public.tenant_cost_events as e
      where e.user_id = user_traces_v1.user_id
        and (user_traces_v1.organization_id is null or e.organization_id = user_traces_v1.organization_id)
    ),
    'executions', (
      select count(*) from public.agent_executions as e
      where e.user_id = user_traces_v1.user_id
        and (user_traces_v1.organization_id is null or e.organization_id = user_traces_v1.organization_id)
    ),
    'rows', c.rows, 'calls', c.calls, 'total_cost', c.total_cost::text, 'unpriced_calls', c.unpriced_calls,
    'first', c.first, 'last', c.last,
    'runs', (
      select count(*) from public.service_runs as r
      where r.user_id = user_traces_v1.user_id
        and (user_traces_v1.organization_id is null or r.organization_id = user_traces_v1.organization_id)
    ),
    'windows', (
      select count(*)
      from public.budget_windows as w
      join public.budget_limits as b on b.id = w.budget_id
      where b.entity_type = 'user' and w.entity_id = user_traces_v1.user_id
        and (user_traces_v1.organization_id is null or b.organization_id = user_traces_v1.organization_id)
    ),
    'memberships', (
      select count(*) from public.organization_members as m
      where m.user_id = user_traces_v1.user_id
        and (user_traces_v1.organization_id is null or m.organization_id = user_traces_v1.organization_id)
    ),
    'days', (
      select count(distinct d.day)
      from (
        select u.day, u.organization_id from public.usage_aggregations_daily_users as u where u.user_id = user_traces_v1.user_id
        union all
        select e.day, e.organization_id from public.platform_events_daily_sessions as e where e.user_id = user_traces_v1.user_id
        union all
        select c.day, c.organization_id from public.tenant_costs_daily as c where c.user_id = user_traces_v1.user_id
      ) as d
      where user_traces_v1.organization_id is null or d.organization_id = user_traces_v1.organization_id
    )
  )
  from (
    select
      count(*) as rows, coalesce(sum(t.calls), 0) as calls, coalesce(sum(t.total_cost), 0) as total_cost,
      coalesce(sum(t.calls) filter (where not t.priced), 0) as unpriced_calls, min(t.created_at) as first, max(t.created_at) as last
    from public.token_usage_logs as t
    where t.user_id = user_traces_v1.user_id
      and (user_traces_v1.organization_id is null or t.organization_id = user_traces_v1.organization_id)
  ) as c
$$;

select vital_private.restrict_functions(api => '{forget_user, forget_user_v1, user_traces_v1}', helpers => '{forget_asked}');
