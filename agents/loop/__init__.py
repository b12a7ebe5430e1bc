"""The agent loop: tools, the records of their calls, and the graph that runs them."""
