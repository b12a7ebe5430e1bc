"""Votes weighted by the chains' own probability: perplexity, perplexity consistency, and RPC.

    sample n chains; p of a chain = the geometric mean of its tokens' probabilities
    ppl     answer: that of the most probable chain
    pc      answer: the class of equal answers with the largest sum of p over its distinct chains
    rpc     prune improbable chains by a mixture of two Weibull distributions over p; then as pc

Source: Zhou et al., "A Theoretical Study on Bridging Internal Probability and Self-Consistency for LLM Reasoning"
(NeurIPS 2025, arXiv:2510.15444), sections 2 and 4, and the authors' program.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field, JsonValue

from ...core.errors import BudgetExceeded
from ...core.events import VoteUpdated
from ...core.messages import Completion, Prompt
from ...core.run import Run
from ...core.types import Question, Solution
from ...serving.metered.model import MeteredModel
from ...serving.model import Feature
from ..answers.normalization import thoughts_end
from ..candidates import text_with_calls
from ..sampling import SampleSet, SamplingConfig
from ..strategy import Models, Stability
from .answer_classes import answer_classes
from .path_votes import Method, Path, Vote, VoteOptions, vote
from .self_consistency import majority_solution, sampling_notes

Scope = Literal["all", "answer"]
"""Which tokens make a chain's probability: all, or those after its thoughts."""


class RPC:
    """Sample up to `n` chains, prune improbable ones, weight the votes of the rest by their probability.

    A mixture of two Weibull distributions over the chains' probabilities decides which are pruned; an answer's
    confidence is its share of the probability of the distinct chains that are left.

    Model calls: as `self-consistency`. A backend that hides log-probabilities but scores given text is called once
    more; with one that can do neither the vote is self-consistency, and the answer reports it.

    Differs: chains without an answer are left out of the fit and the vote, a text that was sampled twice counts once,
    and nothing is pruned if the fit carries no information (`path_votes.prune`); `init="reference"`,
    `dedup="reference"`, `unparsed="class"` and `guards="reference"` follow the authors' program. The paper samples 64
    to 128 chains at temperature 1 and top-p 0.95; the defaults here are those of `self-consistency`, with more chains.
    Below about 16 chains `pc` and `self-consistency` do as well.
    """

    name: ClassVar[str] = "rpc"
    summary: ClassVar[str] = "many sampled chains, votes weighted by their probability, improbable chains pruned"
    paper: ClassVar[str] = "Zhou et al. 2025, arXiv:2510.15444"
    stability: ClassVar[Stability] = "beta"
    requires: ClassVar[frozenset[Feature]] = frozenset()
    roles: ClassVar[tuple[str, ...]] = ("main",)
    supports_tools: ClassVar[bool] = True

    class Config(SamplingConfig):
        """Parameters of `rpc`."""

        n: Annotated[int, Field(ge=1, le=4096, description="maximum number of chains")] = 32
        init: Annotated[Literal["reference", "multistart"], Field(description="start of the fit")] = "reference"
        dedup: Annotated[Literal["max", "reference"], Field(description="weight of several chains of one text")] = "max"
        unparsed: Annotated[Literal["drop", "class"], Field(description="chains without an answer")] = "drop"
        scope: Annotated[
            Scope, Field(description="tokens that make a chain's probability: all, or those after its thoughts")
        ] = "all"
        guards: Annotated[Literal["full", "reference"], Field(description="when nothing is pruned")] = "full"

    def __init__(self, config: Config) -> None:
        self.config = config

    async def solve(self, question: Question, models: Models, run: Run) -> Solution:
        config = self.config
        options = VoteOptions(init=config.init, dedup=config.dedup, unparsed=config.unparsed, guards=config.guards)
        return await _sample_and_vote("rpc", config, options, question, models, run, config.scope)


class PerplexityConsistency:
    """Sample up to `n` chains; each answer's confidence is its share of the probability of all distinct chains.

    The paper's method without its pruning. Model calls, and what happens without log-probabilities: as `rpc`.
    """

    name: ClassVar[str] = "pc"
    summary: ClassVar[str] = "many sampled chains, votes weighted by their probability"
    paper: ClassVar[str] = "Zhou et al. 2025, arXiv:2510.15444"
    stability: ClassVar[Stability] = "beta"
    requires: ClassVar[frozenset[Feature]] = frozenset()
    roles: ClassVar[tuple[str, ...]] = ("main",)
    supports_tools: ClassVar[bool] = True

    class Config(SamplingConfig):
        """Parameters of `pc`."""

    def __init__(self, config: Config) -> None:
        self.config = config

    async def solve(self, question: Question, models: Models, run: Run) -> Solution:
        return await _sample_and_vote("pc", self.config, VoteOptions(), question, models, run)


