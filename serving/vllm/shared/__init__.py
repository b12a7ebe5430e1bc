"""Workers on one shared cache inside vLLM (experimental).

A worker is a session that takes a pass at a time, whose attention reads what the others of its group have written.

vLLM gives each worker's tokens positions of its own sequence and caches their keys turned there. Here they are kept
once more, by block as the embedded engine keeps them, and a query is turned from where it stands in its sequence to
where it stands in its worker's view. So layouts and moves are those of the embedded engine, whatever lies in vLLM's own
cache.
"""
