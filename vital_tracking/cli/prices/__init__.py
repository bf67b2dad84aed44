"""`vital-tracking prices`."""
