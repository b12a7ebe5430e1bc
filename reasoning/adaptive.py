"""Adaptive sampling: as many samples as the model itself considers necessary, the first one greedy.

    rounds of 1, 1, 2, 4, 8, … samples with rising temperature, until the best sample's quality reaches the threshold
    quality of a sample: the model's own estimate that it is at least as good as a fresh one
    answer: the class of equal answers with the largest sum of qualities

Source: Manvi, Singh and Ermon, "Adaptive Inference-Time Compute: LLMs Can Predict if They Can Do Better, Even
Mid-Generation" (2024, arXiv:2410.02725): adaptive sampling with an annealed temperature, and pruning mid-generation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, JsonValue, model_validator

from ..core.errors import BudgetExceeded, InvalidResponse, UserError
from ..core.events import CandidateAdded, StrategyNote
from ..core.messages import Completion, Prompt, Request, SamplingParams, Thought, Usage
from ..core.run import Run
from ..core.types import Candidate, Question, Solution, Stopped
from ..serving.metered.model import MeteredModel
from ..serving.model import Feature
from .answers.calls import settle_calls
from .answers.equivalence import answer_classes
from .answers.extraction import finished_or_all, read_candidate, text_with_calls
from .conclude import conclude
from .prompts import question_prompt, step_by_step_instruction
from .self_evaluation import EvaluationConfig, SelfEvaluator
from .stopping import Beta, Tally
from .strategy import MAX_CHAINS, MAX_ITEMS, MAX_TOKENS, MAX_WEIGHT, Models, Parameters, Stability

CALIBRATED_THRESHOLD = 0.85
"""Threshold of a calibrated signal."""
MIN_PRUNING_AUROC = 0.6
"""AUROC of the partial samples' quality that pruning needs more than: below, it ends samples at random."""


