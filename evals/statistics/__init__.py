"""Statistics of evaluations: pure functions of arrays; `docs/statistics.md` defines them."""
