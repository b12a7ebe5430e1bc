"""Embedding models and cross-encoders: protocols, and the backends that run them."""
