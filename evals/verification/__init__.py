"""Evaluation of verification on labelled claims."""
