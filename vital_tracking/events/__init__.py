"""What is not a call to a model: events of the platform, other costs, and executions of agents as their users see them."""
