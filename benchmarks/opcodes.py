"""Where the interpreter's work goes: opcodes a call, by function, in the calling thread and in the one that delivers.

    python -m benchmarks.opcodes [--calls 100] [--top 30] [--without-spool]

The same on every machine with the same version of Python. What functions written in C take is not in them: see
`benchmarks.instructions`. With five budgets and the spool; or, `--without-spool`, with neither, as `recording` in
`benchmarks.overhead`.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from benchmarks.contestants import AGENT, BUDGETS, SESSION, USER
from benchmarks.database import a_database_server
from benchmarks.figures import Table, number
from benchmarks.instructions import WARM, Accepting, make_calls, run_ids
from benchmarks.spool import METADATA
from vital_tracking import Settings, VitalTracker


class Counted:
    """The opcodes that Python functions have run, and how often each was called."""

    def __init__(self) -> None:
        self.opcodes: Counter[CodeType] = Counter()
        self.calls: Counter[CodeType] = Counter()

    @contextlib.contextmanager
    def counting(self) -> Iterator[None]:
        """Count what runs in this thread meanwhile."""
        sys.settrace(self._called)
        try:
            yield
        finally:
            sys.settrace(None)

    def _called(self, frame: FrameType, _event: str, _argument: Any) -> Any:
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        self.calls[frame.f_code] += 1
        return self._stepped

    def _stepped(self, frame: FrameType, event: str, _argument: Any) -> Any:
        self.opcodes[frame.f_code] += event == "opcode"
        return self._stepped


def count(calls: int, *, without_spool: bool) -> dict[str, Counted]:
    """The opcodes of so many calls, by thread."""
    counted = {"calling thread": Counted(), "delivering thread": Counted()}
    with tempfile.TemporaryDirectory(prefix="vital-bench-") as folder, a_database_server(BUDGETS) as (_, url):
        settings = Settings(
            spool=not without_spool,
            budgets=not without_spool,
            spool_dir=Path(folder),
            flush_interval_s=3600,
            background=False,
            batch_size=1,
        )
        tracker = VitalTracker(Accepting(url), settings=settings, organization_id="budgets+spool")
        with contextlib.closing(tracker), tracker.conversation(user_id=USER, session_id=SESSION, agent=AGENT) as scope:
            own = {name: value for name, value in METADATA.items() if not name.startswith("vital_")}
            metadata = scope.config(metadata=own)["metadata"]
            for _ in range(2):
                make_calls(tracker, metadata, run_ids(WARM))
                tracker.flush(600)
            ids = run_ids(calls)
            with counted["calling thread"].counting():
                make_calls(tracker, metadata, ids)
            with counted["delivering thread"].counting():
                tracker._recorder._writer._turn()
    return counted


def table(thread: str, counted: Counted, calls: int, top: int) -> Table:
    """The functions that ran most opcodes."""
    rows = [
        [
            f"{Path(code.co_filename).parent.name}/{Path(code.co_filename).name} {code.co_qualname}",
            number(ran / calls),
            number(counted.calls[code] / calls),
        ]
        for code, ran in counted.opcodes.most_common(top)
    ]
    in_all = [number(sum(of.values()) / calls) for of in (counted.opcodes, counted.calls)]
    return Table(f"Opcodes a call, {thread}", ["", "opcodes", "times called"], [["in all", *in_all], *rows])


def main() -> None:
    """Print the tables."""
    asked = argparse.ArgumentParser(
        prog="python -m benchmarks.opcodes", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    asked.add_argument("--calls", type=int, default=100, help="how many calls are made (100)")
    asked.add_argument("--top", type=int, default=30, help="how many functions are named (30)")
    asked.add_argument("--without-spool", action="store_true", help="with neither spool nor budgets")
    args = asked.parse_args()
    for thread, counted in count(args.calls, without_spool=args.without_spool).items():
        print(table(thread, counted, args.calls, args.top).text(), end="\n\n")


if __name__ == "__main__":
    main()
