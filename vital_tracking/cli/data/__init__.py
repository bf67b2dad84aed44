"""Commands that move, count anew or delete data."""
