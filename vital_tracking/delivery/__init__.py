"""How finished calls reach the store."""

from __future__ import annotations

from vital_tracking.delivery.recorder import Recorder
from vital_tracking.delivery.stats import Delivered, Stats

__all__ = ["Delivered", "Recorder", "Stats"]
