"""RPC: votes weighted by the chains' own probability, improbable chains pruned.

    sample n chains; p of a chain = the geometric mean of its answer's tokens' probabilities
    rpc     prune improbable chains by a mixture of two Weibull distributions over p; then as pc
    pc      answer: the class of equal answers with the largest sum of p over its distinct chains
    ppl     answer: that of the most probable chain

Source: Zhou et al., "A Theoretical Study on Bridging Internal Probability and Self-Consistency for LLM Reasoning"
(NeurIPS 2025, arXiv:2510.15444), sections 2 and 4, and the authors' program. Of `scope="thought"`: Fu et al., "Deep
Think with Confidence" (2025, arXiv:2508.15260), equations 2 to 4 and section 3.2 (offline thinking: the chains of the
highest confidence vote, each weighted by it):

    confidence of a token   minus the mean log-probability of the k most likely tokens at its position: high where one
                            token has nearly all the mass
    confidence of a group   mean over `window` consecutive tokens, for each position of the window; of a thought shorter
                            than the window, all tokens are one group
    confidence of a chain   the mean of the lowest tenth of its groups
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Annotated, ClassVar, Final, Literal, Self

from pydantic import Field, JsonValue, model_validator

from ...core.errors import BudgetExceeded
from ...core.events import VoteUpdated
from ...core.messages import Completion, Prompt, Thought, TopToken
from ...core.run import Run
from ...core.types import Candidate, Question, Solution
from ...serving.metered.model import MeteredModel
from ...serving.model import Feature
from ...serving.profiles.profile import ModelProfile
from ...serving.quick_calls import without_thought
from ..answers.calls import settle_calls
from ..answers.equivalence import answer_classes
from ..answers.extraction import is_unfinished, text_with_calls
from ..sampling import SampleSet, SamplingConfig
from ..strategy import MAX_CHAINS, Models, Stability
from .path_votes import Parity, Path, Vote, vote
from .self_consistency import majority_solution, sampling_notes, weighted_vote

KEEP: Final = 0.9
"""Share of the chains that vote with `scope="thought"`; the paper keeps 0.9, or 0.1 of several hundred."""

TOP_LOGPROBS: Final = 20
"""Most likely tokens that count at a position."""
WINDOW: Final = 2048
"""Tokens of a group in the paper."""
BOTTOM_SHARE: Final = 0.1

Scope = Literal["answer", "thought", "all"]
"""Which tokens weigh a chain: those of its answer, of the thought before it, or all."""


class RPC:
    """Sample up to `n` chains, prune improbable ones, weight the votes of the rest by their probability.

    A mixture of two Weibull distributions over the chains' probabilities decides which are pruned; an answer's
    confidence is its share of the probability of the distinct chains that are left, times the share of all chains that
    were not cut before they stated an answer. `method="pc"` prunes nothing. With `method="ppl"`, the paper's baseline,
    the most probable chain answers; its probability is far too high for that of being right.

    A chain's probability is that of its answer, without the thought before it, which is nearly all of the tokens and
    says little about the answer. With `scope="thought"` the vote is DeepConf's instead (Fu et al. 2025,
    arXiv:2508.15260): the chains whose thoughts have the highest group confidence vote, each weighted by it.

    Model calls: as `self-consistency`. A backend that hides log-probabilities but scores given text is called once
    more; with one that can do neither, and with `scope="thought"` if the thoughts' are hidden, the vote is
    self-consistency, and the answer reports it.

    Differs: chains without an answer are left out of the fit and the vote, a text that was sampled twice counts once,
    and nothing is pruned if the fit carries no information (`path_votes.prune`); `parity="reference"` follows the
    authors' program. The paper samples 64 to 128 chains at temperature 1 and top-p 0.95; the defaults here are those of
    `self-consistency`, with more chains. Below about 16 chains `pc` and `self-consistency` do as well.
    """

    name: ClassVar[str] = "rpc"
    summary: ClassVar[str] = "sample many chains, weight their votes by their probability, and prune improbable chains"
    paper: ClassVar[str] = "Zhou et al. 2025, arXiv:2510.15444"
    confidence: ClassVar[str] = (
        "The answer's share of the probability of the distinct chains that are left after pruning, times the share of "
        "finished chains; with method=ppl, the probability of the most probable chain."
    )
    stability: ClassVar[Stability] = "beta"
    requires: ClassVar[frozenset[Feature]] = frozenset()
    roles: ClassVar[tuple[str, ...]] = ("main",)
    supports_tools: ClassVar[bool] = True

    class Config(SamplingConfig):
        """Parameters of `rpc`."""

        n: Annotated[int, Field(ge=1, le=MAX_CHAINS, description="maximum number of chains")] = 32
        method: Annotated[
            Literal["rpc", "pc", "ppl"],
            Field(description="rpc; pc, which prunes nothing; or ppl, the most probable chain"),
        ] = "rpc"
        scope: Annotated[
            Scope,
            Field(description="tokens that weigh a chain: of its answer, of its thought (by group confidence), or all"),
        ] = "answer"
        parity: Annotated[
            Parity, Field(description="reference counts the votes exactly as the authors' program does")
        ] = "none"

        @model_validator(mode="after")
        def _has_reference(self) -> Self:
            if self.scope == "thought" and self.parity == "reference":
                raise ValueError("parity=reference is of the authors' program, which has no scope=thought")
            return self

    def __init__(self, config: Config) -> None:
        self.config = config

    async def solve(self, question: Question, models: Models, run: Run) -> Solution:
        config = self.config
        is_thought = config.scope == "thought"
        samples = await config.sample(
            question, models, run, logprobs=not is_thought, top_logprobs=TOP_LOGPROBS if is_thought else 0
        )
        notes = sampling_notes(config, samples)
        if not samples.candidates:
            return Solution(chosen=None, stopped=samples.stopped, notes=notes)
        if is_thought:
            return await self._vote_by_thoughts(samples, question, run, notes)
        means = await mean_logprobs(models.main, config.prompt(question), samples.completions, config.scope)
        paths = [
            Path(_path_text(c, i), c.answer, mean)
            for i, (c, mean) in enumerate(zip(samples.candidates, means, strict=True))
        ]
        classes = await answer_classes([path.answer for path in paths], question, run)
        result = vote(paths, classes, config.method, config.parity)
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
            return majority_solution(samples, classes, question, run, notes)
        return _solution(result, samples, question, run, notes)

    async def _vote_by_thoughts(
        self, samples: SampleSet, question: Question, run: Run, notes: dict[str, JsonValue]
    ) -> Solution:
        """The vote of DeepConf, by confidence: "rpc" keeps the most confident chains, "pc" all, "ppl" one."""
        method, candidates = self.config.method, samples.candidates
        confidences = [thought_confidence(c) for c in samples.completions]
        voters = [i for i, candidate in enumerate(candidates) if candidate.answer is not None]
        known = [value for i in voters if (value := confidences[i]) is not None]
        if len(known) < len(voters) or not voters:
            if voters:
                without = "the log-probabilities of thoughts are hidden, or there is no thought"
                run.degrade(f"{method}: scope=thought: {without}, used self-consistency")
            notes["vote"] = {"method": "sc", "scope": "thought"}
            classes = await answer_classes([candidate.answer for candidate in candidates], question, run)
            return majority_solution(samples, classes, question, run, notes)
        kept = [voters[i] for i in most_confident(known, KEEP if method == "rpc" else 1.0)]
        if method == "ppl":
            kept = [voters[max(range(len(known)), key=lambda i: (known[i], -i))]]
        weights = [(confidences[i] or 0.0) if i in kept else 0.0 for i in range(len(candidates))]
        # confidences of 0 are of uniform distributions: nothing tells these chains apart
        weights = weights if any(weights) else [float(i in kept) for i in range(len(candidates))]
        result = await weighted_vote(candidates, weights, question, run)
        assert result is not None  # a chain that votes has an answer and a weight
        notes["vote"] = {
            "method": method,
            "scope": "thought",
            "confidences": list(confidences),
            "kept": list(kept),
            "weights": dict(result.sums),
        }
        finished = 1.0 if method == "ppl" else _share_finished(candidates)
        solution = Solution(
            chosen=result.chosen,
            candidates=tuple(c.model_copy(update={"score": v}) for c, v in zip(candidates, confidences, strict=True)),
            confidence=result.share * finished,
            stopped=samples.stopped,
            notes=notes,
        )
        shares = [finished * math.fsum(weights[i] for i in own) / math.fsum(weights) for own in result.classes]
        return settle_calls(solution, result.classes, shares, question)


def _path_text(candidate: Candidate, index: int) -> str:
    """What makes two chains duplicates: thought and text; a hidden thought equals no other."""
    thought = candidate.thought or (f"hidden thought {index}" if candidate.thinking_tokens else "")
    return "\n\n".join(part for part in (thought, text_with_calls(candidate)) if part)


async def mean_logprobs(
    model: MeteredModel, prompt: Prompt, completions: Sequence[Completion], scope: Scope = "answer"
) -> list[float | None]:
    """Mean log-probability of each chain's tokens, in nats.

    If the backend hides log-probabilities of generated tokens but can score given text, the chains' answers are scored
    in a second pass, each after its thought. None if neither can be had: for a chain whose thought is hidden or cannot
    be given to the model, for one with hidden log-probabilities that calls tools, since its exact text is unknown, and
    with scope "all" for one whose thought's are hidden.
    """
    means = [_mean(c, scope) for c in completions]
    unscored = [
        i
        for i, (mean, c) in enumerate(zip(means, completions, strict=True))
        if mean is None and not c.tool_calls and c.text.strip() and (scope == "answer" or not c.usage.thinking_tokens)
    ]
    if not unscored or not model.capabilities.scoring:
        return means
    # chains with equal thoughts share one prompt, and are scored as one call
    by_prompt: dict[str, tuple[Prompt, list[int]]] = {}
    for i in unscored:
        before = _before_answer(prompt, completions[i], model.profile)
        if before is not None:
            by_prompt.setdefault(before.model_dump_json(), (before, []))[1].append(i)
    try:
        for before, members in by_prompt.values():
            scores = await model.score(before, [completions[i].text for i in members])
            for i, score in zip(members, scores, strict=True):
                means[i] = score.logprob / len(score.logprobs) if score.logprobs else None
    except BudgetExceeded:
        pass  # what the budget does not cover stays unknown, and the vote reports it
    return means


def _mean(completion: Completion, scope: Scope) -> float | None:
    logprobs = completion.answer_logprobs if scope == "answer" else completion.logprobs
    has_hidden_thought = completion.usage.thinking_tokens > 0 and completion.answer_from == 0
    if not logprobs or (scope == "all" and has_hidden_thought):
        return None
    return math.fsum(logprobs) / len(logprobs)


def _before_answer(prompt: Prompt, completion: Completion, profile: ModelProfile) -> Prompt | None:
    """The prompt up to a chain's answer, with its thought; None if the model cannot be given that."""
    thought = completion.thought.text if completion.thought is not None else ""
    if completion.usage.thinking_tokens:
        return prompt.with_thought(Thought(text=thought)) if thought and profile.prefix == "thought" else None
    before = without_thought(prompt, profile)
    return None if profile.starts_thinking(before, None) else before


