"""Whether vLLM draws drafted tokens from the right distribution in this process, and what is mended for that.

On a processor without Triton, three things in the rejection sampling of vLLM 0.32 are wrong. Temperature, top-k and
top-p of each drafted token are read from memory that nobody wrote (vLLM's issue 55005), so that tokens are drawn from
another distribution than the model's, or the engine ends. The places that stand for no guess (-1), by which a step is
filled up, may be taken for guesses. And top-k ends the engine at the first step in which nothing is guessed. All three
are tried on small inputs, replaced where they fail, and tried again: a vLLM that has mended them is left alone.
"""

from __future__ import annotations

import functools
import math
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor

NAMES = ("expand_batch_to_tokens", "apply_sampling_constraints", "_rejection_random_sample")
"""What may be replaced in `vllm.v1.sample.rejection_sampler`."""


def draws_exactly() -> bool:
    """Mend what has to be mended in this process, a worker of vLLM's.

    Returns:
        Whether drafted tokens are drawn from the right distribution, as far as can be tried.
    """
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return True
    import vllm.v1.sample.rejection_sampler as sampler

    if not all(hasattr(sampler, name) for name in NAMES):
        return False  # a vLLM that does it otherwise
    if not _expands(sampler):
        sampler.expand_batch_to_tokens = expand_batch_to_tokens
    if not _bears_nothing(sampler):
        sampler.apply_sampling_constraints = bearing_nothing(sampler.apply_sampling_constraints)
    if not _refuses_fillers(sampler):
        sampler._rejection_random_sample = refusing_fillers(sampler._rejection_random_sample)
    return _expands(sampler) and _bears_nothing(sampler) and _refuses_fillers(sampler)


def expand_batch_to_tokens(
    x: Tensor, cu_num_tokens: Tensor, num_tokens: int, replace_from: float = 0, replace_to: float = 0
) -> Tensor:
    """A number of each request, repeated for each of its drafted tokens.

    Args:
        x: A number of each request, `[requests]`.
        cu_num_tokens: Drafted tokens of the requests up to and with each, `[requests]`.
        num_tokens: All of them.
        replace_from: A number that is replaced.
        replace_to: By which.

    Returns:
        `[num_tokens]`, of the type of `x`.
    """
    counts = torch.diff(cu_num_tokens, prepend=cu_num_tokens.new_zeros(1))
    expanded = torch.repeat_interleave(x, counts.long(), output_size=num_tokens)
    return torch.where(expanded == replace_from, torch.full_like(expanded, replace_to), expanded)


def bearing_nothing(constrain: Any) -> Any:
    """Temperature, top-k and top-p of drafted tokens, as vLLM applies them, for steps without any, too.

    Args:
        constrain: vLLM's function: logits `[drafted tokens, vocabulary]`, and whatever else it takes.
    """

    @functools.wraps(constrain)
    def bearing(logits: Tensor, *rest: Any, **more: Any) -> Any:
        return constrain(logits, *rest, **more) if len(logits) else logits

    return bearing


def refusing_fillers(sample: Any) -> Any:
    """Sampling of drafted tokens by vLLM, in which a place that stands for no guess is never accepted.

    Args:
        sample: vLLM's function: outputs, ends of each request's drafts, drafts, their probabilities, those of the
            model, tokens behind the drafts, tokens that replace refused ones, and random numbers, which a draft is
            accepted for if they are at most its probability.
    """

    @functools.wraps(sample, updated=())
    def refusing(
        outputs: Tensor,
        ends: Tensor,
        drafts: Tensor,
        draft_probs: Tensor | None,
        probs: Tensor,
        behind: Tensor,
        instead: Tensor,
        chances: Tensor,
        *rest: Any,
        **more: Any,
    ) -> Any:
        barred = chances.masked_fill(drafts < 0, math.inf)
        return sample(outputs, ends, drafts.clamp(min=0), draft_probs, probs, behind, instead, barred, *rest, **more)

    return refusing


def _expands(sampler: ModuleType) -> bool:
    ends = torch.tensor([2, 3], dtype=torch.int32)
    try:
        heat = sampler.expand_batch_to_tokens(torch.tensor([0.7, 0.0]), ends, 3, replace_from=0, replace_to=1)
        top = sampler.expand_batch_to_tokens(torch.tensor([7, 5], dtype=torch.int32), ends, 3)
        return bool(torch.equal(heat, torch.tensor([0.7, 0.7, 1.0])) and top.tolist() == [7, 7, 5])
    except (TypeError, RuntimeError):  # it takes other arguments
        return False


def _bears_nothing(sampler: ModuleType) -> bool:
    top = torch.tensor([2], dtype=torch.int32)
    how = SimpleNamespace(all_greedy=False, temperature=torch.ones(1), top_k=top, top_p=None)
    try:
        sampler.apply_sampling_constraints(torch.zeros(0, 4), torch.tensor([0], dtype=torch.int32), how)
    except (AttributeError, TypeError, RuntimeError):  # RuntimeError: there is no largest of nothing
        return False
    return True


def _refuses_fillers(sampler: ModuleType) -> bool:
    memory = torch.full((3, 4), 0.25)
    memory[0] = 1.0  # what stands before the probabilities: an index of -1 would find certainty there
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
