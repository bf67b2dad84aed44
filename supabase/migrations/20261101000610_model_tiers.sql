-- How good the team finds the answers of a model: 1 is best, 3 is good enough for simple things. No scores are shipped; a model that is not
-- here has no tier. The team's as its prices are, so the service role sets them, and admins of any organization see them.

create table public.model_tiers (
  id bigint generated always as identity primary key,
  provider text,
  model text not null,
  tier smallint not null,
  set_by text not null default coalesce(nullif(current_setting('role', true), 'none'), session_user),
  set_at timestamptz not null default now(),
  note text,
  constraint model_tiers_model check (btrim(model) = model and model <> '' and length(model) <= 256),
  constraint model_tiers_provider check (btrim(provider) = provider and provider <> '' and length(provider) <= 256),
  constraint model_tiers_tier check (tier between 1 and 3)
);

comment on table public.model_tiers is 'How good the team finds a model, from 1 (best) to 3; NULL provider means any provider.';
comment on column public.model_tiers.provider is 'Whose model; a tier for its own provider takes precedence over that for any.';
comment on column public.model_tiers.tier is '1 is best.';
comment on column public.model_tiers.set_by is 'Subject of the token, else the role of the request or the login role.';

create unique index model_tiers_entry on public.model_tiers (coalesce(lower(provider), ''), lower(model));

select vital_private.restrict_relation('public.model_tiers', readers => '{authenticated, service_role}');

create policy "Organization admins see tiers of models" on public.model_tiers
for select to authenticated
using (cardinality((select vital_private.administered_organizations())) > 0);

-- Set the tier of a model, of a provider or of any. Answers the entry, and as `before` the tier that it had; what is the same stays as it is.
create function public.set_model_tier_v1(model text, tier integer, provider text default null, note text default null) returns json
language plpgsql
security definer
set search_path = ''
as $$
declare
  whose constant text := nullif(btrim(provider), '');
  named constant text := btrim(model);
  before public.model_tiers;
  stored public.model_tiers;
begin
  perform vital_private.check_given('model', model);
  perform vital_private.check_given('tier', tier::text);
  select t.* into before
  from public.model_tiers as t
  where coalesce(lower(t.provider), '') = coalesce(lower(whose), '') and lower(t.model) = lower(named);
  insert into public.model_tiers as t (provider, model, tier, set_by, note)
  values (
    whose, named, set_model_tier_v1.tier,
    coalesce((select auth.jwt()) ->> 'sub', nullif(current_setting('role', true), 'none'), session_user), set_model_tier_v1.note
  )
  on conflict (coalesce(lower(t.provider), ''), lower(t.model)) do update
  set tier = excluded.tier, note = excluded.note, set_by = excluded.set_by, set_at = excluded.set_at
  where (t.tier, t.note) is distinct from (excluded.tier, excluded.note);
  select t.* into stored
  from public.model_tiers as t
  where coalesce(lower(t.provider), '') = coalesce(lower(whose), '') and lower(t.model) = lower(named);
  return to_jsonb(stored) - 'id' || jsonb_build_object('before', before.tier);
end;
$$;

-- Take the tier of a model away: the one for a provider or, without one, the one for any. Answers {"removed": n}.
create function public.remove_model_tier_v1(model text, provider text default null) returns json
language plpgsql
security definer
set search_path = ''
as $$
declare
  removed bigint;
begin
  perform vital_private.check_given('model', model);
  delete from public.model_tiers as t
  where coalesce(lower(t.provider), '') = lower(btrim(coalesce(remove_model_tier_v1.provider, '')))
    and lower(t.model) = lower(btrim(remove_model_tier_v1.model));
  get diagnostics removed = row_count;
  return json_build_object('removed', removed);
end;
$$;

-- The tiers that the caller may see, the best first.
create function public.model_tiers_v1() returns json
language sql
stable
set search_path = ''
as $$
  select coalesce(jsonb_agg(to_jsonb(t) - 'id' order by t.tier, t.model, t.provider nulls first), '[]')::json
  from public.model_tiers as t
$$;

select vital_private.restrict_functions(api => '{set_model_tier_v1, remove_model_tier_v1, model_tiers_v1}');
