"""Training and scoring of the embedded entailment model."""
