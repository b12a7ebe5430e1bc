"""Reward models: protocol and scores, their input formats, and the backends that run them."""
