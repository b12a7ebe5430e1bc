"""RLoT: a small network chooses the next operation on a chain of thought (RL of Thoughts)."""
