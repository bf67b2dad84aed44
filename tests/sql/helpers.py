"""What the SQL tests share: rows as the library sends them, budgets, and a way to be somebody else."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from decimal import Context, Decimal
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from vital_tracking.calls.row_literal import CALL_COLUMNS, batch_of, list_field, text_field

ALICE = "11111111-1111-4111-8111-111111111111"
BOB = "22222222-2222-4222-8222-222222222222"
CAROL = "33333333-3333-4333-8333-333333333333"
ADMIN = "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa"
STRANGER = "99999999-9999-4999-8999-999999999999"

Row = dict[str, Any]
EXACT = Context(prec=10_000)
Connection = psycopg.Connection[Row]

COSTS = ("input_cost", "output_cost", "fees", "total_cost", "potential_cost", "price_version")


# pg_cron is no part of the tests' PostgreSQL: this takes down what it is asked, as pg_cron's own table does.
STAND_IN_FOR_PG_CRON = """
create schema cron;
create table cron.job (jobname text primary key, schedule text, command text);
create function cron.schedule(job_name text, schedule text, command text) returns bigint
language plpgsql
as $$
begin
  insert into cron.job values ($1, $2, $3) on conflict (jobname) do update set schedule = $2, command = $3;
  return 1;
end;
$$;
"""


def call_id(number: int) -> str:
    """A UUIDv7 that sorts by its number."""
    return f"01890000-0000-7000-8000-{number:012x}"


def a_call(number: int = 1, **changes: Any) -> Row:
    """A priced call as the library sends it: 100 tokens in, 20 out, $0.30 and $0.12; a larger total holds fees."""
    call = {
        "id": call_id(number),
        "created_at": "2026-01-15T10:00:00+00:00",
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "total_tokens": 120,
        "input_cost": "0.30",
        "output_cost": "0.12",
        "total_cost": "0.42",
        "potential_cost": "0.42",
        "price_version": "test",
        "priced": True,
        **changes,
    }
    amounts = [call[name] for name in ("total_cost", "input_cost", "output_cost")]
    if "fees" not in changes and None not in amounts:
        total, *parts = map(Decimal, amounts)
        fees = EXACT.subtract(EXACT.subtract(total, parts[0]), parts[1])
        call["fees"] = format(fees, "f") if fees.is_finite() and fees > 0 else "0"
    return call


def an_unpriced_call(number: int = 1, **changes: Any) -> Row:
    """A call whose model has no known price."""
    return {**{name: value for name, value in a_call(number).items() if name not in COSTS}, "priced": False, **changes}


def a_run(run_id: str = "r-1", **changes: Any) -> Row:
    """A workflow's run as the library sends it at its start."""
    return {
        "id": run_id,
        "service_type": "workflow",
        "service_id": "intake",
        "workflow_id": "intake",
        "status": "running",
        "started_at": "2026-01-15T10:00:00+00:00",
        **changes,
    }


def an_end(run_id: str = "r-1", **changes: Any) -> Row:
    """The same run as the library sends it at its end, 90 seconds later."""
    return a_run(run_id, **{"status": "ok", "ended_at": "2026-01-15T10:01:30+00:00", **changes})


def connect(url: str) -> Connection:
    """A connection of the database's owner; every statement stands for itself."""
    return psycopg.connect(url, row_factory=dict_row, autocommit=True)


def record(connection: Connection, *calls: object, function: str = "record_calls_v2") -> Row:
    """Send a batch of calls; how the report counts them."""
    answer = report(connection, function, json.dumps(calls) if function == "record_calls_v1" else literal_of(calls))
    return {name: answer[name] for name in ("inserted", "duplicate", "rejected")}


def literal_of(calls: Iterable[object]) -> str:
    """The literal of a batch of calls; what is wrong with them goes with them, unlike in the package's own."""
    return batch_of(any_row(call) if isinstance(call, dict) else '"secret"' for call in calls)


def any_row(call: Row) -> str:
    """The literal of a row, whatever is wrong with it."""
    fields = {name: value for name, value in call.items() if value is not None}
    if draws := fields.pop("draws", None):
        fields["draw_windows"], fields["draw_amounts"] = ([str(draw[place]) for draw in draws] for place in (0, 1))
    return '"(' + ",".join("" if name not in fields else _any_field(name, fields[name]) for name in CALL_COLUMNS) + ')"'


