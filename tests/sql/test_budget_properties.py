"""What holds for any zone and moment, and for any interleaving of all that can happen to grants."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.sql.helpers import COSTS, NOON, Connection, Row, a_cost, acquire, audit, call, renew, set_budget, wish
from tests.support.effort import examples

# What fails is shown as it was found: to make it smaller would take longer than a test may.
SETTINGS = settings(
    phases=[Phase.generate],
    derandomize=True,
    database=None,
    deadline=None,
    print_blob=False,
    suppress_health_check=list(HealthCheck),
)
MOMENTS = st.datetimes(datetime(1990, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


def test_every_moment_lies_in_exactly_one_window(db: Connection) -> None:
    """If this failed, somewhere on earth a call would be counted in no day or month, or in two."""
    zones = [row["name"] for row in db.execute("select name from pg_timezone_names order by name").fetchall()]

    @settings(SETTINGS, max_examples=examples(60))
    @given(st.lists(st.tuples(st.integers(0, len(zones) - 1), MOMENTS), min_size=20, max_size=40))
    def check(drawn: list[tuple[int, datetime]]) -> None:
        wrong = db.execute(
            """
            with framed as (
              select
                p.period, m.moment, m.zone, vital_private.window_start(p.period, m.moment, m.zone, null) as starts_at,
                vital_private.window_end(p.period, m.moment, m.zone) as ends_at
              from unnest(%s::text[], %s::timestamptz[]) as m (zone, moment),
                unnest(array['minute', 'day', 'month']) as p (period)
            ),

            lengths (period, shortest, longest) as (
              values
                ('minute', interval '1 minute', interval '1 minute'), ('day', interval '20 hours', interval '28 hours'),
                ('month', interval '26 days', interval '32 days')
            )

            select * from framed as f join lengths as l using (period)
            where not (f.starts_at <= f.moment and f.moment < f.ends_at)
              or vital_private.window_start(f.period, f.ends_at, f.zone, null) <> f.ends_at
              or vital_private.window_end(f.period, f.starts_at - interval '1 microsecond', f.zone) <> f.starts_at
              or date_trunc('minute', f.starts_at) <> f.starts_at
              or f.ends_at - f.starts_at not between l.shortest and l.longest
            """,
            [[zones[zone] for zone, _ in drawn], [moment for _, moment in drawn]],
        ).fetchall()
        assert wrong == []

    check()


Key = tuple[str, str]
"""A budget of the machine, and the entity whose window it is."""

LIMITS = {"user": Decimal(12), "organization": Decimal(30), "calls": Decimal(14)}
UNITS = [Decimal(unit) for unit in ("0.25", "1", "0", "3", "40")]
HOLDERS = ("h1", "h2", "h3")
USERS = ("u-1", "u-2")


@dataclass
class Window:
    """A window as it must be: `beyond` is the X of the promise, what may lie above the limit."""

    limit: Decimal
    spent: Decimal = Decimal(0)
    grants: dict[str, Decimal] = field(default_factory=dict)
    beyond: Decimal = Decimal(0)
    id: int | None = None

    @property
    def granted(self) -> Decimal:
        return sum(self.grants.values(), Decimal(0))

    @property
    def room(self) -> Decimal:
        return self.limit - self.spent - self.granted


@dataclass
class Call:
    """A call under way: what its process holds for it, by window."""

    number: int
    holder: str
    user: str
    holds: dict[Key, tuple[int | None, Decimal]]


class Books(RuleBasedStateMachine):
    """Three blocking budgets, three processes that spend, die, lapse and come back, and an admin who changes limits."""

    db: Connection
    budgets: dict[str, int]

    def __init__(self) -> None:
        super().__init__()
        self.transaction = self.db.transaction(force_rollback=True)
        self.transaction.__enter__()
        self.limits = dict(LIMITS)
        self.windows: dict[Key, Window] = {}
        self.hands: dict[tuple[str, Key], Decimal] = defaultdict(Decimal)
        self.lapsed: set[tuple[Key, str]] = set()
        self.flying: list[Call] = []
        self.given_up: list[tuple[Row, Decimal]] = []
        self.unpriced: list[tuple[Row, Decimal]] = []
        self.sent: list[tuple[str, str | None]] = []
        self.zones = dict.fromkeys(LIMITS, "UTC")
        self.number = 0
        self.steps = 0

    @initialize()
    def begin(self) -> None:
        """All processes have something in hand and calls under way, whichever rules an example is made of."""
        for holder in HOLDERS:
            for user in USERS:
                self.ask(holder, user, Decimal("0.25"), 8, 2, [0, 1, 2], False)  # type: ignore[operator]

    def teardown(self) -> None:
        try:
            self.all_die_and_lapse()
        finally:
            self.transaction.__exit__(None, None, None)

    def all_die_and_lapse(self) -> None:
        self.db.execute("update budget_grants set expires_at = now() - interval '1 second'")
        renew(self.db, "who comes next")
        [left] = self.db.execute(
            "select (select sum(granted) from budget_windows) as granted, count(*) from budget_grants"
        ).fetchall()
        assert (left["granted"] or 0, left["count"]) == (0, 0)
        assert audit(self.db) == []

    # What the model knows of the database

    def keys(self, user: str) -> list[Key]:
        return [("user", user), ("organization", "acme"), ("calls", user)]

    def window(self, key: Key) -> Window:
        if key not in self.windows:
            self.windows[key] = Window(self.limits[key[0]])
        return self.windows[key]

    def used(self, key: Key, cost: Decimal) -> Decimal:
        return Decimal(1) if key[0] == "calls" else cost

    def take_back_lapsed(self, keys: list[Key]) -> None:
        for key, holder in list(self.lapsed):
            if key in keys:
                self.lapsed.discard((key, holder))
                self.windows[key].grants.pop(holder, None)

    def spend(self, user: str, cost: Decimal, calls: int) -> None:
        """Money that is spent beside all grants."""
        for key in self.keys(user):
            amount = Decimal(calls) if key[0] == "calls" else cost
            if amount:
                self.window(key).spent += amount
                self.window(key).beyond += max(amount, Decimal(0))

    # Asking

    @rule(
        holder=st.sampled_from(HOLDERS),
        user=st.sampled_from(USERS),
        unit=st.sampled_from(UNITS),
        want=st.sampled_from([0, 1, 8, 100]),
        asks=st.integers(1, 2),
        order=st.permutations(range(3)),
        ahead=st.booleans(),
    )
    def ask(self, holder: str, user: str, unit: Decimal, want: int, asks: int, order: list[int], ahead: bool) -> None:
        """Ask for grants; if admitted, a call is under way."""
        keys = [self.keys(user)[place] for place in order]
        sent: list[Row] = []
        asides: list[dict[Key, Decimal]] = []
        owed: list[dict[Key, Decimal]] = []
        for _ in range(asks):
            wishes: list[Row] = []
            aside: dict[Key, Decimal] = {}
            debts: dict[Key, Decimal] = {}
            for key in keys:
                size = self.used(key, unit)
                hand, number = self.hands[holder, key], str(self.window(key).id)
                aside[key] = Decimal(0) if ahead else min(max(hand, Decimal(0)), size)
                self.hands[holder, key] -= aside[key]
                have = {number: str(aside[key])} if aside[key] else {}
                owe = {number: str(-hand)} if hand < 0 and not ahead else {}
                wishes.append({**wish(self.budgets[key[0]], key[1], size, size * want, have=have), "owe": owe})
                debts[key] = max(-hand, Decimal(0)) if size and not ahead else Decimal(0)
            asides.append(aside)
            owed.append(debts)
            sent.append({"max_wait": 0, "ahead": ahead, "windows": wishes})
        answers = acquire(self.db, holder, *sent)
        self.take_back_lapsed(keys)
        for answer, aside, debts in zip(answers, asides, owed, strict=True):
            self.check_answer(holder, user, unit, answer, aside, debts, ahead)

    def check_answer(
        self,
        holder: str,
        user: str,
        unit: Decimal,
        answer: Row,
        aside: dict[Key, Decimal],
        debts: dict[Key, Decimal],
        ahead: bool,
    ) -> None:
        rows = {(row["budget"], row["entity"]): row for row in answer["windows"]}
        fits = True
        needs: dict[Key, Decimal] = {}
        for key, part in aside.items():
            window, row = self.window(key), rows[self.budgets[key[0]], key[1]]
            assert window.id in (None, row["id"])
            window.id = row["id"]
            backed = min(part, window.grants.get(holder, Decimal(0)))
            needs[key] = Decimal(0) if ahead else self.used(key, unit) - backed + debts[key]
            assert Decimal(row["mine"]) == window.grants.get(holder, Decimal(0))
            short = needs[key] > 0 and needs[key] > window.room
            assert row["over"] is short
            fits = fits and not short
        assert answer["admitted"] is fits
        holds: dict[Key, tuple[int | None, Decimal]] = {}
        for key, part in aside.items():
            window, size = self.window(key), self.used(key, unit)
            amount = Decimal(rows[self.budgets[key[0]], key[1]]["amount"])
            self.hands[holder, key] += part + amount
            if not fits:
                assert amount == 0
                continue
            extra = amount - needs[key]
            assert extra >= 0
            assert amount <= max(needs[key], window.room / 20)
            assert size == 0 or extra % size == 0
            if amount:
                window.grants[holder] = window.grants.get(holder, Decimal(0)) + amount
            if not ahead:
                self.hands[holder, key] -= size
                holds[key] = (window.id, size)
        if fits and not ahead:
            self.flying.append(Call(self.next_number(), holder, user, holds))

    def affordable(self) -> list[tuple[str, str, Decimal]]:
        """The calls that a process could admit by itself."""
        return [
            (holder, user, unit)
            for holder in HOLDERS
            for user in USERS
            for unit in UNITS
            if all(self.hands[holder, key] >= self.used(key, unit) for key in self.keys(user))
        ]

    @precondition(affordable)
    @rule(data=st.data())
    def admit_by_itself(self, data: st.DataObject) -> None:
        """A process admits a call from what it has in hand, and asks nobody."""
        holder, user, unit = data.draw(st.sampled_from(self.affordable()))
        holds: dict[Key, tuple[int | None, Decimal]] = {}
        for key in self.keys(user):
            self.hands[holder, key] -= self.used(key, unit)
            holds[key] = (self.window(key).id, self.used(key, unit))
        self.flying.append(Call(self.next_number(), holder, user, holds))

    # Endings

    def next_number(self) -> int:
        self.number += 1
        return self.number

    @precondition(lambda self: self.flying)
    @rule(
        data=st.data(),
        ways=st.lists(
            st.tuples(
                st.sampled_from(["ok", "error", "cancelled", "abandoned", "unpriced", "not made"]),
                st.sampled_from(["1", "0", "0.5", "2"]),
            ),
            min_size=1,
            max_size=4,
        ),
        poison=st.booleans(),
    )
    def end(self, data: st.DataObject, ways: list[tuple[str, str]], poison: bool) -> None:
        """Calls of one process end: for less than their holds, for more, for nothing, or they were not made after all."""
        holder = data.draw(st.sampled_from(self.flying)).holder
        rows: list[Row] = []
        for way, share in ways:
            own = [one for one in self.flying if one.holder == holder]
            if not own:
                break
            ended = data.draw(st.sampled_from(own))
            self.flying.remove(ended)
            if way == "not made":
                self.let_go(ended)
            else:
                cost = ended.holds["organization", "acme"][1] * Decimal(share)
                rows.append(self.ended(ended, cost, way))
        self.record([*rows, *([{"id": "poison"}] if poison else [])], holder, inserted=len(rows))

    def let_go(self, one: Call) -> None:
        """What was set aside for a call is free again, unless its window has been made anew: then it is gone."""
        for key, (window_id, size) in one.holds.items():
            if self.window(key).id == window_id:
                self.hands[one.holder, key] += size

    def ended(self, one: Call, cost: Decimal, way: str, *, alive: bool = True) -> Row:
        """The row of a call that cost so much, with its draws."""
        row = a_cost(one.number, cost, user_id=one.user, organization_id="acme")
        if way == "unpriced":
            row = {name: value for name, value in row.items() if name not in COSTS}
            row = {**row, "priced": False, "ceiling_cost": str(cost)}
            self.unpriced.append((row, cost))
        else:
            row["status"] = way
        if way in ("cancelled", "abandoned"):
            self.given_up.append((row, cost))
        draws: list[list[Any]] = []
        for key, (window_id, size) in one.holds.items():
            window, used = self.window(key), self.used(key, cost)
            draws.append([window_id, str(used)])
            taken = Decimal(0)
            if window.id == window_id:
                if one.holder in window.grants:
                    taken = min(used, window.grants[one.holder])
                    window.grants[one.holder] -= taken
                    if alive:
                        self.hands[one.holder, key] += size - taken  # what the grant did not cover is owed no more
                elif alive:
                    self.hands[one.holder, key] += size - used
            window.spent += used
            window.beyond += used - taken
        return {**row, "draws": draws}

    def record(self, batch: list[Row], holder: str | None, inserted: int = 1) -> None:
        text = json.dumps(batch)
        assert call(self.db, "record_calls_v1", calls=text, holder=holder)["inserted"] == inserted
        self.sent.append((text, holder))

    @rule(
        data=st.data(),
        what=st.sampled_from(["unasked", "merged", "true end", "price", "again"]),
        share=st.sampled_from(["0.5", "0", "3"]),
        user=st.sampled_from(USERS),
    )
    def afterwards(self, data: st.DataObject, what: str, share: str, user: str) -> None:
        """A true end comes late, a price becomes known, a batch is sent again; or calls that nobody was asked about."""
        if what == "again" and self.sent:
            text, holder = data.draw(st.sampled_from(self.sent))
            assert call(self.db, "record_calls_v1", calls=text, holder=holder)["inserted"] == 0
        elif what == "true end" and self.given_up:
            row, cost = self.given_up.pop(data.draw(st.integers(0, len(self.given_up) - 1)))
            truly = (cost or Decimal(1)) * Decimal(share)
            late = a_cost(1, truly, **{name: row[name] for name in ("id", "user_id", "organization_id")})
            self.record([{**late, "replaces_abandoned": True}], None)
            self.spend(row["user_id"], truly - cost, 0)
        elif what == "price" and self.unpriced:
            row, cost = self.unpriced.pop(data.draw(st.integers(0, len(self.unpriced) - 1)))
            truly = cost * Decimal(share)
            amounts = dict.fromkeys(("input_cost", "total_cost", "potential_cost"), str(truly))
            prices = [
                {"id": row["id"], "created_at": NOON, "output_cost": "0", "fees": "0", "price_version": "v", **amounts}
            ]
            assert call(self.db, "reprice_calls_v1", prices=json.dumps(prices)) == 1
            self.spend(row["user_id"], truly - cost, 0)
        else:
            calls = 3 if what == "merged" else 1
            row = a_cost(self.next_number(), share, user_id=user, organization_id="acme", calls=calls)
            self.record([row], None)
            self.spend(user, Decimal(share), calls)

    # Grants come and go

    @rule(holder=st.sampled_from(HOLDERS), what=st.sampled_from(["lapse", "renew", "give back", "die", "die unseen"]))
    def keep_or_lose(self, holder: str, what: str) -> None:
        """A process renews its grants, gives back what is free, sleeps past their end and does not know it, or is killed."""
        if what == "lapse":
            self.db.execute("update budget_grants set expires_at = now() - interval '1 s' where holder = %s", [holder])
            self.lapsed |= {(key, holder) for key, window in self.windows.items() if holder in window.grants}
        elif what in ("renew", "give back"):
            self.renew(holder, give_back=what == "give back")
        else:
            orphans = [one for one in self.flying if one.holder == holder]
            self.flying = [one for one in self.flying if one.holder != holder]
            for key in self.windows:
                self.hands[holder, key] = Decimal(0)
            if what == "die":  # and somebody finds what it left, and records its calls in its name
                rows = [
                    self.ended(one, one.holds["organization", "acme"][1], "abandoned", alive=False) for one in orphans
                ]
                self.record(rows, holder, inserted=len(rows))

    def renew(self, holder: str, *, give_back: bool) -> None:
        kept: dict[int, Decimal] = defaultdict(Decimal)
        for key, window in self.windows.items():
            if give_back:
                self.hands[holder, key] = min(self.hands[holder, key], Decimal(0))
            if window.id is not None:
                kept[window.id] += self.hands[holder, key]
        for one in self.flying:
            if one.holder == holder:
                for window_id, size in one.holds.values():
                    if window_id is not None:
                        kept[window_id] += size
        self.take_back_lapsed(list(self.windows))
        expected: dict[int, Decimal] = {}
        for window in self.windows.values():
            if holder in window.grants and window.id is not None:
                amount = min(window.grants.pop(holder), max(kept[window.id], Decimal(0)))
                if amount:
                    window.grants[holder] = expected[window.id] = amount
        assert renew(self.db, holder, dict(kept)) == expected

    # Admins

    @rule(name=st.sampled_from(list(LIMITS)), limit=st.sampled_from([None, 0, 4, 9, 30]))
    def administer(self, name: str, limit: int | None) -> None:
        """An admin raises or lowers a limit, or changes what a budget counts: its windows are made anew from the calls."""
        if limit is None:
            self.zones[name] = "UTC" if self.zones[name] == "Asia/Tokyo" else "Asia/Tokyo"
            change = [self.zones[name], self.budgets[name]]
            self.db.execute("update budget_limits set timezone = %s where id = %s", change)
            self.begin_anew(name)
            return
        self.db.execute("update budget_limits set total_limit = %s where id = %s", [limit, self.budgets[name]])
        lowered = max(self.limits[name] - limit, Decimal(0))
        self.limits[name] = Decimal(limit)
        for key, window in self.windows.items():
            if key[0] == name:
                window.limit = self.limits[name]
                window.beyond += lowered

    def begin_anew(self, name: str) -> None:
        found = self.db.execute("select id, entity_id from budget_windows where budget_id = %s", [self.budgets[name]])
        ids = {row["entity_id"]: row["id"] for row in found.fetchall()}
        for key, window in list(self.windows.items()):
            if key[0] == name:
                beyond = max(window.spent - window.limit, Decimal(0))
                self.windows[key] = Window(window.limit, window.spent, {}, beyond, ids.get(key[1]))
                self.lapsed = {(lapsed, holder) for lapsed, holder in self.lapsed if lapsed != key}
                for holder in HOLDERS:
                    self.hands[holder, key] = Decimal(0)

    # What must hold after every step

    @invariant()
    def sums_are_those_of_calls_and_grants(self) -> None:
        self.steps += 1
        if self.steps % 10 == 0:  # the model below is as strict; the audit takes its time
            assert audit(self.db) == []

    @invariant()
    def the_promise_holds(self) -> None:
        names = {number: name for name, number in self.budgets.items()}
        found = self.db.execute("select * from budget_windows").fetchall()
        seen: set[Key] = set()
        for row in found:
            key = (names[row["budget_id"]], row["entity_id"])
            seen.add(key)
            window = self.windows[key]
            window.id = window.id or row["id"]
            assert (row["id"], row["limit_amount"]) == (window.id, window.limit)
            assert (row["spent"], row["granted"]) == (window.spent, window.granted), key
            assert row["spent"] + row["granted"] <= row["limit_amount"] + window.beyond, key
        for key, window in self.windows.items():
            assert key in seen or (window.spent, window.granted) == (0, 0)


def test_no_order_of_events_lets_a_window_exceed_its_limit(db: Connection) -> None:
    """If this failed, there would be an order of events that overspends a budget, or loses or invents money."""

    class BooksHere(Books):
        pass

    columns: dict[str, Row] = {
        "user": {},
        "organization": {"entity_type": "organization", "entity_id": "acme"},
        "calls": {"metric": "calls"},
    }
    BooksHere.db = db
    BooksHere.budgets = {name: set_budget(db, total_limit=LIMITS[name], **columns[name])["id"] for name in LIMITS}
    run_state_machine_as_test(BooksHere, settings=settings(SETTINGS, max_examples=examples(40), stateful_step_count=30))
