-- How a tenant (an organization) fares, from 0 to 100: 30 % engagement, 40 % performance, 30 % quality.
--
--   engagement   the mean of three parts, each of them at most 100:
--                users      of the users that are known (members, and whoever was active in as many days before), percent active
--                sessions   of an active user in a week; three are 100
--                events     of a session, calls to models among them; ten are 100
--   performance  percent of executions of agents that succeeded; where none is recorded, of calls to models (blocked ones were never made)
--   quality      the mean of what is known of: ratings (1 is 0, 5 is 100), and the mean of the four scores of RAGAS and its kin
-- What is not known is NULL, never 0, and the rest counts for the whole. Only silence counts: a tenant that is known, and of whom there is
-- nothing at all, has an engagement of 0. All of it comes from sums by day (UTC).

create function vital_private.check_tenant(tenant_id text) returns void
language plpgsql
stable
set search_path = ''
as $$
begin
  if tenant_id is null then
    raise exception 'Which tenant?' using errcode = '22023', hint = 'Name an organization; top_usage(''organization'') lists them.';
  end if;
end;
$$;

-- What tenants did in windows of so many days: the first ends today, each other `step` days before the one before it. Its reader's rights
-- decide whose rows are among them.
create function vital_private.tenant_measures(organization text, days integer, windows integer, step integer)
returns table (
  organization_id text,
  place integer,
  last_day date,
  known_users bigint,
  active_users bigint,
  sessions bigint,
  events bigint,
  executions bigint,
  succeeded bigint,
  made_calls bigint,
  answered_calls bigint,
  ratings bigint,
  rating numeric,
  scores bigint,
  score numeric,
  newest date,
  oldest date
)
language plpgsql
stable
set search_path = ''
set timezone = 'UTC'
set jit = off
set work_mem = '64MB'
as $$
declare
  today constant date := now()::date;
  first_day constant date := today - (windows - 1) * step - 2 * days + 1;
