"""Fixtures of run stores."""

from support.run_stores import any_store, stores  # noqa: F401
