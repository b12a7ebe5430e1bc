"""Saved indexes: built in resumable steps, memory-mapped when loaded."""
