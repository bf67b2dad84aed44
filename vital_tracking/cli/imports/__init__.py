"""`vital-tracking import`, `meter` and `allocate`: what others saw, counted or billed."""
