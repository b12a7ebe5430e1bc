"""The evaluation harness: datasets, scoring, runs, statistics and reports."""
