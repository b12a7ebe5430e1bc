"""Which part of a run a claim came from."""
