"""A small world for tests of access: who is who, what each has used, and who must be shown what of it.

Call n costs 10^(n-1) dollars and as many tokens, so the digits of any sum tell which calls went into it. The
calls are alike in everything but their owner: whatever groups them by agent, model or seat mixes all owners, if it may read them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from tests.sql.advice_rows import a_recommendation, an_advice
from tests.sql.helpers import (
    ADMIN,
    ALICE,
    BOB,
    CAROL,
    STRANGER,
    Connection,
    Row,
    a_call,
    acquire,
    an_end,
    call,
    call_id,
    record,
    record_runs,
    set_budget,
    wish,
)
from tests.sql.platform_rows import a_cost, an_event, an_execution, send

DORA = "44444444-4444-4444-8444-444444444444"
ERIK = "55555555-5555-4555-8555-555555555555"
OTHERWISE = "user_2abc"  # a subject of another identity provider

# Calls and runs 1 to 7: whose, and for which organization.
OWNERS = {
    1: (ALICE, "acme"),
    2: (BOB, "acme"),
    3: (CAROL, "other"),
    4: (ALICE, None),
    5: (None, None),
    6: (ADMIN, "other"),
    7: (OTHERWISE, "acme"),
}
MEMBERS = [
    ("acme", ADMIN, "admin"),
    ("acme", ALICE, "member"),
    ("acme", BOB, "member"),
    ("acme", DORA, "admin"),
    ("acme", OTHERWISE, "member"),
    ("acme", ERIK, "auditor"),
    ("other", ADMIN, "member"),
    ("other", CAROL, "admin"),
    ("other", DORA, "admin"),
]
# Budgets 1 to 10: of each user for all, for acme and for another; of organizations; of a service; of Alice and Bob themselves.
BUDGETS: dict[int, Row] = {
    1: {"entity_type": "user"},
    2: {"entity_type": "user", "organization_id": "acme"},
    3: {"entity_type": "user", "organization_id": "other"},
    4: {"entity_type": "organization", "entity_id": "acme"},
    5: {"entity_type": "organization", "entity_id": "other"},
    6: {"entity_type": "service", "organization_id": "acme"},
    7: {"entity_type": "service"},
    8: {"entity_type": "user", "entity_id": ALICE},
    9: {"entity_type": "user", "entity_id": BOB},
    10: {"entity_type": "organization"},
}

# Who is on a plan: the entity, its kind, and in which organization its calls count.
SUBSCRIPTIONS = (
    (ALICE, "user", "acme"),
    (BOB, "user", None),
    (CAROL, "user", "other"),
    ("acme", "organization", None),
    ("other", "organization", None),
)

Window = tuple[int, str]


@dataclass(frozen=True)
class Reader:
    """Somebody who asks, and what is theirs: calls of their own, and those of organizations that they administer or audit."""

    claims: Row | str = field(default_factory=dict)
    own: frozenset[int] = frozenset()
    administered: frozenset[int] = frozenset()
    budgets: frozenset[int] = frozenset({1})
    windows: frozenset[Window] = frozenset()
    members: frozenset[tuple[str, str]] = frozenset()
    role: str = "authenticated"

    @property
    def is_admin(self) -> bool:
        """Whether they administer or audit any organization."""
        return bool(self.administered)

    @property
    def is_service(self) -> bool:
        """Whether it is the service role, or the auditor, who reads what that reads."""
        return self.role in ("service_role", "vital_auditor")


def _members(*organizations: str) -> frozenset[tuple[str, str]]:
    return frozenset((organization, user) for organization, user, _ in MEMBERS if organization in organizations)


_ACME: frozenset[Window] = frozenset({(2, ALICE), (2, BOB), (2, OTHERWISE), (4, "acme"), (6, "workflow"), (10, "acme")})
_OTHER: frozenset[Window] = frozenset({(3, CAROL), (3, ADMIN), (5, "other"), (10, "other")})
_USERS: frozenset[Window] = frozenset({(1, user) for user in (ALICE, BOB, CAROL, ADMIN, OTHERWISE)})

READERS: dict[str, Reader] = {
    "owner of rows": Reader(
        {"sub": ALICE},
        own=frozenset({1, 4}),
        budgets=frozenset({1, 2, 8}),
        windows=frozenset({(1, ALICE), (2, ALICE), (8, ALICE)}),
        members=frozenset({("acme", ALICE)}),
    ),
    "plain member": Reader(
        {"sub": BOB},
        own=frozenset({2}),
        budgets=frozenset({1, 2, 9}),
        windows=frozenset({(1, BOB), (2, BOB), (9, BOB)}),
        members=frozenset({("acme", BOB)}),
    ),
    "member with another identity provider": Reader(
        {"sub": OTHERWISE},
        own=frozenset({7}),
        budgets=frozenset({1, 2}),
        windows=frozenset({(1, OTHERWISE), (2, OTHERWISE)}),
        members=frozenset({("acme", OTHERWISE)}),
    ),
    "organization admin": Reader(
        {"sub": ADMIN},
        own=frozenset({6}),
        administered=frozenset({1, 2, 7}),
        budgets=frozenset({1, 2, 3, 4, 6, 10}),
        windows=_ACME | {(1, ADMIN), (3, ADMIN)},
        members=_members("acme") | {("other", ADMIN)},
    ),
    "organization auditor": Reader(
        {"sub": ERIK},
        administered=frozenset({1, 2, 7}),
        budgets=frozenset({1, 2, 4, 6, 10}),
        windows=_ACME,
        members=_members("acme"),
    ),
    "admin of another": Reader(
        {"sub": CAROL},
        own=frozenset({3}),
        administered=frozenset({3, 6}),
        budgets=frozenset({1, 3, 5, 10}),
        windows=_OTHER | {(1, CAROL)},
        members=_members("other"),
    ),
    "admin of two": Reader(
        {"sub": DORA},
        administered=frozenset({1, 2, 3, 6, 7}),
        budgets=frozenset({1, 2, 3, 4, 5, 6, 10}),
        windows=_ACME | _OTHER,
        members=_members("acme", "other"),
    ),
    "stranger": Reader({"sub": STRANGER}),
    "signed in without a subject": Reader({}),
    "signed in without claims": Reader(""),
    "subject that is no uuid": Reader({"sub": "user_2x'; --"}),
    "subject that is an organization": Reader({"sub": "acme"}),
    "subject that is a wildcard": Reader({"sub": "*"}),
    "subject of another type": Reader({"sub": {"user": ALICE}}),
    "subject null": Reader({"sub": None}),
    "service role": Reader(
        {"role": "service_role"},
        own=frozenset(OWNERS),
        administered=frozenset(OWNERS),
        budgets=frozenset(BUDGETS),
        windows=_USERS | _ACME | _OTHER | {(7, "workflow"), (8, ALICE), (9, BOB)},
        members=_members("acme", "other"),
        role="service_role",
    ),
}
READERS["auditor of all"] = replace(READERS["service role"], claims={}, role="vital_auditor")


@dataclass(frozen=True)
class World:
    """What make_world has made: the budgets' numbers by their ids, and when the calls were."""

    budgets: Mapping[int, int]
    moment: datetime


