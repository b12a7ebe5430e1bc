"""From settings to vLLM's engine arguments, and from `SamplingParams` to its sampling parameters: plain dictionaries.

Drafts: several tokens guessed ahead and checked in one pass (speculative decoding), as settings have vLLM do it.

While vLLM drafts, it runs no logits processor but its own, and so none of our hooks and grammars. What it accepts is
drawn by rejection sampling (Leviathan et al. 2023, arXiv 2211.17192): greedy texts stay what they are, drawn ones stay
as likely as they are, but a seed gives others.
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

FIELDS = ("speculative_config", "spec_method", "spec_model", "spec_tokens")
"""Arguments of vLLM's engine that make it draft."""

TOKENS = {"ngram": 5, "suffix": 32}
"""Tokens guessed at a time where the settings name no number, as in vLLM's documentation of each method."""

SUFFIX_PACKAGE = "arctic_inference"


def drafts(settings: VllmSettings) -> bool:
    """Whether an engine drafts: by the setting `draft`, or by arguments of vLLM's own."""
    return settings.draft != "off" or any(settings.engine.get(field) is not None for field in FIELDS)


def draft_arguments(settings: VllmSettings) -> dict[str, Any]:
    """Arguments of `AsyncEngineArgs` that the setting `draft` stands for; none if it is off.

    Raises:
        UserError: vLLM's own arguments say it once more, or a package is missing.
    """
    if settings.draft == "off":
        return {}
    if taken := [field for field in FIELDS if field in settings.engine]:
        raise UserError(
            f"settings vllm.draft and vllm.engine.{taken[0]} both say what drafts", hint="leave one of them out"
        )
    if settings.draft == "suffix" and importlib.util.find_spec(SUFFIX_PACKAGE) is None:
        raise UserError(
            'setting vllm.draft = "suffix" needs the package arctic-inference, which is not installed',
            hint='pip install arctic-inference==0.1.1 beside vLLM (it is compiled on the spot), or take "ngram"',
        )
    config: dict[str, Any] = {
        "method": settings.draft,
        "num_speculative_tokens": settings.draft_tokens or TOKENS[settings.draft],
    }
    if settings.draft == "ngram":
        config |= {"prompt_lookup_max": settings.draft_ngram, "prompt_lookup_min": settings.draft_ngram}
    return {"speculative_config": config}


def drafting_name(config: Any) -> str:
    """What of drafting decides which text a seed gives, for a model's identity.

    Args:
        config: vLLM's `SpeculativeConfig`; None if it does not draft.
    """
    if config is None:
        return ""
    looked_up = f"-{config.prompt_lookup_min}-{config.prompt_lookup_max}" if config.method == "ngram" else ""
    return f"+{config.method}-{config.num_speculative_tokens}{looked_up}"


def refuse_undraftable(sampling: SamplingParams, model: str, *, draws: bool) -> None:
    """See that a request can be sampled while vLLM drafts.

    Args:
        sampling: How it is to be sampled.
        model: The model's name.
        draws: Whether this vLLM draws what it drafts from the right distribution.

    Raises:
        CapabilityMissing: It needs what drafting excludes.
    """
    wanted = f"hook {sampling.hooks[0].name}" if sampling.hooks else ""
    if sampling.json_schema is not None:
        wanted = wanted or "json_schema"
    if sampling.temperature > 0 and not draws:
        wanted = wanted or "temperature above 0 while drafting"
    if wanted:
        raise CapabilityMissing(wanted, model, alternative=f'{model} with the setting vllm.draft = "off"')


KEY = "reason"
"""Under this key a request's `extra_args` (over HTTP `vllm_xargs`) hold what is ours."""

MOST_ALTERNATIVES = 1000
"""Most alternatives of a position that the engine is told to allow."""

CPU_CONTEXT = 4096
"""Context on a CPU unless the settings say otherwise: a whole prompt is computed in one step there."""

REPORTS_PAGE = "/v1/reason/reports"
HOOKS_PAGE = "/v1/reason/hooks"
"""Pages of our endpoint plug-in on a vLLM server: what hooks measured, and which there are."""

PROCESSOR = "reason.serving.vllm.logits_processor:Hooks"
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


def sampling_arguments(sampling: SamplingParams, index: int, eos: Iterable[int]) -> dict[str, Any]:
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
