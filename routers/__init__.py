"""Routers: which model takes a step, which model or strategy takes a question."""
