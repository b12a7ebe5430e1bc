"""Statistics of evaluations: pure functions of arrays, one idea a file; `docs/statistics.md` defines them."""
