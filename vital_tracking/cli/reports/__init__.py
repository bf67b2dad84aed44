"""`vital-tracking reports`: saved reports, and sending them on a schedule."""