def make_world(connection: Connection) -> World:
    """Members, prices, budgets and a grant, runs and calls of this moment, and a week in which everything was free."""
    for member in MEMBERS:
        connection.execute("insert into organization_members values (%s, %s, %s)", member)
    for person, (name, place) in NAMED.items():
        known = {"name": name, "email": f"{name}@{place}"}
        call(connection, "name_member_v1", organization=place, user_id=person, **known)
    call(connection, "name_organization_v1", organization="acme", name="Acme Clinics")
    for owner in (ALICE, None):
        connection.execute("insert into saved_reports (owner, name, asked) values (%s, 'by model', '[]')", [owner])
    connection.execute(
        "insert into report_schedules (report_id, every, hour, timezone, channel, due_at)"
        " select id, 'day', 8, 'UTC', case when owner is null then 'operators' else 'alice' end, now() + interval '1 day'"
        " from saved_reports"
    )
    connection.execute("select add_model_price_v1(%s)", [json.dumps({"model": "m", "input_usd_per_mtok": "1"})])
    connection.execute("select set_model_tier_v1('m', 1)")
    ids = {
        number: set_budget(connection, total_limit="0.5", alert_thresholds=["1"], **budget)["id"]
        for number, budget in BUDGETS.items()
    }
    now = connection.execute("select now() as moment").fetchone()
    assert now is not None
    calls, runs = [], []
    for number, (user, organization) in OWNERS.items():
        whose = {"user_id": user, "organization_id": organization, "agent_id": "cardio"}
        what = {"provider": "own", "model": "m", "latency_ms": 100, "framework": "own", "message_type": "chat"}
        part = {"session_id": "s-1", "workflow_id": "intake", "panel_id": "board", "panel_size": 3}
        seat = {"panel_position": 1, "agent_name": "Cardiologist", "agent_tier": "tier_1", "workflow_step": "triage"}
        service = {"service_type": "workflow", "service_run_id": f"r-{number}", "request_hash": "the same"}
        at = now["moment"].isoformat()
        more = {"metadata": {"team": "red", "shadow_of": call_id(1)}} if number == 7 else {}
        calls.append(
            _paid(number, 10 ** (number - 1), **whose, **what, **part, **seat, **service, **more, created_at=at)
        )
        runs.append(an_end(f"r-{number}", **whose, **part, started_at=at, ended_at=at))
        for day in range(1, 9):
            before = (now["moment"] - timedelta(days=day)).isoformat()
            calls.append(_paid(100 * number + day, 0, **whose, **what, created_at=before))
    assert record_runs(connection, *runs)["inserted"] == len(runs)
    assert record(connection, *calls)["inserted"] == len(calls)
    # What is no call has its number in a name, and no price: so it is in no bill of the calls.
    for number, (user, organization) in OWNERS.items():
        whose = {"user_id": user, "organization_id": organization}
        send(
            connection,
            "platform_events",
            an_event(number, **whose, event_name=f"e-{number}", session_id=f"s-{number}", occurred_at=at),
        )
        send(
            connection,
            "tenant_cost_events",
            a_cost(number, **whose, cost_type="compute", service=f"s-{number}", resource="m", occurred_at=at),
        )
        send(
            connection,
            "agent_executions",
            an_execution(number, **whose, agent_id=f"a-{number}", service_run_id=f"r-{number}", started_at=at),
        )
    for who, kind, organization in SUBSCRIPTIONS:
        named = {"entity_type": kind, "entity_id": who, "organization_id": organization, "plan": "trial"}
        call(connection, "set_subscription_v1", subscription=json.dumps(named))
    for number, (_, organization) in OWNERS.items():
        connection.execute(
            "insert into abuse_findings (pattern, organization_id, subject_kind, subject, severity, first_seen, last_seen,"
            " rows_since, measure, minutes, value, threshold, size, known_days)"
            " values ('user_calls', %s, 'user', %s, 'low', now(), now(), now(), 'calls', 5, 2, 1, 2, 0)",
            [organization, f"u-{number}"],
        )
    for place, organization in enumerate(ADVISED):
        told = a_recommendation(place, organization_id=organization)
        call(connection, "save_advice_v1", advice=json.dumps(an_advice(told, organization_id=organization)))
    call(connection, "refresh_analytics")
    acquire(connection, "h", [wish(ids[1], "somebody", unit="0.1")])
    return World({budget_id: number for number, budget_id in ids.items()}, now["moment"])


