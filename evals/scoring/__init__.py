"""Turn an item and its answer into a score."""
