"""Quick calls on any `LanguageModel`: a verdict, a label or a quotation, without a thought before it.

`MeteredModel.quick` gives the parameters in a run; here are those of a model outside a run too, the distribution of an
answer's first token, and the report of answers that were cut while the model thought.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ..core.errors import BackendError, UserError
from ..core.messages import Completion, NextTokenDistribution, Prompt, Request, SamplingParams, Thought
from .entropy import token_distribution
from .metered.model import MeteredModel
from .model import Capabilities, LanguageModel
from .profiles.profile import ModelProfile, quick_sampling

JUDGE_REMEDY = "name another model with --judge-model (judge_model= in Python)"


def quick_params(model: LanguageModel, *, max_tokens: int, **params: Any) -> SamplingParams:
    """Parameters of a quick call (see `MeteredModel.quick`).

    Args:
        max_tokens: Maximum tokens of the answer.
        params: Further fields of `SamplingParams`.

    Raises:
        BudgetExceeded: A metered model has to think, and the budget has no room for it; the run says so.
    """
    if isinstance(model, MeteredModel):
        try:
            return model.quick(max_tokens=max_tokens, **params)
        except UserError as e:
            run = model.run
            run.degrade(f"{e.message}: {e.hint}")
            is_thought = run.ledger.remaining("thinking_tokens") < run.ledger.remaining("tokens")
            raise run.ledger.exceeded("thinking_tokens" if is_thought else "tokens") from e
    return quick_sampling(model.capabilities.profile, max_tokens=max_tokens, **params)


def quick_capabilities(model: LanguageModel) -> Capabilities:
    """What a model can do in a quick call."""
    if isinstance(model, MeteredModel):
        return model.quick_capabilities
    return model.capabilities.accepted(thinking=not model.capabilities.profile.can_skip_thinking)


def without_thought(prompt: Prompt, profile: ModelProfile) -> Prompt:
    """The prompt at the beginning of an answer that no thought precedes, where the model can be given one.

    For `score` and `next_token`, which read the tokens right after a prompt.
    """
    is_open = prompt.text is None and prompt.thought is None and not prompt.prefix
    return prompt.with_thought(Thought()) if is_open and profile.prefix == "thought" else prompt


async def first_tokens(
    model: LanguageModel, prompts: Sequence[Prompt], top: int, **params: Any
) -> list[NextTokenDistribution | None]:
    """The distribution of the first token of each answer, in one batch.

    A model that does not think, or can continue the beginning of an answer, generates nothing. Any other generates one
    token of each answer, after a thought if it cannot do otherwise.

    Args:
        top: Number of most likely tokens.
        params: Fields of `SamplingParams` for a model that thinks first.

    Returns:
        A distribution for each prompt; None if its sample failed, or was cut while the model thought.

    Raises:
        BudgetExceeded: The requests do not fit the budget.
        BackendError: Every request failed.
    """
    profile = model.capabilities.profile
    prompts = [without_thought(prompt, profile) for prompt in prompts]
    if not any(profile.starts_thinking(prompt, None) for prompt in prompts):
        return list(await model.next_token(prompts, top))
    sampling = quick_params(model, max_tokens=1, top_logprobs=top, **params)
    requests = [Request(prompt=p, sampling=sampling, is_attempt=False) for p in prompts]
    samples = [s[0] for s in await model.generate(requests)]
    failures = [sample.failure for sample in samples]
    if failures and all(failures):
        raise BackendError(f"{model.name} failed to give any verdict: {failures[0].message if failures[0] else ''}")
    report_cut(model, samples, "verdicts")
    return [_first_token(sample) for sample in samples]


def _first_token(sample: Completion) -> NextTokenDistribution | None:
    if not sample.ok or not sample.answer_top_logprobs:
        return None
    return token_distribution(sample.answer_top_logprobs[0], sample)


def report_cut(model: LanguageModel, samples: Iterable[Completion], what: str) -> None:
    """Report answers that were cut while the model thought, so that there are none; a model outside a run cannot."""
    if isinstance(model, MeteredModel) and any(sample.finish_reason == "thinking" for sample in samples):
        model.run.degrade(
            f"some {what} of {model.name} were cut while it thought, and count as unparsed: {JUDGE_REMEDY}"
        )
