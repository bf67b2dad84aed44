"""The same reports at ten million calls of 90 days, for which they were promised: takes an hour and 7 GB, run when asked for."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.reports import FULL_CALLS, FULL_DAYS
from benchmarks.reports import PART as REPORTS

PART = replace(
    REPORTS,
    name="reports_large",
    about=__doc__,
    quick={"rounds": 5, "calls": FULL_CALLS, "days": FULL_DAYS},
    full={"rounds": 15},
)

if __name__ == "__main__":
    PART.main()
