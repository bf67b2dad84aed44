-- The team's own prices, which take precedence over those of the price book. Entries are dated and never overwritten: a new price is
-- a new row, and a call is priced by the row in force when it started.
--
-- unit_prices are for what is billed beside plain tokens, by the names of genai-prices' usage keys: {"web_searches": 0.01}. They are US
-- dollars for one unit, for tokens (output_image_tokens) for a million. An entry without input_usd_per_mtok changes these units alone.

create table public.model_prices (
  id bigint generated always as identity primary key,
  provider text,
  model text not null,
  valid_from timestamptz not null default now(),
  input_usd_per_mtok numeric,
  output_usd_per_mtok numeric,
  cache_read_usd_per_mtok numeric,
  cache_write_usd_per_mtok numeric,
  cache_write_1h_usd_per_mtok numeric,
  reasoning_usd_per_mtok numeric,
  audio_input_usd_per_mtok numeric,
  audio_output_usd_per_mtok numeric,
  request_usd numeric,
  unit_prices jsonb,
  note text,
  created_at timestamptz not null default now(),
  constraint model_prices_model_named check (btrim(model) <> ''),
  -- least and greatest leave NULLs out; the upper bound keeps out NaN, which PostgreSQL sorts above every number.
  constraint model_prices_not_negative check (
    least(
      input_usd_per_mtok, output_usd_per_mtok, cache_read_usd_per_mtok, cache_write_usd_per_mtok, cache_write_1h_usd_per_mtok,
      reasoning_usd_per_mtok, audio_input_usd_per_mtok, audio_output_usd_per_mtok, request_usd
    ) >= 0
    and greatest(
      input_usd_per_mtok, output_usd_per_mtok, cache_read_usd_per_mtok, cache_write_usd_per_mtok, cache_write_1h_usd_per_mtok,
      reasoning_usd_per_mtok, audio_input_usd_per_mtok, audio_output_usd_per_mtok, request_usd
    ) < 'Infinity'
  ),
  constraint model_prices_unit_prices check (
    jsonb_typeof(unit_prices) = 'object' and unit_prices <> '{}' and octet_length(unit_prices::text) <= 2048
    and not unit_prices @? '$.keyvalue() ? (@.value.type() <> "number" || @.value < 0)'
  ),
  constraint model_prices_complete check (
    input_usd_per_mtok is not null or unit_prices is not null and num_nonnulls(
      output_usd_per_mtok, cache_read_usd_per_mtok, cache_write_usd_per_mtok, cache_write_1h_usd_per_mtok,
      reasoning_usd_per_mtok, audio_input_usd_per_mtok, audio_output_usd_per_mtok, request_usd
    ) = 0
  )
);

comment on table public.model_prices is 'The team''s own prices in US dollars per million tokens, dated; NULL provider means any provider.';
comment on column public.model_prices.input_usd_per_mtok is 'NULL: the entry changes only unit_prices, and tokens keep their listed prices.';
comment on column public.model_prices.output_usd_per_mtok is 'NULL beside a price of input: answers cost nothing.';
comment on column public.model_prices.unit_prices is 'US dollars for one unit, for tokens for a million: {"web_searches": 0.01}.';

create unique index model_prices_entry on public.model_prices (coalesce(lower(provider), ''), lower(model), valid_from);

select vital_private.restrict_relation('public.model_prices', readers => '{authenticated, service_role}');

create policy "Organization admins see prices" on public.model_prices
for select to authenticated
using (cardinality((select vital_private.administered_organizations())) > 0);

-- Add one price entry, given as a JSON object with the table's column names, amounts as text or numbers. Returns its id. An entry that
-- is already there with the same amounts is returned as it is; one with other amounts is refused, since prices are never overwritten.
create function public.add_model_price_v1(price text) returns bigint
language plpgsql
security definer
set search_path = ''
as $$
declare
  -- What two entries may differ in and still say the same.
  beside constant text[] := '{id, provider, model, valid_from, note, created_at}';
  given public.model_prices;
  existing public.model_prices;
  price_id bigint;
begin
  perform vital_private.check_given('price', price);
  select * into given from json_populate_record(null::public.model_prices, price::json);
  given.provider := nullif(btrim(given.provider), '');
  given.model := btrim(given.model);
  given.valid_from := coalesce(given.valid_from, now());
  given.unit_prices := (
    select jsonb_object_agg(unit.key, unit.value::numeric) from jsonb_each_text(nullif(given.unit_prices, 'null')) as unit
  );
  if given.input_usd_per_mtok is not null then
    given.output_usd_per_mtok := coalesce(given.output_usd_per_mtok, 0);
  elsif given.unit_prices is null then
    raise exception 'A price needs input_usd_per_mtok, unit_prices or both.' using errcode = '23502';
  end if;
  insert into public.model_prices (
    provider, model, valid_from, input_usd_per_mtok, output_usd_per_mtok, cache_read_usd_per_mtok, cache_write_usd_per_mtok,
    cache_write_1h_usd_per_mtok, reasoning_usd_per_mtok, audio_input_usd_per_mtok, audio_output_usd_per_mtok, request_usd, unit_prices,
    note
  ) values (
    given.provider, given.model, given.valid_from, given.input_usd_per_mtok, given.output_usd_per_mtok,
    given.cache_read_usd_per_mtok, given.cache_write_usd_per_mtok, given.cache_write_1h_usd_per_mtok, given.reasoning_usd_per_mtok,
    given.audio_input_usd_per_mtok, given.audio_output_usd_per_mtok, given.request_usd, given.unit_prices, given.note
  )
  on conflict (coalesce(lower(provider), ''), lower(model), valid_from) do nothing
  returning id into price_id;
  if price_id is not null then
    return price_id;
  end if;
  select * into existing from public.model_prices as m
  where coalesce(lower(m.provider), '') = coalesce(lower(given.provider), '')
    and lower(m.model) = lower(given.model) and m.valid_from = given.valid_from;
  if to_jsonb(existing) - beside <> to_jsonb(given) - beside then
    raise exception 'A price for this model from this instant is already there. Prices are never overwritten: choose another valid_from.'
      using errcode = '23505';
  end if;
  return existing.id;
end;
$$;

-- Every entry, the newest first, as JSON with amounts as text, so that no client turns money into a float.
create function public.model_prices_v1() returns json
language sql
stable
security definer
set search_path = ''
as $$
  select coalesce(json_agg(entry order by entry.valid_from desc, entry.id desc), '[]')
  from (
    select
      id, provider, model, valid_from, input_usd_per_mtok::text, output_usd_per_mtok::text, cache_read_usd_per_mtok::text,
      cache_write_usd_per_mtok::text, cache_write_1h_usd_per_mtok::text, reasoning_usd_per_mtok::text,
      audio_input_usd_per_mtok::text, audio_output_usd_per_mtok::text, request_usd::text,
      (select json_object_agg(unit.key, unit.value) from jsonb_each_text(unit_prices) as unit) as unit_prices,
      note
    from public.model_prices
  ) as entry
$$;

select vital_private.restrict_functions(api => '{add_model_price_v1, model_prices_v1}');
