"""Measuring verification: labelled claims, stored verdicts on pairs, methods fitted out of fold, figures."""
