"""Strategies that sample several chains and let their answers vote."""
