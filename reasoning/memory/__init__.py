"""Associative memory: what may enter it, who sees what of it, and how it outlasts a run."""
