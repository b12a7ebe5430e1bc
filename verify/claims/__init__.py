"""Splitting an answer into claims."""
