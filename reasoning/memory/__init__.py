"""Associative memory: admission of items, their visibility to thoughts, and persistence across runs."""
