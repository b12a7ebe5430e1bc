"""When enough samples are there: stopping rules, each a pure function of what the samples say so far."""
