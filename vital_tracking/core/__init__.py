"""Values without I/O: contexts, usage, records, prices."""
