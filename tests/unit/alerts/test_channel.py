"""A channel that fails: tried again ever more rarely, and remembered in little memory."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from vital_tracking.alerts import channel
from vital_tracking.alerts.channel import Pause, Recent


def test_the_pause_doubles_up_to_five_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken channel would be tried every few seconds all day, or never again."""
    now = 1000.0
    monkeypatch.setattr(channel, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(channel, "_FIRST_PAUSE_S", 5.0)
    pause, lengths = Pause(), []
    for _ in range(8):
        pause.after(worked=False)
        begin = now
        while not pause.over:
            now += 5
        lengths.append(now - begin)
    assert lengths == [5, 10, 20, 40, 80, 160, 300, 300]
    pause.after(worked=True)
    assert pause.over
    pause.after(worked=False)
    now += 5
    assert pause.over


def test_a_channel_that_stays_broken_takes_no_more_memory() -> None:
    """A process that runs for months with a broken channel would grow without end."""
    recent = Recent()
    for number in range(5000):
        recent.add([number])
    assert 4999 in recent
    assert 1 not in recent
    assert len(recent._ids) == channel._KEPT
