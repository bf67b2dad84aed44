"""`vital-tracking report`."""
