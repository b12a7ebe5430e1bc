"""Models as a strategy uses them: each call with the run's budget, run store and trace, and stubs to replay a run."""