class Perplexity:
    """Sample up to `n` chains and answer with the one of lowest perplexity: the paper's baseline "PPL".

    Confidence is the chain's probability as a geometric mean over its tokens, which is far too high for a probability
    of being right: calibrate it first. Model calls, and what happens without log-probabilities: as `rpc`.
    """

    name: ClassVar[str] = "ppl"
    summary: ClassVar[str] = "many sampled chains, the most probable one answers"
    paper: ClassVar[str] = "Zhou et al. 2025, arXiv:2510.15444"
    stability: ClassVar[Stability] = "beta"
    requires: ClassVar[frozenset[Feature]] = frozenset()
    roles: ClassVar[tuple[str, ...]] = ("main",)
    supports_tools: ClassVar[bool] = True

    class Config(SamplingConfig):
        """Parameters of `ppl`."""

    def __init__(self, config: Config) -> None:
        self.config = config

    async def solve(self, question: Question, models: Models, run: Run) -> Solution:
        return await _sample_and_vote("ppl", self.config, VoteOptions(), question, models, run)


async def _sample_and_vote(
    method: Method,
    config: SamplingConfig,
    options: VoteOptions,
    question: Question,
    models: Models,
    run: Run,
    scope: Scope = "all",
) -> Solution:
    samples = await config.sample(question, models, run)
    notes = sampling_notes(config, samples)
    if not samples.candidates:
        return Solution(chosen=None, stopped=samples.stopped, notes=notes)
    means = await mean_logprobs(models.main, config.prompt(question), samples.completions, scope)
    paths = [Path(text_with_calls(c), c.answer, s) for c, s in zip(samples.candidates, means, strict=True)]
    classes = await answer_classes([path.answer for path in paths], question)
    result = vote(paths, classes, method, options)
    for reason in result.degraded:
        run.degrade(reason)
    notes["vote"] = {
        "method": result.method_used,
        "confidences": {str(c.answer): c.confidence for c in result.classes},
        "pruned": list(result.pruned),
        "unparsed": result.unparsed,
        "fit": None if result.fit is None else result.fit.diagnostics(),
    }
    if result.method_used == "sc":
        return majority_solution(samples, classes, run, notes)
    return _solution(result, samples, run, notes)


async def mean_logprobs(
    model: MeteredModel, prompt: Prompt, completions: Sequence[Completion], scope: Scope = "all"
) -> list[float | None]:
    """Mean log-probability of each chain's tokens, in nats.

    If the backend hides log-probabilities of generated tokens but can score given text, the chains are scored in a
    second pass. With scope "answer", so is the text after a chain's thoughts; a chain without thoughts counts entirely.
    None if neither can be had, and for a chain with hidden log-probabilities that calls tools, since its exact text is
    unknown.
    """
    starts = [thoughts_end(c.text) if scope == "answer" else 0 for c in completions]
    means = [
        math.fsum(c.logprobs) / len(c.logprobs) if c.logprobs and not start else None
        for c, start in zip(completions, starts, strict=True)
    ]
    unscored = [
        i
        for i, mean in enumerate(means)
        if mean is None and not completions[i].tool_calls and completions[i].text[starts[i] :].strip()
    ]
    if not unscored or not model.capabilities.scoring:
        return means
    # chains without a prefix of their own share one prompt, and are scored as one call
    by_thoughts: dict[str, list[int]] = {}
    for i in unscored:
        by_thoughts.setdefault(completions[i].text[: starts[i]], []).append(i)
    try:
        for thoughts, members in by_thoughts.items():
            prefixed = prompt.with_prefix(thoughts) if thoughts else prompt
            scores = await model.score(prefixed, [completions[i].text[starts[i] :] for i in members])
            for i, score in zip(members, scores, strict=True):
                means[i] = score.logprob / len(score.logprobs) if score.logprobs else None
    except BudgetExceeded:
        pass  # what the budget does not cover stays unknown, and the vote reports it
    return means


def _solution(result: Vote, samples: SampleSet, run: Run, notes: dict[str, JsonValue]) -> Solution:
    """The vote as a solution: every chain scored by its class's confidence."""
    votes = {str(c.answer): len(c.members) for c in result.classes}
    run.emit(VoteUpdated(votes=votes, total=len(samples.candidates)))
    chosen = result.classes[0].representative if result.classes else 0
    score_of = {i: c.confidence for c in result.classes for i in c.members}
    return Solution(
        chosen=chosen,
        candidates=tuple(c.model_copy(update={"score": score_of.get(i)}) for i, c in enumerate(samples.candidates)),
        confidence=score_of.get(chosen, 0.0),
        stopped=samples.stopped,
        notes={"votes": dict(votes), **notes},
    )
