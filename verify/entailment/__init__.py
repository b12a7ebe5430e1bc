"""Whether a text entails, contradicts or says nothing of a claim."""
