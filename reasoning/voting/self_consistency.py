"""Self-consistency: sample many chains of thought and return the answer that most of them reach.

    sample n chains
    group their answers by mathematical equivalence
    answer: the largest group

Source: Wang et al., "Self-Consistency Improves Chain of Thought Reasoning in Language Models" (ICLR 2023), section 2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from pydantic import JsonValue

from ...core.events import VoteUpdated
from ...core.run import Run
from ...core.types import Candidate, Question, Solution
from ...serving.model import Feature
from ..answers.calls import settle_calls
from ..answers.equivalence import answer_classes
from ..sampling import SampleSet, SamplingConfig
from ..stopping import NoStop
from ..strategy import Models, Stability


async def majority_answer(candidates: Sequence[Candidate], question: Question, run: Run) -> tuple[int, float] | None:
    """The first candidate of the largest class of answers, of equals the one reached first; and its share of all.

    Returns:
        Its position and share; None if no candidate has an answer.
    """
    classes = await answer_classes([candidate.answer for candidate in candidates], question, run)
    if not classes:
        return None
    largest = max(classes, key=len)
    return largest[0], len(largest) / len(candidates)


@dataclass(frozen=True, slots=True)
class WeightedVoteResult:
    """The result of a vote by weight.

    Attributes:
        chosen: Position of the winning answer's heaviest candidate, of equals the first.
        share: The winning answer's share of all weights.
        sums: Sum of weights of each answer, the largest first.
        classes: Positions of equal answers.
    """

    chosen: int
    share: float
    sums: dict[str, float]
    classes: list[list[int]]


async def weighted_vote(
    candidates: Sequence[Candidate], weights: Sequence[float], question: Question, run: Run
) -> WeightedVoteResult | None:
    """Let candidates vote by weight, and emit the votes.

    Args:
        candidates: The candidates; those without an answer do not vote.

    Returns:
        The result; None without any answer or any weight.
    """
    classes = await answer_classes([candidate.answer for candidate in candidates], question, run)
    total = math.fsum(weights)
    if not classes or total <= 0:
        return None
    sums = [math.fsum(weights[i] for i in members) for members in classes]
    ranking = sorted(range(len(classes)), key=lambda k: -sums[k])  # stable: of equals the first
    names = {k: str(candidates[classes[k][0]].answer) for k in ranking}
    run.emit(VoteUpdated(votes={names[k]: len(classes[k]) for k in ranking}, total=len(candidates)))
    chosen = max(classes[ranking[0]], key=lambda i: (weights[i], -i))
    return WeightedVoteResult(chosen, sums[ranking[0]] / total, {names[k]: sums[k] for k in ranking}, classes)


class SelfConsistency:
    """Sample up to `n` chains and let their answers vote: the paper's unweighted sum over chains.

    Model calls: 1 for all `n` samples. With a token budget that does not cover `n` full chains, as many as it covers at
    a time: chains are usually shorter than their limit, so later calls spend what earlier ones left. With `stopping`,
    one call for each round or race.

    Confidence is the winner's share of all samples, those without an answer included. Ties go to the answer reached
    first. Answers are compared by mathematical equivalence, not as strings. Under the rules "confidence" and "lead"
    votes may have weights (`StoppingRule.vote_weights`).
    """

    name: ClassVar[str] = "self-consistency"
    summary: ClassVar[str] = "sample many chains and take a majority vote over their answers"
    paper: ClassVar[str] = "Wang et al. 2023, arXiv:2203.11171"
    confidence: ClassVar[str] = "The answer's share of the votes of all chains."
    family: ClassVar[str] = "votes"
    when_to_use: ClassVar[str] = "The answer is a number, a choice or a name; stopping=lead saves most samples."
    stability: ClassVar[Stability] = "stable"
    requires: ClassVar[frozenset[Feature]] = frozenset()
    roles: ClassVar[tuple[str, ...]] = ("main",)
    supports_tools: ClassVar[bool] = True

    class Config(SamplingConfig):
        """Parameters of `self-consistency`."""

    def __init__(self, config: SamplingConfig) -> None:
        self.config = config

    async def solve(self, question: Question, models: Models, run: Run) -> Solution:
        samples = await self.config.sample(question, models, run)
        notes = sampling_notes(self.config, samples)
        if not samples.candidates:
            return Solution(chosen=None, stopped=samples.stopped, notes=notes)
        classes = await answer_classes([candidate.answer for candidate in samples.candidates], question, run)
        return majority_solution(samples, classes, question, run, notes)


def sampling_notes(config: SamplingConfig, samples: SampleSet) -> dict[str, JsonValue]:
    """The solution's notes on the stopping rule, if there is one."""
    return {} if isinstance(config.stopping, NoStop) else {"stopping": samples.notes(config.stopping)}


def majority_solution(
    samples: SampleSet, classes: Sequence[Sequence[int]], question: Question, run: Run, notes: dict[str, JsonValue]
) -> Solution:
    """The largest class of equal answers by vote weight, of equals the first; see `settle_calls` for calls."""
    candidates, weights = samples.candidates, samples.weights
    total = math.fsum(weights)
    shares = [math.fsum(weights[i] for i in members) / total if total else 0.0 for members in classes]
    ranking = sorted(range(len(classes)), key=lambda k: -shares[k])  # stable
    votes = {str(candidates[classes[k][0]].answer): len(classes[k]) for k in ranking}
    run.emit(VoteUpdated(votes=votes, total=len(candidates)))
    share_of = {i: shares[k] for k, members in enumerate(classes) for i in members}
    chosen = classes[ranking[0]][0] if ranking else 0
    solution = Solution(
        chosen=chosen,
        candidates=tuple(c.model_copy(update={"score": share_of.get(i)}) for i, c in enumerate(candidates)),
        confidence=share_of.get(chosen, 0.0),
        stopped=samples.stopped,
        notes={"votes": dict(votes), **notes},
    )
    return settle_calls(solution, classes, shares, question)
