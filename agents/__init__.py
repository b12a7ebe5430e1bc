"""The pipeline around a strategy."""
