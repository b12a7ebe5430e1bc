"""Scoring: what an answer to an item is worth. `scorer.Scorer` is the way in."""
