"""Chain-of-Associated-Thoughts: tree search over thoughts, each of which may bring new knowledge into its branch."""
