"""What routers are fitted to: thresholds from dev data, and choices from the rows of evaluations."""
