"""DAVinCI: attribute a claim, verify it, and decide whether to stand by the verdict."""
