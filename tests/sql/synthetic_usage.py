"""Made-up histories with weekdays, hours and chance in them, the same in every run: calls straight into the table."""

from __future__ import annotations

from tests.sql.helpers import Connection

# Chance from 0 to 1 by a text, and a call an hour whose cost follows the clock of a zone: offices are at work from 8 to 18, a
# quarter of it at weekends, `growth` a week, `noise` by day and by hour.
FUNCTIONS = """
create function pg_temp.chance(seed text) returns double precision language sql immutable
return ('x' || substr(md5(seed), 1, 8))::bit(32)::bigint / 4294967296.0;

create function pg_temp.a_history(
  organization text, zone text, first_day date, days integer, a_day double precision, growth double precision,
  noise double precision
) returns void language sql as $$
insert into token_usage_logs (
  id, created_at, organization_id, service_type, model, prompt_tokens, total_tokens, input_cost, output_cost, fees,
  total_cost, potential_cost, price_version, priced
)
select
  gen_random_uuid(), t + make_interval(secs => 3600 * pg_temp.chance('at' || t)), organization, 'workflow', 'm', 100, 100,
  cost, 0, 0, cost, cost, 'test', true
from (
  select
    t,
    round((
      a_day / 11.4
      * case when extract(isodow from here) < 6 then 1 else 0.25 end
      * case when extract(hour from here) between 8 and 17 then 1 else 0.1 end
      * power(1 + growth, (t::date - first_day) / 7.0)
      * (1 + noise * (2 * pg_temp.chance(organization || t::date) - 1))
      * (1 + 2 * noise * (2 * pg_temp.chance(organization || t) - 1))
    )::numeric, 6) as cost
  from generate_series(
    first_day::timestamp at time zone 'UTC', (first_day + days)::timestamp at time zone 'UTC' - interval '1 second',
    interval '1 hour'
  ) as t
  cross join lateral (select t at time zone zone as here) as h
) as hours
where cost > 0
$$;
"""


def write_history(
    connection: Connection,
    organization: str,
    *,
    zone: str = "UTC",
    first_day: str = "2026-01-01",
    days: int = 155,
    a_day: float = 100,
    growth: float = 0,
    noise: float = 0.2,
) -> None:
    """One call an hour, `days` long; `a_day` US dollars on a working day."""
    connection.execute(
        "select pg_temp.a_history(%s, %s, %s, %s, %s, %s, %s)",
        [organization, zone, first_day, days, a_day, growth, noise],
    )
