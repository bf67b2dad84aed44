"""The world of the matrix of test_budget_matrix: one database, tracker and provider's server for all cases.

A case is a path, an attachment, a budget, and a user of its own: budgets are for each user of an organization, and there is an
organization for each action.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import psycopg
from psycopg.rows import dict_row

from tests.integration.budgets.matrix_paths import ANSWER, PATHS, Path
from tests.support.effort import LONG
from tests.support.provider_server import ProviderServer, Reply, Request
from vital_tracking import Settings, VitalTracker
from vital_tracking.langchain.middleware import VitalMiddleware
from vital_tracking.stores.postgres import PostgresStore

DEAR, CHEAP, OTHER = "gpt-4o", "gpt-4o-mini", "claude-haiku-4-5"  # OTHER is another provider's, and cheap as well
COMPLETION_MODEL = "gpt-3.5-turbo-instruct"
PRICES = {DEAR: ("2.5", "10"), CHEAP: ("0.15", "0.6"), OTHER: ("1", "5")}  # dollars per million tokens in and out
INTERVAL_S = 0.2
AUDIT_EVERY = 50

# Organization -> the budgets of each of its users. One call is the limit, but for `none`, where nothing is ever near one.
BUDGETS: dict[str, Sequence[dict[str, Any]]] = {
    "none": [
        {"action": "block", "monthly_limit": "1000"},
        {"action": "throttle", "monthly_limit": "1000"},
        {"action": "downgrade", "monthly_limit": "1000", "downgrade_to": CHEAP},
        {"action": "alert", "monthly_limit": "1000"},
    ],
    "alert": [{"action": "alert"}],
    "shadow": [{"action": "block", "enforce": False}],
    "block": [{"action": "block"}],
    "ten": [{"action": "block", "monthly_limit": "10"}],
    "throttle": [{"action": "throttle", "throttle_interval_s": str(INTERVAL_S)}],
    "slow": [{"action": "throttle", "throttle_interval_s": "60"}],
    "downgrade": [{"action": "downgrade", "downgrade_to": CHEAP}],
    "across": [{"action": "downgrade", "downgrade_to": OTHER}],
    "shadow_throttle": [{"action": "throttle", "throttle_interval_s": "60", "enforce": False}],
    "shadow_downgrade": [{"action": "downgrade", "downgrade_to": CHEAP, "enforce": False}],
    "ladder": [{"action": "downgrade", "downgrade_to": CHEAP}, {"action": "block", "monthly_limit": "2"}],
}

# A user's windows, each with what must be in it by the calls and by the grants.
_SUMS = """
select
  w.spent, w.granted, w.limit_amount, b.action, b.enforce,
  (select count(*) from token_usage_logs as c where c.user_id = w.entity_id and c.status <> 'blocked') as calls,
  (select coalesce(sum(g.amount), 0) from budget_grants as g where g.window_id = w.id) as grants
from budget_windows as w
join budget_limits as b on b.id = w.budget_id
where w.entity_id = %s
"""

_USER = re.compile(r"user <([^<>]+)>")


# Attachments


HANDLER = ("config", "scope")  # the plain handler, by the caller's config and by the scope that is open
GUARD = ("guard", "middleware")
EVERY = (*HANDLER, *GUARD)


Cell = tuple[str, Path]


def cells(attachments: Iterable[str], paths: Sequence[Path] = PATHS) -> list[Cell]:
    """Each path with each attachment that it can have: only an agent's own model is seen by a middleware."""
    return [
        (attachment, path)
        for attachment in attachments
        for path in paths
        if path.thing.agent or attachment != "middleware"
    ]


def in_turn(attachments: Sequence[str], paths: Sequence[Path] = PATHS, turn: int = 0) -> list[Cell]:
    """Each path with one attachment, by turns; `turn` says who begins."""
    found = []
    for number, path in enumerate(paths):
        possible = cells(attachments, [path])
        found.append(possible[(number + turn) % len(possible)])
    return found


def spread(attachments: Sequence[str], paths: Sequence[Path] = PATHS, *, turn: int) -> list[Cell]:
    """Each path with one attachment, where other tests of other turns have the others; if LONG, all cells.

    So every path and every attachment is in every test. Every pair of them is in each test that takes all cells.
    """
    return cells(attachments, paths) if LONG else in_turn(attachments, paths, turn)


