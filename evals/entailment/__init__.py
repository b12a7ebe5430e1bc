"""Training and scoring of the embedded judge of entailment (`verify.entailment.embedded`)."""
