"""What the tests of the command line share: what a command may say, and calls for it to find."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from vital_tracking import Agent, VitalTracker

Done = subprocess.CompletedProcess[str]
Cli = Callable[..., Done]
Several = Callable[..., list[Done]]

SECRET = "Geheim-7391"
UNREACHABLE = f"postgresql://someone:{SECRET}@127.0.0.1:1/nowhere"


def fine(done: Done) -> str:
    """What a command printed that must succeed, and have nothing to complain of."""
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout


def refused(done: Done, *, code: int = 1) -> str:
    """The one line that a command printed that must fail: no traceback, no secret."""
    said = done.stdout + done.stderr
    assert done.returncode == code, said
    assert "Traceback" not in said
    assert SECRET not in said
    lines = [line for line in done.stderr.splitlines() if line and not line.startswith(("Usage: ", "Try '"))]
    assert len(lines) == 1, done.stderr
    assert lines[0].lower().startswith("error: ")
    return lines[0]


def findings(done: Done) -> dict[str, list[str]]:
    """The findings of `doctor --json` by their state, each with its fix."""
    found: dict[str, list[str]] = {"ok": [], "warn": [], "fail": []}
    for finding in json.loads(done.stdout):
        found[finding["state"]].append(f"{finding['what']} {finding['fix'] or ''}".strip())
    return found


def some_calls(tracker: VitalTracker) -> None:
    """Five calls that differ in what `calls` can ask for; the last has no price, the first is three days old."""
    cardio = Agent("cardio", name="Cardiologist", tier="tier_1")
    now = datetime.now(UTC)
    old, first, second, third, last = (now - timedelta(seconds=seconds) for seconds in (3 * 86_400, 40, 30, 20, 10))
    openai: dict[str, Any] = {"provider": "openai", "prompt_tokens": 1000, "completion_tokens": 100}
    tracker.record(**openai, model="gpt-4o", user_id="u-old", started_at=old)
    with tracker.conversation(user_id="u-1", session_id="s-1", agent=cardio, organization_id="o-1"):
        tracker.record(**openai, model="gpt-4o-mini", started_at=first)
    with tracker.workflow("intake", user_id="u-2"):
        failed = TimeoutError("quoting somebody")
        tracker.record(provider="anthropic", model="claude-haiku-4-5", error=failed, started_at=second)
        tracker.record(**openai, model="gpt-4o", response_time_ms=850, started_at=third)
    tracker.record(
        provider="in_house",
        model="house-llm-7b",
        prompt_tokens=400,
        completion_tokens=50,
        user_id="u-1",
        started_at=last,
    )
    assert tracker.flush().complete
