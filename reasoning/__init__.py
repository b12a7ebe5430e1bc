"""Strategies that turn a question into a solution, and what they share."""