begin
  return query
  with frames as materialized (
    select w.place, today - w.place * step as ends from generate_series(0, windows - 1) as w (place)
  ),

  -- A day of a user. A session counts on each of its days; a day without one that was recorded counts as a session.
  user_days as materialized (
    select
      u.organization_id, u.user_id, u.day, sum(u.events)::bigint as events, sum(u.made)::bigint as made,
      sum(u.answered)::bigint as answered,
      greatest(count(distinct u.session_id), case when u.user_id is null then 0 else 1 end) as sessions
    from (
      select s.organization_id, s.user_id, s.day, s.session_id, s.events, 0 as made, 0 as answered
      from public.platform_events_daily_sessions as s
      where s.day >= first_day and s.events > 0 and s.organization_id is not null
        and (organization is null or s.organization_id = organization)
      union all
      select d.organization_id, d.user_id, d.day, null, d.calls, d.calls - d.blocked_calls, d.calls - d.failed_calls
      from public.usage_aggregations_daily_users as d
      where d.day >= first_day and d.calls > 0 and d.organization_id is not null
        and (organization is null or d.organization_id = organization)
    ) as u
    group by u.organization_id, u.user_id, u.day
  ),

  tenants as materialized (
    select t.organization_id, min(t.day) as oldest
    from (
      select d.organization_id, d.day from user_days as d
      union all
      select m.organization_id, null from public.organization_members as m
      where organization is null or m.organization_id = organization
    ) as t
    group by t.organization_id
  ),

  -- Whoever is known in a window, and whether they were active in it.
  people as (
    select k.organization_id, k.place, k.user_id, bool_or(k.active) as active
    from (
      select d.organization_id, f.place, d.user_id, d.day > f.ends - days as active
      from frames as f
      join user_days as d on d.day <= f.ends and d.day > f.ends - 2 * days
      where d.user_id is not null
      union all
      select m.organization_id, f.place, m.user_id, false
      from public.organization_members as m
      join frames as f on m.created_at < f.ends + 1
      where organization is null or m.organization_id = organization
    ) as k
    group by k.organization_id, k.place, k.user_id
  ),

  counted as (
    select
      p.organization_id, p.place, count(*) as known_users, count(*) filter (where p.active) as active_users
    from people as p
    group by p.organization_id, p.place
  ),

  done as (
    select
      d.organization_id, f.place, sum(d.sessions)::bigint as sessions, sum(d.events)::bigint as events, sum(d.made)::bigint as made,
      sum(d.answered)::bigint as answered, max(d.day) as newest
    from frames as f
    join user_days as d on d.day <= f.ends and d.day > f.ends - days
    group by d.organization_id, f.place
  ),

  executed as (
    select
      x.organization_id, f.place, sum(x.executions)::bigint as executions, sum(x.succeeded)::bigint as succeeded,
      sum(x.rated)::bigint as ratings, sum(x.rating) as rating, max(x.day) as newest,
      sum(x.scores)::bigint as scores, sum(x.score) as score
    from frames as f
    join (
      select
        h.organization_id, h.hour_start::date as day, h.executions, h.succeeded, h.rated, h.rating,
        h.faithfulness_scores + h.answer_relevancy_scores + h.context_precision_scores + h.context_recall_scores as scores,
        h.faithfulness + h.answer_relevancy + h.context_precision + h.context_recall as score
      from public.agent_executions_hourly as h
      where h.hour_start >= first_day::timestamptz and h.executions > 0 and (organization is null or h.organization_id = organization)
      union all
      select
        o.organization_id, o.started_at::date, 1, o.success::integer, num_nonnulls(o.rating), coalesce(o.rating, 0),
        num_nonnulls(o.faithfulness, o.answer_relevancy, o.context_precision, o.context_recall),
        coalesce(o.faithfulness, 0) + coalesce(o.answer_relevancy, 0) + coalesce(o.context_precision, 0) + coalesce(o.context_recall, 0)
      from vital_private.own_executions(first_day::timestamptz) as o
      where organization is null or o.organization_id = organization
    ) as x on x.day <= f.ends and x.day > f.ends - days
    where x.organization_id is not null
    group by x.organization_id, f.place
  )

  select
    t.organization_id, f.place, f.ends, coalesce(c.known_users, 0), coalesce(c.active_users, 0),
    -- Before there was anything of it, and anybody in it, nothing is known; afterwards, nothing is 0.
    case when coalesce(d.sessions, c.known_users, x.executions) is not null or t.oldest <= f.ends then coalesce(d.sessions, 0) end,
    case when coalesce(d.sessions, c.known_users, x.executions) is not null or t.oldest <= f.ends then coalesce(d.events, 0) end,
    coalesce(x.executions, 0), coalesce(x.succeeded, 0), coalesce(d.made, 0),
    coalesce(d.answered, 0), coalesce(x.ratings, 0), x.rating, coalesce(x.scores, 0), x.score,
    greatest(d.newest, x.newest), t.oldest
  from (
    select coalesce(a.organization_id, e.organization_id) as organization_id, min(a.oldest) as oldest
    from tenants as a
    full join (select distinct executed.organization_id from executed) as e on e.organization_id = a.organization_id
    group by 1
  ) as t
  cross join frames as f
  left join counted as c on c.organization_id = t.organization_id and c.place = f.place
  left join done as d on d.organization_id = t.organization_id and d.place = f.place
  left join executed as x on x.organization_id = t.organization_id and x.place = f.place;
end;
$$;

