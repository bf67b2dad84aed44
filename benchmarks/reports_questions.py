"""What people ask of a database, made from its own catalogue, so that no view and no reading function escapes the clock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from benchmarks.reports import Connection, only
from benchmarks.reports_database import BIG_ORGANIZATION, BIG_USER

SCHEMAS: Final = ["public", "analytics"]
ORGANIZATION: Final = ("organization_id", "project_id", "tenant_id")
MOMENT: Final = ("created_at", "timestamp", "started_at", "occurred_at", "starts_at", "refreshed_at")
DAY: Final = ("day", "date", "hour_start", "bucket")
# By what a page of calls filters them, and what it asks for.
FILTERS: Final = {
    "user_id": BIG_USER,
    "session_id": "session-1000",
    "agent_id": "agent-20",
    "service_run_id": "run-1000",
    "status": "error",
}
PAGE: Final = 100

# What an argument of that name gets where it has no default, or where a page gives another one.
NAMED: Final[Mapping[str, str]] = {
    "days": "30",
    "hours": "720",
    "since": "now() - interval '30 days'",
    "start": "now() - interval '30 days'",
    "start_time": "now() - interval '30 days'",
    "until": "now()",
    "end_time": "now()",
    "agent": "'agent-0'",
    "agent_id": "'agent-0'",
    "user_id": f"'{BIG_USER}'",
    "run_id": "'run-1000'",
    "run": "'run-1000'",
    "prefix": "'run-100'",
    "entities": f"""'{{"organization": "{BIG_ORGANIZATION}", "user": "{BIG_USER}"}}'""",
    "month": "to_char(now(), 'YYYY-MM')",
    "first_month": "current_date",
    "histogram": "1e1200",
    "fraction": "0.95",
    "fractions": "'{0.5, 0.95}'",
    "what": "'events'",
    "entity_type": "'user'",
    "entity_id": f"'{BIG_USER}'",
    "names": f"array['{BIG_ORGANIZATION}', 'unseen']",
    "organizations": f"""'["{BIG_ORGANIZATION}"]'""",
}
# What these are asked of is a week.
OF_A_WEEK: Final = ("usage_anomalies", "anomalies_v1", "duplicate_requests", "duplicates_v1", "duplicates_v2")
# This one is asked by each of its dimensions, of whole days, as pages ask it.
EXPLORER: Final = "usage_explore_v1"
# This one of events, likewise.
PLATFORM_EXPLORER: Final = "platform_explore_v1"
WHOLE_DAYS: Final = "date_trunc('day', now(), 'UTC') - interval '29 days'"
# What no page asks: it goes through all calls, by day or night, in batches.
NO_PAGE: Final = (
    "audit_usage_v1",
    "audit_budgets_v1",
    "calls_to_price_v1",
    "unpriced_calls_v1",
    "usage_history_v1",
    "row_totals_v1",
    "user_traces_v1",
    "export_days_v1",
)


@dataclass(frozen=True)
class Question:
    """A query in the forms that it has for different readers: of all organizations, or of one."""

    name: str
    of_all: str | None
    of_one: str | None
    signed_in: bool
    """Whether signed-in users may ask it, too."""
    arguments: Mapping[str, Any] = field(default_factory=dict)


def questions(connection: Connection) -> list[Question]:
    """All of them: views, tables and materialized views that clients may read, and functions that only read."""
    return [*_of_relations(connection), *_of_functions(connection)]


# Views and tables

RELATIONS: Final = """
select
  c.oid::regclass::text, has_table_privilege('authenticated', c.oid, 'select'),
  a.columns, a.times
from pg_class as c
cross join lateral (
  select
    array_agg(a.attname::text) as columns,
    coalesce(array_agg(a.attname::text) filter (where a.atttypid in ('date'::regtype, 'timestamptz'::regtype)), '{}') as times
  from pg_attribute as a
  where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
) as a
where c.relnamespace = any(%s::regnamespace[]) and c.relkind in ('r', 'p', 'v', 'm')
  and has_table_privilege('service_role', c.oid, 'select')
