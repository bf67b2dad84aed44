"""What others saw: lines of access logs, what LiteLLM counts, sizes that are metered, and invoices."""
