"""How many instructions a call takes, in its thread and until its row is bytes: what noise of a machine does not move.

    python -m benchmarks.instructions [--calls 200] [--profiles FOLDER] [--json FILE]

Counted by valgrind's callgrind between two marks, in a process of its own with the default settings, but that it delivers when it
is told to. Five budgets are in force, far from their limits; they, and the grants, are those of a throw-away PostgreSQL.

  caller    the start and the end of a call, straight through the handler, in the calling thread: with budgets and spool
  exporter  from the spool's frame to the bytes that a driver is handed, with what settling costs

Without valgrind nothing is measured, and nothing is claimed. `--profiles` keeps callgrind's files, for `callgrind_annotate`.
"""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.contestants import AGENT, BUDGETS, SESSION, USER
from benchmarks.database import a_database_server
from benchmarks.figures import Claim, Found, Part, Table, number
from benchmarks.spool import ANSWER, METADATA, PARAMETERS, QUESTION
from vital_tracking import Settings, VitalTracker
from vital_tracking.stores.postgres import PostgresStore

WARM: Final = 60
PHASES: Final = ("caller", "exporter")
LABELS: Final = {
    "caller": "start and end of a call in its thread, budgets and spool",
    "exporter": "from the spool's frame to bytes for the driver, settling included",
}


class Accepting(PostgresStore):
    """A database that takes every call without looking at it."""

    def call(self, function: str, /, **arguments: Any) -> Any:
        if not function.startswith("record_calls"):
            return super().call(function, **arguments)
        for value in arguments.values():
            if isinstance(value, str):
                value.encode()  # as the driver does
        return {"inserted": 0, "duplicate": 0, "rejected": []}


def measure(calls: int, profiles: str) -> Found:
    """Instructions a call, by phase; `profiles` is a folder for callgrind's files, if any are to be kept."""
    if shutil.which("valgrind") is None:
        return {"calls": calls, "instructions": {}}
    with (
        tempfile.TemporaryDirectory(prefix="vital-bench-") as folder,
        a_database_server(BUDGETS) as (_, url),
    ):
        kept = Path(profiles or folder).absolute()
        kept.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            [
                "valgrind",
                "--tool=callgrind",
                "--separate-threads=yes",  # those that wait for something to do look for it meanwhile
                "--dump-before=getppid",  # what a mark is
                f"--callgrind-out-file={kept}/callgrind.out",
                sys.executable,
                "-m",
                "benchmarks.instructions",
                "--under",
                url,
                folder,
                str(calls),
            ],
            check=True,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONHASHSEED": "0", "PYTHONMALLOC": "pymalloc"},
        )
        # The first dump is of all that came before the first mark.
        counted = {name: total(kept / f"callgrind.out.{place * 2}-01") for place, name in enumerate(PHASES, 1)}
    return {"calls": calls, "instructions": {name: value / calls for name, value in counted.items()}}


def total(file: Path) -> int:
    """The instructions of one dump."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("totals:"))


def mark() -> None:
    """A call of a function of C that nothing else calls."""
    os.getppid()


def under(url: str, folder: str, calls: int) -> None:
    """What is counted, in its own process."""
    settings = Settings(spool_dir=Path(folder), flush_interval_s=3600, background=False, batch_size=1)
    tracker = VitalTracker(Accepting(url), settings=settings, organization_id="budgets+spool")
    with contextlib.closing(tracker), tracker.conversation(user_id=USER, session_id=SESSION, agent=AGENT) as scope:
        own = {name: value for name, value in METADATA.items() if not name.startswith("vital_")}
        config = scope.config(metadata=own)
        for _ in range(2):
            make_calls(tracker, config["metadata"], run_ids(WARM))
            tracker.flush(600)
        ids = run_ids(calls)
        gc.collect()
        gc.freeze()
        gc.disable()
        mark()
        make_calls(tracker, config["metadata"], ids)
        mark()
        mark()
        tracker._recorder._writer._turn()  # in this thread, the only one whose instructions are counted
        mark()
        if tracker.stats().waiting:
            raise SystemExit("Not all was delivered.")


def run_ids(count: int) -> list[uuid.UUID]:
    """So many ids of runs, as LangChain makes them for any handler."""
    return [uuid.uuid4() for _ in range(count)]


def make_calls(tracker: VitalTracker, metadata: dict[str, Any], ids: Sequence[uuid.UUID]) -> None:
    """The starts and ends of calls of these ids."""
    handler, parent = tracker.handler, uuid.uuid4()
    for run_id in ids:
        handler.on_chat_model_start(
            {"id": ["langchain_openai", "ChatOpenAI"]},
            QUESTION,
            run_id=run_id,
            parent_run_id=parent,
            tags=["seq:step:1"],
            metadata=dict(metadata),
            invocation_params=PARAMETERS,
            batch_size=1,
        )
        handler.on_llm_end(ANSWER, run_id=run_id, parent_run_id=parent)


def tables(found: Found) -> list[Table]:
    """A line a phase."""
    rows = [[LABELS[name], number(value)] for name, value in found["instructions"].items()]
    return [Table(f"Instructions a call, of {found['calls']:,} calls", ["", "instructions"], rows)]


def claims(found: Found) -> list[Claim]:
    """The sizes to keep."""
    limits = {"caller": 150_000, "exporter": 200_000}
    return [
        Claim(f"instructions: {LABELS[name]}", value, "at most", limits[name])
        for name, value in found["instructions"].items()
    ]


PART = Part("instructions", __doc__, measure, tables, claims, quick={"calls": 200, "profiles": ""})

if __name__ == "__main__":
    if sys.argv[1:2] == ["--under"]:
        under(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        PART.main()
