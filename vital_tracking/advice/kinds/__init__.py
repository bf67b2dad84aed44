"""The thirteen kinds of advice, one module each."""
