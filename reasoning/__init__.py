"""Strategies, and what they share."""
