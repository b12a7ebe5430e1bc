"""vLLM in this process: `VllmModel` on its asynchronous engine, and our logits hooks inside its samplers.

Everything that touches vLLM's own, unstable interfaces lies in this folder. vLLM itself is imported where it is needed,
so the modules here load without it, but for `processor` and `worker`, which vLLM loads.
"""
