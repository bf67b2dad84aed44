"""Eight processes with sixty-four threads each on the same budgets: exactly what the limit allows, whoever dies.

If one of these fails, a budget shared by several processes is overspent, or money is lost that a dead process had in hand.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.integration.budgets.helpers import CALL, COST, USAGE, check_sums, granted, set_budget, until
from tests.integration.helpers import Rows
from tests.support.folders import REPOSITORY
from tests.support.forked import Forked
from vital_tracking import BudgetExceeded, VitalTracker
from vital_tracking.stores.postgres import PostgresStore

# However busy the machine, no call goes unchecked because the database is slow to answer.
PATIENCE_S = 60.0
PROCESSES, THREADS = 8, 64
USERS = ["u-1", "u-2", "u-3"]


class Worker:
    """A process of tests.support.budget_worker."""

    def __init__(self) -> None:
        program = "from tests.support.budget_worker import main; main()"
        self.process = Forked([sys.executable, "-c", program], REPOSITORY, os.environ)

    def tell(self, **job: Any) -> None:
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()

    def answer(self) -> dict[str, Any] | None:
        """The answer to what it was told; None where it died over it."""
        line = self.process.stdout.readline()
        return dict(json.loads(line)) if line.endswith("\n") else None

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.close()


class Workers:
    """Eight of them, started anew where they have died."""

    def __init__(self) -> None:
        self.all: list[Worker] = []

    def open(self, database: str, spools: Path, **settings: Any) -> list[Worker]:
        """All of them with a tracker each that knows the budgets, and a spool of its own, as if on machines of their own.

        So nobody delivers what a dead one has left, while its grants stand, but who is told to.
        """
        alive = [worker for worker in self.all if worker.process.poll() is None]
        for worker in self.all:
            if worker not in alive:
                worker.end()
        self.all = alive + [Worker() for _ in range(PROCESSES - len(alive))]
        # On a busy machine an answer may take its time; here nobody goes on without one.
        settings = {"budget_deadline_s": 60, **settings}
        for number, worker in enumerate(self.all):
            worker.tell(do="open", database=database, settings={"spool_dir": str(spools / f"{number}"), **settings})
        assert self.answers() == [{}] * PROCESSES
        return self.all

    def tell(self, **job: Any) -> None:
        for worker in self.all:
            worker.tell(**job)

    def answers(self) -> list[dict[str, Any] | None]:
        return [worker.answer() for worker in self.all]


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    """Processes that serve all tests of this file."""
    made = Workers()
    yield made
    for worker in made.all:
        worker.end()


@pytest.fixture
def spending(tmp_path: Path) -> Callable[[int], dict[str, Any]]:
    """A job that spends until the budgets stop it; each worker writes a journal of its own."""

    def job(number: int) -> dict[str, Any]:
        journal = str(tmp_path / f"journal-{number}")
        return {"do": "spend", "threads": THREADS, "users": USERS, "call": CALL, "usage": USAGE, "journal": journal}

    return job


def made(tmp_path: Path, number: int) -> int:
    """Calls that a worker was let make, also one that is dead."""
    path = tmp_path / f"journal-{number}"
    return path.stat().st_size if path.exists() else 0


# The budgets, each with the most calls of all users that they allow together. Windows of several periods and entities are
# asked for at once; one of them is the tightest.
CASES: dict[str, tuple[list[dict[str, Any]], int]] = {
    "calls, the organization's day": (
        [
            {"entity_type": "organization", "entity_id": "acme", "daily_limit": "700", "monthly_limit": "5000"},
            {"daily_limit": "600", "monthly_limit": "650"},
        ],
        700,
    ),
    "calls, each user's month": (
        [
            {"entity_type": "organization", "entity_id": "acme", "daily_limit": "5000", "total_limit": "6000"},
            {"daily_limit": "5000", "monthly_limit": "200"},
        ],
        600,
    ),
    "dollars": (
        [
            {
                "entity_type": "organization",
                "entity_id": "acme",
                "metric": "cost_usd",
                "daily_limit": str(COST * 2000),
                "monthly_limit": str(COST * 600),
            },
            {"metric": "cost_usd", "daily_limit": str(COST * 1000), "monthly_limit": str(COST * 1000)},
            {"entity_type": "model", "metric": "tokens", "daily_limit": str(120 * 2000)},
        ],
        600,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_as_many_calls_as_the_limit_allows_and_not_one_more(
    case: str,
    workers: Workers,
    spending: Callable[[int], dict[str, Any]],
    tmp_path: Path,
    database_url: str,
    store: PostgresStore,
    rows: Rows,
) -> None:
    """If this failed, the promise of the whole thing would be broken: everybody spends at once, to the last call."""
    budgets, allowed = CASES[case]
    for columns in budgets:
        set_budget(store, **columns)
    workers.open(database_url, tmp_path, organization_id="acme", flush_interval_s=0.2, budget_deadline_s=PATIENCE_S)
    for number, worker in enumerate(workers.all):
        worker.tell(**spending(number))
    with ThreadPoolExecutor(1) as pool:
        answers = pool.submit(workers.answers)
        while not answers.done():
            check_sums(store)  # at every commit, not only at the end
    ended = [answer for answer in answers.result() if answer is not None]
    assert [answer["stopped"] for answer in ended] == [{"BudgetExceeded": THREADS}] * PROCESSES
    assert [(answer["unchecked"], answer["faults"]) for answer in ended] == [(0, 0)] * PROCESSES
    assert sum(answer["admitted"] for answer in ended) == allowed
    workers.tell(do="close")
    assert workers.answers() == [{"complete": True}] * PROCESSES
    check_sums(store)
    assert granted(rows) == 0
    count = "select count(*) filter (where status = 'ok') as ok, sum(total_cost) as cost from token_usage_logs"
    assert rows(count) == [{"ok": allowed, "cost": COST * allowed}]
    assert rows("select 1 from budget_windows where spent > limit_amount") == []


@pytest.mark.parametrize("metric", ["calls", "cost_usd"])
def test_what_dead_processes_had_in_hand_is_there_again(
    metric: str,
    workers: Workers,
    spending: Callable[[int], dict[str, Any]],
    tmp_path: Path,
    spool_dir: Path,
    database_url: str,
    store: PostgresStore,
    rows: Rows,
    make_tracker: Callable[..., VitalTracker],
) -> None:
    """Half of them are killed as they spend: no call is lost, their grants lapse, and what is left can be spent, no more."""
    allowed = 3000
    unit = COST if metric == "cost_usd" else Decimal(1)
    limit = unit * allowed
    set_budget(store, entity_type="organization", entity_id="acme", metric=metric, monthly_limit=str(limit))
    set_budget(store, metric=metric, daily_limit=str(limit), monthly_limit=str(limit))
    workers.open(
        database_url,
        spool_dir,
        organization_id="acme",
        flush_interval_s=0.05,
        grant_lifetime_s=600,  # nothing lapses while they spend, however long they take
        budget_deadline_s=PATIENCE_S,
    )
    dying = range(0, PROCESSES, 2)
    for number in sorted(range(PROCESSES), key=lambda number: number not in dying):  # so that those have begun by then
        workers.all[number].tell(**spending(number))
    moments = {number: random.randrange(1, allowed // PROCESSES // 2) for number in dying}
    while moments:
        calls_made = [made(tmp_path, number) for number in range(PROCESSES)]
        late = sum(calls_made) > allowed * 0.7  # on a busy machine some have hardly begun by then
        for number in [number for number, calls in moments.items() if late or calls_made[number] >= calls]:
            workers.all[number].kill()
            del moments[number]
        check_sums(store)
    answers = workers.answers()
    assert [answers[number] for number in dying] == [None] * len(dying)
    survivors = [worker for worker, answer in zip(workers.all, answers, strict=True) if answer is not None]
    assert len(survivors) == PROCESSES // 2
    # Those who live stop at what the dead still hold.
    for worker in survivors:
        worker.tell(do="close")
    assert [worker.answer() for worker in survivors] == [{"complete": True}] * len(survivors)
    assert granted(rows) > 0  # somebody died with money in hand
    rows("update budget_grants set expires_at = clock_timestamp() returning 1")  # as if the time had passed

    living = make_tracker(
        organization_id="acme", budget_refresh_s=0.1, grant_lifetime_s=3, budget_deadline_s=PATIENCE_S
    )
    living._controller.start()
    until(lambda: granted(rows) == 0, PATIENCE_S)
    check_sums(store)
    for number in dying:
        workers.all[number].process.wait()  # only then its files are closed, and its spool anybody's
        assert make_tracker(spool_dir=spool_dir / f"{number}").replay(PATIENCE_S)
        assert not list((spool_dir / f"{number}").rglob("*.segment"))
    check_sums(store)

    # No call is lost: it was in the spool before its byte was in the journal, and each thread of the dead was at one call.
    count = "select count(*) filter (where status = %s) as calls from token_usage_logs"
    ended, abandoned = (rows(count, status)[0]["calls"] for status in ("ok", "abandoned"))
    assert 0 <= ended + abandoned - sum(made(tmp_path, number) for number in range(PROCESSES)) <= len(dying) * THREADS
    assert abandoned <= len(dying) * THREADS

    # What is left fits a whole number of calls: those that were abandoned cost an estimate.
    spent_by_acme = "select sum(spent) as spent from budget_windows where entity_id = 'acme'"
    spent = rows(spent_by_acme)[0]["spent"]
    assert spent < limit
    left = int((limit - spent) // unit)
    for _ in range(left):
        living.admit(user_id=USERS[0], **CALL).record(**USAGE)
    with pytest.raises(BudgetExceeded):
        living.admit(user_id=USERS[0], **CALL)
    assert living.flush().complete
    check_sums(store)
    assert rows(count, "ok") == [{"calls": ended + left}]
    assert rows(spent_by_acme) == [{"spent": spent + unit * left}]
    assert limit - unit < spent + unit * left <= limit