def _reply(body: dict[str, Any]) -> Reply:
    """What a model answers: a call of a tool that it has and has not used yet, an object by a schema, else text."""
    names = {tool.get("function", tool)["name"] for tool in body.get("tools", ())}
    used = {"tool_call_id", "tool_use_id"} & set(re.findall(r"tool_\w+_id", json.dumps(body.get("messages"))))
    if "add" in names and not used:
        return Reply(text="", tool_calls=[("add", {"a": 1, "b": 2})])
    if "Sum" in names:
        return Reply(text="", tool_calls=[("Sum", {"total": 3})])
    return Reply(text='{"total": 3}' if "response_format" in body else ANSWER)


class World:
    """The database, the tracker and the provider's server that all cases share."""

    def __init__(self, url: str, server: ProviderServer) -> None:
        self.server = server
        self.requests: defaultdict[str, list[Request]] = defaultdict(list)
        self.failing: Counter[str] = Counter()
        self.guards: dict[Any, Any] = {}
        self.settled = itertools.count(1)
        self.connection = psycopg.connect(url, row_factory=dict_row, autocommit=True)
        store = PostgresStore(url)
        for organization, budgets in BUDGETS.items():
            for budget in budgets:
                common = {
                    "organization_id": organization,
                    "entity_type": "user",
                    "metric": "calls",
                    "monthly_limit": "1",
                }
                store.call("set_budget_v1", budget=json.dumps({**common, **budget}))
        self.tracker = VitalTracker(store, settings=Settings(flush_interval_s=60.0))
        server.respond_with(self._respond)
        self.models = {
            DEAR: server.chat_openai(model=DEAR),
            CHEAP: server.chat_openai(model=CHEAP),
            OTHER: server.chat_anthropic(model=OTHER),
            COMPLETION_MODEL: server.openai_completion(model=COMPLETION_MODEL),
        }
        self.driver = server.chat_openai(metadata={"vital_user_id": "driver", "vital_organization_id": "none"})

    def _respond(self, request: Request) -> Reply:
        """Answer, or fail where a case asked for that; what belongs to no case comes from the agent that calls the tool."""
        found = _USER.search(json.dumps(request.body))
        if found is None:
            asked = request.body["messages"][-1]["role"] == "user"
            return Reply(text="", tool_calls=[("consult", {})]) if asked else Reply()
        user = found[1]
        self.requests[user].append(request)
        if self.failing[user]:
            self.failing[user] -= 1
            return Reply(status=500)
        return _reply(request.body)

    def guarded(self, model: Any, downgrade_to: Any) -> Any:
        """The model under a guard, made once."""
        key = (id(model), id(downgrade_to))
        if key not in self.guards:
            self.guards[key] = self.tracker.guard(model, downgrade_to=downgrade_to, max_wait=10)
        return self.guards[key]

    def spend(self, case: Case) -> None:
        """Use up the limit of a case's user by one call, which is in the database when this returns."""
        self.tracker.record(
            model=CHEAP, prompt_tokens=1, completion_tokens=1, user_id=case.user, organization_id=case.organization
        )
        assert self.tracker.flush().complete

    def rows(self, sql: str, *arguments: Any) -> list[dict[str, Any]]:
        """What a query finds."""
        return self.connection.execute(sql, arguments or None).fetchall()

    def settle(self, case: Case) -> None:
        """Deliver all; the sums must be right, nothing may be left open, and nothing may have gone wrong on our side.

        All sums of all budgets are proved every now and then, as that takes longer than a case, and at the end: what a case
        has made wrong stays wrong.
        """
        assert self.tracker.flush().complete
        stats = self.tracker.stats()
        assert (stats.faults, stats.rejected, stats.dropped, stats.unchecked, stats.in_flight) == (0, 0, 0, 0, 0)
        for window in self.rows(_SUMS, case.user):
            assert (window["spent"], window["granted"]) == (window["calls"], window["grants"])
            assert window["action"] != "block" or not window["enforce"] or window["spent"] <= window["limit_amount"]
        if next(self.settled) % AUDIT_EVERY == 0:
            self.audit()

    def audit(self) -> None:
        """Prove all sums of all budgets."""
        audit = self.tracker.store.call("audit_budgets_v1")
        assert (audit["differences"], audit["overshoot"]) == ([], [])

    def close(self) -> None:
        """Close the tracker; nothing may be left set aside for any call."""
        try:
            assert self.tracker.flush().complete
            self.audit()
            assert self.tracker.close().complete
            assert self.rows("select entity_id, granted from budget_windows where granted <> 0") == []
        finally:
            self.connection.close()


