"""Execution of code answers: tests, the sandbox that runs them, and its worker process."""
