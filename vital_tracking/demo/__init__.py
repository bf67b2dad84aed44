"""A made-up history to look at: three organizations, their people and agents, and what they did in some weeks."""
