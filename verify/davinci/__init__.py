"""DAVinCI: attribute a claim, verify it, and gate the verdict by its confidence."""
