"""Plans, subscriptions and quotas on the command line."""
