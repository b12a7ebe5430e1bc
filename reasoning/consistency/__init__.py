"""Voting over sampled paths with the model's own probabilities: RPC, perplexity consistency, and their relatives."""
