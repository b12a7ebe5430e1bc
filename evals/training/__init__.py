"""Training of navigators, entailment models and routers."""
