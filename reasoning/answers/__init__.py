"""Answers in model output: extraction, kinds, normalization, equivalence."""