def _any_field(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "t" if value else "f"
    if name in ("metadata", "billed_units", "blocked_by") or isinstance(value, dict):
        return text_field(json.dumps(value))
    return list_field(value) if isinstance(value, list) else text_field(str(value))


def record_runs(connection: Connection, *runs: object) -> Row:
    """Send a batch of service runs; the report."""
    return report(connection, "record_runs_v1", json.dumps(runs))


def report(connection: Connection, function: str, batch: str | None) -> Row:
    """Send a batch as the text it is."""
    query = sql.SQL("select {}(%s) as report").format(sql.Identifier(function))
    with connection.transaction():
        found = connection.execute(query, [batch]).fetchone()
    assert found is not None
    return dict(found["report"])


def rejections(batch_report: Row) -> list[tuple[str | None, str, str | None]]:
    """A report's rejected rows as (id, sqlstate, rule), sorted."""
    return sorted(((bad["id"], bad["sqlstate"], bad["rule"]) for bad in batch_report["rejected"]), key=str)


# Budgets. Their tests live in a future noon, where no window ends while they run; windows do not care.
NOON = "2033-05-10T12:00:00+00:00"

Amount = int | str | Decimal


def a_cost(number: int = 1, cost: Amount = 1, **changes: Any) -> Row:
    """A call at NOON of user u-1 that cost so much; 120 tokens."""
    money = {"input_cost": str(cost), "output_cost": "0", "total_cost": str(cost), "potential_cost": str(cost)}
    return a_call(number, **{"created_at": NOON, "user_id": "u-1", **money, **changes})


def call(connection: Connection, function: str, **arguments: Any) -> Any:
    """Call a function of the schema public with named arguments; its result."""
    named = sql.SQL(", ").join(
        sql.SQL("{} => {}").format(sql.Identifier(name), sql.Placeholder(name)) for name in arguments
    )
    query = sql.SQL("select public.{}({}) as result").format(sql.Identifier(function), named)
    with connection.transaction():
        found = connection.execute(query, arguments).fetchone()
    assert found is not None
    return found["result"]


def set_budget(connection: Connection, **columns: Any) -> Row:
    """Make or change a budget, by default of each user with the action block; the budget."""
    budget = {"entity_type": "user", "action": "block", **columns}
    return dict(call(connection, "set_budget_v1", budget=json.dumps(budget, default=str)))


def windows(connection: Connection, **wanted: Any) -> list[Row]:
    """The windows with these columns, in the order of budgets, entities and time."""
    found = connection.execute(
        "select w.*, b.entity_type, b.metric, b.action from budget_windows as w join budget_limits as b on b.id = w.budget_id"
        " order by w.budget_id, w.entity_id, w.period, w.starts_at"
    ).fetchall()
    return [row for row in found if all(row[name] == value for name, value in wanted.items())]


def spent(connection: Connection, **wanted: Any) -> dict[str, Decimal]:
    """What is spent in the windows with these columns, by entity; there must be one window an entity."""
    found = windows(connection, **wanted)
    amounts = {row["entity_id"]: row["spent"] for row in found}
    assert len(amounts) == len(found)
    return amounts


def the_window(connection: Connection, **wanted: Any) -> Row:
    """The one window with these columns."""
    [found] = windows(connection, **wanted)
    return found


def wish(budget: int, entity: str = "u-1", unit: Amount = 1, want: Amount = 0, **more: Any) -> Row:
    """What a call asks of the windows of one budget."""
    return {"budget": budget, "entity": entity, "unit": str(unit), "want": str(want), "have": {}, **more}


def acquire(connection: Connection, holder: str, *asks: list[Row] | Row, lifetime_s: float = 60) -> list[Row]:
    """Ask for grants: a list of wishes for each ask, or an ask as it is sent; the answers."""
    sent = [{"max_wait": 0, "windows": ask} if isinstance(ask, list) else ask for ask in asks]
    answer = call(connection, "acquire_grants_v1", holder=holder, asks=json.dumps(sent), lifetime_s=lifetime_s)
    return list(answer["answers"])


def renew(connection: Connection, holder: str, kept: Mapping[int, Amount] | None = None, lifetime_s: float = 60) -> Row:
    """Renew what a holder keeps of its grants and give the rest back; what it has then, by window."""
    sent = json.dumps({str(window): str(amount) for window, amount in (kept or {}).items()})
    answer = call(connection, "renew_grants_v1", holder=holder, kept=sent, lifetime_s=lifetime_s)
    return {int(window): Decimal(amount) for window, amount in answer["grants"].items()}


def alerts(connection: Connection) -> list[tuple[str, str, str, bool]]:
    """All alerts as (entity, period, threshold, superseded), in the order of thresholds."""
    found = connection.execute("select * from cost_alerts order by entity_id, period, threshold").fetchall()
    return [(row["entity_id"], row["period"], f"{row['threshold']:.1f}", row["superseded"]) for row in found]


def audit(connection: Connection) -> list[Row]:
    """The windows whose sums are not those of their calls and grants: none, or something is wrong."""
    return list(call(connection, "audit_budgets_v1")["differences"])


def assert_waits_for_lock(connection: Connection) -> None:
    """Return as soon as another session of this database waits for a lock."""
    waits = (
        "select from pg_stat_activity where datname = current_database()"
        " and wait_event_type = 'Lock' and pid <> pg_backend_pid()"
    )
    late = threading.Event()
    timer = threading.Timer(30, late.set)
    timer.start()
    while not connection.execute(waits).fetchall():
        assert not late.is_set(), "nobody waits"
    timer.cancel()


@contextmanager
def acting_as(connection: Connection, role: str, claims: Row | str | None = None) -> Iterator[Connection]:
    """Inside, the connection is a request of the API: a role and a token's claims, in a transaction that is rolled back."""
    text = claims if isinstance(claims, str) else json.dumps(claims or {})
    with connection.transaction(force_rollback=True):
        connection.execute("select set_config('request.jwt.claims', %s, true)", [text])
        connection.execute(sql.SQL("set local role {}").format(sql.Identifier(role)))
        yield connection
