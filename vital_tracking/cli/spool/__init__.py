"""`vital-tracking spool`."""
