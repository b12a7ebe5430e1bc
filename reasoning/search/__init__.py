"""Search over steps as pure cores with ask and tell: no model, no clock, and no randomness but what is given."""
