"""Training of the navigator of RLoT."""
