"""A process that spends budgets with many threads, told by lines on its standard input.

Each line is a JSON object with the key `do`, and is answered by one line of JSON:
    open    a tracker on `database` with `settings`; answered once it knows the budgets
    spend   `threads` threads make calls (`call` for admit, `usage` for record) until a budget stops them; each admitted
            call leaves a byte in the file `journal` before it is made. Threads call in turn for the users in `users`.
    close   the tracker: {"complete": whether everything was delivered}
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections import Counter
from typing import Any

from vital_tracking import BudgetExceeded, Settings, VitalTracker
from vital_tracking.stores.postgres import PostgresStore


def spend(tracker: VitalTracker, job: dict[str, Any]) -> dict[str, Any]:
    """Make calls until a budget stops every thread; counts of admitted calls and of errors by class."""
    journal = os.open(job["journal"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    stopped: list[str] = []
    admitted: Counter[int] = Counter()

    def work(number: int) -> None:
        users = job["users"]
        user = users[number % len(users)]
        try:
            while True:
                call = tracker.admit(user_id=user, **job["call"])
                os.write(journal, b".")
                admitted[number] += 1
                call.record(**job["usage"])
        except BudgetExceeded as error:
            stopped.append(type(error).__name__)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(job["threads"])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.close(journal)
    stats = tracker.stats()
    return {
        "admitted": admitted.total(),
        "stopped": dict(Counter(stopped)),
        "unchecked": stats.unchecked,
        "faults": stats.faults,
    }


def main() -> None:
    """Serve standard input to its end."""
    tracker: VitalTracker | None = None
    for line in sys.stdin:
        job = json.loads(line)
        answer: dict[str, Any] = {}
        if job["do"] == "open":
            tracker = VitalTracker(PostgresStore(job["database"]), settings=Settings(**job["settings"]))
            tracker._controller.start()
            while tracker._controller.policy is None:
                time.sleep(0.005)
        elif tracker is not None and job["do"] == "spend":
            answer = spend(tracker, job)
        elif tracker is not None:
            answer = {"complete": tracker.close().complete}
        print(json.dumps(answer), flush=True)
