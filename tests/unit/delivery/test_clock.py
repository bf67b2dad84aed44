"""The database's clock as a process knows it: a call is dated by it, whatever happens to the clock of the machine.

If one of these fails, a call counts in another window than that of which it was paid, and a limit is spent twice.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from vital_tracking.delivery.clock import DatabaseClock

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Machine:
    """A machine with a clock that can be set, and one that cannot."""

    def __init__(self) -> None:
        self.passed_s = 0.0
        self.set_by_s = 0.0
        self.clock = DatabaseClock(lambda: NOON.timestamp() + self.passed_s + self.set_by_s, lambda: self.passed_s)

    def hear(self, off_s: float, *, trip_s: float = 0.0) -> None:
        """The database tells its time, which is so far ahead of true time."""
        true = NOON + timedelta(seconds=self.passed_s)
        before = true + timedelta(seconds=self.set_by_s)
        trip = timedelta(seconds=trip_s)
        self.clock.sample(true + timedelta(seconds=off_s) + trip / 2, before, before + trip)


def test_nothing_is_known_before_the_database_has_told_its_time() -> None:
    machine = Machine()
    machine.set_by_s = 3600
    assert machine.clock.skew_s is None
    assert machine.clock.now()[1] is True


def test_a_clock_that_is_set_is_corrected_at_once() -> None:
    machine = Machine()
    machine.hear(0.2)
    assert machine.clock.skew_s == 0
    machine.set_by_s = 2 * 86400
    machine.passed_s = 60
    assert machine.clock.skew_s == -2 * 86400
    machine.set_by_s = -30
    assert machine.clock.skew_s == 30
    machine.set_by_s = 0
    assert machine.clock.skew_s == 0
    assert machine.clock.now()[1] is False


def test_a_clock_that_was_off_and_is_put_right_agrees() -> None:
    machine = Machine()
    machine.hear(-300)
    assert machine.clock.skew_s == -300
    machine.set_by_s = -300.4
    assert machine.clock.skew_s == 0


def test_a_clock_that_is_set_while_the_database_is_asked_is_noticed() -> None:
    """Else all calls until the next answer would be dated by half of what the clock was set by."""
    for set_by_s in (-2 * 86400, 2 * 86400, 30, -30):
        machine = Machine()
        machine.hear(0)
        before = machine.clock.read()
        machine.passed_s, machine.set_by_s = 0.5, set_by_s
        machine.clock.heard({"now": (NOON + timedelta(seconds=0.25)).isoformat()}, before)
        assert machine.clock.now()[0] == NOON + timedelta(seconds=0.5)


def test_the_time_is_read_once() -> None:
    """The clock may be set between two readings of it, by another program."""
    machine = Machine()
    machine.hear(0)
    readings = iter([0.0])
    machine.clock._time_of_day = lambda: NOON.timestamp() + next(readings, 86400.0)
    assert machine.clock.now()[0] == NOON


def test_a_slow_answer_does_not_make_forget_what_is_known() -> None:
    machine = Machine()
    machine.hear(5)
    machine.hear(5, trip_s=8)
    assert machine.clock.skew_s == 5
    machine.hear(90, trip_s=8)
    assert machine.clock.skew_s == 90
