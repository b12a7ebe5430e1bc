"""From settings to vLLM's engine arguments, and from `SamplingParams` to vLLM's: plain dictionaries."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ...core.errors import UserError
from ...core.messages import SamplingParams
from ...core.settings import VllmSettings

KEY = "reason"
"""The key of what is ours in a request's `extra_args` (over HTTP `vllm_xargs`)."""

MAX_LOGPROBS = 1000
"""Maximum alternatives of a position that the engine is configured to return."""

CPU_CONTEXT = 4096
"""Context on a CPU unless the settings say otherwise: a prompt is computed in one step there."""

PROCESSOR = "reason.serving.vllm.logits_processor:ReasonLogitsProcessor"
WORKER = "reason.serving.vllm.logits_processor.ReasonWorkerExtension"

_RESERVED = (
    *("model", "logits_processors", "worker_extension_cls", "logprobs_mode", "skip_tokenizer_init", "runner"),
    *("speculative_config", "spec_method", "spec_model", "spec_tokens"),  # vLLM accepts no logits processor with drafts
    "enable_batch_sharded_sampling",  # a worker's logits processors would see some of the samples only
)


def engine_arguments(directory: Path, settings: VllmSettings, context: int | None, cpu: bool) -> dict[str, Any]:
    """Arguments of `AsyncEngineArgs`.

    Raises:
        UserError: `settings.engine` sets what the logits processors rely on.
    """
    if taken := sorted(set(settings.engine) & set(_RESERVED)):
        raise UserError(f"setting vllm.engine.{taken[0]} is reserved: the logits processors rely on it")
    arguments: dict[str, Any] = {
        "model": str(directory),
        "enable_prefix_caching": True,
        "max_logprobs": MAX_LOGPROBS,
        "logprobs_mode": "raw_logprobs",
        "logits_processors": [PROCESSOR],
        "worker_extension_cls": WORKER,
        "skip_tokenizer_init": True,
        "generation_config": "vllm",
        "seed": secrets.randbits(31),  # of the samples without a seed: they differ from start to start
        "enable_log_requests": False,
    }
    return arguments | size_arguments(settings, context, cpu) | settings.engine


def size_arguments(settings: VllmSettings, context: int | None, cpu: bool) -> dict[str, Any]:
    """The engine's arguments that depend on the machine: lengths, memory, devices. Parameters as `engine_arguments`.

    On a CPU, seeds and chunked prefill end the engine (vLLM to 0.33), so chunks are off there; blocks have 32 tokens,
    the minimum, so that most of a common prefix is reused; and nothing is compiled, which would need over a minute at
    every start.
    """
    arguments: dict[str, Any] = {"max_num_seqs": 64}
    if cpu:
        length = settings.engine.get("max_model_len") or min(context or CPU_CONTEXT, CPU_CONTEXT)
        arguments |= {
            "max_model_len": length,
            "block_size": 32,
            "enforce_eager": True,
            "enable_chunked_prefill": False,
            "max_num_batched_tokens": max(length, 2048) if isinstance(length, int) else 2048,
            "kv_cache_memory_bytes": 1 << 30,
        }
    return arguments


# --- Sampling


def sampling_arguments(sampling: SamplingParams, index: int, eos: Iterable[int]) -> dict[str, Any]:
    """Arguments of vLLM's `SamplingParams` for one sample of a request.

    Each sample is a request of vLLM's own, with a seed made of (seed, index): so a sample that is generated again by
    itself is the same as among its siblings. vLLM computes their common prompt once. Detokenization and stop strings
    are handled by our own tokenizer.
    """
    return {
        "temperature": 1.0 if sampling.temperature is None else sampling.temperature,
        "top_p": 1.0 if sampling.top_p is None else sampling.top_p,
        "top_k": sampling.top_k,
        "max_tokens": sampling.total_tokens,
        "seed": None if sampling.seed is None or sampling.temperature == 0 else derived_seed(sampling.seed, index),
        "logprobs": sampling.top_logprobs if sampling.top_logprobs or sampling.logprobs else None,
        "stop_token_ids": [] if sampling.ignore_eos else sorted(eos),
        "ignore_eos": sampling.ignore_eos,
        "detokenize": False,
    }


def derived_seed(seed: int, *index: int) -> int:
    """Seed of one sample's generator, below 2^63, derived from a seed and the sample's index (one or more numbers)."""
    name = ":".join(map(str, (seed, *index)))
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()) >> 1
