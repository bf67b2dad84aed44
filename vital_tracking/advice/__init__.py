"""Advice that rests on calls: what they would have cost otherwise, which changes save money, and what became of them."""
