"""From settings to vLLM's engine arguments, and from `Sampling` to its sampling parameters: plain dictionaries."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ...core.errors import UserError
from ...core.messages import Sampling
from ...core.settings import VllmSettings
from .drafts import draft_arguments, drafts

KEY = "reason"
"""Under this key a request's `extra_args` (over HTTP `vllm_xargs`) hold what is ours."""

MOST_ALTERNATIVES = 1000
"""Most alternatives of a position that the engine is told to allow."""

CPU_CONTEXT = 4096
"""Context on a CPU unless the settings say otherwise: a whole prompt is computed in one step there."""

REPORTS_PAGE = "/v1/reason/reports"
HOOKS_PAGE = "/v1/reason/hooks"
"""Pages of our endpoint plug-in on a vLLM server: what hooks measured, and which there are."""

PROCESSOR = "reason.serving.vllm.processor:Hooks"
WORKER = "reason.serving.vllm.worker.ReasonWorker"
_OURS = ("model", "logits_processors", "worker_extension_cls", "logprobs_mode", "skip_tokenizer_init", "runner")


def engine_arguments(folder: Path, settings: VllmSettings, context: int | None, cpu: bool) -> dict[str, Any]:
    """Arguments of `AsyncEngineArgs`.

    Args:
        folder: The model's folder.
        settings: What the user chose.
        context: Tokens the model was made for; None if its configuration does not say.
        cpu: Whether vLLM runs on the processor.

    Raises:
        UserError: `settings.engine` sets what the hooks rely on, or what the setting `draft` sets.
    """
    if taken := sorted(set(settings.engine) & set(_OURS)):
        raise UserError(f"setting vllm.engine.{taken[0]} is not free: the hooks rely on it")
    arguments: dict[str, Any] = {
        "model": str(folder),
        "dtype": settings.dtype,
        "enable_prefix_caching": settings.prefix_caching,
        "max_logprobs": MOST_ALTERNATIVES,
        "logprobs_mode": "raw_logprobs",
        "logits_processors": [] if drafts(settings) else [PROCESSOR],  # vLLM takes none while it drafts
        "worker_extension_cls": WORKER,
        "skip_tokenizer_init": True,
        "generation_config": "vllm",
        "seed": secrets.randbits(31),  # of the samples without a seed: they differ from start to start
        "enable_log_requests": False,
    }
    return arguments | sizes(settings, context, cpu) | draft_arguments(settings) | settings.engine


def sizes(settings: VllmSettings, context: int | None, cpu: bool) -> dict[str, Any]:
    """What of the engine's arguments follows from the machine: lengths, memory, devices.

    On a CPU, seeds and prompts computed in chunks end the engine (vLLM to 0.33), so chunks are off there; blocks have
    32 tokens, the fewest it takes, so that most of a common prefix is reused; and nothing is compiled, which would take
    over a minute at every start.

    Args:
        settings: What the user chose.
        context: Tokens the model was made for; None if its configuration does not say.
        cpu: Whether vLLM runs on the processor.
    """
    arguments: dict[str, Any] = {
        "max_num_seqs": settings.max_num_seqs,
        "tensor_parallel_size": settings.tensor_parallel_size,
        "pipeline_parallel_size": settings.pipeline_parallel_size,
    }
    length = settings.max_model_len
    if cpu:
        length = length or min(context or CPU_CONTEXT, CPU_CONTEXT)
        arguments |= {
            "block_size": 32,
            "enforce_eager": True,
            "enable_chunked_prefill": False,
            "max_num_batched_tokens": max(length, 2048),
            "kv_cache_memory_bytes": settings.kv_bytes or 1 << 30,
        }
    elif settings.kv_bytes is not None:
        arguments["kv_cache_memory_bytes"] = settings.kv_bytes
    else:
        arguments["gpu_memory_utilization"] = settings.gpu_memory_utilization
    if length is not None:
        arguments["max_model_len"] = length
    return arguments


def keeps_prefixes(settings: VllmSettings, cpu: bool) -> bool:
    """Whether an engine is started with our KV connector.

    Args:
        settings: What the user chose.
        cpu: Whether vLLM runs on the processor.

    Raises:
        UserError: It is asked for, but its place is taken.
    """
    foreign = "kv_transfer_config" in settings.engine
    if settings.pins and (foreign or not settings.prefix_caching):
        taken = "vllm.engine.kv_transfer_config is set" if foreign else "vllm.prefix_caching is off"
        raise UserError(f"setting vllm.pins needs vLLM's own prefix cache and connector, but {taken}")
    wanted = cpu if settings.pins is None else settings.pins
    return wanted and settings.prefix_caching and not foreign


def sampling_arguments(sampling: Sampling, index: int, eos: Iterable[int]) -> dict[str, Any]:
    """Arguments of `SamplingParams` for one sample of a request.

    Each sample is a request of vLLM's own, with a seed made of (seed, index): so a sample that is made again alone is
    what it was among its siblings. vLLM computes their common prompt once. Texts and stop strings are made by our own
    tokenizer, from the ids.

    Args:
        sampling: How to sample.
        index: Which sample.
        eos: Tokens that end a text.
    """
    seeded = sampling.seed is not None and sampling.temperature > 0
    return {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "max_tokens": sampling.max_tokens,
        "seed": sample_seed(sampling.seed, index) if seeded and sampling.seed is not None else None,
        "logprobs": sampling.top_logprobs if sampling.top_logprobs or sampling.logprobs else None,
        "stop_token_ids": [] if sampling.ignore_eos else sorted(eos),
        "ignore_eos": sampling.ignore_eos,
        "detokenize": False,
    }


def sample_seed(seed: int, *which: int) -> int:
    """Seed of one sample's generator, below 2^63: which one of those of a seed, in one number or several."""
    name = ":".join(map(str, (seed, *which)))
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()) >> 1
