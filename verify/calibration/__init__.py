"""What a verifier's probabilities are worth, and when to stand by a verdict."""