def _paid(number: int, dollars: int, **changes: Any) -> Row:
    money = {"input_cost": str(dollars), "output_cost": "0", "total_cost": str(dollars), "potential_cost": str(dollars)}
    tokens = {"prompt_tokens": dollars, "completion_tokens": 0, "total_tokens": dollars}
    return a_call(number, **money, **tokens, **changes)


NAMED = {ALICE: ("Alice", "acme"), ERIK: ("Erik", "acme"), CAROL: ("Carol", "other")}


def names_told(reader: Reader) -> Iterable[Any]:
    """Names to oneself and to admins and auditors, addresses not to auditors; an organization's name to its members."""
    told: set[Any] = {("acme", "Acme Clinics")} if reader.is_service else set()
    subject = reader.claims.get("sub") if isinstance(reader.claims, dict) else None
    roles = {organization: role for organization, user, role in MEMBERS if user == subject}
    if "acme" in roles:
        told.add(("acme", "Acme Clinics"))
    for user, (name, organization) in NAMED.items():
        if reader.is_service or user == subject or roles.get(organization) in ("admin", "auditor"):
            told.add((user, name))
        if reader.is_service or user == subject or roles.get(organization) == "admin":
            told.add((user, f"{name}@{organization}"))
    return told


def names(answer: Answer, _: World) -> Told:
    """Ids with names and addresses."""
    told = {(user, known[what]) for user, known in answer["users"].items() for what in ("name", "email")}
    return {pair for pair in told if pair[1]} | set(answer["organizations"].items())


Told = set[Any]
Answer = Any  # a list of rows, or what a function answers


@dataclass(frozen=True)
class Question:
    """A relation that is read or a function that is called, what its answer tells, and what it must tell to whom.

    What it must tell is None where it must be refused. A function's `arguments` may be made from the world.
    """

    name: str
    told: Callable[[Answer, World], Told]
    seen: Callable[[Reader], Iterable[Any] | None]
    arguments: Mapping[str, Any] | Callable[[World], Mapping[str, Any]] | None = None

    @property
    def is_function(self) -> bool:
        """Whether it is called, and not read."""
        return self.arguments is not None

    def with_arguments(self, world: World) -> dict[str, Any]:
        """The arguments by their names."""
        return dict(self.arguments(world) if callable(self.arguments) else self.arguments or {})

    def expected(self, reader: Reader) -> Told | None:
        """What this reader must be told; None: nothing but a refusal."""
        seen = self.seen(reader)
        return None if seen is None else set(seen)

    def __str__(self) -> str:
        return f"{self.name}({self.arguments})" if self.is_function else self.name


def calls_in(amount: object) -> set[int]:
    """Which calls went into a sum of dollars."""
    digits = f"{Decimal(str(amount)):.0f}"[::-1]
    assert set(digits) <= {"0", "1"}, f"{amount} counts a call twice"
    return {number for number, digit in enumerate(digits, start=1) if digit == "1"}


def cost(column: str = "total_cost") -> Callable[[Answer, World], Told]:
    """The calls that went into a column of costs."""
    return lambda rows, _: calls_in(sum(Decimal(str(row[column])) for row in rows if row[column] is not None))


def column(name: str) -> Callable[[Answer, World], Told]:
    """What stands in a column."""
    return lambda rows, _: {row[name] for row in rows}


def numbered(name: str) -> Callable[[Answer, World], Told]:
    """The numbers in the names that stand in a column."""
    return lambda rows, _: {int(row[name][2:]) for row in rows}


def windows(rows: Answer, world: World) -> Told:
    """Windows as the number of their budget and their entity."""
    return {(world.budgets[row["budget_id"]], row["entity_id"]) for row in rows if row["budget_id"] in world.budgets}


def subscribers(rows: Answer, _: World) -> Told:
    """Who is on a plan, and where."""
    return {(row["entity_id"], row["organization_id"]) for row in rows}


def subscribers_of(reader: Reader) -> Iterable[Any]:
    """Users see their own subscriptions, admins their organization's."""
    theirs = {OWNERS[number][1] for number in reader.administered} - {None}
    me = reader.claims.get("sub") if isinstance(reader.claims, dict) else None
    return {
        (who, organization)
        for who, kind, organization in SUBSCRIPTIONS
        if reader.is_service or organization in theirs or (who in theirs if kind == "organization" else who == me)
    }


