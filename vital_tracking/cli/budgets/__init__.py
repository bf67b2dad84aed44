"""`vital-tracking budgets` and `vital-tracking alerts`."""
