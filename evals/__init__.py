"""Evaluation: datasets, scoring, runs, statistics, reports and training."""