def own_and_administered(reader: Reader) -> Iterable[Any]:
    """Users see what is theirs, admins what is their organization's."""
    return reader.own | reader.administered


def administered(reader: Reader) -> Iterable[Any]:
    """Admins see what is their organization's; users nothing."""
    return reader.administered


ADVISED = ("acme", "other", None)  # advice is given for each of them, and for all


def advised(reader: Reader) -> Iterable[Any]:
    """Admins see what their organizations are advised, the service role also what is advised for all."""
    if reader.is_service:
        return ADVISED
    return {organization for organization, inside in (("acme", 1), ("other", 3)) if inside in reader.administered}


def for_admins(*things: Any) -> Callable[[Reader], Iterable[Any]]:
    """Admins of any organization see these."""
    return lambda reader: things if reader.is_admin else ()


def for_the_service_role(*things: Any) -> Callable[[Reader], Iterable[Any] | None]:
    """Only the service role may ask."""
    return lambda reader: things if reader.is_service else None


def audited(rows: Answer, world: World) -> Told:
    """What was changed: a budget's number, a member, a price."""
    found: Told = set()
    for row in rows:
        key = row["key"]
        if row["table_name"] == "budget_limits":
            found |= {number for number in (world.budgets.get(int(key["id"])),) if number}
        elif row["table_name"] == "subscriptions":
            found.add(("plan", key["entity_id"]))
        elif row["table_name"] in ("organization_members", "member_names"):
            found.add((key["organization_id"], key["user_id"]))
        elif row["table_name"] == "organization_names":
            found.add(f"the name of {key['organization_id']}")
        elif row["table_name"] == "report_schedules":
            found.add(("report", row["changes"]["channel"][1]))
        else:
            found.add(key["model"])
    return found


def audit_of(reader: Reader) -> Iterable[Any]:
    """Admins see changes of their organization's budgets and members; those of all are for the service role."""
    if reader.is_service:
        plans = {("plan", who) for who, _, _ in SUBSCRIPTIONS}
        return {
            *BUDGETS,
            *reader.members,
            *plans,
            "m",
            "the name of acme",
            ("report", "alice"),
            ("report", "operators"),
        }
    changes: set[Any] = {"the name of acme"} if 1 in reader.administered else set()
    for organization, budgets, inside in (("acme", {2, 4, 6}, 1), ("other", {3, 5}, 3)):
        if inside in reader.administered:
            changes |= budgets | _members(organization)
            changes |= {("plan", who) for who, _, where in SUBSCRIPTIONS if organization in (who, where)}
    return changes


def _of_acme(reader: Reader) -> frozenset[int]:
    return (reader.own | reader.administered) & {1, 2, 7}


def lately(**more: Any) -> Callable[[World], Mapping[str, Any]]:
    """Arguments: the day up to the calls, and more."""
    return lambda world: {
        "since": (world.moment - timedelta(days=1)).isoformat(),
        "until": (world.moment + timedelta(milliseconds=1)).isoformat(),
        **more,
    }


def this_day(**more: Any) -> Callable[[World], Mapping[str, Any]]:
    """Arguments: the day of the calls, in UTC, and more."""

    def arguments(world: World) -> Mapping[str, Any]:
        midnight = world.moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        return {"since": midnight.isoformat(), "until": (midnight + timedelta(days=1)).isoformat(), **more}

    return arguments


def at_once(**more: Any) -> Callable[[World], Mapping[str, Any]]:
    """Arguments: the moment after the calls, and more."""
    return lambda world: {"moment": (world.moment + timedelta(milliseconds=1)).isoformat(), **more}


def lately_named(name: str, organization: str) -> Callable[[World], Mapping[str, Any]]:
    """Arguments of a function that names its times otherwise: the day up to the calls."""
    return lambda world: {
        name: organization,
        "start_time": (world.moment - timedelta(days=1)).isoformat(),
        "end_time": (world.moment + timedelta(milliseconds=1)).isoformat(),
    }


def rate_of_own(reader: Reader) -> Iterable[Any]:
    """All calls of the world succeeded; who sees none is told nothing."""
    return {100 if reader.own | reader.administered else None}


def tenants(reader: Reader) -> Iterable[Any]:
    """The organizations of which somebody sees anything, with how many users who did anything they see."""
    seen = {OWNERS[number] for number in reader.own | reader.administered}
    names = {name for _, name in seen if name} | {name for name, _ in reader.members}
    return {(name, len({user for user, of in seen if of == name})) for name in names}


def if_admin_of_acme(reader: Reader) -> Iterable[Any] | None:
    """Whoever asks what an organization costs and is no admin of it is refused."""
    return {1, 2, 7} if 1 in reader.administered else None


def anomalies(rows: Answer, _: World) -> Told:
    """The calls that made the days of agents, users or models dear."""
    return {number for row in rows for number in calls_in(row["value"])}


def repeated(reader: Reader) -> set[Any]:
    """A request that was made more than once in an organization, by those whose calls one sees."""
    groups = ({1, 2, 7}, {3, 6}, {4, 5})
    seen = [group & (reader.own | reader.administered) for group in groups]
    return set[Any]().union(*(group for group in seen if len(group) > 1))


