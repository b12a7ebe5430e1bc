"""Recorded outputs as a language model: `recorded/POOL[:MODEL]`."""
