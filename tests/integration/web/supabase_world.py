"""A world over Supabase's API: people who have signed up, what is theirs, and by which marks it would be known in an answer.

Every name of a call, a budget or a report holds a plant of its own, and call n costs 7 times 10^(n+1) dollars: so neither a name
nor a sum of somebody else's can be in an answer without being found.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import httpx

from tests.sql.advice_rows import a_recommendation, an_advice, an_id
from tests.sql.helpers import Connection, a_call, an_end, call, call_id, record, record_runs, set_budget
from tests.sql.platform_rows import a_cost, an_event, send
from tests.support.supabase_lite import SupabaseLite

PASSWORD: Final = "secret-word-7391"
NORTH, SOUTH = "northclinic", "southclinic"
ROLES: Final = {
    "member": (NORTH, "member"),
    "colleague": (NORTH, "member"),
    "admin": (NORTH, "admin"),
    "other": (SOUTH, "admin"),
    "stranger": None,
}
"""Who has signed up, and what each is where. The five who ask are these without the colleague, and `anonymous`."""

FIVE: Final = ("member", "admin", "other", "stranger", "anonymous")

CALLS: Final[dict[str, tuple[str | None, str | None]]] = {
    "amaranth": ("member", NORTH),
    "bergamot": ("colleague", NORTH),
    "coriander": ("admin", NORTH),
    "dandelion": ("other", SOUTH),
    "echinacea": ("member", None),
    "fenugreek": ("stranger", None),
    "goldenrod": (None, None),
}
"""Calls by their plants: whose, and for which organization."""

BUDGETS: Final[dict[str, tuple[dict[str, Any], frozenset[str]]]] = {
    "hawthorn": ({"entity_type": "user", "organization_id": NORTH}, frozenset({"member", "admin"})),
    "juniper": ({"entity_type": "organization", "entity_id": NORTH}, frozenset({"admin"})),
    "lavender": ({"entity_type": "user", "entity_id": "other"}, frozenset({"other"})),
    "marjoram": ({"entity_type": "organization", "entity_id": SOUTH}, frozenset({"other"})),
    "nightshade": ({"entity_type": "user"}, frozenset({"member", "admin", "other", "stranger"})),
    "oleander": ({"entity_type": "service"}, frozenset()),
}
"""Budgets by their plants: what they stand on (a user by the name here), and who sees them."""

FINDINGS: Final = {"tamarind": (NORTH, "admin"), "turmeric": (SOUTH, "other"), "valerian": (None, None)}
"""What looks like abuse, by its plants: in which organization, and who sees it."""

ADVICE: Final = {"wintergreen": (NORTH, "admin"), "yarrow": (SOUTH, "other"), "zinnia": (None, None)}
"""Advice, by its plants: of which organization, and who sees it."""

REPORTS: Final = {"member": "peppermint", "admin": "quinoa", "other": "rosemary", "stranger": "saffron"}
"""The report that each keeps."""

_SEEN: Final[dict[str, frozenset[str]]] = {
    "member": frozenset({"amaranth", "echinacea"}),
    "admin": frozenset({"amaranth", "bergamot", "coriander"}),
    "other": frozenset({"dandelion"}),
    "stranger": frozenset({"fenugreek"}),
    "anonymous": frozenset(),
}
_USERS: Final = {
    "member": {"member"},
    "admin": {"member", "colleague", "admin"},
    "other": {"other"},
    "stranger": {"stranger"},
    "anonymous": set[str](),
}
_ORGANIZATIONS: Final = {"member": {NORTH}, "admin": {NORTH}, "other": {SOUTH}, "stranger": set(), "anonymous": set()}

# A sum of what calls cost, as pages write it (without its commas) and as JSON does.
_AMOUNT: Final = re.compile(r"(?<![\w.-])(7[07]*00)(?:\.0+)?(?![\w-]|\.\d)")


@dataclass(frozen=True)
class Person:
    """Somebody who has signed up."""

    email: str
    id: str
    token: str


@dataclass(frozen=True)
class World:
    """Who there is, and the ids of the budgets by their plants."""

    people: dict[str, Person]
    budgets: dict[str, int]
    findings: dict[str, int]

    def of(self, kind: str, reader: str) -> set[str]:
        """What of a kind must be in an answer that shows it to a reader."""
        seen = _SEEN[reader]
        match kind:
            case "sum":
                return {self.spent(reader)} - {"0"}
            case "call":
                return {id_of(plant) for plant in seen}
            case "user":
                return {self.people[name].id for name in _USERS[reader]}
            case "email":  # which Supabase Auth knows: one's own, and to an admin those of all who called something
                return {self.people[name].email for name in _USERS[reader]}
            case "organization":
                return _ORGANIZATIONS[reader]
            case "budget":
                return {f"spare-{plant}" for plant, (_, readers) in BUDGETS.items() if reader in readers}
            case "found":
                return {f"found-{plant}" for plant, (_, whom) in FINDINGS.items() if whom == reader}
            case "advice":
                return {f"advised-{plant}" for plant, (_, whom) in ADVICE.items() if whom == reader}
            case "report":
                return {REPORTS[reader]} if reader in REPORTS else set()
            case "self":
                return {self.people[reader].email} if reader in self.people else set()
        return {f"{kind}-{plant}" for plant in seen}

    def spent(self, reader: str, organization: str | None = None) -> str:
        """What all calls cost that a reader sees, or those of an organization among them."""
        return str(sum(cost(one) for one in _SEEN[reader] if organization in (None, CALLS[one][1])))

    def tried(self, kind: str, reader: str) -> dict[str, str]:
        """Ids of a kind by their plants, to be tried by a reader: one that he sees, and two that he does not."""
        if kind == "budget":
            ids = {plant: str(number) for plant, number in self.budgets.items()}
        elif kind == "found":
            ids = {plant: str(number) for plant, number in self.findings.items()}
        elif kind == "advice":
            ids = {plant: an_id(number) for number, plant in enumerate(ADVICE)}
        elif kind in ("call", "stopped"):
            ids = {plant: id_of(plant, stopped=kind == "stopped") for plant in CALLS}
        else:
            ids = {plant: f"{kind}-{plant}" for plant in CALLS}
        seen = [plant for plant in ids if self.sees(reader, plant)]
        hidden = [plant for plant in ids if not self.sees(reader, plant)]
        return {plant: ids[plant] for plant in seen[:1] + hidden[:: len(hidden) // 2][:2]}

    def sees(self, reader: str, plant: str) -> bool:
        """Whether a reader may see that call, its run or that budget."""
        if plant in FINDINGS:
            return FINDINGS[plant][1] == reader
        if plant in ADVICE:
            return ADVICE[plant][1] == reader
        return plant in _SEEN[reader] or (plant in BUDGETS and reader in BUDGETS[plant][1])

    def foreign(self, reader: str, text: str) -> list[str]:
        """What is in an answer that its reader may not see: names, ids, and calls that went into a sum."""
        plants = {*CALLS, *BUDGETS, *FINDINGS, *ADVICE, *REPORTS.values()}
        mine = {plant for plant in plants if self.sees(reader, plant) or plant == REPORTS.get(reader)}
        hidden = {*(plants - mine), NORTH, SOUTH} - _ORGANIZATIONS[reader]
        hidden |= {id_of(plant) for plant in set(CALLS) - mine}
        hidden |= {person.id for name, person in self.people.items() if name not in _USERS[reader]}
        hidden |= {person.email for person in self.people.values()} - self.of("email", reader)
        found = [mark for mark in hidden if mark in text]
        return sorted(found + [plant for plant in counted(text) if plant not in _SEEN[reader]])


def cost(plant: str) -> int:
    """What a call costs in US dollars."""
    return int(7 * 10 ** (list(CALLS).index(plant) + 2))


def id_of(plant: str, *, stopped: bool = False) -> str:
    """The id of the call that was paid for, or of the one that a budget stopped."""
    return call_id(10 + list(CALLS).index(plant) + 200 * stopped)


def counted(text: str) -> set[str]:
    """The calls that went into any sum that an answer tells."""
    found = set()
    for match in _AMOUNT.finditer(text):
        digits = match[1][::-1]
        found |= {plant for plant in CALLS if digits[len(str(cost(plant))) - 1 :][:1] == "7"}
    return found


def sign_up(lite: SupabaseLite) -> dict[str, Person]:
    """Accounts for all, whose own words about their roles must not count."""
    people = {}
    for name in ROLES:
        email = f"{name}-{uuid.uuid4().hex}@example.com"
        claims = {"role": "admin", "organization_id": NORTH}
        answer = httpx.post(
            f"{lite.url}/auth/v1/signup",
            json={"email": email, "password": PASSWORD, "data": claims},
            headers={"apikey": lite.publishable_key},
            trust_env=False,
        ).json()
        people[name] = Person(email, answer["user"]["id"], answer["access_token"])
    return people


def make_world(connection: Connection, people: dict[str, Person]) -> World:
    """Members, budgets, runs, calls that were paid for, blocked and made again, and a report of each."""
    for name, place in ROLES.items():
        if place is not None:
            organization, role = place
            connection.execute(
                "insert into organization_members values (%s, %s, %s)", [organization, people[name].id, role]
            )
    for name, plant in REPORTS.items():
        asked = '[["by", "model"]]'
        connection.execute(
            "insert into saved_reports (owner, name, asked) values (%s, %s, %s)", [people[name].id, plant, asked]
        )
    budgets = {}
    for plant, (columns, _) in BUDGETS.items():
        entity = columns.get("entity_id", "*")
        entity = people[entity].id if entity in people else entity
        budgets[plant] = set_budget(
            connection,
            **{**columns, "entity_id": entity},
            action="downgrade",
            downgrade_to=f"spare-{plant}",
            daily_limit="0.5",
        )["id"]
    now = datetime.now(UTC).isoformat()
    assert record_runs(connection, *(_run(plant, people, now) for plant in CALLS))["inserted"] == len(CALLS)
    calls = [one for plant in CALLS for one in _calls(plant, people, now)]
    assert record(connection, *calls)["inserted"] == len(calls)
    for number, plant in enumerate(CALLS, 700):
        whose = {"user_id": _whose(plant, people)["user_id"], "organization_id": CALLS[plant][1], "occurred_at": now}
        named = f"session-{plant}"
        send(connection, "platform_events", an_event(number, **whose, event_name=f"event-{plant}", session_id=named))
        other = a_cost(number, **whose, cost_type="compute", service=f"cost-{plant}")  # which has no price
        send(connection, "tenant_cost_events", other)
    findings = {plant: make_finding(connection, f"found-{plant}", place) for plant, (place, _) in FINDINGS.items()}
    for number, (plant, (place, _)) in enumerate(ADVICE.items()):
        make_advice(connection, number, f"advised-{plant}", place)
    # Its 700 calls would be taken for what a call costs.
    call(connection, "set_plan_v1", plan='{"name": "trial", "calls": 800}')
    places = {(people[owner].id, organization) for owner, organization in CALLS.values() if owner}
    places.add(("on-a-plan", NORTH))
    for user, organization in sorted(places, key=str):
        named = {"entity_type": "user", "entity_id": user, "organization_id": organization, "plan": "starter"}
        call(connection, "set_subscription_v1", subscription=json.dumps(named))
    call(connection, "refresh_analytics")
    return World(people, budgets, findings)


def make_finding(connection: Connection, subject: str, organization: str | None) -> int:
    """Something that looks like abuse; its id."""
    found = connection.execute(
        "insert into abuse_findings (pattern, organization_id, subject_kind, subject, entity_type, entity_id, severity,"
        " first_seen, last_seen, rows_since, measure, minutes, value, threshold, size, known_days) values"
        " ('user_calls', %s, 'user', %s, 'user', %s, 'low', now(), now(), now(), 'calls', 5, 2, 1, 2, 0) returning id",
        [organization, subject, subject],
    ).fetchone()
    assert found is not None
    return int(found["id"])


def make_advice(connection: Connection, number: int, recommended: str, organization: str | None) -> str:
    """Something that would save money; its id."""
    one = a_recommendation(number, organization_id=organization, recommended=recommended)
    call(connection, "save_advice_v1", advice=json.dumps(an_advice(one, organization_id=organization)))
    return an_id(number)


def _whose(plant: str, people: dict[str, Person]) -> dict[str, Any]:
    user, organization = CALLS[plant]
    return {
        "user_id": people[user].id if user else None,
        "organization_id": organization,
        "session_id": f"session-{plant}",
        "workflow_id": f"workflow-{plant}",
        "panel_id": f"panel-{plant}",
    }


def _run(plant: str, people: dict[str, Person], now: str) -> dict[str, Any]:
    named = {"service_id": f"workflow-{plant}", "service_name": f"workflow-{plant}"}
    return an_end(f"run-{plant}", **_whose(plant, people), **named, started_at=now, ended_at=now)


def _calls(plant: str, people: dict[str, Person], now: str) -> Iterable[dict[str, Any]]:
    """One that was paid for, the same again for nothing, and one that a budget stopped."""
    number, dollars = 10 + list(CALLS).index(plant), cost(plant)
    named = {
        **_whose(plant, people),
        "service_type": "workflow",
        "service_run_id": f"run-{plant}",
        "workflow_step": f"step-{plant}",
        "panel_position": 1,
        "agent_id": f"agent-{plant}",
        "agent_name": f"agent-{plant}",
        "agent_tier": "tier_1",
        "framework": f"framework-{plant}",
        "message_type": f"message-{plant}",
        "provider": "own",
        "model": f"model-{plant}",
        "metadata": {"tool": f"tool-{plant}"},
        "latency_ms": 90,
        "created_at": now,
    }
    free = dict.fromkeys(("input_cost", "output_cost", "total_cost", "potential_cost"), "0")
    paid = {**free, **dict.fromkeys(("input_cost", "total_cost", "potential_cost"), str(dollars))}
    yield a_call(number, **named, **paid, request_hash=f"hash-{plant}")
    yield a_call(number + 100, **named, **free, request_hash=f"hash-{plant}")
    by = {"reason": f"stopped-{plant}"}
    yield a_call(number + 200, **named, **free, status="blocked", budget_action="downgrade", blocked_by=by)