-- The scores of what a tenant did. NULL: not known.
create function vital_private.health_scores(
  days integer, known_users bigint, active_users bigint, sessions bigint, events bigint, executions bigint, succeeded bigint,
  made_calls bigint, answered_calls bigint, ratings bigint, rating numeric, scores bigint, score numeric
)
returns table (
  users_score numeric,
  sessions_score numeric,
  events_score numeric,
  engagement numeric,
  performance numeric,
  rating_score numeric,
  scores_score numeric,
  quality numeric,
  health numeric
)
language sql
immutable
set search_path = ''
as $$
  select
    round(p.users, 2), round(p.sessions, 2), round(p.events, 2), round(g.engagement, 2), round(p.performance, 2),
    round(p.rated, 2), round(p.scored, 2), round(g.quality, 2),
    round(
      (coalesce(0.3 * g.engagement, 0) + coalesce(0.4 * p.performance, 0) + coalesce(0.3 * g.quality, 0))
      / nullif(
        case when g.engagement is null then 0 else 0.3 end + case when p.performance is null then 0 else 0.4 end
        + case when g.quality is null then 0 else 0.3 end, 0
      ), 2
    )
  from (
    select
      100.0 * active_users / nullif(known_users, 0) as users,
      case when active_users > 0 then least(100 * (sessions * 7.0 / (days * active_users)) / 3, 100) end as sessions,
      case when sessions > 0 then least(100.0 * events / sessions / 10, 100) end as events,
      100.0 * case when executions > 0 then succeeded else answered_calls end
      / nullif(case when executions > 0 then executions else made_calls end, 0) as performance,
      (rating / nullif(ratings, 0) - 1) / 4 * 100 as rated,
      score / nullif(scores, 0) * 100 as scored
  ) as p
  cross join lateral (
    select
      case
        when health_scores.events = 0 and health_scores.executions = 0 then 0
        else
          (coalesce(p.users, 0) + coalesce(p.sessions, 0) + coalesce(p.events, 0)) / nullif(num_nonnulls(p.users, p.sessions, p.events), 0)
      end as engagement,
      (coalesce(p.rated, 0) + coalesce(p.scored, 0)) / nullif(num_nonnulls(p.rated, p.scored), 0) as quality
  ) as g
$$;

-- A tenant in a window, with what its health was made of.
create type vital_private.health_window as (
  organization_id text,
  place integer,
  last_day date,
  health numeric,
  engagement numeric,
  performance numeric,
  quality numeric,
  users_score numeric,
  sessions_score numeric,
  events_score numeric,
  rating_score numeric,
  scores_score numeric,
  known_users bigint,
  active_users bigint,
  sessions bigint,
  events bigint,
  executions bigint,
  succeeded bigint,
  made_calls bigint,
  answered_calls bigint,
  ratings bigint,
  avg_rating numeric,
  scores bigint,
  avg_score numeric,
  newest date,
  is_new boolean
);

-- The health of tenants by windows, the newest being 0.
create function vital_private.health_by_window(organization text, days integer, windows integer, step integer)
returns setof vital_private.health_window
language sql
stable
set search_path = ''
as $$
  select
    m.organization_id, m.place, m.last_day, s.health, s.engagement, s.performance, s.quality, s.users_score, s.sessions_score,
    s.events_score, s.rating_score, s.scores_score, m.known_users, m.active_users, m.sessions, m.events, m.executions, m.succeeded,
    m.made_calls, m.answered_calls, m.ratings, round(m.rating / nullif(m.ratings, 0), 4), m.scores,
    round(m.score / nullif(m.scores, 0), 6), m.newest,
    coalesce(m.oldest > m.last_day - days, false)
  from vital_private.tenant_measures(organization, days, windows, step) as m
  cross join lateral vital_private.health_scores(
    days, m.known_users, m.active_users, m.sessions, m.events, m.executions, m.succeeded, m.made_calls, m.answered_calls, m.ratings,
    m.rating, m.scores, m.score
  ) as s
$$;

