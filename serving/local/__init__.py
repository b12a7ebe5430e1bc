"""The embedded engine: `local/…` models computed in this process, on the CPU."""
