"""Retrieval: documents, passages, BM25 and vector search, saved indexes, and knowledge sources."""
