"""peak_shifting: calls for which somebody may wait, moved to the hours at which a model costs less.

Applies only to models whose price changes within the day. Nobody knows which of these calls can wait, so the saving is that of
all of them, and no part of the total.
"""

from __future__ import annotations

from vital_tracking.advice.kinds.off_peak import advise_off_peak
from vital_tracking.advice.recommendation import Kind, NotApplicable, Recommendation
from vital_tracking.advice.window import Window


def advise(window: Window) -> list[Recommendation] | NotApplicable:
    """One recommendation for each model with cheaper hours."""
    return advise_off_peak(window, Kind.peak_shifting, unattended=False)
