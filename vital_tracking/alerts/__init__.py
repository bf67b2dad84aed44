"""Budget alerts: what they say, and their way to a log, a callback, Slack or e-mail."""
