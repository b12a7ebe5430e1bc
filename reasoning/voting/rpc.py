"""Reasoning-pruned perplexity consistency: votes weighted by the chains' own probability, improbable chains left out.

Source: Zhou et al., "A Theoretical Study on Bridging Internal Probability and Self-Consistency for LLM Reasoning"
(NeurIPS 2025, arXiv:2510.15444), section 4, and the authors' program.

`sample_and_vote`: the one code path of `self-consistency`, `pc`, `ppl` and `rpc`: draw chains, let them vote.

The most probable chain: no vote, the single chain of lowest perplexity.

Source: the baseline "PPL" of Zhou et al. 2025, arXiv:2510.15444, section 2.

Perplexity consistency: votes weighted by the chains' own probability.

Source: Zhou et al. 2025, arXiv:2510.15444, section 4 (the method without its pruning).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field, JsonValue

from ...core.answer import Candidate, Solution
from ...core.errors import LimitExceeded
from ...core.events import VoteUpdated
from ...core.messages import Completion, Prompt
from ...core.question import Question
from ...core.run import Run
from ...serving.metered import MeteredModel
from ...serving.model import Feature
from ..answers.normalization import thoughts_end
from ..candidates import shown_text
from ..sampling import Drawn, SampledChains
from ..stopping import NoStop
from ..strategy import Models, Stability
from .answer_classes import answer_classes
from .path_votes import Method, Path, Vote, VoteOptions, vote

Scope = Literal["all", "answer"]
"""Which tokens make a chain's probability: all, or those behind its thoughts."""


async def sample_and_vote(
    method: Method,
    config: SampledChains,
    options: VoteOptions,
    question: Question,
    models: Models,
    run: Run,
    scope: Scope = "all",
) -> Solution:
    """Draw chains and count their votes.

    Args:
        method: How votes count.
        config: What is drawn.
        options: How the probabilities of chains are read.
        question: The question.
        models: The models; "main" is sampled.
        run: The run.
        scope: Which tokens make a chain's probability.
    """
    drawn = await config.draw(question, models, run)
    extra: dict[str, JsonValue] = {}
    if not isinstance(config.stopping, NoStop):
        extra["stopping"] = drawn.notes(config.stopping)
    if not drawn.candidates:
        return Solution(chosen=None, stopped=drawn.stopped, notes=extra)

    means = (
        [None] * len(drawn.chains)
        if method == "sc"
        else (await mean_logprobs(models.main, config.prompt(question), drawn.chains, scope))
    )
    paths = [Path(shown_text(c), c.answer, s) for c, s in zip(drawn.candidates, means, strict=True)]
    classes = await answer_classes([p.answer for p in paths], question)
    counted = vote(paths, classes, method, options)
    for what in counted.degraded:
        run.degrade(what)
    return _solution(counted, drawn, classes, run, extra)


async def mean_logprobs(
    model: MeteredModel, prompt: Prompt, chains: Sequence[Completion], scope: Scope = "all"
) -> list[float | None]:
    """Mean log-probability of each chain's tokens, in nats.

    Where the backend hides those of what it generated but can score given text, the chains are scored in a second pass.
    With scope "answer", so is what stands behind a chain's thoughts; a chain without thoughts counts whole. None where
    neither can be had, and for a chain whose probability the backend hides and that calls tools: how it was written is
    not known.
    """
    begins = [thoughts_end(c.text) if scope == "answer" else 0 for c in chains]
    means = [
        math.fsum(c.logprobs) / len(c.logprobs) if c.logprobs and not begin else None
        for c, begin in zip(chains, begins, strict=True)
    ]
    lacking = [
        i
        for i, mean in enumerate(means)
        if mean is None and not chains[i].tool_calls and chains[i].text[begins[i] :].strip()
    ]
    if not lacking or not model.capabilities.scoring:
        return means
    # chains without a beginning of their own share one prompt, and are scored as one call
    by_thought: dict[str, list[int]] = {}
    for i in lacking:
        by_thought.setdefault(chains[i].text[: begins[i]], []).append(i)
    try:
        for thought, members in by_thought.items():
            asked = prompt.with_prefix(thought) if thought else prompt
            scored = await model.score(asked, [chains[i].text[begins[i] :] for i in members])
            for i, found in zip(members, scored, strict=True):
                means[i] = found.logprob / len(found.logprobs) if found.logprobs else None
    except LimitExceeded:
        pass  # what could not be paid for stays unknown, and the vote says so
    return means


def _solution(
    counted: Vote, drawn: Drawn, classes: Sequence[Sequence[int]], run: Run, extra: dict[str, JsonValue]
) -> Solution:
    """The vote as a solution: every chain scored by its class's confidence."""
    candidates, total = drawn.candidates, len(drawn.candidates)
    if counted.used == "sc":
        shares = _weighed_shares(drawn, classes)
        ranked = sorted(classes, key=lambda members: -shares[members[0]])  # stable: the one reached first stays first
        votes = {str(candidates[members[0]].answer): len(members) for members in ranked}
        chosen = ranked[0][0] if ranked else 0
        score = {i: shares[members[0]] for members in classes for i in members}
    else:
        votes = {str(c.answer): len(c.members) for c in counted.classes}
        chosen = counted.classes[0].representative if counted.classes else 0
        score = {i: c.confidence for c in counted.classes for i in c.members}
    run.emit(VoteUpdated(votes=votes, total=total))
    notes: dict[str, JsonValue] = {"votes": dict(votes), **extra}
    if counted.method != "sc":
        notes["vote"] = {
            "method": counted.used,
            "confidences": {str(c.answer): c.confidence for c in counted.classes},
            "pruned": list(counted.pruned),
            "unparsed": counted.unparsed,
            "fit": None if counted.fit is None else counted.fit.diagnostics(),
        }
    scored: list[Candidate] = [c.model_copy(update={"score": score.get(i)}) for i, c in enumerate(candidates)]
    return Solution(
        chosen=chosen,
        candidates=tuple(scored),
        confidence=score.get(chosen, 0.0),
        stopped=drawn.stopped,
        notes=notes,
    )


