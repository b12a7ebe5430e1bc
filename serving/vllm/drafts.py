"""Drafts: several tokens guessed ahead and checked in one pass (speculative decoding), as settings have vLLM do it.

While vLLM drafts, it runs no logits processor but its own, and so none of our hooks and grammars. What it accepts is
drawn by rejection sampling (Leviathan et al. 2023, arXiv 2211.17192): greedy texts stay what they are, drawn ones stay
as likely as they are, but a seed gives others.
"""

from __future__ import annotations

import importlib.util
from typing import Any

from ...core.errors import CapabilityMissing, UserError
from ...core.messages import Frozen, Sampling
from ...core.settings import VllmSettings
from .counters import StepListener

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


def refuse_undraftable(sampling: Sampling, model: str, *, draws: bool) -> None:
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


class DraftCounters(Frozen):
    """What an engine did since it was started, over all its requests.

    The figures follow the engine by a moment. Without drafting, a token is a pass.

    Attributes:
        passes: Steps of requests, that of the prompt aside: a step of three requests is three.
        drafted: Tokens guessed.
        accepted: Those that were right; vLLM counts them past the end of a text too.
        tokens: Tokens written; each request's first, which comes with its prompt, is not among them.
    """

    passes: int = 0
    drafted: int = 0
    accepted: int = 0
    tokens: int = 0

    @property
    def tokens_a_pass(self) -> float:
        """Tokens for each pass; 1 without drafting."""
        return self.tokens / self.passes if self.passes else 1.0

    @property
    def accepted_share(self) -> float:
        """Share of the guesses that were right; 0 before the first."""
        return self.accepted / self.drafted if self.drafted else 0.0

    def __sub__(self, before: DraftCounters) -> DraftCounters:
        """What happened since `before`."""
        return DraftCounters(
            passes=self.passes - before.passes,
            drafted=self.drafted - before.drafted,
            accepted=self.accepted - before.accepted,
            tokens=self.tokens - before.tokens,
        )


class DraftStatistics(StepListener):
    """The scheduler's statistics of drafting, added up."""

    def __init__(self) -> None:
        self.counters = DraftCounters()

    def record(
        self, scheduler_stats: Any, iteration_stats: Any, mm_cache_stats: Any = None, engine_idx: int = 0
    ) -> None:
        """Add a step."""
        drafting = getattr(scheduler_stats, "spec_decoding_stats", None)
        passes = firsts = written = 0
        if iteration_stats is not None:  # each request in the step has left one time there: its first token's, or this
            passes = len(iteration_stats.inter_token_latencies_iter)
            firsts = len(iteration_stats.time_to_first_tokens_iter)
            written = iteration_stats.num_generation_tokens
        was = self.counters
        self.counters = DraftCounters(
            passes=was.passes + passes,
            drafted=was.drafted + (0 if drafting is None else drafting.num_draft_tokens),
            accepted=was.accepted + (0 if drafting is None else drafting.num_accepted_tokens),
            tokens=was.tokens + max(0, written - firsts),
        )
