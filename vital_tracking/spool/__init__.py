"""The local files that keep what the store has not yet acknowledged."""