-- Why a tenant's health is what it is: what costs it most comes first, what is not known last.
create function vital_private.health_reasons(this vital_private.health_window, before vital_private.health_window, days integer)
returns text[]
language sql
immutable
set search_path = ''
as $$
  select coalesce(array_agg(r.said order by r.place, r.lost desc), '{}')
  from (
    select
      1 as place, 0 as lost,
      case
        when this.health is null then 'Nothing is known of it.'
        when this.newest is null then format('Silent: there was nothing of it in the last %s days.', days)
        when this.is_new then format('New: nothing of it is known from before these %s days, so there is no trend.', days)
        when this.health <= before.health - 10 then format(
          'Fell by %s points, from %s in the %s days before; most of it by %s.', round(before.health - this.health), round(before.health),
          days,
          (
            select c.part
            from (
              values
                ('engagement', 0.3 * (before.engagement - this.engagement)),
                ('performance', 0.4 * (before.performance - this.performance)),
                ('quality', 0.3 * (before.quality - this.quality))
            ) as c (part, fell)
            order by c.fell desc nulls last
            limit 1
          )
        )
      end as said
    union all
    select 2, 10 - this.users_score / 10, format('%s of %s known users were active.', this.active_users, this.known_users)
    where this.users_score < 100
    union all
    select
      2, 10 - this.sessions_score / 10,
      format(
        '%s sessions of an active user in a week; 3 are 100.', round(this.sessions * 7.0 / (days * nullif(this.active_users, 0)), 1)
      )
    where this.sessions_score < 100
    union all
    select
      2, 10 - this.events_score / 10, format('%s events and calls a session; 10 are 100.', round(1.0 * this.events / nullif(this.sessions, 0), 1))
    where this.events_score < 100
    union all
    select
      2, 40 - 0.4 * this.performance,
      case
        when this.executions > 0 then
          format('%s of %s executions of agents failed.', this.executions - this.succeeded, this.executions)
        else
          format(
            '%s of %s calls to models failed; no execution of an agent is recorded.', this.made_calls - this.answered_calls, this.made_calls
          )
      end
    where this.performance < 100
    union all
    select 2, (100 - this.rating_score) * 0.15, format('Users rate it %s of 5 (%s ratings).', round(this.avg_rating, 1), this.ratings)
    where this.rating_score < 100
    union all
    select 2, (100 - this.scores_score) * 0.15, format('Its answers score %s of 1 (%s scores).', round(this.avg_score, 2), this.scores)
    where this.scores_score < 100
    union all
    select
      3, 0,
      format(
        'Not known: %s; the rest counts for the whole.',
        concat_ws(
          ', ', case when this.engagement is null then 'engagement (no users are recorded)' end,
          case when this.performance is null then 'performance (no agent ran)' end,
          case when this.quality is null then 'quality (no ratings, no scores)' end
        )
      )
    where this.health is not null and num_nulls(this.engagement, this.performance, this.quality) > 0
  ) as r
  where r.said is not null
$$;

-- How all tenants fare that the caller may see, the least healthy first: the last days, today among them, beside as many days before. `trend` is
-- the points gained; NULL where there is nothing to compare with. A signed-in user who administers none is answered from what is their own.
--   select * from tenant_health(days => 30)
create function public.tenant_health(organization text default null, days integer default 30)
returns table (
  organization_id text,
  health numeric,
  trend numeric,
  engagement numeric,
  performance numeric,
  quality numeric,
  reasons text[],
  users_score numeric,
  sessions_score numeric,
  events_score numeric,
  rating_score numeric,
  scores_score numeric,
  known_users bigint,
  active_users bigint,
  sessions bigint,
  events bigint,
  executions bigint,
  succeeded bigint,
  made_calls bigint,
  answered_calls bigint,
  ratings bigint,
  avg_rating numeric,
  scores bigint,
  avg_score numeric,
  newest date,
  is_new boolean
)
language plpgsql
stable
set search_path = ''
set statement_timeout = '8s'
set jit = off
as $$
#variable_conflict use_column
declare
  span constant integer := coalesce(tenant_health.days, 30);
begin
  if span not between 1 and 365 then
    raise exception 'days must be a number from 1 to 365.' using errcode = '22023', hint = 'For the last month: 30.';
  end if;
  return query
  with every_window as materialized (
    select w from vital_private.health_by_window(organization, span, 2, span) as w
  )

  select
    this.organization_id, this.health, case when not this.is_new then this.health - (b.w).health end,
    this.engagement, this.performance, this.quality, vital_private.health_reasons(this, b.w, span),
    this.users_score, this.sessions_score, this.events_score, this.rating_score, this.scores_score, this.known_users, this.active_users,
    this.sessions, this.events, this.executions, this.succeeded, this.made_calls, this.answered_calls, this.ratings, this.avg_rating,
    this.scores, this.avg_score, this.newest, this.is_new
  from every_window as a
  cross join lateral (select (a.w).*) as this
  left join every_window as b on (b.w).organization_id = this.organization_id and (b.w).place = 1
  where (a.w).place = 0
  order by this.health nulls last, this.organization_id;
end;
$$;

