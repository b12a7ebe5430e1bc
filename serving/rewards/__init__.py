"""Reward models: what is put before them (`forms`) and the ways to run them, all behind `serving.rewards`."""
