"""Search over reasoning steps: pure ask-and-tell searches, the driver that runs them on models, and the strategies."""
