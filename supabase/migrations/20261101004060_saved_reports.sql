-- Reports that somebody keeps by name: what the page `explore` was asked. Each belongs to who saved it: a
-- signed-in user, or, without an owner, the operators. Nobody else sees it; an address can be given to anybody.

create table public.saved_reports (
  id bigint generated always as identity primary key,
  owner text,
  name text not null,
  asked jsonb not null,
  created_at timestamptz not null default now(),
  changed_at timestamptz not null default now(),
  constraint saved_reports_name unique nulls not distinct (owner, name),
  constraint saved_reports_name_is_short check (name <> '' and length(name) <= 120),
  constraint saved_reports_asked_is_small check (jsonb_typeof(asked) = 'array' and octet_length(asked::text) <= 8192)
);

comment on table public.saved_reports is 'Reports of the page explore that are kept by name. Written by save_report_v1.';
comment on column public.saved_reports.owner is 'The user whose report it is; NULL: the operators.';
comment on column public.saved_reports.asked is 'What the page is asked: an array of pairs, as its address names and sets them.';

select vital_private.restrict_relation('public.saved_reports', readers => '{authenticated, service_role}');

create policy "Users see the reports that they saved" on public.saved_reports
for select to authenticated
using (owner = (select auth.jwt()) ->> 'sub');

-- Whose reports a request is about: the signed-in user's, or NULL, the operators'.
create function vital_private.owner_of_reports() returns text
language sql
stable
set search_path = ''
as $$
  select case when vital_private.by_a_user() then vital_private.subject() end
$$;

-- Keep a report, or what else it asks now; at most 500 are kept for each.
create function vital_private.save_report(name text, asked text) returns json
language plpgsql
security definer
set search_path = ''
as $$
declare
  whose constant text := vital_private.owner_of_reports();
  wanted jsonb;
  kept public.saved_reports;
begin
  if coalesce(trim(name), '') = '' or length(name) > 120 then
    raise exception 'name: give the report one of 1 to 120 characters.' using errcode = '22023';
  end if;
  begin
    wanted := asked::jsonb;
  exception when invalid_text_representation or untranslatable_character then
    wanted := null;
  end;
  if wanted is null or jsonb_typeof(wanted) <> 'array' or octet_length(wanted::text) > 8192 or exists (
    select from jsonb_array_elements(wanted) as pair (value)
    where jsonb_typeof(pair.value -> 0) || jsonb_typeof(pair.value -> 1) is distinct from 'stringstring' or pair.value -> 2 is not null
  ) then
    raise exception 'asked: name what the report asks as pairs of text, of at most 8 kB, such as [["by", "model"]].' using errcode = '22023';
  end if;
  -- One at a time for each owner: else two could pass the count together.
  perform pg_advisory_xact_lock(hashtextextended('vital_tracking.saved_reports ' || coalesce(whose, ''), 0));
  if (select count(*) from public.saved_reports as s where s.owner is not distinct from whose and s.name <> trim(save_report.name)) >= 500 then
    raise exception 'name: 500 reports are kept already; remove one first.' using errcode = '22023';
  end if;
  insert into public.saved_reports as s (owner, name, asked)
  values (whose, trim(save_report.name), wanted)
  on conflict on constraint saved_reports_name do update set asked = excluded.asked, changed_at = now()
  returning s.* into kept;
  return json_build_object('name', kept.name, 'asked', kept.asked, 'changed_at', kept.changed_at);
end;
$$;

-- Remove a report of one's own.
create function vital_private.remove_report(name text) returns boolean
language sql
security definer
set search_path = ''
as $$
  select vital_private.check_given('name', name);
  with removed as (
    delete from public.saved_reports as s
    where s.owner is not distinct from vital_private.owner_of_reports() and s.name = remove_report.name
    returning s.id
  )

  select exists (select from removed)
$$;

-- Keep a report by name: {"name", "asked", "changed_at"}. One of the same name asks this from now on.
create function public.save_report_v1(name text, asked text) returns json
language sql
set search_path = ''
as $$
  select vital_private.save_report(name, asked)
$$;

-- Remove a report of one's own; false where there is none of that name.
create function public.remove_report_v1(name text) returns boolean
language sql
set search_path = ''
as $$
  select vital_private.remove_report(name)
$$;

select vital_private.restrict_functions(
  api => '{save_report_v1, remove_report_v1}', helpers => '{owner_of_reports, save_report, remove_report}'
);