class Adaptive:
    """Sample in rounds of 1, 1, 2, 4, 8 until the best sample's quality reaches `threshold`, at most `n`.

    The k-th sample has temperature `1 - 2^-(k-1)`: greedy first, then rising; a model that takes no temperature, or
    thinks, samples as its makers recommend. Quality is the model's own estimate that a sample is at least as good as a
    fresh one (`self_evaluation`). The answer is that of the class with the largest sum of qualities.

    With `prune_at`, all `n` samples start at once at temperature 1; at each of these token counts the model judges the
    partial samples, the best share `keep` is continued, and the others end there. Of a model that thinks first, the
    counts are those of the answer after the thought. Early in a sample the signal often says how hard the question is,
    which is the same for all its samples: without a calibrated signal whose measured `auroc` is above 0.6 no sample is
    ended, and the answer reports it. `keep=1` ends none and records the judgements, for `reason eval signal`.

    Model calls: one for each sample of a round (they run as one batch) and two next-token calls for each evaluation.

    With tools, samples that call the same are equal, calls that change something need more than half of all samples
    (`calls.settle_calls`), and no sample is ended early.

    Differs: the paper trains the signal; this one is prompted, and over-confident. An uncalibrated signal stops nothing
    unless `threshold` is set by hand: without either, the Beta rule of Adaptive-Consistency (Aggarwal et al. 2023)
    decides, and the answer reports it. Samples are pruned between continuations of their own prefixes, so that the
    generated text does not depend on the speed of the evaluation. Selecting by class is ours: a prompted signal ranks
    samples of one prompt weakly.
    """

    name: ClassVar[str] = "adaptive"
    summary: ClassVar[str] = "sample as many answers as the model considers necessary; weak ones can be ended early"
    paper: ClassVar[str] = "Manvi et al. 2024, arXiv:2410.02725"
    confidence: ClassVar[str] = "The answer's share of the self-evaluated quality of all samples."
    stability: ClassVar[Stability] = "beta"
    requires: ClassVar[frozenset[Feature]] = frozenset()
    roles: ClassVar[tuple[str, ...]] = ("main",)
    supports_tools: ClassVar[bool] = True

    class Config(Parameters):
        """Parameters of `adaptive`."""

        n: Annotated[int, Field(ge=1, le=MAX_CHAINS, description="maximum number of samples")] = 16
        threshold: Annotated[
            float | None,
            Field(
                ge=-MAX_WEIGHT,
                le=MAX_WEIGHT,
                description="quality at which to stop; by default 0.85 if the signal is calibrated",
            ),
        ] = None
        max_tokens: Annotated[
            int, Field(ge=1, le=MAX_TOKENS, description="maximum tokens of a sample, its thought apart")
        ] = 512
        alpha: Annotated[
            float, Field(ge=-MAX_WEIGHT, le=MAX_WEIGHT, description="offset of the calibrated quality")
        ] = 0.0
        beta: Annotated[float, Field(ge=-MAX_WEIGHT, le=MAX_WEIGHT, description="slope of the calibrated quality")] = (
            1.0
        )
        prune_at: Annotated[
            tuple[Annotated[int, Field(ge=1, le=MAX_TOKENS)], ...],
            Field(max_length=MAX_ITEMS, description="tokens of the answers at which samples are pruned"),
        ] = ()
        keep: Annotated[
            float,
            Field(gt=0, le=1, description="share of the live samples that is continued; 1 only judges them"),
        ] = 0.5
        auroc: Annotated[
            float | None,
            Field(
                ge=0,
                le=1,
                description="AUROC within questions of the quality at prune_at, from `reason eval signal`; pruning "
                "needs more than 0.6",
            ),
        ] = None

        @classmethod
        def sample_factors(cls, values: Mapping[str, Any]) -> dict[str, int]:
            return {"n": values["n"]}

        @model_validator(mode="after")
        def _checkpoints_rise(self) -> Self:
            if list(self.prune_at) != sorted(set(self.prune_at)):
                raise ValueError(f"the token counts of prune_at must rise, got {list(self.prune_at)}")
            return self

        @property
        def evaluation(self) -> EvaluationConfig:
            """How samples are evaluated."""
            return EvaluationConfig(alpha=self.alpha, beta=self.beta)

    def __init__(self, config: Config) -> None:
        self.config = config

    async def solve(self, question: Question, models: Models, run: Run) -> Solution:
        """Answer the question.

        Raises:
            UserError: `prune_at` is set, and the model cannot continue an answer after its own thought.
            InvalidResponse: Every sample failed.
        """
        config = self.config
        if config.prune_at and models.main.thinks and models.main.profile.prefix != "thought":
            raise UserError(
                f"prune_at={list(config.prune_at)} continues partial answers after their thoughts, which model "
                f"{models.main.name!r} does not support",
                hint="leave prune_at unset, or set the effort to none",
                param="prune_at",
            )
        prompt = question_prompt(question, step_by_step_instruction(question))
        evaluator = SelfEvaluator(models.main, question, run, config.evaluation)
        samples = _EvaluatedSamples(prompt, question, models.main, run, evaluator)
        try:
            if config.prune_at:
                await self._sample_with_pruning(prompt, models.main, samples)
            else:
                await self._sample_in_rounds(prompt, models.main, samples)
        except BudgetExceeded as e:
            run.record_limit(e)
            samples.stopped = "budget"
        samples.check_failures()
        return samples.solution()

    async def _sample_in_rounds(self, prompt: Prompt, model: MeteredModel, samples: _EvaluatedSamples) -> None:
        config, threshold = self.config, self._threshold()
        rule = Beta()
        if threshold is None:
            samples.run.degrade(
                "adaptive: the self-evaluation is not calibrated, so agreement decides when to stop (beta rule)"
            )
        samples.notes["rule"] = (
            rule.model_dump(mode="json") if threshold is None else {"rule": "self-evaluation", "threshold": threshold}
        )
        num_requested = 0
        while num_requested < config.n and samples.stopped == "done":
            size = min(config.n - num_requested, max(1, num_requested))  # 1, 1, 2, 4, 8
            requests = [
                Request(
                    prompt=prompt,
                    sampling=self._sampling(k),
                    sample_indices=(k - 1,),
                )
                for k in range(num_requested + 1, num_requested + size + 1)
            ]
            completions = await samples.generate(requests)
            num_requested += size
            await samples.add(completions)
            if samples.candidates and (
                rule.should_stop(samples.tally) if threshold is None else reaches_threshold(samples.quality, threshold)
            ):
                break
        samples.notes["samples"] = num_requested

    async def _sample_with_pruning(self, prompt: Prompt, model: MeteredModel, samples: _EvaluatedSamples) -> None:
        """All samples at once; the weakest partial samples end at each checkpoint."""
        config = self.config
        ends = [t for t in config.prune_at if t < config.max_tokens] + [config.max_tokens]
        if samples.question.needs_tools:
            reason = "a tool call that was cut cannot be continued"
        else:
            reason = self._no_pruning_reason() if config.keep < 1 else ""
        if reason:
            samples.run.degrade(f"adaptive: no sample was ended early: {reason}")
            ends = [config.max_tokens]
        live = [_PrunableSample(index) for index in range(config.n)]
        pruned: list[JsonValue] = []
        samples.notes["samples"], samples.notes["pruned"] = config.n, pruned
        position = 0
        try:
            for checkpoint in ends:
                requests = [
                    Request(
                        prompt=partial.continued(prompt),
                        sampling=self._sampling(None, checkpoint - position),
                        sample_indices=(partial.index,),
                    )
                    for partial in live
                ]
                for partial, completion in zip(live, await samples.generate(requests), strict=True):
                    partial.append(completion)
                position = checkpoint
                finished, live = [p for p in live if not p.is_unfinished], [p for p in live if p.is_unfinished]
                await samples.add([partial.completion() for partial in finished])
                if not live or checkpoint == config.max_tokens:
                    break
                evaluations = await samples.evaluator.evaluate([partial.text for partial in live], unfinished=True)
                quality = [None if e is None else e.q for e in evaluations]
                kept = select_survivors(quality, config.keep)
                ended = [partial.index for i, partial in enumerate(live) if i not in kept]
                judged: dict[str, JsonValue] = {str(p.index): q for p, q in zip(live, quality, strict=True)}
                pruned.append({"at": checkpoint, "live": len(live), "ended": list(ended), "quality": judged})
                data: dict[str, JsonValue] = {"checkpoint": pruned[-1]}
                samples.run.emit(StrategyNote(strategy=Adaptive.name, name="samples.pruned", data=data))
                live = [live[i] for i in kept]
        finally:  # a sample that a limit cut may contain its answer
            await samples.add([partial.completion() for partial in live if partial.is_started])
            samples.notes["indices"] = list(samples.indices)

    def _no_pruning_reason(self) -> str:
        """Why no sample may be ended by its quality; empty if it may."""
        config, measure = self.config, "reason eval signal measures it on a run with keep=1"
        if not config.evaluation.is_calibrated:
            return f"the self-evaluation is not calibrated (alpha and beta are unset); {measure}"
        if config.auroc is None:
            return f"it is not known how well the self-evaluation ranks partial samples (auroc is unset); {measure}"
        if config.auroc <= MIN_PRUNING_AUROC:
            return (
                f"the self-evaluation hardly ranks partial samples: its AUROC is {config.auroc:g}, and pruning needs "
                f"more than {MIN_PRUNING_AUROC:g}"
            )
        return ""

    def _threshold(self) -> float | None:
        """Quality at which to stop; None for an uncalibrated signal without a threshold: then agreement decides."""
        config = self.config
        if config.threshold is None and config.evaluation.is_calibrated:
            return CALIBRATED_THRESHOLD
        return config.threshold

    def _sampling(self, k: int | None, max_tokens: int | None = None) -> SamplingParams:
        """Parameters of the k-th sample, k from 1; None is at the highest temperature."""
        config = self.config
        temperature = 1.0 if k is None else annealed_temperature(k)
        return SamplingParams(default_temperature=temperature, max_tokens=max_tokens or config.max_tokens)


