"""metered."""
