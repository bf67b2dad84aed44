-- What a unit costs of what is no call to a model. Dated as the prices of models are and never overwritten: a new price is a new row, and
-- a cost has the price that was in force when it arose.

create table public.resource_prices (
  id bigint generated always as identity primary key,
  cost_type text not null,
  resource text,
  unit text not null,
  unit_price numeric not null,
  valid_from timestamptz not null default now(),
  note text,
  created_at timestamptz not null default now(),
  constraint resource_prices_cost_type check (
    cost_type in ('llm', 'embedding', 'storage', 'bandwidth', 'compute', 'search', 'tts', 'stt', 'other')
  ),
  constraint resource_prices_unit check (btrim(unit) <> ''),
  constraint resource_prices_not_negative check (unit_price >= 0 and unit_price < 'Infinity')
);

comment on table public.resource_prices is 'US dollars a unit of storage, bandwidth, searches and so on, dated; a NULL resource means any resource.';
comment on column public.resource_prices.resource is 'The resource that it is a price of; one of its own takes precedence over that of any.';
comment on column public.resource_prices.unit_price is 'US dollars a unit.';

create unique index resource_prices_entry on public.resource_prices (cost_type, unit, resource, valid_from) nulls not distinct;

select vital_private.restrict_relation('public.resource_prices', readers => '{authenticated, service_role}');

create policy "Organization admins see prices of resources" on public.resource_prices
for select to authenticated
using (cardinality((select vital_private.administered_organizations())) > 0);

-- A beginning, to be changed by add_resource_price_v1: they hold from the first day that there is.
insert into public.resource_prices (cost_type, unit, unit_price, valid_from, note) values
('storage', 'gb_month', 0.023, '1970-01-01 00:00:00+00', 'default'),
('bandwidth', 'gb', 0.09, '1970-01-01 00:00:00+00', 'default'),
('search', 'call', 0.0005, '1970-01-01 00:00:00+00', 'default'),
('tts', 'call', 0.0015, '1970-01-01 00:00:00+00', 'default'),
('stt', 'call', 0.0012, '1970-01-01 00:00:00+00', 'default');

-- The unit in which costs of a kind are counted where nobody says one.
create function vital_private.usual_unit(cost_type text) returns text
language sql
immutable
parallel safe
return case
  when cost_type = 'storage' then 'gb_month'
  when cost_type = 'bandwidth' then 'gb'
  when cost_type = 'compute' then 'hour'
  when cost_type in ('search', 'tts', 'stt') then 'call'
end;

-- The price in force of a unit at an instant, as (unit_price, price_version): that of the resource itself, else of any. No row where none
-- is known.
create function vital_private.resource_price(of_type text, of_resource text, of_unit text, instant timestamptz)
returns table (unit_price numeric, price_version text)
language sql
stable
set search_path = ''
as $$
  select p.unit_price, 'resource_prices:' || p.id
  from public.resource_prices as p
  where p.cost_type = of_type and p.unit = of_unit and (p.resource is null or p.resource = of_resource) and p.valid_from <= instant
  order by p.resource is null, p.valid_from desc
  limit 1
$$;

-- Add one price, given as a JSON object with the table's column names; amounts as text or numbers. Returns its id. A price that is there
-- already with the same amount is returned as it is; one with another amount is refused, since prices are never overwritten.
create function public.add_resource_price_v1(price text) returns bigint
language plpgsql
security definer
set search_path = ''
as $$
declare
  given public.resource_prices;
  existing public.resource_prices;
  price_id bigint;
begin
  perform vital_private.check_given('price', price);
  select * into given from json_populate_record(null::public.resource_prices, price::json);
  given.resource := nullif(btrim(given.resource), '');
  given.unit := coalesce(nullif(btrim(given.unit), ''), vital_private.usual_unit(given.cost_type));
  given.valid_from := coalesce(given.valid_from, now());
  if given.unit is null or given.unit_price is null then
    raise exception 'A price names its unit_price, and the unit where its kind of cost has no usual one.'
      using errcode = '22023', hint = 'Such as {"cost_type": "compute", "unit": "hour", "unit_price": "0.50"}.';
  end if;
  insert into public.resource_prices (cost_type, resource, unit, unit_price, valid_from, note)
  values (given.cost_type, given.resource, given.unit, given.unit_price, given.valid_from, given.note)
  on conflict do nothing
  returning id into price_id;
  if price_id is not null then
    return price_id;
  end if;
  select p.* into existing
  from public.resource_prices as p
  where p.cost_type = given.cost_type and p.unit = given.unit and p.resource is not distinct from given.resource
    and p.valid_from = given.valid_from;
  if existing.unit_price <> given.unit_price then
    raise exception 'There is another price of % from % on: % US dollars a %.',
      coalesce(given.resource, given.cost_type), given.valid_from, existing.unit_price, given.unit
      using errcode = '23505', hint = 'Prices are not overwritten: give the new one a later valid_from.';
  end if;
  return existing.id;
end;
$$;

-- Every entry, the newest first of each kind, as JSON with amounts as text.
create function public.resource_prices_v1() returns json
language sql
stable
set search_path = ''
as $$
  select coalesce(json_agg(entry.* order by entry.cost_type, entry.resource nulls first, entry.unit, entry.valid_from desc), '[]')
  from (
    select p.id, p.cost_type, p.resource, p.unit, p.unit_price::text, p.valid_from, p.note
    from public.resource_prices as p
  ) as entry
$$;

select vital_private.restrict_functions(api => '{add_resource_price_v1, resource_prices_v1}');
