"""The pipeline around a strategy, and the SDK."""
