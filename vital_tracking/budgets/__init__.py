"""Budgets: what a call may cost, before it is made."""
