"""What an application pays for importing the library, beside what langchain-core takes that it needs anyway.

Each round is a fresh process with compiled modules. It first imports langchain-core's chat models, as every integration does, and
then, one after the other:

  vital_tracking       the package
  VitalTracker         `from vital_tracking import VitalTracker`: all that recording and budgets take
  handler              what `tracker.handler` imports besides
  PostgreSQL           what a tracker imports that writes to PostgreSQL, with its driver
  Supabase             what it imports that writes to the API of Supabase, with its client

Milliseconds of CPU, medians of the processes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile

from benchmarks.figures import Claim, Found, Part, Table, ratios, spanned, spread

STEPS = {
    "vital_tracking": "import vital_tracking",
    "VitalTracker": "from vital_tracking import VitalTracker",
    "handler": "from vital_tracking.langchain.handler import VitalHandler",
    "PostgreSQL": "from vital_tracking.stores.postgres import PostgresStore",
    "Supabase": "from vital_tracking.stores.supabase import SupabaseStore",
}
LANGCHAIN = "from langchain_core.language_models import BaseChatModel"
RECORDING = ("vital_tracking", "VitalTracker", "handler")
MOST_MS = 60


def program() -> str:
    """Imports langchain-core, then ours, step by step, and tells what each took."""
    lines = ["import json, time", "times = [time.process_time()]"]
    for step in (LANGCHAIN, *STEPS.values()):
        lines += [step, "times.append(time.process_time())"]
    return "\n".join([*lines, "print(json.dumps(times))"])


def measure(rounds: int) -> Found:
    """All steps in `rounds` processes, after one that compiles the modules."""
    with tempfile.TemporaryDirectory(prefix="vital-bench-") as folder:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        environment["PYTHONPYCACHEPREFIX"] = folder

        def times() -> list[float]:
            command = [sys.executable, "-c", program()]
            ran = subprocess.run(command, check=True, capture_output=True, env=environment)
            return [float(one) * 1e3 for one in json.loads(ran.stdout)]

        times()
        taken: dict[str, list[float]] = {name: [] for name in ("langchain-core", *STEPS)}
        for _ in range(rounds):
            moments = times()
            for name, start, end in zip(taken, moments, moments[1:], strict=False):
                taken[name].append(end - start)
    recording = [sum(each) for each in zip(*(taken[name] for name in RECORDING), strict=True)]
    return {
        "rounds": rounds,
        "ms": {name: spread(values) for name, values in taken.items()},
        "of_langchain_core": {
            name: ratios(values, taken["langchain-core"]) for name, values in taken.items() if name in STEPS
        },
        "recording_ms": spread(recording),
    }


def tables(found: Found) -> list[Table]:
    """The figures as a table."""
    return [
        Table(
            f"Importing, ms of CPU ({found['rounds']} processes)",
            ["", "ms", "of langchain-core's"],
            [
                [name, spanned(one), spanned(found["of_langchain_core"][name]) if name in STEPS else ""]
                for name, one in found["ms"].items()
            ],
        )
    ]


def claims(found: Found) -> list[Claim]:
    """What the library adds to langchain-core."""
    added = found["recording_ms"]["median"]
    return [Claim("importing VitalTracker and its handler, beside langchain-core", added, "at most", MOST_MS, "ms")]


PART = Part("imports", __doc__, measure, tables, claims, quick={"rounds": 25}, full={"rounds": 100})

if __name__ == "__main__":
    PART.main()
