"""Embedding models and cross-encoders: the ways to run them, behind `embeddings` and `cross_encoders`."""
