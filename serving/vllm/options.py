"""From settings to vLLM's engine arguments, and from `SamplingParams` to vLLM's: plain dictionaries.

With speculative decoding, vLLM runs no logits processor but its own, and so none of ours and no grammars. What it
accepts is sampled by rejection sampling (Leviathan et al. 2023, arXiv 2211.17192): greedy texts stay the same, sampled
ones keep their distribution, but a seed gives other texts.
"""

from __future__ import annotations

import hashlib
import importlib.util
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ...core.errors import CapabilityMissing, UserError
from ...core.messages import SamplingParams
from ...core.settings import VllmSettings

KEY = "reason"
"""The key of what is ours in a request's `extra_args` (over HTTP `vllm_xargs`)."""

MAX_LOGPROBS = 1000
"""Maximum alternatives of a position that the engine is configured to return."""

CPU_CONTEXT = 4096
"""Context on a CPU unless the settings say otherwise: a prompt is computed in one step there."""

PROCESSOR = "reason.serving.vllm.logits_processor:ReasonLogitsProcessor"
WORKER = "reason.serving.vllm.worker.ReasonWorkerExtension"

SPECULATIVE_ARGUMENTS = ("speculative_config", "spec_method", "spec_model", "spec_tokens")
"""Arguments of vLLM's engine that turn speculative decoding on."""

SPECULATIVE_TOKENS = {"ngram": 5, "suffix": 32}
"""Maximum draft tokens, as in vLLM's documentation of each method."""
PROMPT_LOOKUP_TOKENS = 4
"""Length of the n-gram that "ngram" looks up."""

SUFFIX_PACKAGE = "arctic_inference"

_RESERVED = (
    *("model", "logits_processors", "worker_extension_cls", "logprobs_mode", "skip_tokenizer_init", "runner"),
    "enable_batch_sharded_sampling",  # a worker's logits processors would see some of the samples only
)


def engine_arguments(directory: Path, settings: VllmSettings, context: int | None, cpu: bool) -> dict[str, Any]:
    """Arguments of `AsyncEngineArgs`.

    Raises:
        UserError: `settings.engine` sets what the logits processors rely on, or what `speculative_method` sets.
    """
    if taken := sorted(set(settings.engine) & set(_RESERVED)):
        raise UserError(f"setting vllm.engine.{taken[0]} is reserved: the logits processors rely on it")
    arguments: dict[str, Any] = {
        "model": str(directory),
        "dtype": settings.dtype,
        "enable_prefix_caching": True,
        "max_logprobs": MAX_LOGPROBS,
        "logprobs_mode": "raw_logprobs",
        "logits_processors": [] if is_speculative(settings) else [PROCESSOR],  # vLLM accepts none with drafts
        "worker_extension_cls": WORKER,
        "skip_tokenizer_init": True,
        "generation_config": "vllm",
        "seed": secrets.randbits(31),  # of the samples without a seed: they differ from start to start
        "enable_log_requests": False,
    }
    return arguments | size_arguments(settings, context, cpu) | speculative_arguments(settings) | settings.engine


def size_arguments(settings: VllmSettings, context: int | None, cpu: bool) -> dict[str, Any]:
    """The engine's arguments that depend on the machine: lengths, memory, devices. Arguments as `engine_arguments`.

    On a CPU, seeds and chunked prefill end the engine (vLLM to 0.33), so chunks are off there; blocks have 32 tokens,
    the minimum, so that most of a common prefix is reused; and nothing is compiled, which would need over a minute at
    every start.
    """
    arguments: dict[str, Any] = {"max_num_seqs": settings.max_num_seqs}
    length = settings.max_model_len
    if cpu:
        length = length or min(context or CPU_CONTEXT, CPU_CONTEXT)
        arguments |= {
            "block_size": 32,
            "enforce_eager": True,
            "enable_chunked_prefill": False,
            "max_num_batched_tokens": max(length, 2048),
            "kv_cache_memory_bytes": settings.kv_cache_bytes or 1 << 30,
        }
    elif settings.kv_cache_bytes is not None:
        arguments["kv_cache_memory_bytes"] = settings.kv_cache_bytes
    if length is not None:
        arguments["max_model_len"] = length
    return arguments


# --- Speculative decoding


def is_speculative(settings: VllmSettings) -> bool:
    """Whether an engine uses speculative decoding: by the setting, or by arguments of vLLM's own."""
    return settings.speculative_method != "off" or any(
        settings.engine.get(argument) is not None for argument in SPECULATIVE_ARGUMENTS
    )


def speculative_arguments(settings: VllmSettings) -> dict[str, Any]:
    """Arguments of `AsyncEngineArgs` for the setting `speculative_method`; none if it is off.

    Raises:
        UserError: vLLM's own arguments are set too, or a package is missing.
    """
    method = settings.speculative_method
    if method == "off":
        return {}
    if taken := [argument for argument in SPECULATIVE_ARGUMENTS if argument in settings.engine]:
        raise UserError(
            f"settings vllm.speculative_method and vllm.engine.{taken[0]} are both set", hint="remove one of them"
        )
    if method == "suffix" and importlib.util.find_spec(SUFFIX_PACKAGE) is None:
        raise UserError(
            'setting vllm.speculative_method = "suffix" needs the package arctic-inference, which is not installed',
            hint='pip install arctic-inference==0.1.1 next to vLLM (it is compiled on installation), or use "ngram"',
        )
    config: dict[str, Any] = {"method": method, "num_speculative_tokens": SPECULATIVE_TOKENS[method]}
    if method == "ngram":
        config |= {"prompt_lookup_max": PROMPT_LOOKUP_TOKENS, "prompt_lookup_min": PROMPT_LOOKUP_TOKENS}
    return {"speculative_config": config}


def speculative_identity(config: Any) -> str:
    """What of vLLM's `SpeculativeConfig` decides which text a seed gives, for a model's identity; empty for None."""
    if config is None:
        return ""
    lookup = f"-{config.prompt_lookup_min}-{config.prompt_lookup_max}" if config.method == "ngram" else ""
    return f"+{config.method}-{config.num_speculative_tokens}{lookup}"


def check_speculative_request(sampling: SamplingParams, model: str, *, samples_exactly: bool) -> None:
    """Raises `CapabilityMissing` if a request needs what speculative decoding excludes.

    Args:
        samples_exactly: Whether this vLLM samples draft tokens from the right distribution.
    """
    missing = f"logits processor {sampling.logits_processors[0].name}" if sampling.logits_processors else ""
    if sampling.json_schema is not None:
        missing = missing or "json_schema"
    if sampling.temperature != 0 and not samples_exactly:
        missing = missing or "temperature above 0 with speculative decoding"
    if missing:
        raise CapabilityMissing(missing, model, alternative=f'{model} with the setting vllm.speculative_method = "off"')


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