order by c.relkind = 'm', 1
"""


def _first(names: tuple[str, ...], columns: list[str]) -> str | None:
    return next((name for name in names if name in columns), None)


def _of_relations(connection: Connection) -> Iterator[Question]:
    for relation, signed_in, columns, times in connection.execute(RELATIONS, [_schemas(connection)]).fetchall():
        organization = _first(ORGANIZATION, columns)
        mine = f"{organization} = '{BIG_ORGANIZATION}'" if organization else None
        moment, day = _first(MOMENT, times), _first(DAY, times)

        def asked(name: str, where: str = "", then: str = "") -> Question:
            def query(*conditions: str) -> str:
                told = " and ".join(filter(None, conditions))
                return f"select * from {relation}{f' where {told}' if told else ''} {then}"  # noqa: B023

            return Question(
                f"{relation}: {name}",  # noqa: B023
                query(where),
                query(mine, where) if mine else None,  # noqa: B023
                signed_in,  # noqa: B023
            )

        if day is not None:
            # The API of Supabase cuts an answer at so many rows.
            yield asked("30 days", f"{day} > current_date - 30", f"order by {day} desc limit 1000")
            yield asked("the newest 30", then=f"order by {day} desc limit 30")
        elif moment is not None:
            order = f"{moment} desc, id desc" if "id" in columns else f"{moment} desc"
            yield asked(f"the newest {PAGE}", then=f"order by {order} limit {PAGE}")
        else:
            yield asked("all", then="limit 1000")
        if moment is not None and "id" in columns and "session_id" in columns:
            newest = f"order by {moment} desc, id desc limit {PAGE}"
            after = f"({moment}, id) < (now() - interval '20 days', 'ffffffff-ffff-7fff-bfff-ffffffffffff')"
            yield asked(f"{PAGE} from a place on", after, newest)
            for column, value in FILTERS.items():
                if column in columns:
                    yield asked(f"the newest {PAGE} by {column}", f"{column} = '{value}'", newest)


def _schemas(connection: Connection) -> list[str]:
    return [name for name in SCHEMAS if only(connection, "select to_regnamespace(%s) is not null", name)]


# Functions

FUNCTIONS: Final = """
select
  p.pronamespace::regnamespace::text, p.proname::text, has_function_privilege('authenticated', p.oid, 'execute'),
  coalesce(p.proargnames[1:p.pronargs]::text[], '{}'), p.pronargs - p.pronargdefaults
from pg_proc as p
where p.pronamespace = any(%s::regnamespace[]) and p.prokind = 'f' and p.provolatile <> 'v'
  and has_function_privilege('service_role', p.oid, 'execute')
order by 1, 2
"""


def _of_functions(connection: Connection) -> Iterator[Question]:
    offered: dict[str, list[str]] = {}
    for grouping in only(connection, "select usage_catalogue_v1()")["groupings"]:
        for function in grouping["offered_by"]:
            offered.setdefault(function, []).append(grouping["name"])
    offered[EXPLORER] = only(connection, "select array_agg(name order by position) from vital_private.usage_dimensions")
    offered[PLATFORM_EXPLORER] = only(
        connection, "select array_agg(name) from vital_private.platform_dimensions('events')"
    )
    found = connection.execute(FUNCTIONS, [_schemas(connection)]).fetchall()
    for schema, name, signed_in, arguments, required in found:
        if name in NO_PAGE:
            continue
        function = name if schema == "public" else f"{schema}.{name}"
        names = [argument.removeprefix("p_") for argument in arguments]
        if choice := next((argument for argument in names if argument in ("by", "report", "dimensions")), None):
            for grouping in offered.get(name, offered["usage_report_v1"]):
                several = name not in offered or name in (EXPLORER, PLATFORM_EXPLORER)  # it takes an array of groupings
                chosen = {choice: f"array['{grouping}']" if several else f"'{grouping}'"}
                yield _asked(function, arguments, required, signed_in, chosen, f" {grouping}")
        else:
            yield _asked(function, arguments, required, signed_in, {}, "")


def _asked(
    function: str, arguments: list[str], required: int, signed_in: bool, chosen: Mapping[str, str], label: str
) -> Question:
    """A function with the arguments that a page gives it."""

    def query(organization: str) -> str:
        given = []
        for place, argument in enumerate(arguments):
            plain = argument.removeprefix("p_")
            if plain in ORGANIZATION or plain == "organization":
                value: str | None = organization
            elif plain == "filters" and function == EXPLORER:
                value = f"jsonb_strip_nulls(jsonb_build_object('organization', {organization}))"
            elif plain == "filters" and function == PLATFORM_EXPLORER:
                value = f"json_strip_nulls(json_build_object('organization', {organization}))::text"
            elif plain == "budget":
                value = (
                    f"json_build_object('entity_type', 'user', 'entity_id', '*', 'organization_id', {organization},"
                    " 'monthly_limit', 500, 'action', 'alert')::text"
                )
            elif plain == "filters":  # since, until and organization, as JSON
                value = f"json_build_object('since', now() - interval '30 days', 'organization', {organization})::text"
            elif place >= required and plain not in ("days", "since", "until", *chosen):
                continue
            elif plain == "since" and function in OF_A_WEEK:
                value = "now() - interval '7 days'"
            elif plain == "since" and function == EXPLORER:
                value = WHOLE_DAYS
            else:
                value = {**NAMED, **chosen}.get(plain)
            if value is None:
                raise KeyError(f"{function} has an argument {argument}, and NAMED says nothing of it")
            given.append(f"{argument} => {value}")
        return f"select * from {function}({', '.join(given)})"

    of_one = query(f"'{BIG_ORGANIZATION}'")
    of_all = query("null")
    return Question(f"{function}(){label}", of_all, of_one if of_one != of_all else None, signed_in)