def _weighed_shares(drawn: Drawn, classes: Sequence[Sequence[int]]) -> dict[int, float]:
    """Share of all samples' weight by class (under its first member), samples without an answer included."""
    weights = drawn.weights
    total = math.fsum(weights)
    return {members[0]: math.fsum(weights[i] for i in members) / total if total else 0.0 for members in classes}


class RPC:
    """Sample up to `n` chains, prune improbable ones, weight the votes of the rest by their probability.

    A mixture of two Weibull distributions over the chains' probabilities tells which are pruned; an answer's confidence
    is its share of the probability of the distinct chains that are left.

    Model calls: as `self-consistency`, and no further ones: a backend that hides log-probabilities but scores given
    text is asked once more, one that can do neither makes it self-consistency, which the answer tells.

    Differs: chains without an answer are left out of the fit and the vote, a text that was sampled twice counts once,
    and nothing is pruned where the fit says nothing (`consistency.pruning`); `init="reference"`, `dedup="reference"`,
    `unparsed="class"` and `guards="reference"` are the authors' readings. The paper draws 64 to 128 chains at
    temperature 1 and top-p 0.95; the defaults here are those of `self-consistency`, with more chains. Below about 16
    chains `pc` and `self-consistency` do as well.
    """

    name: ClassVar[str] = "rpc"
    summary: ClassVar[str] = "many sampled chains, votes weighted by their probability, improbable chains pruned"
    paper: ClassVar[str] = "Zhou et al. 2025, arXiv:2510.15444"
    stability: ClassVar[Stability] = "beta"
    requires: ClassVar[frozenset[Feature]] = frozenset()
    roles: ClassVar[tuple[str, ...]] = ("main",)
    takes_tools: ClassVar[bool] = True

    class Config(SampledChains):
        """Parameters of `rpc`."""

        n: Annotated[int, Field(ge=1, le=4096, description="most chains")] = 32
        init: Annotated[Literal["reference", "multistart"], Field(description="start of the fit")] = "reference"
        dedup: Annotated[Literal["max", "reference"], Field(description="what several chains of one text count")] = (
            "max"
        )
        unparsed: Annotated[Literal["drop", "class"], Field(description="chains without an answer")] = "drop"
        scope: Annotated[
            Scope, Field(description="tokens that make a chain's probability: all, or those behind its thoughts")
        ] = "all"
        guards: Annotated[Literal["full", "reference"], Field(description="when nothing is pruned")] = "full"

    def __init__(self, config: Config) -> None:
        self.config = config

    async def solve(self, question: Question, models: Models, run: Run) -> Solution:
        """See `Strategy.solve`."""
        config = self.config
        options = VoteOptions(init=config.init, dedup=config.dedup, unparsed=config.unparsed, guards=config.guards)
        return await sample_and_vote("rpc", config, options, question, models, run, config.scope)


class Perplexity:
    """Sample up to `n` chains and answer with the one of lowest perplexity.

    Confidence is its probability as a geometric mean over its tokens, which is far too high for a chance of being
    right: calibrate it before it is read as one. Model calls and what is done without log-probabilities: as `rpc`.
    """

    name: ClassVar[str] = "ppl"
    summary: ClassVar[str] = "many sampled chains, the most probable one answers"
    paper: ClassVar[str] = "Zhou et al. 2025, arXiv:2510.15444"
    stability: ClassVar[Stability] = "beta"
    requires: ClassVar[frozenset[Feature]] = frozenset()
    roles: ClassVar[tuple[str, ...]] = ("main",)
    takes_tools: ClassVar[bool] = True

    class Config(SampledChains):
        """Parameters of `ppl`."""

    def __init__(self, config: Config) -> None:
        self.config = config

    async def solve(self, question: Question, models: Models, run: Run) -> Solution:
        """See `Strategy.solve`."""
        return await sample_and_vote("ppl", self.config, VoteOptions(), question, models, run)


class PerplexityConsistency:
    """Sample up to `n` chains; each answer's confidence is its share of the probability of all distinct chains.

    The probability of a chain is the geometric mean of its tokens' (1 / perplexity). Model calls and what is done
    without log-probabilities: as `rpc`.
    """

    name: ClassVar[str] = "pc"
    summary: ClassVar[str] = "many sampled chains, votes weighted by their probability"
    paper: ClassVar[str] = "Zhou et al. 2025, arXiv:2510.15444"
    stability: ClassVar[Stability] = "beta"
    requires: ClassVar[frozenset[Feature]] = frozenset()
    roles: ClassVar[tuple[str, ...]] = ("main",)
    takes_tools: ClassVar[bool] = True

    class Config(SampledChains):
        """Parameters of `pc`."""

    def __init__(self, config: Config) -> None:
        self.config = config

    async def solve(self, question: Question, models: Models, run: Run) -> Solution:
        """See `Strategy.solve`."""
        return await sample_and_vote("pc", self.config, VoteOptions(), question, models, run)
