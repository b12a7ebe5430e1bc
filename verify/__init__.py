"""Verification of answers: claims, evidence, entailment, fusion, calibration; DAVinCI."""
