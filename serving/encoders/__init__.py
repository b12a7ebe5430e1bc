"""Embedding models and cross-encoders: the ways to run them, behind `serving.embeddings` and `serving.cross_encoders`."""
