"""Whether a text supports, refutes or is neutral to a claim."""
