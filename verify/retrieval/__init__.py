"""Passages for claims: documents cut into passages, found by words and by meaning, in memory or in a saved index."""