def pair_of_calls(rows: Answer, _: World) -> Told:
    """The calls in pairs of a call and its shadow run."""
    return calls_in(sum(Decimal(str(row[name])) for row in rows for name in ("cost", "shadow_cost")))


def both_or_none(reader: Reader, pair: set[int]) -> set[int]:
    """Two calls, where a reader sees both."""
    return pair if pair <= reader.own | reader.administered else set()


def days(rows: Answer, _: World) -> Told:
    """The calls in the days of the system, in their agents and providers, and in their users."""
    told: Told = set()
    for row in rows:
        told |= {("day", number) for number in calls_in(row["total_cost_usd"])}
        told |= {("provider", number) for amount in row["cost_by_provider"].values() for number in calls_in(amount)}
        for kind, listed in (("agent", row["popular_agents"]), ("user", row["top_users_by_usage"])):
            told |= {(kind, number) for one in listed for number in calls_in(one["cost_usd"])}
    return told


def days_of(reader: Reader) -> Iterable[Any]:
    """Admins see their organizations' days, others their own, the calls of nobody in no user's sums."""
    kinds = ("day", "provider", "agent", "user")
    return {(kind, number) for kind in kinds for number in reader.administered or reader.own} - {("user", 5)}


def dashboard(answer: Answer, _: World) -> Told:
    """The calls in the parts of a dashboard."""
    told = {("totals", number) for number in calls_in(answer["totals"]["total_cost"])}
    for part in ("by_service", "by_model", "by_day", "top_users", "top_agents"):
        told |= {(part, number) for one in answer[part] for number in calls_in(one["total_cost"])}
    return told


def dashboard_of_acme(reader: Reader) -> Iterable[Any] | None:
    """All of its parts, for its admins."""
    parts = ("totals", "by_service", "by_model", "by_day", "top_users", "top_agents")
    seen = if_admin_of_acme(reader)
    return None if seen is None else {(part, number) for part in parts for number in seen}


def parts_of_days(rows: Answer, _: World) -> Told:
    """The calls in sums by time, and in their parts by provider and by model."""
    told = {("sum", number) for row in rows for number in calls_in(row["total_cost_usd"])}
    for part in ("by_provider", "by_model"):
        told |= {(part, number) for row in rows for one in row[part].values() for number in calls_in(one["cost_usd"])}
    return told


def parts_of(calls: Iterable[int]) -> Told:
    """All of these."""
    return {(part, number) for part in ("sum", "by_provider", "by_model") for number in calls}


MATERIALIZED = ("mv_panel_performance", "mv_service_costs", "mv_user_service_usage", "mv_workflow_efficiency")