def annealed_temperature(k: int) -> float:
    """Temperature of the k-th sample, k from 1: `1 - 2^-(k-1)`."""
    return 1.0 - 2.0 ** (1 - k)


def reaches_threshold(quality: Sequence[float | None], threshold: float) -> bool:
    """Whether the best quality reaches a threshold; one of 0 or less is reached without a signal."""
    return threshold <= 0 or max((q for q in quality if q is not None), default=-1.0) >= threshold


def select_survivors(quality: Sequence[float | None], keep: float) -> list[int]:
    """Positions of the samples to continue, ascending: the best `ceil(keep * live)`, at least one.

    A sample without a signal ranks after all that have one; of equals the earlier one survives. Only the order of the
    qualities counts.

    Args:
        quality: Quality of each live sample; None without a signal.
        keep: Share to continue, in (0, 1].
    """
    count = max(1, math.ceil(round(keep * len(quality), 9)))
    ranking = sorted(range(len(quality)), key=lambda i: (quality[i] is None, -(quality[i] or 0.0), i))
    return sorted(ranking[:count])


class _PrunableSample:
    """A sample that may be pruned, generated in several continuations of its answer."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.text = ""
        self.is_unfinished = True
        self._answer_ids: tuple[int, ...] = ()
        self._first: Completion | None = None
        self._last: Completion | None = None
        self._usage = Usage()

    @property
    def is_started(self) -> bool:
        return self._last is not None

    def continued(self, prompt: Prompt) -> Prompt:
        """The prompt with the thought and the answer so far."""
        if self._first is None:
            return prompt
        if self._first.thought is None:
            return prompt.with_prefix(self._answer_ids)
        return prompt.with_thought(Thought(text=self._first.thought.text), self._answer_ids)

    def append(self, continuation: Completion) -> None:
        self.text += continuation.text
        self._answer_ids += continuation.token_ids[continuation.answer_from :]
        self._first = self._first or continuation
        self._last = continuation
        self._usage += continuation.usage
        self.is_unfinished = continuation.finish_reason == "length"

    def completion(self) -> Completion:
        """The sample as one completion."""
        assert self._first is not None  # it was started
        assert self._last is not None
        usage = Usage(completion_tokens=self._usage.completion_tokens, thinking_tokens=self._usage.thinking_tokens)
        return self._last.model_copy(
            update={
                "text": self.text,
                "thought": self._first.thought,
                "token_ids": self._answer_ids,
                "answer_from": 0,
                "logprobs": None,
                "usage": usage,
            }
        )


class _EvaluatedSamples:
    """The samples so far with their self-evaluations."""

    def __init__(
        self,
        prompt: Prompt,
        question: Question,
        model: MeteredModel,
        run: Run,
        evaluator: SelfEvaluator,
    ) -> None:
        self._prompt, self._model = prompt, model
        self.question = question
        self.run = run
        self.evaluator = evaluator
        self.candidates: list[Candidate] = []
        self.indices: list[int] = []
        """Sample index of each candidate."""
        self.quality: list[float | None] = []
        self.failures: list[Completion] = []
        self.stopped: Stopped = "done"
        self.notes: dict[str, JsonValue] = {}
        self.classes: list[list[int]] = []
        """Positions of equal answers."""
        self._records: list[JsonValue] = []

    async def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """One completion for each request."""
        return [completion for (completion,) in await self._model.generate(requests)]

    async def add(self, completions: Sequence[Completion]) -> None:
        """Parse, evaluate and count samples; the answers of those cut while the model thought are requested first."""
        completions = await conclude(self._model, [(self._prompt, c) for c in completions], self.question, self.run)
        self.failures += [completion for completion in completions if not completion.ok]
        new = [read_candidate(completion, self.question) for completion in completions if completion.ok]
        self.indices += [completion.sample_index for completion in completions if completion.ok]
        if any(completion.finish_reason == "budget" for completion in completions):
            self.stopped = "budget"
        for candidate in new:
            self.run.emit(CandidateAdded(index=len(self.candidates), answer=candidate.answer))
            self.candidates.append(candidate)
            self.quality.append(None)
        if not new:
            return
        self._set_best()
        self.classes = await answer_classes([c.answer for c in self.candidates], self.question, self.run)
        evaluations = await self.evaluator.evaluate([text_with_calls(c) for c in new])
        self.quality[-len(new) :] = [None if e is None else e.q for e in evaluations]
        self._records += [None if e is None else e.model_dump(mode="json") for e in evaluations]
        self._set_best()

    @property
    def tally(self) -> Tally:
        """The samples as a stopping rule sees them."""
        labels: list[int | None] = [None] * len(self.candidates)
        for number, members in enumerate(self.classes):
            for i in members:
                labels[i] = number
        return Tally(tuple(labels))

    def _set_best(self) -> None:
        if self.candidates:
            self.run.set_best(Solution(chosen=self._best(), candidates=tuple(self.candidates)))

    def _best(self) -> int:
        """The best finished sample; of equals the earlier one, cheaper and sampled at a lower temperature."""
        among = finished_or_all(self.candidates)
        return max(among, key=lambda i: (-math.inf if (q := self.quality[i]) is None else q, -i))

    def check_failures(self) -> None:
        """Raise `InvalidResponse` if all samples failed; report those that did."""
        if self.failures and not self.candidates and (failure := self.failures[0].failure) is not None:
            raise InvalidResponse(f"every sample failed: {failure.message}")
        if self.failures:
            self.run.degrade(f"{len(self.failures)} samples failed and did not count")

    def solution(self) -> Solution:
        """The answer."""
        notes = {**self.notes, "evaluations": self._records}
        if not self.candidates:
            return Solution(chosen=None, stopped=self.stopped, notes=notes)
        scored = tuple(c.model_copy(update={"score": q}) for c, q in zip(self.candidates, self.quality, strict=True))
        if not any(q is not None for q in self.quality):
            self.run.degrade("adaptive: the model's self-evaluation gave no signal, so every sample counts the same")
        sums = {members[0]: math.fsum(self._weight(i) for i in members) for members in self.classes}
        best = self._best()
        shares = [0.0] * len(self.classes)
        if sums:
            leader = max(sums, key=lambda first: (sums[first], -first))
            members = next(m for m in self.classes if m[0] == leader)
            chosen = max(members, key=lambda i: (self._weight(i), -i))
            total = math.fsum(self._weight(i) for i in range(len(self.candidates)))
            confidence = sums[leader] / total if total > 0 else None
            shares = [sums[own[0]] / total for own in self.classes] if total > 0 else shares
        else:
            chosen, confidence = best, self.quality[best]
        solution = Solution(chosen=chosen, candidates=scored, confidence=confidence, stopped=self.stopped, notes=notes)
        return settle_calls(solution, self.classes, shares, self.question)

    def _weight(self, i: int) -> float:
        """Quality of a sample; 1 for all if none has a signal, 0 for those without one among others that have."""
        if all(q is None for q in self.quality):
            return 1.0
        return self.quality[i] or 0.0
