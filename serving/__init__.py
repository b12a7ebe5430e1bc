"""How `reason` talks to language models."""
