"""One check of `vital-tracking doctor` and of the status page, and how it came out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Check:
    """One check: how it came out, what was found, and how to mend it; `fix` is None where there is nothing to mend."""

    state: State
    what: str
    fix: str | None = None
