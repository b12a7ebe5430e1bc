"""Embedding models and cross-encoders: the ways to run them, after `embeddings` and `cross_encoders`."""
