-- Whether anything has changed of a list of runs: an open page asks this each minute instead of adding up their calls. So that both
-- speak of the same runs, which they are is chosen in one place; what runs_v1 takes and answers stays as it was.

-- The newest service runs that pass the filters of runs_v1, a page of them.
create function vital_private.runs_page(filters text, after_at timestamptz, after_id text, max_rows integer, nested boolean)
returns public.service_runs[]
language plpgsql
stable
set search_path = ''
as $$
declare
  condition text;
  page public.service_runs[];
begin
  select coalesce(string_agg(
    case
      when f.key in ('organization', 'user', 'session', 'service', 'agent', 'workflow', 'panel', 'solution', 'status')
        then format('r.%I = %L', vital_private.filter_column(f.key), f.value #>> '{}')
      when f.key = 'since' then format('r.started_at >= %L::timestamptz', f.value #>> '{}')
      when f.key = 'until' then format('r.started_at < %L::timestamptz', f.value #>> '{}')
      when f.key = 'where' then vital_private.where_of(f.value, 'r')
      else vital_private.no_such_filter(f.key)
    end, ' and '
  ), 'true') into condition
  from jsonb_each(filters::jsonb) as f
  where jsonb_typeof(f.value) <> 'null';
  execute format(
    $query$
      select coalesce(array_agg(page.run order by (page.run).started_at desc, (page.run).id desc), '{}')
      from (
        select r as run
        from public.service_runs as r
        where %s and %s and (
          $4 or not exists (select from public.service_runs as around where around.id = r.parent_run_id)
        )
        order by r.started_at desc, r.id desc
        limit least(greatest($1, 0), 10000)
      ) as page
    $query$,
    case when after_at is null then 'true' else 'r.started_at <= $2 and (r.started_at < $2 or r.id < $3)' end,
    condition
  ) into page using vital_private.rows_wanted(max_rows, 100), after_at, after_id, nested;
  return page;
end;
$$;

-- The runs inside of these, each beside the one of these that it is inside of; they themselves are among them.
create function vital_private.runs_inside(page public.service_runs[], out roots text[], out within text[])
language sql
stable
set search_path = ''
as $$
  with recursive inside (root, id) as (
    select p.id, p.id from unnest(page) as p
    union
    select inside.root, r.id
    from inside
    inner join public.service_runs as r on r.parent_run_id = inside.id
  )

  select array_agg(inside.root), array_agg(inside.id) from inside;
$$;

create or replace function public.runs_v1(
  filters text default '{}',
  after_at timestamptz default null,
  after_id text default null,
  max_rows integer default 100,
  nested boolean default false
) returns json
language plpgsql
stable
set search_path = ''
set timezone = 'UTC'
as $$
declare
  page constant public.service_runs[] := vital_private.runs_page(filters, after_at, after_id, max_rows, nested);
  roots text[];
  within text[];
  answer json;
begin
  select i.roots, i.within into roots, within from vital_private.runs_inside(page) as i;

  execute format(
    $query$
      with placed as (
        select i.root, call.*
        from public.token_usage_logs as call
        inner join unnest($2, $3) as i (root, id) on i.id = call.service_run_id
        where call.service_run_id = any($3)
      ),

      totals as (
        select p.id as root, %s
        from unnest($1) as p
        left join placed as call on call.root = p.id
        group by p.id
      )

      select coalesce(json_agg(to_jsonb(found) || to_jsonb(totals) - 'root' order by found.started_at desc, found.id desc), '[]')
      from (
        select
          r.id, r.parent_run_id, r.organization_id, r.user_id, r.session_id, r.service_type, r.service_id, r.service_name, r.agent_id,
          r.workflow_id, r.panel_id, r.panel_size, r.solution_id, r.status, r.started_at, r.ended_at,
          round(extract(epoch from r.ended_at - r.started_at) * 1000, 3) as duration_ms, r.error_type, r.metadata,
          (select count(*) - 1 from unnest($2) as i where i = r.id) as nested_runs
        from unnest($1) as r
      ) as found
      inner join totals on totals.root = found.id
    $query$, vital_private.run_sums()
  ) into answer using page, roots, within;
  return answer;
end;
$$;

-- The runs that runs_v1 answers with, as they are, and which are inside of them; what their calls come to is usage (usage_version_v1).
create function public.runs_version_v1(
  filters text default '{}',
  after_at timestamptz default null,
  after_id text default null,
  max_rows integer default 100,
  nested boolean default false
) returns text
language plpgsql
stable
set search_path = ''
set timezone = 'UTC'
as $$
declare
  page constant public.service_runs[] := vital_private.runs_page(filters, after_at, after_id, max_rows, nested);
begin
  return (
    select md5(concat_ws(' ', page, (
      select array_agg(concat(i.root, '/', i.id) order by i.root, i.id)
      from unnest(inside.roots, inside.within) as i (root, id)
    )))
    from vital_private.runs_inside(page) as inside
  );
end;
$$;

comment on function public.runs_version_v1(text, timestamptz, text, integer, boolean) is
'A text that is another one as soon as the runs of such a list have changed, or runs inside of them; their calls are not looked at.';

select vital_private.restrict_functions(api => '{runs_v1, runs_version_v1}', helpers => '{runs_page, runs_inside}');