# Every table and view of the schema public, and every function that signed-in users may call.
QUESTIONS = [
    Question("abuse_findings", numbered("subject"), administered),
    Question("admin_audit", audited, audit_of),
    Question("advice_runs", column("organization_id"), advised),
    Question("agent_performance_metrics", cost("total_cost_usd"), own_and_administered),
    Question("agent_usage_detailed", cost(), own_and_administered),
    Question("agent_executions", numbered("agent_id"), own_and_administered),
    Question("agent_executions_hourly", numbered("agent_id"), administered),
    Question("platform_events", numbered("event_name"), own_and_administered),
    Question("platform_events_5min", numbered("event_name"), administered),
    Question("platform_events_daily_sessions", numbered("session_id"), own_and_administered),
    Question("resource_prices", column("cost_type"), for_admins("storage", "bandwidth", "search", "tts", "stt")),
    Question("tenant_cost_events", numbered("service"), own_and_administered),
    Question("tenant_costs_5min", numbered("service"), administered),
    Question("tenant_costs_daily", numbered("service"), own_and_administered),
    Question("analytics_freshness", column("name"), for_the_service_role(*MATERIALIZED)),
    Question("budget_grants", column("holder"), for_the_service_role("h")),
    Question(
        "budget_limits",
        lambda rows, world: {world.budgets[row["id"]] for row in rows if not row["by_plan"]},
        lambda r: r.budgets,
    ),
    *(Question(name, column("organization_id"), advised) for name in ("recommendations", "open_recommendations")),
    Question("plans", column("name"), lambda reader: {"trial", "starter", "professional", "enterprise"}),
    Question("subscriptions", subscribers, subscribers_of),
    Question("quota_status", subscribers, subscribers_of),
    # The grant has opened a window for somebody who has not spent.
    Question("budget_status", windows, lambda r: r.windows | ({(1, "somebody")} if r.is_service else set())),
    Question("budget_windows", windows, lambda r: r.windows | ({(1, "somebody")} if r.is_service else set())),
    Question("cost_alerts", windows, lambda r: r.windows),
    Question("model_prices", column("model"), for_admins("m")),
    Question("model_tiers", column("model"), for_admins("m")),
    *(Question(name, cost(), for_the_service_role(*OWNERS)) for name in MATERIALIZED),
    *(Question(name.removeprefix("mv_"), cost(), own_and_administered) for name in MATERIALIZED),
    Question(
        "organization_members",
        lambda rows, _: {(row["organization_id"], row["user_id"]) for row in rows},
        lambda reader: reader.members,
    ),
    Question(
        "saved_reports",
        column("owner"),
        lambda reader: (
            {ALICE, None} if reader.is_service else {owner for owner in (ALICE,) if {"sub": owner} == reader.claims}
        ),
    ),
    Question(
        "report_schedules",
        column("channel"),
        lambda reader: (
            {"alice", "operators"} if reader.is_service else {"alice"} if reader.claims == {"sub": ALICE} else set()
        ),
    ),
    Question("retention_policies", lambda rows, _: {len(rows)}, lambda reader: {21} if reader.is_admin else {0}),
    Question("service_performance_metrics", cost(), own_and_administered),
    Question("service_runs", lambda rows, _: {int(row["id"][2:]) for row in rows}, own_and_administered),
    Question("system_analytics", days, days_of),
    Question("token_usage_logs", cost(), own_and_administered),
    Question("usage_aggregations_daily_agents", cost(), administered),
    Question("usage_aggregations_daily_parts", cost(), administered),
    Question("usage_aggregations_daily_totals", cost(), administered),
    Question("usage_aggregations_daily_users", cost(), own_and_administered),
    Question("usage_aggregations_hourly_totals", cost(), administered),
    Question("usage_aggregations_daily", parts_of_days, lambda reader: parts_of(own_and_administered(reader))),
    Question("usage_aggregations_hourly", parts_of_days, lambda reader: parts_of(own_and_administered(reader))),
    Question("usage_logs", cost("cost_usd"), own_and_administered),
    Question("workflow_analytics", cost(), own_and_administered),
    # Functions.
    Question(
        "audit_v1",
        lambda rows, world: audited([{**row, "table_name": row["what"]} for row in rows], world),
        audit_of,
        {"max_rows": 1000},
    ),
    Question(
        "members_v1",
        lambda rows, _: {(row["organization_id"], row["user_id"]) for row in rows},
        lambda reader: reader.members,
        {},
    ),
    Question("retention_v1", lambda told, _: {len(told["tables"])}, lambda r: {21} if r.is_admin else {0}, {}),
    Question(
        "names_v1", names, names_told, {"users": [ALICE, ERIK, CAROL, STRANGER], "organizations": ["acme", "other"]}
    ),
    Question("cost_breakdown", cost(), own_and_administered, {"by": "model"}),
    Question("cost_breakdown", cost(), _of_acme, {"by": "agent", "organization": "acme"}),
    Question("organization_cost", cost(), if_admin_of_acme, lately(organization="acme")),
    Question("cost_forecast", cost("spent"), own_and_administered, at_once()),
    Question("cost_forecast", cost("spent"), _of_acme, at_once(organization="acme", period="day")),
    Question("usage_anomalies", anomalies, own_and_administered, lately()),
    Question("usage_anomalies", anomalies, _of_acme, lately(organization="acme")),
    Question("duplicate_requests", cost("cost"), repeated, lately()),
    Question("duplicate_requests", cost("cost"), lambda r: repeated(r) & {1, 2, 7}, lately(organization="acme")),
    Question(
        "my_memberships",
        lambda answer, _: {(row["organization_id"], row["role"]) for row in answer},
        lambda reader: {
            (organization, role)
            for organization, user, role in MEMBERS
            if isinstance(reader.claims, dict) and user == reader.claims.get("sub")
        },
        {},
    ),
    Question("agent_success_rate", cost(), own_and_administered, {}),
    Question("agents_v1", cost(), own_and_administered, lately()),
    Question("agents_v1", cost(), _of_acme, lately(organization="acme", agent="cardio")),
    Question(
        "agent_success_rate",
        cost(),
        lambda r: (r.own | r.administered) & {3, 6},
        {"agent": "cardio", "organization": "other"},
    ),
    Question(
        "get_dashboard_stats", parts_of_days, lambda r: parts_of(_of_acme(r)), {"p_project_id": "acme", "p_days": 7}
    ),
    Question("get_dashboard_stats", parts_of_days, lambda r: parts_of(own_and_administered(r)), {"p_project_id": None}),
    Question("get_tenant_cost", lambda answer, _: calls_in(answer), _of_acme, lately_named("tenant_id", "acme")),
    Question("abuse_findings_v1", numbered("subject"), administered, {}),
    Question("recommendations_v1", column("organization_id"), advised, {}),
    *(
        Question(
            "last_advice_v1",
            lambda told, _: {told["organization_id"]} if told else set(),
            lambda reader, whose=whose: set(advised(reader)) & {whose},  # type: ignore[misc]
            {"organization": whose},
        )
        for whose in ("acme", None)
    ),
    Question(
        "abuse_settings_v1",
        lambda told, _: {len(told["patterns"]), *(mark["subject"] for mark in told["marks"])},
        lambda _: {12},
        {},
    ),
    Question(
        "tenant_health", lambda rows, _: {(row["organization_id"], row["active_users"]) for row in rows}, tenants, {}
    ),
    Question(
        "tenant_health_v1",
        lambda answer, _: {(row["organization_id"], row["active_users"]) for row in answer["rows"]},
        lambda reader: {one for one in tenants(reader) if one[0] == "acme"},
        {"organization": "acme", "weeks": 2},
    ),
    *(
        Question(
            name,
            lambda answer, _: {answer is not None},
            lambda reader: {any(name == "acme" for name, _ in tenants(reader))},
            {"tenant_id": "acme"},
        )
        for name in ("get_tenant_engagement", "calculate_tenant_health")
    ),
    Question(
        "get_agent_success_rate",
        lambda answer, _: {answer and float(answer)},
        rate_of_own,
        {"agent_id": "cardio", "hours": 24},
    ),
    Question("dashboard_summary", dashboard, dashboard_of_acme, {"organization": "acme"}),
    Question(
        "dashboard_summary",
        lambda answer, _: calls_in(answer["totals"]["total_cost"]),
        for_the_service_role(*OWNERS),
        {"organization": None, "days": 7},
    ),
    *(
        Question("top_usage", cost(), own_and_administered, {"by": by})
        for by in (
            *("service", "agent", "tier", "framework", "provider", "model", "message_type"),
            *("panel", "panel_seat", "workflow", "workflow_step"),
        )
    ),
    Question("top_usage", cost(), lambda r: (r.own | r.administered) - {4, 5}, {"by": "organization"}),
    Question("top_usage", cost(), lambda r: (r.own | r.administered) - {5}, {"by": "user"}),
    Question("top_usage", cost(), _of_acme, {"by": "user", "organization": "acme"}),
    Question("user_engagement", cost(), lambda r: (r.own | r.administered) - {5}, {}),
    Question("user_engagement", cost(), _of_acme, {"days": 7, "organization": "acme"}),
    # Calls, runs and what they come to, for whoever asks.
    Question("calls_v1", cost(), own_and_administered, {}),
    Question("calls_v1", cost(), _of_acme, {"filters": '{"organization": "acme", "search": "CARDIO board"}'}),
    Question(
        "metadata_keys_v1",
        lambda keys, _: set(keys),
        lambda r: {"team", "shadow_of"} if 7 in own_and_administered(r) else (),
        {},
    ),
    Question(
        "user_traces_v1",
        lambda told, _: {told["runs"], *calls_in(told["total_cost"])},
        lambda r: {len((r.own | r.administered) & {1, 4}), *(r.own | r.administered) & {1, 4}},
        {"user_id": ALICE},
    ),
    Question("runs_v1", cost(), own_and_administered, {}),
    Question("runs_v1", cost(), _of_acme, {"filters": '{"organization": "acme"}', "nested": True}),
    Question("run_ids_v1", lambda ids, _: {int(one[2:]) for one in ids}, own_and_administered, {"prefix": "r-"}),
    Question(
        "run_tree_v1",
        lambda tree, _: calls_in(sum(Decimal(part["total_cost"]) for part in tree["parts"])) if tree else set(),
        lambda r: (r.own | r.administered) & {2},
        {"run": "r-2"},
    ),
    # Exploring, from calls and, of whole days, from sums.
    *(
        Question("usage_explore_v1", lambda answer, world: cost()(answer["rows"], world), own_and_administered, asked)
        for asked in (
            lately(dimensions=["model", "hour", "metadata.team"]),
            this_day(dimensions=["user"], measures=["total_cost", "active_users"], top=1),
            this_day(dimensions=["agent", "day"]),
            this_day(dimensions=["endpoint", "status"], timezone="Asia/Kolkata"),
            lately(dimensions=["model", "week"], timezone="Asia/Kolkata", grain="week"),
            lately(dimensions=["run"], filters='{"any": {"run": "*", "user": ["*", null]}, "calls": {}}', grain="day"),
        )
    ),
    *(
        Question("usage_explore_v1", lambda answer, _: calls_in(answer["total"]["total_cost"]), _of_acme, asked)
        for asked in (
            lately(filters='{"organization": "acme", "kind": ["llm", null]}'),
            lately(filters='{"calls": {"organization": "acme"}}', dimensions=["user"], grain="day"),
            this_day(filters='{"organization": "acme"}', dimensions=["user", "service"]),
            this_day(filters='{"organization": ["acme"], "workflow": "*"}', dimensions=["day", "step"]),
        )
    ),
    Question("invoice_v1", cost(), if_admin_of_acme, lately(organization="acme")),
    # Events and other costs: their rows and sums, from each of the tables that may answer.
    Question("platform_rows_v1", numbered("event_name"), own_and_administered, {"what": "events"}),
    Question(
        "platform_rows_v1", numbered("service"), _of_acme, {"what": "costs", "filters": '{"organization": "acme"}'}
    ),
    *(
        Question(
            "platform_explore_v1",
            lambda answer, _, name=name: {int(row[name][2:]) for row in answer["rows"]},
            seen,
            asked,
        )
        for name, seen, asked in (
            ("event", own_and_administered, this_day(what="events", dimensions=["event"])),
            ("session", own_and_administered, this_day(what="events", dimensions=["session"])),
            ("event", own_and_administered, lately(what="events", dimensions=["event", "source"])),
            ("service", own_and_administered, lately(what="costs", dimensions=["service"])),
            ("service", own_and_administered, this_day(what="costs", dimensions=["service", "hour"])),
            ("service", _of_acme, lately(what="costs", dimensions=["service"], filters='{"organization": "acme"}')),
        )
    ),
    Question(
        "machine_hours_v1",
        lambda answer, _: {int(row["machine_hours"]) for row in answer["rows"]},
        lambda reader: {10 * len(set(own_and_administered(reader)))} - {0},
        lately(),
    ),
    Question(
        "budget_use_v1",
        lambda rows, world: {world.budgets[row["budget_id"]] for row in rows},
        lambda reader: reader.budgets,
        lately(),
    ),
    Question(
        "outcomes_v1",
        lambda answer, _: {answer["executions"], answer["no_calls"]},
        lambda reader: {len(set(own_and_administered(reader)))},
        lately(),
    ),
    Question("model_tiers_v1", column("model"), for_admins("m"), {}),
    Question(
        "resource_prices_v1",
        column("cost_type"),
        for_admins("storage", "bandwidth", "search", "tts", "stt"),
        {},
    ),
    # The same as the library, the command line and the pages ask.
    Question(
        "anomalies_v1",
        lambda answer, world: anomalies(answer["rows"], world),
        _of_acme,
        lately(organization="acme"),
    ),
    *(
        Question("call_groups_v1", cost("total_cost"), own_and_administered, asked)
        for asked in (lately(), lately(repeated_within="1 hour", prefixes_within="5 minutes"))
    ),
    *(
        Question(name, pair_of_calls, lambda r: both_or_none(r, {1, 7}), lately(organization="acme"))
        for name in ("shadow_pairs", "shadow_pairs_v1")
    ),
    *(
        Question(
            name,
            lambda answer, world: cost("cost")(answer["rows"], world),
            lambda r: repeated(r) & {1, 2, 7},
            lately(organization="acme"),
        )
        for name in ("duplicates_v1", "duplicates_v2")
    ),
    Question(
        "forecast_v1",
        lambda answer, _: calls_in(answer["spent"]),
        _of_acme,
        at_once(organization="acme"),
    ),
    *(
        Question(
            "usage_report_v1",
            lambda answer, _: calls_in(answer["total"]["total_cost"]),
            for_the_service_role(3, 6),
            lately(organization="other", report=report),
        )
        for report in ("services", "users", "agents", "panels", "workflows", "models", "cache")
    ),
    Question(
        "check_budget",
        lambda rows, world: {
            (world.budgets[row["budget_id"]], row["entity_id"])
            for row in rows
            if Decimal(row["spent"]) and row["budget_id"] in world.budgets
        },
        lambda reader: (
            reader.windows
            & {(1, ALICE), (2, ALICE), (4, "acme"), (6, "workflow"), (7, "workflow"), (8, ALICE), (10, "acme")}
        ),
        {"organization_id": "acme", "user_id": ALICE, "service_type": "workflow"},
    ),
    Question(
        "budgets_v1",
        lambda told, world: {world.budgets[row["id"]] for row in told["budgets"] if not row["by_plan"]},
        lambda r: r.budgets,
        {},
    ),
    Question("quota_status_v1", subscribers, subscribers_of, {}),
    Question(
        "quotas_v1",
        lambda told, _: {row["subscribers"] for row in told if row["plan"] == "trial"},
        lambda reader: {len(set(subscribers_of(reader)))},
        {},
    ),
    Question(
        "subscriptions_v1",
        subscribers,
        lambda reader: {one for one in subscribers_of(reader) if one[0] == ALICE},
        {"entity_type": "user", "entity_id": ALICE},
    ),
    Question("rate_limits_v1", lambda told, _: {row["entity_id"] for row in told}, lambda _: (), {}),
    Question(
        "plans_v1",
        lambda told, _: {row["name"] for row in told},
        lambda reader: {"trial", "starter", "professional", "enterprise"},
        {},
    ),
    Question("budget_windows_v1", windows, lambda r: r.windows | ({(1, "somebody")} if r.is_service else set()), {}),
    Question("cost_alerts_v1", windows, lambda r: r.windows, {}),
    Question("blocked_calls_v1", lambda told, _: {row["id"] for row in told["calls"]}, lambda _: (), {}),
    Question("budget_overrides_v1", lambda told, _: {row["entity_id"] for row in told}, lambda _: (), {}),
    Question(
        "budget_preview_v1",
        lambda told, _: calls_in(sum(Decimal(day["amount"]) for day in told["days"])),
        lambda reader: set(own_and_administered(reader)) - {5},  # that call is nobody's
        {"budget": '{"entity_type": "user", "daily_limit": "1"}'},
    ),
]
# Functions that signed-in users may call and that read nothing of others; what those of members, budgets, advice and reports
# change, test_members.py, test_abuse.py, test_recommendations.py, test_budgets_admin.py, test_quotas.py, test_saved_reports.py
# and test_forget_user.py ask as everybody; so does test_usage_version.py, of both versions.
PURE = {
    "latency_percentile", "latency_percentiles", "usage_version_v1", "runs_version_v1",
    "add_member_v1", "change_member_v1", "remove_member_v1", "saved_reports_v1",
    "save_report_v1", "remove_report_v1", "set_budget_v1", "override_budget_v1", "raise_budget_v1", "remove_budget_v1",
    "set_plan_v1", "remove_plan_v1", "set_subscription_v1", "set_subscriptions_v1", "end_subscription_v1", "claim_plan_v1",
    "forget_user_v1", "name_member_v1", "name_organization_v1",
    "decide_abuse_v1", "unmark_abuse_v1", "set_abuse_rule_v1", "decide_recommendation_v1", "may_renew_advice_v1",
}  # fmt: skip