@dataclass
class Case:
    """One cell of the matrix."""

    world: World
    organization: str
    attachment: str
    path: Path
    name: str = DEAR
    downgrade_to: Any = None
    more: str = ""  # tells users of one test's several cases apart

    @property
    def user(self) -> str:
        """The case's own user: nobody else's calls count for it."""
        return f"{self.organization}{self.more}/{self.attachment}/{self.path.name}"

    @property
    def question(self) -> str:
        """What the model is asked: the server tells cases apart by it."""
        return f"Hi from user <{self.user}>"

    @cached_property
    def model(self) -> Any:
        """The model that is asked."""
        return self._guarded(self.world.models[self.name])

    @cached_property
    def fallback(self) -> Any:
        """Another provider's model, for what falls back."""
        return self._guarded(self.world.models[OTHER])

    @property
    def middleware(self) -> list[Any]:
        """What stands around an agent's model, the last."""
        if self.attachment != "middleware":
            return []
        return [VitalMiddleware(self.world.tracker, downgrade_to=self.downgrade_to, max_wait=10)]

    def _guarded(self, model: Any) -> Any:
        return self.world.guarded(model, self.downgrade_to) if self.attachment.startswith("guard") else model

    @contextmanager
    def attached(self) -> Iterator[Any]:
        """The config of the case's calls, which are made inside."""
        if "scope" not in self.attachment:
            config = {"metadata": {"vital_user_id": self.user, "vital_organization_id": self.organization}}
            yield config | ({"callbacks": [self.world.tracker.handler]} if self.attachment == "config" else {})
            return
        with self.world.tracker.workflow("matrix", user_id=self.user, organization_id=self.organization):
            yield {}

    def prepared(self) -> Callable[[], list[str]]:
        """Make the runnable; gives what asks it, and gives its answers."""
        ask = self.path.ask(self)

        def run() -> list[str]:
            with self.attached() as config:
                result = ask(config)
                answers: list[str] = asyncio.run(result) if inspect.iscoroutine(result) else result
                return answers

        return run

    def ask(self) -> list[str]:
        """Ask; the answers."""
        return self.prepared()()

    # What came of it

    @property
    def requests(self) -> list[Request]:
        """What has reached the provider."""
        return self.world.requests[self.user]

    def rows(self) -> list[dict[str, Any]]:
        """The calls of this case, in the order they started; not the one that used up the limit."""
        return self.world.rows(
            "select * from token_usage_logs where user_id = %s and run_id is not null"
            " or user_id = %s and status = 'blocked' order by id",
            self.user,
            self.user,
        )

    def runs(self) -> list[tuple[str, str | None]]:
        """How the service runs of this case have ended."""
        found = self.world.rows("select status, error_type from service_runs where user_id = %s order by id", self.user)
        return [(run["status"], run["error_type"]) for run in found]

    def windows(self) -> list[tuple[int, int]]:
        """What is spent and granted in the case's windows."""
        found = self.world.rows("select spent, granted from budget_windows where entity_id = %s", self.user)
        return [(int(window["spent"]), int(window["granted"])) for window in found]

    def alerts(self) -> int:
        """How often it was told that the limit is reached."""
        found = self.world.rows("select from cost_alerts where entity_id = %s and threshold = 1", self.user)
        return len(found)

    def ended(self, *expected: tuple[str, str | None]) -> bool:
        """Whether the case's scopes ended so; where there are none there is nothing to ask."""
        return self.runs() == (list(expected) if "scope" in self.attachment else [])