def _share_finished(candidates: Sequence[Candidate]) -> float:
    return 1 - sum(map(is_unfinished, candidates)) / len(candidates)


def _solution(result: Vote, samples: SampleSet, question: Question, run: Run, notes: dict[str, JsonValue]) -> Solution:
    """The vote as a solution: every chain scored by its class's confidence.

    That confidence is the paper's, over the chains that vote; the solution's (except under "ppl", which is
    about a single chain) is smaller by the share of the chains that were cut before they stated an answer.
    """
    votes = {str(c.answer): len(c.members) for c in result.classes}
    run.emit(VoteUpdated(votes=votes, total=len(samples.candidates)))
    chosen = result.classes[0].representative if result.classes else 0
    score_of = {i: c.confidence for c in result.classes for i in c.members}
    share = 1.0 if result.method_used == "ppl" else _share_finished(samples.candidates)
    solution = Solution(
        chosen=chosen,
        candidates=tuple(c.model_copy(update={"score": score_of.get(i)}) for i, c in enumerate(samples.candidates)),
        confidence=score_of.get(chosen, 0.0) * share,
        stopped=samples.stopped,
        notes={"votes": dict(votes), **notes},
    )
    classes = [c.members for c in result.classes if c.answer is not None]
    shares = [c.confidence * share for c in result.classes if c.answer is not None]
    return settle_calls(solution, classes, shares, question)


