"""vLLM in this process: `VllmModel` on its asynchronous engine, and our logits processors in its samplers.

Everything that uses vLLM's own, unstable interfaces is in this package. vLLM itself is imported where it is needed, so
the modules load without it, except those that vLLM loads: `logits_processor`, `worker`, `endpoint`,
`shared_scheduler` and `shared_attention*`.
"""
