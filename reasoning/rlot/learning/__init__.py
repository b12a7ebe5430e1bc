"""How the navigator learns: Double DQN with a replay buffer, in NumPy."""
