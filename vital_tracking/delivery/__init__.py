"""How finished calls reach the store."""

from __future__ import annotations

from vital_tracking.delivery.recorder import Delivered, Recorder, Stats

__all__ = ["Delivered", "Recorder", "Stats"]
