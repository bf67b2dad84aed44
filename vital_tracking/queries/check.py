"""One check of `vital-tracking doctor` and of the status page, and how it came out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at: how it is, and what to do about it."""

    state: State
    what: str
    fix: str | None = None
