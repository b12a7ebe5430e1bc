"""Several pieces of evidence combined into one verdict (LPF)."""