comment on function public.tenant_health(text, integer) is
'How tenants fare, from 0 to 100, the least healthy first: 30 % engagement, 40 % performance, 30 % quality; with trend and reasons.';

-- The engagement of a tenant's users in the last days, today among them, from 0 to 100: get_tenant_engagement('acme', 30). NULL: not known.
create function public.get_tenant_engagement(tenant_id text, days integer default 30) returns numeric
language plpgsql
stable
set search_path = ''
set statement_timeout = '8s'
set jit = off
as $$
begin
  perform vital_private.check_tenant(tenant_id);
  if days not between 1 and 365 then
    raise exception 'days must be a number from 1 to 365.' using errcode = '22023', hint = 'For the last month: 30.';
  end if;
  return (select w.engagement from vital_private.health_by_window(tenant_id, coalesce(days, 30), 1, 1) as w);
end;
$$;

comment on function public.get_tenant_engagement(text, integer) is
'How engaged a tenant''s users were in the last days, from 0 to 100: users active, their sessions, their events.';

-- How a tenant has fared in the last 30 days, from 0 to 100: calculate_tenant_health('acme'). NULL: nothing is known of it.
create function public.calculate_tenant_health(tenant_id text) returns numeric
language plpgsql
stable
set search_path = ''
set statement_timeout = '8s'
set jit = off
as $$
begin
  perform vital_private.check_tenant(tenant_id);
  return (select w.health from vital_private.health_by_window(tenant_id, 30, 1, 1) as w);
end;
$$;

comment on function public.calculate_tenant_health(text) is
'A tenant''s health, from 0 to 100: 30 % engagement, 40 % performance, 30 % quality of the last 30 days, what is not known left out.';

-- The same as JSON; numbers are text. With `weeks`, each tenant also has the health of that many windows, a week apart, the newest last.
create function public.tenant_health_v1(organization text default null, days integer default 30, weeks integer default 0) returns json
language plpgsql
stable
set search_path = ''
set statement_timeout = '8s'
set jit = off
as $$
declare
  span constant integer := coalesce(days, 30);
  past constant integer := coalesce(weeks, 0);
begin
  if past not between 0 and 26 then
    raise exception 'weeks must be a number from 0 to 26.' using errcode = '22023', hint = 'For the last quarter: 13.';
  end if;
  return (
    with history as materialized (
      select
        w.organization_id,
        json_agg(json_build_object('day', w.last_day, 'health', w.health::text) order by w.last_day) as points
      from vital_private.health_by_window(organization, span, past, 7) as w
      where past > 0
      group by w.organization_id
    )

    select json_build_object(
      'days', span, 'last_day', (now() at time zone 'UTC')::date,
      'rows', coalesce(
        json_agg(
          jsonb_build_object(
            'organization_id', t.organization_id, 'health', t.health::text, 'trend', t.trend::text, 'engagement', t.engagement::text,
            'performance', t.performance::text, 'quality', t.quality::text, 'reasons', t.reasons, 'users_score', t.users_score::text,
            'sessions_score', t.sessions_score::text, 'events_score', t.events_score::text, 'rating_score', t.rating_score::text,
            'scores_score', t.scores_score::text
          ) || jsonb_build_object(
            'known_users', t.known_users, 'active_users', t.active_users, 'sessions', t.sessions, 'events', t.events,
            'executions', t.executions, 'succeeded', t.succeeded, 'made_calls', t.made_calls, 'answered_calls', t.answered_calls,
            'ratings', t.ratings, 'avg_rating', t.avg_rating::text, 'scores', t.scores, 'avg_score', t.avg_score::text,
            'newest', t.newest, 'is_new', t.is_new, 'history', coalesce(h.points, '[]')
          )
          order by t.health nulls last, t.organization_id
        ), '[]'
      )
    )
    from public.tenant_health(organization, span) as t
    left join history as h on h.organization_id = t.organization_id
  );
end;
$$;

select vital_private.restrict_functions(
  api => '{tenant_health, tenant_health_v1, get_tenant_engagement, calculate_tenant_health}',
  helpers => '{tenant_measures, health_scores, health_by_window, health_reasons, check_tenant}'
);
