"""The valid reasons for skipping a block of the docs, and what a block must contain for each."""

from __future__ import annotations

import re

REASONS = {
    ".ci/run ask": r"pip install",
    ".ci/run test": r"pip install .*pytest",
    "it installs packages": r"pip install|npm ci",
    "it needs Docker": r"^docker ",
    "it needs a Kubernetes cluster": r"^kubectl ",
    "it needs a vLLM server": r"vllm serve|vllm\.entrypoints|hosted_vllm/|kv-cache-memory-bytes",
    "it needs vLLM": r"vllm|model\.cache",
    "an MCP client starts it": r"reason (mcp|serve --mcp)",
    "it needs Open WebUI": r"open-webui",
    "it needs several machines": r"ray start|api_base",
    "it needs root and network namespaces": r"tests/cluster",
    "it needs root and podman": r"tests/deploy/check_images",
    "it needs Inspect": r"^inspect ",
    "it needs LM Evaluation Harness and a data set of the hub": r"^lm_eval ",
    "it needs a large model of the hub": r"local/Qwen/",
    "it asks a provider that costs money": r"(openai|anthropic|gemini|deepseek)/",
    "it trains for hours": r"train_navigator",
    "it needs a checkout": r"training/routers",
    "it measures for hours": r"benchmarks/|tests/drills/|DATA|reason eval sweep",
}
"""Regular expressions that the blocks must match, by reason."""


def reason_problem(reason: str, code: str) -> str:
    """The problem with a skip reason; empty if it is valid."""
    if reason not in REASONS:
        return f"unknown reason {reason!r}; known are: {', '.join(REASONS)}"
    if not re.search(REASONS[reason], code, re.M):
        return f"nothing in the block says that {reason}"
    return ""
