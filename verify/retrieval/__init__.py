"""Finding evidence: documents, saved indexes, hybrid search."""
