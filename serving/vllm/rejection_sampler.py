"""Repairs of vLLM's rejection sampling of draft tokens, where it samples from a wrong distribution.

On a CPU without Triton, three things in the rejection sampling of vLLM 0.32 are wrong, the first in 0.33 too.
Temperature, top-k and top-p of each draft token are read from uninitialized memory (vLLM's issue 55005), so that tokens
are sampled from another distribution than the model's, or the engine ends. The placeholders (-1) that fill up a step
may be accepted as draft tokens. And top-k ends the engine at the first step without draft tokens. All three are tried
on small inputs, replaced where they fail, and tried again: a vLLM that has fixed them is left unchanged.
"""

from __future__ import annotations

import functools
import math
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor

PATCHED = ("expand_batch_to_tokens", "apply_sampling_constraints", "_rejection_random_sample")
"""What may be replaced in `vllm.v1.sample.rejection_sampler`."""


def ensure_exact_sampling() -> bool:
    """Repair what has to be repaired in this process, a worker of vLLM's.

    Returns:
        Whether draft tokens are sampled from the right distribution, as far as can be tried.
    """
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return True
    import vllm.v1.sample.rejection_sampler as sampler

    if not all(hasattr(sampler, name) for name in PATCHED):
        return False  # a vLLM with another implementation
    if not _expands(sampler):
        sampler.expand_batch_to_tokens = expand_batch_to_tokens
    if not _accepts_empty(sampler):
        sampler.apply_sampling_constraints = accepting_empty(sampler.apply_sampling_constraints)
    if not _rejects_placeholders(sampler):
        sampler._rejection_random_sample = rejecting_placeholders(sampler._rejection_random_sample)
    return _expands(sampler) and _accepts_empty(sampler) and _rejects_placeholders(sampler)


def expand_batch_to_tokens(
    x: Tensor, cu_num_tokens: Tensor, num_tokens: int, replace_from: float = 0, replace_to: float = 0
) -> Tensor:
    """A number of each request, repeated for each of its draft tokens.

    Args:
        cu_num_tokens: Cumulative number of draft tokens, `[requests]`.

    Returns:
        `[num_tokens]`, of the type of `x`.
    """
    counts = torch.diff(cu_num_tokens, prepend=cu_num_tokens.new_zeros(1))
    expanded = torch.repeat_interleave(x, counts.long(), output_size=num_tokens)
    return torch.where(expanded == replace_from, torch.full_like(expanded, replace_to), expanded)


def accepting_empty(apply_constraints: Any) -> Any:
    """VLLM's `apply_sampling_constraints` (temperature, top-k, top-p of draft tokens), also for steps without any."""

    @functools.wraps(apply_constraints)
    def apply(logits: Tensor, *rest: Any, **more: Any) -> Any:
        return apply_constraints(logits, *rest, **more) if len(logits) else logits

    return apply


def rejecting_placeholders(sample: Any) -> Any:
    """VLLM's sampling of draft tokens, in which a placeholder is never accepted.

    Args:
        sample: vLLM's function: outputs, ends of each request's drafts, draft tokens, their probabilities, those of the
            model, bonus tokens, recovered tokens, and uniform numbers, by which a draft token is accepted if they are
            at most its probability.
    """

    @functools.wraps(sample, updated=())
    def rejecting(
        outputs: Tensor,
        ends: Tensor,
        draft_ids: Tensor,
        draft_probs: Tensor | None,
        target_probs: Tensor,
        bonus_ids: Tensor,
        recovered_ids: Tensor,
        uniform: Tensor,
        *rest: Any,
        **more: Any,
    ) -> Any:
        uniform = uniform.masked_fill(draft_ids < 0, math.inf)
        return sample(
            outputs,
            ends,
            draft_ids.clamp(min=0),
            draft_probs,
            target_probs,
            bonus_ids,
            recovered_ids,
            uniform,
            *rest,
            **more,
        )

    return rejecting


def _expands(sampler: ModuleType) -> bool:
    ends = torch.tensor([2, 3], dtype=torch.int32)
    try:
        temperature = sampler.expand_batch_to_tokens(torch.tensor([0.7, 0.0]), ends, 3, replace_from=0, replace_to=1)
        top_k = sampler.expand_batch_to_tokens(torch.tensor([7, 5], dtype=torch.int32), ends, 3)
        return bool(torch.equal(temperature, torch.tensor([0.7, 0.7, 1.0])) and top_k.tolist() == [7, 7, 5])
    except (TypeError, RuntimeError):  # it has other parameters
        return False


def _accepts_empty(sampler: ModuleType) -> bool:
    top_k = torch.tensor([2], dtype=torch.int32)
    metadata = SimpleNamespace(all_greedy=False, temperature=torch.ones(1), top_k=top_k, top_p=None)
    try:
        sampler.apply_sampling_constraints(torch.zeros(0, 4), torch.tensor([0], dtype=torch.int32), metadata)
    except (AttributeError, TypeError, RuntimeError):  # RuntimeError: the maximum of nothing
        return False
    return True


def _rejects_placeholders(sampler: ModuleType) -> bool:
    memory = torch.full((3, 4), 0.25)
    memory[0] = 1.0  # what precedes the probabilities: an index of -1 would read certainty there
    outputs = torch.full((1, 3), -1, dtype=torch.int32)
    try:
        sampler._rejection_random_sample(
            outputs,
            torch.tensor([2], dtype=torch.int32),
            torch.tensor([-1, -1], dtype=torch.int32),
            None,
            memory[1:],
            torch.tensor([[3]]),
            torch.tensor([2, 1], dtype=torch.int32),
            torch.full((2,), 0.5, dtype=torch.float64),
            torch.tensor([False]),
            2,
            None,
        )
    except (TypeError, RuntimeError):
        return False
    return outputs.tolist() == [[2, -1, -1]]
