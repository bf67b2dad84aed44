"""job_scheduling: jobs that nobody waits for, at the hours at which a model costs less.

Applies only to models whose price changes within the day; providers that bill by token at one price give nothing for the hour,
and then the answer is that it does not apply.
"""

from __future__ import annotations

from vital_tracking.advice.kinds.off_peak import advise_off_peak
from vital_tracking.advice.recommendation import Kind, NotApplicable, Recommendation
from vital_tracking.advice.window import Window


def advise(window: Window) -> list[Recommendation] | NotApplicable:
    """One recommendation for each model with cheaper hours."""
    return advise_off_peak(window, Kind.job_scheduling, unattended=True)
