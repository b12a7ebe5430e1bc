"""Training the navigator of RLoT: problems, rewards, environment, trainer, checkpoints and logs."""