def token_confidence(top: Sequence[TopToken]) -> float:
    """Minus the mean log-probability of the listed tokens, in nats; tokens of probability 0 do not count."""
    logprobs = [token.logprob for token in top if token.logprob > -math.inf]
    return -math.fsum(logprobs) / len(logprobs) if logprobs else 0.0


def group_confidences(confidences: Sequence[float], window: int) -> list[float]:
    """The mean of each `window` consecutive tokens; of fewer tokens their mean, of none nothing."""
    size = min(window, len(confidences))
    if not size:
        return []
    sums = [0.0, *accumulate(confidences)]
    return [(sums[i + size] - sums[i]) / size for i in range(len(confidences) - size + 1)]


def chain_confidence(confidences: Sequence[float], window: int = WINDOW) -> float | None:
    """Confidence of a chain from those of its tokens, in nats: the mean of the lowest tenth of its groups.

    Args:
        confidences: `token_confidence` of each token; None is returned without tokens.
    """
    groups = group_confidences(confidences, window)
    if not groups:
        return None
    lowest = sorted(groups)[: max(1, int(BOTTOM_SHARE * len(groups)))]
    return math.fsum(lowest) / len(lowest)


def thought_confidence(completion: Completion) -> float | None:
    """Confidence of a chain's thought, in nats; None if it has none, or if its log-probabilities are hidden."""
    if completion.top_logprobs is None:
        return None
    return chain_confidence([token_confidence(top) for top in completion.top_logprobs[: completion.answer_from]])


def most_confident(confidences: Sequence[float], keep: float) -> list[int]:
    """Positions of the share `keep` of highest confidence, ascending: at least one, of equals the first.

    Args:
        keep: In (0, 1]; the number is rounded up.
    """
    count = max(1, math.ceil(round(keep * len(confidences), 9)))
    ranking = sorted(range(len(confidences)), key=lambda i: (-confidences[i], i))
    return sorted(ranking[:count])
